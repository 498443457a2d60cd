/*
 * Who waits, who is at work, whose time is over: the questions that a claim asks of "jobs" and "tenants", and the rows of
 * "attempts". Called by the bodies of jobs/ and, for the active ones, by the routes. Threads: see jobs.h.
 */
#include "store/jobs.h"

#include "base/buf.h"
#include "base/mem.h"
#include "store/job_totals.h"
#include "store/store_priv.h"
#include "store/tenants.h"

/* ---- waiting ---- */

void waiting_jobs_done(struct waiting_job *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		mem_free(v[i].tenant_id);
}

/* Fills what is known of the tenant's first job. */
static enum errc first_of_tenant(struct store_tx *t, struct waiting_job *w, bool *ret_found, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT key, priority, queued_wall_ms FROM jobs WHERE state = 0 AND tenant_id = ?1 "
		"ORDER BY priority, queued_wall_ms, key LIMIT 1");
	enum errc rc;

	query_bind_text(&q, 1, slice_str(w->tenant_id));
	rc = query_row(&q, ret_found, e);
	if (rc || !*ret_found)
		return rc;
	w->key = query_i64(&q, 0);
	w->priority = query_i64(&q, 1);
	w->queued_wall_ms = query_i64(&q, 2);
	return E_OK;
}

enum errc jobs_waiting_tx(struct store_tx *t, struct waiting_job ret[TURN_TENANTS_MAX], size_t *ret_n, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT tenant_id FROM tenants WHERE waiting > 0 ORDER BY served, tenant_id LIMIT ?1");
	size_t n = 0;
	bool has_row = true, is_found = false;
	enum errc rc = tenants_write_tx(t, e);

	query_bind_i64(&q, 1, TURN_TENANTS_MAX);
	if (!rc)
		rc = query_row(&q, &has_row, e);
	while (!rc && has_row && n < TURN_TENANTS_MAX) {
		struct slice tenant;

		rc = query_slice(&q, 0, &tenant, e);
		if (rc)
			break;
		ret[n] = (struct waiting_job){ .tenant_id = slice_dup(tenant) };
		if (!ret[n++].tenant_id) {
			rc = err_set(e, E_NO_MEMORY, "store: no memory");
			break;
		}
		rc = first_of_tenant(t, &ret[n - 1], &is_found, e);
		if (!rc && !is_found)
			mem_free(ret[--n].tenant_id);
		if (!rc)
			rc = query_row(&q, &has_row, e);
	}
	if (rc) {
		waiting_jobs_done(ret, n);
		return rc;
	}
	*ret_n = n;
	return E_OK;
}

enum errc jobs_overdue_tx(struct store_tx *t, int64_t now_wall_ms, int64_t *ret_key, int64_t *ret_next_wall_ms, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT key, deadline_wall_ms FROM jobs WHERE state = 0 AND deadline_wall_ms > 0 "
		"ORDER BY deadline_wall_ms LIMIT 1");
	bool has_row = false;
	enum errc rc = query_row(&q, &has_row, e);

	if (rc)
		return rc;
	*ret_next_wall_ms = has_row ? query_i64(&q, 1) : 0;
	*ret_key = has_row && *ret_next_wall_ms <= now_wall_ms ? query_i64(&q, 0) : 0;
	return E_OK;
}

/* ---- at work ---- */

void active_jobs_free(struct active_job *v, size_t n)
{
	for (size_t i = 0; v && i < n; i++)
		mem_free(v[i].tenant_id);
	mem_free(v);
}

static enum errc load_active(struct db *db, size_t max, struct active_job **ret, size_t *ret_n, struct err *e)
{
	AUTO_QUERY q = query_open(db, "SELECT key, attempt, state, tenant_id FROM jobs WHERE state > 0 AND state < 4 ORDER BY key LIMIT ?1");
	struct active_job *v = NULL;
	size_t n = 0, cap = 0;
	bool has_row = true;
	enum errc rc;

