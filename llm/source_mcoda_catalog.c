/*
 * What an entry of mcoda's list becomes in the gateway's catalogue (gateway.md 7.1, 7.2): pieces of JSON, written once when
 * the list is read; gateway/catalog.c puts them together. Called by source_mcoda_entry.c. THREAD(supervisor).
 */
#include "base/jw.h"
#include "base/mem.h"
#include "llm/source_mcoda.h"

#include <stdlib.h>

#define PIECE_MAX (256u * 1024)
#define CAPABILITIES_MAX 256

/* ---- capabilities ---- */

struct names {
	struct slice v[CAPABILITIES_MAX];
	size_t n;
};

/* Strings, trimmed, none twice, in their order. */
static void read_names(const struct json *list, struct names *ret)
{
	ret->n = 0;
	for (const struct json *m = json_is_array(list) ? json_first(list) : NULL; m && ret->n < CAPABILITIES_MAX; m = json_next(m)) {
		struct slice name = slice_trim_js(json_slice(m));
		bool is_known = !name.n;

		for (size_t i = 0; i < ret->n && !is_known; i++)
			is_known = slice_eq(ret->v[i], name);
		if (!is_known)
			ret->v[ret->n++] = name;
	}
}

/* UTF-16 puts what is above U+FFFF before U+E000: the only place where it orders otherwise than UTF-8. */
static unsigned order_of(char c)
{
	unsigned byte = (unsigned char)c;

	return byte == 0xee || byte == 0xef ? byte + 0x0a : byte;
}

static int by_code_unit(const void *a, const void *b)
{
	const struct slice *x = a, *y = b;

	for (size_t i = 0; i < x->n && i < y->n; i++)
		if (x->p[i] != y->p[i])
			return order_of(x->p[i]) < order_of(y->p[i]) ? -1 : 1;
	return x->n < y->n ? -1 : x->n > y->n;
}

static void write_names(struct jw *w, const char *key, const struct names *l)
{
	jw_arr(w, key);
	for (size_t i = 0; i < l->n; i++)
		jw_slice(w, NULL, l->v[i]);
	jw_end(w);
}

static bool sees(const struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (slice_contains_nocase(l->v[i], SLICE("vision")) || slice_contains_nocase(l->v[i], SLICE("visual")))
			return true;
	return false;
}

/* ---- members ---- */

static void text_or_nothing(struct jw *w, const char *key, struct slice s)
{
	if (s.n)
		jw_slice(w, key, s);
}

static void flag_or_nothing(struct jw *w, const char *key, struct record r, const char *const *keys)
{
	bool is_set;

	if (pick_bool(r, keys, &is_set))
		jw_bool(w, key, is_set);
}

static void number_or_null(struct jw *w, const char *key, struct record r, const char *const *keys)
{
	double v;

	if (pick_number(r, keys, &v))
		jw_f64(w, key, v);
	else
		jw_null(w, key);
}

/* The first row whose word is s, in any case: its value. Rows end with a NULL. */
static struct slice canonical(struct slice s, const char *const rows[][2])
{
	for (; (*rows)[0]; rows++)
		if (slice_eq_nocase(s, slice_str((*rows)[0])))
			return slice_str((*rows)[1]);
	return SLICE("");
}

static struct slice runner_kind(struct slice said, const char *adapter)
{
	static const char *const rows[][2] = {
		{ "vllm", "vllm" }, { "llama-cpp", "llama-cpp" }, { "llama.cpp", "llama-cpp" }, { "llamacpp", "llama-cpp" },
		{ "llama_cpp", "llama-cpp" }, { "llama-cpp-python", "llama-cpp-python" }, { "llama.cpp-python", "llama-cpp-python" },
		{ "llamacpppython", "llama-cpp-python" }, { "llama_cpp_python", "llama-cpp-python" }, { "lm-studio", "lm-studio" },
		{ "lmstudio", "lm-studio" }, { "lm_studio", "lm-studio" }, { "localai", "localai" }, { "local-ai", "localai" },
		{ "local_ai", "localai" }, { "sglang", "sglang" }, { "tgi", "tgi" }, { "text-generation-inference", "tgi" },
		{ "text_generation_inference", "tgi" }, { "custom", "custom" }, { NULL, NULL } };
	static const char *const by_adapter[][2] = { { "vllm-local", "vllm" }, { "llama-cpp-local", "llama-cpp" },
		{ "llamacpp-local", "llama-cpp" }, { NULL, NULL } };
	struct slice kind = canonical(said, rows);

	return kind.n ? kind : canonical(slice_trim_js(slice_str(adapter)), by_adapter);
}

static struct slice auth_mode(struct slice said)
{
	static const char *const rows[][2] = { { "bearer", "bearer" }, { "dummy-bearer", "dummy-bearer" }, { "dummy_bearer", "dummy-bearer" },
		{ "dummybearer", "dummy-bearer" }, { "dummy", "dummy-bearer" }, { NULL, NULL } };
	struct slice mode = canonical(said, rows);

	return mode.n ? mode : SLICE("none");
}

