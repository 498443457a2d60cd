/* Unit tests of llm/source_*.c: Ollama, the mcoda command, discovery, the demo agent; against fakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "llm/source.h"
#include "tests/support/inventory_bed.h"

/* ---- Ollama ---- */

static const struct answer tags[] = {
	{ "/api/tags", 200, "{\"models\":[{\"name\":\"qwen2.5:7b\",\"modified_at\":\"2024-01-02T03:04:05.123456789+01:00\","
		"\"details\":{\"family\":\"qwen2\"}},{\"name\":\"all-minilm\",\"details\":{\"family\":\"bert\"}},7,{\"x\":1},{\"name\":\"\"}]}" },
	{ "/v1/models", 200, "{\"data\":[{\"id\":\"from-list\",\"owned_by\":\"library\"}]}" },
	{ 0 },
};
static const struct answer nothing[] = { { 0 } };

static void test_ollama(void **state)
{
	static const char *const modes[] = { "mcoda", "ollama" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		struct bed b;
		struct agents *l;
		char json[300];

		bed_open(&b);
		fake_open(&b.fake[0], b.loop, tags);
		snprintf(json, sizeof(json), "\"ollama_source\":true,\"discovery_mode\":\"%s\",\"ollama_base_url\":\"http://127.0.0.1:%d/\"", modes[i],
			b.fake[0].port);
		bed_load(&b, json);
		bed_new(&b);
		bed_start(&b);
		bed_assert_list(&b, i ? "ollama:all-minilm/healthy xse\nollama:qwen2.5:7b/healthy xsl"
				      : "ollama:all-minilm/healthy xe\nollama:qwen2.5:7b/healthy xl");
		l = inventory_get(b.inv);
		const struct agent *a = bed_agent(l, "qwen2.5:7b");

		assert_int_equal(a->created_s, 1704161045);
		assert_int_equal(a->up->kind, UPSTREAM_OLLAMA);
		assert_string_equal(a->provider, "ollama-remote");
		assert_string_equal(a->adapter, "ollama");
		snprintf(json, sizeof(json), "http://127.0.0.1:%d/v1/chat/completions", b.fake[0].port);
		assert_string_equal(a->up->chat_url, json);
		snprintf(json, sizeof(json), "http://127.0.0.1:%d/api/chat", b.fake[0].port);
		assert_string_equal(a->up->ollama_chat_url, json);
		assert_ptr_equal(a->up, bed_agent(l, "all-minilm")->up);
		agents_unref(l);
		b.fake[0].answers = nothing;
		bed_next(&b);
		bed_assert_list(&b, i ? "ollama:all-minilm/unreachable xse\nollama:qwen2.5:7b/unreachable xsl"
				      : "ollama:all-minilm/unreachable xe\nollama:qwen2.5:7b/unreachable xl");
		bed_close(&b);
	}
}

/* ---- mcoda ---- */

