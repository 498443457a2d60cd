/*
 * Table "jobs", with "tenants" and "attempts": what a job is and how it stands. Who may move it from where to where is
 * decided in jobs/state.c; here a save says which state and attempt it expects, and changes nothing when that is not so.
 *
 * Owns: a row's strings are heap strings; job_row_done frees them. Times: wall_ms, 0 is none.
 * Threads: *_tx on THREAD(store) inside a body; the readers on their loop.
 */
#ifndef MSWARM_STORE_JOBS_H
#define MSWARM_STORE_JOBS_H

#include "base/slice.h"
#include "store/store.h"

/* Numbers stand in databases: the order is for good. Source: direct-api.md 3.1. */
#define JOB_STATES(X) \
	X(QUEUED, "queued") X(SCHEDULED, "scheduled") X(RUNNING, "running") X(RETRYING, "retrying") X(SUCCEEDED, "succeeded") \
	X(FAILED, "failed") X(CANCELLED, "cancelled") X(EXPIRED, "expired") X(BLOCKED, "blocked")

enum job_state {
#define X(id, name) JOB_##id,
	JOB_STATES(X)
#undef X
	JOB__COUNT
};

#define JOB_ID_MAX 10000                /* bytes of a caller's id that the table takes */

struct job_row {
	int64_t key;                    /* set by jobs_insert_tx */
	bool is_direct;                 /* of R4: not found by its id but while it is at work */
	char *job_id, *request_id, *tenant_id, *idempotency_key, *job_type, *schema_version, *token_sha256;
	enum job_state state;
	int64_t attempt;                /* of the last start; 0: never */
	int64_t priority;               /* lower first */
	int64_t deadline_wall_ms;
	int64_t retry_count, max_retries, next_retry_wall_ms;
	int64_t created_wall_ms, updated_wall_ms, queued_wall_ms, scheduled_wall_ms, started_wall_ms, finished_wall_ms;
	int64_t released_wall_ms;       /* of the reservation */
	bool is_cancel_asked;
	int64_t next_sequence;
	int64_t last_event_type;        /* -1: none yet */
	char *last_event_message;       /* may be NULL */
	double progress_percent;        /* negative: unknown */
	int64_t artifact_count, artifact_bytes, log_bytes;
	char *backpressure, *reservation, *result, *artifacts, *validation_issues;  /* JSON or NULL */
	char *request;                  /* the job as it was received, JSON */
};

const char *job_state_name(enum job_state s);
void job_row_done(struct job_row *j);
#define AUTO_JOB_ROW CLEANUP(job_row_done) struct job_row

/* As QUEUED; gives it a key. E_CONFLICT: job_id or idempotency_key is there. */
MUST_CHECK enum errc jobs_insert_tx(struct store_tx *t, struct job_row *j, struct err *e);
/* E_JOB_NOT_FOUND. *ret is filled whole on success only. */
MUST_CHECK enum errc jobs_get_tx(struct store_tx *t, int64_t key, struct job_row *ret, struct err *e);
MUST_CHECK enum errc jobs_find_tx(struct store_tx *t, struct slice job_id, struct job_row *ret, struct err *e);
MUST_CHECK enum errc jobs_find_direct_tx(struct store_tx *t, struct slice job_id, struct job_row *ret, struct err *e);
MUST_CHECK enum errc jobs_find_idempotent_tx(struct store_tx *t, struct slice idempotency_key, struct job_row *ret, struct err *e);
/* Write all that may change. E_CONFLICT: the row is not in that state of that attempt any more. Keeps sums and tenants. */
MUST_CHECK enum errc jobs_save_tx(struct store_tx *t, const struct job_row *j, enum job_state from, int64_t from_attempt, struct err *e);

