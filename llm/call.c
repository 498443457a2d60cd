/*
 * One model call from admission to its end. Called by routes (and later the gateway) on a loop; see call.h.
 *
 * The order of events: ask admission -> prepare (body) -> transfer -> head -> data -> done. Every way out goes through
 * finish(), which gives the slot back first: the next in the queue never waits for a slow client's last bytes.
 */
#include "llm/call_priv.h"

#include "base/config.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>

#define RETRY_AFTER_MAX_S 3600
#define BODY_SLACK 256        /* what a request grows by on its way: options, a longer name */

static void begin_transfer(struct call *c);
static void prepare(struct call *c);

/* ---- chat holder ---- */

enum errc call_chat_new(struct buf *take_text, struct call_chat **ret, struct err *e)
{
	struct call_chat *cc = NEW(struct call_chat);

	if (!cc)
		return err_set(e, E_NO_MEMORY, "no memory for a chat request");
	atomic_init(&cc->refs, 1);
	cc->text = *take_text;
	buf_init(take_text, take_text->max);
	*ret = cc;
	return E_OK;
}

struct call_chat *call_chat_ref(struct call_chat *cc)
{
	atomic_fetch_add_explicit(&cc->refs, 1, memory_order_relaxed);
	return cc;
}

void call_chat_unref(struct call_chat *cc)
{
	if (!cc || atomic_fetch_sub_explicit(&cc->refs, 1, memory_order_acq_rel) != 1)
		return;
	chat_req_done(&cc->chat);
	buf_done(&cc->text);
	mem_free(cc);
}

/* ---- ends ---- */

static void call_free(struct call *c)
{
	loop_timer_cancel(c->env.loop, &c->total);
	admission_leave(c->env.admission, c->ticket);
	buf_done(&c->body);
	buf_done(&c->reply);
	sse_done(&c->sse);
	agents_unref(c->r.agents);
	call_chat_unref(c->r.chat);
	mem_free(c->end);
	mem_free(c);
}

static void stop_transfer(struct call *c)
{
	if (c->xfer)
		httpc_cancel(TAKE(c->xfer));
	demo_cancel(TAKE(c->demo));
}

static void leave(struct call *c)
{
	stop_transfer(c);
	loop_timer_cancel(c->env.loop, &c->total);
	admission_leave(c->env.admission, TAKE(c->ticket));
	c->phase = CALL_ENDED;
}

/* Free now, or when the letter or the pool's work that still points here has come back. */
static void release(struct call *c)
{
	c->is_cancelled = true;
	if (!c->is_on_pool && !c->is_later_posted)
		call_free(c);
}

static void finish(struct call *c, const struct call_end *end)
{
	leave(c);
	c->r.ops->on_end(c->r.ctx, end);
	release(c);
}

static void post_later(struct call *c)
{
	if (c->is_later_posted)
		return;
	c->is_later_posted = true;
	loop_post(c->env.loop, &c->later);
}

static void finish_ok(struct call *c)
{
	struct call_end end = { .rc = E_OK, .is_started = true };

	finish(c, &end);
}

static void finish_err(struct call *c, const struct err *e, int64_t retry_s)
{
	struct call_end end = { .rc = e->code, .is_started = c->is_started, .retry_after_s = retry_s };

	chat_error_from_err(e, &end.error);
	finish(c, &end);
}

/* Callbacks never come from inside call_start: what fails there is told from the loop's next turn. */
static void finish_later(struct call *c, const struct err *e, int64_t retry_s)
{
	struct call_end *end = NEW(struct call_end);

	if (end) {
		*end = (struct call_end){ .rc = e->code, .is_started = c->is_started, .retry_after_s = retry_s };
		chat_error_from_err(e, &end->error);
	}
	c->end = end;
	c->done_err = *e;
	leave(c);
	post_later(c);
}

/* ---- answers ---- */

static void hand_out(struct call *c, const struct sse_event *ev)
{
	switch (c->r.ops->on_event(c->r.ctx, ev)) {
	case CALL_MORE:
		break;
	case CALL_FULL:
		c->is_paused = true;
		break;
	case CALL_STOP:
		leave(c);
		c->is_cancelled = true;
		post_later(c);             /* freed there: the transfer may be in the middle of its callback */
		break;
	}
}

/* Hand out the complete events that are held. False: the caller has no room, or has had enough. */
static bool drain_events(struct call *c)
{
	struct sse_event ev;

	while (!c->is_paused && c->phase != CALL_ENDED && sse_next(&c->sse, &ev))
		hand_out(c, &ev);
	return !c->is_paused && c->phase != CALL_ENDED;
}

