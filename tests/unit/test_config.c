/* base/config*.c: the layers, resolution (cli-config-service.md 2.1, 2.3), flags, the table. */
#include "tests/support/config_bed.h"

/* ---- defaults, the reference's state folder ---- */

static void test_defaults(void **state)
{
	AUTO_CONFIG c = load();
	char want[PATH_MAX + 64];

	(void)state;
	assert_int_equal(c->warnings.n, 0);
	assert_int_equal(c->listen_port, 18083);
	assert_string_equal(c->listen_host, "127.0.0.1");
	assert_string_equal(c->gateway_base_url, "https://api.mswarm.org");
	assert_string_equal(c->ollama_base_url, "http://127.0.0.1:11434");
	assert_string_equal(c->node_version, "0.1.81");
	assert_string_equal(c->node_id, "");
	assert_true(c->load_reporting_enabled);
	assert_false(c->drain_mode);
	assert_int_equal(c->mcoda_list_args.n, 4);
	assert_string_equal(c->mcoda_list_args.v[3], "--refresh-health");
	assert_int_equal(c->discovery_ports.n, 3);
	assert_int_equal(c->max_concurrent_llm_jobs, 1);
	assert_int_equal(c->generic_job_timeout_ms, 3600000);
	assert_int_equal(c->mode, MODE_LOCAL);
	assert_true(c->is_generic_jobs_on); /* local mode, nothing configured */
	assert_true(c->expose_all);
	assert_false(c->is_signing_secret_shared);
	assert_int_equal(c->signing_secret.n, 0);
	assert_string_equal(c->home, home);
	snprintf(want, sizeof(want), "%s/.mswarm/self-hosted-node", home);
	assert_string_equal(c->state_dir, want);
	assert_string_equal(c->config_path, state_file("config.json"));
	assert_string_equal(c->key_path, state_file("node.key"));
	assert_string_equal(c->machine_id_path, state_file("machine.id"));
	assert_string_equal(c->artifact_path, state_file("artifacts"));
}

/* What the reference writes at setup (3.1), unchanged. */
static void test_reference_state(void **state)
{
	(void)state;
	write_config("{\"node_id\": \"shn_1\", \"server_name\": \"box\", \"relay_mode\": \"outbound\","
		"\"machine_fingerprint\": \"sha256:adbc\", \"direct_base_url\": null, \"artifact_store_path\": \"/srv/artifacts\","
		"\"config_version\": 3, \"heartbeat_interval_seconds\": 45, \"heartbeat_timeout_seconds\": 90,"
		"\"enrolled_at\": \"2026-11-23T07:59:37.306Z\", \"updated_at\": \"2026-11-23T07:59:37.307Z\","
		"\"gateway_base_url\": \"https://api.mswarm.org\", \"jobs_poll_path\": \"/v1/swarm/self-hosted/node/jobs/poll\","
		"\"jobs_start_path_template\": \"/a/:jobId/start\", \"jobs_events_path_template\": \"/a/:jobId/events\","
		"\"jobs_result_path_template\": \"/a/:jobId/result\", \"lifecycle_health_status\": \"healthy\","
		"\"lifecycle_health_updated_at\": \"2026-11-23T07:59:37.307Z\", \"ollama_base_url\": \"http://127.0.0.1:11434\","
		"\"discovery_mode\": \"mcoda\", \"mcoda_bin\": \"mcoda\", \"mcoda_list_args\": [\"agent\", \"list\"],"
		"\"node_version\": \"0.1.81\", \"request_timeout_ms\": 10000, \"job_timeout_ms\": 60000, \"max_concurrent_jobs\": 4,"
		"\"max_concurrent_llm_jobs\": 2, \"generic_jobs_enabled\": false, \"generic_job_timeout_ms\": 3600000,"
		"\"generic_job_max_concurrency\": 1, \"capability_probe_timeout_ms\": 2000, \"drain_mode\": true,"
		"\"load_reporting_enabled\": true, \"hardware_telemetry_enabled\": false, \"expose_all_models\": true,"
		"\"exposure_policy\": \"all\", \"model_allowlist\": [], \"model_blocklist\": [\"b1\", \" b2 \", \"\"]}\n");
	assert_int_equal(file_write_atomic(state_file("node.key"), SLICE("tok-1\n"), 0600, NULL), E_OK);
	AUTO_CONFIG c = load();

	assert_int_equal(c->warnings.n, 0);
	assert_int_equal(c->mode, MODE_OUTBOUND);
	assert_string_equal(c->node_id, "shn_1");
	assert_string_equal(c->runtime_token, "tok-1");
	assert_string_equal(c->direct_base_url, "");
	assert_string_equal(c->artifact_path, "/srv/artifacts");
	assert_int_equal(c->heartbeat_interval_seconds, 45);
	assert_int_equal(c->max_concurrent_llm_jobs, 2);
	assert_true(c->drain_mode);
	assert_false(c->is_generic_jobs_on);
	assert_int_equal(c->model_allowlist.n, 0);
	assert_int_equal(c->model_blocklist.n, 2);
	assert_true(str_list_has(&c->model_blocklist, SLICE("b2")));
	assert_int_equal(c->mcoda_list_args.n, 2);
	assert_string_equal(c->node_version, "0.1.81");
	assert_shown(c, "runtime_token", "(set)", "file");
	assert_shown(c, "model_blocklist", "b1,b2", "file");
	assert_shown(c, "mcoda_bin", "mcoda", "file");
	assert_shown(c, "drain_mode", "true", "file");
	assert_shown(c, "listen_port", "18083", "default");
}

