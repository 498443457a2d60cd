/*
 * Table "relay_jobs": the outbox of the gateway's jobs, and what a crash must not lose. One row a job, from its claim to
 * the moment that the gateway has its result.
 *
 * Threads: *_tx on THREAD(store) inside a body; the others on the reader's loop, or main.
 */
#ifndef MSWARM_STORE_RELAY_JOBS_H
#define MSWARM_STORE_RELAY_JOBS_H

#include "base/buf.h"
#include "store/store.h"

#define RELAY_ID_MAX 1024              /* bytes of a job id or request id */

/* Numbers stand in databases. */
enum relay_state {
	RELAY_STARTING = 1,            /* claimed; the gateway may not know that it starts */
	RELAY_RUNNING = 2,             /* the start was taken */
	RELAY_ENDING = 3,              /* the result is there, and not taken yet */
};

struct relay_row {
	int64_t seq;
	char *job_id, *request_id;
	enum relay_state state;
	int64_t claimed_wall_ms;
};

/* E_CONFLICT: a row of that id is there. */
MUST_CHECK enum errc relay_claim_tx(struct store_tx *t, const char *job_id, const char *request_id, int64_t now_wall_ms, int64_t *ret_seq, struct err *e);
MUST_CHECK enum errc relay_run_tx(struct store_tx *t, int64_t seq, struct err *e);                        /* starting -> running */
MUST_CHECK enum errc relay_end_tx(struct store_tx *t, int64_t seq, struct slice result, struct err *e);   /* any -> ending; again: the first stays */
MUST_CHECK enum errc relay_forget_tx(struct store_tx *t, int64_t seq, struct err *e);

/* Rows after seq, oldest first, at most max; *ret is an array of *ret_n (relay_rows_free). */
MUST_CHECK enum errc relay_list(struct store_reader *r, int64_t after_seq, size_t max, struct relay_row **ret, size_t *ret_n, struct err *e);
void relay_rows_free(struct relay_row *rows, size_t n);
/* E_NOT_FOUND: no such row, or no result yet. Appends to out. */
MUST_CHECK enum errc relay_result(struct store_reader *r, int64_t seq, struct buf *out, struct err *e);

#endif
