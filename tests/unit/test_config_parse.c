/* base/config_parse.c and config_text.c: values (cli-config-service.md 2.2), broken files, unknown keys, upstreams. */
#include "tests/support/config_bed.h"

/* ---- values ---- */

static void test_int_text(void **state)
{
	const struct { const char *text; int64_t want; bool ok; } rows[] = {
		{ "5", 5, true }, { " 5\n", 5, true }, { "1e2", 100, true }, { "0x10", 16, true }, { "0X1f", 31, true }, { "0b11", 3, true },
		{ "0o17", 15, true }, { "5.", 5, true }, { ".5", 0, true }, { "0.5", 0, true }, { "1.99", 1, true }, { "12e-1", 1, true },
		{ "+7", 7, true }, { "-7", -7, true }, { "-0.5", -1, true }, { "-0", 0, true }, { "1e-400", 0, true }, { "0e999", 0, true },
		{ "9007199254740993", INT64_C(9007199254740993), true }, { "1e300", INT64_MAX, true }, { "99999999999999999999", INT64_MAX, true },
		{ "0xffffffffffffffffff", INT64_MAX, true }, { "1.5e1", 15, true }, { "\xc2\xa0" "5", 5, true },
		{ "", 0, false }, { " ", 0, false }, { "3jobs", 0, false }, { "1e", 0, false }, { "e5", 0, false }, { ".", 0, false },
		{ "1e999", 0, false }, { "Infinity", 0, false }, { "NaN", 0, false }, { "0x", 0, false }, { "0xg", 0, false }, { "-0x10", 0, false },
		{ "1 2", 0, false }, { "1_000", 0, false }, { "1,5", 0, false }, { "--5", 0, false }, { "0b12", 0, false }, { "+", 0, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t v = 0;
		bool ok = config_text_int(slice_str(rows[i].text), &v);

		if (ok != rows[i].ok || (ok && v != rows[i].want))
			fail_msg("\"%s\": %d %lld", rows[i].text, ok, (long long)v);
	}
}

/* A variable that cannot be used falls back to config.json and says so. */
static void test_int_env(void **state)
{
	const struct { const char *text; int64_t want; bool is_warned; } rows[] = {
		{ "7", 7, false }, { "", 3, false }, { "  ", 3, false }, { "1e1", 10, false }, { "2.9", 2, false },
		{ "0", 3, true }, { "0.5", 3, true }, { "-1", 3, true }, { "many", 3, true }, { "Infinity", 3, true }, { "100001", 3, true },
	};

	(void)state;
	write_config("{\"max_concurrent_jobs\": 3}");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		setenv(P "MAX_CONCURRENT_JOBS", rows[i].text, 1);
		AUTO_CONFIG c = load();

		assert_int_equal(c->max_concurrent_jobs, rows[i].want);
		assert_int_equal(has_warning(c, P "MAX_CONCURRENT_JOBS"), rows[i].is_warned);
	}
	setenv(P "LISTEN_PORT", "0", 1); /* the kernel chooses */
	setenv(P "JOB_TIMEOUT_MS", "1e12", 1);
	setenv(P "MAX_CONCURRENT_LLM_JOBS", "0", 1); /* no value: derived */
	AUTO_CONFIG c = load();

	assert_int_equal(c->listen_port, 0);
	assert_int_equal(c->job_timeout_ms, 604800000); /* cut to the largest */
	assert_warned(c, P "JOB_TIMEOUT_MS: 1000000000000 ms is more than 604800000");
	assert_int_equal(c->max_concurrent_llm_jobs, 3);
	setenv(P "LISTEN_PORT", "70000", 1);
	AUTO_CONFIG d = load();

	assert_int_equal(d->listen_port, 18083);
}

static void test_bool_env(void **state)
{
	const struct { const char *text; bool want; } rows[] = {
		{ "1", true }, { "TRUE", true }, { " Yes ", true }, { "0", false }, { "no", false }, { "False", false },
		{ "on", true }, { "", true }, { "off", true }, /* not words: what config.json says */
	};

	(void)state;
	write_config("{\"drain_mode\": true}");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		setenv(P "DRAIN_MODE", rows[i].text, 1);
		AUTO_CONFIG c = load();

		assert_int_equal(c->drain_mode, rows[i].want);
	}
	unsetenv(P "DRAIN_MODE");
	write_config("{\"drain_mode\": \"true\", \"load_reporting_enabled\": 0}"); /* only real booleans count */
	AUTO_CONFIG c = load();

	assert_false(c->drain_mode);
	assert_true(c->load_reporting_enabled);
	assert_warned(c, "drain_mode: must be true or false, not string");
}

