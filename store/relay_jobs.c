/* Table "relay_jobs". Called by gateway/outbox.c and relay.c. Threads: see relay_jobs.h. */
#include "store/relay_jobs.h"

#include "base/mem.h"
#include "store/store_priv.h"

enum errc relay_claim_tx(struct store_tx *t, const char *job_id, const char *request_id, int64_t now_wall_ms, int64_t *ret_seq, struct err *e)
{
	AUTO_QUERY find = query_open(t->db, "SELECT 1 FROM relay_jobs WHERE job_id = ?1");
	AUTO_QUERY add = query_open(t->db, "INSERT INTO relay_jobs (job_id, request_id, state, claimed_wall_ms) VALUES (?1, ?2, ?3, ?4)");
	bool has_row = false;
	enum errc rc;

	query_bind_text(&find, 1, slice_str(job_id));
	rc = query_row(&find, &has_row, e);
	if (!rc && has_row)
		return err_set(e, E_CONFLICT, "job %.64s is here already", job_id);
	query_bind_text(&add, 1, slice_str(job_id));
	query_bind_text(&add, 2, slice_str(request_id));
	query_bind_i64(&add, 3, RELAY_STARTING);
	query_bind_i64(&add, 4, now_wall_ms);
	if (!rc)
		rc = query_run(&add, e);
	if (!rc)
		*ret_seq = sqlite3_last_insert_rowid(t->db->h);
	return rc;
}

enum errc relay_run_tx(struct store_tx *t, int64_t seq, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "UPDATE relay_jobs SET state = ?2 WHERE seq = ?1 AND state = ?3");

	query_bind_i64(&q, 1, seq);
	query_bind_i64(&q, 2, RELAY_RUNNING);
	query_bind_i64(&q, 3, RELAY_STARTING);
	return query_run(&q, e);
}

enum errc relay_end_tx(struct store_tx *t, int64_t seq, struct slice result, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "UPDATE relay_jobs SET state = ?2, result = ?3 WHERE seq = ?1 AND state <> ?2");

	query_bind_i64(&q, 1, seq);
	query_bind_i64(&q, 2, RELAY_ENDING);
	query_bind_blob(&q, 3, result);
	return query_run(&q, e);
}

enum errc relay_forget_tx(struct store_tx *t, int64_t seq, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "DELETE FROM relay_jobs WHERE seq = ?1");

	query_bind_i64(&q, 1, seq);
	return query_run(&q, e);
}

/* ---- reading ---- */

void relay_rows_free(struct relay_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		mem_free(rows[i].job_id);
		mem_free(rows[i].request_id);
	}
	mem_free(rows);
}

static enum errc load_text(struct query *q, int col, char **ret, struct err *e)
{
	struct slice s;
	enum errc rc = query_slice(q, col, &s, e);

	if (!rc)
		*ret = slice_dup(s);
	return rc ? rc : *ret ? E_OK : err_set(e, E_NO_MEMORY, "no memory for the outbox");
}

static enum errc load_row(struct query *q, struct relay_row *r, struct err *e)
{
	enum errc rc;

	r->seq = query_i64(q, 0);
	r->state = (enum relay_state)query_i64(q, 3);
	r->claimed_wall_ms = query_i64(q, 4);
	rc = load_text(q, 1, &r->job_id, e);
	return rc ? rc : load_text(q, 2, &r->request_id, e);
}

enum errc relay_list(struct store_reader *r, int64_t after_seq, size_t max, struct relay_row **ret, size_t *ret_n, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT seq, job_id, request_id, state, claimed_wall_ms FROM relay_jobs WHERE seq > ?1 ORDER BY seq LIMIT ?2");
	struct relay_row *rows = mem_calloc(max, sizeof(*rows));
	bool has_row = false;
	size_t n = 0;
	enum errc rc = rows ? E_OK : err_set(e, E_NO_MEMORY, "no memory for the outbox");

	query_bind_i64(&q, 1, after_seq);
	query_bind_i64(&q, 2, (int64_t)max);
	if (!rc)
		rc = query_row(&q, &has_row, e);
	while (!rc && has_row && n < max) {
		rc = load_row(&q, &rows[n++], e);
		if (!rc)
			rc = query_row(&q, &has_row, e);
	}
	if (rc) {
		relay_rows_free(rows, n);
		return rc;
	}
	*ret = rows;
	*ret_n = n;
	return E_OK;
}

enum errc relay_result(struct store_reader *r, int64_t seq, struct buf *out, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT result FROM relay_jobs WHERE seq = ?1 AND result IS NOT NULL");
	struct slice result;
	bool has_row = false;
	enum errc rc;

	query_bind_i64(&q, 1, seq);
	rc = query_row(&q, &has_row, e);
	if (!rc && !has_row)
		return err_set(e, E_NOT_FOUND, "no result of that job");
	if (!rc)
		rc = query_slice(&q, 0, &result, e);
	return rc ? rc : buf_add_slice(out, result, e);
}
