/* gpu list, gpu ops, job list: what a node can do, how its job plane stands, its jobs (direct-api.md 5.3). Main thread. */
#include "server/client.h"

#include <stdio.h>
#include <unistd.h>

#define BASE "/v1/swarm/self-hosted/node"
#define SHOWN 10
#define WATCH_MS 2000

static int print_tree(const struct json *tree)
{
	AUTO_BUF out = BUF_MAX(256u << 20);
	struct jw w = JW_PRETTY(&out);
	struct err e = { 0 };

	jw_tree(&w, NULL, tree);
	if (jw_done(&w, &e) || buf_add_str(&out, "\n", &e))
		return cli_fail(&e);
	return cli_print(buf_slice(&out));
}

static enum errc ask(struct client *c, enum token_kind kind, const char *path, struct json **ret, struct err *e)
{
	AUTO_BUF token = BUF_MAX(64u << 10);
	enum errc rc = client_token(c, kind, NULL, NULL, NULL, &token, e);

	if (!rc)
		rc = client_call(c, "GET", path, buf_slice(&token), slice_of("", 0), e);
	if (!rc && json_parse(buf_slice(&c->body), JSON_LIMITS_DEFAULT, ret, e))
		rc = err_set(e, E_UPSTREAM, "mswarm response was not valid JSON: %.120s", c->body.n ? buf_cstr(&c->body) : "");
	return rc;
}

int cmd_gpu_list(struct cli *c)
{
	struct client_options o = { 0 };
	const struct cli_option options[] = { CLIENT_OPTIONS(o), { 0 } };
	CLEANUP(client_close) struct client client = { 0 };
	AUTO_JSON answer = NULL;
	struct err e = { 0 };
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);

	if (!rc)
		rc = client_open(c, &o, &client, &e);
	if (!rc)
		rc = ask(&client, TOKEN_CAPABILITIES, BASE "/capabilities", &answer, &e);
	return rc ? cli_fail(&e) : print_tree(answer);
}

/* ---- ops ---- */

static long long number(const struct json *obj, const char *key)
{
	int64_t v = 0;

	(void)!json_i64(json_get(obj, key), &v);
	return v;
}

static const char *string(const struct json *obj, const char *key)
{
	const char *s = json_str(json_get(obj, key));

	return s ? s : "";
}

/* The text of the existing client, priority as in its later revision. */
static enum errc ops_text(const struct json *o, struct buf *out, struct err *e)
{
	const struct json *node = json_get(o, "node"), *queue = json_get(o, "queue"), *quota = json_get(o, "quota"), *usage = json_get(o, "usage");
	const struct json *audit = json_get(o, "audit"), *jobs = json_get(queue, "jobs"), *events = json_get(audit, "events");
	int n = 0;
	enum errc rc = buf_addf(out, e, "%s %s\nqueue active=%lld queued=%lld terminal=%lld\nquota available=%lld/%lld production_enforced=%s\n",
		string(node, "node_id"), json_is_true(json_get(node, "generic_jobs_enabled")) ? "generic-jobs-enabled" : "generic-jobs-disabled",
		number(queue, "active_jobs"), number(queue, "queued_jobs"), number(queue, "terminal_jobs"), number(quota, "available_slots"),
		number(quota, "max_concurrent_jobs"), json_is_true(json_get(quota, "production_enforced")) ? "true" : "false");

