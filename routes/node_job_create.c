/*
 * POST /v1/swarm/self-hosted/node/jobs (R3): one invocation job of a gateway or a direct caller, plain or as a stream.
 *
 * gates -> prepare (parse, claims, request body; on the pool when large) -> first inventory -> agent -> call -> result.
 * A stream's head goes out as soon as the job is admitted, and then every outcome is status 200 and ends with [DONE]; a
 * plain job answers 200 or 502 with the result. A caller who leaves stops the work. On the connection's loop.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "routes/node_job_priv.h"

#define RESULT_MAX (2u * WORK_REPLY_MAX)    /* escapes and, on the raw path, the reply twice */

/* ---- start ---- */

/* THREAD(loop or pool): the request for the runner. */
static enum errc build_request(struct work *c, struct err *e)
{
	struct buf text = BUF_MAX(c->body.n * 6 + 4096);   /* an invalid byte becomes U+FFFD, a control byte six */
	int64_t cap = c->ctx->svc->cfg->max_output_tokens;
	enum errc rc;

	/* On the agent path chat_build applies the owner's cap; the raw request has no other place for it. */
	if (c->job.is_ollama && cap > 0 && (c->job.max_output_tokens < 0 || c->job.max_output_tokens > cap))
		c->job.max_output_tokens = cap;
	rc = c->job.is_ollama ? invocation_ollama_body(&c->job, &text, e) : invocation_chat_body(&c->job, &text, e);
	if (!rc)
		rc = call_chat_new(&text, &c->cc, e);
	if (!rc && !c->job.is_ollama)
		rc = chat_parse(buf_slice(&c->cc->text), &c->cc->chat, e);
	buf_done(&text);
	return rc;
}

/* THREAD(loop or pool): all that needs neither the request nor the agents. */
static void prepare(struct work *c)
{
	c->prep_rc = invocation_parse(buf_slice(&c->body), &c->job, &c->prep_err);
	if (!c->prep_rc)
		c->prep_rc = node_job_claims(&c->claims, &c->job, &c->prep_err);
	if (c->prep_rc)
		return;
	c->is_sound = invocation_check(&c->job, slice_str(c->ctx->svc->node_id), &c->failure, &c->is_wrong_node);
	if (c->is_sound)
		c->chat_rc = build_request(c, &c->chat_err);
}

/* The agent, by the rules of its path; false: failure is filled. */
static bool choose_agent(struct work *c)
{
	struct agent_selector s = { .source_agent_slug = c->job.source_agent_slug, .agent_slug = c->job.agent_slug, .model = c->job.model,
				    .request_model = c->job.request_model };
	struct err e = { 0 };

	if (c->job.is_ollama)              /* no strict names here: the model is what is asked for (3.3) */
		s.source_agent_slug = s.agent_slug = slice_of("", 0);
	c->agents = inventory_get(c->ctx->svc->inventory);
	if (agents_resolve_job(c->agents, &s, &c->agent, &e)) {
		c->agent = NULL;
		if (e.code == E_UNHEALTHY || e.code == E_MODEL_NOT_FOUND)
			inventory_refresh(c->ctx->svc->inventory);
		job_error_from_err(&e, &c->failure);
		return false;
	}
	if (c->job.is_ollama) {
		if (c->agent->up && c->agent->up->ollama_chat_url)
			return true;
		(void)err_set(&e, E_MODEL_NOT_FOUND, "model %s is not served by Ollama on this node", c->agent->slug);
		job_error_from_err(&e, &c->failure);
		return false;
	}
	return invocation_check_agent(&c->job, c->agent, c->attached.n > 0, &c->failure);
}

static enum errc start_call(struct work *c, struct err *e)
{
	struct svc *svc = c->ctx->svc;
	struct call_env env = { .loop = c->ctx->loop, .client = c->ctx->client, .admission = svc->admission, .pool = svc->pool, .cfg = svc->cfg };
	struct call_req r = { .chat = c->cc, .is_raw_ollama = c->job.is_ollama, .agents = c->agents, .candidates = { c->agent },
			      .candidate_count = 1, .wants_stream = c->job.is_stream && !c->job.is_ollama, .class = ADMIT_JOB,
			      .client = "direct", .total_ms = invocation_limit_ms(&c->job, svc->cfg->job_timeout_ms),
			      .ops = &work_call_ops, .ctx = c };
	struct chunk_opts o = { .model = c->job.request_model, .id = slice_str(c->id), .created_s = clock_wall_ms() / 1000 };
	enum errc rc = E_OK;

	if (!c->agent->up)
		return err_set(e, E_UPSTREAM, "Unknown provider: %s", c->agent->provider);
	if (r.wants_stream)
		rc = chunk_new(&o, &c->chunk, e);
	return rc ? rc : call_start(&env, &r, &c->call, e);
}

