/*
 * keys add, list, revoke; access open, status. Through the control socket when a node runs, so that a change is in force
 * when the command returns; else on the store itself, under the state folder's lock. Main thread.
 */
#include "server/cli.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/keyop.h"

#include <poll.h>
#include <stdio.h>

#define REQUEST_MAX (64 * 1024)
#define ANSWER_MAX (4 * 1024 * 1024)
#define START_TRIES 50         /* a node that is just starting holds the lock before it has its socket */
#define START_WAIT_MS 100

/* ---- without a node ---- */

static enum errc run_op(struct store *s, const struct json *request, const char *name, struct jw *w, struct err *e)
{
	struct key_op op = { 0 };
	enum errc rc = key_op_parse(request, name, &op, e);

	if (rc == E_OK)
		rc = store_run(s, &op.job, e);
	if (rc == E_OK)
		key_op_answer(&op, w);
	key_op_done(&op);
	return rc;
}

static enum errc run_list(struct store *s, struct jw *w, struct err *e)
{
	struct store_reader *r = NULL;
	enum errc rc = store_reader_open(s, &r, e);

	if (rc == E_OK)
		rc = key_op_list(r, w, e);
	store_reader_close(r);
	return rc;
}

static enum errc with_store(struct cli *c, const struct json *request, struct buf *out, struct err *e)
{
	AUTO_FREE char *path = cli_state_path(c, "node.db");
	const char *name = json_str(json_get(request, "op"));
	const struct store_opts o = { .path = path, .max_queued = 16 };
	struct store *s = NULL;
	struct jw w = JW(out);

	if (!path)
		return err_set(e, E_NO_MEMORY, "no memory");
	enum errc rc = store_open(&o, &s, e);

	jw_obj(&w, NULL);
	if (rc == E_OK)
		rc = key_op_is_name(name) ? run_op(s, request, name, &w, e) : run_list(s, &w, e);
	jw_end(&w);
	store_close(s);
	return rc ? rc : jw_done(&w, e);
}

/* E_CONFLICT: somebody holds the lock. */
static enum errc without_node(struct cli *c, struct slice text, struct json **ret, struct err *e)
{
	AUTO_FREE char *lock = cli_state_path(c, "lock");
	AUTO_BUF out = BUF_MAX(ANSWER_MAX);
	AUTO_JSON request = NULL;
	AUTO_FD fd = -1;

	if (!lock)
		return err_set(e, E_NO_MEMORY, "no memory");
	enum errc rc = crypto_init(e);

	if (rc == E_OK && !file_exists(c->cfg->state_dir))
		rc = file_make_private_dir(c->cfg->state_dir, e);
	if (rc == E_OK)
		rc = file_lock(lock, &fd, e);
	if (rc == E_OK)
		rc = json_parse(text, JSON_LIMITS_DEFAULT, &request, e);
	if (rc)
		return rc;
	rc = with_store(c, request, &out, e);
	/* A name in use is E_CONFLICT too: not to be taken for the lock. */
	if (rc == E_CONFLICT)
		rc = e->code = E_BAD_REQUEST;
	if (rc == E_OK)
		rc = json_parse(buf_slice(&out), JSON_LIMITS_DEFAULT, ret, e);
	if (out.n)
		mem_wipe(out.p, out.n);
	return rc;
}

/* ---- either way ---- */

static enum errc ask(struct cli *c, struct slice request, struct json **ret, struct err *e)
{
	enum errc rc = E_OK;

	for (int i = 0; i < START_TRIES; i++) {
		rc = cli_control(c, request, ret, e);
		if (rc != E_NOT_FOUND)
			return rc;
		rc = without_node(c, request, ret, e);
		if (rc != E_CONFLICT)
			return rc;
		(void)poll(NULL, 0, START_WAIT_MS);
	}
	return rc;
}

static enum errc ask_simple(struct cli *c, const char *op, struct json **ret, struct err *e)
{
	char request[64];

	snprintf(request, sizeof(request), "{\"op\":\"%s\"}", op);
	return ask(c, slice_str(request), ret, e);
}

/* The answer as JSON for programs, without the "ok" of the socket. */
static int print_json(const struct json *answer)
{
	AUTO_BUF out = BUF_MAX(ANSWER_MAX);
	struct jw w = JW_PRETTY(&out);
	struct err e = { 0 };

	jw_obj(&w, NULL);
	for (const struct json *m = json_first(answer); m; m = json_next(m))
		if (strcmp(json_key(m), "ok") != 0)
			jw_tree(&w, json_key(m), m);
	jw_end(&w);
	enum errc rc = jw_done(&w, &e);

	if (rc == E_OK)
		rc = buf_add_str(&out, "\n", &e);
	int code = rc ? cli_fail(&e) : cli_print(buf_slice(&out));

	if (out.n)
		mem_wipe(out.p, out.n);
	return code;
}

static const char *text_of(const struct json *obj, const char *key)
{
	const char *s = json_str(json_get(obj, key));

	return s ? s : "";
}

/* ---- keys add ---- */

struct add_words {
	const char *name, *models, *rpm, *concurrent;
};

static enum errc add_number(struct jw *w, const char *key, const char *flag, const char *text, struct err *e)
{
	int64_t n;

	if (!text)
		return E_OK;
	if (!slice_to_i64(slice_str(text), 1, 1000000, &n))
		return err_set(e, E_BAD_REQUEST, "%s: a number from 1 to 1000000", flag);
	jw_i64(w, key, n);
	return E_OK;
}

static enum errc add_request(const struct add_words *a, struct buf *out, struct err *e)
{
	struct jw w = JW(out);
	struct slice rest = slice_str(a->models), name;

