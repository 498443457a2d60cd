/*
 * One direct LLM job (R3) on the inside. Shared by routes/node_job_*.c only:
 *   node_job_create.c  the handler: from the request to the running call
 *   node_job_run.c     what the caller and the runner do meanwhile
 *   node_job_result.c  results, failures, the end
 *
 * A struct work ends when it has neither a request (q) nor a call nor work on the pool nor a letter on its way.
 * Threads: the connection's loop; what runs on the pool says so and touches nothing of the request.
 */
#ifndef MSWARM_ROUTES_NODE_JOB_PRIV_H
#define MSWARM_ROUTES_NODE_JOB_PRIV_H

#include "llm/chunk.h"
#include "llm/completion.h"
#include "llm/inventory.h"
#include "routes/node_job_gate.h"
#include "routes/sink.h"

#define WORK_REPLY_MAX (64u << 20)
#define WORK_CACHE_CONTROL "no-cache, no-transform"

struct work {
	struct req *q;                 /* NULL once answered or left */
	struct loop_ctx *ctx;
	struct buf body;               /* of the request; job points into it */
	struct invocation job;
	struct token_claims claims;
	struct secret attached;        /* the owner's key that came along; only ever redacted */
	struct call_chat *cc;
	struct call *call;
	struct agents *agents;
	const struct agent *agent;
	struct chunk *chunk;           /* agent path, stream */
	struct completion *join;       /* agent path, plain, and the runner streams */
	char *id;                      /* "chatcmpl-<request id>" */
	struct buf reply;              /* raw path and plain: the answer to make the result of */
	struct buf out;                /* the result */
	struct sink sink;
	struct loop_timer linger;
	struct pool_job pool;          /* preparing, later finishing */
	struct inventory_waiter wait;
	struct chat_usage usage;
	struct job_error failure;
	struct err prep_err, chat_err, out_err;
	enum errc prep_rc, chat_rc, out_rc;
	int64_t started_mono_ms;
	bool is_sound;                 /* invocation_check said so; else failure is filled */
	bool is_wrong_node, is_started, is_failed, is_answered, is_counted;
	bool is_on_pool, is_waiting, is_in_handler;
};

/* node_job_result.c */
void work_release(struct work *c);                     /* frees when nobody holds it any more */
void work_count(struct work *c, bool is_error);        /* into the accounting, once, if it was started */
void work_answer(struct work *c);                      /* q->reply is filled: the request is no longer ours */
void work_answer_err(struct work *c, const struct err *e, int64_t retry_s);
void work_finish_plain(struct work *c);                /* result of what is in reply, or of the failure */
void work_finish_stream(struct work *c);               /* the last frames */
void work_fail(struct work *c);                        /* failure is filled */
void work_fail_chat(struct work *c, const struct chat_error *ce);
void work_fail_err(struct work *c, const struct err *e);

/* node_job_run.c */
extern const struct call_ops work_call_ops;
void work_on_gone(struct req *q);
void work_on_closed(struct sink *s, bool is_complete);
void work_on_stopping(struct sink *s);
void work_on_linger(struct loop_timer *t);

#endif
