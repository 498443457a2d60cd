/*
 * R4, R5: one generic job inside the request, as JSON at its end or as a stream of its events; and its cancel. It waits its
 * turn in the same queue as the others (weakness 8), runs under the same shim, and is kept as they are.
 * Source: direct-api.md 2.8, 2.9.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "jobs/subs.h"
#include "jobs/supervisor.h"
#include "routes/follow.h"
#include "routes/generic_work.h"

/* ---- cancel ---- */

struct cancel {
	struct req *q;                  /* NULL: nobody waits for an answer */
	struct loop_ctx *ctx;
	struct job_ask ask;
};

static void on_asked(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct cancel *c = CONTAINER_OF(CONTAINER_OF(job, struct job_ask, job), struct cancel, ask);
	struct req *q = c->q;
	struct jw w;
	struct err e = { 0 };

	if (!job->rc) {
		supervisor_cancel(c->ctx->svc->supervisor);
		subs_publish(c->ctx->svc->subs, c->ask.found.key);
	}
	if (q && job->rc) {
		reply_fail(q, &job->e);
	} else if (q) {
		q->reply.status = 202;
		w = JW(&q->reply.body);
		jw_obj(&w, NULL);
		jw_str(&w, "job_id", c->ask.found.job_id);
		jw_str(&w, "request_id", c->ask.found.request_id);
		jw_str(&w, "status", "cancelling");
		jw_end(&w);
		if (jw_done(&w, &e))
			reply_fail(q, &e);
		else
			reply_done(q);
	}
	job_ask_done(&c->ask);
	mem_free(c);
}

static enum errc cancel_new(struct loop_ctx *ctx, struct cancel **ret, struct err *e)
{
	struct cancel *c = NEW(struct cancel);

	if (!c)
		return err_set(e, E_NO_MEMORY, "no memory");
	job_ask_init(&c->ask, JOB_WISH_CANCEL_DIRECT);
	c->ctx = ctx;
	c->ask.job.loop = ctx->loop;
	c->ask.job.done.fn = on_asked;
	*ret = c;
	return E_OK;
}

static enum errc cancel_submit(struct cancel *c, struct err *e)
{
	enum errc rc = store_submit(c->ctx->svc->store, &c->ask.job, e);

	if (rc) {
		job_ask_done(&c->ask);
		mem_free(c);
	}
	return rc;
}

void generic_cancel(struct loop_ctx *ctx, int64_t job_key)
{
	struct cancel *c = NULL;
	struct err ignored;

	if (cancel_new(ctx, &c, &ignored))
		return;
	c->ask.key = job_key;
	(void)!cancel_submit(c, &ignored);
}

static void on_cancel_gone(struct req *q)
{
	struct cancel *c = q->handler_state;

	c->q = NULL;
}

enum errc route_generic_run_cancel(struct req *q, struct reply *rep, struct err *e)
{
	struct token_claims claims = { 0 };
	struct slice id = slice_trim_js(slice_str(q->arg[0]));
	struct cancel *c = NULL;
	enum errc rc = generic_gate(q, TOKEN_GENERIC, &claims, e);

	(void)rep;
	if (!rc && !id.n)
		rc = err_set(e, E_BAD_REQUEST, "generic job_id is required");
	if (!rc && generic_check_path(q, &claims, &id, e))
		rc = err_set(e, E_BAD_REQUEST, "generic cancellation token does not match this node or job");
	if (!rc)
		rc = cancel_new(q->ctx, &c, e);
	if (rc) {
		token_claims_done(&claims);
		return rc;
	}
	c->q = q;
	c->ask.claims = claims;
	rc = cancel_submit(c, e);
	if (!rc)
		reply_later(q, c, on_cancel_gone);
	return rc;
}

/* ---- run, and the answer at the end ---- */

struct waiter {
	struct req *q;                  /* NULL: the caller has left; the job runs on */
	struct loop_ctx *ctx;
	struct sub sub;
	int64_t began_mono_ms;
};

/* By the result (2.8). */
static int status_of(const struct job_row *row)
{
	static const struct {
		const char *code;
		int status;
	} codes[] = { { "validation_failed", 400 }, { "timeout", 408 } };
	AUTO_JSON result = NULL;
	const char *code;
	struct err ignored;

	if (row->state == JOB_SUCCEEDED)
		return 200;
	if (row->state == JOB_CANCELLED)
		return 409;
	if (!row->result || json_parse(slice_str(row->result), JSON_LIMITS_DEFAULT, &result, &ignored))
		return 502;
	code = json_str(json_get(json_get(result, "error"), "code"));
	for (size_t i = 0; code && i < ARRAY_LEN(codes); i++)
		if (strcmp(code, codes[i].code) == 0)
			return codes[i].status;
	return 502;
}