static const char agents_json[] =
	"[{\"id\":\"7\",\"slug\":\"coder\",\"adapter\":\" VLLM-local\",\"defaultModel\":\"qwen\",\"maxOutputTokens\":512,\"context_window\":4096,"
	" \"health\":{\"status\":\"Healthy\"},\"createdAt\":\"2024-01-02T03:04:05Z\",\"supportsTools\":false,"
	" \"config\":{\"baseUrl\":\"http://127.0.0.1:1/v1/\",\"localRunner\":{\"baseUrl\":\"http://10.0.0.1\",\"runnerKind\":\"llama_cpp\","
	"  \"authMode\":\"dummy\",\"responseFormatStrategy\":\"json_object\",\"requireModelInRequest\":false,"
	"  \"headers\":{\"X-Lab\":\"1\",\"Authorization\":\"Bearer stolen\",\"x-bad\":\"a\\nb\",\"x-n\":3},"
	"  \"extraBody\":{\"top_k\":40,\"Model\":\"x\",\"messages\":[],\"nested\":{\"a\":[1,\"b\"]}}}}},"
	" {\"slug\":\"keyed\",\"adapter\":\"openai-compatible-local\",\"models\":[{\"modelName\":\"no\"},{\"isDefault\":true,\"modelName\":\"yes\"}],"
	"  \"health\":{\"status\":\"offline\"},\"config\":{\"endpoint\":\"http://192.168.1.5:9/v1\",\"authMode\":\"bearer\",\"apiKey\":\"sk-mcoda-canary\"}},"
	" {\"slug\":\"cloud\",\"adapter\":\"openai\",\"health\":{\"status\":\"healthy\"},\"config\":{\"apiKey\":\"sk-cloud-canary\"}},"
	" {\"slug\":\"allowed\",\"adapter\":\"openai-cli\",\"health\":{\"status\":\"healthy\"},\"config\":{\"baseUrl\":\"http://gpu.lan/v1\"}},"
	" {\"slug\":\"nobase\",\"adapter\":\"llama-cpp-local\",\"health\":{\"status\":\"healthy\"}},"
	" {\"slug\":\"olla\",\"adapter\":\"ollama-remote\",\"default_model\":\"phi\",\"health\":{\"status\":\"degraded\"},\"config\":{\"base_url\":\"http://127.0.0.1:2\"}},"
	" {\"slug\":\"codex\",\"adapter\":\"codex-cli\",\"health\":{\"status\":\"healthy\"}},"
	" {\"slug\":\"odd\",\"adapter\":\"OpenAI\",\"health\":{\"status\":\"healthy\"}},"
	" {\"slug\":\"stuck\",\"adapter\":\"ollama\",\"health\":{\"status\":\"blocked\"}},"
	" {\"slug\":\"embedder\",\"adapter\":\"ollama\",\"bestUsage\":\"Vector search\",\"health\":{\"status\":\"healthy\"}},"
	" {\"slug\":\"self\",\"adapter\":\"vllm-local\",\"health\":{\"status\":\"healthy\"},\"config\":{\"baseUrl\":\"http://localhost:18083/v1\"}},"
	" {\"slug\":\"badurl\",\"adapter\":\"vllm-local\",\"config\":{\"baseUrl\":\"gopher://x\"}},"
	" {\"slug\":\"MSWARM-cloud-x\",\"adapter\":\"ollama\"},{\"slug\":\"m\",\"adapter\":\"ollama\",\"config\":{\"mswarmSelfHosted\":{\"managed\":true}}},"
	" {\"slug\":\"coder\",\"adapter\":\"ollama\"},{\"adapter\":\"ollama\"},{\"slug\":9},null,\"x\"]";

/* A command that answers text; with refuses it fails when asked for the health refresh. It counts its runs. */
static void write_mcoda(struct bed *b, const char *text, bool refuses)
{
	AUTO_BUF script = BUF_MAX(65536);
	struct err e;

	assert_int_equal(buf_addf(&script, &e, "#!/bin/sh\necho \"$*\" >> '%s'\n", bed_path(b, "count")), E_OK);
	if (refuses)
		assert_int_equal(buf_add_str(&script, "case \"$*\" in *--refresh-health*) echo nope >&2; exit 3;; esac\n", &e), E_OK);
	assert_int_equal(buf_addf(&script, &e, "cat <<'END'\n%s\nEND\n", text), E_OK);
	assert_int_equal(buf_add(&script, "", 1, &e), E_OK);
	bed_write(b, "mcoda", script.p, 0755);
}

static void load_mcoda(struct bed *b, const char *more)
{
	char json[600];

	snprintf(json, sizeof(json), "\"mcoda_source\":true,\"mcoda_bin\":\"%s\"%s", bed_path(b, "mcoda"), more);
	bed_load(b, json);
	bed_new(b);
	bed_start(b);
}

static void assert_runs(struct bed *b, const char *want)
{
	AUTO_BUF text = BUF_MAX(4096);
	struct err e;

	assert_int_equal(file_read(bed_path(b, "count"), &text, &e), E_OK);
	assert_int_equal(buf_add(&text, "", 1, &e), E_OK);
	assert_string_equal(text.p, want);
}

