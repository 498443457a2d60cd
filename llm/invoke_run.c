/*
 * An invocation job while it runs: what the runner says becomes frames, a joined completion, or a reply; how it ends.
 * Called by invoke.c and, through the call's operations, by call.c; on the job's loop.
 */
#include "llm/invoke_priv.h"

#include "base/clock.h"

#define LINGER_MS 1000                 /* a runner that has said [DONE] may close its transfer in this time */

void invoke_on_linger(struct loop_timer *t)
{
	struct invoke *v = CONTAINER_OF(t, struct invoke, linger);

	call_cancel(TAKE(v->call));
	invoke_release(v);
}

static void linger(struct invoke *v)
{
	loop_timer_set(v->env.call.loop, &v->linger, loop_now_ms(v->env.call.loop) + LINGER_MS);
}

static void fail_chat(struct invoke *v, const struct chat_error *ce)
{
	job_error_from_chat(ce, &v->failure);
	invoke_fail(v);
}

static void fail_by(struct invoke *v, enum errc rc, const struct chat_error *ce, const struct err *e)
{
	if (rc == E_UPSTREAM)
		fail_chat(v, ce);
	else
		invoke_fail_err(v, e);
}

/* ---- the runner's side ---- */

static void on_start(void *ctx, const struct agent *agent, bool is_stream)
{
	struct invoke *v = ctx;
	struct err e = { 0 };
	struct completion_opts o = { .model = v->job.request_model, .id = slice_str(v->id), .created_s = clock_wall_ms() / 1000 };

	v->agent = agent;
	if (v->is_freed || v->is_over || !is_stream || v->job.is_ollama || (v->job.is_stream && !v->wants_join))
		return;
	if (completion_new(&o, INVOKE_REPLY_MAX, &v->join, &e))
		invoke_fail_err(v, &e);
}

static void end_stream(struct invoke *v)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc = chunk_finish(v->chunk, v->frames, &ce, &e);

	if (rc)
		fail_by(v, rc, &ce, &e);
	else
		invoke_finish(v, INVOKE_DONE, NULL, 0);
}

static enum call_take take_event(struct invoke *v, const struct sse_event *ev)
{
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc = E_OK;

	if (!v->chunk && !v->join) {
		(void)err_set(&e, E_UPSTREAM, "the runner answered with a stream that was not asked for");
		invoke_fail_err(v, &e);
		return CALL_STOP;
	}
	if (v->chunk)
		rc = chunk_event(v->chunk, ev, v->frames, &ce, &e);
	if (!rc && v->join)
		rc = completion_event(v->join, ev, &ce, &e);
	if (rc) {
		fail_by(v, rc, &ce, &e);
		return CALL_STOP;
	}
	if (v->chunk && !chunk_is_done(v->chunk))
		return v->ops->on_frames(v->ctx);
	if (!v->chunk && !completion_is_done(v->join))
		return CALL_MORE;
	if (v->chunk)
		end_stream(v);
	else
		invoke_finish(v, INVOKE_DONE, NULL, 0);
	if (v->is_failed)
		return CALL_STOP;
	linger(v);
	return CALL_MORE;
}

static enum call_take on_event(void *ctx, const struct sse_event *ev)
{
	struct invoke *v = ctx;
	enum call_take take = CALL_MORE;

	if (v->is_over && v->is_failed) {
		v->call = NULL;
		take = CALL_STOP;
	} else if (!v->is_over) {          /* after [DONE]: what a runner may still say is nobody's */
		v->is_in_event = true;
		v->holds++;
		take = take_event(v, ev);
		v->holds--;
		v->is_in_event = false;
		if (v->is_freed && !(v->is_over && v->linger.heap_pos))
			take = CALL_STOP;
		if (take == CALL_STOP)
			v->call = NULL;
	}
	invoke_release(v);
	return take;
}

/* A stream's frames from a plain reply. */
static enum errc frames_of_reply(struct invoke *v, struct chat_error *ce, struct err *e)
{
	struct slice body = buf_slice(&v->reply);

