/*
 * A direct LLM job while it runs: the caller leaves, the node stops, the runner speaks. Called by server/http_reply.c
 * through the sink, and by llm/call.c; on the loop of the connection.
 */
#include "base/clock.h"
#include "routes/node_job_priv.h"

#define LINGER_MS 1000                 /* a runner that has said [DONE] may close its transfer in this time */

/* ---- the client's side ---- */

void work_on_linger(struct loop_timer *t)
{
	struct work *c = CONTAINER_OF(t, struct work, linger);

	call_cancel(TAKE(c->call));
	work_release(c);
}

static void linger(struct work *c)
{
	loop_timer_set(c->ctx->loop, &c->linger, loop_now_ms(c->ctx->loop) + LINGER_MS);
}

/* The caller of a plain job, or of one that waits, has left: the work stops. */
void work_on_gone(struct req *q)
{
	struct work *c = q->handler_state;

	c->q = NULL;
	sink_done(&c->sink);
	call_cancel(TAKE(c->call));
	if (!c->is_on_pool)
		work_count(c, true);
	if (c->is_waiting && inventory_wait_cancel(c->ctx->svc->inventory, &c->wait))
		c->is_waiting = false;
	work_release(c);
}

/* The caller of a stream has read all, or left. */
void work_on_closed(struct sink *s, bool is_complete)
{
	struct work *c = CONTAINER_OF(s, struct work, sink);

	work_count(c, !is_complete);
	c->q = NULL;
	sink_done(s);
	if (c->call && is_complete && c->chunk && chunk_is_done(c->chunk))
		linger(c);
	else
		call_cancel(TAKE(c->call));
	work_release(c);
}

void work_on_stopping(struct sink *s)
{
	struct work *c = CONTAINER_OF(s, struct work, sink);
	struct err e = { 0 };

	call_cancel(TAKE(c->call));
	(void)err_set(&e, E_DRAINING, "the node is stopping");
	work_fail_err(c, &e);
}

/* ---- the runner's side ---- */

static void on_start(void *ctx, const struct agent *agent, bool is_stream)
{
	struct work *c = ctx;
	struct err e = { 0 };
	struct completion_opts o = { .model = c->job.request_model, .id = slice_str(c->id), .created_s = clock_wall_ms() / 1000 };

	c->agent = agent;
	if (is_stream && !c->job.is_stream && !c->job.is_ollama && completion_new(&o, WORK_REPLY_MAX, &c->join, &e))
		work_fail_err(c, &e);
}

static void end_stream(struct work *c)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc = chunk_finish(c->chunk, &c->sink.out, &ce, &e);

	if (rc == E_UPSTREAM) {
		work_fail_chat(c, &ce);
		return;
	}
	if (rc) {
		work_fail_err(c, &e);
		return;
	}
	work_finish_stream(c);
}

static void end_join(struct work *c)
{
	work_finish_plain(c);           /* completion_finish is part of it, on the pool when large */
}

/* The call is told to stop: it is gone when this returns to it. */
static enum call_take stop(struct work *c, enum errc rc, const struct chat_error *ce, const struct err *e)
{
	c->call = NULL;
	c->sink.call = NULL;
	if (rc == E_UPSTREAM)
		work_fail_chat(c, ce);
	else
		work_fail_err(c, e);
	return CALL_STOP;
}

static enum call_take event_to_stream(struct work *c, const struct sse_event *ev)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc = chunk_event(c->chunk, ev, &c->sink.out, &ce, &e);

	if (rc)
		return stop(c, rc, &ce, &e);
	if (!chunk_is_done(c->chunk))
		return sink_push(&c->sink);
	end_stream(c);
	return CALL_MORE;
}

static enum call_take event_to_join(struct work *c, const struct sse_event *ev)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc = completion_event(c->join, ev, &ce, &e);

	if (rc)
		return stop(c, rc, &ce, &e);
	if (completion_is_done(c->join)) {
		end_join(c);
		linger(c);
	}
	return CALL_MORE;
}

static enum call_take on_event(void *ctx, const struct sse_event *ev)
{
	struct work *c = ctx;
	enum call_take take = CALL_MORE;

	if (c->is_answered || c->is_on_pool)
		return CALL_MORE;               /* after [DONE]: what a runner may still say is nobody's */
	if (c->chunk) {
		take = event_to_stream(c, ev);
	} else if (c->join) {
		take = event_to_join(c, ev);
	} else {
		c->call = NULL;                 /* no memory for a join, or a raw job that is answered by a stream */
		take = CALL_STOP;
		(void)err_set(&c->out_err, E_UPSTREAM, "the runner answered with a stream that was not asked for");
		work_fail_err(c, &c->out_err);
	}
	if (take == CALL_STOP)
		work_release(c);
	return take;
}

static void on_reply(void *ctx, struct buf *reply)
{
	struct slice body = buf_slice(reply);
	struct work *c = ctx;
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc;

	if (!c->job.is_stream) {
		buf_done(&c->reply);
		c->reply = *reply;
		buf_init(reply, WORK_REPLY_MAX);
		rc = E_OK;
	} else if (c->chunk) {
		rc = chunk_from_reply(c->chunk, body, &c->sink.out, &ce, &e);
	} else {
		rc = job_is_ollama_reply(body) ? job_ollama_chunks(&c->job, body, clock_wall_ms(), &c->sink.out, &e) :
		     err_set(&e, E_UPSTREAM, "Ollama answered with something that is no reply");
	}
	if (rc == E_UPSTREAM && c->chunk)
		work_fail_chat(c, &ce);
	else if (rc)
		work_fail_err(c, &e);
}

/* The texts of 1.8 and 3.3 where the protocol has one. */
static void failure_of(struct work *c, const struct call_end *end)
{
	job_error_from_chat(&end->error, &c->failure);
	if (end->rc == E_TIMEOUT)
		(void)!slice_copy(SLICE("Runner timeout exceeded"), c->failure.message, sizeof(c->failure.message));
}

/* Refused before it began: an HTTP status, also for a stream. */
static bool is_refused(const struct work *c, const struct call_end *end)
{
	return !c->sink.is_open && !end->is_started &&
	       (end->rc == E_AT_CAPACITY || end->rc == E_RATE_LIMITED || end->rc == E_BUSY || end->rc == E_DRAINING);
}

static void on_end(void *ctx, const struct call_end *end)
{
	struct work *c = ctx;
	struct err e = { 0 };

	c->call = NULL;
	c->sink.call = NULL;
	if (c->is_answered || c->is_on_pool || !c->q) {
		work_release(c);
		return;
	}
	if (is_refused(c, end)) {
		(void)err_set(&e, end->rc == E_RATE_LIMITED ? E_AT_CAPACITY : end->rc, "%s", end->error.message);
		work_answer_err(c, &e, end->retry_after_s);
	} else if (end->rc) {
		failure_of(c, end);
		work_fail(c);
	} else if (c->chunk) {
		end_stream(c);
	} else if (c->join) {
		end_join(c);
	} else if (c->job.is_stream) {
		work_finish_stream(c);
	} else {
		work_finish_plain(c);
	}
	work_release(c);
}

const struct call_ops work_call_ops = { .on_start = on_start, .on_event = on_event, .on_reply = on_reply, .on_end = on_end };