static void finish_stream(struct call *c)
{
	struct sse_event ev;

	if (sse_finish(&c->sse, &ev))
		hand_out(c, &ev);
	if (c->phase != CALL_ENDED)
		finish_ok(c);
}

static void fail_stream(struct call *c, const struct err *cause)
{
	struct err e = *cause;

	breaker_fail(&c->agent->up->breaker, loop_now_ms(c->env.loop));
	err_prefix(&e, "the runner's answer broke off");
	finish_err(c, &e, 0);
}

static void on_head(void *ctx, const struct httpc_head *h)
{
	struct call *c = ctx;
	bool is_stream = slice_starts_with_nocase(slice_trim(h->content_type), SLICE("text/event-stream"));

	c->status = h->status;
	if (!slice_to_i64(h->retry_after, 1, RETRY_AFTER_MAX_S, &c->retry_after_s))
		c->retry_after_s = 1;      /* none, a date, or longer than anybody would wait */
	if (h->status >= 500 && h->status != 500)
		breaker_fail(&c->agent->up->breaker, loop_now_ms(c->env.loop));
	else
		breaker_ok(&c->agent->up->breaker);
	if (h->status < 200 || h->status > 299) {
		c->phase = CALL_READING;
		return;
	}
	c->is_started = true;
	c->phase = is_stream ? CALL_STREAMING : CALL_READING;
	c->r.ops->on_start(c->r.ctx, c->agent, is_stream);
}

static bool is_refusal(const struct call *c)
{
	return c->status < 200 || c->status > 299;
}

static enum httpc_take take_reply(struct call *c, struct slice bytes)
{
	struct err e = { 0 };

	if (is_refusal(c)) {
		/* The start of it says what is wrong. */
		(void)!buf_add_slice(&c->reply, slice_cut(bytes, c->reply.max - c->reply.n), &e);
		return HTTPC_TAKEN;
	}
	if (buf_add_slice(&c->reply, bytes, &e)) {
		err_set(&e, E_UPSTREAM, "the runner's reply is over %u bytes", CALL_REPLY_MAX);
		finish_later(c, &e, 0);
	}
	return HTTPC_TAKEN;
}

static enum httpc_take on_data(void *ctx, struct slice bytes)
{
	struct call *c = ctx;
	struct err e = { 0 };

	if (c->phase == CALL_ENDED)
		return HTTPC_TAKEN;
	if (c->phase != CALL_STREAMING)
		return take_reply(c, bytes);
	if (c->is_paused)
		return HTTPC_PAUSE;
	if (sse_feed(&c->sse, bytes, &e)) {
		err_set(&e, E_UPSTREAM, "the runner's stream holds an event over %u bytes", CALL_EVENT_MAX);
		finish_later(c, &e, 0);
		return HTTPC_TAKEN;
	}
	(void)drain_events(c);
	return HTTPC_TAKEN;
}

/* Corpus, llama.cpp b4748: "Cannot use tools with stream", status 500. Ask again for a plain answer, and remember. */
static bool retry_without_stream(struct call *c)
{
	if (!c->asks_stream || !c->r.chat->chat.has_tools || c->status < 400 ||
	    !slice_contains_nocase(buf_slice(&c->reply), SLICE("tools with stream")))
		return false;
	atomic_store(&c->agent->up->refuses_tool_streams, true);
	buf_done(&c->reply);
	c->status = 0;
	prepare(c);
	return true;
}

/* Before a byte of an answer: the next candidate, when there is one. */
static bool try_next(struct call *c)
{
	const struct agent *next;

	c->tried |= 1u << ticket_candidate(c->ticket);
	next = admission_next(c->env.admission, c->ticket, c->tried);
	if (!next)
		return false;
	log_event(LOG_WARN, "call.moved", "from=%s to=%s", c->agent->up->name, next->up->name);
	c->agent = next;
	buf_done(&c->reply);
	c->status = 0;
	prepare(c);
	return true;
}

static void end_refused(struct call *c)
{
	struct call_end end = { .rc = E_UPSTREAM, .is_started = c->status != 503 };

	if (retry_without_stream(c))
		return;
	if (c->status == 503 && try_next(c))
		return;
	chat_error_from_runner(c->status, buf_slice(&c->reply), &end.error);
	if (c->status == 503 || c->status == 429)
		end.retry_after_s = c->retry_after_s;
	finish(c, &end);
}

