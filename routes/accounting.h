/*
 * Request accounting: one object a loop sums up, and hands its sums to the store once a second; lost at most with a
 * crash within that second. Totals by agent and key; survives restarts (store/usage.h). Its timer, once a second, is the
 * loop's heartbeat too: by it /healthz tells a stuck loop from a sleeping one.
 *
 * Threads: the loop's; accounting_flush_wait on main after the loop has ended.
 */
#ifndef MSWARM_ROUTES_ACCOUNTING_H
#define MSWARM_ROUTES_ACCOUNTING_H

#include "base/loop.h"
#include "store/usage.h"

struct accounting;

struct accounting_entry {
	const char *agent;                 /* slug; cut at 128 bytes */
	const char *key_id;                /* "" keyless, "direct" for R3 */
	int64_t prompt_tokens, completion_tokens;
	int64_t total_ms;
	bool is_error;
};

MUST_CHECK enum errc accounting_new(struct loop *l, struct store *s, struct accounting **ret, struct err *e);
void accounting_add(struct accounting *a, const struct accounting_entry *n);   /* never fails; counts what it had to drop */
void accounting_flush_wait(struct accounting *a);      /* main, after the loop has ended: what is left goes to the store */
void accounting_free(struct accounting *a);

#endif
