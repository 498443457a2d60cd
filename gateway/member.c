/* Joining an account; see member.h. Called by gateway/join.c and the commands that set a node up. */
#include "gateway/member.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#define ANSWER_LIMITS ((struct json_limits){ .max_bytes = 1u << 20, .max_depth = 32 })
#define INTERVAL_MAX_S 86400

static const char *const path_keys[MEMBER_PATHS] = { "jobs_poll_path", "jobs_start_path_template", "jobs_events_path_template",
						     "jobs_result_path_template" };

/* ---- answers ---- */

void member_done(struct member *m)
{
	secret_done(&m->token);
	mem_free(m->node_id);
	mem_free(m->server_name);
	mem_free(m->relay_mode);
	mem_free(m->base);
	mem_free(m->config_version);
	for (size_t i = 0; i < MEMBER_PATHS; i++)
		mem_free(m->paths[i]);
	*m = (struct member){ 0 };
}

static bool take_text(char **to, const struct json *v)
{
	struct slice s = slice_trim_js(json_slice(v));

	*to = s.n ? slice_dup(s) : NULL;
	return !s.n || *to;
}

static bool take_url(char **to, const struct json *v)
{
	bool is_fine = take_text(to, v);

	for (size_t n = *to ? strlen(*to) : 0; n && (*to)[n - 1] == '/'; n--)
		(*to)[n - 1] = '\0';
	return is_fine;
}

static bool take_token(char **to, const struct json *v)
{
	AUTO_BUF text = BUF_MAX(64 * 1024);
	struct jw w = JW(&text);

	if (json_is_absent(v))
		return true;
	jw_tree(&w, NULL, v);
	*to = jw_done(&w, NULL) ? NULL : buf_take(&text, NULL);
	return *to != NULL;
}

static int64_t read_seconds(const struct json *v)
{
	int64_t n;

	return json_i64(v, &n) && n >= 1 && n <= INTERVAL_MAX_S ? n : 0;
}

static enum errc read_answer(const struct json *tree, enum member_kind kind, struct member *m, struct err *e)
{
	const struct json *node = json_get(tree, "node"), *relay = json_get(tree, "relay");
	struct slice token = slice_trim_js(json_slice(json_get(tree, "runtime_token")));
	bool has_memory = take_text(&m->node_id, json_get(node, "node_id")) && take_text(&m->server_name, json_get(node, "server_name")) &&
			  take_text(&m->relay_mode, json_get(node, "relay_mode")) && take_url(&m->base, json_get(relay, "gateway_base_url")) &&
			  take_token(&m->config_version, json_get(tree, "config_version"));

	for (size_t i = 0; i < MEMBER_PATHS && has_memory; i++)
		has_memory = take_text(&m->paths[i], json_get(relay, path_keys[i]));
	if (!has_memory)
		return err_set(e, E_NO_MEMORY, "no memory");
	if (kind == MEMBER_ENROLLED && !token.n)
		return err_set(e, E_UPSTREAM, "Enrollment response did not include runtime_token");
	if (kind == MEMBER_BOOTSTRAPPED && (!token.n || !m->node_id))
		return err_set(e, E_UPSTREAM, "Bootstrap response did not include node_id and runtime_token");
	m->interval_s = read_seconds(json_get(tree, "heartbeat_interval_seconds"));
	m->timeout_s = read_seconds(json_get(tree, "heartbeat_timeout_seconds"));
	m->is_created = json_is_true(json_get(tree, "created"));
	return secret_set(&m->token, token, e);
}

enum errc member_parse(struct slice answer, enum member_kind kind, struct member *ret, struct err *e)
{
	AUTO_JSON tree = NULL;
	enum errc rc = json_parse(answer, ANSWER_LIMITS, &tree, e);

	if (rc)
		return err_prefix(e, "the gateway's answer");
	rc = read_answer(tree, kind, ret, e);
	if (rc)
		member_done(ret);
	return rc;
}

/* ---- requests ---- */

enum errc member_write_enroll(const char *node_id, const char *enrollment_token, struct buf *out, struct err *e)
{
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "node_id", node_id);
	jw_str(&w, "enrollment_token", enrollment_token);
	jw_end(&w);
	return jw_done(&w, e);
}

static void write_list(struct jw *w, const char *key, const struct str_list *l)
{
	jw_arr(w, key);
	for (size_t i = 0; i < l->n; i++)
		jw_str(w, NULL, l->v[i]);
	jw_end(w);
}