static void test_mcoda_agents(void **state)
{
	struct bed b;
	struct agents *l;
	const struct agent *a;

	(void)state;
	bed_open(&b);
	write_mcoda(&b, agents_json, false);
	load_mcoda(&b, "");
	bed_assert_list(&b, "mcoda:allowed/healthy xsl\nmcoda:badurl/unknown s\nmcoda:cloud/healthy s\nmcoda:coder/healthy xsl\nmcoda:codex/healthy s\n"
		"mcoda:embedder/healthy xse\nmcoda:keyed/unreachable xsl\nmcoda:nobase/healthy s\nmcoda:odd/healthy s\nmcoda:olla/degraded xsl\n"
		"mcoda:self/healthy s\nmcoda:stuck/blocked s");
	assert_runs(&b, "agent list --json --refresh-health\n");
	l = inventory_get(b.inv);
	a = bed_agent(l, "coder");
	assert_string_equal(a->model, "qwen");
	assert_string_equal(a->source_id, "7");
	assert_string_equal(a->provider, "openai-compatible");
	assert_string_equal(a->adapter, "VLLM-local");
	assert_string_equal(a->extra_body, "{\"top_k\":40,\"nested\":{\"a\":[1,\"b\"]}}");
	assert_int_equal(a->format, FORMAT_JSON_OBJECT);
	assert_true(a->is_supports_tools_known && !a->supports_tools);
	assert_false(a->sends_model);
	assert_int_equal(a->max_output_tokens, 512);
	assert_int_equal(a->context_window, 4096);
	assert_int_equal(a->created_s, 1704164645);
	assert_int_equal(a->up->kind, UPSTREAM_LLAMA_CPP);
	assert_string_equal(a->up->chat_url, "http://127.0.0.1:1/v1/chat/completions"); /* the top level wins */
	assert_string_equal(a->up->headers[0], "X-Lab: 1");
	assert_string_equal(a->up->headers[1], "authorization: Bearer local");
	assert_null(a->up->headers[2]);
	a = bed_agent(l, "keyed");
	assert_string_equal(a->model, "yes");
	assert_string_equal(a->up->headers[0], "authorization: Bearer sk-mcoda-canary");
	assert_true(a->sends_model && a->supports_tools && !a->is_supports_tools_known);
	assert_null(a->extra_body);
	assert_string_equal(bed_agent(l, "cloud")->up->base_url, "https://api.openai.com/v1");
	a = bed_agent(l, "olla");
	assert_string_equal(a->up->chat_url, "http://127.0.0.1:2/v1/chat/completions");
	assert_string_equal(a->up->ollama_chat_url, "http://127.0.0.1:2/api/chat");
	assert_string_equal(a->provider, "ollama-remote");
	assert_null(bed_agent(l, "codex")->up);
	assert_string_equal(bed_agent(l, "codex")->provider, "codex-cli");
	assert_null(bed_agent(l, "odd")->up);
	assert_null(bed_agent(l, "badurl")->up);
	assert_null(bed_agent(l, "self")->up);
	/* the next answer keeps the upstreams */
	write_mcoda(&b, "{\"agents\":[{\"slug\":\"keyed\",\"adapter\":\"openai-compatible-local\",\"health\":{\"status\":\"healthy\"},"
		"\"config\":{\"endpoint\":\"http://192.168.1.5:9/v1\",\"authMode\":\"bearer\",\"apiKey\":\"sk-mcoda-canary\"}}]}", false);
	bed_next(&b);
	bed_assert_list(&b, "mcoda:keyed/healthy xsl");
	struct agents *later = inventory_get(b.inv);

	assert_ptr_equal(later->v[0].up, bed_agent(l, "keyed")->up);
	agents_unref(later);
	agents_unref(l);
	AUTO_BUF text = BUF_MAX(1000);
	struct err e;

	assert_int_equal(buf_add_str(&text, "sk-mcoda-canary sk-cloud-canary", &e), E_OK);
	log_redact(&text);
	assert_int_equal(slice_find(buf_slice(&text), SLICE("canary")), -1);
	bed_close(&b);
}

