/* R6: create a lifecycle job; the answer leaves after the commit. Source: direct-api.md 2.10. */
#include "routes/generic_work.h"

static void on_created(struct generic_work *c)
{
	struct req *q = c->q;
	struct err e = { 0 };
	enum errc rc = E_OK;

	if (q && c->create.is_reused) {
		generic_reply_snapshot(q, 200, &c->create.found);
	} else if (q) {
		rc = generic_snapshot_new(q, &q->reply, &c->create, &e);
		if (rc)
			reply_fail(q, &e);
		else
			reply_done(q);
	}
	generic_work_free(c);
}

enum errc route_generic_job_create(struct req *q, struct reply *rep, struct err *e)
{
	return generic_work_start(q, rep, GENERIC_LIFECYCLE, on_created, e);
}
