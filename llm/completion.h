/*
 * Plain (not streamed) answers: a runner's plain reply made right, or a runner's stream joined into one reply.
 * Shape and repairs: llm-execution.md 8.5.1. Members are copied raw; numbers keep their spelling.
 *
 * Threads: its owner's only; completion_fix on large replies (above CHAT_POOL_BYTES) belongs on the pool.
 */
#ifndef MSWARM_LLM_COMPLETION_H
#define MSWARM_LLM_COMPLETION_H

#include "base/sse.h"
#include "llm/chat.h"

struct completion_opts {
	struct slice model, id;            /* as chunk_opts */
	int64_t created_s;
};

/* E_UPSTREAM with *ce when the reply is no completion (not JSON, no choices, an error object under status 200). */
MUST_CHECK enum errc completion_fix(struct slice reply, const struct completion_opts *o, struct buf *out, struct chat_usage *ret_usage, struct chat_error *ce, struct err *e);

struct completion;                         /* a join in progress */
MUST_CHECK enum errc completion_new(const struct completion_opts *o, size_t max_bytes, struct completion **ret, struct err *e);
void completion_free(struct completion *j);
MUST_CHECK enum errc completion_event(struct completion *j, const struct sse_event *ev, struct chat_error *ce, struct err *e);
bool completion_is_done(const struct completion *j);
MUST_CHECK enum errc completion_finish(struct completion *j, struct buf *out, struct chat_usage *ret_usage, struct chat_error *ce, struct err *e);
/* Bytes of text and arguments held: above CHAT_POOL_BYTES completion_finish belongs on the pool. */
size_t completion_size(const struct completion *j);
/* The text of choice 0 so far, and its finish_reason ("" while none): for R3's result. Borrowed. */
struct slice completion_text(const struct completion *j);
const char *completion_finish_reason(const struct completion *j);

#endif
