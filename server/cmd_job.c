/*
 * job run, list, status, logs, events, artifacts, cancel, retry: one generic job from the command line, with the options and
 * the printed text of the existing client (direct-api.md 5.3). Main thread.
 *
 * Exit codes: 0 done as asked (with --wait or --follow: succeeded), 1 the command failed, and of a job that was waited for:
 * 2 failed, 3 cancelled, 4 blocked, 5 expired.
 */
#include "server/job_session.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <unistd.h>

#define SCHEMA_VERSION "2026-06-14"
#define FILE_MAX (16u << 20)
#define INTERVAL_MS 1000
#define AGAIN_MS 500                    /* between two tries to reach a node that has gone */
#define AGAIN_MAX 240
#define ISSUES_SHOWN 10

/* ---- what is printed ---- */

/* "<job_id> <state>", then why it waits and what went wrong, each on its own line. */
static int print_snapshot(struct job_session *s)
{
	const struct json *job = json_get(s->answer, "job");
	const char *lines[] = { json_str(json_get(json_get(job, "backpressure"), "message")),
				json_str(json_get(json_get(json_get(job, "result"), "error"), "message")) };
	const char *id = json_str(json_get(job, "job_id")), *state = json_str(json_get(job, "state"));
	AUTO_BUF out = BUF_MAX(1u << 20);
	struct err e = { 0 };
	enum errc rc;

	if (s->w.is_json)
		return session_print(s);
	rc = buf_addf(&out, &e, "%s %s\n", id ? id : "?", state ? state : "?");
	for (size_t i = 0; !rc && i < ARRAY_LEN(lines); i++)
		if (lines[i])
			rc = buf_addf(&out, &e, "%s\n", lines[i]);
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}

/* At the end of what was followed: why, each issue of a request that is not sound with its place, then the state. On stderr. */
static void print_end(const struct json *job, const char *job_id, const char *state)
{
	const char *message = json_str(json_get(json_get(json_get(job, "result"), "error"), "message"));
	int n = 0;

	if (message)
		fprintf(stderr, "%s\n", message);
	for (const struct json *i = json_first(json_get(job, "validation_issues")); i && n < ISSUES_SHOWN; i = json_next(i), n++) {
		const char *path = json_str(json_get(i, "path")), *what = json_str(json_get(i, "message"));

		fprintf(stderr, "  %.80s: %.160s\n", path ? path : "?", what ? what : "?");
	}
	fprintf(stderr, "%s %s\n", job_id, state);
}

/* The exit code of a job that was waited for; -1: it has not ended. */
static int outcome(const char *state)
{
	static const struct {
		const char *state;
		int code;
	} codes[] = { { "succeeded", 0 }, { "failed", 2 }, { "cancelled", 3 }, { "blocked", 4 }, { "expired", 5 } };

	for (size_t i = 0; state && i < ARRAY_LEN(codes); i++)
		if (strcmp(state, codes[i].state) == 0)
			return codes[i].code;
	return -1;
}

/* ---- follow ---- */

struct hearing {
	char last[64];                  /* id of the last entry */
	char state[24];                 /* once it has ended */
	bool is_json;
};

/* The id line of a block; sse.h does not hand it out. */
static void note_id(struct hearing *h, struct slice raw)
{
	struct slice rest = raw, line;

	while (rest.p && slice_next(&rest, '\n', &line))
		if (slice_starts_with(line, SLICE("id: ")))
			(void)!slice_copy(slice_from(line, 4), h->last, sizeof(h->last));
}

static bool on_entry(void *ctx, const struct sse_event *v)
{
	struct hearing *h = ctx;
	AUTO_JSON data = NULL;
	struct err ignored;
	struct slice message;
	bool is_error = slice_eq(v->event, SLICE("stderr"));

	if (json_parse(v->data, JSON_LIMITS_DEFAULT, &data, &ignored))
		return true;
	if (slice_eq(v->event, SLICE("end"))) {
		(void)!slice_copy(json_slice(json_get(data, "state")), h->state, sizeof(h->state));
		return false;
	}
	message = h->is_json ? v->data : json_slice(json_get(data, "message"));
	fwrite(message.p, 1, message.n, is_error && !h->is_json ? stderr : stdout);
	fputc('\n', is_error && !h->is_json ? stderr : stdout);
	fflush(stdout);
	note_id(h, v->raw);
	return true;
}

/* Until the job has ended: a node that goes away is asked again, exactly behind what was heard. */
static enum errc follow(struct job_session *s, const char *rest, char ret_state[24], struct err *e)
{
	struct hearing h = { .is_json = s->w.is_json };
	AUTO_BUF path = BUF_MAX(64u << 10);
	unsigned tries = 0;
	enum errc rc = session_path(s, rest, &path, e);

