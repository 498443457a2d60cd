/*
 * Table "keys" (with "key_models") and the sticky access flag in "meta".
 * Called by server/cmd_keys, the boot and the key cache of routes/auth. Threads: see keys.h.
 */
#include "store/keys.h"

#include "base/mem.h"
#include "store/store_priv.h"

enum { KEYS_MAX = 10000, MODELS_MAX = 1000 };      /* rows ever made; models of one key */

void key_row_done(struct key_row *k)
{
	str_list_done(&k->models);
}

/* ---- writing ---- */

/* Is the name in use by a key in force; and is there room for one more row? */
static enum errc check_new(struct store_tx *t, const struct key_row *k, struct err *e)
{
	AUTO_QUERY named = query_open(t->db, "SELECT id FROM keys WHERE name = ?1 AND revoked_wall_ms = 0");
	AUTO_QUERY last = query_open(t->db, "SELECT coalesce(max(seq), 0) FROM keys");
	bool has_row = false;
	enum errc rc;

	query_bind_text(&named, 1, slice_str(k->name));
	rc = query_row(&named, &has_row, e);
	if (!rc && has_row)
		return err_set(e, E_CONFLICT, "name: a key named \"%s\" is in force", k->name);
	if (!rc)
		rc = query_row(&last, &has_row, e);
	if (!rc && query_i64(&last, 0) >= KEYS_MAX)
		return err_set(e, E_TOO_LARGE, "keys: %d were made, that is all the room there is", KEYS_MAX);
	return rc;
}

static enum errc insert_models(struct store_tx *t, int64_t key_seq, const struct str_list *models, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO key_models (key_seq, at, model) VALUES (?1, ?2, ?3)");
	enum errc rc = E_OK;

	if (models->n > MODELS_MAX)
		return err_set(e, E_TOO_LARGE, "models: %zu of at most %d", models->n, MODELS_MAX);
	query_bind_i64(&q, 1, key_seq);
	for (size_t i = 0; !rc && i < models->n; i++) {
		query_bind_i64(&q, 2, (int64_t)i);
		query_bind_text(&q, 3, slice_str(models->v[i]));
		rc = query_run(&q, e);
	}
	return rc;
}

enum errc keys_insert_tx(struct store_tx *t, const struct key_row *k, struct err *e)
{
	enum errc rc = check_new(t, k, e);
	AUTO_QUERY q = query_open(t->db, "INSERT INTO keys (id, name, hash, hint, requests_per_minute, max_concurrent, "
		"created_wall_ms, revoked_wall_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");

	if (rc)
		return rc;
	query_bind_text(&q, 1, slice_str(k->id));
	query_bind_text(&q, 2, slice_str(k->name));
	query_bind_blob(&q, 3, slice_of((const char *)k->hash, sizeof(k->hash)));
	query_bind_text(&q, 4, slice_str(k->hint));
	query_bind_i64(&q, 5, k->requests_per_minute);
	query_bind_i64(&q, 6, k->max_concurrent);
	query_bind_i64(&q, 7, k->created_wall_ms);
	query_bind_i64(&q, 8, k->revoked_wall_ms);
	rc = query_run(&q, e);
	return rc ? rc : insert_models(t, sqlite3_last_insert_rowid(t->db->h), &k->models, e);
}

enum errc keys_revoke_tx(struct store_tx *t, const char *id_or_name, int64_t now_wall_ms, char ret_id[20], struct err *e)
{
	/* A name may look like an id: the id comes first. */
	AUTO_QUERY find = query_open(t->db, "SELECT seq, id FROM keys WHERE (id = ?1 OR name = ?1) AND revoked_wall_ms = 0 "
		"ORDER BY id = ?1 DESC LIMIT 1");
	AUTO_QUERY mark = query_open(t->db, "UPDATE keys SET revoked_wall_ms = ?2 WHERE seq = ?1 AND revoked_wall_ms = 0");
	bool has_row = false;
	char id[20] = "";
	enum errc rc;

