/*
 * Ended jobs are forgotten piece by piece, so that nobody waits long behind it: first the events of the one that ended
 * first, then its audit trail, then its row. Called by a body of the supervisor. Threads: see jobs.h.
 */
#include "store/jobs.h"

#include "store/artifacts.h"
#include "store/job_totals.h"
#include "store/store_priv.h"

#define ROWS_A_STEP 500

static enum errc number(struct store_tx *t, const char *sql, int64_t *ret, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, sql);
	bool has_row = false;
	enum errc rc = query_row(&q, &has_row, e);

	if (!rc)
		*ret = has_row ? query_i64(&q, 0) : 0;
	return rc;
}

static enum errc used_bytes(struct store_tx *t, int64_t *ret, struct err *e)
{
	int64_t pages = 0, unused = 0, size = 0;
	enum errc rc = number(t, "PRAGMA page_count", &pages, e);

	if (!rc)
		rc = number(t, "PRAGMA freelist_count", &unused, e);
	if (!rc)
		rc = number(t, "PRAGMA page_size", &size, e);
	*ret = (pages - unused) * size;
	return rc;
}

static enum errc ended_count(struct store_tx *t, int64_t *ret, struct err *e)
{
	enum errc rc = E_OK;
	int64_t sum = 0, n = 0;

	for (int total = TOTAL_HELD_SUCCEEDED; !rc && total <= TOTAL_HELD_BLOCKED; total++) {
		rc = job_totals_one_tx(t, (enum job_total)total, &n, e);
		sum += n;
	}
	*ret = sum;
	return rc;
}

struct oldest {
	int64_t key, finished_wall_ms, state;
};

static enum errc find_oldest(struct store_tx *t, struct oldest *ret, bool *ret_found, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT key, finished_wall_ms, state FROM jobs WHERE state >= 4 ORDER BY finished_wall_ms, key LIMIT 1");
	enum errc rc = query_row(&q, ret_found, e);

	if (!rc && *ret_found)
		*ret = (struct oldest){ query_i64(&q, 0), query_i64(&q, 1), query_i64(&q, 2) };
	return rc;
}

static enum errc is_over(struct store_tx *t, const struct keep_limits *keep, const struct oldest *o, int64_t now_wall_ms, bool *ret, struct err *e)
{
	int64_t n = 0;
	enum errc rc = E_OK;

	*ret = keep->age_ms && now_wall_ms - o->finished_wall_ms > keep->age_ms;
	if (!*ret && keep->count) {
		rc = ended_count(t, &n, e);
		*ret = n > keep->count;
	}
	if (!rc && !*ret && keep->bytes) {
		rc = used_bytes(t, &n, e);
		*ret = n > keep->bytes;
	}
	return rc;
}

/* A literal each: a statement is known by its address. Rows that are left afterwards are for the next step. */
static enum errc remove_some(struct store_tx *t, const char *sql, int64_t key, bool *ret_any, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, sql);
	enum errc rc;

	query_bind_i64(&q, 1, key);
	query_bind_i64(&q, 2, ROWS_A_STEP);
	rc = query_run(&q, e);
	*ret_any = !rc && sqlite3_changes(t->db->h) > 0;
	return rc;
}

static enum errc remove_row(struct store_tx *t, const struct oldest *o, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "DELETE FROM jobs WHERE key = ?1");
	enum errc rc;

	query_bind_i64(&q, 1, o->key);
	rc = query_run(&q, e);
	job_totals_add_tx(t, (enum job_total)(TOTAL_HELD_QUEUED + o->state), -1);
	return rc;
}

/* Uploads of a space, then the space. *ret_any: something was there, and more may be. */
static enum errc remove_space(struct store_tx *t, int64_t space_key, struct artifact_keys *gone, bool *ret_any, struct err *e)
{
	enum errc rc = artifacts_drop_uploads_tx(t, space_key, gone, ret_any, e);

	return rc || *ret_any ? rc : spaces_drop_tx(t, space_key, e);
}

/* What a job left, then what was uploaded for it. */
static enum errc remove_files(struct store_tx *t, int64_t job_key, struct artifact_keys *gone, bool *ret_any, struct err *e)
{
	int64_t space = 0;
	enum errc rc = artifacts_drop_outputs_tx(t, job_key, gone, ret_any, e);

	if (rc || *ret_any)
		return rc;
	rc = spaces_of_job_tx(t, job_key, &space, e);
	return rc || !space ? rc : remove_space(t, space, gone, ret_any, e);
}

/* Uploads whose job never came go by age. */
static enum errc prune_unused(struct store_tx *t, const struct keep_limits *keep, int64_t now_wall_ms, struct artifact_keys *gone, bool *ret_more, struct err *e)
{
	int64_t space = 0;
	bool any;
	enum errc rc = keep->age_ms ? spaces_unused_tx(t, now_wall_ms - keep->age_ms, &space, e) : E_OK;

	*ret_more = space != 0;
	return rc || !space ? rc : remove_space(t, space, gone, &any, e);
}

enum errc jobs_prune_tx(struct store_tx *t, const struct keep_limits *keep, int64_t now_wall_ms, struct artifact_keys *gone, bool *ret_more, struct err *e)
{
	struct oldest o = { 0 };
	bool is_found = false, is_due = false, any = false;
	enum errc rc = find_oldest(t, &o, &is_found, e);

	*ret_more = false;
	gone->n = 0;
	if (!rc && is_found)
		rc = is_over(t, keep, &o, now_wall_ms, &is_due, e);
	if (rc || !is_due)
		return rc ? rc : prune_unused(t, keep, now_wall_ms, gone, ret_more, e);
	*ret_more = true;
	rc = remove_some(t, "DELETE FROM events WHERE job_key = ?1 AND (attempt, pos) IN (SELECT attempt, pos FROM events WHERE job_key = ?1 "
			    "ORDER BY attempt, pos LIMIT ?2)", o.key, &any, e);
	if (rc || any)
		return rc;
	rc = remove_some(t, "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE job_key = ?1 ORDER BY seq LIMIT ?2)", o.key, &any, e);
	if (!rc && !any)
		rc = remove_files(t, o.key, gone, &any, e);
	return rc || any ? rc : remove_row(t, &o, e);
}
