/*
 * Registration by handle: the account's owner approves this machine elsewhere (gateway.md, later revisions). Threads: main.
 */
#ifndef MSWARM_SERVER_REGISTER_H
#define MSWARM_SERVER_REGISTER_H

#include "gateway/member.h"
#include "server/account.h"

/* Prints the approval code and waits up to 30 minutes. The answer is like that of a bootstrap. */
MUST_CHECK enum errc register_by_handle(struct account *a, const struct member_offer *o, const char *handle, struct member *ret, struct err *e);

#endif