	jw_obj(&w, NULL);
	jw_str(&w, "op", "keys.add");
	jw_str(&w, "name", a->name);
	if (a->models) {
		jw_arr(&w, "models");
		while (rest.p && slice_next(&rest, ',', &name))
			if (slice_trim(name).n)
				jw_slice(&w, NULL, slice_trim(name));
		jw_end(&w);
	}
	enum errc rc = add_number(&w, "requests_per_minute", "--rpm", a->rpm, e);

	if (rc == E_OK)
		rc = add_number(&w, "max_concurrent", "--concurrent", a->concurrent, e);
	jw_end(&w);
	return rc ? rc : jw_done(&w, e);
}

static void print_added(const struct json *answer)
{
	printf("%s\n\n", text_of(answer, "key"));
	printf("Key %s \"%s\". This is the only time that it is shown. Clients give it as their API key.\n", text_of(answer, "id"),
	       text_of(answer, "name"));
	puts("From now on /v1 needs a key (mswarm access open undoes that).");
}

int cmd_keys_add(struct cli *c)
{
	struct add_words a = { 0 };
	const struct cli_option options[] = {
		{ .flag = "--models", .value = &a.models },
		{ .flag = "--rpm", .value = &a.rpm },
		{ .flag = "--concurrent", .value = &a.concurrent },
		{ 0 },
	};
	AUTO_BUF request = BUF_MAX(REQUEST_MAX);
	AUTO_JSON answer = NULL;
	size_t n = 0;
	struct err e = { 0 };
	enum errc rc = cli_load(c, options, &a.name, 1, &n, &e);

	if (rc == E_OK && n == 0)
		rc = err_set(&e, E_BAD_REQUEST, "usage: mswarm keys add %s", c->command->args);
	if (rc == E_OK)
		rc = add_request(&a, &request, &e);
	if (rc == E_OK)
		rc = ask(c, buf_slice(&request), &answer, &e);
	if (rc)
		return cli_fail(&e);
	if (c->wants_json)
		return print_json(answer);
	print_added(answer);
	return 0;
}

/* ---- keys list ---- */

static void print_models(const struct json *models)
{
	const char *between = "";

	if (json_count(models) == 0)
		fputs("all", stdout);
	for (const struct json *m = json_first(models); m; m = json_next(m)) {
		printf("%s%s", between, json_str(m));
		between = ",";
	}
}

static void print_keys(const struct json *answer)
{
	const struct json *keys = json_get(answer, "keys");

	for (const struct json *k = json_first(keys); k; k = json_next(k)) {
		const char *revoked = json_str(json_get(k, "revoked_at"));
		double rpm = json_num(json_get(k, "requests_per_minute"), 0), at_once = json_num(json_get(k, "max_concurrent"), 0);

		printf("%s  ...%s  %-20s %s%s  models=", text_of(k, "id"), text_of(k, "hint"), text_of(k, "name"),
		       revoked ? "revoked " : "in force since ", revoked ? revoked : text_of(k, "created_at"));
		print_models(json_get(k, "models"));
		if (rpm > 0)
			printf(" rpm=%.0f", rpm);
		if (at_once > 0)
			printf(" concurrent=%.0f", at_once);
		putchar('\n');
	}
	if (json_count(keys) == 0)
		puts("no keys");
	puts(json_is_true(json_get(answer, "is_keyed")) ? "/v1 needs a key" : "/v1 is open to this machine");
}

int cmd_keys_list(struct cli *c)
{
	AUTO_JSON answer = NULL;
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (rc == E_OK)
		rc = ask_simple(c, "keys.list", &answer, &e);
	if (rc)
		return cli_fail(&e);
	if (c->wants_json)
		return print_json(answer);
	print_keys(answer);
	return cli_print(SLICE(""));
}

/* ---- keys revoke ---- */

int cmd_keys_revoke(struct cli *c)
{
	AUTO_BUF request = BUF_MAX(REQUEST_MAX);
	AUTO_JSON answer = NULL;
	struct jw w = JW(&request);
	const char *target = NULL;
	size_t n = 0;
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, &target, 1, &n, &e);

	if (rc == E_OK && n == 0)
		rc = err_set(&e, E_BAD_REQUEST, "usage: mswarm keys revoke ID|NAME");
	jw_obj(&w, NULL);
	jw_str(&w, "op", "keys.revoke");
	jw_str(&w, "key", target);
	jw_end(&w);
	if (rc == E_OK)
		rc = jw_done(&w, &e);
	if (rc == E_OK)
		rc = ask(c, buf_slice(&request), &answer, &e);
	if (rc)
		return cli_fail(&e);
	if (c->wants_json)
		return print_json(answer);
	printf("revoked %s\n", text_of(answer, "id"));
	return 0;
}

/* ---- access ---- */

int cmd_access_open(struct cli *c)
{
	AUTO_JSON answer = NULL;
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (rc == E_OK)
		rc = ask_simple(c, "access.open", &answer, &e);
	if (rc)
		return cli_fail(&e);
	if (c->wants_json)
		return print_json(answer);
	puts("/v1 can be called without a key again, as long as the node listens on loopback only");
	return 0;
}

int cmd_access_status(struct cli *c)
{
	AUTO_JSON answer = NULL;
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (rc == E_OK)
		rc = ask_simple(c, "keys.list", &answer, &e);
	if (rc)
		return cli_fail(&e);
	bool is_keyed = json_is_true(json_get(answer, "is_keyed"));

	if (c->wants_json)
		return cli_print(is_keyed ? SLICE("{\n  \"is_keyed\": true\n}\n") : SLICE("{\n  \"is_keyed\": false\n}\n"));
	puts(is_keyed ? "/v1 needs a key" : "/v1 is open to this machine");
	return 0;
}
