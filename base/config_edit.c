/* Changes to config.json; see config_edit.h. Called by gateway/member.c and by commands that change settings. */
#include "base/config_edit.h"

#include "base/clock.h"
#include "base/config_priv.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <poll.h>
#include <stdio.h>

#define FILE_MAX (1u << 20)
#define LIMITS ((struct json_limits){ .max_bytes = FILE_MAX, .max_depth = 64 })
#define LOCK_WAIT_MS 5000
#define LOCK_TRY_MS 20

void config_edit_begin(struct config_edit *c)
{
	*c = (struct config_edit){ 0 };
	buf_init(&c->sets, FILE_MAX);
	buf_init(&c->drops, 64 * 1024);
}

void config_edit_done(struct config_edit *c)
{
	buf_done(&c->sets);
	buf_done(&c->drops);
}

/* ---- what is to be changed ---- */

static void add_member(struct config_edit *c, const char *key, struct slice value)
{
	AUTO_BUF name = BUF_MAX(4096);
	struct jw w = JW(&name);
	enum errc rc;

	if (c->err.code)
		return;
	jw_str(&w, NULL, key);
	rc = jw_done(&w, &c->err);
	if (!rc && c->sets.n)
		rc = buf_add_str(&c->sets, ",", &c->err);
	if (!rc)
		rc = buf_add_slice(&c->sets, buf_slice(&name), &c->err);
	if (!rc)
		rc = buf_add_str(&c->sets, ":", &c->err);
	if (!rc)
		rc = buf_add_slice(&c->sets, value, &c->err);
	(void)rc;
}

void config_edit_raw(struct config_edit *c, const char *key, struct slice json)
{
	add_member(c, key, json);
}

void config_edit_str(struct config_edit *c, const char *key, const char *value)
{
	AUTO_BUF text = BUF_MAX(FILE_MAX);
	struct jw w = JW(&text);

	jw_str(&w, NULL, value);
	if (!c->err.code && !jw_done(&w, &c->err))
		add_member(c, key, buf_slice(&text));
}

void config_edit_i64(struct config_edit *c, const char *key, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)value);
	add_member(c, key, slice_str(text));
}

void config_edit_bool(struct config_edit *c, const char *key, bool value)
{
	add_member(c, key, value ? SLICE("true") : SLICE("false"));
}

static void add_drop(struct config_edit *c, char kind, const char *key)
{
	if (c->err.code || buf_add(&c->drops, &kind, 1, &c->err))
		return;
	if (buf_add(&c->drops, key, strlen(key) + 1, &c->err))
		return;
}

void config_edit_drop(struct config_edit *c, const char *key)
{
	add_drop(c, '-', key);
}

void config_edit_keep(struct config_edit *c, const char *key)
{
	add_drop(c, '+', key);
}

static bool is_marked(const struct config_edit *c, char kind, const char *key)
{
	const char *p = c->drops.p, *end = p + c->drops.n;

	for (; p && p < end; p += strlen(p) + 1)
		if (*p == kind && strcmp(p + 1, key) == 0)
			return true;
	return false;
}

static void edit_row(struct config_edit *c, struct config *cfg, const struct config_row *r)
{
	AUTO_BUF text = BUF_MAX(FILE_MAX);
	struct jw w = JW(&text);
	const struct str_list *l;

	switch (r->type) {
	case ROW_INT:
		jw_i64(&w, NULL, *config_int(cfg, r));
		break;
	case ROW_BOOL:
		jw_bool(&w, NULL, *config_bool(cfg, r));
		break;
	case ROW_STR:
		jw_str(&w, NULL, *config_str(cfg, r));
		break;
	case ROW_LIST:
		l = config_list(cfg, r);
		jw_arr(&w, NULL);
		for (size_t i = 0; i < l->n; i++)
			jw_str(&w, NULL, l->v[i]);
		jw_end(&w);
		break;
	}
	if (!c->err.code && !jw_done(&w, &c->err))
		config_edit_raw(c, r->json_key, buf_slice(&text));
}

