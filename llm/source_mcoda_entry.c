/*
 * What an entry of mcoda's agent list means: which agents exist, what they run on, how they are spoken to
 * (llm-execution.md 2.2-2.6, 3.1). Called by source_mcoda.c. THREAD(supervisor).
 */
#include "base/clock.h"
#include "base/jw.h"
#include "base/mem.h"
#include "llm/pick.h"
#include "llm/place.h"
#include "llm/source_mcoda.h"

#define OUTPUT_LIMITS ((struct json_limits){ .max_bytes = 16u << 20, .max_depth = 64 })
#define HEADERS_MAX 32
#define EXTRA_BODY_MAX (64u * 1024)
#define OPENAI_BASE_URL "https://api.openai.com/v1"
#define OLLAMA_BASE_URL "http://127.0.0.1:11434"

void mcoda_hints_done(struct mcoda_hints *h)
{
	for (size_t i = 0; i < h->n; i++) {
		mem_free(h->v[i].health_path);
		mem_free(h->v[i].models_path);
	}
	h->n = 0;
}

/* ---- tables ---- */

enum family { FAMILY_NONE, FAMILY_LOCAL, FAMILY_CLOUD, FAMILY_OLLAMA };

static const struct adapter {
	const char *name;
	enum family family;
	enum upstream_kind kind;
} adapters[] = {
	{ "openai-compatible-local", FAMILY_LOCAL, UPSTREAM_OPENAI }, { "vllm-local", FAMILY_LOCAL, UPSTREAM_VLLM },
	{ "llama-cpp-local", FAMILY_LOCAL, UPSTREAM_LLAMA_CPP }, { "llamacpp-local", FAMILY_LOCAL, UPSTREAM_LLAMA_CPP },
	{ "openai", FAMILY_CLOUD, UPSTREAM_OPENAI }, { "openai-compatible", FAMILY_CLOUD, UPSTREAM_OPENAI },
	{ "openai-cli", FAMILY_CLOUD, UPSTREAM_OPENAI }, { "ollama-remote", FAMILY_OLLAMA, UPSTREAM_OLLAMA },
	{ "ollama-cli", FAMILY_OLLAMA, UPSTREAM_OLLAMA }, { "ollama", FAMILY_OLLAMA, UPSTREAM_OLLAMA },
	{ "local-model", FAMILY_OLLAMA, UPSTREAM_OLLAMA },
};
static const struct adapter no_adapter = { "", FAMILY_NONE, UPSTREAM_OPENAI };

/* Local-runner adapters are compared trimmed and in any case, the others exactly. */
static const struct adapter *find_adapter(struct slice name)
{
	for (size_t i = 0; i < ARRAY_LEN(adapters); i++) {
		struct slice row = slice_str(adapters[i].name);
		bool is_it = adapters[i].family == FAMILY_LOCAL ? slice_eq_nocase(slice_trim_js(name), row) : slice_eq(name, row);

		if (is_it)
			return &adapters[i];
	}
	return &no_adapter;
}

struct word {
	const char *text;
	int value;
};

static int find_word(const struct word *words, size_t n, struct slice s, int fallback)
{
	for (size_t i = 0; i < n; i++)
		if (slice_eq_nocase(s, slice_str(words[i].text)))
			return words[i].value;
	return fallback;
}

static enum agent_health read_health(const struct json *entry)
{
	static const struct word words[] = { { "healthy", HEALTH_HEALTHY }, { "degraded", HEALTH_DEGRADED },
		{ "blocked", HEALTH_BLOCKED }, { "unreachable", HEALTH_UNREACHABLE }, { "unhealthy", HEALTH_UNREACHABLE },
		{ "offline", HEALTH_UNREACHABLE } };

	return (enum agent_health)find_word(words, ARRAY_LEN(words), json_slice(json_get(json_get(entry, "health"), "status")),
		HEALTH_UNKNOWN);
}

