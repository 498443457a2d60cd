/* Shared by llm/call*.c only: what a call is on the inside. */
#ifndef MSWARM_LLM_CALL_PRIV_H
#define MSWARM_LLM_CALL_PRIV_H

#include "llm/call.h"

#define CALL_ERROR_BODY_MAX (64u * 1024)   /* of a runner's refusal; the rest is read and dropped */
#define CALL_ERROR_BODY_KEEP (1u << 20)    /* a refusal longer than this is cut off */

struct demo;

struct call {
	struct call_env env;
	struct call_req r;
	char client[24];
	enum call_phase phase;
	struct ticket *ticket;
	const struct agent *agent;         /* the chosen candidate; borrowed from r.agents */
	uint32_t tried;                    /* bit mask of candidates */
	int status;                        /* of the runner's head, 0 before */
	int64_t retry_after_s;             /* of a refusal: as the runner's head said in seconds, else 1 */
	bool asks_stream;                  /* the runner was asked for a stream */
	bool is_started;                   /* the runner may have begun: no failover, no retry by clients */
	bool is_paused;                    /* the caller has no room */
	bool is_cancelled;                 /* while the pool still holds it */
	bool is_on_pool, is_later_posted, is_done;
	enum errc done_rc;                 /* with is_done: how the transfer ended while paused */
	struct err done_err;
	struct buf body;                   /* what the runner is sent */
	struct buf reply;                  /* a plain reply, or the body of a refusal */
	struct sse sse;
	struct httpc_xfer *xfer;
	struct demo *demo;
	struct loop_timer total;
	struct loop_msg later;             /* deferred: end at once, or go on after a pause */
	struct call_end *end;              /* deferred end; heap, rare */
	struct pool_job prepare;
};

/* The demo agent: speaks like a runner, through the same callbacks as a transfer. */
MUST_CHECK enum errc demo_start(struct loop *l, const struct chat_req *chat, const char *model, bool as_stream,
				const struct httpc_ops *ops, void *ctx, struct demo **ret, struct err *e);
void demo_resume(struct demo *d);
void demo_cancel(struct demo *d);          /* NULL is fine */

#endif