/* ---- precedence ---- */

static void test_layers(void **state)
{
	char *args[] = { (char[]){ "--max-concurrent-jobs" }, (char[]){ "9" }, NULL };

	(void)state;
	write_config("{\"max_concurrent_jobs\": 3}");
	AUTO_CONFIG file = load();

	assert_shown(file, "max_concurrent_jobs", "3", "file");
	assert_int_equal(file->max_concurrent_llm_jobs, 3); /* follows */
	setenv(P "MAX_CONCURRENT_JOBS", "5", 1);
	AUTO_CONFIG env = load();

	assert_shown(env, "max_concurrent_jobs", "5", "environment");
	AUTO_CONFIG flag = load_args(args);

	assert_shown(flag, "max_concurrent_jobs", "9", "flag");
	assert_int_equal(flag->max_concurrent_llm_jobs, 9);
}

static void test_runtime_token_order(void **state)
{
	(void)state;
	write_config("{\"runtime_token\": \"legacy\"}");
	AUTO_CONFIG a = load();

	assert_string_equal(a->runtime_token, "legacy");
	assert_int_equal(file_write_atomic(state_file("node.key"), SLICE(" key \n"), 0644, NULL), E_OK);
	AUTO_CONFIG b = load();

	assert_string_equal(b->runtime_token, "key");
	assert_warned(b, "node.key: mode 644");
	setenv(P "RUNTIME_TOKEN", "from-env", 1);
	AUTO_CONFIG c = load();

	assert_string_equal(c->runtime_token, "from-env");
	assert_int_equal(c->mode, MODE_OUTBOUND);
	unsetenv(P "RUNTIME_TOKEN");
	assert_int_equal(file_write_atomic(state_file("node.key"), SLICE("\n"), 0600, NULL), E_OK);
	AUTO_CONFIG d = load();

	assert_string_equal(d->runtime_token, "legacy");
}

static void test_signing_secret(void **state)
{
	(void)state;
	setenv(P "RELAY_SIGNING_SECRET", " fallback ", 1);
	AUTO_CONFIG a = load();

	assert_string_equal(a->signing_secret.p, "fallback");
	assert_true(a->is_signing_secret_shared);
	setenv(P "INVOCATION_SIGNING_SECRET", "\t", 1);
	AUTO_CONFIG b = load();

	assert_string_equal(b->signing_secret.p, "fallback");
	setenv(P "INVOCATION_SIGNING_SECRET", "first\n", 1);
	AUTO_CONFIG c = load();

	assert_string_equal(c->signing_secret.p, "first");
}

