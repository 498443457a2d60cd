/* Ollama: its models by /api/tags, spoken to through its /v1. THREAD(supervisor). */
#include "base/clock.h"
#include "base/jw.h"
#include "base/mem.h"
#include "llm/source.h"

#define TAGS_MAX (4u << 20)

struct ollama {
	struct source_part part;
	char *tags_url, *v1_url, *version_url;
	char version[40];
	bool is_version;                   /* what runs asks for the version; the tags come then */
	struct httpc_xfer *xfer;
	int status;
	struct buf reply;
};

static struct ollama *ollama_of(struct source_part *p)
{
	return CONTAINER_OF(p, struct ollama, part);
}

/* ---- the catalogue's entry: gateway.md 7.3 ---- */

static bool sees(struct slice name, struct slice family)
{
	static const char *const words[] = { "llava", "vision", "bakllava" };

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (slice_contains_nocase(name, slice_str(words[i])) || slice_contains_nocase(family, slice_str(words[i])))
			return true;
	return false;
}

static void text_or_null(struct jw *w, const char *key, const struct json *v)
{
	jw_str(w, key, json_str(v));
}

static enum errc write_entry(const struct json *m, struct agent *a, struct err *e)
{
	const struct json *details = json_get(m, "details");
	struct slice name = slice_str(a->slug), family = json_slice(json_get(details, "family"));
	AUTO_BUF b = BUF_MAX(64u * 1024);
	struct jw w = JW(&b);
	bool writes_code = slice_eq(family, SLICE("codellama")) || slice_contains_nocase(name, SLICE("code"));

	jw_obj(&w, NULL);
	jw_slice(&w, "name", name);
	jw_str(&w, "provider", "ollama");
	jw_str(&w, "adapter", "ollama");
	jw_slice(&w, "model_id", name);
	text_or_null(&w, "digest", json_get(m, "digest"));
	text_or_null(&w, "family", json_get(details, "family"));
	text_or_null(&w, "parameter_size", json_get(details, "parameter_size"));
	text_or_null(&w, "quantization_level", json_get(details, "quantization_level"));
	jw_bool(&w, "supports_tools", false);
	jw_bool(&w, "supports_vision", sees(name, family));
	jw_bool(&w, "openai_compatible", false);
	jw_end(&w);
	enum errc rc = source_entry_piece(&w, &b, &a->entry_head, e);

	if (rc)
		return rc;
	w = JW(&b);
	jw_obj(&w, NULL);
	jw_str(&w, "best_usage", a->is_embedding ? "embedding" : writes_code ? "code_writer" : "general_chat");
	jw_i64(&w, "rating", 5);
	jw_i64(&w, "reasoning_rating", 4);
	jw_i64(&w, "max_complexity", 3);
	jw_end(&w);
	a->is_metadata_unknown = json_is_absent(details);
	return source_entry_piece(&w, &b, &a->entry_tail, e);
}

static enum errc add_model(struct ollama *o, struct upstream *up, const struct json *m, struct agent_vec *v, struct err *e)
{
	struct slice name = json_slice(json_get(m, "name")), family = json_slice(json_get(json_get(m, "details"), "family"));
	int64_t modified_wall_ms;

	if (name.n == 0 || name.n > SOURCE_NAME_MAX || v->n == SOURCE_AGENTS_MAX || agent_vec_find(v, name))
		return E_OK;
	struct agent a = {
		.slug = slice_dup(name), .model = slice_dup(name), .adapter = mem_strdup("ollama"), .provider = mem_strdup("ollama-remote"),
		.health = HEALTH_HEALTHY, .format = FORMAT_OPENAI, .supports_tools = true,
		.is_embedding = agent_is_embedding_name(SLICE(""), name, family),
		.is_shared = strcmp(o->part.cfg->discovery_mode, "ollama") == 0, .sends_model = true, .up = upstream_ref(up),
	};

	if (!a.slug || !a.model || !a.adapter || !a.provider) {
		agent_done(&a);
		return err_set(e, E_NO_MEMORY, "no memory for an agent");
	}
	if (!clock_parse_iso(json_slice(json_get(m, "modified_at")), &modified_wall_ms) || modified_wall_ms <= 0)
		modified_wall_ms = clock_wall_ms();
	source_settle(&o->part, &a, modified_wall_ms / 1000);
	source_expose(o->part.cfg, &a, false);
	enum errc rc = write_entry(m, &a, e);

	if (rc) {
		agent_done(&a);
		return rc;
	}
	return agent_vec_add(v, &a, e);
}

static enum errc read_tags(struct ollama *o, struct agent_vec *v, struct err *e)
{
	AUTO_JSON reply = NULL;
	struct json_limits lim = { .max_bytes = TAGS_MAX, .max_depth = 32 };
	struct upstream_spec s = { .name = "ollama", .base_url = o->v1_url, .kind = UPSTREAM_OLLAMA };
	struct upstream *up = NULL;
	enum errc rc;

	if (o->status < 200 || o->status > 299)
		return err_set(e, E_UPSTREAM, "/api/tags: status %d", o->status);
	rc = json_parse(buf_slice(&o->reply), lim, &reply, e);
	if (rc)
		return rc;
	const struct json *models = json_get(reply, "models");

	if (!json_is_array(models))
		return err_set(e, E_UPSTREAM, "/api/tags: no list of models in the reply");
	source_limits(o->part.cfg, &s);
	rc = source_upstream(&o->part, NULL, &s, &up, e);
	for (const struct json *m = json_first(models); m && rc == E_OK; m = json_next(m))
		rc = add_model(o, up, m, v, e);
	upstream_unref(up);
	return rc;
}

