/* Table "audit". Called by the bodies of jobs/ and the routes. Threads: see audit.h. */
#include "store/audit.h"

#include "store/job_totals.h"
#include "store/store_priv.h"

const char *audit_action_name(enum audit_action a)
{
	static const char *const names[] = {
#define X(id, name) name,
		AUDIT_ACTIONS(X)
#undef X
	};

	return (size_t)a < ARRAY_LEN(names) ? names[a] : "unknown";
}

enum errc audit_add_tx(struct store_tx *t, struct audit_row *a, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO audit (job_key, wall_ms, action, first_sequence, events, details) "
		"VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
	enum errc rc;

	query_bind_i64(&q, 1, a->job_key);
	query_bind_i64(&q, 2, a->wall_ms);
	query_bind_i64(&q, 3, a->action);
	query_bind_i64(&q, 4, a->first_sequence);
	query_bind_i64(&q, 5, a->events);
	if (a->details.n)
		query_bind_text(&q, 6, a->details);
	rc = query_run(&q, e);
	if (rc)
		return rc;
	a->seq = sqlite3_last_insert_rowid(t->db->h);
	job_totals_add_tx(t, TOTAL_AUDIT, a->action == AUDIT_EVENT ? a->events : 1);
	return E_OK;
}

static enum errc walk(struct query *q, enum errc (*fn)(void *ctx, const struct audit_row *a, struct err *e), void *ctx, size_t *ret_n,
		      struct err *e)
{
	size_t n = 0;
	bool has_row = true;
	enum errc rc = query_row(q, &has_row, e);

	while (!rc && has_row) {
		struct audit_row a = { .seq = query_i64(q, 0), .job_key = query_i64(q, 1), .wall_ms = query_i64(q, 2),
				       .first_sequence = query_i64(q, 4), .events = query_i64(q, 5) };
		int64_t action = query_i64(q, 3);

		if (action < 0 || action >= AUDIT__COUNT)
			return err_set(e, E_IO, "store: audit row %lld has action %lld", (long long)a.seq, (long long)action);
		a.action = (enum audit_action)action;
		rc = query_slice(q, 6, &a.details, e);
		if (!rc)
			rc = fn(ctx, &a, e);
		n++;
		if (!rc)
			rc = query_row(q, &has_row, e);
	}
	*ret_n = n;
	return rc;
}

enum errc audit_walk_job(struct store_reader *r, int64_t job_key, int64_t after, size_t max,
			 enum errc (*fn)(void *ctx, const struct audit_row *a, struct err *e), void *ctx, size_t *ret_n, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT seq, job_key, wall_ms, action, first_sequence, events, details FROM audit "
		"WHERE job_key = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");

	query_bind_i64(&q, 1, job_key);
	query_bind_i64(&q, 2, after);
	query_bind_i64(&q, 3, (int64_t)max);
	return walk(&q, fn, ctx, ret_n, e);
}

enum errc audit_walk_back(struct store_reader *r, int64_t before, size_t max,
			  enum errc (*fn)(void *ctx, const struct audit_row *a, struct err *e), void *ctx, size_t *ret_n, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT seq, job_key, wall_ms, action, first_sequence, events, details FROM audit "
		"WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2");

	query_bind_i64(&q, 1, before);
	query_bind_i64(&q, 2, (int64_t)max);
	return walk(&q, fn, ctx, ret_n, e);
}