static void test_lists(void **state)
{
	(void)state;
	write_config("{\"model_allowlist\": \" a, ,b ,\", \"model_blocklist\": [\" x \", \"\"]}");
	AUTO_CONFIG a = load();

	assert_int_equal(a->model_allowlist.n, 2);
	assert_string_equal(a->model_allowlist.v[1], "b");
	assert_int_equal(a->model_blocklist.n, 1);
	setenv(P "MODEL_ALLOWLIST", "", 1); /* falls through */
	setenv(P "MODEL_BLOCKLIST", " , ", 1); /* wins, and is empty */
	AUTO_CONFIG b = load();

	assert_int_equal(b->model_allowlist.n, 2);
	assert_int_equal(b->model_blocklist.n, 0);
	assert_shown(b, "model_blocklist", "", "environment");
}

static void test_file_values(void **state)
{
	(void)state;
	write_config("{\"max_concurrent_jobs\": 0, \"request_timeout_ms\": null, \"server_name\": \"  \","
		"\"job_timeout_ms\": \"1e3\", \"heartbeat_interval_seconds\": 12.9, \"gateway_base_url\": \" https://g.example// \","
		"\"tls_cert\": \"~/cert.pem\"}");
	AUTO_CONFIG c = load();
	char want[PATH_MAX + 16];

	assert_shown(c, "max_concurrent_jobs", "1", "default");
	assert_shown(c, "request_timeout_ms", "10000", "default");
	assert_shown(c, "server_name", "", "default");
	assert_int_equal(c->job_timeout_ms, 1000);
	assert_int_equal(c->generic_job_timeout_ms, 1000); /* from the file's job_timeout_ms */
	assert_int_equal(c->heartbeat_interval_seconds, 12);
	assert_string_equal(c->gateway_base_url, "https://g.example");
	snprintf(want, sizeof(want), "%s/cert.pem", home);
	assert_string_equal(c->tls_cert, want);
	assert_int_equal(c->warnings.n, 0);
	write_config("{}");
	setenv(P "JOB_TIMEOUT_MS", "5000", 1);
	AUTO_CONFIG d = load();

	assert_int_equal(d->generic_job_timeout_ms, 3600000); /* 2.1: state, not environment */
}

/* ---- broken files ---- */