	while (!rc && !h.state[0]) {
		char before[64];

		memcpy(before, h.last, sizeof(before));
		rc = client_token(&s->client, TOKEN_GENERIC, s->job_id, s->request_id, s->job_type, &s->token, e);
		if (!rc)
			rc = client_follow(&s->client, buf_cstr(&path), buf_slice(&s->token), h.last[0] ? h.last : NULL, on_entry, &h, e);
		if (strcmp(before, h.last) != 0)
			tries = 0;
		if ((rc != E_UPSTREAM && rc != E_TIMEOUT) || ++tries > AGAIN_MAX)
			break;
		rc = E_OK;
		client_pause(&s->client, AGAIN_MS);
	}
	memcpy(ret_state, h.state, sizeof(h.state));
	return rc;
}

/* ---- run ---- */

static enum errc envelope_ids(struct job_session *s, const struct json *file, bool is_whole, struct err *e)
{
	const struct json *job = is_whole ? json_get(file, "job") : file;
	const struct job_words *w = &s->w;
	const char *type = w->type ? w->type : w->job_type ? w->job_type : json_str(json_get(job, "job_type"));
	char uuid[37], text[48];
	enum errc rc = E_OK;

	if (!type)
		return err_set(e, E_BAD_REQUEST, "jobType is required");
	rc = session_keep(&s->job_type, type, e);
	if (is_whole) {
		rc = rc ? rc : session_keep(&s->job_id, json_str(json_get(file, "job_id")), e);
		return rc ? rc : session_keep(&s->request_id, json_str(json_get(file, "request_id")), e);
	}
	rc = rc ? rc : crypto_uuid4(uuid, e);
	snprintf(text, sizeof(text), "job-%s", rc ? "" : uuid);
	rc = rc ? rc : session_keep(&s->job_id, w->job_id ? w->job_id : text, e);
	rc = rc ? rc : crypto_uuid4(uuid, e);
	snprintf(text, sizeof(text), "req-%s", rc ? "" : uuid);
	return rc ? rc : session_keep(&s->request_id, w->request_id ? w->request_id : text, e);
}

/* A file with ids is sent unchanged; otherwise it is the job, and what is missing is put in. */
static enum errc envelope(struct job_session *s, struct slice text, struct buf *out, struct err *e)
{
	AUTO_JSON file = NULL;
	struct jw w = JW(out);
	const char *version;
	bool is_whole;
	enum errc rc = json_parse(text, JSON_LIMITS_DEFAULT, &file, e);

	if (!rc && !json_is_object(file))
		rc = err_set(e, E_BAD_REQUEST, "the job file must hold a JSON object");
	if (rc)
		return err_prefix(e, "job file");
	is_whole = json_str(json_get(file, "job_id")) && json_str(json_get(file, "request_id")) && json_str(json_get(file, "node_id"));
	rc = envelope_ids(s, file, is_whole, e);
	if (rc || is_whole)
		return rc ? rc : buf_add_slice(out, text, e);
	version = s->w.schema_version ? s->w.schema_version : json_str(json_get(file, "schema_version"));
	jw_obj(&w, NULL);
	jw_str(&w, "job_id", s->job_id);
	jw_str(&w, "request_id", s->request_id);
	jw_str(&w, "node_id", s->client.node_id);
	jw_obj(&w, "job");
	jw_str(&w, "schema_version", version ? version : SCHEMA_VERSION);
	jw_str(&w, "job_type", s->job_type);
	for (const struct json *m = json_first(file); m; m = json_next(m))
		if (strcmp(json_key(m), "schema_version") != 0 && strcmp(json_key(m), "job_type") != 0)
			jw_tree(&w, json_key(m), m);
	jw_end(&w);
	jw_end(&w);
	return jw_done(&w, e);
}

static enum errc create(struct job_session *s, struct err *e)
{
	AUTO_BUF text = BUF_MAX(FILE_MAX);
	AUTO_BUF body = BUF_MAX(2 * FILE_MAX);
	const char *path = s->w.job_file ? s->w.job_file : s->w.payload_file;
	enum errc rc = path ? file_read(path, &text, e) : err_set(e, E_BAD_REQUEST, "--job-file or --payload-file is required");

	if (!rc)
		rc = envelope(s, buf_slice(&text), &body, e);
	if (!rc)
		rc = client_token(&s->client, TOKEN_GENERIC, s->job_id, s->request_id, s->job_type, &s->token, e);
	if (!rc)
		rc = client_call(&s->client, "POST", JOBS_PATH, buf_slice(&s->token), buf_slice(&body), e);
	return rc ? rc : json_parse(buf_slice(&s->client.body), JSON_LIMITS_DEFAULT, &s->answer, e);
}

