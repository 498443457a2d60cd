/*
 * A chat from its call's first word to its end: events made right by llm/chunk, or joined by llm/completion; failures in
 * the shape and place that they still can have; who leaves, what stops. On the connection's loop.
 */
#include "routes/chat_priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "routes/accounting.h"

#define REPLY_MAX CALL_REPLY_MAX
#define LINGER_MS 1000                 /* a runner that has said [DONE] may close its transfer in this time */

/* ---- end of a chat ---- */

void chat_release(struct chat *c)
{
	if (c->q || c->call || c->is_on_pool || c->is_waiting)
		return;
	loop_timer_cancel(c->ctx->loop, &c->hold);
	chunk_free(c->chunk);
	completion_free(c->join);
	buf_done(&c->reply);
	buf_done(&c->out);
	mem_free(c->out_error);
	agents_unref(c->agents);
	call_chat_unref(c->cc);
	mem_free(c);
}

static void count(struct chat *c, bool is_error)
{
	const struct chat_usage *u = c->chunk ? chunk_usage(c->chunk) : &c->usage;
	struct accounting_entry n = { .agent = c->agent ? c->agent->slug : "", .key_id = c->key_id, .is_error = is_error,
				      .total_ms = loop_now_ms(c->ctx->loop) - c->started_mono_ms };

	if (c->is_counted || !c->agent)
		return;
	c->is_counted = true;
	if (u->is_known) {
		n.prompt_tokens = u->prompt_tokens;
		n.completion_tokens = u->completion_tokens;
	}
	accounting_add(c->ctx->accounting, &n);
}

/* The answer is queued whole: the request is no longer ours. */
static void answer(struct chat *c)
{
	struct req *q = c->q;

	c->q = NULL;
	c->is_answered = true;
	sink_done(&c->sink);
	loop_timer_cancel(c->ctx->loop, &c->hold);
	reply_done(q);
}

/* The answer is whole; the runner may close its transfer in peace, so that the connection can serve again. */
static void linger(struct chat *c)
{
	if (c->call)
		loop_timer_set(c->ctx->loop, &c->hold, loop_now_ms(c->ctx->loop) + LINGER_MS);
}

/* ---- failure ---- */

static int status_of(const struct chat_error *ce)
{
	if (ce->status)
		return ce->status;
	return slice_eq(slice_str(ce->type), SLICE("invalid_request_error")) ? 400 : 502;
}

static void fail_plain(struct chat *c, const struct chat_error *ce, int64_t retry_s, bool is_started)
{
	struct reply *rep = &c->q->reply;
	struct err e = { 0 };

	buf_clear(&rep->body);
	rep->status = status_of(ce);
	if (chat_error_json(ce, &rep->body, &e))
		buf_clear(&rep->body);
	reply_retry(rep, rep->status, retry_s, is_started);
	answer(c);
}

static void fail(struct chat *c, const struct chat_error *ce, int64_t retry_s, bool is_started)
{
	struct err e = { 0 };

	count(c, true);
	if (!c->q || c->is_answered)
		return;
	if (!c->sink.is_open) {
		fail_plain(c, ce, retry_s, is_started);
		return;
	}
	c->is_answered = true;
	if (buf_add_str(&c->sink.out, "data: ", &e) || chat_error_json(ce, &c->sink.out, &e) || buf_add_str(&c->sink.out, "\n\n", &e))
		log_event(LOG_WARN, "chat.cut", "reason=no_memory");
	sink_end(&c->sink);
}

void chat_fail_err(struct chat *c, const struct err *e)
{
	struct chat_error ce;

	chat_error_from_err(e, &ce);
	fail(c, &ce, 0, c->agent != NULL);
}

/* ---- the client's side ---- */

