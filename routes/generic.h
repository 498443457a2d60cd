/*
 * What the routes of generic jobs share: gates, tokens, the snapshot. Called by routes/generic_*.c on the connection's loop.
 * Source: direct-api.md 2.2, 2.3, 2.8 to 2.14.
 */
#ifndef MSWARM_ROUTES_GENERIC_H
#define MSWARM_ROUTES_GENERIC_H

#include "jobs/show.h"
#include "routes/route.h"

/* G1 to G5, in their order. kind: TOKEN_GENERIC, or TOKEN_OPS with its own texts. The caller ends *ret. */
MUST_CHECK enum errc generic_gate(struct req *q, enum token_kind kind, struct token_claims *ret, struct err *e);
/* The job_id of the path, trimmed; the claims must be of this node and this job: E_BAD_REQUEST. */
MUST_CHECK enum errc generic_check_path(struct req *q, const struct token_claims *c, struct slice *ret_job_id, struct err *e);
/* Gate and path, of a job that need not exist: what the routes of artifacts begin with. */
MUST_CHECK enum errc generic_gate_path(struct req *q, struct slice *ret_job_id, struct err *e);
/* {"job","events","logs","artifacts","audit"} into rep. */
MUST_CHECK enum errc generic_snapshot(struct req *q, struct reply *rep, int status, const struct job_row *row, struct err *e);
/* Of a job that was just created: as it was then, though it may have begun meanwhile (2.10). */
MUST_CHECK enum errc generic_snapshot_new(struct req *q, struct reply *rep, const struct job_create *c, struct err *e);
/* Gate, path, row: what every read begins with. job_row_done *ret_row. */
MUST_CHECK enum errc generic_find(struct req *q, struct job_row *ret_row, struct err *e);
/* Why a waiting job waits. */
struct show_held generic_held(struct loop_ctx *ctx, const struct job_row *row);
/* ?limit= and ?after= of a list, with their defaults. E_INVALID_VALUE. */
MUST_CHECK enum errc generic_page(struct req *q, struct show *s, struct err *e);
/* One value of the query, decoded as it stands; empty: not there. The last one counts. */
struct slice query_value(struct slice query, const char *name, bool *ret_has);

/* End a job whose caller has left; nobody is told. */
void generic_cancel(struct loop_ctx *ctx, int64_t job_key);

#define REPLY_MAX_BYTES (64u << 20)

#endif
