/*
 * Invocation jobs around their run: from the text to the chosen agent, the result, the end. See invoke.h.
 * Called by routes/node_job_*.c and gateway/relay.c, on their loop; what runs on the pool says so.
 */
#include "llm/invoke_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#define RESULT_MAX (2u * INVOKE_REPLY_MAX)  /* escapes and, on the raw path, the reply twice */
#define EXTRA_MAX (32u << 20)               /* chunks that travel in the result */

/* ---- end ---- */

void invoke_release(struct invoke *v)
{
	if (!v->is_freed || v->call || v->is_on_pool || v->is_waiting || v->holds)
		return;
	loop_timer_cancel(v->env.call.loop, &v->linger);
	chunk_free(v->chunk);
	completion_free(v->join);
	agents_unref(v->agents);
	call_chat_unref(v->cc);
	invocation_done(&v->job);
	secret_done(&v->attached);
	buf_done(&v->text);
	buf_done(&v->reply);
	buf_done(&v->result);
	buf_done(&v->node_id);
	buf_done(&v->stream_events);
	mem_free(v->id);
	mem_free(v);
}

void invoke_free(struct invoke *v)
{
	if (!v || v->is_freed)
		return;
	v->is_freed = true;
	/* In an event the call is told by the answer. One that said [DONE] may close in peace. */
	if (!v->is_in_event && !(v->is_over && v->linger.heap_pos))
		call_cancel(TAKE(v->call));
	if (v->is_waiting && inventory_wait_cancel(v->env.inventory, &v->wait))
		v->is_waiting = false;
	invoke_release(v);
}

void invoke_finish(struct invoke *v, enum invoke_how how, const struct err *e, int64_t retry_after_s)
{
	v->is_over = true;
	if (v->is_freed)
		return;
	v->holds++;
	v->ops->on_end(v->ctx, how, e, retry_after_s);
	v->holds--;
}

/* Any occurrence of the owner's key in a text that goes out (llm-execution.md 1.4). */
void invoke_redact(struct invoke *v)
{
	struct slice key = secret_slice(&v->attached), text = slice_str(v->failure.message);
	char clean[sizeof(v->failure.message)];
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
	memcpy(v->failure.message, clean, n + 1);
}

void invoke_fail(struct invoke *v)
{
	v->is_failed = true;
	invoke_redact(v);
	invoke_finish(v, INVOKE_FAILED, NULL, 0);
}

void invoke_fail_err(struct invoke *v, const struct err *e)
{
	job_error_from_err(e, &v->failure);
	invoke_fail(v);
}

void invoke_abort(struct invoke *v, const struct err *e)
{
	if (v->is_over)
		return;
	must(!v->is_in_event);
	call_cancel(TAKE(v->call));
	if (v->is_waiting && inventory_wait_cancel(v->env.inventory, &v->wait))
		v->is_waiting = false;
	v->holds++;
	invoke_fail_err(v, e);
	v->holds--;
	invoke_release(v);
}

int64_t invoke_latency_ms(const struct invoke *v)
{
	return clock_mono_ms() - v->started_mono_ms;
}

const struct chat_usage *invoke_usage(const struct invoke *v)
{
	static const struct chat_usage unknown;

	if (v->is_on_pool)
		return &unknown;
	return v->chunk ? chunk_usage(v->chunk) : &v->usage;
}

const char *invoke_failure(const struct invoke *v)
{
	return v->is_on_pool || !v->is_failed ? NULL : v->failure.code;
}

/* ---- up to the run ---- */

/* THREAD(loop or pool): the request for the runner. */
static enum errc build_request(struct invoke *v, struct err *e)
{
	struct buf text = BUF_MAX(v->text.n * 6 + 4096);   /* an invalid byte becomes U+FFFD, a control byte six */
	int64_t cap = v->env.call.cfg->max_output_tokens;
	enum errc rc;

	/* On the agent path chat_build applies the owner's cap; the raw request has no other place for it. */
	if (v->job.is_ollama && cap > 0 && (v->job.max_output_tokens < 0 || v->job.max_output_tokens > cap))
		v->job.max_output_tokens = cap;
	rc = v->job.is_ollama ? invocation_ollama_body(&v->job, &text, e) : invocation_chat_body(&v->job, &text, e);
	if (!rc)
		rc = call_chat_new(&text, &v->cc, e);
	if (!rc && !v->job.is_ollama)
		rc = chat_parse(buf_slice(&v->cc->text), &v->cc->chat, e);
	buf_done(&text);
	return rc;
}

