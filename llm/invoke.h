/*
 * One invocation job from its text to its outcome: read, checked, its agent found, run, its result written. Used for direct
 * jobs (routes/node_job_*) and relayed ones (gateway/relay.c).
 *
 *   invoke_begin -> on_ready -> invoke_run -> on_frames ... -> on_end -> invoke_result -> on_result -> invoke_free
 *
 * on_end may come at any time after invoke_begin, also from inside invoke_begin, invoke_run and invoke_abort; exactly once,
 * unless invoke_free comes first. invoke_result is for who wants the result object; a stream that is not joined has none.
 *
 * Owns: the text of the job, the call, its buffers. Threads: the loop's; what runs on the pool touches nothing of the caller.
 * Source: llm-execution.md 1.6 to 1.8, 3.3, 4.2, 4.3.
 */
#ifndef MSWARM_LLM_INVOKE_H
#define MSWARM_LLM_INVOKE_H

#include "llm/call.h"
#include "llm/chunk.h"
#include "llm/completion.h"
#include "llm/inventory.h"
#include "llm/job.h"

#define INVOKE_REPLY_MAX (64u << 20)

struct invoke_env {                        /* what a job needs of its loop; copied, and what it points to outlives the job */
	struct call_env call;
	struct inventory *inventory;
	const char *node_id;
};

enum invoke_how {
	INVOKE_DONE,
	INVOKE_FAILED,                     /* failure is filled */
	INVOKE_REFUSED,                    /* no room, draining: nothing was begun; failure is filled too */
	INVOKE_UNREADABLE,                 /* no job, or not the one that claims() allows; only e says why */
};

struct invoke_ops {
	/* Further conditions on a job that could be read. THREAD(loop or pool). NULL: none. */
	enum errc (*claims)(void *ctx, const struct invocation *j, struct err *e);
	void (*on_ready)(void *ctx);       /* sound, and its agent is chosen: invoke_run, now or later */
	enum call_take (*on_frames)(void *ctx);    /* of a stream: whole SSE frames were added to frames */
	void (*on_end)(void *ctx, enum invoke_how how, const struct err *e, int64_t retry_after_s);
	void (*on_result)(void *ctx, enum errc rc, const struct err *e);   /* result is filled, or why not */
};

struct invoke_req {
	struct buf *take_text;             /* the job; empty afterwards */
	struct slice attached_key;         /* only ever redacted; copied */
	const char *client;                /* for admission: "direct", "gateway"; static */
	struct buf *frames;                /* where a stream's frames go; borrowed */
	bool wants_join;                   /* a result is wanted of streams too */
	const struct invoke_ops *ops;
	void *ctx;
};

struct invoke {
	/* For the owner to read, from on_ready or on_end on. */
	struct invocation job;
	const struct agent *agent;         /* NULL: none was chosen */
	struct chat_usage usage;
	struct job_error failure;
	struct buf result;                 /* moved out or borrowed */
	int64_t started_mono_ms;           /* invoke_begin */
	bool is_started, is_failed, is_wrong_node;

	/* private to llm/invoke*.c */
	struct invoke_env env;
	const struct invoke_ops *ops;
	void *ctx;
	const char *client;
	struct buf *frames;
	struct buf text, reply, node_id, stream_events;
	struct secret attached;
	struct call_chat *cc;
	struct call *call;
	struct agents *agents;
	struct chunk *chunk;
	struct completion *join;
	char *id;
	struct loop_timer linger;
	struct pool_job pool;
	struct inventory_waiter wait;
	struct err prep_err, chat_err, out_err;
	enum errc prep_rc, chat_rc, out_rc;
	unsigned holds;                    /* callers on the stack */
	bool is_sound, wants_join, is_over, is_freed, is_on_pool, is_waiting, is_in_event;
};

/* E_NO_MEMORY: nothing was begun, the text is gone. E_BUSY: the pool is full. */
MUST_CHECK enum errc invoke_begin(const struct invoke_env *env, const struct invoke_req *r, struct invoke **ret, struct err *e);
void invoke_run(struct invoke *v);                 /* after on_ready, once */
/* Has the call been refused already? The answer comes by on_end in the loop's next turn. */
bool invoke_is_refused(const struct invoke *v);
void invoke_resume(struct invoke *v);              /* after on_frames said CALL_FULL */
/* End it now as failed, by e. Not from inside its callbacks. Nothing when it is over. */
void invoke_abort(struct invoke *v, const struct err *e);
/* Write the result object, with these members added to it (empty: not). */
void invoke_result(struct invoke *v, struct slice node_id, struct slice stream_events);
void invoke_free(struct invoke *v);                /* stops what runs; no callback follows. From anywhere. NULL is fine */
/* Nothing, while another thread writes the result: then usage and failure are that thread's. */
const struct chat_usage *invoke_usage(const struct invoke *v);
const char *invoke_failure(const struct invoke *v);        /* its code; NULL: none is known, also when the caller left */
int64_t invoke_latency_ms(const struct invoke *v);

#endif