static void test_env_aliases(void **state)
{
	(void)state;
	setenv(P "DIRECT_HOST", "10.0.0.1", 1);
	AUTO_CONFIG a = load();

	assert_string_equal(a->listen_host, "10.0.0.1");
	setenv(P "LISTEN_HOST", " ", 1);
	AUTO_CONFIG b = load();

	assert_string_equal(b->listen_host, "10.0.0.1");
	setenv(P "LISTEN_HOST", "10.0.0.2", 1);
	AUTO_CONFIG c = load();

	assert_string_equal(c->listen_host, "10.0.0.2");
	/* switches: the first that is defined, even when it says nothing */
	setenv(P "GENERIC_JOBS", "1", 1);
	AUTO_CONFIG d = load();

	assert_true(d->generic_jobs_enabled);
	setenv(P "GENERIC_JOBS_ENABLED", "", 1);
	AUTO_CONFIG f = load();

	assert_false(f->generic_jobs_enabled);
	assert_shown(f, "generic_jobs_enabled", "false", "default");
}

static void test_ollama_host(void **state)
{
	const struct { const char *env, *want; } rows[] = {
		{ "box", "http://box:11434" }, { "box:80", "http://box:80" }, { "0.0.0.0", "http://127.0.0.1:11434" },
		{ ":9999", "http://127.0.0.1:9999" }, { "http://box:1234/", "http://box:1234" }, { "https://box", "https://box" },
		{ "0.0.0.0:7000/api/", "http://127.0.0.1:7000/api" }, { "[::]:7000", "http://[::1]:7000" }, { "::", "http://[::1]:11434" },
		{ "http://0.0.0.0:5", "http://127.0.0.1:5" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		setenv("OLLAMA_HOST", rows[i].env, 1);
		AUTO_CONFIG c = load();

		assert_string_equal(c->ollama_base_url, rows[i].want);
	}
	write_config("{\"ollama_base_url\": \"http://file:1\"}");
	AUTO_CONFIG file = load(); /* the file outranks OLLAMA_HOST, not the variable of our own */

	assert_shown(file, "ollama_base_url", "http://file:1", "file");
	setenv(P "OLLAMA_BASE_URL", "http://own:2//", 1);
	AUTO_CONFIG own = load();

	assert_shown(own, "ollama_base_url", "http://own:2", "environment");
}

/* ---- resolution ---- */

static void test_modes(void **state)
{
	const struct { const char *json, *env, *token; enum config_mode want; } rows[] = {
		{ "{}", NULL, NULL, MODE_LOCAL },
		{ "{\"node_id\":\"n\"}", NULL, NULL, MODE_LOCAL },
		{ "{\"node_id\":\"n\",\"enrolled_at\":\"t\"}", NULL, NULL, MODE_OUTBOUND },
		{ "{}", NULL, "enroll", MODE_OUTBOUND },
		{ "{\"runtime_token\":\"t\"}", NULL, NULL, MODE_OUTBOUND },
		{ "{\"runtime_token\":\"t\"}", "local", NULL, MODE_LOCAL },
		{ "{\"runtime_token\":\"t\",\"relay_mode\":\"direct\"}", NULL, NULL, MODE_DIRECT },
		{ "{\"runtime_token\":\"t\",\"relay_mode\":\"direct\"}", "OUTBOUND", NULL, MODE_OUTBOUND },
		{ "{\"runtime_token\":\"t\",\"relay_mode\":\"direct\"}", "nonsense", NULL, MODE_OUTBOUND },
		{ "{\"relay_mode\":\"direct\"}", "nonsense", NULL, MODE_LOCAL },
		{ "{}", " Direct ", NULL, MODE_DIRECT },
		{ "{}", "outbound", NULL, MODE_OUTBOUND },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		write_config(rows[i].json);
		unsetenv(P "RELAY_MODE");
		unsetenv(P "ENROLLMENT_TOKEN");
		if (rows[i].env)
			setenv(P "RELAY_MODE", rows[i].env, 1);
		if (rows[i].token)
			setenv(P "ENROLLMENT_TOKEN", rows[i].token, 1);
		AUTO_CONFIG c = load();

		if (c->mode != rows[i].want)
			fail_msg("row %zu: %s", i, config_mode_name(c->mode));
		assert_int_equal(c->is_generic_jobs_on, rows[i].want == MODE_LOCAL);
	}
}

static void test_generic_jobs(void **state)
{
	char *args[] = { (char[]){ "--enable-generic-jobs" }, NULL };

	(void)state;
	write_config("{\"generic_jobs_enabled\": false}");
	AUTO_CONFIG off = load();

	assert_int_equal(off->mode, MODE_LOCAL);
	assert_false(off->is_generic_jobs_on);
	write_config("{\"runtime_token\": \"t\"}");
	AUTO_CONFIG on = load_args(args);

	assert_int_equal(on->mode, MODE_OUTBOUND);
	assert_true(on->is_generic_jobs_on);
}

static void test_exposure(void **state)
{
	const struct { const char *json, *policy, *all; bool want; } rows[] = {
		{ "{}", NULL, NULL, true },
		{ "{\"expose_all_models\":false}", NULL, NULL, true }, /* without a policy it means all */
		{ "{\"exposure_policy\":\"none\"}", NULL, NULL, false },
		{ "{\"exposure_policy\":\"none\"}", NULL, "true", false },
		{ "{\"exposure_policy\":\"none\",\"expose_all_models\":true}", NULL, NULL, false },
		{ "{\"exposure_policy\":\"none\"}", "Expose_All", NULL, true },
		{ "{\"exposure_policy\":\"none\"}", "maybe", NULL, false }, /* no policy: the file's counts */
		{ "{\"exposure_policy\":\"maybe\"}", NULL, NULL, true },
		{ "{}", "OFF", NULL, false }, { "{}", "0", NULL, false }, { "{}", "disabled", "1", false }, { "{}", "yes", NULL, true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		write_config(rows[i].json);
		unsetenv(P "EXPOSURE_POLICY");
		unsetenv(P "EXPOSE_ALL_MODELS");
		if (rows[i].policy)
			setenv(P "EXPOSURE_POLICY", rows[i].policy, 1);
		if (rows[i].all)
			setenv(P "EXPOSE_ALL_MODELS", rows[i].all, 1);
		AUTO_CONFIG c = load();

		if (c->expose_all != rows[i].want)
			fail_msg("row %zu", i);
		assert_int_equal(has_warning(c, "expose_all_models: false alone"), i == 1);
	}
}

static void test_discovery_mode(void **state)
{
	const struct { const char *env, *want; } rows[] = { { "ollama", "ollama" }, { "OLLAMA", "ollama" }, { "x", "mcoda" } };

	(void)state;
	write_config("{\"discovery_mode\": \"ollama\"}");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		setenv(P "DISCOVERY_MODE", rows[i].env, 1);
		AUTO_CONFIG c = load();

		assert_string_equal(c->discovery_mode, rows[i].want);
	}
}

static void test_paths(void **state)
{
	char *args[] = { (char[]){ "--state-path" }, (char[]){ "rel/c.json" }, NULL };
	char cwd[PATH_MAX], want[PATH_MAX + 64];

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	setenv(P "NODE_KEY_PATH", "~/k", 1);
	AUTO_CONFIG c = load_args(args);

	snprintf(want, sizeof(want), "%s/rel/c.json", cwd);
	assert_string_equal(c->config_path, want);
	snprintf(want, sizeof(want), "%s/rel", cwd);
	assert_string_equal(c->state_dir, want);
	snprintf(want, sizeof(want), "%s/k", home);
	assert_string_equal(c->key_path, want);
	snprintf(want, sizeof(want), "%s/rel/machine.id", cwd);
	assert_string_equal(c->machine_id_path, want);
}

/* The reference leaves node.key in the usual folder when only config.json is moved. */
static void test_moved_config(void **state)
{
	char path[PATH_MAX + 16];

	(void)state;
	snprintf(path, sizeof(path), "%s/other.json", home);
	assert_int_equal(file_write_atomic(path, SLICE("{\"node_id\":\"n\",\"enrolled_at\":\"t\"}"), 0600, NULL), E_OK);
	assert_int_equal(file_write_atomic(state_file("node.key"), SLICE("tok"), 0600, NULL), E_OK);
	setenv(P "NODE_STATE_PATH", path, 1);
	AUTO_CONFIG enrolled = load();

	assert_string_equal(enrolled->runtime_token, "tok");
	assert_warned(enrolled, "node.key is used");
	assert_int_equal(file_write_atomic(path, SLICE("{}"), 0600, NULL), E_OK);
	AUTO_CONFIG fresh = load(); /* another node on this machine must not borrow the identity */

	assert_string_equal(fresh->runtime_token, "");
	assert_int_equal(fresh->mode, MODE_LOCAL);
}

/* ---- flags ---- */

static void test_flags(void **state)
{
	const struct { const char *args[4], *name, *value; } rows[] = {
		{ { "--listen-port", "0" }, "listen_port", "0" },
		{ { "--listen-port=1e3" }, "listen_port", "1000" },
		{ { "--listen-port", "1", "--listen-port=2" }, "listen_port", "2" },
		{ { "--drain" }, "drain_mode", "true" },
		{ { "--drain", "no" }, "drain_mode", "false" },
		{ { "--drain=1" }, "drain_mode", "true" },
		{ { "--disable-load-reporting" }, "load_reporting_enabled", "false" },
		{ { "--disable-load-reporting=false" }, "load_reporting_enabled", "true" },
		{ { "--no-ollama" }, "ollama_source", "false" },
		{ { "--allow", "a, b" }, "model_allowlist", "a,b" },
		{ { "--server-name", "-5" }, "server_name", "-5" },
		{ { "--mode", "Local" }, "relay_mode", "local" },
		{ { "--exposure-policy", "off" }, "exposure_policy", "none" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char *args[5] = { 0 };

		for (size_t k = 0; k < 4 && rows[i].args[k]; k++)
			args[k] = (char *)(uintptr_t)rows[i].args[k];
		AUTO_CONFIG c = load_args(args);

		assert_shown(c, rows[i].name, rows[i].value, "flag");
	}
}

static void test_bad_flags(void **state)
{
	const struct { const char *args[3], *says; } rows[] = {
		{ { "--listen-prot", "1" }, "unknown flag --listen-prot; did you mean --listen-port?" },
		{ { "--no-olama=1" }, "unknown flag --no-olama; did you mean --no-ollama?" },
		{ { "--port=SECRET" }, "unknown flag --port; did you mean --listen-port?" },
		{ { "--zzzzzzzz" }, "unknown flag --zzzzzzzz" },
		{ { "-x" }, "unknown flag -x" },
		{ { "msw_0123456789abcdef" }, "unexpected argument \"msw_01234567...\"" },
		{ { "--drain", "foo" }, "unexpected argument \"foo\"" },
		{ { "--drain=foo" }, "--drain: must be one of" },
		{ { "--listen-port" }, "--listen-port needs a value" },
		{ { "--listen-port", "--drain" }, "--listen-port needs a value" },
		{ { "--listen-port", "x" }, "--listen-port: must be a whole number" },
		{ { "--listen-port", "65536" }, "--listen-port: 65536 is not within 0..65535" },
		{ { "--job-timeout-ms", "1e12" }, "--job-timeout-ms: 1000000000000 is not within" },
		{ { "--max-concurrent-llm-jobs", "0" }, "--max-concurrent-llm-jobs: 0 is not within 1..100000" },
		{ { "--mode", "sideways" }, "--mode: \"sideways\" is none of: outbound direct local" },
		{ { "--", "--drain" }, "unknown flag --drain" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char *args[4] = { 0 };

		for (size_t k = 0; k < 3 && rows[i].args[k]; k++)
			args[k] = (char *)(uintptr_t)rows[i].args[k];
		assert_refused(args, E_INVALID_VALUE, rows[i].says);
	}
	struct config *c = NULL;
	struct err e = { 0 };
	char *args[] = { (char[]){ "--port=SECRET" }, NULL };

	assert_int_equal(config_load(&(struct config_load){ .args = args }, &c, &e), E_INVALID_VALUE);
	assert_null(strstr(e.what, "SECRET"));
}

static void test_rest(void **state)
{
	char *args[] = { (char[]){ "--json" }, (char[]){ "--drain" }, (char[]){ "word" }, (char[]){ "--listen-port=7" }, (char[]){ "--" },
		(char[]){ "--drain=0" }, NULL };
	CLEANUP(str_list_done) struct str_list rest = { 0 };
	struct config *c = NULL;
	struct err e = { 0 };

	(void)state;
	struct config_load in = { .args = args, .allow_rest = true, .ret_rest = &rest };

	assert_int_equal(config_load(&in, &c, &e), E_OK);
	assert_true(c->drain_mode);
	assert_int_equal(c->listen_port, 7);
	assert_int_equal(rest.n, 3);
	assert_string_equal(rest.v[0], "--json");
	assert_string_equal(rest.v[1], "word");
	assert_string_equal(rest.v[2], "--drain=0");
	config_free(c);
	assert_true(slice_eq(config_nearest_flag("--lisen-host"), SLICE("--listen-host")));
	assert_true(slice_eq(config_nearest_flag("--gatewya=x"), SLICE("--gateway")));
	assert_true(slice_eq(config_nearest_flag("--disable-load-report"), SLICE("--disable-load-reporting")));
	assert_int_equal(config_nearest_flag("--qqq").n, 0);
	assert_int_equal(config_nearest_flag("").n, 0);
}

static void test_distance(void **state)
{
	const struct { const char *a, *b; unsigned want; } rows[] = {
		{ "", "", 0 }, { "a", "", 1 }, { "", "ab", 2 }, { "abc", "abc", 0 }, { "abc", "acb", 1 }, { "abc", "abd", 1 },
		{ "kitten", "sitting", 3 }, { "port", "prot", 1 }, { "abcd", "badc", 2 }, { "ab", "xaby", 2 },
	};
	char lots[65];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(config_text_distance(slice_str(rows[i].a), slice_str(rows[i].b)), rows[i].want);
		assert_int_equal(config_text_distance(slice_str(rows[i].b), slice_str(rows[i].a)), rows[i].want);
	}
	memset(lots, 'a', sizeof(lots));
	assert_int_equal(config_text_distance(slice_of(lots, 65), SLICE("a")), UINT_MAX);
	assert_int_equal(config_text_distance(slice_of(lots, 64), SLICE("a")), 63);
}

/* ---- the table itself ---- */

static void check_row(void *ctx, const struct config_row_view *v)
{
	size_t *n = ctx;

	++*n;
	assert_true(v->name[0] && v->help[0]);
	assert_true(v->env[0] || v->flag[0] || v->json_key[0]);
	assert_true(v->flag[0] == '\0' || strncmp(v->flag, "--", 2) == 0);
	if (v->flags & CFG_SECRET)
		assert_true(v->value[0] == '\0' || strcmp(v->value, "(set)") == 0);
}

static void test_table(void **state)
{
	AUTO_CONFIG c = NULL;
	size_t n = 0;

	(void)state;
	setenv(P "RUNTIME_TOKEN", "a", 1);
	setenv(P "ENROLLMENT_TOKEN", "b", 1);
	c = load();
	config_each(c, check_row, &n);
	assert_int_equal(n, ROW__COUNT);
	for (size_t i = 0; i < ROW__COUNT; i++) {
		for (size_t k = 0; k < i; k++) {
			const struct config_row *a = &config_rows[i], *b = &config_rows[k];

			if ((a->flag[0] && strcmp(a->flag, b->flag) == 0) || (a->json_key[0] && strcmp(a->json_key, b->json_key) == 0))
				fail_msg("%s and %s share a flag or key", a->name, b->name);
		}
	}
}

static void test_no_memory(void **state)
{
	char *args[] = { (char[]){ "--allow=a,b" }, NULL };

	(void)state;
	write_config("{\"x\": 1, \"model_blocklist\": [\"a\", \"b\"], \"upstreams\": [{\"name\":\"good\",\"base_url\":\"http://g\","
		"\"models\":[\"m\"],\"headers\":{\"a\":\"b\"}}, 7]}");
	setenv(P "INVOCATION_SIGNING_SECRET", "s", 1);
	for (uint64_t nth = 1; nth < 5000; nth++) {
		AUTO_CONFIG c = NULL;
		struct err e = { 0 };

		mem_test_fail_at(nth, 0);
		enum errc rc = config_load(&(struct config_load){ .args = args }, &c, &e);

		mem_test_fail_at(0, 0);
		if (rc == E_OK) {
			assert_int_equal(c->upstream_count, 1);
			assert_int_equal(c->warnings.n, 2);
			return;
		}
		if (rc != E_NO_MEMORY)
			fail_msg("allocation %d: %s %s", (int)nth, err_symbol(rc), e.what);
	}
	fail_msg("never succeeded");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_defaults), T(test_reference_state), T(test_layers), T(test_runtime_token_order), T(test_signing_secret),
		T(test_env_aliases), T(test_ollama_host), T(test_modes), T(test_generic_jobs), T(test_exposure), T(test_discovery_mode),
		T(test_paths), T(test_moved_config), T(test_flags), T(test_bad_flags), T(test_rest), T(test_distance), T(test_table),
		T(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
