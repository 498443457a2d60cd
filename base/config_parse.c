/*
 * config.json: its rows, the keys that nobody knows, and the list of upstreams. Called by config_load.c, on main.
 * Every text names the file and the key.
 */
#include "base/config_priv.h"

#include "base/mem.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>

#define FILE_MAX ((size_t)1 << 20)
#define WHERE_MAX 224
#define UPSTREAMS_MAX 64
#define MODELS_MAX 1024
#define HEADERS_MAX 32
#define NAME_MAX_BYTES 64

/* Keys that belong to no row: written by the reference node or by an enrolment, read elsewhere or not at all. */
static const char *const other_keys[] = {
	"machine_fingerprint", "config_version", "heartbeat_timeout_seconds", "enrolled_at", "updated_at", "node_version",
	"lifecycle_health_status", "lifecycle_health_reason", "lifecycle_health_message", "lifecycle_health_updated_at",
	"upstreams",
};

enum errc config_parse_text(struct config_build *b, struct slice text, struct json **ret, struct err *e)
{
	struct json_limits lim = { .max_bytes = FILE_MAX, .max_depth = 32 };
	AUTO_JSON root = NULL;
	enum errc rc = json_parse(text, lim, &root, e);

	if (rc) {
		err_prefix(e, "%s", b->file_label);
		return rc;
	}
	if (!json_is_object(root))
		return err_set(e, E_INVALID_VALUE, "%s: must be a JSON object, not %s", b->file_label, json_type_name(root));
	*ret = TAKE(root);
	return E_OK;
}

/* ---- rows ---- */

static enum errc wrong_type(const char *where, const char *must_be, const struct json *v, struct err *e)
{
	return err_set(e, E_INVALID_VALUE, "%s: must be %s, not %s", where, must_be, json_type_name(v));
}

static enum errc parse_int(struct config_build *b, size_t row, const struct json *v, const char *where, struct err *e)
{
	double d = json_num(v, 0);

	if (!json_is_number(v))
		return wrong_type(where, "a number", v, e);
	/* Beyond any range, and where the cast is still defined. */
	if (d > 9e15)
		d = 9e15;
	if (d < 0)
		d = d < -9e15 ? -9e15 : floor(d);
	return config_set_int(b, row, (int64_t)d, CFG_FROM_FILE, where, e);
}

static enum errc parse_list(struct config_build *b, size_t row, const struct json *v, const char *where, struct err *e)
{
	CLEANUP(str_list_done) struct str_list list = { 0 };
	struct str_list *target = config_list(b->c, &config_rows[row]);
	enum errc rc = E_OK;

	for (const struct json *item = json_first(v); item && rc == E_OK; item = json_next(item)) {
		struct slice s = slice_trim_js(json_slice(item));

		if (!json_is_string(item))
			return wrong_type(where, "a list of strings", item, e);
		if (!slice_is_empty(s))
			rc = str_list_add(&list, s, e);
	}
	if (rc)
		return rc;
	str_list_done(target);
	*target = list;
	list = (struct str_list){ 0 };
	b->c->origins[row] = CFG_FROM_FILE;
	return E_OK;
}

static enum errc parse_value(struct config_build *b, size_t row, const struct json *v, const char *where, struct err *e)
{
	const struct config_row *r = &config_rows[row];

	/* A number may stand in quotes, a list as one comma string; a blank one is none. */
	if (json_is_string(v) && r->type != ROW_BOOL) {
		if (config_text_is_blank(json_str(v)))
			return E_OK;
		return config_set_text(b, row, json_slice(v), CFG_FROM_FILE, where, e);
	}
	switch (r->type) {
	case ROW_INT:
		return parse_int(b, row, v, where, e);
	case ROW_BOOL:
		if (!json_is_bool(v)) {
			config_warn(b, "%s: must be true or false, not %s; ignored", where, json_type_name(v));
			return E_OK;
		}
		*config_bool(b->c, r) = json_is_true(v);
		b->c->origins[row] = CFG_FROM_FILE;
		return E_OK;
	case ROW_STR:
		return wrong_type(where, "a string", v, e);
	case ROW_LIST:
		return json_is_array(v) ? parse_list(b, row, v, where, e)
			: wrong_type(where, "a list of strings", v, e);
	}
	return E_OK;
}

enum errc config_parse_row(struct config_build *b, size_t row, struct err *e)
{
	const struct config_row *r = &config_rows[row];
	const struct json *v = json_get(b->file, r->json_key);
	char where[WHERE_MAX];
	enum errc rc;

