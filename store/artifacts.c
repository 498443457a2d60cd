/* Tables "spaces" and "artifacts". Called by the bodies of jobs/artifact_*.c and the routes. Threads: see artifacts.h. */
#include "store/artifacts.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/job_totals.h"
#include "store/store_priv.h"

#include <stdio.h>

#define COLUMNS "a.key, a.space_key, a.job_key, a.is_output, a.path, a.id, a.name, a.content_type, a.size_bytes, a.wanted_bytes, a.sha256, a.made_wall_ms"
enum { COL_KEY, COL_SPACE, COL_JOB, COL_OUTPUT, COL_PATH, COL_ID, COL_NAME, COL_TYPE, COL_SIZE, COL_WANTED, COL_SHA, COL_MADE };

void artifact_row_done(struct artifact_row *a)
{
	char **strings[] = { &a->path, &a->id, &a->name, &a->content_type };

	for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
		mem_free(*strings[i]);
		*strings[i] = NULL;
	}
}

/* ---- reading ---- */

static enum errc load_text(struct query *q, int col, char **ret, struct err *e)
{
	struct slice s;
	enum errc rc = query_slice(q, col, &s, e);

	if (rc)
		return rc;
	*ret = slice_dup(s);
	return *ret ? E_OK : err_set(e, E_NO_MEMORY, "store: no memory for an artifact");
}

static enum errc load(struct query *q, struct artifact_row *ret, struct err *e)
{
	AUTO_ARTIFACT a = { .key = query_i64(q, COL_KEY), .space_key = query_i64(q, COL_SPACE), .job_key = query_i64(q, COL_JOB), .is_output = query_i64(q, COL_OUTPUT) != 0,
			    .size_bytes = query_i64(q, COL_SIZE), .wanted_bytes = query_i64(q, COL_WANTED), .made_wall_ms = query_i64(q, COL_MADE) };
	enum errc rc = load_text(q, COL_PATH, &a.path, e);

	if (!rc)
		rc = load_text(q, COL_ID, &a.id, e);
	if (!rc)
		rc = load_text(q, COL_NAME, &a.name, e);
	if (!rc)
		rc = load_text(q, COL_TYPE, &a.content_type, e);
	if (!rc)
		rc = query_copy(q, COL_SHA, a.sha256, sizeof(a.sha256), e);
	if (rc)
		return rc;
	*ret = a;
	a = (struct artifact_row){ 0 };
	return E_OK;
}

static enum errc load_first(struct query *q, struct artifact_row *ret, bool *ret_found, struct err *e)
{
	enum errc rc = query_row(q, ret_found, e);

	return rc || !*ret_found ? rc : load(q, ret, e);
}

enum errc artifacts_find_tx(struct store_tx *t, int64_t space_key, bool is_output, struct slice path, struct artifact_row *ret, bool *ret_found, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT " COLUMNS " FROM artifacts a WHERE a.space_key = ?1 AND a.is_output = ?2 AND a.path = ?3");

	query_bind_i64(&q, 1, space_key);
	query_bind_i64(&q, 2, is_output);
	query_bind_text(&q, 3, path);
	return load_first(&q, ret, ret_found, e);
}

static enum errc get_named(struct db *db, struct slice job_id, struct slice path, struct artifact_row *ret, struct err *e)
{
	AUTO_QUERY by_path = query_open(db, "SELECT " COLUMNS " FROM spaces s JOIN artifacts a ON a.space_key = s.key AND a.is_output IN (0, 1) "
		"AND a.path = ?2 WHERE s.job_id = ?1 ORDER BY a.is_output DESC LIMIT 1");
	AUTO_QUERY by_id = query_open(db, "SELECT " COLUMNS " FROM spaces s JOIN artifacts a ON a.space_key = s.key AND a.id = ?2 "
		"WHERE s.job_id = ?1 ORDER BY a.key LIMIT 1");
	struct query *const both[] = { &by_path, &by_id };
	bool is_found = false;
	enum errc rc = E_OK;

	for (size_t i = 0; !rc && !is_found && i < ARRAY_LEN(both); i++) {
		query_bind_text(both[i], 1, job_id);
		query_bind_text(both[i], 2, path);
		rc = load_first(both[i], ret, &is_found, e);
	}
	if (!rc && !is_found)
		rc = err_set(e, E_ARTIFACT_NOT_FOUND, "Artifact was not found");
	return rc;
}

