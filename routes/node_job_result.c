/*
 * How a direct LLM job is answered: results, failures, last frames; and who leaves. Called by node_job_create.c, by
 * llm/invoke and, through the sink, by server/http_reply.c; on the loop of the connection.
 */
#include "base/log.h"
#include "base/mem.h"
#include "llm/outcomes.h"
#include "routes/accounting.h"
#include "routes/chat.h"
#include "routes/node_job_priv.h"

void work_release(struct work *c)
{
	if (c->q || c->is_in_handler || (c->v && !c->is_answered))
		return;
	invoke_free(TAKE(c->v));
	token_claims_done(&c->claims);
	mem_free(c);
}

static void count(struct work *c, bool is_error)
{
	const struct invoke *v = c->v;
	struct accounting_entry n = { .key_id = "direct", .is_error = is_error };

	if (c->is_counted || !v || !v->is_started)
		return;
	const struct chat_usage *u = invoke_usage(v);

	c->is_counted = true;
	n.agent = v->agent ? v->agent->slug : "";
	n.total_ms = invoke_latency_ms(v);
	if (u->is_known) {
		n.prompt_tokens = u->prompt_tokens;
		n.completion_tokens = u->completion_tokens;
	}
	accounting_add(c->ctx->accounting, &n);
	outcomes_add(c->ctx->svc->outcomes, OUTCOME_LLM, n.total_ms, invoke_failure(v));
}

/* q->reply is filled: the request is no longer ours. */
static void answer(struct work *c)
{
	struct req *q = TAKE(c->q);

	c->is_answered = true;
	sink_done(&c->sink);
	if (!c->is_in_handler)
		reply_done(q);
}

void work_answer_err(struct work *c, const struct err *e, int64_t retry_s)
{
	if (retry_s > 0)
		reply_retry(&c->q->reply, err_http_status(e->code), retry_s, false);
	reply_error(&c->q->reply, SHAPE_FLAT, e);
	answer(c);
}

/* ---- who leaves, who stops ---- */

/* The job ends with its caller, whatever is on its way. */
static void leave(struct work *c, bool is_error)
{
	count(c, is_error);
	c->q = NULL;
	c->is_answered = true;
	sink_done(&c->sink);
	work_release(c);
}

/* The caller of a plain job, or of one that waits, has left: the work stops. */
void work_on_gone(struct req *q)
{
	leave(q->handler_state, true);
}

/* The caller of a stream has read all, or left. */
void work_on_closed(struct sink *s, bool is_complete)
{
	leave(CONTAINER_OF(s, struct work, sink), !is_complete);
}

/* Within a read of the answer: the run goes on by a letter. */
void work_on_drained(struct sink *s)
{
	invoke_resume(CONTAINER_OF(s, struct work, sink)->v);
}

void work_on_stopping(struct sink *s)
{
	struct work *c = CONTAINER_OF(s, struct work, sink);
	struct err e = { 0 };

	(void)err_set(&e, E_DRAINING, "the node is stopping");
	invoke_abort(c->v, &e);
}

/* ---- what the job says ---- */

static enum errc claims(void *ctx, const struct invocation *j, struct err *e)
{
	const struct work *c = ctx;

	return node_job_claims(&c->claims, j, e);
}

static void note_model(struct work *c)
{
	struct slice model = c->v->job.request_model;
	char *out = c->q->model;
	size_t n = 0;

	for (; n < model.n && n + 1 < sizeof(c->q->model); n++)
		out[n] = (unsigned char)model.p[n] <= ' ' || model.p[n] == '"' || model.p[n] == 0x7f ? '_' : model.p[n];
	out[n] = '\0';
}

/* What is known at once is told before a head goes out: then capacity has a status of its own. */
static void on_ready(void *ctx)
{
	struct work *c = ctx;
	struct err e = { 0 };

	note_model(c);
	invoke_run(c->v);
	if (!c->q || c->is_answered || !c->v->job.is_stream || invoke_is_refused(c->v) || c->sink.is_open)
		return;
	if (sink_open(&c->sink, WORK_CACHE_CONTROL, &e)) {
		work_answer_err(c, &e, 0);
		work_release(c);
	}
}

static enum call_take on_frames(void *ctx)
{
	struct work *c = ctx;

	return sink_push(&c->sink);
}

/* Stream: the last frames. A client that reads no more than the sink holds has been waited for before. */
static void finish_stream(struct work *c)
{
	struct err e = { 0 };
	enum errc rc = E_OK;

	if (c->v->is_failed)
		rc = job_error_frame(&c->v->failure, &c->sink.out, &e);
	/* the end of a runner's stream has written [DONE] itself */
	if (!rc && (c->v->is_failed || c->v->job.is_ollama))
		rc = buf_add_str(&c->sink.out, "data: [DONE]\n\n", &e);
	if (!rc && !c->sink.is_open)
		rc = sink_open(&c->sink, WORK_CACHE_CONTROL, &e);
	if (rc)
		log_event(LOG_WARN, "job.cut", "reason=no_memory");
	sink_end(&c->sink);
}

static void on_end(void *ctx, enum invoke_how how, const struct err *e, int64_t retry_after_s)
{
	struct work *c = ctx;

	if (!c->q)
		return;
	if (how == INVOKE_UNREADABLE && e->code == E_BAD_JSON) {
		node_job_bad_json(&c->q->reply);
		answer(c);
	} else if (how == INVOKE_UNREADABLE || (how == INVOKE_REFUSED && !c->sink.is_open)) {
		work_answer_err(c, e, retry_after_s);
	} else if (c->v->job.is_stream) {
		note_model(c);
		if (how == INVOKE_FAILED)
			count(c, true);
		finish_stream(c);
		return;                        /* the rest is the sink's */
	} else {
		note_model(c);
		invoke_result(c->v, slice_of("", 0), slice_of("", 0));
		return;
	}
	work_release(c);
}

static void on_result(void *ctx, enum errc rc, const struct err *e)
{
	struct work *c = ctx;
	struct reply *rep;

	count(c, rc || c->v->is_failed);
	if (!c->q)
		return;
	if (rc) {
		work_answer_err(c, e, 0);
		work_release(c);
		return;
	}
	rep = &c->q->reply;
	buf_done(&rep->body);
	rep->body = c->v->result;
	buf_init(&c->v->result, 0);
	rep->status = c->v->is_failed ? 502 : 200;
	if (c->v->is_failed)
		reply_retry(rep, rep->status, 0, c->v->is_started);
	answer(c);
	work_release(c);
}

const struct invoke_ops work_invoke_ops = { .claims = claims, .on_ready = on_ready, .on_frames = on_frames, .on_end = on_end,
					    .on_result = on_result };