	if (json_is_absent(v))
		return E_OK;
	snprintf(where, sizeof(where), "%s: %s", b->file_label, r->json_key);
	rc = parse_value(b, row, v, where, e);
	if (rc && e)
		snprintf(e->param, sizeof(e->param), "%s", r->json_key);
	return rc;
}

/* ---- unknown keys ---- */

static bool is_other_key(struct slice key)
{
	for (size_t i = 0; i < ARRAY_LEN(other_keys); i++)
		if (slice_eq(key, slice_str(other_keys[i])))
			return true;
	return false;
}

static void warn_unknown(struct config_build *b, struct slice key)
{
	const char *near = NULL;
	unsigned best = UINT_MAX;

	for (size_t i = 0; i < ROW__COUNT; i++) {
		const struct config_row *r = &config_rows[i];
		unsigned distance = r->json_key[0] ? config_text_distance(slice_str(r->json_key), key) : UINT_MAX;

		if (slice_eq(slice_str(r->name), key)) {
			config_warn(b, "%s: %s cannot be set here, only by %s%s%s", b->file_label, r->name, r->env,
				r->flag[0] ? " or " : "", r->flag);
			return;
		}
		if (distance < best) {
			best = distance;
			near = r->json_key;
		}
	}
	struct slice shown = slice_cut(key, 64);

	if (near && config_text_is_near(best, key.n))
		config_warn(b, "%s: unknown key \"" SLICE_FMT "\"; did you mean %s?", b->file_label, SLICE_ARG(shown), near);
	else
		config_warn(b, "%s: unknown key \"" SLICE_FMT "\"", b->file_label, SLICE_ARG(shown));
}

static bool is_row_key(struct slice key)
{
	for (size_t i = 0; i < ROW__COUNT; i++)
		if (config_rows[i].json_key[0] != '\0' && slice_eq(key, slice_str(config_rows[i].json_key)))
			return true;
	return false;
}

void config_parse_unknown(struct config_build *b)
{
	for (const struct json *m = json_first(b->file); m; m = json_next(m)) {
		struct slice key = slice_str(json_key(m));

		if (!is_row_key(key) && !is_other_key(key))
			warn_unknown(b, key);
	}
}

/* ---- upstreams ---- */

static bool is_printable(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return false;
	return true;
}

/* A trimmed copy; "" when absent. */
static enum errc entry_str(const struct json *entry, const char *key, size_t max, char **ret, struct err *e)
{
	const struct json *v = json_get(entry, key);
	struct slice s = slice_trim_js(json_slice(v));

	if (!json_is_absent(v) && !json_is_string(v))
		return err_set(e, E_INVALID_VALUE, "%s must be a string, not %s", key, json_type_name(v));
	if (s.n > max || !is_printable(s))
		return err_set(e, E_INVALID_VALUE, "%s must be at most %zu bytes of printable text", key, max);
	char *copy = slice_dup(s);

	if (!copy)
		return err_set(e, E_NO_MEMORY, "no memory");
	*ret = copy;
	return E_OK;
}

static enum errc entry_int(const struct json *entry, const char *key, int64_t hi, int64_t *ret, struct err *e)
{
	const struct json *v = json_get(entry, key);
	int64_t n;

	if (json_is_absent(v))
		return E_OK;
	if (!json_i64(v, &n) || n < 0 || n > hi)
		return err_set(e, E_INVALID_VALUE, "%s must be a whole number within 0..%" PRId64, key, hi);
	*ret = n;
	return E_OK;
}

static enum errc entry_models(const struct json *entry, struct str_list *ret, struct err *e)
{
	const struct json *v = json_get(entry, "models");

	if (json_is_absent(v))
		return E_OK;
	if (!json_is_array(v) || json_count(v) > MODELS_MAX)
		return err_set(e, E_INVALID_VALUE, "models must be a list of at most %d names", MODELS_MAX);
	for (const struct json *item = json_first(v); item; item = json_next(item)) {
		struct slice s = slice_trim_js(json_slice(item));

		if (slice_is_empty(s) || s.n > 512 || !is_printable(s))
			return err_set(e, E_INVALID_VALUE, "models must be a list of names");
		enum errc rc = str_list_has(ret, s) ? E_OK : str_list_add(ret, s, e);

		if (rc)
			return rc;
	}
	return E_OK;
}