void chat_on_hold(struct loop_timer *t)
{
	struct chat *c = CONTAINER_OF(t, struct chat, hold);
	struct err e = { 0 };

	/* The runner did not let go in time. A plain answer has no status to hold: it may still be on the pool. */
	if (!c->q || !c->cc->chat.is_stream) {
		call_cancel(TAKE(c->call));
		chat_release(c);
		return;
	}
	if (c->sink.is_open || c->is_answered)
		return;
	if (buf_add_str(&c->sink.out, ": waiting for the runner\n\n", &e) || sink_open(&c->sink, "no-cache", &e))
		chat_fail_err(c, &e);
}

/* The client of a waiting request has left: the work stops. */
void chat_on_gone(struct req *q)
{
	struct chat *c = q->handler_state;

	c->q = NULL;
	sink_done(&c->sink);
	call_cancel(TAKE(c->call));
	if (!c->is_on_pool)                     /* the pool may be writing usage: counted when it is through */
		count(c, true);
	if (c->is_waiting && inventory_wait_cancel(c->ctx->svc->inventory, &c->wait))
		c->is_waiting = false;
	chat_release(c);
}

/* The client of a stream has read all, or left. A runner that has said its last word may close in peace. */
void chat_on_closed(struct sink *s, bool is_complete)
{
	struct chat *c = CONTAINER_OF(s, struct chat, sink);

	count(c, !is_complete);
	c->q = NULL;
	sink_done(s);
	if (is_complete && c->chunk && chunk_is_done(c->chunk))
		linger(c);
	else
		call_cancel(TAKE(c->call));
	chat_release(c);
}

void chat_on_stopping(struct sink *s)
{
	struct chat *c = CONTAINER_OF(s, struct chat, sink);
	struct err e = { 0 };

	call_cancel(TAKE(c->call));
	err_set(&e, E_DRAINING, "the node is stopping");
	chat_fail_err(c, &e);
}

/* ---- the runner's side ---- */

static void on_start(void *ctx, const struct agent *agent, bool is_stream)
{
	struct chat *c = ctx;
	struct err e = { 0 };
	struct completion_opts o = { .model = slice_str(c->cc->chat.model), .created_s = clock_wall_ms() / 1000 };

	c->agent = agent;
	if (!c->cc->chat.is_stream && is_stream && completion_new(&o, REPLY_MAX, &c->join, &e))
		chat_fail_err(c, &e);
}

/* All of the stream is in out: end it. */
static void end_stream(struct chat *c)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc = chunk_finish(c->chunk, &c->sink.out, &ce, &e);

	if (!rc && !c->sink.is_open)
		rc = sink_open(&c->sink, "no-cache", &e);
	if (rc == E_UPSTREAM) {
		fail(c, &ce, 0, true);
		return;
	}
	if (rc) {
		chat_fail_err(c, &e);
		return;
	}
	c->is_answered = true;
	sink_end(&c->sink);
}

static enum call_take event_to_stream(struct chat *c, const struct sse_event *ev)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc = chunk_event(c->chunk, ev, &c->sink.out, &ce, &e);

	if (!rc && c->sink.out.n && !c->sink.is_open)
		rc = sink_open(&c->sink, "no-cache", &e);
	if (rc) {
		c->call = NULL;
		if (rc == E_UPSTREAM)
			fail(c, &ce, 0, true);
		else
			chat_fail_err(c, &e);
		return CALL_STOP;
	}
	if (!chunk_is_done(c->chunk))
		return sink_push(&c->sink);
	end_stream(c);
	linger(c);
	return CALL_MORE;
}

/* The plain answer is written: rc, *ce and e say how that went. */
static void send_plain(struct chat *c, enum errc rc, const struct chat_error *ce, const struct err *e)
{
	if (rc == E_UPSTREAM) {
		fail(c, ce, 0, true);
	} else if (rc) {
		chat_fail_err(c, e);
	} else {
		buf_done(&c->q->reply.body);
		c->q->reply.body = c->out;
		buf_init(&c->out, REPLY_MAX);
		count(c, false);
		answer(c);
	}
}

