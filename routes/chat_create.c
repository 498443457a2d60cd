/*
 * POST /v1/chat/completions: a chat of a local client, streamed or plain, relayed from a model runner.
 *
 * parse (on the pool when large) -> wait for the first inventory -> resolve the model -> call (admission, transfer) ->
 * events made right by llm/chunk, or joined by llm/completion. The status line of a stream is held until the runner's
 * first event, at most status_hold_ms; after that failures travel inside the stream. Everything on the connection's loop.
 *
 * A struct chat ends when it has neither a request (q) nor a call nor work on the pool nor a letter on its way.
 */
#include "routes/chat_priv.h"

#include "base/clock.h"
#include "base/mem.h"
#include "routes/auth.h"

static enum errc resolve(struct chat *c, struct call_req *r, struct err *e)
{
	struct slice model = slice_str(c->cc->chat.model);
	enum errc rc = agents_resolve(c->agents, model, r->candidates, &r->candidate_count, e);

	if (rc == E_UNHEALTHY)
		inventory_refresh(c->ctx->svc->inventory);
	if (rc)
		return rc;
	if (!auth_allows_model(c->ctx->svc->auth, c->key_id, model))
		return err_set_param(e, E_MODEL_NOT_FOUND, "model",
				     "The model `" SLICE_FMT "` does not exist or you do not have access to it.", SLICE_ARG(slice_cut_text(model, 128)));
	return E_OK;
}

static enum errc start(struct chat *c, struct err *e)
{
	struct svc *svc = c->ctx->svc;
	struct call_env env = { .loop = c->ctx->loop, .client = c->ctx->client, .admission = svc->admission, .pool = svc->pool, .cfg = svc->cfg };
	struct call_req r = { .chat = c->cc, .wants_stream = c->cc->chat.is_stream, .class = ADMIT_LOCAL,
			      .client = c->key_id[0] ? c->key_id : "local", .client_max = auth_max_concurrent(svc->auth, c->key_id),
			      .ops = &chat_call_ops, .ctx = c };
	struct chunk_opts o = { .model = slice_str(c->cc->chat.model), .created_s = clock_wall_ms() / 1000,
				.wants_usage = c->cc->chat.wants_usage };
	enum errc rc;

	c->agents = inventory_get(svc->inventory);
	r.agents = c->agents;
	rc = resolve(c, &r, e);
	if (!rc && c->cc->chat.is_stream)
		rc = chunk_new(&o, &c->chunk, e);
	if (!rc)
		rc = call_start(&env, &r, &c->call, e);
	if (rc)
		return rc;
	c->sink.call = c->call;
	if (c->cc->chat.is_stream)
		loop_timer_set(c->ctx->loop, &c->hold, c->started_mono_ms + svc->cfg->status_hold_ms);
	return E_OK;
}

static void start_late(struct chat *c)
{
	struct err e = { 0 };

	if (start(c, &e))
		chat_fail_err(c, &e);
	chat_release(c);
}

static void on_inventory(struct loop_msg *m)
{
	struct chat *c = CONTAINER_OF(m, struct chat, wait.msg);

	c->is_waiting = false;
	if (c->q)
		start_late(c);
	else
		chat_release(c);
}

static bool must_wait(struct chat *c)
{
	c->wait.msg.fn = on_inventory;
	c->wait.loop = c->ctx->loop;
	c->is_waiting = inventory_wait_first(c->ctx->svc->inventory, &c->wait);
	return c->is_waiting;
}

static void log_model(struct req *q, const char *model)
{
	size_t n = 0;

	for (; model[n] && n + 1 < sizeof(q->model); n++)
		q->model[n] = (unsigned char)model[n] <= ' ' || model[n] == '"' || model[n] == 0x7f ? '_' : model[n];
	q->model[n] = '\0';
}

static void parse_work(struct pool_job *j)     /* THREAD(pool) */
{
	struct chat *c = CONTAINER_OF(j, struct chat, pool);

	c->pool_rc = chat_parse(buf_slice(&c->cc->text), &c->cc->chat, &c->pool_err);
}

static void parse_done(struct loop_msg *m)
{
	struct chat *c = CONTAINER_OF(m, struct chat, pool.done);

	c->is_on_pool = false;
	if (!c->q) {
		chat_release(c);
		return;
	}
	if (c->pool_rc) {
		chat_fail_err(c, &c->pool_err);
		chat_release(c);
		return;
	}
	log_model(c->q, c->cc->chat.model);
	if (!must_wait(c))
		start_late(c);
}

static enum errc parse_on_pool(struct chat *c, struct err *e)
{
	c->pool = (struct pool_job){ .work = parse_work, .loop = c->ctx->loop, .done = { .fn = parse_done } };
	if (pool_submit(c->ctx->svc->pool, &c->pool, e))
		return e->code;
	c->is_on_pool = true;
	reply_later(c->q, c, chat_on_gone);
	return E_OK;
}

static enum errc parse_here(struct chat *c, struct err *e)
{
	enum errc rc = chat_parse(buf_slice(&c->cc->text), &c->cc->chat, e);

	if (rc)
		return rc;
	log_model(c->q, c->cc->chat.model);
	if (!must_wait(c)) {
		rc = start(c, e);
		if (rc)
			return rc;
	}
	reply_later(c->q, c, chat_on_gone);
	return E_OK;
}

enum errc route_chat_create(struct req *q, struct reply *rep, struct err *e)
{
	struct chat *c;
	struct buf body;
	enum errc rc;

	(void)rep;
	if (node_refuses(q->ctx->svc, DRAIN_ALL))
		return err_set(e, E_DRAINING, "the node is draining: no new chats");
	c = NEW(struct chat);
	if (!c)
		return err_set(e, E_NO_MEMORY, "no memory for a chat");
	body = req_take_body(q);
	if (call_chat_new(&body, &c->cc, e)) {
		buf_done(&body);
		mem_free(c);
		return e->code;
	}
	c->q = q;
	c->ctx = q->ctx;
	c->started_mono_ms = q->started_mono_ms;
	c->hold.fn = chat_on_hold;
	memcpy(c->key_id, q->key_id, sizeof(c->key_id));
	sink_init(&c->sink, q, chat_on_closed, chat_on_stopping);
	rc = c->cc->text.n > CHAT_POOL_BYTES ? parse_on_pool(c, e) : parse_here(c, e);
	if (rc) {
		c->q = NULL;
		sink_done(&c->sink);
		chat_release(c);
	}
	return rc;
}
