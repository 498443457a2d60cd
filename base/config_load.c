/*
 * One load: config_flags.c sorts the flags out, config.json is read, every row goes through its layers, and what depends on more than
 * one of them is resolved (mode, exposure, capacity, paths, secrets). Called on main, at boot and by commands.
 */
#include "base/config_priv.h"

#include "base/file.h"
#include "base/mem.h"

#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

#define FILE_MAX ((size_t)1 << 20)
#define KEY_MAX 8192
#define DEFAULT_JOB_TIMEOUT_MS 3600000

/* Rows whose text is one of few words. An unknown word from outside a flag becomes what fallback says ("it wins, even if
 * it means the default mode", 2.2), or is passed over when that is NULL. */
static const struct word_row {
	size_t row;
	const char *words, *fallback;
} word_rows[] = {
	{ ROW_relay_mode, "outbound direct local", "" },
	{ ROW_discovery_mode, "mcoda ollama", "mcoda" },
	{ ROW_exposure_policy, "all none", NULL },
	{ ROW_log_level, "debug info warn error off", NULL },
};

static enum errc no_memory(struct err *e)
{
	return err_set(e, E_NO_MEMORY, "no memory");
}

/* ---- one value ---- */

/* A value that cannot be used: fatal from a flag (somebody is there to read it) or when is_fatal, else a warning. */
static enum errc unusable(struct config_build *b, enum config_origin from, bool is_fatal, const char *where, const char *why,
	struct err *e)
{
	if (from == CFG_FROM_FLAG || is_fatal)
		return err_set(e, E_INVALID_VALUE, "%s: %s", where, why);
	config_warn(b, "%s: %s; ignored", where, why);
	return E_OK;
}

enum errc config_set_int(struct config_build *b, size_t row, int64_t v, enum config_origin from, const char *where,
	struct err *e)
{
	const struct config_row *r = &config_rows[row];
	int64_t lo = r->flags & CFG_POSITIVE ? 1 : r->lo;
	char why[96];

	if (from == CFG_FROM_FILE && v == 0 && lo > 0)
		return E_OK; /* 0 is "not set" in the reference's file */
	if (v > r->hi && from != CFG_FROM_FLAG && r->unit[0] != '\0') {
		config_warn(b, "%s: %" PRId64 " %s is more than %" PRId64 ", which is used", where, v, r->unit, r->hi);
		v = r->hi;
	}
	if (from != CFG_FROM_DEFAULT && (v < lo || v > r->hi)) {
		snprintf(why, sizeof(why), "%" PRId64 " is not within %" PRId64 "..%" PRId64, v, lo, r->hi);
		return unusable(b, from, from == CFG_FROM_FILE, where, why, e);
	}
	*config_int(b->c, r) = v;
	b->c->origins[row] = (uint8_t)from;
	if (row == ROW_job_timeout_ms && from == CFG_FROM_FILE)
		b->file_job_timeout_ms = v;
	return E_OK;
}

/* The word that text means, NULL if none. */
static const char *find_word(const struct word_row *w, struct slice text, struct slice *ret_word)
{
	struct slice rest = slice_str(w->words), word;

	if (w->row == ROW_exposure_policy) {
		const char *policy = config_text_policy(text);

		*ret_word = slice_str(policy);
		return policy;
	}
	while (slice_next(&rest, ' ', &word)) {
		if (slice_eq_nocase(word, text)) {
			*ret_word = word;
			return w->words;
		}
	}
	return NULL;
}

/* Replace *text by the row's own spelling; *ret_skip when the value is to be passed over. */
static enum errc match_word(struct config_build *b, size_t row, struct slice *text, enum config_origin from,
	const char *where, bool *ret_skip, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(word_rows); i++) {
		const struct word_row *w = &word_rows[i];
		char why[160];

		if (w->row != row || find_word(w, *text, text))
			continue;
		snprintf(why, sizeof(why), "\"%.*s\" is none of: %s", (int)(text->n < 40 ? text->n : 40), text->p, w->words);
		*ret_skip = w->fallback == NULL;
		*text = slice_str(w->fallback);
		return unusable(b, from, false, where, why, e);
	}
	return E_OK;
}

static enum errc set_str(struct config_build *b, size_t row, struct slice text, enum config_origin from, const char *where,
	struct err *e)
{
	const struct config_row *r = &config_rows[row];
	AUTO_FREE char *copy = NULL;
	bool is_skipped = false;

	text = slice_trim_js(text);
	if (slice_is_empty(text))
		return E_OK;
	enum errc rc = match_word(b, row, &text, from, where, &is_skipped, e);