	if (!rc)
		rc = buf_addf(out, e, "usage total=%lld succeeded=%lld failed=%lld cancelled=%lld blocked=%lld gpu_seconds=%.15g\n",
			number(usage, "total_jobs"), number(usage, "succeeded_jobs"), number(usage, "failed_jobs"), number(usage, "cancelled_jobs"),
			number(usage, "blocked_jobs"), json_num(json_get(usage, "gpu_seconds"), 0));
	if (!rc && json_count(jobs))
		rc = buf_add_str(out, "jobs:\n", e);
	for (const struct json *j = json_first(jobs); !rc && j && n < SHOWN; j = json_next(j), n++)
		rc = buf_addf(out, e, "  %s %s %s priority=%lld tenant=%s\n", string(j, "job_id"), string(j, "state"), string(j, "job_type"),
			number(j, "priority"), string(j, "tenant_id"));
	if (!rc && json_count(events))
		rc = buf_addf(out, e, "audit offset=%lld limit=%lld total=%lld:\n", number(audit, "offset"), number(audit, "limit"), number(audit, "total"));
	n = 0;
	for (const struct json *a = json_first(events); !rc && a && n < SHOWN; a = json_next(a), n++)
		rc = buf_addf(out, e, "  %s %s %s\n", string(a, "timestamp"), string(a, "action"), string(a, "job_id"));
	return rc;
}

static enum errc show(struct client *c, const char *path, bool is_json, bool is_watched, struct err *e)
{
	AUTO_BUF out = BUF_MAX(16u << 20);
	AUTO_JSON answer = NULL;
	enum errc rc = ask(c, TOKEN_OPS, path, &answer, e);

	if (rc)
		return rc;
	if (is_json)
		return print_tree(answer) ? err_set(e, E_IO, "the answer could not be written") : E_OK;
	if (is_watched)
		rc = buf_add_str(&out, "\033[H\033[J", e);     /* the same place of the terminal again */
	if (!rc)
		rc = ops_text(answer, &out, e);
	return rc ? rc : cli_print(buf_slice(&out)) ? err_set(e, E_IO, "the answer could not be written") : E_OK;
}

int cmd_gpu_ops(struct cli *c)
{
	struct client_options o = { 0 };
	const char *limit = NULL, *offset = NULL;
	bool is_watched = false;
	const struct cli_option options[] = { CLIENT_OPTIONS(o), { .flag = "--audit-limit", .value = &limit },
		{ .flag = "--audit-offset", .value = &offset }, { .flag = "--watch", .is_set = &is_watched }, { 0 } };
	CLEANUP(client_close) struct client client = { 0 };
	struct err e = { 0 };
	char path[300];
	bool is_json = cli_has_flag(c, "--json");
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);

	snprintf(path, sizeof(path), BASE "/generic-job-control/ops%s%.80s%s%.80s", limit ? "?audit_limit=" : "", limit ? limit : "",
		 offset ? (limit ? "&audit_offset=" : "?audit_offset=") : "", offset ? offset : "");
	if (!rc)
		rc = client_open(c, &o, &client, &e);
	do {
		if (!rc)
			rc = show(&client, path, is_json, is_watched && isatty(STDOUT_FILENO), &e);
		if (!rc && is_watched)
			client_pause(&client, WATCH_MS);
	} while (!rc && is_watched);
	return rc ? cli_fail(&e) : 0;
}

int cmd_job_list(struct cli *c)
{
	struct client_options o = { 0 };
	const struct cli_option options[] = { CLIENT_OPTIONS(o), { 0 } };
	CLEANUP(client_close) struct client client = { 0 };
	AUTO_BUF out = BUF_MAX(16u << 20);
	AUTO_JSON answer = NULL;
	struct err e = { 0 };
	bool is_json = cli_has_flag(c, "--json");
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);

	if (!rc)
		rc = client_open(c, &o, &client, &e);
	if (!rc)
		rc = ask(&client, TOKEN_OPS, BASE "/generic-job-control/ops?audit_limit=0", &answer, &e);
	if (rc)
		return cli_fail(&e);
	const struct json *jobs = json_get(json_get(answer, "queue"), "jobs");

	if (is_json)
		return print_tree(jobs);
	for (const struct json *j = json_first(jobs); !rc && j; j = json_next(j))
		rc = buf_addf(&out, &e, "%s %s %s priority=%lld tenant=%s\n", string(j, "job_id"), string(j, "state"), string(j, "job_type"),
			number(j, "priority"), string(j, "tenant_id"));
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}