	query_bind_text(&find, 1, slice_str(id_or_name));
	rc = query_row(&find, &has_row, e);
	if (rc)
		return rc;
	if (!has_row)
		return err_set(e, E_NOT_FOUND, "no key in force has the id or name \"%.64s\"", id_or_name);
	rc = query_copy(&find, 1, id, sizeof(id), e);
	query_bind_i64(&mark, 1, query_i64(&find, 0));
	query_bind_i64(&mark, 2, now_wall_ms > 0 ? now_wall_ms : 1);   /* 0 would read "in force" */
	if (!rc)
		rc = query_run(&mark, e);
	if (!rc)
		memcpy(ret_id, id, sizeof(id));
	return rc;
}

/* ---- reading ---- */

static enum errc load_models(struct store_reader *r, int64_t key_seq, struct str_list *out, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT model FROM key_models WHERE key_seq = ?1 ORDER BY at");
	bool has_row = true;
	enum errc rc = E_OK;

	query_bind_i64(&q, 1, key_seq);
	while (!rc) {
		struct slice model;

		rc = query_row(&q, &has_row, e);
		if (rc || !has_row)
			break;
		rc = query_slice(&q, 0, &model, e);
		if (!rc)
			rc = str_list_add(out, model, e);
	}
	return rc;
}

static enum errc load_row(struct store_reader *r, struct query *q, struct key_row *k, struct err *e)
{
	struct slice hash;
	enum errc rc = query_copy(q, 1, k->id, sizeof(k->id), e);

	if (!rc)
		rc = query_copy(q, 2, k->name, sizeof(k->name), e);
	if (!rc)
		rc = query_slice(q, 3, &hash, e);
	if (!rc && hash.n != sizeof(k->hash))
		rc = err_set(e, E_IO, "store: the hash of key %s has %zu bytes", k->id, hash.n);
	if (rc)
		return rc;
	memcpy(k->hash, hash.p, sizeof(k->hash));
	rc = query_copy(q, 4, k->hint, sizeof(k->hint), e);
	k->requests_per_minute = query_i64(q, 5);
	k->max_concurrent = query_i64(q, 6);
	k->created_wall_ms = query_i64(q, 7);
	k->revoked_wall_ms = query_i64(q, 8);
	return rc ? rc : load_models(r, query_i64(q, 0), &k->models, e);
}

struct key_rows {
	struct key_row *v;
	size_t n, cap;
};

static void key_rows_done(struct key_rows *l)
{
	for (size_t i = 0; i < l->n; i++)
		key_row_done(&l->v[i]);
	mem_free(l->v);
	*l = (struct key_rows){ 0 };
}

static struct key_row *add_row(struct key_rows *l)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 8;
		struct key_row *v = mem_realloc(l->v, cap * sizeof(*v));

		if (!v)
			return NULL;
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n] = (struct key_row){ 0 };
	return &l->v[l->n++];
}

enum errc keys_list(struct store_reader *r, struct key_row **ret, size_t *ret_n, struct err *e)
{
	CLEANUP(key_rows_done) struct key_rows rows = { 0 };
	AUTO_QUERY q = query_open(&r->db, "SELECT seq, id, name, hash, hint, requests_per_minute, max_concurrent, "
		"created_wall_ms, revoked_wall_ms FROM keys ORDER BY seq LIMIT 10000");
	bool has_row = true;
	enum errc rc = query_row(&q, &has_row, e);

	while (!rc && has_row) {
		struct key_row *k = add_row(&rows);

		rc = k ? load_row(r, &q, k, e) : err_set(e, E_NO_MEMORY, "keys: no memory");
		if (!rc)
			rc = query_row(&q, &has_row, e);
	}
	if (rc)
		return rc;
	*ret = TAKE(rows.v);
	*ret_n = rows.n;
	rows.n = 0;
	return E_OK;
}

/* ---- the access flag ---- */

enum errc access_set_keyed_tx(struct store_tx *t, bool is_keyed, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT OR REPLACE INTO meta (name, value) VALUES ('access.keyed', ?1)");

	query_bind_i64(&q, 1, is_keyed);
	return query_run(&q, e);
}

enum errc access_is_keyed(struct store_reader *r, bool *ret, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT value FROM meta WHERE name = 'access.keyed'");
	bool has_row = false;
	enum errc rc = query_row(&q, &has_row, e);

	if (!rc)
		*ret = has_row && query_i64(&q, 0) != 0;
	return rc;
}