/* A name that may go on the wire, and that is not the HTTP client's own business. */
static bool is_header_name(struct slice name)
{
	static const char *const own[] = { "host", "content-length", "transfer-encoding", "connection", "expect" };

	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];
		bool is_alnum = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');

		if (!is_alnum && (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c)))
			return false;
	}
	for (size_t i = 0; i < ARRAY_LEN(own); i++)
		if (slice_eq_nocase(name, slice_str(own[i])))
			return false;
	return name.n > 0 && name.n <= 128;
}

static enum errc add_header(struct slice name, struct slice value, struct str_list *ret, struct err *e)
{
	AUTO_BUF line = BUF_MAX(8192);

	if (!is_header_name(name) || value.n > 4096 || !is_printable(value))
		return err_set(e, E_INVALID_VALUE, "headers: \"" SLICE_FMT "\" cannot be sent", SLICE_ARG(slice_cut_text(name, 40)));
	enum errc rc = buf_addf(&line, e, SLICE_FMT ": " SLICE_FMT, SLICE_ARG(name), SLICE_ARG(value));

	return rc ? rc : str_list_add(ret, buf_slice(&line), e);
}

/* {"name": "value"} or ["name: value"]. */
static enum errc entry_headers(const struct json *entry, struct str_list *ret, struct err *e)
{
	const struct json *v = json_get(entry, "headers");

	if (json_is_absent(v))
		return E_OK;
	if ((!json_is_object(v) && !json_is_array(v)) || json_count(v) > HEADERS_MAX)
		return err_set(e, E_INVALID_VALUE, "headers must be an object of at most %d names and texts", HEADERS_MAX);
	for (const struct json *item = json_first(v); item; item = json_next(item)) {
		struct slice text = json_slice(item), name = slice_str(json_key(item));

		if (!json_is_string(item))
			return err_set(e, E_INVALID_VALUE, "headers must be an object of names and texts");
		if (json_is_array(v)) {
			ptrdiff_t colon = slice_find_char(text, ':');

			name = slice_cut(text, colon < 0 ? 0 : (size_t)colon);
			text = slice_from(text, colon < 0 ? 0 : (size_t)colon + 1);
		}
		enum errc rc = add_header(name, slice_trim(text), ret, e);

		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc entry_url(const struct json *entry, struct config_upstream *u, struct err *e)
{
	const struct json *v = json_get(entry, "base_url");
	struct slice authority;

	if (!json_is_string(v))
		return err_set(e, E_INVALID_VALUE, "base_url must be a string, not %s", json_type_name(v));
	enum errc rc = config_text_base_url(json_slice(v), &u->base_url, &authority, e);

	if (rc) {
		err_prefix(e, "base_url");
		return rc;
	}
	if (u->name[0] != '\0')
		return E_OK;
	mem_free(u->name);
	u->name = slice_dup(slice_cut(authority, NAME_MAX_BYTES));
	return u->name ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
}

static enum errc entry_share(const struct json *entry, bool *ret, struct err *e)
{
	const struct json *v = json_get(entry, "share");

	if (!json_is_absent(v) && !json_is_bool(v))
		return err_set(e, E_INVALID_VALUE, "share must be true or false, not %s", json_type_name(v));
	*ret = json_is_true(v);
	return E_OK;
}

static enum errc entry_key_file(struct config_build *b, const struct json *entry, struct config_upstream *u, struct err *e)
{
	AUTO_FREE char *given = NULL;
	enum errc rc = entry_str(entry, "api_key_file", 4096, &given, e);

	if (rc == E_OK && given[0] == '\0')
		u->api_key_file = TAKE(given);
	else if (rc == E_OK)
		rc = config_text_path(given, b->c->home, b->c->state_dir, &u->api_key_file, e);
	return rc;
}

/* All of one entry; on failure the caller frees what is there. */
static enum errc read_entry(struct config_build *b, const struct json *entry, struct config_upstream *u, struct err *e)
{
	const int64_t week_ms = 604800000;
	enum errc rc;

	if (!json_is_object(entry))
		return err_set(e, E_INVALID_VALUE, "must be an object, not %s", json_type_name(entry));
	rc = entry_str(entry, "name", NAME_MAX_BYTES, &u->name, e);
	if (rc == E_OK)
		rc = entry_url(entry, u, e);
	if (rc == E_OK)
		rc = entry_str(entry, "kind", 32, &u->kind, e);
	if (rc == E_OK)
		rc = entry_key_file(b, entry, u, e);
	if (rc == E_OK)
		rc = entry_models(entry, &u->models, e);
	if (rc == E_OK)
		rc = entry_headers(entry, &u->headers, e);
	if (rc == E_OK)
		rc = entry_int(entry, "max_concurrent", 100000, &u->max_concurrent, e);
	if (rc == E_OK)
		rc = entry_int(entry, "connect_ms", week_ms, &u->connect_ms, e);
	if (rc == E_OK)
		rc = entry_int(entry, "first_byte_ms", week_ms, &u->first_byte_ms, e);
	if (rc == E_OK)
		rc = entry_int(entry, "idle_ms", week_ms, &u->idle_ms, e);
	if (rc == E_OK)
		rc = entry_int(entry, "total_ms", week_ms, &u->total_ms, e);
	return rc ? rc : entry_share(entry, &u->share, e);
}

static void warn_entry_keys(struct config_build *b, const struct json *entry, const char *label)
{
	static const char *const known[] = { "name", "base_url", "kind", "api_key_file", "models", "headers", "max_concurrent",
		"connect_ms", "first_byte_ms", "idle_ms", "total_ms", "share" };

	for (const struct json *m = json_first(entry); m; m = json_next(m)) {
		struct slice key = slice_str(json_key(m));
		size_t i = 0;

		while (i < ARRAY_LEN(known) && !slice_eq(key, slice_str(known[i])))
			i++;
		if (slice_eq(key, SLICE("api_key")))
			config_warn(b, "%s: api_key is not read; put the key into a file and name it as api_key_file", label);
		else if (i == ARRAY_LEN(known))
			config_warn(b, "%s: unknown key \"" SLICE_FMT "\"", label, SLICE_ARG(slice_cut_text(key, 64)));
	}
}

static bool is_name_taken(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->upstream_count; i++)
		if (strcmp(c->upstreams[i].name, name) == 0)
			return true;
	return false;
}

/* Add one entry, or skip it with a warning. Only a lack of memory is an error. */
static enum errc add_entry(struct config_build *b, const struct json *entry, size_t index, struct err *e)
{
	CLEANUP(config_upstream_done) struct config_upstream u = { 0 };
	struct err why = { 0 };
	struct slice name = slice_cut(json_slice(json_is_object(entry) ? json_get(entry, "name") : NULL), NAME_MAX_BYTES);
	char label[WHERE_MAX];

