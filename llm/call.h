/*
 * One model call: admission, choice of the upstream, transfer, limits, failover, cancel. Knows no shape beyond SSE: what
 * the runner says goes to the caller as events (or as one plain reply), in the runner's words.
 *
 * The phases: queued -> preparing (body built, on the pool when large) -> connecting -> waiting (for the head) ->
 * streaming or reading -> ended. call_cancel works in each and closes the transfer at once. A connection failure, or a
 * refusal before a byte of an answer, tries the next candidate; never after the first byte.
 *
 * Threads: the loop's; callbacks never from inside call_start, call_cancel or call_resume. call_cancel is not called from
 * inside a callback (on_event says CALL_STOP instead).
 */
#ifndef MSWARM_LLM_CALL_H
#define MSWARM_LLM_CALL_H

#include "base/httpc.h"
#include "base/pool.h"
#include "base/sse.h"
#include "llm/admission.h"
#include "llm/chat.h"

#define CALL_REPLY_MAX (16u << 20)         /* largest plain reply of a runner; to free 64 MB holds a loop for over 5 ms */
#define CALL_EVENT_MAX (256u * 1024)       /* largest event of a stream */

struct call;

enum call_phase { CALL_QUEUED, CALL_PREPARING, CALL_WAITING, CALL_STREAMING, CALL_READING, CALL_ENDED };

enum call_take {
	CALL_MORE,
	CALL_FULL,                         /* no room: nothing comes until call_resume */
	CALL_STOP,                         /* enough: the transfer is closed, the call is gone, no on_end follows */
};

struct call_end {
	enum errc rc;                      /* E_OK; else what failed, as *error says it for the client */
	struct chat_error error;
	int64_t retry_after_s;             /* 0: none */
	bool is_started;                   /* the runner took the request (x-should-retry: false from then on) */
};

struct call_ops {
	/* The runner answered 2xx. is_stream: events follow; else one on_reply. agent: who answers. */
	void (*on_start)(void *ctx, const struct agent *agent, bool is_stream);
	/* Complete events of a stream. The event counts as taken whatever the answer is. */
	enum call_take (*on_event)(void *ctx, const struct sse_event *ev);
	void (*on_reply)(void *ctx, struct buf *reply);            /* a plain reply, whole; borrowed, or moved out (left empty) */
	/* Exactly once unless cancelled; the call is gone when it returns. */
	void (*on_end)(void *ctx, const struct call_end *end);
};

struct call_env {                          /* what a call needs of its loop; borrowed, outlives it */
	struct loop *loop;
	struct httpc *client;
	struct admission *admission;
	struct pool *pool;
	const struct config *cfg;
};

/* A parsed request with the text that it points into; shared by a route, its call and the pool. */
struct call_chat {
	atomic_uint refs;
	struct buf text;
	struct chat_req chat;
};
/* Takes the text over (take_text is empty afterwards); not parsed yet. */
MUST_CHECK enum errc call_chat_new(struct buf *take_text, struct call_chat **ret, struct err *e);
struct call_chat *call_chat_ref(struct call_chat *cc);
void call_chat_unref(struct call_chat *cc);    /* NULL is fine; any thread */

struct call_req {
	struct call_chat *chat;            /* parsed; the call takes a reference */
	bool is_raw_ollama;                /* chat->text is Ollama's own request, sent as it is to /api/chat; the answer is plain */
	struct agents *agents;             /* snapshot that the candidates live in; the call takes its own reference */
	const struct agent *candidates[AGENT_CANDIDATES_MAX];
	size_t candidate_count;
	bool wants_stream;                 /* what the client asked for; the call decides what the runner is asked for */
	enum admission_class class;
	const char *client;                /* key id, "local", "direct"; copied */
	int64_t client_max;
	int64_t total_ms;                  /* 0: upstream's own limit only */
	const struct call_ops *ops;
	void *ctx;
};

/* Begin. Errors that are known at once (full queue, draining) come through on_end too, from the loop's next turn. */
MUST_CHECK enum errc call_start(const struct call_env *env, const struct call_req *r, struct call **ret, struct err *e);
void call_cancel(struct call *c);          /* no callback follows; the transfer is closed before this returns. Frees. NULL is fine */
void call_resume(struct call *c);
enum call_phase call_phase(const struct call *c);

#endif
