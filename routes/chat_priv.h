/* Shared by routes/chat_create.c (a chat's start) and chat_run.c (its run and end). Everything on the connection's loop. */
#ifndef MSWARM_ROUTES_CHAT_PRIV_H
#define MSWARM_ROUTES_CHAT_PRIV_H

#include "base/pool.h"
#include "llm/chunk.h"
#include "llm/completion.h"
#include "llm/inventory.h"
#include "routes/chat.h"
#include "routes/sink.h"

/* Ends when it has neither a request (q) nor a call, nor work on the pool, nor a letter on its way: chat_release. */
struct chat {
	struct req *q;                 /* NULL once answered */
	struct loop_ctx *ctx;
	struct call_chat *cc;
	struct call *call;
	struct agents *agents;
	const struct agent *agent;     /* who answers; NULL before the runner did */
	struct chunk *chunk;           /* the client wants a stream */
	struct completion *join;       /* the client wants a whole, the runner streams */
	struct sink sink;
	struct loop_timer hold;        /* status_hold_ms; later LINGER_MS */
	struct pool_job pool;          /* the parse of a large request, later the writing of a large answer */
	struct buf reply, out;         /* a large answer: what the runner said, what the client gets */
	struct inventory_waiter wait;
	struct chat_usage usage;
	struct chat_error *out_error;  /* heap, rare */
	struct err pool_err;
	enum errc pool_rc;
	int64_t started_mono_ms;
	char key_id[20];
	bool is_on_pool, is_waiting, is_answered, is_counted;
};

extern const struct call_ops chat_call_ops;
void chat_release(struct chat *c);             /* frees, when nothing is left that points here */
void chat_fail_err(struct chat *c, const struct err *e);
void chat_on_hold(struct loop_timer *t);       /* the status line was held long enough; later: the runner had its time */
void chat_on_gone(struct req *q);              /* the client of a waiting request has left */
void chat_on_closed(struct sink *s, bool is_complete);
void chat_on_stopping(struct sink *s);

#endif
