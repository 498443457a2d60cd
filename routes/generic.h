/*
 * What the routes of generic jobs share: gates, tokens, the snapshot. Called by routes/generic_*.c on the connection's loop.
 * Source: direct-api.md 2.2, 2.3, 2.8 to 2.14.
 */
#ifndef MSWARM_ROUTES_GENERIC_H
#define MSWARM_ROUTES_GENERIC_H

#include "routes/long_read.h"

/* G1 to G5, in their order. kind: TOKEN_GENERIC, or TOKEN_OPS with its own texts. The caller ends *ret. */
MUST_CHECK enum errc generic_gate(struct req *q, enum token_kind kind, struct token_claims *ret, struct err *e);
/* The job_id of the path, trimmed; the claims must be of this node and this job: E_BAD_REQUEST. */
MUST_CHECK enum errc generic_check_path(struct req *q, const struct token_claims *c, struct slice *ret_job_id, struct err *e);
/* Gate and path, of a job that need not exist: what the routes of artifacts begin with. */
MUST_CHECK enum errc generic_gate_path(struct req *q, struct slice *ret_job_id, struct err *e);
/* {"job","events","logs","artifacts","audit"} of r->row: what a long_read runs. */
MUST_CHECK enum errc generic_snapshot(struct long_read *r, struct err *e);
/* Answer with the snapshot of this row, moved out, from a store job's letter. */
void generic_reply_snapshot(struct req *q, int status, struct job_row *take_row);
/* Of a job that was just created: as it was then, though it may have begun meanwhile (2.10). */
MUST_CHECK enum errc generic_snapshot_new(struct req *q, struct reply *rep, const struct job_create *c, struct err *e);
/* Gate, path, row: what every read begins with. job_row_done *ret_row. */
MUST_CHECK enum errc generic_find(struct req *q, struct job_row *ret_row, struct err *e);
/* Why a waiting job waits. */
struct show_held generic_held(const struct svc *svc, struct store_reader *reader, const struct job_row *row);
/* ?limit= and ?after= of a list, with their defaults. E_INVALID_VALUE. */
MUST_CHECK enum errc generic_page(struct req *q, size_t *ret_max, struct show_place *ret_after, struct err *e);
/* One value of the query, decoded as it stands; empty: not there. The last one counts. */
struct slice query_value(struct slice query, const char *name, bool *ret_has);

/* End a job whose caller has left; nobody is told. */
void generic_cancel(struct loop_ctx *ctx, int64_t job_key);

#define REPLY_MAX_BYTES (64u << 20)

#endif