MUST_CHECK enum errc jobs_get(struct store_reader *r, int64_t key, struct job_row *ret, struct err *e);
MUST_CHECK enum errc jobs_find(struct store_reader *r, struct slice job_id, struct job_row *ret, struct err *e);
/* The request alone, heap. E_JOB_NOT_FOUND; E_TOO_LARGE, without reading it, when it has more bytes than max. */
MUST_CHECK enum errc jobs_get_request(struct store_reader *r, int64_t key, size_t max, char **ret, struct err *e);
/* Without its documents: request "", result, artifacts, issues and backpressure NULL. For lists. */
MUST_CHECK enum errc jobs_get_brief(struct store_reader *r, int64_t key, struct job_row *ret, struct err *e);
/* Likewise, newest change first; calls fn for up to max rows until it fails. before_*: behind which (INT64_MAX: from the start). */
MUST_CHECK enum errc jobs_walk_newest(struct store_reader *r, int64_t before_updated_wall_ms, int64_t before_key, size_t max,
				      enum errc (*fn)(void *ctx, const struct job_row *j, struct err *e), void *ctx, size_t *ret_n, struct err *e);

/* ---- whose turn it is ---- */
#define TURN_TENANTS_MAX 64             /* tenants looked at for one claim, the longest unserved ones */

struct waiting_job {
	int64_t key, priority, queued_wall_ms;
	char *tenant_id;                /* heap; waiting_jobs_done */
};
/* The first waiting job of each waiting tenant, tenants in their turn. */
MUST_CHECK enum errc jobs_waiting_tx(struct store_tx *t, struct waiting_job ret[TURN_TENANTS_MAX], size_t *ret_n, struct err *e);
void waiting_jobs_done(struct waiting_job *v, size_t n);

struct active_job {
	int64_t key, attempt;
	enum job_state state;
	char *tenant_id;
};
/* Jobs that are scheduled, running or retrying, oldest first; at most max. mem_free after active_jobs_done. */
MUST_CHECK enum errc jobs_active_tx(struct store_tx *t, size_t max, struct active_job **ret, size_t *ret_n, struct err *e);
MUST_CHECK enum errc jobs_active(struct store_reader *r, size_t max, struct active_job **ret, size_t *ret_n, struct err *e);
void active_jobs_free(struct active_job *v, size_t n);
/* A waiting job whose deadline is at or before now, or the next deadline to come (0: none) in *ret_next_wall_ms. */
MUST_CHECK enum errc jobs_overdue_tx(struct store_tx *t, int64_t now_wall_ms, int64_t *ret_key, int64_t *ret_next_wall_ms, struct err *e);

/* ---- forgetting: job_prune.c ---- */
struct keep_limits {                    /* 0: no limit */
	int64_t age_ms;                 /* since the job ended */
	int64_t count;                  /* of ended jobs */
	int64_t bytes;                  /* of the database, without free pages */
};
/* One small step, at most some hundred rows: a piece of the job that ended first, if a limit is passed, or of files that no job
 * ever used. gone: of files to be unlinked once that is committed. *ret_more: call again. */
struct artifact_keys;
MUST_CHECK enum errc jobs_prune_tx(struct store_tx *t, const struct keep_limits *keep, int64_t now_wall_ms, struct artifact_keys *gone, bool *ret_more, struct err *e);

/* ---- attempts ---- */
struct attempt_row {
	int64_t job_key, attempt;
	int64_t journal_bytes;          /* of the journal that stand in events; -1: not even its start does */
	int64_t out_lines, err_lines;
	struct slice out_carry, err_carry;
	int64_t boot;                   /* of the machine, when it was claimed; kept when saved again */
	int64_t next_sequence;          /* read only: of the job, once those events stand */
};
MUST_CHECK enum errc attempts_save_tx(struct store_tx *t, const struct attempt_row *a, struct err *e);
/* The carries are added to the buffers. E_NOT_FOUND. */
struct buf;
MUST_CHECK enum errc attempts_get(struct store_reader *r, int64_t job_key, int64_t attempt, struct attempt_row *ret, struct buf *out_carry, struct buf *err_carry, struct err *e);

#endif