enum errc artifacts_get(struct store_reader *r, struct slice job_id, struct slice path, struct artifact_row *ret, struct err *e)
{
	return get_named(&r->db, job_id, path, ret, e);
}

enum errc artifacts_named_tx(struct store_tx *t, struct slice job_id, struct slice path, struct artifact_row *ret, struct err *e)
{
	return get_named(t->db, job_id, path, ret, e);
}

/*
 * "outputs/x" and "x" may both mean an output x and an upload "outputs/x": outputs first, then what was uploaded under the
 * name as it stands. The tenant is the job's while there is one; a space that no job has yet belongs to whoever signs.
 */
enum errc artifacts_resolve(struct store_reader *r, struct slice label, struct slice path, struct slice tenant_id, struct artifact_row *ret, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT " COLUMNS " FROM spaces s JOIN artifacts a ON a.space_key = s.key AND a.sha256 <> '' AND "
		"((a.is_output = 1 AND a.path IN (?2, ?4)) OR (a.is_output = 0 AND a.path IN (?2, ?5))) "
		"WHERE s.label = ?1 AND coalesce((SELECT j.tenant_id FROM jobs j WHERE j.job_id = s.job_id AND j.is_direct = 0), "
		"nullif(s.tenant_id, ''), ?3) = ?3 ORDER BY a.is_output DESC, a.path = ?2 DESC LIMIT 1");
	bool is_in_outputs = slice_starts_with(path, SLICE("outputs/")), is_found = false;
	AUTO_BUF under = BUF_MAX(path.n + 16);
	enum errc rc = buf_addf(&under, e, "outputs/" SLICE_FMT, SLICE_ARG(path));

	if (rc)
		return rc;
	query_bind_text(&q, 1, label);
	query_bind_text(&q, 2, path);
	query_bind_text(&q, 3, tenant_id);
	query_bind_text(&q, 4, is_in_outputs ? slice_from(path, 8) : path);
	query_bind_text(&q, 5, buf_slice(&under));
	rc = load_first(&q, ret, &is_found, e);
	return rc || is_found ? rc : err_set(e, E_ARTIFACT_NOT_FOUND, "Artifact was not found");
}

enum errc spaces_label(struct store_reader *r, struct slice job_id, struct buf *out, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT label FROM spaces WHERE job_id = ?1");
	struct slice label = { .p = "" };
	bool has_row = false;
	enum errc rc;

	query_bind_text(&q, 1, job_id);
	rc = query_row(&q, &has_row, e);
	if (!rc && !has_row)
		return err_set(e, E_ARTIFACT_NOT_FOUND, "Artifact was not found");
	if (!rc)
		rc = query_slice(&q, 0, &label, e);
	return rc ? rc : buf_add_slice(out, label, e);
}

bool artifacts_has_key(struct store_reader *r, int64_t key)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT 1 FROM artifacts WHERE key = ?1");
	bool has_row = true;

	query_bind_i64(&q, 1, key);
	return query_row(&q, &has_row, NULL) || has_row;
}

/* ---- spaces ---- */

static enum errc one_number(struct query *q, int64_t *ret, struct err *e)
{
	bool has_row = false;
	enum errc rc = query_row(q, &has_row, e);

	if (!rc)
		*ret = has_row ? query_i64(q, 0) : 0;
	return rc;
}

static enum errc space_insert(struct store_tx *t, int64_t key, struct slice job_id, struct slice label, int64_t now_wall_ms, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO spaces (key, job_id, label, tenant_id, used_wall_ms) VALUES (?1, ?2, ?3, '', ?4) "
		"ON CONFLICT (label) DO NOTHING");
	AUTO_BUF other = BUF_MAX(label.n + 32);
	enum errc rc;

	query_bind_i64(&q, 1, key);
	query_bind_text(&q, 2, job_id);
	query_bind_text(&q, 3, label);
	query_bind_i64(&q, 4, now_wall_ms);
	rc = query_run(&q, e);
	if (rc || sqlite3_changes(t->db->h))
		return rc;
	/* Two ids with one label, "a/b" and "a_b": the later one's has a sign that no label has. */
	rc = buf_addf(&other, e, SLICE_FMT "~%016llx", SLICE_ARG(label), (unsigned long long)key);
	query_bind_text(&q, 3, buf_slice(&other));
	return rc ? rc : query_run(&q, e);
}

