/* config show, config check. Main thread. */
#include "server/cli.h"

#include "base/jw.h"

#include <stdio.h>

#define SHOW_MAX (1 << 20)

struct show {
	struct jw w;
	struct buf *text;          /* NULL: JSON */
	bool is_failed;
};

static void show_row(void *ctx, const struct config_row_view *v)
{
	struct show *s = ctx;

	if (v->flags & CFG_HIDDEN)
		return;
	if (s->text) {
		if (buf_addf(s->text, NULL, "%-28s %-11s %s%s%s\n", v->name, config_origin_name(v->origin), v->value,
			     *v->unit ? " " : "", v->unit) != E_OK)
			s->is_failed = true;
		return;
	}
	jw_obj(&s->w, v->name);
	jw_str(&s->w, "value", v->value);
	jw_str(&s->w, "origin", config_origin_name(v->origin));
	jw_str(&s->w, "default", v->default_text);
	jw_str(&s->w, "unit", *v->unit ? v->unit : NULL);
	jw_str(&s->w, "json_key", *v->json_key ? v->json_key : NULL);
	jw_str(&s->w, "env", *v->env ? v->env : NULL);
	jw_str(&s->w, "flag", *v->flag ? v->flag : NULL);
	jw_end(&s->w);
}

static void show_resolved(struct cli *c, struct jw *w)
{
	jw_obj(w, "resolved");
	jw_str(w, "mode", config_mode_name(c->cfg->mode));
	jw_str(w, "config_path", c->cfg->config_path);
	jw_str(w, "state_dir", c->cfg->state_dir);
	jw_str(w, "node_key_path", c->cfg->key_path);
	jw_str(w, "machine_id_path", c->cfg->machine_id_path);
	jw_str(w, "artifact_path", c->cfg->artifact_path);
	jw_bool(w, "expose_all", c->cfg->expose_all);
	jw_bool(w, "generic_jobs", c->cfg->is_generic_jobs_on);
	jw_str(w, "signing_secret", c->cfg->signing_secret.n ? "(set)" : "");
	jw_i64(w, "upstreams", (int64_t)c->cfg->upstream_count);
	jw_end(w);
	jw_arr(w, "warnings");
	for (size_t i = 0; i < c->cfg->warnings.n; i++)
		jw_str(w, NULL, c->cfg->warnings.v[i]);
	jw_end(w);
}

static enum errc show_json(struct cli *c, struct buf *out, struct err *e)
{
	struct show s = { .w = JW_PRETTY(out) };

	jw_obj(&s.w, NULL);
	jw_obj(&s.w, "settings");
	config_each(c->cfg, show_row, &s);
	jw_end(&s.w);
	show_resolved(c, &s.w);
	jw_end(&s.w);
	enum errc rc = jw_done(&s.w, e);

	return rc ? rc : buf_add_str(out, "\n", e);
}

static enum errc show_text(struct cli *c, struct buf *out, struct err *e)
{
	struct show s = { .text = out };
	enum errc rc = buf_addf(out, e, "%-28s %s\n%-28s %s\n%-28s %s\n\n", "mode", config_mode_name(c->cfg->mode), "config.json",
				c->cfg->config_path, "state folder", c->cfg->state_dir);

	config_each(c->cfg, show_row, &s);
	if (rc == E_OK && s.is_failed)
		rc = err_set(e, E_NO_MEMORY, "no memory");
	for (size_t i = 0; i < c->cfg->warnings.n && rc == E_OK; i++)
		rc = buf_addf(out, e, "warning: %s\n", c->cfg->warnings.v[i]);
	return rc;
}

int cmd_config_show(struct cli *c)
{
	AUTO_BUF out = BUF_MAX(SHOW_MAX);
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (rc == E_OK)
		rc = c->wants_json ? show_json(c, &out, &e) : show_text(c, &out, &e);
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}

int cmd_config_check(struct cli *c)
{
	struct err e = { 0 };

	if (c->arg_count != 1 || c->args[0][0] == '-') {
		err_set(&e, E_BAD_REQUEST, "usage: mswarm config check FILE");
		return cli_fail(&e);
	}
	const struct config_load in = { .file_override = c->args[0] };

	/* A missing config.json is an empty one, but a file that was named has to be there. */
	FILE *there = fopen(c->args[0], "re");

	if (!there) {
		err_set(&e, E_NOT_FOUND, "%s: cannot be read", c->args[0]);
		return cli_fail(&e);
	}
	fclose(there);
	if (config_load(&in, &c->cfg, &e) != E_OK)
		return cli_fail(&e);
	for (size_t i = 0; i < c->cfg->warnings.n; i++)
		printf("warning: %s\n", c->cfg->warnings.v[i]);
	printf("%s: ok, %zu warnings\n", c->args[0], c->cfg->warnings.n);
	return 0;
}
