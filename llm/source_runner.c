/*
 * A part that is one OpenAI-compatible runner: an entry of config.json or a loopback port. Its model list says both
 * which agents there are and how it fares. THREAD(supervisor).
 */
#include "base/clock.h"
#include "base/mem.h"
#include "llm/place.h"
#include "llm/probe.h"
#include "llm/source.h"

#define CHAT_CHECK_MS (5 * 60 * 1000)      /* a chat costs the runner work: a good answer counts this long */

struct runner {
	struct source_part part;
	struct source_runner_spec spec;    /* strings owned here */
	char *base_url;
	char *chat_url;                    /* for the last resort of the probe, only with configured models */
	enum upstream_kind kind;           /* as told last, when not configured */
	struct probe *probe;
	int64_t chat_ok_mono_ms;           /* 0: never */
};

static struct runner *runner_of(struct source_part *p)
{
	return CONTAINER_OF(p, struct runner, part);
}

static bool has_models(const struct runner *r)
{
	return r->spec.models && r->spec.models->n > 0;
}

/* Corpus, and the model lists of the others: who owns the models tells who speaks. */
static enum upstream_kind tell_kind(const struct runner *r, const struct json *models)
{
	static const struct { const char *owner; enum upstream_kind kind; } owners[] = {
		{ "llamacpp", UPSTREAM_LLAMA_CPP }, { "vllm", UPSTREAM_VLLM }, { "library", UPSTREAM_OLLAMA },
		{ "organization_owner", UPSTREAM_LM_STUDIO }, { "sglang", UPSTREAM_SGLANG },
	};
	struct slice owner = json_slice(json_get(json_first(models), "owned_by"));
	struct place at;

	for (size_t i = 0; i < ARRAY_LEN(owners); i++)
		if (slice_eq_nocase(owner, slice_str(owners[i].owner)))
			return owners[i].kind;
	if (r->spec.source == AGENT_FROM_DISCOVERED && place_parse(slice_str(r->base_url), &at) && at.port == 1234)
		return UPSTREAM_LM_STUDIO;
	return r->kind;
}

static enum errc make_upstream(const struct runner *r, struct upstream **ret, struct err *e)
{
	struct upstream_spec s = {
		.name = r->part.name, .base_url = r->base_url, .kind = r->kind, .headers = (const char *const *)r->spec.headers,
		.max_concurrent = r->spec.max_concurrent, .connect_ms = r->spec.connect_ms, .first_byte_ms = r->spec.first_byte_ms,
		.idle_ms = r->spec.idle_ms, .total_ms = r->spec.total_ms,
	};

	source_limits(r->part.cfg, &s);
	return source_upstream(&r->part, NULL, &s, ret, e);
}

static enum errc add_agent(struct runner *r, struct upstream *up, struct slice id, enum agent_health health,
		const struct json *item, struct agent_vec *v, struct err *e)
{
	int64_t created_s, window;

	if (id.n == 0 || id.n > SOURCE_NAME_MAX || v->n == SOURCE_AGENTS_MAX || agent_vec_find(v, id))
		return E_OK;
	struct agent a = {
		.slug = slice_dup(id), .model = slice_dup(id), .adapter = mem_strdup(upstream_ops(up->kind)->name),
		.provider = mem_strdup("openai-compatible"), .health = health, .format = FORMAT_OPENAI, .supports_tools = true,
		.is_embedding = agent_is_embedding_name(SLICE(""), id, id), .is_shared = r->spec.is_shared, .sends_model = true,
		.up = upstream_ref(up),
	};

	if (!a.slug || !a.model || !a.adapter || !a.provider) {
		agent_done(&a);
		return err_set(e, E_NO_MEMORY, "no memory for an agent");
	}
	if (!json_i64(json_get(item, "created"), &created_s) || created_s <= 0)
		created_s = clock_wall_ms() / 1000;
	if (json_i64(json_get(item, "max_model_len"), &window) && window > 0)
		a.context_window = window;
	source_settle(&r->part, &a, created_s);
	source_expose(r->part.cfg, &a, false);
	return agent_vec_add(v, &a, e);
}

