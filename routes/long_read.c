/* See long_read.h. */
#include "routes/long_read.h"

#include "base/mem.h"

enum errc long_read_new(struct req *q, enum errc (*run)(struct long_read *, struct err *), struct long_read **ret, struct err *e)
{
	struct long_read *r = NEW(struct long_read);

	if (!r)
		return err_set(e, E_NO_MEMORY, "no memory for an answer");
	r->svc = q->ctx->svc;
	r->reader = r->svc->reads_reader;
	r->q = q;
	r->run = run;
	r->status = 200;
	r->job.loop = q->ctx->loop;
	*ret = r;
	return E_OK;
}

void long_read_free(struct long_read *r)
{
	if (!r)
		return;
	job_row_done(&r->row);
	buf_done(&r->reply.body);
	mem_free(r->job_id);
	mem_free(r);
}

static void on_read(struct loop_msg *m)
{
	struct long_read *r = CONTAINER_OF(m, struct long_read, job.done);
	struct req *q = r->q;

	if (q && r->rc) {
		reply_fail(q, &r->err);
	} else if (q) {
		q->reply.status = r->reply.status;
		q->reply.body = r->reply.body;
		buf_init(&r->reply.body, 0);
		reply_done(q);
	}
	long_read_free(r);
}

static void read_work(struct pool_job *j)       /* THREAD(reads) */
{
	struct long_read *r = CONTAINER_OF(j, struct long_read, job);

	r->rc = store_reader_hold(r->reader, &r->err);
	if (!r->rc && r->job_id)
		r->rc = jobs_find(r->reader, slice_str(r->job_id), &r->row, &r->err);
	if (!r->rc)
		r->rc = r->run(r, &r->err);
	store_reader_release(r->reader);
}

static void on_gone(struct req *q)
{
	struct long_read *r = q->handler_state;

	r->q = NULL;
}

static enum errc submit(struct long_read *r, struct err *e)
{
	r->job.work = read_work;
	r->job.done.fn = on_read;
	return pool_submit(r->svc->reads, &r->job, e);
}

enum errc long_read_reply(struct long_read *r, struct err *e)
{
	struct req *q = r->q;
	enum errc rc = submit(r, e);

	if (rc)
		long_read_free(r);
	else
		reply_later(q, r, on_gone);
	return rc;
}

void long_read_go_on(struct long_read *r)
{
	struct req *q = r->q;
	struct err e = { 0 };

	q->handler_state = r;
	q->on_gone = on_gone;
	if (!submit(r, &e))
		return;
	long_read_free(r);
	reply_fail(q, &e);
}