static enum agent_format read_format(struct record r)
{
	static const struct word words[] = { { "openai", FORMAT_OPENAI }, { "gbnf", FORMAT_GBNF }, { "none", FORMAT_NONE },
		{ "json-object", FORMAT_JSON_OBJECT }, { "json_object", FORMAT_JSON_OBJECT }, { "jsonobject", FORMAT_JSON_OBJECT },
		{ "json-schema", FORMAT_JSON_SCHEMA }, { "json_schema", FORMAT_JSON_SCHEMA }, { "jsonschema", FORMAT_JSON_SCHEMA },
		{ "prompt-only", FORMAT_PROMPT_ONLY }, { "prompt_only", FORMAT_PROMPT_ONLY }, { "promptonly", FORMAT_PROMPT_ONLY } };

	return (enum agent_format)find_word(words, ARRAY_LEN(words), pick_text(r, KEYS("responseFormatStrategy")), FORMAT_OPENAI);
}

enum auth { AUTH_NONE, AUTH_BEARER, AUTH_DUMMY };

static enum auth read_auth(struct record r)
{
	static const struct word words[] = { { "bearer", AUTH_BEARER }, { "dummy-bearer", AUTH_DUMMY },
		{ "dummy_bearer", AUTH_DUMMY }, { "dummybearer", AUTH_DUMMY }, { "dummy", AUTH_DUMMY } };

	return (enum auth)find_word(words, ARRAY_LEN(words), pick_text(r, KEYS("authMode")), AUTH_NONE);
}

/* ---- headers and body ---- */

static bool is_clean(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return false;
	return true;
}

static enum errc add_line(char **headers, size_t *n, struct slice name, const char *scheme, struct slice value, struct err *e)
{
	AUTO_BUF line = BUF_MAX(8192);

	/* what could not stand in a header line is left out; so is what would be a second header in disguise */
	if (*n == HEADERS_MAX || !is_clean(name) || !is_clean(value) || slice_find_char(name, ':') >= 0 || slice_find_char(name, ' ') >= 0)
		return E_OK;
	enum errc rc = buf_addf(&line, e, SLICE_FMT ": %s" SLICE_FMT, SLICE_ARG(name), scheme, SLICE_ARG(value));

	if (rc == E_OK && !(headers[(*n)++] = buf_take(&line, NULL)))
		rc = err_set(e, E_NO_MEMORY, "no memory");
	if (line.p)
		mem_wipe(line.p, line.cap);
	return rc == E_TOO_LARGE ? E_OK : rc;
}

/* Headers of the config, but none that carries credentials: those come by the auth mode alone. */
static enum errc add_extra_headers(struct record r, char **headers, size_t *n, struct err *e)
{
	static const struct word dropped[] = { { "authorization", 1 }, { "proxy-authorization", 1 }, { "x-api-key", 1 }, { "api-key", 1 },
		{ "host", 1 }, { "content-length", 1 }, { "transfer-encoding", 1 }, { "connection", 1 }, { "content-type", 1 } };
	const struct json *extra = pick_any(r, "headers");

