/*
 * Table "job_totals": running sums of the job plane, kept in the transactions that change them, so that no summary scans. What
 * the bodies of a batch add is summed up in memory and written once, before their commit.
 * HELD_* count the rows that are there, by state in the order of JOB_STATES; the others count since the database was made.
 *
 * Threads: *_tx on THREAD(store) inside a body; job_totals_get on the reader's loop.
 */
#ifndef MSWARM_STORE_JOB_TOTALS_H
#define MSWARM_STORE_JOB_TOTALS_H

#include "store/store.h"

/* Numbers stand in databases: add at the end only. */
#define JOB_TOTALS(X) \
	X(HELD_QUEUED) X(HELD_SCHEDULED) X(HELD_RUNNING) X(HELD_RETRYING) X(HELD_SUCCEEDED) X(HELD_FAILED) X(HELD_CANCELLED) \
	X(HELD_EXPIRED) X(HELD_BLOCKED) X(CREATED) X(SUCCEEDED) X(FAILED) X(CANCELLED) X(EXPIRED) X(BLOCKED) X(CLAIMS) \
	X(GPU_MS) X(ARTIFACTS) X(ARTIFACT_BYTES) X(EVENTS) X(AUDIT) X(STDOUT_BYTES) X(STDERR_BYTES) X(HELD_FILES) X(HELD_FILE_BYTES)

enum job_total {
#define X(id) TOTAL_##id,
	JOB_TOTALS(X)
#undef X
	TOTAL__COUNT
};

void job_totals_add_tx(struct store_tx *t, enum job_total what, int64_t delta);
MUST_CHECK enum errc job_totals_write_tx(struct store_tx *t, struct err *e);    /* the writer, before the commit */
MUST_CHECK enum errc job_totals_one_tx(struct store_tx *t, enum job_total what, int64_t *ret, struct err *e);
MUST_CHECK enum errc job_totals_get(struct store_reader *r, int64_t ret[TOTAL__COUNT], struct err *e);

#endif