/* THREAD(loop or pool): touches nothing of the request. */
static enum errc write_plain(struct chat *c, struct chat_error *ce, struct err *e)
{
	struct completion_opts o = { .model = slice_str(c->cc->chat.model), .created_s = clock_wall_ms() / 1000 };

	buf_init(&c->out, 2 * REPLY_MAX);
	if (c->join)
		return completion_finish(c->join, &c->out, &c->usage, ce, e);
	return completion_fix(buf_slice(&c->reply), &o, &c->out, &c->usage, ce, e);
}

static void write_work(struct pool_job *p)     /* THREAD(pool) */
{
	struct chat *c = CONTAINER_OF(p, struct chat, pool);

	c->pool_rc = write_plain(c, c->out_error, &c->pool_err);
}

static void write_done(struct loop_msg *m)
{
	struct chat *c = CONTAINER_OF(m, struct chat, pool.done);

	c->is_on_pool = false;
	if (c->q)
		send_plain(c, c->pool_rc, c->out_error, &c->pool_err);
	else
		count(c, true);
	chat_release(c);
}

/* Everything for a plain answer is there: write it, on the pool when it is large. */
static void end_plain(struct chat *c)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc;

	if (c->is_on_pool)
		return;
	if (c->reply.n > CHAT_POOL_BYTES || (c->join && completion_size(c->join) > CHAT_POOL_BYTES)) {
		c->out_error = NEW(struct chat_error);
		c->pool = (struct pool_job){ .work = write_work, .loop = c->ctx->loop, .done = { .fn = write_done } };
		if (c->out_error && !pool_submit(c->ctx->svc->pool, &c->pool, &e)) {
			c->is_on_pool = true;
			return;
		}
	}
	rc = write_plain(c, &ce, &e);
	send_plain(c, rc, &ce, &e);
}

static enum call_take event_to_join(struct chat *c, const struct sse_event *ev)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc = completion_event(c->join, ev, &ce, &e);

	if (rc) {
		c->call = NULL;
		if (rc == E_UPSTREAM)
			fail(c, &ce, 0, true);
		else
			chat_fail_err(c, &e);
		return CALL_STOP;
	}
	if (completion_is_done(c->join)) {
		end_plain(c);
		linger(c);
	}
	return CALL_MORE;
}

static enum call_take on_event(void *ctx, const struct sse_event *ev)
{
	struct chat *c = ctx;
	enum call_take take;

	if (c->is_answered || c->is_on_pool)
		return CALL_MORE;               /* after [DONE]: what a runner may still say is nobody's */
	if (!c->chunk && !c->join) {            /* no memory for it: failed in on_start */
		c->call = NULL;
		take = CALL_STOP;
	} else {
		take = c->chunk ? event_to_stream(c, ev) : event_to_join(c, ev);
	}
	if (take == CALL_STOP)
		chat_release(c);
	return take;
}

static void on_reply(void *ctx, struct buf *reply)
{
	struct chat *c = ctx;
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc;

	if (!c->chunk) {
		c->reply = *reply;
		buf_init(reply, REPLY_MAX);
		return;                         /* written by on_end, which follows */
	}
	rc = chunk_from_reply(c->chunk, buf_slice(reply), &c->sink.out, &ce, &e);
	if (rc == E_UPSTREAM)
		fail(c, &ce, 0, true);
	else if (rc)
		chat_fail_err(c, &e);
}

static void on_end(void *ctx, const struct call_end *end)
{
	struct chat *c = ctx;

	c->call = NULL;
	c->sink.call = NULL;
	if (c->is_answered || c->is_on_pool || !c->q) {
		chat_release(c);
		return;
	}
	if (end->rc)
		fail(c, &end->error, end->retry_after_s, end->is_started);
	else if (c->chunk)
		end_stream(c);
	else
		end_plain(c);
	chat_release(c);
}

const struct call_ops chat_call_ops = { .on_start = on_start, .on_event = on_event, .on_reply = on_reply, .on_end = on_end };