	if (rc || is_skipped)
		return rc;
	if (row == ROW_ollama_base_url) {
		rc = config_text_ollama(text, &copy, e);
		if (rc)
			return rc;
	} else if (r->flags & CFG_URL) {
		copy = config_text_url(text);
	} else {
		copy = slice_dup(text);
	}
	if (copy && (r->flags & CFG_PATH)) {
		char *expanded = file_expand_home(copy, b->c->home);

		mem_free(copy);
		copy = expanded;
	}
	if (!copy)
		return no_memory(e);
	config_put_str(b, row, TAKE(copy), from);
	return E_OK;
}

enum errc config_set_text(struct config_build *b, size_t row, struct slice text, enum config_origin from, const char *where,
	struct err *e)
{
	const struct config_row *r = &config_rows[row];
	CLEANUP(str_list_done) struct str_list list = { 0 };
	int64_t number;
	bool is_on;
	enum errc rc;

	switch (r->type) {
	case ROW_INT:
		if (!config_text_int(text, &number))
			return unusable(b, from, from == CFG_FROM_FILE, where, "must be a whole number", e);
		return config_set_int(b, row, number, from, where, e);
	case ROW_BOOL:
		if (!config_text_bool(text, &is_on))
			return unusable(b, from, false, where, "must be one of 1 true yes 0 false no", e);
		*config_bool(b->c, r) = is_on;
		b->c->origins[row] = (uint8_t)from;
		return E_OK;
	case ROW_STR:
		return set_str(b, row, text, from, where, e);
	case ROW_LIST:
		rc = config_text_list(text, &list, e);
		if (rc)
			return rc;
		str_list_done(config_list(b->c, r));
		*config_list(b->c, r) = list;
		list = (struct str_list){ 0 };
		b->c->origins[row] = (uint8_t)from;
		return E_OK;
	}
	return E_OK;
}

/* ---- the layers of one row ---- */

static enum errc set_default(struct config_build *b, size_t row, struct err *e)
{
	const struct config_row *r = &config_rows[row];
	char *copy;

	if (r->type != ROW_STR)
		return config_set_text(b, row, slice_str(r->default_text), CFG_FROM_DEFAULT, r->name, e);
	copy = mem_strdup(r->default_text);
	if (!copy)
		return no_memory(e);
	config_put_str(b, row, copy, CFG_FROM_DEFAULT);
	return E_OK;
}

/* The variable of this part of the column that counts: for switches the first that is defined, else the first that is
 * not blank (2.1). */
static enum errc set_from_env(struct config_build *b, size_t row, struct slice names, struct err *e)
{
	const struct config_row *r = &config_rows[row];
	struct slice word;
	char name[96];

	while (slice_next(&names, ' ', &word)) {
		const char *value = slice_is_empty(word) || !slice_copy(word, name, sizeof(name)) ? NULL : config_env(name);
		bool is_blank = !value || config_text_is_blank(value);

		if (!value || (is_blank && r->type != ROW_BOOL))
			continue;
		return is_blank ? E_OK : config_set_text(b, row, slice_str(value), CFG_FROM_ENV, name, e);
	}
	return E_OK;
}

static enum errc set_row(struct config_build *b, size_t row, struct err *e)
{
	const struct config_row *r = &config_rows[row];
	struct slice above = slice_str(r->env), below = SLICE("");
	ptrdiff_t bar = slice_find_char(above, '|');

	if (bar >= 0) {
		below = slice_from(above, (size_t)bar + 1);
		above = slice_cut(above, (size_t)bar);
	}
	enum errc rc = set_default(b, row, e);

	if (rc == E_OK)
		rc = set_from_env(b, row, below, e);
	if (rc == E_OK && b->file && r->json_key[0] != '\0')
		rc = config_parse_row(b, row, e);
	if (rc == E_OK)
		rc = set_from_env(b, row, above, e);
	if (rc == E_OK && b->flag_value[row])
		rc = config_set_text(b, row, slice_str(b->flag_value[row]), CFG_FROM_FLAG, r->flag, e);
	return rc;
}

/* ---- what depends on more than one row ---- */

static const char *file_str(const struct config_build *b, const char *key)
{
	const char *s = b->file ? json_str(json_get(b->file, key)) : NULL;

	return s && !config_text_is_blank(s) ? s : NULL;
}

/*
 * node.key or machine.id. Ours stand beside config.json. The reference left them in the default folder when only
 * config.json was moved, so an enrolled config.json may find its own there.
 */
static enum errc find_beside(struct config_build *b, const char *configured, const char *name, const char *cwd, char **ret,
	struct err *e)
{
	struct config *c = b->c;
	AUTO_FREE char *beside = NULL, *usual = NULL;
	enum errc rc;