static void end_done(struct call *c)
{
	if (c->done_rc && c->status) {
		if (is_refusal(c))
			end_refused(c);
		else
			fail_stream(c, &c->done_err);
		return;
	}
	if (c->done_rc) {
		finish_err(c, &c->done_err, 0);
		return;
	}
	if (is_refusal(c)) {
		end_refused(c);
		return;
	}
	if (c->phase == CALL_STREAMING) {
		finish_stream(c);
		return;
	}
	c->r.ops->on_reply(c->r.ctx, &c->reply);
	finish_ok(c);
}

static void on_done(void *ctx, enum errc rc, enum httpc_phase phase, const struct err *e)
{
	struct call *c = ctx;

	c->xfer = NULL;
	c->demo = NULL;
	if (c->phase == CALL_ENDED)
		return;
	c->done_rc = rc;
	if (rc)
		c->done_err = *e;
	if (rc && !c->status) {
		breaker_fail(&c->agent->up->breaker, loop_now_ms(c->env.loop));
		c->is_started = phase != HTTPC_CONNECT;
		if (rc == E_UPSTREAM && try_next(c))
			return;
	}
	if (c->phase == CALL_STREAMING && !drain_events(c)) {
		c->is_done = true;         /* the caller reads first, end_done follows its resume; or it has had enough */
		return;
	}
	end_done(c);
}

static const struct httpc_ops transfer_ops = { .on_head = on_head, .on_data = on_data, .on_done = on_done };

/* ---- asking ---- */

#define CALL_HEADERS_MAX 40

static enum errc start_http(struct call *c, struct err *e)
{
	const struct upstream *up = c->agent->up;
	const char *headers[CALL_HEADERS_MAX + 2];
	size_t n = 0;
	struct httpc_req q = {
		.method = "POST", .url = c->r.is_raw_ollama ? up->ollama_chat_url : up->chat_url, .headers = headers,
		.body = c->r.is_raw_ollama ? buf_slice(&c->r.chat->text) : buf_slice(&c->body),
		.connect_ms = up->connect_ms, .first_byte_ms = up->first_byte_ms, .idle_ms = up->idle_ms,
		.total_ms = up->total_ms, .is_fresh = !upstream_ops(up->kind)->keeps_idle,
		.is_stream = c->asks_stream, .ops = &transfer_ops, .ctx = c,
	};

	for (char **h = up->headers; h && *h && n < CALL_HEADERS_MAX; h++)
		headers[n++] = *h;
	headers[n++] = "content-type: application/json";
	headers[n] = NULL;
	return httpc_start(c->env.client, &q, &c->xfer, e);
}

static void begin_transfer(struct call *c)
{
	struct err e = { 0 };
	enum errc rc;

	c->phase = CALL_WAITING;
	buf_init(&c->reply, CALL_REPLY_MAX);
	if (!breaker_try(&c->agent->up->breaker, loop_now_ms(c->env.loop))) {
		if (try_next(c))
			return;
		err_set(&e, E_UNHEALTHY, "runner %s failed %u times in a row and is left alone for now", c->agent->up->name, BREAKER_FAILURES);
		finish_later(c, &e, 1);
		return;
	}
	if (c->agent->up->kind == UPSTREAM_DEMO)
		rc = demo_start(c->env.loop, &c->r.chat->chat, c->agent->model, c->asks_stream, &transfer_ops, c, &c->demo, &e);
	else
		rc = start_http(c, &e);
	if (rc) {
		breaker_abandon(&c->agent->up->breaker);
		finish_later(c, &e, 0);
	}
}

static enum errc build_body(struct call *c, struct err *e)
{
	struct chat_build b = { .agent = c->agent, .as_stream = c->asks_stream, .owner_max_tokens = c->env.cfg->max_output_tokens };
	size_t room = c->r.chat->text.n + BODY_SLACK;
	char *p;
	enum errc rc;

	buf_done(&c->body);
	buf_init(&c->body, c->r.chat->text.n * 2 + (1u << 20));
	rc = buf_reserve(&c->body, room, &p, e);
	if (rc)
		return rc;
	mem_expect_whole(p, room);
	return chat_build(&c->r.chat->chat, &b, &c->body, e);
}

static void prepare_work(struct pool_job *j)   /* THREAD(pool) */
{
	struct call *c = CONTAINER_OF(j, struct call, prepare);

	c->done_rc = build_body(c, &c->done_err);
}

static void prepare_done(struct loop_msg *m)
{
	struct call *c = CONTAINER_OF(m, struct call, prepare.done);
	enum errc rc = c->done_rc;

	c->is_on_pool = false;
	c->done_rc = E_OK;
	if (c->is_cancelled) {
		call_free(c);
		return;
	}
	if (rc)
		finish_later(c, &c->done_err, 0);
	else
		begin_transfer(c);
}