static void test_mcoda_policy(void **state)
{
	static const char list[] = "[{\"slug\":\"a\",\"adapter\":\"ollama\",\"defaultModel\":\"ma\"},{\"slug\":\"b\",\"adapter\":\"ollama\",\"defaultModel\":\"mb\"},"
				   "{\"slug\":\"c\",\"adapter\":\"openai\",\"defaultModel\":\"mc\"}]";
	static const struct { const char *more, *want; } cases[] = {
		{ "", "mcoda:a/unknown xsl\nmcoda:b/unknown xsl\nmcoda:c/unknown s" },
		{ ",\"model_blocklist\":[\"ma\"]", "mcoda:a/unknown s\nmcoda:b/unknown xsl\nmcoda:c/unknown s" },
		{ ",\"model_allowlist\":[\"ma\",\"c\"]", "mcoda:a/unknown xsl\nmcoda:b/unknown s\nmcoda:c/unknown xsl" }, /* the owner says so */
		{ ",\"model_allowlist\":[\"a\"],\"model_blocklist\":[\"a\"]", "mcoda:a/unknown s\nmcoda:b/unknown s\nmcoda:c/unknown s" },
		{ ",\"exposure_policy\":\"none\"", "mcoda:a/unknown s\nmcoda:b/unknown s\nmcoda:c/unknown s" },
		{ ",\"discovery_mode\":\"ollama\"", "mcoda:a/unknown xl\nmcoda:b/unknown xl\nmcoda:c/unknown " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bed b;

		bed_open(&b);
		write_mcoda(&b, list, false);
		load_mcoda(&b, cases[i].more);
		bed_assert_list(&b, cases[i].want);
		bed_close(&b);
	}
}

static void test_mcoda_fallback(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b);
	write_mcoda(&b, "[{\"slug\":\"a\",\"adapter\":\"ollama\"}]", true);
	load_mcoda(&b, "");
	bed_assert_list(&b, "mcoda:a/unknown xsl");
	assert_runs(&b, "agent list --json --refresh-health\nagent list --json\n");
	bed_close(&b);
	/* other arguments have no fallback */
	bed_open(&b);
	bed_write(&b, "mcoda", "#!/bin/sh\necho \"$*\" >> \"${0%mcoda}count\"\nexit 4\n", 0755);
	load_mcoda(&b, ",\"mcoda_list_args\":[\"list\"]");
	bed_assert_list(&b, "demo:demo/healthy xl");
	assert_runs(&b, "list\n");
	bed_close(&b);
}

static void test_mcoda_nonsense(void **state)
{
	static const char *const answers[] = { "", "no json", "{\"agents\":7}", "{}", "\"x\"", "[" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		struct bed b;

		bed_open(&b);
		write_mcoda(&b, answers[i], false);
		load_mcoda(&b, "");
		bed_assert_list(&b, "demo:demo/healthy xl");
		bed_close(&b);
	}
}

static void test_mcoda_missing(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b);
	load_mcoda(&b, "");
	bed_assert_list(&b, "demo:demo/healthy xl");
	bed_close(&b);
}

static const struct answer lists_qwen[] = {
	{ "/health", 200, "" }, { "/v1/models", 200, "{\"models\":[\"qwen\"]}" }, { "/v1/other", 200, "{\"data\":[{\"name\":\"else\"}]}" }, { 0 },
};

static void test_mcoda_unknown_is_looked_at(void **state)
{
	static const struct { const char *config, *health; } cases[] = {
		{ "", "healthy" },
		{ ",\"healthPath\":\"/health\"", "healthy" },
		{ ",\"health_path\":\"sick\"", "unknown" },           /* it answers: no proof of death */
		{ ",\"modelsPath\":\"other\"", "unknown" },           /* not listed: no proof either */
	};

	(void)state;
	for (size_t i = 0; i <= ARRAY_LEN(cases); i++) {
		struct bed b;
		char json[400], want[100];
		bool is_dead = i == ARRAY_LEN(cases);

		bed_open(&b);
		fake_open(&b.fake[0], b.loop, lists_qwen);
		snprintf(json, sizeof(json), "[{\"slug\":\"a\",\"adapter\":\"vllm-local\",\"defaultModel\":\"qwen\",\"config\":"
			"{\"baseUrl\":\"http://127.0.0.1:%d/v1\"%s}}]", b.fake[0].port, is_dead ? "" : cases[i].config);
		if (is_dead)
			fake_close(&b.fake[0]);
		write_mcoda(&b, json, false);
		load_mcoda(&b, "");
		snprintf(want, sizeof(want), "mcoda:a/%s xsl", is_dead ? "unreachable" : cases[i].health);
		bed_assert_list(&b, want);
		bed_close(&b);
	}
}

