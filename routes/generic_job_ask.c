/* R14, R15: a person's cancel and retry. A body is read and ignored. Source: direct-api.md 2.14. */
#include "base/mem.h"
#include "jobs/subs.h"
#include "jobs/supervisor.h"
#include "routes/generic.h"

struct work {
	struct req *q;                  /* NULL: the caller has left; what was asked is done all the same */
	struct loop_ctx *ctx;
	struct job_ask ask;
};

static void on_asked(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct work *c = CONTAINER_OF(CONTAINER_OF(job, struct job_ask, job), struct work, ask);

	if (!job->rc && c->ask.is_stop_wanted)
		supervisor_cancel(c->ctx->svc->supervisor);
	else if (!job->rc)
		supervisor_kick(c->ctx->svc->supervisor);
	if (!job->rc)
		subs_publish(c->ctx->svc->subs, c->ask.found.key);
	if (c->q && job->rc)
		reply_fail(c->q, &job->e);
	else if (c->q)
		generic_reply_snapshot(c->q, 202, &c->ask.found);
	job_ask_done(&c->ask);
	mem_free(c);
}

static void on_gone(struct req *q)
{
	struct work *c = q->handler_state;

	c->q = NULL;
}

static enum errc ask(struct req *q, enum job_wish wish, struct err *e)
{
	struct token_claims claims = { 0 };
	struct slice id;
	struct work *c;
	enum errc rc = generic_gate(q, TOKEN_GENERIC, &claims, e);

	if (!rc)
		rc = generic_check_path(q, &claims, &id, e);
	c = rc ? NULL : NEW(struct work);
	if (!c) {
		token_claims_done(&claims);
		return rc ? rc : err_set(e, E_NO_MEMORY, "no memory");
	}
	job_ask_init(&c->ask, wish);
	c->q = q;
	c->ctx = q->ctx;
	c->ask.claims = claims;
	c->ask.job.loop = q->ctx->loop;
	c->ask.job.done.fn = on_asked;
	rc = store_submit(q->ctx->svc->store, &c->ask.job, e);
	if (rc) {
		job_ask_done(&c->ask);
		mem_free(c);
		return rc;
	}
	reply_later(q, c, on_gone);
	return E_OK;
}

enum errc route_generic_job_cancel(struct req *q, struct reply *rep, struct err *e)
{
	(void)rep;
	return ask(q, JOB_WISH_CANCEL, e);
}

enum errc route_generic_job_retry(struct req *q, struct reply *rep, struct err *e)
{
	(void)rep;
	return ask(q, JOB_WISH_RETRY, e);
}
