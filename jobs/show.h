/*
 * A job as JSON: its record, events, logs, audit and the row of the ops summary (direct-api.md 3.7 to 3.10). Lists are
 * bounded; what comes after them begins behind a place that they tell.
 *
 * Threads: the reader's loop.
 */
#ifndef MSWARM_JOBS_SHOW_H
#define MSWARM_JOBS_SHOW_H

#include "base/jw.h"
#include "jobs/job.h"

#define SHOW_ROWS 1000                  /* of a list, unless the caller wants fewer */

/* A place in a list: for events and logs attempt and pos, for the audit seq and the records already shown of that row. */
struct show_place {
	int64_t major, minor;
};

struct show {
	struct store_reader *reader;
	const char *node_id;
	const struct job_row *row;
	size_t max;                     /* rows */
	struct show_place at;           /* in: behind which; out: the last one shown */
	bool is_more;                   /* out: the list goes on */
};

/* Why a waiting job does not begin; reason NULL: nothing holds it. */
struct show_held {
	const char *reason, *message;
	int64_t retry_after_ms;         /* 0: not said */
};

void show_job(struct jw *w, const char *key, const struct show *s, const struct show_held *held);
MUST_CHECK enum errc show_events(struct jw *w, const char *key, struct show *s, struct err *e);
MUST_CHECK enum errc show_logs(struct jw *w, const char *key, struct show *s, struct err *e);
MUST_CHECK enum errc show_audit(struct jw *w, const char *key, struct show *s, struct err *e);
/* Records that are at hand, as an array. */
void show_audit_rows(struct jw *w, const char *key, const struct show *s, const struct audit_row *v, size_t n);
/* All jobs' records, newest first, in an array that is open: offset are left out, then at most max. */
MUST_CHECK enum errc show_audit_newest(struct jw *w, struct store_reader *r, const char *node_id, size_t offset, size_t max, struct err *e);
void show_ops_job(struct jw *w, const struct show *s);
/* One event, as lists and streams show it. */
void show_event(struct jw *w, const char *key, const char *job_id, const struct event_row *v);
void show_log(struct jw *w, const char *key, const char *job_id, const struct event_row *v);
void show_time(struct jw *w, const char *key, int64_t wall_ms);  /* nothing for 0 */

#endif
