/*
 * A streamed answer fed by a model call: a bounded buffer between the runner and the client, back-pressure in both
 * directions, a keep-alive comment while silent. Used by chat_create and node_job_create.
 *
 * The owner embeds it, appends complete events to sink->out and calls sink_push. Above SINK_HIGH_BYTES the answer is
 * CALL_FULL and the runner is read no further; below SINK_LOW_BYTES the call is resumed.
 *
 * Threads: the connection's loop. Owns: out. The owner is told once, by closed(), that nobody reads any more.
 */
#ifndef MSWARM_ROUTES_SINK_H
#define MSWARM_ROUTES_SINK_H

#include "llm/call.h"
#include "routes/route.h"

#define SINK_HIGH_BYTES (64u * 1024)
#define SINK_LOW_BYTES  (16u * 1024)
#define SINK_MAX_BYTES  (SINK_HIGH_BYTES + 8u * CALL_EVENT_MAX)   /* a plain reply made a stream may be one long event */

struct sink {
	struct req *q;
	struct call *call;                 /* borrowed; NULL when there is none to resume */
	struct buf out;
	struct loop_timer quiet;           /* keep-alive; re-armed lazily */
	int64_t last_mono_ms;              /* of the last bytes */
	bool is_open;                      /* the head was sent, the client reads */
	bool is_ended;                     /* nothing more will be added */
	bool is_full;                      /* CALL_FULL was said */
	/* The client has read all, or has gone, or was cut off: the owner ends its work and frees. THREAD(loop) */
	void (*closed)(struct sink *s, bool is_complete);
	void (*drained)(struct sink *s);   /* may be NULL: it was full and is below SINK_LOW_BYTES; within a read, so only note it */
	/* The node stops: append the last event (may be NULL). The work is ended by the owner. */
	void (*stopping)(struct sink *s);
};

void sink_init(struct sink *s, struct req *q, void (*closed)(struct sink *, bool), void (*stopping)(struct sink *));
/* Send the head with what was added so far; further bytes follow. Sets the SSE headers; status must be set. */
MUST_CHECK enum errc sink_open(struct sink *s, const char *cache_control, struct err *e);
enum call_take sink_push(struct sink *s);  /* after adding to out */
void sink_end(struct sink *s);             /* after the last bytes */
/* Free the buffer and disarm; the sink must be closed, or never have been opened. */
void sink_done(struct sink *s);

#endif