void config_edit_given(struct config_edit *c, const struct config *cfg)
{
	struct config *values = (struct config *)(uintptr_t)cfg;       /* the accessors give pointers for writing; we only read */

	for (size_t row = 0; row < ROW__COUNT; row++)
		if (config_rows[row].json_key[0] && !(config_rows[row].flags & CFG_SECRET) && cfg->origins[row] >= CFG_FROM_ENV)
			edit_row(c, values, &config_rows[row]);
}

/* ---- the new text ---- */

static enum errc parse_object(const char *path, struct slice text, struct json **ret, struct err *e)
{
	enum errc rc = json_parse(text, LIMITS, ret, e);

	if (!rc && !json_is_object(*ret)) {
		json_free(TAKE(*ret));
		rc = err_set(e, E_BAD_JSON, "not a JSON object");
	}
	return rc && path ? err_prefix(e, "%s", path) : rc;
}

enum errc config_edit_text(const struct config_edit *c, const char *path, struct slice old, struct buf *out, struct err *e)
{
	AUTO_BUF sets_text = BUF_MAX(FILE_MAX);
	AUTO_JSON was = NULL;
	AUTO_JSON sets = NULL;
	struct jw w = JW_PRETTY(out);
	enum errc rc = E_OK;

	if (c->err.code) {
		*e = c->err;
		return e->code;
	}
	if (slice_trim(old).n)
		rc = parse_object(path, old, &was, e);
	if (!rc)
		rc = buf_addf(&sets_text, e, "{" SLICE_FMT "}", SLICE_ARG(buf_slice(&c->sets)));
	if (!rc)
		rc = parse_object(NULL, buf_slice(&sets_text), &sets, e);
	if (rc)
		return rc;
	jw_obj(&w, NULL);
	for (const struct json *m = was ? json_first(was) : NULL; m; m = json_next(m)) {
		const char *key = json_key(m);
		const struct json *now = json_get(sets, key);

		if (json_get(was, key) != m || is_marked(c, '-', key))
			continue;              /* of a key that stands twice the last counts */
		jw_tree(&w, key, now && !is_marked(c, '+', key) ? now : m);
	}
	for (const struct json *m = json_first(sets); m; m = json_next(m))
		if (json_get(sets, json_key(m)) == m && !json_get(was, json_key(m)))
			jw_tree(&w, json_key(m), m);
	jw_end(&w);
	rc = jw_done(&w, e);
	return rc ? rc : buf_add_str(out, "\n", e);
}

/* ---- writing ---- */

static enum errc take_lock(const char *path, int *ret_fd, struct err *e)
{
	AUTO_FREE char *folder = file_dirname(path);
	AUTO_FREE char *lock = folder ? file_join(folder, "config.lock") : NULL;
	int64_t end_ms = clock_mono_ms() + LOCK_WAIT_MS;
	enum errc rc;

	if (!lock)
		return err_set(e, E_NO_MEMORY, "no memory");
	while ((rc = file_lock(lock, ret_fd, e)) == E_CONFLICT && clock_mono_ms() < end_ms)
		(void)poll(NULL, 0, LOCK_TRY_MS);
	return rc;
}

enum errc config_edit_save(const struct config_edit *c, const char *path, struct err *e)
{
	AUTO_BUF old = BUF_MAX(FILE_MAX);
	AUTO_BUF text = BUF_MAX(2 * FILE_MAX);
	AUTO_FREE char *folder = file_dirname(path);
	AUTO_FD lock = -1;
	enum errc rc = folder ? file_make_private_dir(folder, e) : err_set(e, E_NO_MEMORY, "no memory");

	if (!rc)
		rc = take_lock(path, &lock, e);
	if (rc)
		return rc;
	rc = file_read(path, &old, e);
	if (rc && rc != E_NOT_FOUND)
		return rc;
	rc = config_edit_text(c, path, buf_slice(&old), &text, e);
	return rc ? rc : file_write_atomic(path, buf_slice(&text), 0600, e);
}