	if (!json_is_object(extra))
		return E_OK;
	for (const struct json *m = json_first(extra); m; m = json_next(m)) {
		struct slice name = slice_str(json_key(m)), value = slice_trim(json_slice(m));

		if (name.n == 0 || value.n == 0 || find_word(dropped, ARRAY_LEN(dropped), slice_trim(name), 0))
			continue;
		enum errc rc = add_line(headers, n, name, "", value, e);

		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc add_auth(const struct adapter *ad, struct record r, const struct json *config, char **headers,
		size_t *n, struct err *e)
{
	struct slice key = pick_text((struct record){ .top = config }, KEYS("apiKey", "api_key"));
	struct slice dummy = pick_text(r, KEYS("dummyBearerToken", "dummyApiKey"));
	enum auth mode = ad->family == FAMILY_LOCAL ? read_auth(r) : ad->family == FAMILY_CLOUD ? AUTH_BEARER : AUTH_NONE;
	struct slice token = mode == AUTH_DUMMY ? (dummy.n ? dummy : SLICE("local")) : key;

	if (mode == AUTH_NONE || token.n == 0)
		return E_OK;
	return add_line(headers, n, SLICE("authorization"), "Bearer ", token, e);
}

static enum errc read_extra_body(struct record r, char **ret, struct err *e)
{
	static const struct word dropped[] = { { "model", 1 }, { "messages", 1 }, { "stream", 1 }, { "tools", 1 }, { "tool_choice", 1 },
		{ "response_format", 1 }, { "max_tokens", 1 }, { "temperature", 1 } };
	const struct json *extra = pick_any(r, "extraBody");
	AUTO_BUF b = BUF_MAX(EXTRA_BODY_MAX);
	struct jw w = JW(&b);
	size_t n = 0;

	if (!json_is_object(extra))
		return E_OK;
	jw_obj(&w, NULL);
	for (const struct json *m = json_first(extra); m; m = json_next(m)) {
		if (find_word(dropped, ARRAY_LEN(dropped), slice_str(json_key(m)), 0))
			continue;
		jw_tree(&w, json_key(m), m);
		n++;
	}
	jw_end(&w);
	enum errc rc = jw_done(&w, e);

	if (rc || n == 0)
		return rc;
	*ret = buf_take(&b, NULL);
	return *ret ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
}

/* ---- the upstream ---- */

/* Base URL as given, or the adapter's default; Ollama's gets its /v1. *ret_is_cloud: not a local server. */
static char *read_base_url(const struct adapter *ad, struct record r, bool *ret_is_cloud)
{
	const char *const *keys = ad->family == FAMILY_LOCAL
		? KEYS("baseUrl", "base_url", "endpoint", "apiBaseUrl", "api_base_url")
		: KEYS("baseUrl", "base_url", "apiBaseUrl", "api_base_url");
	struct slice given = pick_text(r, keys);
	struct slice base = given.n ? given : ad->family == FAMILY_OLLAMA ? SLICE(OLLAMA_BASE_URL) : SLICE(OPENAI_BASE_URL);
	AUTO_BUF b = BUF_MAX(8192);
	struct place at;

	while (base.n > 0 && base.p[base.n - 1] == '/')
		base.n--;
	*ret_is_cloud = place_parse(base, &at) && !place_is_private(&at) &&
			(ad->family == FAMILY_CLOUD || (ad->family == FAMILY_LOCAL && given.n == 0));
	if (buf_add_slice(&b, base, NULL))
		return NULL;
	if (ad->family == FAMILY_OLLAMA && !slice_ends_with(base, SLICE("/v1")) && buf_add_str(&b, "/v1", NULL))
		return NULL;
	return buf_take(&b, NULL);
}

static enum errc make_headers(const struct adapter *ad, struct record r, const struct json *config, char ***ret, struct err *e)
{
	char **headers = mem_calloc(HEADERS_MAX + 1, sizeof(*headers));
	enum errc rc = headers ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
	size_t n = 0;

	if (rc == E_OK && ad->family == FAMILY_LOCAL)
		rc = add_extra_headers(r, headers, &n, e);
	if (rc == E_OK)
		rc = add_auth(ad, r, config, headers, &n, e);
	if (rc) {
		source_headers_free(headers);
		return rc;
	}
	*ret = headers;
	return E_OK;
}

/* Leaves a->up NULL when the adapter cannot run here, or its URL is no good or our own. */
static enum errc make_upstream(struct source_part *p, const struct agent_vec *v, const struct adapter *ad,
		struct record r, const struct json *config, struct agent *a, bool *ret_is_cloud, struct err *e)
{
	struct upstream_spec s = { .name = a->slug, .kind = ad->kind };
	char **headers = NULL;

	if (ad->family == FAMILY_NONE)
		return E_OK;
	AUTO_FREE char *base_url = read_base_url(ad, r, ret_is_cloud);
	struct place at;

	if (!base_url)
		return err_set(e, E_NO_MEMORY, "no memory");
	if (!place_parse(slice_str(base_url), &at) || source_is_self(p->cfg, slice_str(base_url)))
		return E_OK;
	if (ad->family == FAMILY_LOCAL && (!upstream_kind_parse(pick_text(r, KEYS("runnerKind")), &s.kind) || s.kind == UPSTREAM_DEMO))
		s.kind = ad->kind;
	enum errc rc = make_headers(ad, r, config, &headers, e);

	if (rc)
		return rc;
	s.base_url = base_url;
	s.headers = (const char *const *)headers;
	source_limits(p->cfg, &s);
	rc = source_upstream(p, v, &s, &a->up, e);
	source_headers_free(headers);
	return rc;
}

/* ---- an entry ---- */

/* Agents that are our own or a sister node's, as a gateway gave them out: using them would go round in circles. */
static bool is_managed(struct slice slug, const struct json *config)
{
	static const char *const keys[] = { "mswarmCloud", "mswarmSelfHosted", "mswarmWorker" };
	static const char *const prefixes[] = { "mswarm-cloud-", "mswarm-self-hosted-", "mswarm-worker-" };

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (json_is_true(json_get(json_get(config, keys[i]), "managed")) || slice_starts_with_nocase(slug, slice_str(prefixes[i])))
			return true;
	return false;
}

static struct slice read_model(const struct json *entry, struct slice slug)
{
	struct record r = { .top = entry };
	struct slice model = pick_text(r, KEYS("defaultModel", "default_model"));
	const struct json *list = json_get(entry, "models");

	for (const struct json *m = json_is_array(list) ? json_first(list) : NULL; m && model.n == 0; m = json_next(m)) {
		if (!json_is_true(json_get(m, "isDefault")) && !json_is_true(json_get(m, "is_default")))
			continue;
		model = pick_text((struct record){ .top = m }, KEYS("modelName", "model_name"));
		break;
	}
	return model.n ? model : slug;
}

static const char *provider_of(const struct adapter *ad, const char *adapter)
{
	switch (ad->family) {
	case FAMILY_LOCAL:
	case FAMILY_CLOUD:
		return "openai-compatible";
	case FAMILY_OLLAMA:
		return "ollama-remote";
	case FAMILY_NONE:
		break;
	}
	return adapter;
}

static char *dup_or_null(struct slice s)
{
	return s.n ? slice_dup(s) : NULL;
}

static enum errc fill_texts(struct agent *a, const struct json *entry, struct slice slug, struct slice adapter,
		const struct adapter *ad, struct err *e)
{
	struct slice id = json_slice(json_get(entry, "id"));

	a->slug = slice_dup(slug);
	a->model = slice_dup(read_model(entry, slug));
	a->adapter = slice_dup(adapter);
	a->provider = a->adapter ? mem_strdup(provider_of(ad, a->adapter)) : NULL;
	a->source_id = dup_or_null(id);
	if (!a->slug || !a->model || !a->adapter || !a->provider || (id.n && !a->source_id))
		return err_set(e, E_NO_MEMORY, "no memory for an agent");
	return E_OK;
}

static void fill_facts(struct agent *a, const struct json *entry, struct record r, const struct adapter *ad)
{
	struct record top = { .top = entry };
	bool is_local = ad->family == FAMILY_LOCAL;

	a->health = read_health(entry);
	a->format = is_local ? read_format(r) : FORMAT_OPENAI;
	a->supports_tools = true;
	a->is_supports_tools_known = pick_bool(top, KEYS("supportsTools", "supports_tools"), &a->supports_tools) ||
				     (is_local && pick_bool(r, KEYS("supportsTools", "supports_tools"), &a->supports_tools));
	a->sends_model = true;
	if (is_local)
		(void)!pick_bool(r, KEYS("requireModelInRequest", "require_model_in_request"), &a->sends_model);
	a->max_output_tokens = pick_count(top, KEYS("maxOutputTokens", "max_output_tokens"));
	a->context_window = pick_count(top, KEYS("contextWindow", "context_window"));
	a->is_embedding = agent_is_embedding_name(pick_text(top, KEYS("bestUsage", "best_usage")), slice_str(a->slug), slice_str(a->model));
}

static enum errc add_hint(struct mcoda_hints *hints, size_t at, struct record r, struct err *e)
{
	struct slice health = pick_text(r, KEYS("healthPath", "health_path")), models = pick_text(r, KEYS("modelsPath", "models_path"));

	if (hints->n == ARRAY_LEN(hints->v))
		return E_OK;
	struct mcoda_hint *h = &hints->v[hints->n++];

	*h = (struct mcoda_hint){ .at = at, .health_path = dup_or_null(health), .models_path = dup_or_null(models) };
	if ((health.n && !h->health_path) || (models.n && !h->models_path))
		return err_set(e, E_NO_MEMORY, "no memory");
	return E_OK;
}

static int64_t read_created(const struct json *entry)
{
	struct slice text = pick_text((struct record){ .top = entry }, KEYS("createdAt", "created_at"));
	int64_t wall_ms;

	return (clock_parse_iso(text, &wall_ms) && wall_ms > 0 ? wall_ms : clock_wall_ms()) / 1000;
}

static enum errc fill_agent(struct source_part *p, const struct agent_vec *v, const struct json *entry,
		struct slice slug, struct agent *a, bool *ret_is_local, struct record r, struct err *e)
{
	const struct json *config = json_get(entry, "config");
	struct slice adapter = pick_text((struct record){ .top = entry }, KEYS("adapter"));
	const struct adapter *ad;
	bool is_cloud = false;

	adapter = adapter.n ? adapter : SLICE("unknown");
	ad = find_adapter(adapter);
	enum errc rc = fill_texts(a, entry, slug, adapter, ad, e);

	if (rc == E_OK && ad->family == FAMILY_LOCAL)
		rc = read_extra_body(r, &a->extra_body, e);
	if (rc == E_OK)
		rc = make_upstream(p, v, ad, r, config, a, &is_cloud, e);
	if (rc)
		return rc;
	fill_facts(a, entry, r, ad);
	a->is_shared = strcmp(p->cfg->discovery_mode, "ollama") != 0;
	source_settle(p, a, read_created(entry));
	source_expose(p->cfg, a, is_cloud);
	*ret_is_local = ad->family == FAMILY_LOCAL;
	return mcoda_catalog(entry, *ret_is_local ? &r : NULL, a, e);
}

static enum errc add_entry(struct source_part *p, const struct json *entry, struct agent_vec *v,
		struct mcoda_hints *hints, struct err *e)
{
	const struct json *config = json_get(entry, "config"), *below = json_get(config, "localRunner");
	struct record r = { .top = json_is_object(config) ? config : NULL, .below = json_is_object(below) ? below : NULL };
	struct slice slug = json_is_object(entry) ? slice_trim_js(json_slice(json_get(entry, "slug"))) : SLICE("");
	struct agent a = { 0 };
	bool is_local = false;

	if (slug.n == 0 || slug.n > SOURCE_NAME_MAX || v->n == SOURCE_AGENTS_MAX || is_managed(slug, r.top) || agent_vec_find(v, slug))
		return E_OK;
	enum errc rc = fill_agent(p, v, entry, slug, &a, &is_local, r, e);

	if (rc == E_OK && is_local && a.is_exposed && a.health == HEALTH_UNKNOWN)
		rc = add_hint(hints, v->n, r, e);
	if (rc) {
		agent_done(&a);
		return rc;
	}
	return agent_vec_add(v, &a, e);
}

enum errc mcoda_read(struct source_part *p, struct slice out, struct agent_vec *v, struct mcoda_hints *hints, struct err *e)
{
	AUTO_JSON reply = NULL;
	enum errc rc = json_parse(slice_trim(out), OUTPUT_LIMITS, &reply, e);

	if (rc)
		return err_prefix(e, "mcoda agent list");
	const struct json *list = json_is_array(reply) ? reply : json_get(reply, "agents");

	if (!json_is_array(list))
		return err_set(e, E_UPSTREAM, "mcoda agent list returned unsupported JSON");
	for (const struct json *entry = json_first(list); entry && rc == E_OK; entry = json_next(entry))
		rc = add_entry(p, entry, v, hints, e);
	return rc;
}