	if (slice_is_empty(name) || !is_printable(name))
		snprintf(label, sizeof(label), "%s: upstreams[%zu]", b->file_label, index);
	else
		snprintf(label, sizeof(label), "%s: upstreams[%zu] (" SLICE_FMT ")", b->file_label, index, SLICE_ARG(name));
	enum errc rc = read_entry(b, entry, &u, &why);

	if (rc == E_OK && is_name_taken(b->c, u.name))
		rc = err_set(&why, E_INVALID_VALUE, "another entry has the name %s", u.name);
	if (rc == E_OK && b->c->upstream_count == UPSTREAMS_MAX)
		rc = err_set(&why, E_INVALID_VALUE, "more than %d entries", UPSTREAMS_MAX);
	if (rc == E_NO_MEMORY)
		return err_set(e, rc, "no memory");
	if (rc) {
		config_warn(b, "%s: %s; the entry is skipped", label, why.what);
		return E_OK;
	}
	warn_entry_keys(b, entry, label);
	b->c->upstreams[b->c->upstream_count++] = u;
	u = (struct config_upstream){ 0 };
	return E_OK;
}

enum errc config_parse_upstreams(struct config_build *b, struct err *e)
{
	const struct json *list = json_get(b->file, "upstreams");
	enum errc rc = E_OK;
	size_t index = 0;

	if (json_is_absent(list))
		return E_OK;
	if (!json_is_array(list))
		return err_set_param(e, E_INVALID_VALUE, "upstreams", "%s: upstreams: must be a list, not %s", b->file_label,
			json_type_name(list));
	b->c->upstreams = mem_calloc(UPSTREAMS_MAX, sizeof(struct config_upstream));
	if (!b->c->upstreams)
		return err_set(e, E_NO_MEMORY, "no memory");
	for (const struct json *entry = json_first(list); entry && rc == E_OK; entry = json_next(entry))
		rc = add_entry(b, entry, index++, e);
	return rc;
}