static void test_broken_file(void **state)
{
	const struct { const char *text; enum errc code; const char *says; } rows[] = {
		{ "{\n  \"node_id\": \"x\",\n  oops\n}", E_BAD_JSON, "config.json: line 3, column 3" },
		{ "", E_BAD_JSON, "config.json: line 1" },
		{ "{\"a\": 1} trailing", E_BAD_JSON, "config.json: line 1, column 10" },
		{ "[]", E_INVALID_VALUE, "config.json: must be a JSON object, not array" },
		{ "null", E_INVALID_VALUE, "must be a JSON object" },
		{ "{\"node_id\": 7}", E_INVALID_VALUE, "config.json: node_id: must be a string, not number" },
		{ "{\"max_concurrent_jobs\": -3}", E_INVALID_VALUE, "max_concurrent_jobs: -3 is not within 1..100000" },
		{ "{\"max_concurrent_jobs\": 1e300}", E_INVALID_VALUE, "max_concurrent_jobs: " },
		{ "{\"max_concurrent_jobs\": []}", E_INVALID_VALUE, "max_concurrent_jobs: must be a number, not array" },
		{ "{\"max_concurrent_jobs\": \"few\"}", E_INVALID_VALUE, "max_concurrent_jobs: must be a whole number" },
		{ "{\"model_blocklist\": [1]}", E_INVALID_VALUE, "model_blocklist: must be a list of strings, not number" },
		{ "{\"model_blocklist\": {}}", E_INVALID_VALUE, "model_blocklist: must be a list of strings, not object" },
		{ "{\"upstreams\": {}}", E_INVALID_VALUE, "upstreams: must be a list, not object" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		write_config(rows[i].text);
		assert_refused(NULL, rows[i].code, rows[i].says);
	}
	struct config *c = NULL;
	struct err e = { 0 };

	write_config("{\"loops\": 99}");
	assert_int_equal(config_load(&(struct config_load){ 0 }, &c, &e), E_INVALID_VALUE);
	assert_string_equal(e.param, "loops");
	assert_null(c);
	assert_int_equal(unlink(state_file("config.json")), 0);
	assert_int_equal(mkdir(state_file("config.json"), 0700), 0);
	assert_refused(NULL, E_IO, "config.json");
	assert_int_equal(rmdir(state_file("config.json")), 0);
}

static void test_override(void **state)
{
	char path[PATH_MAX + 16];
	struct config *c = NULL;
	struct err e = { 0 };

	(void)state;
	write_config("broken");
	snprintf(path, sizeof(path), "%s/other.json", home);
	struct config_load in = { .file_override = path };

	assert_int_equal(config_load(&in, &c, &e), E_NOT_FOUND);
	assert_int_equal(file_write_atomic(path, SLICE("\xef\xbb\xbf{\"node_id\":\"y\"}"), 0600, &e), E_OK);
	assert_int_equal(config_load(&in, &c, &e), E_OK);
	assert_string_equal(c->node_id, "y");
	assert_string_equal(c->config_path, state_file("config.json"));
	config_free(c);
}

static void test_unknown_keys(void **state)
{
	(void)state;
	write_config("{\"drain_mod\": true, \"future_thing\": {}, \"process_title\": \"x\", \"config_version\": \"any\", \"upstreams\": []}");
	AUTO_CONFIG c = load();

	assert_int_equal(c->warnings.n, 3);
	assert_warned(c, "config.json: unknown key \"drain_mod\"; did you mean drain_mode?");
	assert_warned(c, "config.json: unknown key \"future_thing\"");
	assert_warned(c, "process_title cannot be set here, only by " P "PROCESS_TITLE");
	assert_int_equal(c->listen_port, 18083);
}

/* ---- upstreams ---- */

static void test_base_url(void **state)
{
	const struct { const char *in, *want; } rows[] = {
		{ "http://127.0.0.1:8080", "http://127.0.0.1:8080/v1" }, { "http://h/", "http://h/v1" }, { "http://h/v1", "http://h/v1" },
		{ " http://h/v1// ", "http://h/v1" }, { "HTTPS://h:443", "https://h:443/v1" }, { "http://h/openai", "http://h/openai" },
		{ "http://h/api/v1/", "http://h/api/v1" }, { "http://[::1]:80", "http://[::1]:80/v1" }, { "http://[::1]", "http://[::1]/v1" },
		{ "", NULL }, { "h:80", NULL }, { "ftp://h", NULL }, { "http://", NULL }, { "http:///v1", NULL }, { "http://:80", NULL },
		{ "http://h:0", NULL }, { "http://h:65536", NULL }, { "http://h:", NULL }, { "http://h:8a", NULL }, { "http://u:p@h", NULL },
		{ "http://h?x=1", NULL }, { "http://h/#f", NULL }, { "http://h h", NULL }, { "http://h\n", "http://h/v1" }, { "http://a\nb", NULL },
		{ "http://[::1", NULL }, { "http://[::1]x", NULL }, { "http://a]", NULL }, { "http://::1", NULL }, { "http://[]", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_FREE char *url = NULL;
		struct slice authority;
		struct err e = { 0 };
		enum errc rc = config_text_base_url(slice_str(rows[i].in), &url, &authority, &e);

		if (rc != (rows[i].want ? E_OK : E_INVALID_VALUE) || (rows[i].want && strcmp(url, rows[i].want) != 0))
			fail_msg("\"%s\": %s %s", rows[i].in, err_symbol(rc), url ? url : e.what);
	}
}

static void test_upstreams(void **state)
{
	(void)state;
	write_config("{\"upstreams\": ["
		"{\"name\": \"vllm\", \"base_url\": \"http://10.0.0.5:8000\", \"kind\": \"openai\", \"api_key_file\": \"keys/v\","
		" \"models\": [\"m/1\", \" m2 \", \"m2\"], \"headers\": {\"X-Team\": \" a b \"}, \"max_concurrent\": 8, \"connect_ms\": 1,"
		" \"first_byte_ms\": 2, \"idle_ms\": 3, \"total_ms\": 4, \"share\": true},"
		"{\"base_url\": \"https://llm.example/openai/\", \"headers\": [\"x-a: 1\", \"x-b:2\"], \"note\": 1, \"api_key\": \"sk-SECRET\"}]}");
	AUTO_CONFIG c = load();
	const struct config_upstream *u = c->upstreams;

	assert_int_equal(c->upstream_count, 2);
	assert_string_equal(u[0].name, "vllm");
	assert_string_equal(u[0].base_url, "http://10.0.0.5:8000/v1");
	assert_string_equal(u[0].kind, "openai");
	assert_string_equal(u[0].api_key_file, state_file("keys/v"));
	assert_int_equal(u[0].models.n, 2);
	assert_string_equal(u[0].models.v[1], "m2");
	assert_int_equal(u[0].headers.n, 1);
	assert_string_equal(u[0].headers.v[0], "X-Team: a b");
	assert_int_equal(u[0].max_concurrent, 8);
	assert_int_equal(u[0].connect_ms + 10 * u[0].first_byte_ms + 100 * u[0].idle_ms + 1000 * u[0].total_ms, 4321);
	assert_true(u[0].share);
	assert_string_equal(u[1].name, "llm.example");
	assert_string_equal(u[1].base_url, "https://llm.example/openai");
	assert_string_equal(u[1].kind, "");
	assert_string_equal(u[1].api_key_file, "");
	assert_int_equal(u[1].headers.n, 2);
	assert_string_equal(u[1].headers.v[1], "x-b: 2");
	assert_false(u[1].share);
	assert_int_equal(c->warnings.n, 2);
	assert_warned(c, "upstreams[1]: unknown key \"note\"");
	assert_warned(c, "upstreams[1]: api_key is not read");
	assert_false(has_warning(c, "SECRET"));
}

/* One bad entry never takes the others with it, and is named. */
static void test_bad_upstreams(void **state)
{
	const struct { const char *entry, *says; } rows[] = {
		{ "7", "upstreams[1]: must be an object, not number" },
		{ "{\"name\":\"bad\"}", "upstreams[1] (bad): base_url must be a string, not absent" },
		{ "{\"name\":\"bad\",\"base_url\":\"h:80\"}", "upstreams[1] (bad): base_url: must begin with http:// or https://" },
		{ "{\"name\":5,\"base_url\":\"http://h\"}", "upstreams[1]: name must be a string, not number" },
		{ "{\"name\":\"a\\nb\",\"base_url\":\"http://h\"}", "upstreams[1]: name must be at most 64 bytes" },
		{ "{\"name\":\"good\",\"base_url\":\"http://h\"}", "another entry has the name good" },
		{ "{\"base_url\":\"http://h\",\"models\":\"m\"}", "models must be a list" },
		{ "{\"base_url\":\"http://h\",\"models\":[1]}", "models must be a list of names" },
		{ "{\"base_url\":\"http://h\",\"max_concurrent\":-1}", "max_concurrent must be a whole number within 0..100000" },
		{ "{\"base_url\":\"http://h\",\"idle_ms\":1.5}", "idle_ms must be a whole number" },
		{ "{\"base_url\":\"http://h\",\"share\":1}", "share must be true or false, not number" },
		{ "{\"base_url\":\"http://h\",\"headers\":{\"Host\":\"x\"}}", "headers: \"Host\" cannot be sent" },
		{ "{\"base_url\":\"http://h\",\"headers\":{\"a\":\"x\\r\\ny: z\"}}", "headers: \"a\" cannot be sent" },
		{ "{\"base_url\":\"http://h\",\"headers\":[\"nocolon\"]}", "cannot be sent" },
		{ "{\"base_url\":\"http://h\",\"headers\":{\"a\":1}}", "headers must be an object of names and texts" },
		{ "{\"base_url\":\"http://h\",\"api_key_file\":{}}", "api_key_file must be a string" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[1024];

		snprintf(text, sizeof(text), "{\"upstreams\": [{\"name\":\"good\",\"base_url\":\"http://g\"}, %s,"
			"{\"name\":\"last\",\"base_url\":\"http://l\"}]}", rows[i].entry);
		write_config(text);
		AUTO_CONFIG c = load();

		assert_int_equal(c->upstream_count, 2);
		assert_string_equal(c->upstreams[1].name, "last");
		assert_int_equal(c->warnings.n, 1);
		assert_warned(c, rows[i].says);
		assert_warned(c, "the entry is skipped");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_int_text), T(test_int_env), T(test_bool_env), T(test_lists), T(test_file_values), T(test_broken_file),
		T(test_override), T(test_unknown_keys), T(test_base_url), T(test_upstreams), T(test_bad_upstreams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