	if (!config_text_is_blank(configured))
		return config_text_path(configured, c->home, cwd, ret, e);
	beside = file_join(c->state_dir, name);
	rc = beside ? config_text_path("~/.mswarm/self-hosted-node", c->home, "/", &usual, e) : no_memory(e);
	if (rc)
		return rc;
	char *there = file_join(usual, name);

	mem_free(usual);
	usual = there;
	if (!usual)
		return no_memory(e);
	if (strcmp(beside, usual) != 0 && file_str(b, "enrolled_at") && !file_exists(beside) && file_exists(usual)) {
		config_warn(b, "%s is used: there is none beside %s", usual, b->file_label);
		*ret = TAKE(usual);
	} else {
		*ret = TAKE(beside);
	}
	return E_OK;
}

static enum errc resolve_paths(struct config_build *b, const char *cwd, struct err *e)
{
	struct config *c = b->c;
	enum errc rc = find_beside(b, c->node_key_path, "node.key", cwd, &c->key_path, e);

	if (rc == E_OK)
		rc = find_beside(b, c->machine_id_file, "machine.id", cwd, &c->machine_id_path, e);
	if (rc == E_OK)
		rc = config_text_path(c->artifact_store_path[0] ? c->artifact_store_path : "artifacts", c->home,
			c->artifact_store_path[0] ? cwd : c->state_dir, &c->artifact_path, e);
	return rc;
}

/* Runtime token: environment, then node.key, then config.json (2.1). */
static enum errc read_node_key(struct config_build *b, struct buf *text, struct err *e)
{
	struct err why = { 0 };
	enum errc rc;

	if (b->c->origins[ROW_runtime_token] >= CFG_FROM_ENV)
		return E_OK;
	rc = file_read_private(b->c->key_path, text, &why);
	if (rc == E_FORBIDDEN) {
		config_warn(b, "%s", why.what);
		rc = file_read(b->c->key_path, text, &why);
	}
	if (rc == E_NOT_FOUND)
		return E_OK;
	if (rc)
		return err_set(e, rc, "%s", why.what);
	struct slice token = slice_trim_js(buf_slice(text));

	if (slice_is_empty(token))
		return E_OK;
	char *copy = slice_dup(token);

	if (!copy)
		return no_memory(e);
	config_put_str(b, ROW_runtime_token, copy, CFG_FROM_FILE);
	return E_OK;
}

static void wipe_done(struct buf *b)
{
	if (b->p)
		mem_wipe(b->p, b->n);
	buf_done(b);
}

/* What install --signing-secret-stdin has stored. */
static enum errc read_shared_secret(struct config_build *b, struct err *e)
{
	AUTO_FREE char *path = file_join(b->c->state_dir, CONFIG_SHARED_SECRET_FILE);
	CLEANUP(wipe_done) struct buf text = BUF_MAX(KEY_MAX);
	struct err why = { 0 };
	enum errc rc = path ? file_read_private(path, &text, &why) : no_memory(e);

	if (rc == E_NOT_FOUND)
		return E_OK;
	if (rc == E_FORBIDDEN) {               /* others may have read it: it is no secret */
		config_warn(b, "%s", why.what);
		return E_OK;
	}
	if (rc)
		return path ? err_set(e, rc, "%s", why.what) : rc;
	struct slice value = slice_trim_js(buf_slice(&text));

	if (!value.n)
		return E_OK;
	rc = secret_set(&b->c->signing_secret, value, e);
	b->c->is_signing_secret_shared = rc == E_OK;
	return rc;
}

static enum errc resolve_secrets(struct config_build *b, struct err *e)
{
	static const char *const names[] = {
		"MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET", "MSWARM_SELF_HOSTED_RELAY_SIGNING_SECRET",
	};
	CLEANUP(wipe_done) struct buf key = BUF_MAX(KEY_MAX);
	enum errc rc = read_node_key(b, &key, e);

	for (size_t i = 0; i < ARRAY_LEN(names) && rc == E_OK && !b->c->is_signing_secret_shared; i++) {
		struct slice value = slice_trim_js(slice_str(config_env(names[i])));

		if (slice_is_empty(value))
			continue;
		rc = secret_set(&b->c->signing_secret, value, e);
		b->c->is_signing_secret_shared = rc == E_OK;
	}
	return rc || b->c->is_signing_secret_shared ? rc : read_shared_secret(b, e);
}