	if (v->chunk)
		return chunk_from_reply(v->chunk, body, v->frames, ce, e);
	if (job_is_ollama_reply(body))
		return job_ollama_chunks(&v->job, body, clock_wall_ms(), v->frames, e);
	(void)err_set(e, E_UPSTREAM, "Ollama answered with something that is no reply");
	chat_error_from_err(e, ce);
	return E_UPSTREAM;
}

static void on_reply(void *ctx, struct buf *reply)
{
	struct invoke *v = ctx;
	struct chat_error ce = { 0 };
	struct err e = { 0 };
	enum errc rc;

	if (v->is_over || v->is_freed)
		return;
	buf_done(&v->reply);
	v->reply = *reply;
	buf_init(reply, INVOKE_REPLY_MAX);
	if (!v->job.is_stream)
		return;
	v->holds++;
	rc = frames_of_reply(v, &ce, &e);
	if (rc)
		fail_by(v, rc, &ce, &e);
	else
		(void)v->ops->on_frames(v->ctx);
	v->holds--;
}

/* Refused before it began, not failed. */
static bool is_refused_by(const struct call_end *end)
{
	return !end->is_started && (end->rc == E_AT_CAPACITY || end->rc == E_RATE_LIMITED || end->rc == E_BUSY || end->rc == E_DRAINING);
}

static void on_end(void *ctx, const struct call_end *end)
{
	struct invoke *v = ctx;
	struct err e = { 0 };

	v->call = NULL;
	loop_timer_cancel(v->env.call.loop, &v->linger);
	v->holds++;
	if (!v->is_over && !v->is_freed) {
		if (end->rc) {
			job_error_from_chat(&end->error, &v->failure);
			if (end->rc == E_TIMEOUT)          /* the text of 1.8 and 3.3 */
				(void)!slice_copy(SLICE("Runner timeout exceeded"), v->failure.message, sizeof(v->failure.message));
		}
		if (end->rc && is_refused_by(end)) {
			v->is_failed = true;
			invoke_redact(v);
			(void)err_set(&e, end->rc == E_RATE_LIMITED ? E_AT_CAPACITY : end->rc, "%s", end->error.message);
			invoke_finish(v, INVOKE_REFUSED, &e, end->retry_after_s);
		} else if (end->rc) {
			invoke_fail(v);
		} else if (v->chunk) {
			end_stream(v);
		} else {
			invoke_finish(v, INVOKE_DONE, NULL, 0);
		}
	}
	v->holds--;
	invoke_release(v);
}

static const struct call_ops run_ops = { .on_start = on_start, .on_event = on_event, .on_reply = on_reply, .on_end = on_end };

/* ---- the caller's side ---- */

static enum errc start_call(struct invoke *v, struct err *e)
{
	const struct call_env *env = &v->env.call;
	struct call_req r = { .chat = v->cc, .is_raw_ollama = v->job.is_ollama, .agents = v->agents, .candidates = { v->agent },
			      .candidate_count = 1, .wants_stream = v->job.is_stream && !v->job.is_ollama, .class = ADMIT_JOB,
			      .client = v->client, .total_ms = invocation_limit_ms(&v->job, env->cfg->job_timeout_ms),
			      .ops = &run_ops, .ctx = v };
	struct chunk_opts o = { .model = v->job.request_model, .id = slice_str(v->id), .created_s = clock_wall_ms() / 1000 };
	enum errc rc = E_OK;

	if (!v->agent->up)
		return err_set(e, E_UPSTREAM, "Unknown provider: %s", v->agent->provider);
	if (r.wants_stream)
		rc = chunk_new(&o, &v->chunk, e);
	return rc ? rc : call_start(env, &r, &v->call, e);
}

void invoke_run(struct invoke *v)
{
	struct err e = { 0 };

	v->is_started = true;
	if (start_call(v, &e)) {
		v->holds++;
		invoke_fail_err(v, &e);
		v->holds--;
		invoke_release(v);
	}
}

bool invoke_is_refused(const struct invoke *v)
{
	return v->call && call_phase(v->call) == CALL_ENDED;
}

void invoke_resume(struct invoke *v)
{
	if (v->call)
		call_resume(v->call);
}
