/*
 * Table "audit": who did what to a job, in order. One row may stand for many records of events ("job_event_recorded"):
 * those are made when they are read, not stored a second time.
 *
 * Threads: *_tx on THREAD(store) inside a body; the walks on the reader's loop, with bounded rows a call.
 */
#ifndef MSWARM_STORE_AUDIT_H
#define MSWARM_STORE_AUDIT_H

#include "base/slice.h"
#include "store/store.h"

/* Numbers stand in databases: add at the end only. Source: direct-api.md 3.8. */
#define AUDIT_ACTIONS(X) \
	X(CREATED, "job_created") X(QUEUED, "job_queued") X(REUSED, "job_idempotent_reused") X(RESERVED, "reservation_created") \
	X(ENVELOPE, "envelope_issued") X(SCHEDULED, "job_scheduled") X(STARTED, "job_started") X(EVENT, "job_event_recorded") \
	X(COMPLETED, "job_completed") X(CANCELLED, "job_cancelled") X(CANCEL_ASKED, "job_cancel_requested") \
	X(RETRY, "job_retry_scheduled") X(BLOCKED, "job_blocked") X(RELEASED, "reservation_released") X(EXPIRED, "job_expired")

enum audit_action {
#define X(id, name) AUDIT_##id,
	AUDIT_ACTIONS(X)
#undef X
	AUDIT__COUNT
};

struct audit_row {
	int64_t seq, job_key, wall_ms;
	enum audit_action action;
	int64_t first_sequence, events; /* EVENT only: the events that it stands for */
	struct slice details;           /* JSON text; empty: none. EVENT: the types of the events, a letter each */
};

#define AUDIT_TYPE_0 'a'                /* the letter of event type 0 */

const char *audit_action_name(enum audit_action a);
/* seq is given by the table. Adds to the sum. */
/* Sets a->seq. */
MUST_CHECK enum errc audit_add_tx(struct store_tx *t, struct audit_row *a, struct err *e);
/* Rows of one job behind seq after, in order. */
MUST_CHECK enum errc audit_walk_job(struct store_reader *r, int64_t job_key, int64_t after, size_t max,
				    enum errc (*fn)(void *ctx, const struct audit_row *a, struct err *e), void *ctx, size_t *ret_n, struct err *e);
/* Rows of all jobs before seq before (INT64_MAX: from the end), newest first. */
MUST_CHECK enum errc audit_walk_back(struct store_reader *r, int64_t before, size_t max,
				     enum errc (*fn)(void *ctx, const struct audit_row *a, struct err *e), void *ctx, size_t *ret_n, struct err *e);

#endif
