/*
 * Bytes of a streamed answer between a call and its client; see sink.h. Called by the routes that stream and, through
 * the stream's operations, by server/http_reply.c; on the loop of the connection.
 */
#include "routes/sink.h"

static void on_quiet(struct loop_timer *t)
{
	struct sink *s = CONTAINER_OF(t, struct sink, quiet);
	int64_t keep_ms = s->q->ctx->svc->cfg->keep_alive_ms, now = loop_now_ms(s->q->ctx->loop);
	struct err e = { 0 };

	if (now - s->last_mono_ms >= keep_ms) {
		s->last_mono_ms = now;     /* also when the client is slow: a time in the past would fire without a pause */
		if (!s->out.n && !s->is_ended && !buf_add_str(&s->out, ": keep-alive\n\n", &e))
			reply_wake(s->q);
	}
	if (!s->is_ended)
		loop_timer_set(s->q->ctx->loop, t, s->last_mono_ms + keep_ms);
}

static ptrdiff_t sink_read(void *state, char *dst, size_t cap)
{
	struct sink *s = state;
	size_t n = s->out.n < cap ? s->out.n : cap;

	if (!n)
		return s->is_ended ? -1 : 0;
	memcpy(dst, s->out.p, n);
	buf_consume(&s->out, n);
	if (s->is_full && s->out.n <= SINK_LOW_BYTES) {
		s->is_full = false;
		if (s->call)
			call_resume(s->call);
		if (s->drained)
			s->drained(s);
	}
	return (ptrdiff_t)n;
}

static void sink_close(void *state)
{
	struct sink *s = state;

	loop_timer_cancel(s->q->ctx->loop, &s->quiet);
	s->closed(s, s->is_ended && !s->out.n);
}

static void sink_stop(void *state)
{
	struct sink *s = state;

	if (s->is_ended)
		return;
	if (s->stopping)
		s->stopping(s);
	sink_end(s);
}

static const struct stream_ops sink_stream = { .read = sink_read, .close = sink_close, .stop = sink_stop };

void sink_init(struct sink *s, struct req *q, void (*closed)(struct sink *, bool), void (*stopping)(struct sink *))
{
	*s = (struct sink){ .q = q, .closed = closed, .stopping = stopping };
	buf_init(&s->out, SINK_MAX_BYTES);
	s->quiet.fn = on_quiet;
	s->last_mono_ms = loop_now_ms(q->ctx->loop);
}

enum errc sink_open(struct sink *s, const char *cache_control, struct err *e)
{
	struct reply *rep = &s->q->reply;
	enum errc rc = reply_header(rep, "cache-control", cache_control, e);

	if (!rc)
		rc = reply_header(rep, "x-accel-buffering", "no", e);
	if (rc)
		return rc;
	rep->content_type = "text/event-stream; charset=utf-8";
	s->is_open = true;
	s->last_mono_ms = loop_now_ms(s->q->ctx->loop);
	loop_timer_set(s->q->ctx->loop, &s->quiet, s->last_mono_ms + s->q->ctx->svc->cfg->keep_alive_ms);
	reply_stream(s->q, &sink_stream, s);
	return E_OK;
}

enum call_take sink_push(struct sink *s)
{
	s->last_mono_ms = loop_now_ms(s->q->ctx->loop);
	if (s->is_open)
		reply_wake(s->q);
	s->is_full = s->out.n >= SINK_HIGH_BYTES;
	return s->is_full ? CALL_FULL : CALL_MORE;
}

void sink_end(struct sink *s)
{
	s->is_ended = true;
	s->call = NULL;
	if (s->is_open)
		reply_wake(s->q);
}

void sink_done(struct sink *s)
{
	loop_timer_cancel(s->q->ctx->loop, &s->quiet);
	buf_done(&s->out);
}