static void resolve_rest(struct config_build *b)
{
	struct config *c = b->c;
	/* Tokens say it, or a file that an enrolment wrote; a hand-written node id alone does not. */
	bool is_enrolled = c->runtime_token[0] || c->enrollment_token[0] ||
		(file_str(b, "node_id") && file_str(b, "enrolled_at"));

	if (strcmp(c->relay_mode, "direct") == 0)
		c->mode = MODE_DIRECT;
	else if (strcmp(c->relay_mode, "outbound") == 0)
		c->mode = MODE_OUTBOUND;
	else
		c->mode = is_enrolled && strcmp(c->relay_mode, "local") != 0 ? MODE_OUTBOUND : MODE_LOCAL;
	c->is_generic_jobs_on = c->origins[ROW_generic_jobs_enabled] == CFG_FROM_DEFAULT ? c->mode == MODE_LOCAL
		: c->generic_jobs_enabled;
	/* 2.3: whatever expose_all_models says, only a policy can say none. */
	c->expose_all = strcmp(c->exposure_policy, "none") != 0;
	if (!c->expose_all_models && c->origins[ROW_expose_all_models] != CFG_FROM_DEFAULT && c->exposure_policy[0] == '\0')
		config_warn(b, "expose_all_models: false alone has no effect; set exposure_policy to none");
	if (c->max_concurrent_llm_jobs == 0)
		c->max_concurrent_llm_jobs = c->max_concurrent_jobs;
	if (c->generic_job_timeout_ms == 0)
		c->generic_job_timeout_ms = b->file_job_timeout_ms ? b->file_job_timeout_ms : DEFAULT_JOB_TIMEOUT_MS;
}

/* ---- the whole ---- */

static enum errc find_home(struct config *c, struct err *e)
{
	const char *home = config_env("HOME");
	const struct passwd *pw = home && *home ? NULL : getpwuid(geteuid());

	if (pw)
		home = pw->pw_dir;
	c->home = mem_strdup(home && *home ? home : "/");
	return c->home ? E_OK : no_memory(e);
}

/* Where config.json is: needed before it can be read, so this row goes first. */
static enum errc find_state(struct config_build *b, const char *cwd, struct err *e)
{
	struct config *c = b->c;
	enum errc rc = set_row(b, ROW_state_path, e);

	if (rc == E_OK)
		rc = config_text_path(c->state_path, c->home, cwd, &c->config_path, e);
	if (rc)
		return rc;
	c->state_dir = file_dirname(c->config_path);
	return c->state_dir ? E_OK : no_memory(e);
}

static enum errc read_file(struct config_build *b, const char *override, struct json **ret, struct err *e)
{
	CLEANUP(wipe_done) struct buf text = BUF_MAX(FILE_MAX);
	const char *path = override ? override : b->c->config_path;
	size_t n = strlen(path), keep = sizeof(b->file_label) - 8;

	snprintf(b->file_label, sizeof(b->file_label), "%s%s", n > keep ? "..." : "", n > keep ? path + n - keep : path);
	enum errc rc = file_read(path, &text, e);

	if (rc == E_NOT_FOUND && !override)
		return E_OK;
	return rc ? rc : config_parse_text(b, buf_slice(&text), ret, e);
}

static enum errc load(struct config_build *b, const struct config_load *in, struct str_list *rest, struct json **file,
	struct err *e)
{
	char cwd[PATH_MAX];
	enum errc rc = find_home(b->c, e);

	if (!getcwd(cwd, sizeof(cwd)))
		snprintf(cwd, sizeof(cwd), "/"); /* removed under us; only relative paths would care */
	if (rc == E_OK)
		rc = config_flags(b, in, rest, e);
	if (rc == E_OK)
		rc = find_state(b, cwd, e);
	if (rc == E_OK)
		rc = read_file(b, in->file_override, file, e);
	b->file = *file;
	for (size_t row = 0; row < ROW__COUNT && rc == E_OK; row++)
		if (row != ROW_state_path)
			rc = set_row(b, row, e);
	if (rc == E_OK && b->file) {
		config_parse_unknown(b);
		rc = config_parse_upstreams(b, e);
	}
	if (rc == E_OK)
		rc = resolve_paths(b, cwd, e);
	if (rc == E_OK)
		rc = resolve_secrets(b, e);
	if (rc)
		return rc;
	resolve_rest(b);
	return b->is_out_of_memory ? no_memory(e) : E_OK;
}

enum errc config_load(const struct config_load *in, struct config **ret, struct err *e)
{
	CLEANUP(str_list_done) struct str_list rest = { 0 };
	AUTO_JSON file = NULL;
	struct config_build b = { .c = NEW(struct config) };

	if (!b.c)
		return no_memory(e);
	enum errc rc = load(&b, in, &rest, &file, e);

	if (rc) {
		config_free(b.c);
		return rc;
	}
	if (in->ret_rest) {
		*in->ret_rest = rest;
		rest = (struct str_list){ 0 };
	}
	*ret = b.c;
	return E_OK;
}