static void prepare(struct call *c)
{
	struct err e = { 0 };
	bool is_tool_plain = c->r.chat->chat.has_tools && atomic_load(&c->agent->up->refuses_tool_streams);
	enum errc rc;

	c->phase = CALL_PREPARING;
	c->asks_stream = !c->r.is_raw_ollama && !is_tool_plain &&
			 (c->r.wants_stream || upstream_ops(c->agent->up->kind)->joins_streams);
	if (c->r.is_raw_ollama) {
		begin_transfer(c);
		return;
	}
	if (c->r.chat->text.n > CHAT_POOL_BYTES) {
		c->is_on_pool = true;
		rc = pool_submit(c->env.pool, &c->prepare, &e);
		if (!rc)
			return;
		c->is_on_pool = false;
	} else {
		rc = build_body(c, &e);
	}
	if (rc)
		finish_later(c, &e, 0);
	else
		begin_transfer(c);
}

static void on_granted(void *ctx, const struct agent *chosen)
{
	struct call *c = ctx;

	c->agent = chosen;
	prepare(c);
}

static void on_total(struct loop_timer *t)
{
	struct call *c = CONTAINER_OF(t, struct call, total);
	struct err e = { 0 };

	if (c->phase == CALL_ENDED || c->is_on_pool) {
		loop_timer_set(c->env.loop, t, loop_now_ms(c->env.loop) + 10);
		return;
	}
	if (c->phase == CALL_WAITING)
		breaker_abandon(&c->agent->up->breaker);
	err_set(&e, E_TIMEOUT, "timeout: the call took longer than %lld ms", (long long)c->r.total_ms);
	finish_err(c, &e, 0);
}

/* The letter to oneself: a deferred end, or the rest of the events after a pause. */
static void on_later(struct loop_msg *m)
{
	struct call *c = CONTAINER_OF(m, struct call, later);

	c->is_later_posted = false;
	if (c->is_cancelled) {
		call_free(c);
		return;
	}
	if (c->phase == CALL_ENDED) {
		struct call_end none = { .rc = c->done_err.code, .is_started = c->is_started };

		if (!c->end)
			chat_error_from_err(&c->done_err, &none.error);
		c->r.ops->on_end(c->r.ctx, c->end ? c->end : &none);
		call_free(c);
		return;
	}
	if (c->phase == CALL_STREAMING && !drain_events(c))
		return;
	if (c->is_done)
		end_done(c);
	else if (c->xfer)
		httpc_resume(c->xfer);
	else if (c->demo)
		demo_resume(c->demo);
}

enum errc call_start(const struct call_env *env, const struct call_req *r, struct call **ret, struct err *e)
{
	struct call *c = NEW(struct call);
	struct admission_ask ask;
	int64_t retry_s = 0;

	if (!c)
		return err_set(e, E_NO_MEMORY, "no memory for a model call");
	c->env = *env;
	c->r = *r;
	snprintf(c->client, sizeof(c->client), "%s", r->client);
	agents_ref(c->r.agents);
	call_chat_ref(c->r.chat);
	sse_init(&c->sse, CALL_EVENT_MAX);
	buf_init(&c->body, 0);
	buf_init(&c->reply, CALL_REPLY_MAX);
	c->later.fn = on_later;
	c->total.fn = on_total;
	c->prepare.work = prepare_work;
	c->prepare.loop = env->loop;
	c->prepare.done.fn = prepare_done;
	c->phase = CALL_QUEUED;
	if (r->total_ms > 0)
		loop_timer_set(env->loop, &c->total, loop_now_ms(env->loop) + r->total_ms);
	ask = (struct admission_ask){ .class = r->class, .client = c->client, .client_max = r->client_max,
		.candidates = c->r.candidates, .candidate_count = r->candidate_count, .loop = env->loop,
		.granted = on_granted, .ctx = c };
	*ret = c;
	if (admission_ask(env->admission, &ask, &c->ticket, &c->agent, &retry_s, e)) {
		finish_later(c, e, retry_s);
		return E_OK;
	}
	if (c->agent)
		prepare(c);
	return E_OK;
}

void call_cancel(struct call *c)
{
	if (!c)
		return;
	if (c->phase == CALL_WAITING && c->agent)
		breaker_abandon(&c->agent->up->breaker);
	leave(c);
	release(c);
}

void call_resume(struct call *c)
{
	if (!c->is_paused)
		return;
	c->is_paused = false;
	post_later(c);
}

enum call_phase call_phase(const struct call *c)
{
	return c->phase;
}