enum errc member_write_bootstrap(const struct member_offer *o, struct buf *out, struct err *e)
{
	const struct config *cfg = o->cfg;
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "machine_fingerprint", o->fingerprint);
	jw_str(&w, "server_name", o->server_name);
	jw_str(&w, "label", o->server_name);
	jw_str(&w, "relay_mode", o->relay_mode);
	jw_str(&w, "direct_base_url", o->direct_base_url);
	jw_str(&w, "node_version", cfg->node_version);
	jw_str(&w, "discovery_mode", strcmp(cfg->discovery_mode, "ollama") == 0 ? "ollama" : "mcoda");
	jw_bool(&w, "expose_all_models", o->exposes_all);
	write_list(&w, "model_allowlist", &cfg->model_allowlist);
	write_list(&w, "model_blocklist", &cfg->model_blocklist);
	jw_i64(&w, "heartbeat_interval_seconds", cfg->heartbeat_interval_seconds);
	jw_i64(&w, "max_concurrent_jobs", cfg->max_concurrent_jobs);
	jw_i64(&w, "max_concurrent_llm_jobs", cfg->max_concurrent_llm_jobs);
	jw_bool(&w, "drain_mode", cfg->drain_mode);
	jw_bool(&w, "load_reporting_enabled", cfg->load_reporting_enabled);
	jw_bool(&w, "hardware_telemetry_enabled", cfg->hardware_telemetry_enabled);
	jw_i64(&w, "generic_job_max_concurrency", cfg->generic_job_max_concurrency);
	if (o->client_allowlist.n)
		jw_raw(&w, "client_allowlist", o->client_allowlist);
	jw_end(&w);
	return jw_done(&w, e);
}

/* ---- files ---- */

void member_edit(struct config_edit *c, const struct member *m, const char *node_id, int64_t now_wall_ms)
{
	static const char *const defaults[MEMBER_PATHS] = { MEMBER_BASE_PATH "/jobs/poll", MEMBER_BASE_PATH "/jobs/:jobId/start",
		MEMBER_BASE_PATH "/jobs/:jobId/events", MEMBER_BASE_PATH "/jobs/:jobId/result" };
	char now[CLOCK_ISO_LEN];

	clock_iso(now_wall_ms, now);
	config_edit_str(c, "node_id", node_id);
	if (m->config_version)
		config_edit_raw(c, "config_version", slice_str(m->config_version));
	if (m->interval_s)
		config_edit_i64(c, "heartbeat_interval_seconds", m->interval_s);
	if (m->timeout_s)
		config_edit_i64(c, "heartbeat_timeout_seconds", m->timeout_s);
	config_edit_str(c, "updated_at", now);
	if (m->base)
		config_edit_str(c, "gateway_base_url", m->base);
	for (size_t i = 0; i < MEMBER_PATHS; i++)
		config_edit_str(c, path_keys[i], m->paths[i] ? m->paths[i] : defaults[i]);
	config_edit_str(c, "lifecycle_health_status", "healthy");
	config_edit_str(c, "lifecycle_health_updated_at", now);
	config_edit_drop(c, "lifecycle_health_reason");
	config_edit_drop(c, "lifecycle_health_message");
	config_edit_drop(c, "runtime_token");
}

static void edit_list(struct config_edit *c, const char *key, const struct str_list *l)
{
	AUTO_BUF text = BUF_MAX(1u << 20);
	struct jw w = JW(&text);

	write_list(&w, NULL, l);
	if (!c->err.code && !jw_done(&w, &c->err))
		config_edit_raw(c, key, buf_slice(&text));
}

