/*
 * node drain: changes or shows the drain mode of the running node, at once; with a deadline it waits until nothing runs any more.
 * Main thread.
 */
#include "server/cli.h"

#include "base/clock.h"

#include <poll.h>
#include <stdio.h>

#define LOOK_MS 200

static enum errc ask(struct cli *c, const char *op, const char *mode, struct json **ret, struct err *e)
{
	AUTO_BUF request = BUF_MAX(1024);
	struct jw w = JW(&request);

	jw_obj(&w, NULL);
	jw_str(&w, "op", op);
	if (mode)
		jw_str(&w, "mode", mode);
	jw_end(&w);
	enum errc rc = jw_done(&w, e);

	if (!rc)
		rc = cli_control(c, buf_slice(&request), ret, e);
	return rc == E_NOT_FOUND ? err_set(e, E_NOT_FOUND, "no node runs on %s", c->cfg->state_dir) : rc;
}

/* "90", "90s", "10m", "2h". */
static bool parse_span(const char *text, int64_t *ret_ms)
{
	struct slice s = slice_str(text);
	int64_t unit = 1000, n;

	if (s.n && strchr("smh", s.p[s.n - 1])) {
		unit = s.p[s.n - 1] == 'h' ? 3600000 : s.p[s.n - 1] == 'm' ? 60000 : 1000;
		s.n--;
	}
	if (!slice_to_i64(s, 0, 1000000, &n))
		return false;
	*ret_ms = n * unit;
	return true;
}

/* Jobs of gateways and of the queue that run now; chats of local clients are nobody's business here, unless all is drained. */
static int64_t running(const struct json *status, bool is_all)
{
	const struct json *requests = json_get(status, "requests"), *gateway = json_get(status, "gateway");
	double n = json_num(json_get(json_get(requests, "job"), "running"), 0) + json_num(json_get(gateway, "results_waiting"), 0) +
		   json_num(json_get(status, "generic_running"), 0);

	return (int64_t)(n + (is_all ? json_num(json_get(json_get(requests, "local"), "running"), 0) : 0));
}

static enum errc wait_until_idle(struct cli *c, int64_t limit_ms, bool is_all, int64_t *ret_left, struct err *e)
{
	int64_t end_ms = clock_mono_ms() + limit_ms;

	while (true) {
		AUTO_JSON status = NULL;
		enum errc rc = ask(c, "status", NULL, &status, e);

		if (rc)
			return rc;
		*ret_left = running(status, is_all);
		if (!*ret_left || clock_mono_ms() >= end_ms)
			return E_OK;
		(void)poll(NULL, 0, LOOK_MS);
	}
}

int cmd_drain(struct cli *c)
{
	const char *mode = "status", *deadline = NULL;
	const struct cli_option options[] = { { .flag = "--deadline", .value = &deadline }, { 0 } };
	AUTO_JSON answer = NULL;
	int64_t limit_ms = 0, left = 0;
	struct err e = { 0 };
	enum errc rc = cli_load(c, options, &mode, 1, NULL, &e);

	if (!rc && deadline && !parse_span(deadline, &limit_ms))
		rc = err_set(&e, E_BAD_REQUEST, "--deadline: a time such as 90s, 10m or 2h");
	if (!rc)
		rc = ask(c, "drain", mode, &answer, &e);
	if (!rc && deadline)
		rc = wait_until_idle(c, limit_ms, strcmp(mode, "all") == 0, &left, &e);
	if (rc)
		return cli_fail(&e);
	const char *now = json_str(json_get(answer, "drain"));

	if (c->wants_json && deadline)
		printf("{\n  \"drain\": \"%s\",\n  \"running\": %lld\n}\n", now ? now : "?", (long long)left);
	else
		printf("%s%s%s", c->wants_json ? "{\n  \"drain\": \"" : "drain ", now ? now : "?", c->wants_json ? "\"\n}\n" : "\n");
	if (left)
		fprintf(stderr, "%lld still run after %s; they go on\n", (long long)left, deadline);
	return cli_print(SLICE("")) || left > 0;
}
