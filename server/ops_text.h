/*
 * How a node's job plane stands, as text: of the existing client (direct-api.md 5.3), and as the table of gpu ops --watch.
 * Pure, but for the clock that the caller has read.
 */
#ifndef MSWARM_SERVER_OPS_TEXT_H
#define MSWARM_SERVER_OPS_TEXT_H

#include "base/json.h"

/* Of the answer to "ops". Both append to out. */
MUST_CHECK enum errc ops_text(const struct json *ops, struct buf *out, struct err *e);
/* A row of its queue.jobs, with its line's end. */
MUST_CHECK enum errc ops_job_text(const struct json *job, struct buf *out, struct err *e);

struct ops_screen {
	int columns, rows;              /* of the terminal; the table is cut to them */
	int64_t now_wall_ms;
	const char *trouble;            /* why there is nothing newer, or NULL */
};

/* Drawn over what stood there before, without clearing it first. ops NULL: nothing was heard yet. What cannot be shown in a cell, a
 * terminal's commands among it, is a question mark there. */
MUST_CHECK enum errc ops_table(const struct json *ops, const struct ops_screen *s, struct buf *out, struct err *e);

#endif
