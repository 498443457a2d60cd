/*
 * How a direct LLM job ends: its result, its failure, its last frames. Called by the other files of node_job_*.c; on the
 * loop of the connection, but for work_write.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "routes/accounting.h"
#include "routes/chat.h"
#include "routes/node_job_priv.h"

/* ---- end of a job ---- */

void work_release(struct work *c)
{
	if (c->q || c->call || c->is_on_pool || c->is_waiting || c->is_in_handler)
		return;
	loop_timer_cancel(c->ctx->loop, &c->linger);
	chunk_free(c->chunk);
	completion_free(c->join);
	agents_unref(c->agents);
	call_chat_unref(c->cc);
	invocation_done(&c->job);
	token_claims_done(&c->claims);
	secret_done(&c->attached);
	buf_done(&c->body);
	buf_done(&c->reply);
	buf_done(&c->out);
	mem_free(c->id);
	mem_free(c);
}

static int64_t work_latency_ms(const struct work *c)
{
	return clock_mono_ms() - c->started_mono_ms;
}

void work_count(struct work *c, bool is_error)
{
	const struct chat_usage *u = c->chunk ? chunk_usage(c->chunk) : &c->usage;
	struct accounting_entry n = { .agent = c->agent ? c->agent->slug : "", .key_id = "direct", .is_error = is_error,
				      .total_ms = work_latency_ms(c) };

	if (c->is_counted || !c->is_started)
		return;
	c->is_counted = true;
	if (u->is_known) {
		n.prompt_tokens = u->prompt_tokens;
		n.completion_tokens = u->completion_tokens;
	}
	accounting_add(c->ctx->accounting, &n);
}

/* q->reply is filled: the request is no longer ours. */
void work_answer(struct work *c)
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
	work_answer(c);
}

/* ---- results ---- */

/* Any occurrence of the owner's key in a text that goes out (llm-execution.md 1.4). */
static void redact(struct work *c)
{
	struct slice key = secret_slice(&c->attached), text = slice_str(c->failure.message);
	char clean[sizeof(c->failure.message)];
	size_t n = 0;

	if (key.n < 4 || slice_find(text, key) < 0)
		return;
	while (text.n && n + 16 < sizeof(clean)) {
		bool is_hit = slice_starts_with(text, key);

		memcpy(clean + n, is_hit ? "[redacted]" : text.p, is_hit ? 10 : 1);
		n += is_hit ? 10 : 1;
		text = slice_from(text, is_hit ? key.n : 1);
	}
	clean[n] = '\0';
	memcpy(c->failure.message, clean, n + 1);
}

/* THREAD(loop or pool): touches nothing of the request. */
static void work_write(struct work *c)
{
	struct completion_opts o = { .model = c->job.request_model, .id = slice_str(c->id), .created_s = clock_wall_ms() / 1000 };
	struct chat_error ce = { 0 };
	AUTO_BUF fixed = BUF_MAX(WORK_REPLY_MAX);
	struct job_result r = { .job = &c->job, .agent = c->job.is_ollama ? NULL : c->agent, .is_started = c->is_started,
				.is_wrong_node = c->is_wrong_node, .latency_ms = work_latency_ms(c), .now_wall_ms = clock_wall_ms() };
	enum errc rc = E_OK;

	if (!c->is_failed && c->job.is_ollama && !job_is_ollama_reply(buf_slice(&c->reply))) {
		rc = E_UPSTREAM;
		(void)err_set(&c->out_err, E_UPSTREAM, "Ollama answered with something that is no reply");
		chat_error_from_err(&c->out_err, &ce);
	} else if (!c->is_failed && !c->job.is_ollama) {
		rc = c->join ? completion_finish(c->join, &fixed, &c->usage, &ce, &c->out_err) :
			       completion_fix(buf_slice(&c->reply), &o, &fixed, &c->usage, &ce, &c->out_err);
		r.completion = buf_slice(&fixed);
	} else {
		r.completion = buf_slice(&c->reply);
	}
	if (rc == E_UPSTREAM) {
		c->is_failed = true;
		job_error_from_chat(&ce, &c->failure);
		redact(c);
		rc = E_OK;
	}
	r.error = c->is_failed ? &c->failure : NULL;
	r.usage = &c->usage;
	c->out_rc = rc ? rc : job_result_json(&r, &c->out, &c->out_err);
}

static void send_result(struct work *c)
{
	struct reply *rep = &c->q->reply;

	work_count(c, c->is_failed || c->out_rc);
	if (c->out_rc) {
		work_answer_err(c, &c->out_err, 0);
		return;
	}
	buf_done(&rep->body);
	rep->body = c->out;
	buf_init(&c->out, 0);
	rep->status = c->is_failed ? 502 : 200;
	if (c->is_failed)
		reply_retry(rep, rep->status, 0, c->is_started);
	work_answer(c);
}

static void finish_work(struct pool_job *p)     /* THREAD(pool) */
{
	work_write(CONTAINER_OF(p, struct work, pool));
}

static void finish_done(struct loop_msg *m)
{
	struct work *c = CONTAINER_OF(m, struct work, pool.done);

	c->is_on_pool = false;
	if (c->q)
		send_result(c);
	else
		work_count(c, true);
	work_release(c);
}

/* Plain: the result of what is in reply, or of the failure. */
void work_finish_plain(struct work *c)
{
	struct err e = { 0 };

	if (c->reply.n > CHAT_POOL_BYTES || (c->join && completion_size(c->join) > CHAT_POOL_BYTES)) {
		c->pool = (struct pool_job){ .work = finish_work, .loop = c->ctx->loop, .done = { .fn = finish_done } };
		c->is_on_pool = true;
		if (!pool_submit(c->ctx->svc->pool, &c->pool, &e))
			return;
		c->is_on_pool = false;
	}
	work_write(c);
	send_result(c);
}

/* Stream: the last frames. A client that reads no more than the sink holds has been waited for before. */
void work_finish_stream(struct work *c)
{
	struct err e = { 0 };
	enum errc rc = E_OK;

	c->is_answered = true;
	if (c->is_failed)
		rc = job_error_frame(&c->failure, &c->sink.out, &e);
	/* chunk_finish writes [DONE] itself */
	if (!rc && (c->is_failed || c->job.is_ollama))
		rc = buf_add_str(&c->sink.out, "data: [DONE]\n\n", &e);
	if (!rc && !c->sink.is_open)
		rc = sink_open(&c->sink, WORK_CACHE_CONTROL, &e);
	if (rc)
		log_event(LOG_WARN, "job.cut", "reason=no_memory");
	sink_end(&c->sink);
}

/* ---- failure ---- */

/* failure is filled. */
void work_fail(struct work *c)
{
	c->is_failed = true;
	redact(c);
	work_count(c, true);
	if (!c->q || c->is_answered)
		return;
	if (c->job.is_stream)
		work_finish_stream(c);
	else
		work_finish_plain(c);
}

void work_fail_chat(struct work *c, const struct chat_error *ce)
{
	job_error_from_chat(ce, &c->failure);
	work_fail(c);
}

void work_fail_err(struct work *c, const struct err *e)
{
	job_error_from_err(e, &c->failure);
	work_fail(c);
}

