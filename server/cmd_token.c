/* token: mint a scoped token with the node's secret; node env: exports for the existing clients. Main thread. */
#include "server/cli.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/token.h"
#include "server/nodeid.h"

#include <stdio.h>

#define SCHEMA_VERSION "2026-06-14"
#define TTL_DEFAULT_S 3600
#define TTL_MAX_S (10 * 365 * 86400)

struct words {
	const char *scope, *job, *request, *model, *job_type, *schema_version, *ttl;
};

static enum errc need(const char *value, const char *flag, const char *scope, struct err *e)
{
	return value && *value ? E_OK : err_set(e, E_MISSING_PARAMETER, "%s is required for --scope %s", flag, scope);
}

/* What each kind must carry: direct-api.md 1.3. */
static enum errc check(const struct words *w, struct token_mint *m, struct err *e)
{
	int64_t ttl = TTL_DEFAULT_S;
	enum errc rc = E_OK;

	if (!w->scope || !token_kind_parse(slice_str(w->scope), &m->kind))
		return err_set(e, E_BAD_REQUEST, "--scope: invoke, generic, capabilities or ops");
	if (w->ttl && !slice_to_i64(slice_str(w->ttl), 1, TTL_MAX_S, &ttl))
		return err_set(e, E_BAD_REQUEST, "--ttl: seconds, 1 to %d", TTL_MAX_S);
	if (m->kind == TOKEN_INVOKE || m->kind == TOKEN_GENERIC) {
		rc = need(w->job, "--job", w->scope, e);
		if (rc == E_OK)
			rc = need(w->request, "--request", w->scope, e);
	}
	if (rc == E_OK && m->kind == TOKEN_INVOKE)
		rc = need(w->model, "--model", w->scope, e);
	if (rc == E_OK && m->kind == TOKEN_GENERIC)
		rc = need(w->job_type, "--job-type", w->scope, e);
	m->job_id = w->job;
	m->request_id = w->request;
	m->model = w->model;
	m->job_type = w->job_type;
	m->schema_version = w->schema_version ? w->schema_version : SCHEMA_VERSION;
	m->ttl_s = ttl;
	return rc;
}

/* Node id, and the secret that a node started like this command would use. */
static enum errc identity(struct cli *c, char **ret_node, struct secret *ret_secret, struct err *e)
{
	enum errc rc = crypto_init(e);

	if (rc == E_OK)
		rc = nodeid_get(c->cfg, ret_node, e);
	return rc ? rc : nodeid_secret(c->cfg, ret_secret, e);
}

/* What the running node says of itself; NULL when none runs. Warns when it has another secret than this command. */
static struct json *ask_node(struct cli *c, const struct secret *secret)
{
	struct json *status = NULL;
	char mark[9];

	if (cli_control(c, SLICE("{\"op\":\"status\"}"), &status, NULL) != E_OK)
		return NULL;
	const char *theirs = json_str(json_get(status, "secret_mark"));

	nodeid_secret_mark(secret_slice(secret), mark);
	if (theirs && strcmp(theirs, mark) != 0)
		fputs("warning: the running node has another signing secret than this command; "
		      "is MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET set alike for both?\n", stderr);
	return status;
}

/* The id of the node that runs counts: it may have been started with another environment. */
static const char *running_id(const struct json *status, const char *own)
{
	const char *id = json_str(json_get(status, "node_id"));

	return id ? id : own;
}

static enum errc print_token(struct token_mint *m, struct slice secret, struct err *e)
{
	AUTO_BUF token = BUF_MAX(64 * 1024);
	enum errc rc = token_mint(m, secret, clock_wall_ms(), &token, e);

	if (rc == E_OK)
		rc = buf_add_str(&token, "\n", e);
	if (rc == E_OK && cli_print(buf_slice(&token)))
		rc = err_set(e, E_IO, "the token could not be written");
	return rc;
}

int cmd_token(struct cli *c)
{
	struct words w = { 0 };
	const struct cli_option options[] = {
		{ .flag = "--scope", .value = &w.scope },       { .flag = "--job", .value = &w.job },
		{ .flag = "--request", .value = &w.request },   { .flag = "--model", .value = &w.model },
		{ .flag = "--job-type", .value = &w.job_type }, { .flag = "--schema-version", .value = &w.schema_version },
		{ .flag = "--ttl", .value = &w.ttl },           { 0 },
	};
	struct token_mint m = { 0 };
	AUTO_FREE char *node = NULL;
	AUTO_JSON status = NULL;
	CLEANUP(secret_done) struct secret secret = { 0 };
	struct err e = { 0 };
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);

	if (rc == E_OK)
		rc = check(&w, &m, &e);
	if (rc == E_OK)
		rc = identity(c, &node, &secret, &e);
	if (rc)
		return cli_fail(&e);
	status = ask_node(c, &secret);
	m.node_id = running_id(status, node);
	rc = print_token(&m, secret_slice(&secret), &e);
	return rc ? cli_fail(&e) : 0;
}

/* ---- node env ---- */

/* Names of direct-api.md 5.1. */
static enum errc env_text(const char *url, const char *node, struct slice secret, bool is_json, struct buf *out, struct err *e)
{
	const struct {
		const char *name;
		struct slice value;
	} vars[] = {
		{ "MCODA_MSWARM_NODE_BASE_URL", slice_str(url) },
		{ "MCODA_MSWARM_NODE_ID", slice_str(node) },
		{ "MCODA_MSWARM_NODE_SIGNING_SECRET", secret },
	};
	struct jw w = JW_PRETTY(out);
	enum errc rc = E_OK;

	if (is_json) {
		jw_obj(&w, NULL);
		for (size_t i = 0; i < ARRAY_LEN(vars); i++)
			jw_slice(&w, vars[i].name, vars[i].value);
		jw_end(&w);
		rc = jw_done(&w, e);
		return rc ? rc : buf_add_str(out, "\n", e);
	}
	for (size_t i = 0; i < ARRAY_LEN(vars) && rc == E_OK; i++) {
		rc = buf_addf(out, e, "export %s=", vars[i].name);
		if (rc == E_OK)
			rc = cli_quote(out, vars[i].value, e);
		if (rc == E_OK)
			rc = buf_add_str(out, "\n", e);
	}
	return rc;
}

int cmd_node_env(struct cli *c)
{
	bool wants_json = false;
	AUTO_FREE char *node = NULL;
	AUTO_JSON status = NULL;
	AUTO_BUF url = BUF_MAX(1024);
	AUTO_BUF out = BUF_MAX(64 * 1024);
	CLEANUP(secret_done) struct secret secret = { 0 };
	struct err e = { 0 };

	/* Made for eval "$(mswarm node env)": JSON only when it was asked for, not for every pipe. */
	for (size_t i = 0; i < c->arg_count; i++)
		wants_json = wants_json || strcmp(c->args[i], "--json") == 0;
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (rc == E_OK)
		rc = identity(c, &node, &secret, &e);
	if (rc)
		return cli_fail(&e);
	status = ask_node(c, &secret);
	const char *running = json_str(json_get(status, "url"));

	rc = running ? buf_add_str(&url, running, &e) : nodeid_url(c->cfg, (int)c->cfg->listen_port, &url, &e);
	if (rc == E_OK)
		rc = buf_add_str(&url, "/", &e);
	if (rc == E_OK)
		rc = env_text(buf_cstr(&url), running_id(status, node), secret_slice(&secret), wants_json, &out, &e);
	int code = rc ? cli_fail(&e) : cli_print(buf_slice(&out));

	if (out.n)
		mem_wipe(out.p, out.n);
	return code;
}