/* ---- discovery ---- */

static void test_discovery_ports(void **state)
{
	static const struct { const char *json; int64_t want[6]; } cases[] = {
		{ "\"ollama_source\":true", { 8080, 8000, 1234 } },                              /* Ollama has its own source */
		{ "\"ollama_source\":false", { 8080, 8000, 1234 } },                             /* no Ollama means none */
		{ "\"ollama_source\":true,\"ollama_base_url\":\"http://10.0.0.1:11434\"", { 8080, 8000, 1234, 11434 } },
		{ "\"ollama_source\":true,\"ollama_base_url\":\"http://localhost:8000\"", { 8080, 1234, 11434 } },
		{ "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"l\",\"base_url\":\"http://localhost:8080\"}]", { 8000, 1234 } },
		{ "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"l\",\"base_url\":\"http://10.0.0.1:8080\"}]", { 8080, 8000, 1234 } },
		{ "\"upstreams_source\":false,\"upstreams\":[{\"name\":\"l\",\"base_url\":\"http://localhost:8080\"}]", { 8080, 8000, 1234 } },
		{ "\"discovery_ports\":[\"18083\",\"9\",\" 9\",\"x\",\"0\",\"65536\"]", { 9 } },   /* 18083: ourselves */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bed b;
		int64_t got[6] = { 0 };

		bed_open(&b);
		bed_load(&b, cases[i].json);
		source_discovery_ports(b.cfg, got, ARRAY_LEN(got));
		assert_memory_equal(got, cases[i].want, sizeof(got));
		bed_close(&b);
	}
}

static const struct answer plain_page[] = { { "/v1/models", 200, "<html>hello</html>" }, { 0 } };
static const struct answer vllm[] = {
	{ "/v1/models", 200, "{\"data\":[{\"id\":\"m1\",\"owned_by\":\"vllm\",\"max_model_len\":8192},\"m2\",{\"name\":\"m3\"},{\"id\":\"m1\"},{}]}" }, { 0 },
};
static const struct answer found_ollama[] = { { "/v1/models", 200, "{\"data\":[{\"id\":\"q\",\"owned_by\":\"library\"}]}" }, { 0 } };
static const struct answer lm_studio[] = { { "/v1/models", 200, "{\"data\":[{\"id\":\"q\",\"owned_by\":\"organization_owner\"}]}" }, { 0 } };
static const struct answer unknown_kind[] = { { "/v1/models", 200, "{\"data\":[{\"id\":\"q\",\"owned_by\":\"me\"}]}" }, { 0 } };
static const struct answer no_models[] = { { "/models", 200, "{\"data\":[{\"id\":\"q\"}]}" }, { 0 } };

static void test_discovery(void **state)
{
	static const struct { const struct answer *answers; const char *want; enum upstream_kind kind; } cases[] = {
		{ vllm, "discovered:m1/healthy xl\ndiscovered:m2/healthy xl\ndiscovered:m3/healthy xl", UPSTREAM_VLLM },
		{ found_ollama, "discovered:q/healthy xl", UPSTREAM_OLLAMA }, { lm_studio, "discovered:q/healthy xl", UPSTREAM_LM_STUDIO },
		{ unknown_kind, "discovered:q/healthy xl", UPSTREAM_OPENAI }, { plain_page, "demo:demo/healthy xl", UPSTREAM_DEMO },
		{ no_models, "demo:demo/healthy xl", UPSTREAM_DEMO }, { nothing, "demo:demo/healthy xl", UPSTREAM_DEMO },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bed b;
		struct agents *l;
		char name[40];

		bed_open(&b);
		fake_open(&b.fake[0], b.loop, cases[i].answers);
		fake_open(&b.fake[1], b.loop, vllm);
		bed_load_port(&b, "\"discovery_source\":true,\"discovery_ports\":[\"%\"]", b.fake[0].port);
		bed_new(&b);
		bed_start(&b);
		bed_assert_list(&b, cases[i].want);
		assert_int_equal(b.fake[0].hits, 1);
		l = inventory_get(b.inv);
		assert_int_equal(l->v[0].up->kind, cases[i].kind);
		snprintf(name, sizeof(name), "127.0.0.1:%d", b.fake[0].port);
		if (cases[i].kind != UPSTREAM_DEMO)
			assert_string_equal(l->v[0].up->name, name);
		if (cases[i].kind == UPSTREAM_VLLM)
			assert_int_equal(l->v[0].context_window, 8192);
		assert_int_equal(l->v[0].up->ollama_chat_url != NULL, cases[i].kind == UPSTREAM_OLLAMA);
		agents_unref(l);
		bed_close(&b);
	}
}