enum errc spaces_need_tx(struct store_tx *t, struct slice job_id, struct slice label, int64_t now_wall_ms, int64_t *ret_key, struct err *e)
{
	AUTO_QUERY find = query_open(t->db, "SELECT key FROM spaces WHERE job_id = ?1");
	AUTO_QUERY use = query_open(t->db, "UPDATE spaces SET used_wall_ms = ?2 WHERE key = ?1");
	AUTO_QUERY last = query_open(t->db, "SELECT coalesce(max(key), 0) FROM spaces");
	int64_t key = 0, by_clock = now_wall_ms << 20;
	enum errc rc;

	query_bind_text(&find, 1, job_id);
	rc = one_number(&find, &key, e);
	if (rc)
		return rc;
	if (key) {
		query_bind_i64(&use, 1, key);
		query_bind_i64(&use, 2, now_wall_ms);
		rc = query_run(&use, e);
	} else {
		rc = one_number(&last, &key, e);
		key = key >= by_clock ? key + 1 : by_clock;
		if (!rc)
			rc = space_insert(t, key, job_id, label, now_wall_ms, e);
	}
	if (!rc)
		*ret_key = key;
	return rc;
}

enum errc spaces_own_tx(struct store_tx *t, int64_t space_key, struct slice tenant_id, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "UPDATE spaces SET tenant_id = ?2 WHERE key = ?1");

	query_bind_i64(&q, 1, space_key);
	query_bind_text(&q, 2, tenant_id);
	return query_run(&q, e);
}

enum errc spaces_label_tx(struct store_tx *t, int64_t space_key, struct buf *out, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT label FROM spaces WHERE key = ?1");
	struct slice label = { .p = "" };
	bool has_row = false;
	enum errc rc;

	query_bind_i64(&q, 1, space_key);
	rc = query_row(&q, &has_row, e);
	if (!rc && has_row)
		rc = query_slice(&q, 0, &label, e);
	return rc ? rc : buf_add_slice(out, label, e);
}

enum errc spaces_of_job_tx(struct store_tx *t, int64_t job_key, int64_t *ret_key, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT s.key FROM jobs j JOIN spaces s ON s.job_id = j.job_id "
		"WHERE j.key = ?1 AND j.is_direct = 0");

	query_bind_i64(&q, 1, job_key);
	return one_number(&q, ret_key, e);
}

enum errc spaces_unused_tx(struct store_tx *t, int64_t before_wall_ms, int64_t *ret_key, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT key FROM spaces s WHERE s.used_wall_ms < ?1 AND NOT EXISTS "
		"(SELECT 1 FROM jobs j WHERE j.job_id = s.job_id AND j.is_direct = 0) AND NOT EXISTS "
		"(SELECT 1 FROM artifacts a WHERE a.space_key = s.key AND a.is_output = 1) ORDER BY s.used_wall_ms LIMIT 1");

	query_bind_i64(&q, 1, before_wall_ms);
	return one_number(&q, ret_key, e);
}

enum errc spaces_drop_tx(struct store_tx *t, int64_t space_key, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "DELETE FROM spaces WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM artifacts WHERE space_key = ?1)");

	query_bind_i64(&q, 1, space_key);
	return query_run(&q, e);
}

/* ---- artifacts ---- */

static void count(struct store_tx *t, int64_t files, int64_t bytes)
{
	job_totals_add_tx(t, TOTAL_HELD_FILES, files);
	job_totals_add_tx(t, TOTAL_HELD_FILE_BYTES, bytes);
}

