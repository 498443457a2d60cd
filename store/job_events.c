/* Table "events". Called by the bodies of jobs/, followers and the routes. Threads: see job_events.h. */
#include "store/job_events.h"

#include "store/job_totals.h"
#include "store/store_priv.h"

const char *event_type_name(enum event_type t)
{
	static const char *const names[] = {
#define X(id, name) name,
		EVENT_TYPES(X)
#undef X
	};

	return (size_t)t < ARRAY_LEN(names) ? names[t] : "unknown";
}

bool event_is_end(enum event_type t)
{
	return t == EVENT_COMPLETED || t == EVENT_FAILED || t == EVENT_CANCELLED;
}

bool event_is_log(enum event_type t)
{
	return t == EVENT_STDOUT || t == EVENT_STDERR;
}

static enum errc add_one(struct store_tx *t, int64_t job_key, const struct event_row *v, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO events (job_key, attempt, pos, sequence, wall_ms, type, message, data) "
		"VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
	enum errc rc;

	query_bind_i64(&q, 1, job_key);
	query_bind_i64(&q, 2, v->attempt);
	query_bind_i64(&q, 3, v->pos);
	query_bind_i64(&q, 4, v->sequence);
	query_bind_i64(&q, 5, v->wall_ms);
	query_bind_i64(&q, 6, v->type);
	if (v->message.p)
		query_bind_text(&q, 7, v->message);
	if (v->data.n)
		query_bind_text(&q, 8, v->data);
	rc = query_run(&q, e);
	if (rc && (t->db->last_rc & 0xff) == SQLITE_CONSTRAINT)
		return err_set(e, E_CONFLICT, "store: an event of job %lld stands at %lld.%lld already", (long long)job_key,
			       (long long)v->attempt, (long long)v->pos);
	return rc;
}

enum errc job_events_add_tx(struct store_tx *t, int64_t job_key, const struct event_row *v, size_t n, struct err *e)
{
	int64_t out = 0, err = 0;
	enum errc rc = E_OK;

	for (size_t i = 0; !rc && i < n; i++) {
		out += v[i].type == EVENT_STDOUT ? (int64_t)v[i].message.n : 0;
		err += v[i].type == EVENT_STDERR ? (int64_t)v[i].message.n : 0;
		rc = add_one(t, job_key, &v[i], e);
	}
	job_totals_add_tx(t, TOTAL_EVENTS, (int64_t)n);
	job_totals_add_tx(t, TOTAL_STDOUT_BYTES, out);
	job_totals_add_tx(t, TOTAL_STDERR_BYTES, err);
	return rc;
}

static enum errc load(struct query *q, struct event_row *ret, struct err *e)
{
	int64_t type = query_i64(q, 4);
	struct event_row v = { .attempt = query_i64(q, 0), .pos = query_i64(q, 1), .sequence = query_i64(q, 2), .wall_ms = query_i64(q, 3) };
	enum errc rc = E_OK;

	if (type < 0 || type >= EVENT__COUNT)
		return err_set(e, E_IO, "store: an event has type %lld", (long long)type);
	v.type = (enum event_type)type;
	if (sqlite3_column_type(q->st, 5) != SQLITE_NULL)
		rc = query_slice(q, 5, &v.message, e);
	if (!rc)
		rc = query_slice(q, 6, &v.data, e);
	if (!rc)
		*ret = v;
	return rc;
}

enum errc job_events_walk(struct store_reader *r, int64_t job_key, int64_t after_attempt, int64_t after_pos, size_t max,
			  enum errc (*fn)(void *ctx, const struct event_row *v, struct err *e), void *ctx, size_t *ret_n, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT attempt, pos, sequence, wall_ms, type, message, data FROM events "
		"WHERE job_key = ?1 AND (attempt, pos) > (?2, ?3) ORDER BY attempt, pos LIMIT ?4");
	struct event_row v;
	size_t n = 0;
	bool has_row = true;
	enum errc rc;

	query_bind_i64(&q, 1, job_key);
	query_bind_i64(&q, 2, after_attempt);
	query_bind_i64(&q, 3, after_pos);
	query_bind_i64(&q, 4, (int64_t)max);
	rc = query_row(&q, &has_row, e);
	while (!rc && has_row) {
		rc = load(&q, &v, e);
		if (!rc)
			rc = fn(ctx, &v, e);
		n++;
		if (!rc)
			rc = query_row(&q, &has_row, e);
	}
	*ret_n = n;
	return rc;
}
