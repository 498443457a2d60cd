/*
 * A generic job on its way from a request into the store (R4, R6). Used by routes/generic_*.c on the connection's loop.
 */
#ifndef MSWARM_ROUTES_GENERIC_WORK_H
#define MSWARM_ROUTES_GENERIC_WORK_H

#include "base/pool.h"
#include "routes/generic.h"

enum generic_kind { GENERIC_LIFECYCLE, GENERIC_DIRECT, GENERIC_STREAM };

struct generic_work {
	struct req *q;                  /* NULL: the caller has left; the job is made all the same */
	struct loop_ctx *ctx;
	struct buf body;
	struct token_claims claims;
	struct job_create create;       /* once created: the row */
	struct pool_job pool;
	void (*created)(struct generic_work *c);
	struct err err;
	enum errc rc;
	bool is_bad_json, is_stream;
};

/*
 * Gates, claims, the row; answers itself when that fails. created is called on the loop after the commit and owns the work
 * (generic_work_free), with q, if that is not NULL, to be answered.
 */
MUST_CHECK enum errc generic_work_start(struct req *q, struct reply *rep, enum generic_kind kind, void (*created)(struct generic_work *c), struct err *e);
void generic_work_free(struct generic_work *c);

#endif
