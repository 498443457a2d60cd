/*
 * The stream of a runner made right for the client: events in, events out.
 *
 * Fast path: when an event equals the last pure text event in everything but its text, the bytes are copied around the
 * text (a learned skeleton: prefix and suffix compared with memcmp, text scanned for its closing quote), with the
 * client's name of the model already in place. Anything else takes the careful path: members are walked, quirks of
 * 8.5.2 and of the corpus repaired, edits made on the original bytes where nothing is wrong with them, and the next
 * skeleton learned. Both paths give the same bytes; a test holds them against each other.
 *
 * Guarantees: same id, created, model in all chunks; a role first for every choice; a finish_reason for every choice;
 * usage only if wanted, then as a last chunk with empty choices, and usage:null before; tool calls with index, id, type;
 * arguments as strings; ends by chunk_finish with [DONE], or by an error, never both silently.
 *
 * Owns: its buffers. Threads: its owner's only.
 */
#ifndef MSWARM_LLM_CHUNK_H
#define MSWARM_LLM_CHUNK_H

#include "base/sse.h"
#include "llm/chat.h"

struct chunk;

struct chunk_opts {
	struct slice model;                /* name that the client used, borrowed while the stream lives */
	struct slice id;                   /* id for all chunks; empty: the runner's, or a made one when it sends none */
	int64_t created_s;                 /* used when the runner sends none */
	bool wants_usage;
};

MUST_CHECK enum errc chunk_new(const struct chunk_opts *o, struct chunk **ret, struct err *e);
void chunk_free(struct chunk *c);          /* NULL is fine */
/*
 * One event of the runner; appends complete events for the client to out. E_UPSTREAM when the runner reported an error
 * (error object, llama.cpp's "error:" field) or sent what is no chunk: *ce is filled, the stream is over.
 * E_TOO_LARGE when out is full (out->max): the caller fails the stream.
 */
MUST_CHECK enum errc chunk_event(struct chunk *c, const struct sse_event *ev, struct buf *out, struct chat_error *ce, struct err *e);
/* The runner's stream ended. Adds what is missing (usage chunk, [DONE]). E_UPSTREAM with *ce when a choice, or all, never
 * finished: "the runner's stream ended without a finish_reason". */
MUST_CHECK enum errc chunk_finish(struct chunk *c, struct buf *out, struct chat_error *ce, struct err *e);
bool chunk_is_done(const struct chunk *c);          /* [DONE] was seen */
bool chunk_has_output(const struct chunk *c);       /* any text or tool call was passed on */
const struct chat_usage *chunk_usage(const struct chunk *c);
uint64_t chunk_fast_count(const struct chunk *c);   /* events that took the fast path, for tests and metrics */

void chunk_be_careful(struct chunk *c);             /* tests: never the fast path */

/* A plain answer of a runner as a stream: role, text, tool calls, finish, usage, [DONE] (8.5.2). */
MUST_CHECK enum errc chunk_from_reply(struct chunk *c, struct slice reply, struct buf *out, struct chat_error *ce, struct err *e);

#endif