static enum errc make_id(struct invoke *v, struct err *e)
{
	AUTO_BUF id = BUF_MAX(v->job.request_id.n + 16);
	enum errc rc = buf_add_str(&id, "chatcmpl-", e);

	if (!rc)
		rc = buf_add_slice(&id, v->job.request_id, e);
	if (!rc)
		v->id = buf_take(&id, NULL);
	return rc ? rc : v->id ? E_OK : err_set(e, E_NO_MEMORY, "no memory for a job");
}

/* THREAD(loop or pool): all that needs neither the caller nor the agents. */
static void prepare(struct invoke *v)
{
	v->prep_rc = invocation_parse(buf_slice(&v->text), &v->job, &v->prep_err);
	if (!v->prep_rc && v->ops->claims)
		v->prep_rc = v->ops->claims(v->ctx, &v->job, &v->prep_err);
	if (!v->prep_rc)
		v->prep_rc = make_id(v, &v->prep_err);
	if (v->prep_rc)
		return;
	v->is_sound = invocation_check(&v->job, slice_str(v->env.node_id), &v->failure, &v->is_wrong_node);
	if (v->is_sound)
		v->chat_rc = build_request(v, &v->chat_err);
}

/* The agent, by the rules of its path; false: failure is filled. */
static bool choose_agent(struct invoke *v)
{
	struct agent_selector s = { .source_agent_slug = v->job.source_agent_slug, .agent_slug = v->job.agent_slug, .model = v->job.model,
				    .request_model = v->job.request_model };
	struct err e = { 0 };

	if (v->job.is_ollama)              /* no strict names here: the model is what is asked for (3.3) */
		s.source_agent_slug = s.agent_slug = slice_of("", 0);
	v->agents = inventory_get(v->env.inventory);
	if (agents_resolve_job(v->agents, &s, &v->agent, &e)) {
		v->agent = NULL;
		if (e.code == E_UNHEALTHY || e.code == E_MODEL_NOT_FOUND)
			inventory_refresh(v->env.inventory);
		job_error_from_err(&e, &v->failure);
		return false;
	}
	if (v->job.is_ollama) {
		if (v->agent->up && v->agent->up->ollama_chat_url)
			return true;
		(void)err_set(&e, E_MODEL_NOT_FOUND, "model %s is not served by Ollama on this node", v->agent->slug);
		job_error_from_err(&e, &v->failure);
		return false;
	}
	return invocation_check_agent(&v->job, v->agent, v->attached.n > 0, &v->failure);
}

static void choose(struct invoke *v)
{
	if (!v->is_sound || !choose_agent(v))
		invoke_fail(v);
	else if (v->chat_rc)
		invoke_fail_err(v, &v->chat_err);
	else
		v->ops->on_ready(v->ctx);
}

static void on_inventory(struct loop_msg *m)
{
	struct invoke *v = CONTAINER_OF(m, struct invoke, wait.msg);

	v->is_waiting = false;
	v->holds++;
	if (!v->is_freed && !v->is_over)
		choose(v);
	v->holds--;
	invoke_release(v);
}

static void prepared(struct invoke *v)
{
	if (v->is_freed || v->is_over)
		return;
	if (v->prep_rc) {
		invoke_finish(v, INVOKE_UNREADABLE, &v->prep_err, 0);
		return;
	}
	v->wait.msg.fn = on_inventory;
	v->wait.loop = v->env.call.loop;
	v->is_waiting = inventory_wait_first(v->env.inventory, &v->wait);
	if (!v->is_waiting)
		choose(v);
}

static void prepare_work(struct pool_job *p)    /* THREAD(pool) */
{
	prepare(CONTAINER_OF(p, struct invoke, pool));
}

static void prepare_done(struct loop_msg *m)
{
	struct pool_job *p = CONTAINER_OF(m, struct pool_job, done);
	struct invoke *v = CONTAINER_OF(p, struct invoke, pool);

	v->is_on_pool = false;
	v->holds++;
	prepared(v);
	v->holds--;
	invoke_release(v);
}

static enum errc to_pool(struct invoke *v, void (*work)(struct pool_job *), void (*done)(struct loop_msg *), struct err *e)
{
	v->pool = (struct pool_job){ .work = work, .loop = v->env.call.loop, .done = { .fn = done } };
	v->is_on_pool = true;
	enum errc rc = pool_submit(v->env.call.pool, &v->pool, e);

	v->is_on_pool = rc == E_OK;
	return rc;
}

enum errc invoke_begin(const struct invoke_env *env, const struct invoke_req *r, struct invoke **ret, struct err *e)
{
	struct invoke *v = NEW(struct invoke);
	enum errc rc = E_OK;

