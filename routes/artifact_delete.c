/* DELETE of an artifact, by path or id; an upload that was begun too. Its file goes after the commit. */
#include "routes/generic.h"

#include "base/mem.h"
#include "base/pool.h"
#include "jobs/artifact.h"

struct work {
	struct req *q;                  /* NULL: the caller has left; it is removed all the same */
	struct loop_ctx *ctx;
	struct artifact_drop drop;
	struct pool_job pool;
};

static void unlink_work(struct pool_job *j)     /* THREAD(pool) */
{
	struct work *c = CONTAINER_OF(j, struct work, pool);

	artifact_files_remove(c->ctx->svc->files, c->drop.gone.v, c->drop.gone.n);
}

static void on_unlinked(struct loop_msg *m)
{
	struct work *c = CONTAINER_OF(m, struct work, pool.done);

	artifact_drop_done(&c->drop);
	mem_free(c);
}

static void on_dropped(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct work *c = CONTAINER_OF(CONTAINER_OF(job, struct artifact_drop, job), struct work, drop);
	struct err ignored;

	if (c->q && job->rc) {
		reply_fail(c->q, &job->e);
	} else if (c->q) {
		c->q->reply.status = 204;
		reply_done(c->q);
	}
	c->pool = (struct pool_job){ .work = unlink_work, .loop = c->ctx->loop, .done = { .fn = on_unlinked } };
	/* A file that stays without a row is swept at the next start. */
	if (job->rc || pool_submit(c->ctx->svc->pool, &c->pool, &ignored))
		on_unlinked(&c->pool.done);
}

static void on_gone(struct req *q)
{
	struct work *c = q->handler_state;

	c->q = NULL;
}

enum errc route_generic_job_artifact_delete(struct req *q, struct reply *rep, struct err *e)
{
	AUTO_BUF path = BUF_MAX(ARTIFACT_PATH_MAX + 1);
	struct work *c;
	struct slice id;
	enum errc rc = generic_gate_path(q, &id, e);

	(void)rep;
	if (!rc)
		rc = artifact_path(slice_str(q->arg[1]), "artifact_path", &path, e);
	if (rc)
		return rc;
	c = NEW(struct work);
	if (!c)
		return err_set(e, E_NO_MEMORY, "no memory");
	artifact_drop_init(&c->drop);
	c->q = q;
	c->ctx = q->ctx;
	c->drop.job_id = slice_dup(id);
	c->drop.path = slice_dup(buf_slice(&path));
	c->drop.job.loop = q->ctx->loop;
	c->drop.job.done.fn = on_dropped;
	rc = c->drop.job_id && c->drop.path ? store_submit(q->ctx->svc->store, &c->drop.job, e) : err_set(e, E_NO_MEMORY, "no memory");
	if (rc) {
		on_unlinked(&c->pool.done);
		return rc;
	}
	reply_later(q, c, on_gone);
	return E_OK;
}
