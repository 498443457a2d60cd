/*
 * The list of clients that a gateway lets through to this node: IP addresses, UUIDs, domains (cli-config-service.md, later
 * revisions). JSON in config.json: [{"kind":"domain","value":"example.org","added_at":"..."}]. Threads: main.
 */
#ifndef MSWARM_SERVER_CLIENTS_H
#define MSWARM_SERVER_CLIENTS_H

#include "base/config.h"

/* A comma list of the command line, else of the environment, as JSON; empty when neither gives one. E_BAD_REQUEST:
 * "Invalid mswarm node client identifier: <x>". */
MUST_CHECK enum errc clients_from_options(const struct config *cfg, const char *list, struct buf *out, struct err *e);
/* The list of config.json with these added, or taken away. *ret_changed: how many of them made a difference. */
MUST_CHECK enum errc clients_change(const struct config *cfg, const char *list, bool is_removal, struct buf *out, size_t *ret_changed, struct err *e);
/* "ip", "uuid", "domain", or NULL. */
const char *clients_kind(struct slice s);

#endif