	if (!v || (r->attached_key.n && secret_set(&v->attached, r->attached_key, e))) {
		mem_free(v);
		buf_done(r->take_text);
		return err_set(e, E_NO_MEMORY, "no memory for a job");
	}
	v->env = *env;
	v->ops = r->ops;
	v->ctx = r->ctx;
	v->client = r->client;
	v->frames = r->frames;
	v->wants_join = r->wants_join;
	v->text = *r->take_text;
	buf_init(r->take_text, 0);
	v->started_mono_ms = clock_mono_ms();
	v->linger.fn = invoke_on_linger;
	buf_init(&v->reply, INVOKE_REPLY_MAX);
	buf_init(&v->result, RESULT_MAX);
	buf_init(&v->node_id, 4096);
	buf_init(&v->stream_events, EXTRA_MAX);
	*ret = v;
	v->holds++;
	if (v->text.n > CHAT_POOL_BYTES) {
		rc = to_pool(v, prepare_work, prepare_done, e);
	} else {
		prepare(v);
		prepared(v);
	}
	v->holds--;
	if (rc) {
		*ret = NULL;
		v->is_freed = true;
	}
	invoke_release(v);
	return rc;
}

/* ---- the result ---- */

/* What the runner said, as one completion. THREAD(loop or pool). */
static enum errc complete(struct invoke *v, struct buf *fixed, struct slice *ret, struct chat_error *ce, struct err *e)
{
	struct completion_opts o = { .model = v->job.request_model, .id = slice_str(v->id), .created_s = clock_wall_ms() / 1000 };
	enum errc rc;

	*ret = buf_slice(&v->reply);
	if (v->job.is_ollama && !job_is_ollama_reply(*ret)) {
		(void)err_set(e, E_UPSTREAM, "Ollama answered with something that is no reply");
		chat_error_from_err(e, ce);
		return E_UPSTREAM;
	}
	if (v->job.is_ollama)
		return E_OK;
	rc = v->join ? completion_finish(v->join, fixed, &v->usage, ce, e) : completion_fix(*ret, &o, fixed, &v->usage, ce, e);
	*ret = buf_slice(fixed);
	return rc;
}

/* THREAD(loop or pool): touches nothing of the caller. */
static void write_result(struct invoke *v)
{
	AUTO_BUF fixed = BUF_MAX(INVOKE_REPLY_MAX);
	struct chat_error ce = { 0 };
	struct job_result r = { .job = &v->job, .agent = v->job.is_ollama ? NULL : v->agent, .is_started = v->is_started,
				.is_wrong_node = v->is_wrong_node, .latency_ms = invoke_latency_ms(v), .now_wall_ms = clock_wall_ms(),
				.node_id = buf_slice(&v->node_id), .stream_events = buf_slice(&v->stream_events), .usage = &v->usage };
	enum errc rc = v->is_failed ? E_OK : complete(v, &fixed, &r.completion, &ce, &v->out_err);

	if (rc == E_UPSTREAM) {
		v->is_failed = true;
		job_error_from_chat(&ce, &v->failure);
		invoke_redact(v);
		rc = E_OK;
	}
	r.error = v->is_failed ? &v->failure : NULL;
	v->out_rc = rc ? rc : job_result_json(&r, &v->result, &v->out_err);
}

static void result_work(struct pool_job *p)     /* THREAD(pool) */
{
	write_result(CONTAINER_OF(p, struct invoke, pool));
}

static void tell_result(struct invoke *v)
{
	v->holds++;
	if (!v->is_freed)
		v->ops->on_result(v->ctx, v->out_rc, &v->out_err);
	v->holds--;
	invoke_release(v);
}

static void result_done(struct loop_msg *m)
{
	struct pool_job *p = CONTAINER_OF(m, struct pool_job, done);
	struct invoke *v = CONTAINER_OF(p, struct invoke, pool);

	v->is_on_pool = false;
	tell_result(v);
}

void invoke_result(struct invoke *v, struct slice node_id, struct slice stream_events)
{
	struct err e = { 0 };
	size_t size = v->reply.n + stream_events.n + (v->join ? completion_size(v->join) : 0);
	enum errc rc = buf_add_slice(&v->node_id, node_id, &e);

	if (!rc)
		rc = buf_add_slice(&v->stream_events, stream_events, &e);
	if (rc) {
		v->out_rc = rc;
		v->out_err = e;
		tell_result(v);
		return;
	}
	if (size > CHAT_POOL_BYTES && !to_pool(v, result_work, result_done, &e))
		return;
	write_result(v);
	tell_result(v);
}