/* What is known at once is told before a head goes out: then capacity has a status of its own. */
static void open_stream(struct work *c)
{
	struct err e = { 0 };

	c->sink.call = c->call;
	if (!c->job.is_stream || call_phase(c->call) == CALL_ENDED)
		return;
	if (sink_open(&c->sink, WORK_CACHE_CONTROL, &e)) {
		call_cancel(TAKE(c->call));
		work_answer_err(c, &e, 0);
	}
}

static void begin(struct work *c)
{
	struct err e = { 0 };

	if (!c->is_sound || !choose_agent(c)) {
		work_fail(c);
		return;
	}
	if (c->chat_rc) {
		work_fail_err(c, &c->chat_err);
		return;
	}
	c->is_started = true;
	if (start_call(c, &e))
		work_fail_err(c, &e);
	else
		open_stream(c);
}

static void on_inventory(struct loop_msg *m)
{
	struct work *c = CONTAINER_OF(m, struct work, wait.msg);

	c->is_waiting = false;
	if (c->q)
		begin(c);
	work_release(c);
}

static enum errc make_id(struct work *c, struct err *e)
{
	AUTO_BUF id = BUF_MAX(c->job.request_id.n + 16);
	enum errc rc = buf_add_str(&id, "chatcmpl-", e);

	if (!rc)
		rc = buf_add_slice(&id, c->job.request_id, e);
	if (!rc)
		c->id = buf_take(&id, NULL);
	return rc ? rc : c->id ? E_OK : err_set(e, E_NO_MEMORY, "no memory for a job");
}

static void note_model(struct req *q, struct slice model)
{
	size_t n = 0;

	for (; n < model.n && n + 1 < sizeof(q->model); n++)
		q->model[n] = (unsigned char)model.p[n] <= ' ' || model.p[n] == '"' || model.p[n] == 0x7f ? '_' : model.p[n];
	q->model[n] = '\0';
}

/* After prepare(), with the request still there. */
static void go_on(struct work *c)
{
	if (c->prep_rc == E_BAD_JSON) {
		node_job_bad_json(&c->q->reply);
		work_answer(c);
		return;
	}
	if (!c->prep_rc)
		c->prep_rc = make_id(c, &c->prep_err);
	if (c->prep_rc) {
		work_answer_err(c, &c->prep_err, 0);
		return;
	}
	note_model(c->q, c->job.request_model);
	c->wait.msg.fn = on_inventory;
	c->wait.loop = c->ctx->loop;
	c->is_waiting = inventory_wait_first(c->ctx->svc->inventory, &c->wait);
	if (!c->is_waiting)
		begin(c);
}

static void prepare_work(struct pool_job *p)    /* THREAD(pool) */
{
	prepare(CONTAINER_OF(p, struct work, pool));
}

static void prepare_done(struct loop_msg *m)
{
	struct work *c = CONTAINER_OF(m, struct work, pool.done);

	c->is_on_pool = false;
	if (c->q)
		go_on(c);
	work_release(c);
}

static enum errc start(struct work *c, struct err *e)
{
	if (c->body.n <= CHAT_POOL_BYTES) {
		prepare(c);
		go_on(c);
		return E_OK;
	}
	c->pool = (struct pool_job){ .work = prepare_work, .loop = c->ctx->loop, .done = { .fn = prepare_done } };
	c->is_on_pool = true;
	if (!pool_submit(c->ctx->svc->pool, &c->pool, e))
		return E_OK;
	c->is_on_pool = false;
	return e->code;
}

static enum errc work_new(struct req *q, struct token_claims *take_claims, struct work **ret, struct err *e)
{
	struct work *c = NEW(struct work);
	struct slice key = node_job_attached_key(q);

	if (!c || (key.n && secret_set(&c->attached, key, e))) {
		mem_free(c);
		return err_set(e, E_NO_MEMORY, "no memory for a job");
	}
	c->ctx = q->ctx;
	c->q = q;
	c->claims = *take_claims;
	*take_claims = (struct token_claims){ 0 };
	c->body = req_take_body(q);
	c->started_mono_ms = q->started_mono_ms;
	c->linger.fn = work_on_linger;
	buf_init(&c->reply, WORK_REPLY_MAX);
	buf_init(&c->out, RESULT_MAX);
	sink_init(&c->sink, q, work_on_closed, work_on_stopping);
	*ret = c;
	return E_OK;
}

enum errc route_node_job_create(struct req *q, struct reply *rep, struct err *e)
{
	struct token_claims claims = { 0 };
	struct work *c = NULL;
	enum errc rc = node_job_gate(q, &claims, e);

	if (rc)
		return rc;
	if (!node_job_media(q, rep, &rc, e)) {
		token_claims_done(&claims);
		return rc;
	}
	rc = work_new(q, &claims, &c, e);
	token_claims_done(&claims);
	if (rc)
		return rc;
	c->is_in_handler = true;
	rc = start(c, e);
	c->is_in_handler = false;
	if (rc) {
		c->q = NULL;
		sink_done(&c->sink);
	} else if (c->q && !c->sink.is_open) {
		reply_later(q, c, work_on_gone);
	}
	work_release(c);
	return rc;
}
