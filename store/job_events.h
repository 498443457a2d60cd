/*
 * Table "events": what happened in a job, its output lines among them. The order of (attempt, pos) is that of sequence,
 * which goes on over attempts.
 *
 * Threads: *_tx on THREAD(store) inside a body; the walk on the reader's loop, with bounded rows a call.
 */
#ifndef MSWARM_STORE_JOB_EVENTS_H
#define MSWARM_STORE_JOB_EVENTS_H

#include "base/slice.h"
#include "store/store.h"

/* Numbers stand in databases: add at the end only. Source: direct-api.md 3.8. */
#define EVENT_TYPES(X) \
	X(QUEUED, "queued") X(SCHEDULED, "scheduled") X(STARTED, "started") X(HEARTBEAT, "heartbeat") X(STDOUT, "stdout") \
	X(STDERR, "stderr") X(LOG_TRUNCATED, "log_truncated") X(PROGRESS, "progress") X(METRIC, "metric") X(ARTIFACT, "artifact") \
	X(COMPLETED, "completed") X(FAILED, "failed") X(CANCELLED, "cancelled")

enum event_type {
#define X(id, name) EVENT_##id,
	EVENT_TYPES(X)
#undef X
	EVENT__COUNT
};

struct event_row {
	int64_t attempt, pos, sequence, wall_ms;
	enum event_type type;
	struct slice message;           /* empty with a NULL p: none */
	struct slice data;              /* JSON text; empty: none */
};

const char *event_type_name(enum event_type t);
bool event_is_end(enum event_type t);   /* completed, failed, cancelled */
bool event_is_log(enum event_type t);   /* stdout, stderr */
/* Adds to the sums of events and output too. E_CONFLICT: the place is taken. */
MUST_CHECK enum errc job_events_add_tx(struct store_tx *t, int64_t job_key, const struct event_row *v, size_t n, struct err *e);
/* Calls fn for up to max events behind (attempt, pos), in order, until it fails. *ret_n: how many there were. */
MUST_CHECK enum errc job_events_walk(struct store_reader *r, int64_t job_key, int64_t after_attempt, int64_t after_pos, size_t max,
				     enum errc (*fn)(void *ctx, const struct event_row *v, struct err *e), void *ctx, size_t *ret_n,
				     struct err *e);

#endif
