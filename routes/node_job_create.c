/*
 * POST /v1/swarm/self-hosted/node/jobs (R3): one invocation job of a gateway or a direct caller, plain or as a stream.
 *
 * gates -> llm/invoke: read, claims, first inventory, agent, run -> answer. A stream's head goes out as soon as the job is
 * admitted, and then every outcome is status 200 and ends with [DONE]; a plain job answers 200 or 502 with the result. A
 * caller who leaves stops the work. On the connection's loop.
 */
#include "base/mem.h"
#include "routes/node_job_priv.h"

static enum errc start(struct work *c, struct req *q, struct err *e)
{
	struct svc *svc = c->ctx->svc;
	struct buf body = req_take_body(q);
	const struct invoke_req r = { .take_text = &body, .attached_key = node_job_attached_key(q), .client = "direct",
				      .frames = &c->sink.out, .ops = &work_invoke_ops, .ctx = c };

	c->env = (struct invoke_env){ .call = { .loop = c->ctx->loop, .client = c->ctx->client, .admission = svc->admission,
						.pool = svc->pool, .cfg = svc->cfg },
				      .inventory = svc->inventory, .node_id = svc->node_id };
	return invoke_begin(&c->env, &r, &c->v, e);
}

enum errc route_node_job_create(struct req *q, struct reply *rep, struct err *e)
{
	struct token_claims claims = { 0 };
	enum errc rc = node_job_gate(q, &claims, e);
	struct work *c;

	if (rc)
		return rc;
	if (!node_job_media(q, rep, &rc, e)) {
		token_claims_done(&claims);
		return rc;
	}
	c = NEW(struct work);
	if (!c) {
		token_claims_done(&claims);
		return err_set(e, E_NO_MEMORY, "no memory for a job");
	}
	c->q = q;
	c->ctx = q->ctx;
	c->claims = claims;
	sink_init(&c->sink, q, work_on_closed, work_on_stopping);
	c->sink.drained = work_on_drained;
	c->is_in_handler = true;
	rc = start(c, q, e);
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
