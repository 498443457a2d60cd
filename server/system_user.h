/*
 * The machine's own node: a system user with a fixed name and home, whose files the service runs on (node install --system).
 * Threads: main, as root.
 */
#ifndef MSWARM_SERVER_SYSTEM_USER_H
#define MSWARM_SERVER_SYSTEM_USER_H

#include "server/cli.h"
#include "server/service.h"

/* Make the user when there is none, and let c->cfg speak of its state folder (unless --state-path says otherwise). */
MUST_CHECK enum errc system_user_make(struct cli *c, struct err *e);
/* What was written as root becomes its own. */
MUST_CHECK enum errc system_user_own(const struct service *s, struct err *e);

#endif