static enum errc wait_for_end(struct job_session *s, struct err *e)
{
	int64_t every_ms = INTERVAL_MS;
	enum errc rc = E_OK;

	if (s->w.interval_ms && !slice_to_i64(slice_str(s->w.interval_ms), 1, 3600000, &every_ms))
		return err_set(e, E_BAD_REQUEST, "--interval-ms: a number of milliseconds");
	while (!rc && outcome(json_str(json_get(json_get(s->answer, "job"), "state"))) < 0) {
		client_pause(&s->client, every_ms);
		rc = session_call(s, "GET", "", e);
	}
	return rc;
}

int cmd_job_run(struct cli *c)
{
	CLEANUP(session_done) struct job_session s = { 0 };
	struct err e = { 0 };
	char state[24] = "";
	int code, end = 0;
	enum errc rc = session_load(c, &s, false, 0, &e);

	if (!rc)
		rc = create(&s, &e);
	if (!rc && s.w.is_following) {
		fprintf(stderr, "%s\n", s.job_id);
		rc = follow(&s, "/logs?follow=1", state, &e);
		if (!rc)
			rc = session_call(&s, "GET", "", &e);
	} else if (!rc && s.w.is_waiting) {
		rc = wait_for_end(&s, &e);
	}
	if (rc)
		return cli_fail(&e);
	if (s.w.is_waiting || s.w.is_following)
		end = outcome(json_str(json_get(json_get(s.answer, "job"), "state")));
	code = s.w.is_following && !s.w.is_json ? 0 : print_snapshot(&s);
	if (s.w.is_following && !s.w.is_json)
		print_end(json_get(s.answer, "job"), s.job_id, state);
	return code ? code : end < 0 ? 1 : end;
}

/* ---- one job by its id ---- */

static int by_id(struct cli *c, const char *method, const char *rest, bool is_snapshot)
{
	CLEANUP(session_done) struct job_session s = { 0 };
	struct err e = { 0 };
	enum errc rc = session_load(c, &s, true, 0, &e);

	/* Cancel and retry must name the request that made the job: the job itself knows. */
	if (!rc && strcmp(method, "POST") == 0 && (!s.w.request_id || !(s.w.job_type || s.w.type))) {
		rc = session_call(&s, "GET", "", &e);
		const struct json *job = json_get(s.answer, "job");

		if (!rc && !s.w.request_id && json_str(json_get(job, "request_id")))
			rc = session_keep(&s.request_id, json_str(json_get(job, "request_id")), &e);
		if (!rc && !s.w.job_type && !s.w.type && json_str(json_get(json_get(job, "job"), "job_type")))
			rc = session_keep(&s.job_type, json_str(json_get(json_get(job, "job"), "job_type")), &e);
	}
	if (!rc)
		rc = session_call(&s, method, rest, &e);
	if (rc)
		return cli_fail(&e);
	return is_snapshot ? print_snapshot(&s) : session_print(&s);
}

int cmd_job_status(struct cli *c)
{
	return by_id(c, "GET", "", true);
}

int cmd_job_events(struct cli *c)
{
	return by_id(c, "GET", "/events", false);
}

int cmd_job_artifacts(struct cli *c)
{
	return by_id(c, "GET", "/artifacts", false);
}

int cmd_job_cancel(struct cli *c)
{
	return by_id(c, "POST", "/cancel", true);
}

int cmd_job_retry(struct cli *c)
{
	return by_id(c, "POST", "/retry", true);
}

/* Messages joined by newlines; with --follow as they come, to the job's end. */
int cmd_job_logs(struct cli *c)
{
	CLEANUP(session_done) struct job_session s = { 0 };
	AUTO_BUF out = BUF_MAX(256u << 20);
	struct err e = { 0 };
	char state[24] = "";
	enum errc rc = session_load(c, &s, true, 0, &e);

	if (!rc && s.w.is_following) {
		rc = follow(&s, "/logs?follow=1", state, &e);
		return rc ? cli_fail(&e) : outcome(state) < 0 ? 1 : outcome(state);
	}
	if (!rc)
		rc = session_call(&s, "GET", "/logs", &e);
	if (!rc && s.w.is_json)
		return session_print(&s);
	for (const struct json *l = json_first(json_get(s.answer, "logs")); !rc && l; l = json_next(l)) {
		rc = buf_add_slice(&out, json_slice(json_get(l, "message")), &e);
		if (!rc)
			rc = buf_add_str(&out, "\n", &e);
	}
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}