static void test_we_are_no_runner(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, vllm);
	bed_load_port(&b, "\"discovery_source\":true,\"discovery_ports\":[\"%\"],\"upstreams_source\":true,"
		"\"upstreams\":[{\"name\":\"me\",\"base_url\":\"http://127.0.0.1:%/v1\"}],"
		"\"ollama_source\":true,\"ollama_base_url\":\"http://localhost:%\"", b.fake[0].port);
	b.cfg->listen_port = b.fake[0].port;
	bed_new(&b);
	bed_start(&b);
	assert_int_equal(b.fake[0].hits, 0);
	bed_assert_list(&b, "demo:demo/healthy xl");
	bed_close(&b);
}

static void test_config_wins_over_discovery(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, vllm);
	bed_load_port(&b, "\"discovery_source\":true,\"discovery_ports\":[\"%\"],\"upstreams_source\":true,"
		"\"upstreams\":[{\"name\":\"mine\",\"base_url\":\"http://localhost:%/v1\"}]", b.fake[0].port);
	bed_new(&b);
	bed_start(&b);
	bed_assert_list(&b, "config:m1/healthy xl\nconfig:m2/healthy xl\nconfig:m3/healthy xl");
	bed_close(&b);
}

/* ---- demo ---- */

static void test_demo(void **state)
{
	static const struct { const char *json; const struct answer *answers; const char *want; } cases[] = {
		{ "", nothing, "demo:demo/healthy xl" },                                       /* no source at all */
		{ "\"demo\":true,\"discovery_source\":true,\"discovery_ports\":[\"%\"]", unknown_kind, "discovered:q/healthy xl\ndemo:demo/healthy xl" },
		{ "\"discovery_source\":true,\"discovery_ports\":[\"%\"]", unknown_kind, "discovered:q/healthy xl" },
		{ "\"model_blocklist\":[\"demo\"]", nothing, "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bed b;

		bed_open(&b);
		fake_open(&b.fake[0], b.loop, cases[i].answers);
		bed_load_port(&b, cases[i].json, b.fake[0].port);
		bed_new(&b);
		bed_start(&b);
		bed_assert_list(&b, cases[i].want);
		bed_close(&b);
	}
}

int main(void)
{
	static const char *const names[] = { "OLLAMA_HOST", "MSWARM_SELF_HOSTED_OLLAMA_BASE_URL", "MSWARM_DEMO" };
	struct err e;

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		unsetenv(names[i]);
	log_set_level(LOG_OFF);
	if (httpc_global_init(&e))
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ollama), cmocka_unit_test(test_mcoda_agents), cmocka_unit_test(test_mcoda_policy),
		cmocka_unit_test(test_mcoda_fallback), cmocka_unit_test(test_mcoda_nonsense), cmocka_unit_test(test_mcoda_missing),
		cmocka_unit_test(test_mcoda_unknown_is_looked_at), cmocka_unit_test(test_discovery_ports), cmocka_unit_test(test_discovery),
		cmocka_unit_test(test_we_are_no_runner), cmocka_unit_test(test_config_wins_over_discovery), cmocka_unit_test(test_demo),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	httpc_global_done();
	return failed;
}
