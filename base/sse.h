/*
 * Server-sent events in: bytes of any cut go in, complete events come out as borrowed slices of the held bytes.
 * Lines end by \n, \r\n or \r; an event ends at a blank line, or at the end of input (sse_finish).
 * Threads: its owner's only.
 */
#ifndef MSWARM_BASE_SSE_H
#define MSWARM_BASE_SSE_H

#include "base/buf.h"

struct sse_event {
	struct slice raw;     /* the whole block with its blank line, as it came */
	struct slice data;    /* value of the data line; several data lines are joined by \n (then not part of raw) */
	struct slice event;   /* value of "event:", empty when none */
	struct slice error;   /* value of an "error:" line, a habit of llama.cpp (corpus), empty when none */
	bool has_data;
	bool is_plain;        /* raw is exactly "data: " + data + "\n\n": may be forwarded as it is */
};

struct sse {
	struct buf held;      /* bytes of the event that is not complete yet */
	struct buf joined;    /* data of an event with several data lines */
	size_t scanned;       /* bytes of held known to hold no end of event */
	size_t consumed;      /* length of the event handed out last */
	bool is_out_of_memory; /* joining failed: no more events, the next sse_feed says E_NO_MEMORY */
};

void sse_init(struct sse *s, size_t max_event_bytes);
void sse_done(struct sse *s);
/* E_TOO_LARGE when one event passes the limit, or when more than 1 MiB beyond it waits to be fetched: fetch all events
 * after each feed. Any error is the end of the stream. */
MUST_CHECK enum errc sse_feed(struct sse *s, struct slice bytes, struct err *e);
/* Next complete event, valid until the next call of any sse function. Blocks of comments alone are skipped. An event whose
 * blank line ends by a lone \r comes out with the next byte (or sse_finish): until then a \n may belong to it. */
bool sse_next(struct sse *s, struct sse_event *ret);
/* End of input: an event whose blank line never came but whose line is whole is handed out; false when nothing is left.
 * Call until false. */
bool sse_finish(struct sse *s, struct sse_event *ret);

#endif
