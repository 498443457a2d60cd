/*
 * node status: the stored configuration, and what the running node says of itself. Always exit code 0, no network.
 * The service's part (cli-config-service.md 1.6) comes with the service commands. Main thread.
 */
#include "server/cli.h"

#include "base/mem.h"

#include <stdio.h>

#define STATUS_MAX (8 * 1024 * 1024)

static void node_json(struct cli *c, const struct err *error, struct jw *w)
{
	const struct config *cfg = c->cfg;

	jw_obj(w, "node");
	if (error) {
		jw_bool(w, "configured", false);
		jw_str(w, "error", error->what);
		jw_end(w);
		return;
	}
	jw_bool(w, "configured", *cfg->node_id != '\0');
	jw_str(w, "node_id", *cfg->node_id ? cfg->node_id : NULL);
	jw_str(w, "server_name", *cfg->server_name ? cfg->server_name : NULL);
	jw_str(w, "relay_mode", config_mode_name(cfg->mode));
	jw_str(w, "gateway_base_url", cfg->gateway_base_url);
	jw_str(w, "state_path", cfg->config_path);
	jw_str(w, "runtime_token_path", cfg->key_path);
	jw_end(w);
}

static int print_json(struct cli *c, const struct err *error, const struct json *running)
{
	AUTO_BUF out = BUF_MAX(STATUS_MAX);
	struct jw w = JW_PRETTY(&out);
	struct err e = { 0 };

	jw_obj(&w, NULL);
	if (c->cfg)
		service_status_json(c, &w);
	node_json(c, error, &w);
	if (running) {
		jw_obj(&w, "running");
		for (const struct json *m = json_first(running); m; m = json_next(m))
			if (strcmp(json_key(m), "ok") != 0 && strcmp(json_key(m), "secret_mark") != 0)
				jw_tree(&w, json_key(m), m);
		jw_end(&w);
	} else {
		jw_null(&w, "running");
	}
	jw_end(&w);
	enum errc rc = jw_done(&w, &e);

	if (rc == E_OK)
		rc = buf_add_str(&out, "\n", &e);
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}

static const char *text_of(const struct json *obj, const char *key)
{
	const char *s = json_str(json_get(obj, key));

	return s ? s : "";
}

static void print_requests(const struct json *running)
{
	static const char *const classes[] = { "local", "job" };
	const struct json *requests = json_get(running, "requests");

	for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
		const struct json *r = json_get(requests, classes[i]);

		printf("  %-10s %.0f running of %.0f, %.0f waiting\n", i ? "jobs" : "requests", json_num(json_get(r, "running"), 0),
		       json_num(json_get(r, "bound"), 0), json_num(json_get(r, "queued"), 0));
	}
}

static void print_sources(const struct json *running)
{
	const char *label = "sources";

	for (const struct json *s = json_first(json_get(running, "sources")); s; s = json_next(s)) {
		const char *error = json_str(json_get(s, "error"));

		printf("  %-10s %s: %s, %.0f agents%s%s\n", label, text_of(s, "name"), text_of(s, "state"),
		       json_num(json_get(s, "agents"), 0), error ? "; " : "", error ? error : "");
		label = "";
	}
	label = "agents";
	for (const struct json *a = json_first(json_get(running, "agents")); a; a = json_next(a)) {
		printf("  %-10s %s (%s, %s)%s\n", label, text_of(a, "id"), text_of(a, "source"), text_of(a, "health"),
		       json_is_true(json_get(a, "is_listed")) ? "" : ", not listed");
		label = "";
	}
}

static void print_usage(const struct json *running)
{
	const char *label = "usage";

	for (const struct json *u = json_first(json_get(running, "usage")); u; u = json_next(u)) {
		const char *key = text_of(u, "key_id");
		double requests = json_num(json_get(u, "requests"), 0);

		printf("  %-10s %s%s%s: %.0f requests, %.0f errors, %.0f + %.0f tokens, %.0f ms each\n", label, text_of(u, "agent"),
		       key[0] ? ", " : "", key, requests, json_num(json_get(u, "errors"), 0), json_num(json_get(u, "prompt_tokens"), 0),
		       json_num(json_get(u, "completion_tokens"), 0),
		       requests > 0 ? json_num(json_get(u, "latency_sum_ms"), 0) / requests : 0.0);
		label = "";
	}
}

static void print_queue(const struct json *running)
{
	printf("  %-10s %.0f running, %.0f waiting\n", "queue", json_num(json_get(running, "generic_running"), 0), json_num(json_get(running, "generic_queued"), 0));
}

static void print_gateway(const struct json *g)
{
	const char *error = json_str(json_get(g, "error")), *beat = json_str(json_get(g, "last_heartbeat_at"));

	if (!json_is_object(g)) {
		printf("  %-10s %s\n", "gateway", "none");
		return;
	}
	printf("  %-10s %s: %s since %s%s%s\n", "gateway", text_of(g, "base_url"), text_of(g, "state"), text_of(g, "since"), error ? "; " : "",
	       error ? error : "");
	printf("  %-10s last heartbeat %s, %.0f jobs (%.0f running, %.0f failed), %.0f results wait\n", "", beat ? beat : "never",
	       json_num(json_get(g, "jobs"), 0), json_num(json_get(g, "jobs_running"), 0), json_num(json_get(g, "jobs_failed"), 0),
	       json_num(json_get(g, "results_waiting"), 0));
}

static void print_text(struct cli *c, const struct err *error, const struct json *running)
{
	if (error)
		printf("configuration: %s\n", error->what);
	else
		printf("configured as %s, %s mode, %s\n", *c->cfg->node_id ? c->cfg->node_id : "a local node",
		       config_mode_name(c->cfg->mode), c->cfg->config_path);
	if (!running) {
		puts("not running (mswarm serve, or mswarm node run)");
		return;
	}
	printf("running, process %.0f, for %.0f s, version %s\n", json_num(json_get(running, "pid"), 0),
	       json_num(json_get(running, "uptime_s"), 0), text_of(running, "version"));
	printf("  %-10s %s/v1\n", "API", text_of(running, "url"));
	printf("  %-10s %s\n", "node id", text_of(running, "node_id"));
	print_gateway(json_get(running, "gateway"));
	printf("  %-10s %s\n", "access", json_is_true(json_get(running, "is_keyed")) ? "with an API key" : "without a key, from this machine");
	printf("  %-10s %s%s\n", "drain", text_of(running, "drain"), json_is_true(json_get(running, "is_stopping")) ? ", stopping" : "");
	printf("  %-10s %s\n", "store", text_of(running, "store"));
	print_requests(running);
	print_queue(running);
	print_sources(running);
	print_usage(running);
}

int cmd_status(struct cli *c)
{
	AUTO_JSON running = NULL;
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (rc && !c->cfg) {
		/* A broken configuration is an answer, not a failure. */
		if (rc == E_BAD_REQUEST)
			return cli_fail(&e);
		c->wants_json = true;
		return print_json(c, &e, NULL);
	}
	if (rc)
		return cli_fail(&e);
	if (cli_control(c, SLICE("{\"op\":\"status\"}"), &running, NULL) != E_OK)
		running = NULL;
	if (c->wants_json)
		return print_json(c, NULL, running);
	print_text(c, NULL, running);
	return cli_print(SLICE(""));
}
