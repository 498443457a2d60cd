/* gpu list, gpu ops, job list: what a node can do, how its job plane stands, its jobs (direct-api.md 5.3). Main thread. */
#include "base/clock.h"
#include "server/client.h"
#include "server/ops_text.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BASE "/v1/swarm/self-hosted/node"
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

static struct ops_screen screen_now(void)
{
	struct ops_screen s = { .columns = 80, .rows = 24, .now_wall_ms = clock_wall_ms() };
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row) {
		s.columns = size.ws_col;
		s.rows = size.ws_row;
	}
	return s;
}

static enum errc show(struct client *c, const char *path, bool is_json, struct err *e)
{
	AUTO_BUF out = BUF_MAX(16u << 20);
	AUTO_JSON answer = NULL;
	enum errc rc = ask(c, TOKEN_OPS, path, &answer, e);

	if (rc)
		return rc;
	if (is_json)
		return print_tree(answer) ? err_set(e, E_IO, "the answer could not be written") : E_OK;
	rc = ops_text(answer, &out, e);
	return rc ? rc : cli_print(buf_slice(&out)) ? err_set(e, E_IO, "the answer could not be written") : E_OK;
}

/* A node that does not answer may be starting again: what it said last stays, with the reason. *last is the caller's. */
static enum errc draw(struct client *c, struct json **last, struct err *e)
{
	struct ops_screen s = screen_now();
	AUTO_BUF out = BUF_MAX(1u << 20);
	AUTO_JSON answer = NULL;
	struct err why = { 0 };
	char path[120];
	enum errc rc;

	snprintf(path, sizeof(path), BASE "/generic-job-control/ops?audit_limit=0&limit=%d", s.rows);       /* more than can be seen */
	rc = ask(c, TOKEN_OPS, path, &answer, &why);
	if (rc == E_UPSTREAM || rc == E_TIMEOUT) {
		s.trouble = why.what;
	} else if (rc) {
		*e = why;
		return rc;
	} else {
		json_free(*last);
		*last = answer;
		answer = NULL;
	}
	rc = ops_table(*last, &s, &out, e);
	return rc ? rc : cli_print(buf_slice(&out)) ? err_set(e, E_IO, "the table could not be drawn") : E_OK;
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
	AUTO_JSON last = NULL;
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);
	bool is_json = cli_has_flag(c, "--json"), is_drawn = is_watched && !is_json && isatty(STDOUT_FILENO);

	snprintf(path, sizeof(path), BASE "/generic-job-control/ops%s%.80s%s%.80s", limit ? "?audit_limit=" : "", limit ? limit : "",
		 offset ? (limit ? "&audit_offset=" : "?audit_offset=") : "", offset ? offset : "");
	if (!rc)
		rc = client_open(c, &o, &client, &e);
	while (!rc) {
		rc = is_drawn ? draw(&client, &last, &e) : show(&client, path, is_json, &e);
		if (rc || !is_watched)
			break;
		client_pause(&client, WATCH_MS);
	}
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
		rc = ops_job_text(j, &out, &e);
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}