enum errc artifacts_insert_tx(struct store_tx *t, const struct artifact_row *a, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO artifacts (key, space_key, job_key, is_output, path, id, name, content_type, size_bytes, "
		"wanted_bytes, sha256, made_wall_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)");
	enum errc rc;

	query_bind_i64(&q, COL_KEY + 1, a->key);
	query_bind_i64(&q, COL_SPACE + 1, a->space_key);
	query_bind_i64(&q, COL_JOB + 1, a->job_key);
	query_bind_i64(&q, COL_OUTPUT + 1, a->is_output);
	query_bind_text(&q, COL_PATH + 1, slice_str(a->path));
	query_bind_text(&q, COL_ID + 1, slice_str(a->id));
	query_bind_text(&q, COL_NAME + 1, slice_str(a->name));
	query_bind_text(&q, COL_TYPE + 1, slice_str(a->content_type));
	query_bind_i64(&q, COL_SIZE + 1, a->size_bytes);
	query_bind_i64(&q, COL_WANTED + 1, a->wanted_bytes);
	query_bind_text(&q, COL_SHA + 1, slice_str(a->sha256));
	query_bind_i64(&q, COL_MADE + 1, a->made_wall_ms);
	rc = query_run(&q, e);
	if (rc && (t->db->last_rc & 0xff) == SQLITE_CONSTRAINT)
		return err_set(e, E_CONFLICT, "artifact_upload_target_exists");
	if (!rc)
		count(t, 1, a->size_bytes);
	return rc;
}

enum errc artifacts_grow_tx(struct store_tx *t, const struct artifact_row *a, struct err *e)
{
	AUTO_QUERY old = query_open(t->db, "SELECT size_bytes FROM artifacts WHERE key = ?1 AND sha256 = ''");
	AUTO_QUERY q = query_open(t->db, "UPDATE artifacts SET size_bytes = ?2, id = ?3, sha256 = ?4 WHERE key = ?1");
	bool has_row = false;
	int64_t before;
	enum errc rc;

	query_bind_i64(&old, 1, a->key);
	rc = query_row(&old, &has_row, e);
	if (!rc && !has_row)
		return err_set(e, E_ARTIFACT_NOT_FOUND, "the upload was removed while it went on");
	if (rc)
		return rc;
	before = query_i64(&old, 0);
	query_bind_i64(&q, 1, a->key);
	query_bind_i64(&q, 2, a->size_bytes);
	query_bind_text(&q, 3, slice_str(a->id));
	query_bind_text(&q, 4, slice_str(a->sha256));
	rc = query_run(&q, e);
	if (!rc)
		count(t, 0, a->size_bytes - before);
	return rc;
}

enum errc artifacts_drop_tx(struct store_tx *t, const struct artifact_row *a, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "DELETE FROM artifacts WHERE key = ?1");
	enum errc rc;

	query_bind_i64(&q, 1, a->key);
	rc = query_run(&q, e);
	if (!rc)
		count(t, -1, -a->size_bytes);
	return rc;
}

static enum errc drop_some(struct store_tx *t, struct query *q, int64_t key, struct artifact_keys *out, bool *ret_any, struct err *e)
{
	int64_t bytes = 0, files = 0;
	bool has_row = true;
	enum errc rc;

	query_bind_i64(q, 1, key);
	query_bind_i64(q, 2, (int64_t)(ARTIFACT_KEYS_MAX - out->n));
	for (rc = query_row(q, &has_row, e); !rc && has_row; rc = query_row(q, &has_row, e)) {
		out->v[out->n++] = query_i64(q, 0);
		bytes += query_i64(q, 1);
		files++;
	}
	*ret_any = files > 0;
	if (!rc)
		count(t, -files, -bytes);
	return rc;
}

enum errc artifacts_drop_outputs_tx(struct store_tx *t, int64_t job_key, struct artifact_keys *out, bool *ret_any, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "DELETE FROM artifacts WHERE key IN (SELECT key FROM artifacts WHERE job_key = ?1 AND job_key > 0 "
		"LIMIT ?2) RETURNING key, size_bytes");

	return drop_some(t, &q, job_key, out, ret_any, e);
}

enum errc artifacts_drop_uploads_tx(struct store_tx *t, int64_t space_key, struct artifact_keys *out, bool *ret_any, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "DELETE FROM artifacts WHERE key IN (SELECT key FROM artifacts WHERE space_key = ?1 AND is_output = 0 "
		"LIMIT ?2) RETURNING key, size_bytes");

	return drop_some(t, &q, space_key, out, ret_any, e);
}