	query_bind_i64(&q, 1, (int64_t)max);
	rc = query_row(&q, &has_row, e);
	while (!rc && has_row) {
		struct slice tenant;

		if (n == cap) {
			struct active_job *more = mem_realloc(v, (cap ? 2 * cap : 8) * sizeof(*v));

			if (!more) {
				rc = err_set(e, E_NO_MEMORY, "store: no memory");
				break;
			}
			v = more;
			cap = cap ? 2 * cap : 8;
		}
		rc = query_slice(&q, 3, &tenant, e);
		if (rc)
			break;
		v[n] = (struct active_job){ .key = query_i64(&q, 0), .attempt = query_i64(&q, 1),
					    .state = (enum job_state)query_i64(&q, 2), .tenant_id = slice_dup(tenant) };
		if (!v[n++].tenant_id)
			rc = err_set(e, E_NO_MEMORY, "store: no memory");
		else
			rc = query_row(&q, &has_row, e);
	}
	if (rc) {
		active_jobs_free(v, n);
		return rc;
	}
	*ret = v;
	*ret_n = n;
	return E_OK;
}

enum errc jobs_active_tx(struct store_tx *t, size_t max, struct active_job **ret, size_t *ret_n, struct err *e)
{
	return load_active(t->db, max, ret, ret_n, e);
}

enum errc jobs_active(struct store_reader *r, size_t max, struct active_job **ret, size_t *ret_n, struct err *e)
{
	return load_active(&r->db, max, ret, ret_n, e);
}

/* ---- attempts ---- */

enum errc attempts_save_tx(struct store_tx *t, const struct attempt_row *a, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO attempts (job_key, attempt, journal_bytes, out_lines, err_lines, out_carry, err_carry, boot) "
		"VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (job_key, attempt) DO UPDATE SET journal_bytes = ?3, out_lines = ?4, "
		"err_lines = ?5, out_carry = ?6, err_carry = ?7");

	query_bind_i64(&q, 1, a->job_key);
	query_bind_i64(&q, 2, a->attempt);
	query_bind_i64(&q, 3, a->journal_bytes);
	query_bind_i64(&q, 4, a->out_lines);
	query_bind_i64(&q, 5, a->err_lines);
	query_bind_blob(&q, 6, a->out_carry);
	query_bind_blob(&q, 7, a->err_carry);
	query_bind_i64(&q, 8, a->boot);
	return query_run(&q, e);
}

enum errc attempts_get(struct store_reader *r, int64_t job_key, int64_t attempt, struct attempt_row *ret, struct buf *out_carry,
		       struct buf *err_carry, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT a.journal_bytes, a.out_lines, a.err_lines, a.out_carry, a.err_carry, j.next_sequence, a.boot "
		"FROM attempts a JOIN jobs j ON j.key = a.job_key WHERE a.job_key = ?1 AND a.attempt = ?2");
	struct slice out, err;
	bool has_row = false;
	enum errc rc;

	query_bind_i64(&q, 1, job_key);
	query_bind_i64(&q, 2, attempt);
	rc = query_row(&q, &has_row, e);
	if (!rc && !has_row)
		rc = err_set(e, E_NOT_FOUND, "store: job %lld has no attempt %lld", (long long)job_key, (long long)attempt);
	if (!rc)
		rc = query_slice(&q, 3, &out, e);
	if (!rc)
		rc = buf_add_slice(out_carry, out, e);
	if (!rc)
		rc = query_slice(&q, 4, &err, e);
	if (!rc)
		rc = buf_add_slice(err_carry, err, e);
	if (rc)
		return rc;
	*ret = (struct attempt_row){ .job_key = job_key, .attempt = attempt, .journal_bytes = query_i64(&q, 0),
				     .out_lines = query_i64(&q, 1), .err_lines = query_i64(&q, 2), .next_sequence = query_i64(&q, 5),
				     .boot = query_i64(&q, 6) };
	return E_OK;
}
