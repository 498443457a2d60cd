/*
 * The table of settings, the environment, and what outlives a load: showing and freeing. Called on main, at boot and by
 * commands; the finished struct is read by every thread.
 */
#include "base/config_priv.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define WARNINGS_MAX 64
#define LIST_MAX 4096

const struct config_row config_rows[ROW__COUNT] = {
#define CFG_INT(name_, def_, lo_, hi_, flags_, unit_, json_, env_, flag_, help_) \
	[ROW_##name_] = { .type = ROW_INT, .name = #name_, .default_text = #def_, .lo = lo_, .hi = hi_, .flags = flags_, \
		.unit = unit_, .json_key = json_, .env = env_, .flag = flag_, .help = help_, \
		.offset = offsetof(struct config, name_) },
#define CFG_ROW_(type_, name_, def_, flags_, json_, env_, flag_, help_) \
	[ROW_##name_] = { .type = type_, .name = #name_, .default_text = def_, .flags = flags_, .unit = "", .json_key = json_, \
		.env = env_, .flag = flag_, .help = help_, .offset = offsetof(struct config, name_) },
#define CFG_BOOL(name_, def_, flags_, json_, env_, flag_, help_) \
	CFG_ROW_(ROW_BOOL, name_, #def_, flags_, json_, env_, flag_, help_)
#define CFG_STR(name_, def_, flags_, json_, env_, flag_, help_) \
	CFG_ROW_(ROW_STR, name_, def_, flags_, json_, env_, flag_, help_)
#define CFG_LIST(name_, def_, flags_, json_, env_, flag_, help_) \
	CFG_ROW_(ROW_LIST, name_, def_, flags_, json_, env_, flag_, help_)
#include "base/config_keys.def"
#undef CFG_ROW_
};

static void *member(struct config *c, const struct config_row *r, enum row_type type)
{
	must(r->type == type);
	return (char *)c + r->offset;
}

int64_t *config_int(struct config *c, const struct config_row *r)
{
	return member(c, r, ROW_INT);
}

bool *config_bool(struct config *c, const struct config_row *r)
{
	return member(c, r, ROW_BOOL);
}

char **config_str(struct config *c, const struct config_row *r)
{
	return member(c, r, ROW_STR);
}

struct str_list *config_list(struct config *c, const struct config_row *r)
{
	return member(c, r, ROW_LIST);
}

const char *config_env(const char *name)
{
	return getenv(name);
}

bool str_list_has(const struct str_list *l, struct slice s)
{
	for (size_t i = 0; i < l->n; i++)
		if (slice_eq(slice_str(l->v[i]), s))
			return true;
	return false;
}

void str_list_done(struct str_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		mem_free(l->v[i]);
	mem_free(l->v);
	*l = (struct str_list){ 0 };
}

enum errc str_list_add(struct str_list *l, struct slice s, struct err *e)
{
	if (l->n >= LIST_MAX)
		return err_set(e, E_TOO_LARGE, "list: more than %d entries", LIST_MAX);
	/* Lists are short and built once; the block doubles at powers of two. */
	if ((l->n & (l->n - 1)) == 0) {
		char **v = mem_realloc(l->v, (l->n ? l->n * 2 : 1) * sizeof(*v));

		if (!v)
			return err_set(e, E_NO_MEMORY, "no memory");
		l->v = v;
	}
	char *copy = slice_dup(s);

	if (!copy)
		return err_set(e, E_NO_MEMORY, "no memory");
	l->v[l->n++] = copy;
	return E_OK;
}

void config_warn(struct config_build *b, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (b->c->warnings.n >= WARNINGS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (b->c->warnings.n == WARNINGS_MAX - 1)
		snprintf(text, sizeof(text), "more warnings are left out");
	if (str_list_add(&b->c->warnings, slice_str(text), NULL) != E_OK)
		b->is_out_of_memory = true;
}

void config_upstream_done(struct config_upstream *u)
{
	mem_free(u->name);
	mem_free(u->base_url);
	mem_free(u->kind);
	mem_free(u->api_key_file);
	str_list_done(&u->models);
	str_list_done(&u->headers);
	*u = (struct config_upstream){ 0 };
}

static void free_str(char *s, bool is_secret)
{
	if (s && is_secret)
		mem_wipe(s, strlen(s));
	mem_free(s);
}

void config_put_str(struct config_build *b, size_t row, char *take_text, enum config_origin from)
{
	char **slot = config_str(b->c, &config_rows[row]);

	free_str(*slot, config_rows[row].flags & CFG_SECRET);
	*slot = take_text;
	b->c->origins[row] = (uint8_t)from;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < ROW__COUNT; i++) {
		const struct config_row *r = &config_rows[i];

		if (r->type == ROW_STR)
			free_str(*config_str(c, r), r->flags & CFG_SECRET);
		else if (r->type == ROW_LIST)
			str_list_done(config_list(c, r));
	}
	for (size_t i = 0; i < c->upstream_count; i++)
		config_upstream_done(&c->upstreams[i]);
	mem_free(c->upstreams);
	mem_free(c->config_path);
	mem_free(c->state_dir);
	mem_free(c->key_path);
	mem_free(c->machine_id_path);
	mem_free(c->artifact_path);
	secret_done(&c->signing_secret);
	mem_free(c->home);
	str_list_done(&c->warnings);
	mem_free(c);
}

/* The value as text, in scratch where it must be made. */
static const char *render(const struct config *c, const struct config_row *r, struct buf *scratch)
{
	const void *at = (const char *)c + r->offset;
	enum errc rc = E_OK;

	if (r->type == ROW_BOOL)
		return *(const bool *)at ? "true" : "false";
	if (r->type == ROW_STR) {
		const char *s = *(char *const *)at;

		return (r->flags & CFG_SECRET) && *s ? "(set)" : s;
	}
	buf_clear(scratch);
	if (r->type == ROW_INT) {
		rc = buf_addf(scratch, NULL, "%" PRId64, *(const int64_t *)at);
	} else {
		const struct str_list *l = at;

		for (size_t i = 0; i < l->n && rc == E_OK; i++)
			rc = buf_addf(scratch, NULL, "%s%s", i ? "," : "", l->v[i]);
	}
	const char *text = rc == E_OK ? buf_cstr(scratch) : NULL;

	return text ? text : "(no memory)";
}

void config_each(const struct config *c, void (*fn)(void *ctx, const struct config_row_view *v), void *ctx)
{
	AUTO_BUF scratch = BUF_MAX(1 << 20);

	for (size_t i = 0; i < ROW__COUNT; i++) {
		const struct config_row *r = &config_rows[i];
		struct config_row_view v = {
			.name = r->name, .json_key = r->json_key, .env = r->env, .flag = r->flag, .unit = r->unit, .help = r->help,
			.default_text = r->default_text, .value = render(c, r, &scratch),
			.origin = (enum config_origin)c->origins[i], .flags = r->flags,
		};

		fn(ctx, &v);
	}
}

const char *config_origin_name(enum config_origin o)
{
	static const char *const names[] = {
		[CFG_FROM_DEFAULT] = "default", [CFG_FROM_FILE] = "file", [CFG_FROM_ENV] = "environment", [CFG_FROM_FLAG] = "flag",
	};

	return names[o];
}

const char *config_mode_name(enum config_mode m)
{
	static const char *const names[] = { [MODE_LOCAL] = "local", [MODE_OUTBOUND] = "outbound", [MODE_DIRECT] = "direct" };

	return names[m];
}