static struct slice format_strategy(struct slice said)
{
	static const char *const rows[][2] = { { "openai", "openai" }, { "json-object", "json-object" }, { "json_object", "json-object" },
		{ "jsonobject", "json-object" }, { "json-schema", "json-schema" }, { "json_schema", "json-schema" },
		{ "jsonschema", "json-schema" }, { "gbnf", "gbnf" }, { "prompt-only", "prompt-only" }, { "prompt_only", "prompt-only" },
		{ "promptonly", "prompt-only" }, { "none", "none" }, { NULL, NULL } };

	return canonical(said, rows);
}

static void write_local(struct jw *w, struct record r, const struct agent *a)
{
	text_or_nothing(w, "base_url", pick_text(r, KEYS("baseUrl", "base_url", "endpoint", "apiBaseUrl", "api_base_url")));
	text_or_nothing(w, "runner_kind", runner_kind(pick_text(r, KEYS("runnerKind")), a->adapter));
	jw_slice(w, "auth_mode", auth_mode(pick_text(r, KEYS("authMode"))));
	text_or_nothing(w, "response_format_strategy", format_strategy(pick_text(r, KEYS("responseFormatStrategy"))));
	text_or_nothing(w, "health_path", pick_text(r, KEYS("healthPath", "health_path")));
	text_or_nothing(w, "models_path", pick_text(r, KEYS("modelsPath", "models_path")));
}

static void write_head(struct jw *w, struct record top, const struct record *local, const struct names *caps, const struct agent *a)
{
	bool is_set = false;

	jw_obj(w, NULL);
	jw_str(w, "name", a->slug);
	jw_str(w, "provider", "mcoda");
	jw_str(w, "adapter", a->adapter);
	jw_str(w, "source_agent_id", a->source_id);
	jw_str(w, "source_agent_slug", a->slug);
	jw_str(w, "model", a->model);
	jw_str(w, "model_id", a->model);
	if (local)
		write_local(w, *local, a);
	jw_str(w, "display_name", a->slug);
	number_or_null(w, "context_window", top, KEYS("contextWindow", "context_window"));
	number_or_null(w, "max_output_tokens", top, KEYS("maxOutputTokens", "max_output_tokens"));
	jw_bool(w, "supports_tools", a->is_supports_tools_known && a->supports_tools);
	if (local)
		flag_or_nothing(w, "supports_streaming", *local, KEYS("supportsStreaming", "supports_streaming"));
	jw_bool(w, "supports_vision", sees(caps));
	if (local) {
		flag_or_nothing(w, "supports_json_schema", *local, KEYS("supportsJsonSchema", "supports_json_schema"));
		flag_or_nothing(w, "supports_gbnf", *local, KEYS("supportsGbnf", "supports_gbnf"));
	}
	(void)pick_bool(top, KEYS("openaiCompatible", "openai_compatible"), &is_set);
	jw_bool(w, "openai_compatible", local || is_set);
	jw_end(w);
}

static void write_tail(struct jw *w, struct record top, const struct names *caps)
{
	struct slice usage = pick_text(top, KEYS("bestUsage", "best_usage"));

	jw_obj(w, NULL);
	jw_slice(w, "best_usage", usage.n ? usage : SLICE("general_chat"));
	write_names(w, "capabilities", caps);
	number_or_null(w, "cost_per_million", top, KEYS("costPerMillion", "cost_per_million"));
	number_or_null(w, "rating", top, KEYS("rating"));
	number_or_null(w, "reasoning_rating", top, KEYS("reasoningRating", "reasoning_rating"));
	number_or_null(w, "max_complexity", top, KEYS("maxComplexity", "max_complexity"));
	jw_end(w);
}

enum errc source_entry_piece(struct jw *w, struct buf *b, char **ret, struct err *e)
{
	enum errc rc = jw_done(w, e);

	if (!rc && b->n >= 2 && b->p[0] == '{') {          /* the members alone */
		buf_truncate(b, b->n - 1);
		buf_consume(b, 1);
	}
	if (rc)
		return rc;
	*ret = buf_take(b, NULL);
	return *ret ? E_OK : err_set(e, E_NO_MEMORY, "no memory for an agent");
}

enum errc mcoda_catalog(const struct json *entry, const struct record *local, struct agent *a, struct err *e)
{
	struct record top = { .top = entry };
	struct names caps;
	AUTO_BUF b = BUF_MAX(PIECE_MAX);
	struct jw w = JW(&b);
	enum errc rc;

	read_names(json_get(entry, "capabilities"), &caps);
	write_head(&w, top, local, &caps, a);
	rc = source_entry_piece(&w, &b, &a->entry_head, e);
	if (rc)
		return rc;
	w = JW(&b);
	write_tail(&w, top, &caps);
	rc = source_entry_piece(&w, &b, &a->entry_tail, e);
	if (rc)
		return rc;
	qsort(caps.v, caps.n, sizeof(caps.v[0]), by_code_unit);
	w = JW(&b);
	write_names(&w, NULL, &caps);
	return source_entry_piece(&w, &b, &a->entry_caps, e);
}