static enum errc answer(struct waiter *v, const struct job_row *row, struct err *e)
{
	struct reply *rep = &v->q->reply;
	struct show s = { .reader = v->ctx->reader, .node_id = v->ctx->svc->node_id, .row = row, .max = SHOW_ROWS };
	const char *status = row->state == JOB_SUCCEEDED || row->state == JOB_CANCELLED ? job_state_name(row->state) : "failed";
	struct jw w;
	enum errc rc;

	buf_init(&rep->body, REPLY_MAX_BYTES);
	w = JW(&rep->body);
	rep->status = status_of(row);
	jw_obj(&w, NULL);
	jw_str(&w, "job_id", row->job_id);
	jw_str(&w, "request_id", row->request_id);
	jw_str(&w, "status", status);
	if (row->result)
		jw_raw(&w, "result", slice_str(row->result));
	rc = show_events(&w, "events", &s, e);
	if (s.is_more)
		jw_bool(&w, "events_truncated", true);
	if (row->validation_issues)
		jw_raw(&w, "validation_issues", slice_str(row->validation_issues));
	jw_obj(&w, "timing");
	jw_i64(&w, "local_latency_ms", loop_now_ms(v->ctx->loop) - v->began_mono_ms);
	jw_end(&w);
	jw_end(&w);
	return rc ? rc : jw_done(&w, e);
}

static void waiter_end(struct waiter *v)
{
	if (!subs_remove(v->ctx->svc->subs, &v->sub))
		mem_free(v);
}

/* Answers when the job has ended. */
static void look(struct waiter *v)
{
	AUTO_JOB_ROW row = { 0 };
	struct err e = { 0 };
	enum errc rc = jobs_get(v->ctx->reader, v->sub.job_key, &row, &e);

	if (!rc && !job_is_ended(row.state))
		return;
	if (!rc)
		rc = answer(v, &row, &e);
	if (rc)
		reply_fail(v->q, &e);
	else
		reply_done(v->q);
	v->q = NULL;
	waiter_end(v);
}

static void on_changed(struct loop_msg *m)
{
	struct sub *sub = CONTAINER_OF(m, struct sub, msg);
	struct waiter *v = CONTAINER_OF(sub, struct waiter, sub);

	subs_taken(sub);
	if (v->q)
		look(v);
	else
		mem_free(v);
}

static void on_gone(struct req *q)
{
	struct waiter *v = q->handler_state;

	v->q = NULL;
	waiter_end(v);
}

/* Any entry of Accept that begins so, as the reference has it: parameters are not looked at. */
static bool wants_stream(struct req *q)
{
	struct slice rest = req_header(q, "accept"), entry;

	while (rest.p && slice_next(&rest, ',', &entry))
		if (slice_starts_with_nocase(slice_trim(entry), SLICE("text/event-stream")))
			return true;
	return false;
}

static void wait_for_end(struct generic_work *c, struct err *e)
{
	struct req *q = c->q;
	struct waiter *v = NEW(struct waiter);

	if (!v) {
		(void)err_set(e, E_NO_MEMORY, "no memory");
		reply_fail(q, e);
		return;
	}
	v->q = q;
	v->ctx = c->ctx;
	v->began_mono_ms = q->started_mono_ms;
	v->sub = (struct sub){ .loop = c->ctx->loop, .msg = { .fn = on_changed }, .job_key = c->create.wanted.key };
	q->handler_state = v;
	q->on_gone = on_gone;
	subs_add(c->ctx->svc->subs, &v->sub);
	look(v);
}

static void on_created(struct generic_work *c)
{
	struct err e = { 0 };

	if (!c->q) {
		/* Who asked for a stream and has left before it began, has left the job too. */
		if (c->is_stream)
			generic_cancel(c->ctx, c->create.wanted.key);
	} else if (!c->is_stream) {
		wait_for_end(c, &e);
	} else if (follow_start(c->q, &c->create.wanted, FOLLOW_RUN, &e)) {
		reply_fail(c->q, &e);
	}
	generic_work_free(c);
}

enum errc route_generic_run(struct req *q, struct reply *rep, struct err *e)
{
	return generic_work_start(q, rep, wants_stream(q) ? GENERIC_STREAM : GENERIC_DIRECT, on_created, e);
}
