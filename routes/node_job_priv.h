/*
 * One direct LLM job (R3) on the inside. Shared by routes/node_job_*.c only:
 *   node_job_create.c  the handler: from the request to the running job
 *   node_job_result.c  its answer: results, failures, the end
 *
 * A struct work ends when it has neither a request (q) nor a job (v). Threads: the connection's loop.
 */
#ifndef MSWARM_ROUTES_NODE_JOB_PRIV_H
#define MSWARM_ROUTES_NODE_JOB_PRIV_H

#include "llm/invoke.h"
#include "routes/node_job_gate.h"
#include "routes/sink.h"

#define WORK_CACHE_CONTROL "no-cache, no-transform"

struct work {
	struct req *q;                 /* NULL once answered or left */
	struct loop_ctx *ctx;
	struct invoke_env env;
	struct token_claims claims;
	struct invoke *v;
	struct sink sink;
	bool is_answered, is_counted;
	bool is_in_handler;
};

/* node_job_result.c */
extern const struct invoke_ops work_invoke_ops;
void work_release(struct work *c);                     /* frees when nobody holds it any more */
void work_answer_err(struct work *c, const struct err *e, int64_t retry_s);
void work_on_gone(struct req *q);
void work_on_closed(struct sink *s, bool is_complete);
void work_on_drained(struct sink *s);
void work_on_stopping(struct sink *s);

#endif