static void edit_settings(struct config_edit *c, const struct member_offer *o)
{
	const struct config *cfg = o->cfg;

	config_edit_str(c, "ollama_base_url", cfg->ollama_base_url);
	config_edit_str(c, "discovery_mode", strcmp(cfg->discovery_mode, "ollama") == 0 ? "ollama" : "mcoda");
	config_edit_str(c, "mcoda_bin", cfg->mcoda_bin);
	edit_list(c, "mcoda_list_args", &cfg->mcoda_list_args);
	config_edit_str(c, "node_version", cfg->node_version);
	config_edit_i64(c, "request_timeout_ms", cfg->request_timeout_ms);
	config_edit_i64(c, "job_timeout_ms", cfg->job_timeout_ms);
	config_edit_i64(c, "max_concurrent_jobs", cfg->max_concurrent_jobs);
	config_edit_i64(c, "max_concurrent_llm_jobs", cfg->max_concurrent_llm_jobs);
	config_edit_bool(c, "generic_jobs_enabled", cfg->generic_jobs_enabled);
	config_edit_i64(c, "generic_job_timeout_ms", cfg->generic_job_timeout_ms);
	config_edit_i64(c, "generic_job_max_concurrency", cfg->generic_job_max_concurrency);
	config_edit_i64(c, "capability_probe_timeout_ms", cfg->capability_probe_timeout_ms);
	config_edit_bool(c, "drain_mode", cfg->drain_mode);
	config_edit_bool(c, "load_reporting_enabled", cfg->load_reporting_enabled);
	config_edit_bool(c, "hardware_telemetry_enabled", cfg->hardware_telemetry_enabled);
	config_edit_bool(c, "expose_all_models", o->exposes_all);
	config_edit_str(c, "exposure_policy", o->exposes_all ? "all" : "none");
	edit_list(c, "model_allowlist", &cfg->model_allowlist);
	edit_list(c, "model_blocklist", &cfg->model_blocklist);
	if (o->client_allowlist.n)
		config_edit_raw(c, "client_allowlist", o->client_allowlist);
	if (cfg->reserved_llm_jobs) {
		config_edit_i64(c, "reserved_llm_jobs", cfg->reserved_llm_jobs);
		config_edit_i64(c, "reserved_priority_max", cfg->reserved_priority_max);
	}
}

void member_edit_offer(struct config_edit *c, const struct member *m, const struct member_offer *o, const char *base, int64_t now_wall_ms)
{
	char now[CLOCK_ISO_LEN];

	clock_iso(now_wall_ms, now);
	config_edit_str(c, "node_id", m->node_id);
	config_edit_str(c, "server_name", m->server_name ? m->server_name : o->server_name);
	config_edit_str(c, "relay_mode", m->relay_mode ? m->relay_mode : o->relay_mode);
	config_edit_str(c, "machine_fingerprint", o->fingerprint);
	config_edit_str(c, "direct_base_url", o->direct_base_url);
	config_edit_str(c, "artifact_store_path", o->cfg->artifact_path);
	if (m->config_version)
		config_edit_raw(c, "config_version", slice_str(m->config_version));
	config_edit_i64(c, "heartbeat_interval_seconds", m->interval_s ? m->interval_s : o->cfg->heartbeat_interval_seconds);
	if (m->timeout_s)
		config_edit_i64(c, "heartbeat_timeout_seconds", m->timeout_s);
	config_edit_str(c, "enrolled_at", now);
	config_edit_str(c, "updated_at", now);
	config_edit_str(c, "gateway_base_url", m->base ? m->base : base);
	member_edit(c, m, m->node_id, now_wall_ms);
	edit_settings(c, o);
}

enum errc member_write_key(const char *path, struct slice token, struct err *e)
{
	AUTO_FREE char *folder = file_dirname(path);
	struct buf text = BUF_MAX(token.n + 2);
	enum errc rc = folder ? file_make_private_dir(folder, e) : err_set(e, E_NO_MEMORY, "no memory");

	if (!rc)
		rc = buf_add_slice(&text, token, e);
	if (!rc)
		rc = buf_add_str(&text, "\n", e);
	if (!rc)
		rc = file_write_atomic(path, buf_slice(&text), 0600, e);
	if (text.p)
		mem_wipe(text.p, text.n);
	buf_done(&text);
	return rc;
}

enum errc member_keep_enrolled(const struct config *cfg, const struct member *m, struct err *e)
{
	struct config_edit edit;
	char now[CLOCK_ISO_LEN];
	enum errc rc = member_write_key(cfg->key_path, secret_slice(&m->token), e);

	if (rc)
		return rc;
	config_edit_begin(&edit);
	clock_iso(clock_wall_ms(), now);
	config_edit_str(&edit, "enrolled_at", now);
	config_edit_keep(&edit, "enrolled_at");
	member_edit(&edit, m, cfg->node_id, clock_wall_ms());
	rc = config_edit_save(&edit, cfg->config_path, e);
	config_edit_done(&edit);
	return rc;
}
