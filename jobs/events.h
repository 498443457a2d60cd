/*
 * A list of events on their way into the store: made by runners and the supervisor, written by one body.
 *
 * Owns: all texts, in one buffer; events_done frees. Threads: its owner's.
 */
#ifndef MSWARM_JOBS_EVENTS_H
#define MSWARM_JOBS_EVENTS_H

#include "base/buf.h"
#include "store/job_events.h"

#define EVENTS_BYTES_MAX (64u << 20)

struct event_item {
	enum event_type type;
	int64_t pos, wall_ms;
	size_t message_at, message_n, data_at, data_n;  /* places in text */
	bool has_message;
};

struct events {
	struct event_item *v;
	size_t n, cap;
	struct buf text;
};

#define EVENTS_EMPTY ((struct events){ .text = BUF_MAX(EVENTS_BYTES_MAX) })

/* message: p NULL for none; bytes that are no UTF-8 become U+FFFD. data: JSON text, may be empty. */
MUST_CHECK enum errc events_add(struct events *l, enum event_type type, int64_t pos, int64_t wall_ms, struct slice message, struct slice data, struct err *e);
/* As a row, borrowed from the list. */
struct event_row events_row(const struct events *l, size_t i);
void events_clear(struct events *l);
void events_done(struct events *l);

#endif