static void on_head(void *ctx, const struct httpc_head *h)
{
	struct ollama *o = ctx;

	o->status = h->status;
}

static enum httpc_take on_data(void *ctx, struct slice bytes)
{
	struct ollama *o = ctx;

	/* what does not fit leaves a text that is no JSON */
	(void)!buf_add_slice(&o->reply, bytes, NULL);
	return HTTPC_TAKEN;
}

static bool is_busy(const struct ollama *o)
{
	return o->part.said.n > 0 && atomic_load(&o->part.said.v[0].up->running) > 0;
}

static void read_version(struct ollama *o)
{
	AUTO_JSON reply = NULL;
	struct json_limits lim = { .max_bytes = TAGS_MAX, .max_depth = 8 };
	struct slice version;

	o->version[0] = '\0';
	if (o->status < 200 || o->status > 299 || json_parse(buf_slice(&o->reply), lim, &reply, NULL))
		return;
	version = slice_trim(json_slice(json_get(reply, "version")));
	(void)!slice_copy(version, o->version, sizeof(o->version));
}

static enum errc ask_tags(struct ollama *o, struct err *e);

static void on_done(void *ctx, enum errc rc, enum httpc_phase phase, const struct err *e)
{
	struct ollama *o = ctx;
	AUTO_AGENTS v = { 0 };
	struct err why = { 0 };

	(void)phase;
	o->xfer = NULL;
	if (o->is_version) {
		if (!rc)
			read_version(o);
		buf_done(&o->reply);
		if (ask_tags(o, &why))
			source_failed(&o->part, &why, false);
		return;
	}
	if (rc == E_TIMEOUT && is_busy(o)) {
		source_unchanged(&o->part);
		return;
	}
	if (rc)
		source_failed(&o->part, e, true);
	else if (read_tags(o, &v, &why))
		source_failed(&o->part, &why, true);
	else
		source_said_version(&o->part, &v, o->version);
	buf_done(&o->reply);
}

static const struct httpc_ops tags_ops = { .on_head = on_head, .on_data = on_data, .on_done = on_done };

static enum errc ask_url(struct ollama *o, const char *url, struct err *e)
{
	struct source_part *p = &o->part;
	int64_t limit_ms = p->cfg->probe_timeout_ms;
	struct httpc_req q = { .method = "GET", .url = url, .connect_ms = limit_ms, .first_byte_ms = limit_ms,
		.total_ms = limit_ms, .max_body = TAGS_MAX, .ops = &tags_ops, .ctx = o };

	buf_init(&o->reply, TAGS_MAX);
	o->status = 0;
	return httpc_start(p->client, &q, &o->xfer, e);
}

static enum errc ask_tags(struct ollama *o, struct err *e)
{
	o->is_version = false;
	return ask_url(o, o->tags_url, e);
}

/* Its version is for the gateway alone. */
static enum errc ollama_ask(struct source_part *p, struct err *e)
{
	struct ollama *o = ollama_of(p);

	if (strcmp(p->cfg->discovery_mode, "ollama") != 0 || p->cfg->mode == MODE_LOCAL)
		return ask_tags(o, e);
	o->is_version = true;
	return ask_url(o, o->version_url, e);
}

static void ollama_cancel(struct source_part *p)
{
	struct ollama *o = ollama_of(p);

	if (o->xfer)
		httpc_cancel(TAKE(o->xfer));
	buf_done(&o->reply);
}

static void ollama_free(struct source_part *p)
{
	struct ollama *o = ollama_of(p);

	mem_free(o->tags_url);
	mem_free(o->v1_url);
	mem_free(o->version_url);
	source_part_done(p);
	mem_free(o);
}

static const struct source_ops ollama_ops = { .ask = ollama_ask, .cancel = ollama_cancel, .free = ollama_free };

static char *with_path(const char *base, const char *path)
{
	AUTO_BUF b = BUF_MAX(8192);
	struct slice s = slice_str(base);

	while (s.n > 0 && s.p[s.n - 1] == '/')
		s.n--;
	return buf_add_slice(&b, s, NULL) || buf_add_str(&b, path, NULL) ? NULL : buf_take(&b, NULL);
}

enum errc source_ollama_new(const struct source_base *b, struct source_part **ret, struct err *e)
{
	struct ollama *o = NEW(struct ollama);

	if (!o)
		return err_set(e, E_NO_MEMORY, "no memory for a source");
	enum errc rc = source_part_init(&o->part, b, &ollama_ops, AGENT_FROM_OLLAMA, "ollama", e);

	/* without it a machine simply has no Ollama, unless the owner wants a gateway to see it */
	o->part.is_quiet = strcmp(b->cfg->discovery_mode, "ollama") != 0;
	o->tags_url = with_path(b->cfg->ollama_base_url, "/api/tags");
	o->v1_url = with_path(b->cfg->ollama_base_url, "/v1");
	o->version_url = with_path(b->cfg->ollama_base_url, "/api/version");
	if (rc == E_OK && (!o->tags_url || !o->v1_url || !o->version_url))
		rc = err_set(e, E_NO_MEMORY, "no memory for a source");
	if (rc == E_OK && source_is_self(b->cfg, slice_str(b->cfg->ollama_base_url)))
		rc = err_set(e, E_INVALID_VALUE, "ollama_base_url: that is this node itself");
	if (rc) {
		ollama_free(&o->part);
		return rc;
	}
	*ret = &o->part;
	return E_OK;
}
