/*
 * Reads an attempt's journal: frames into lines, lines into what the runner makes of them. The same bytes give the same events at
 * the same places, whoever reads them and however often: the supervisor for the store, and followers beside it.
 *
 * Owns: its descriptor and the lines that have not ended. Threads: one at a time; it reads what the shim has just written.
 */
#ifndef MSWARM_JOBS_JOURNAL_H
#define MSWARM_JOBS_JOURNAL_H

#include "jobs/runner.h"

#define LINE_MAX_BYTES (64u << 10)      /* of output; a longer one is cut into several events */

struct journal {
	const struct json *request;     /* borrowed */
	const struct runner_ops *runner; /* NULL: nothing can be read */
	const char *name;               /* for the log: the job's id; borrowed. NULL: nothing is logged */
	int fd;                         /* -1: not open */
	int64_t read_at;                /* bytes that are parsed */
	int64_t out_lines, err_lines;
	struct buf out_line, err_line;  /* begun, not ended */
};

void journal_init(struct journal *j, const struct json *request, const struct runner_ops *runner, const char *name);
void journal_close(struct journal *j);
void journal_done(struct journal *j);
/* Adds the events of at most block bytes behind read_at. False: nothing new. dir: of the attempt. */
bool journal_read(struct journal *j, const char *dir, size_t block, struct events *out);
void journal_last(struct journal *j, struct events *out);      /* lines that never ended */

#endif