static enum errc add_configured(struct runner *r, struct upstream *up, const struct probe_result *res,
		struct agent_vec *v, struct err *e)
{
	for (size_t i = 0; i < r->spec.models->n; i++) {
		struct slice id = slice_str(r->spec.models->v[i]);
		enum agent_health health = res->health;
		enum errc rc;

		if (res->list)
			health = json_count(res->list) == 0 || probe_lists(res->list, id) ? HEALTH_HEALTHY : HEALTH_DEGRADED;
		rc = add_agent(r, up, id, health, NULL, v, e);
		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc add_listed(struct runner *r, struct upstream *up, const struct json *list, struct agent_vec *v, struct err *e)
{
	for (const struct json *m = json_first(list); m; m = json_next(m)) {
		enum errc rc = add_agent(r, up, probe_model_id(m), HEALTH_HEALTHY, json_is_object(m) ? m : NULL, v, e);

		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc make_agents(struct runner *r, const struct probe_result *res, struct agent_vec *v, struct err *e)
{
	struct upstream *up = NULL;
	enum errc rc = make_upstream(r, &up, e);

	if (rc)
		return rc;
	rc = has_models(r) ? add_configured(r, up, res, v, e) : add_listed(r, up, res->list, v, e);
	upstream_unref(up);
	return rc;
}

/* A runner that is busy with our own requests may be too busy to answer a probe (llama.cpp: a thread a connection). */
static bool is_busy(const struct runner *r, const struct probe_result *res)
{
	return res->is_timeout && r->part.said.n > 0 && atomic_load(&r->part.said.v[0].up->running) > 0;
}

static void on_probed(void *ctx, const struct probe_result *given)
{
	struct runner *r = ctx;
	struct probe_result res = *given;
	AUTO_AGENTS v = { 0 };
	struct err e = { 0 };

	r->probe = NULL;
	if (is_busy(r, &res)) {
		source_unchanged(&r->part);
		return;
	}
	if (res.list && !r->spec.is_kind_known)
		r->kind = tell_kind(r, res.list);
	if (!res.list && res.health == HEALTH_DEGRADED)
		r->chat_ok_mono_ms = clock_mono_ms();
	else if (!res.list && res.is_answered && r->chat_ok_mono_ms && clock_mono_ms() - r->chat_ok_mono_ms < CHAT_CHECK_MS)
		res.health = HEALTH_DEGRADED;
	if (!res.list && !has_models(r)) {
		source_failed(&r->part, res.e, true);
		return;
	}
	if (make_agents(r, &res, &v, &e))
		source_failed(&r->part, &e, false);
	else
		source_said(&r->part, &v, res.list ? NULL : res.e);
}

static enum errc runner_ask(struct source_part *p, struct err *e)
{
	struct runner *r = runner_of(p);
	bool is_chat_due = !r->chat_ok_mono_ms || clock_mono_ms() - r->chat_ok_mono_ms >= CHAT_CHECK_MS;
	struct probe_req q = {
		.client = p->client, .base_url = r->base_url, .headers = (const char *const *)r->spec.headers,
		.models_path = r->spec.models_path, .model = has_models(r) ? r->spec.models->v[0] : NULL,
		.chat_url = has_models(r) && is_chat_due ? r->chat_url : NULL, .limit_ms = p->cfg->probe_timeout_ms,
		/* as long as nobody said what it is, it may be one that an idle connection harms */
		.is_fresh = (r->kind == UPSTREAM_OPENAI && !r->spec.is_kind_known) || !upstream_ops(r->kind)->keeps_idle,
		.done = on_probed, .ctx = r,
	};

	return probe_start(&q, &r->probe, e);
}

static void runner_cancel(struct source_part *p)
{
	struct runner *r = runner_of(p);

	probe_cancel(TAKE(r->probe));
}

static void runner_free(struct source_part *p)
{
	struct runner *r = runner_of(p);

	source_headers_free(r->spec.headers);
	mem_free(r->base_url);
	mem_free(r->chat_url);
	source_part_done(p);
	mem_free(r);
}

static const struct source_ops runner_ops = { .ask = runner_ask, .cancel = runner_cancel, .free = runner_free };

/* Checks the URL as well: an entry that cannot become an upstream is refused here, at boot. */
static enum errc runner_fill(struct runner *r, const struct source_base *b, struct err *e)
{
	struct upstream *up = NULL;
	enum errc rc = source_part_init(&r->part, b, &runner_ops, r->spec.source, r->spec.name, e);

	if (rc)
		return rc;
	r->base_url = mem_strdup(r->spec.base_url);
	if (!r->base_url)
		return err_set(e, E_NO_MEMORY, "no memory for a source");
	for (size_t n = strlen(r->base_url); n > 0 && r->base_url[n - 1] == '/'; n--)
		r->base_url[n - 1] = '\0';
	rc = make_upstream(r, &up, e);
	if (rc)
		return rc;
	r->chat_url = mem_strdup(up->chat_url);
	upstream_unref(up);
	return r->chat_url ? E_OK : err_set(e, E_NO_MEMORY, "no memory for a source");
}

enum errc source_runner_new(const struct source_base *b, const struct source_runner_spec *s,
		struct source_part **ret, struct err *e)
{
	struct runner *r = NEW(struct runner);

	if (!r) {
		source_headers_free(s->headers);
		return err_set(e, E_NO_MEMORY, "no memory for a source");
	}
	r->spec = *s;
	r->kind = s->kind;
	r->part.is_quiet = s->is_quiet;
	enum errc rc = runner_fill(r, b, e);

	r->spec.name = r->spec.base_url = NULL;   /* the caller's */
	if (rc) {
		runner_free(&r->part);
		return rc;
	}
	*ret = &r->part;
	return E_OK;
}
