/*
 * Prepared statements, kept for the life of their connection and found by the address of their text.
 * Called by the table files (keys.c, usage.c, ...) and the writer. Threads: whoever owns the connection.
 */
#include "store/store_priv.h"

/* The statement of this literal, prepared at its first use. */
static int find(struct db *db, const char *sql, sqlite3_stmt **ret)
{
	sqlite3_stmt *st = NULL;
	int rc;

	for (size_t i = 0; i < db->kept_count; i++) {
		if (db->kept[i].sql == sql) {
			*ret = db->kept[i].st;
			return SQLITE_OK;
		}
	}
	must(db->kept_count < DB_KEPT_MAX);
	rc = sqlite3_prepare_v3(db->h, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL);
	if (rc != SQLITE_OK)
		return rc;
	must(st);
	db->kept[db->kept_count].sql = sql;
	db->kept[db->kept_count].st = st;
	db->kept_count++;
	*ret = st;
	return SQLITE_OK;
}

struct query query_open(struct db *db, const char *sql)
{
	struct query q = { .db = db };

	q.rc = find(db, sql, &q.st);
	must(!q.st || !sqlite3_stmt_busy(q.st));     /* a statement is not used within itself */
	return q;
}

void query_done(struct query *q)
{
	if (!q->st)
		return;
	sqlite3_reset(q->st);
	sqlite3_clear_bindings(q->st);
	q->st = NULL;
}

void query_bind_i64(struct query *q, int at, int64_t v)
{
	if (q->rc == SQLITE_OK)
		q->rc = sqlite3_bind_int64(q->st, at, v);
}

/* Borrowed, not copied: what is bound lives until query_done, which stands in the same scope. */
void query_bind_text(struct query *q, int at, struct slice v)
{
	if (q->rc == SQLITE_OK)
		q->rc = sqlite3_bind_text64(q->st, at, v.p ? v.p : "", v.n, SQLITE_STATIC, SQLITE_UTF8);
}

void query_bind_blob(struct query *q, int at, struct slice v)
{
	if (q->rc == SQLITE_OK)
		q->rc = sqlite3_bind_blob64(q->st, at, v.p ? v.p : "", v.n, SQLITE_STATIC);
}

enum errc query_row(struct query *q, bool *ret_has_row, struct err *e)
{
	int rc = q->rc == SQLITE_OK ? sqlite3_step(q->st) : q->rc;

	if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
		q->rc = rc;
		return db_err(q->db, rc, e);
	}
	*ret_has_row = rc == SQLITE_ROW;
	return E_OK;
}

enum errc query_run(struct query *q, struct err *e)
{
	bool has_row = true;
	enum errc rc = E_OK;

	while (!rc && has_row)
		rc = query_row(q, &has_row, e);
	if (!rc)
		sqlite3_reset(q->st);
	return rc;
}

int64_t query_i64(struct query *q, int col)
{
	return sqlite3_column_int64(q->st, col);
}

enum errc query_slice(struct query *q, int col, struct slice *ret, struct err *e)
{
	const void *p = sqlite3_column_blob(q->st, col);
	int n = sqlite3_column_bytes(q->st, col);

	/* An empty value is NULL as well: only the error code tells it from lack of memory. */
	if (!p && sqlite3_errcode(q->db->h) == SQLITE_NOMEM)
		return db_err(q->db, SQLITE_NOMEM, e);
	*ret = slice_of(p ? p : "", p ? (size_t)n : 0);
	return E_OK;
}

enum errc query_copy(struct query *q, int col, char *dst, size_t cap, struct err *e)
{
	struct slice s;
	enum errc rc = query_slice(q, col, &s, e);

	if (rc)
		return rc;
	if (!slice_copy(s, dst, cap))
		return err_set(e, E_IO, "store: column %s holds %zu bytes of at most %zu", sqlite3_column_name(q->st, col), s.n, cap - 1);
	return E_OK;
}
