/*
 * Two threads for work that may block: hashing, fsync of files, parsing of large bodies. The job is embedded in its
 * object; done is posted to the loop that asked.
 *
 * Threads: pool_submit from any loop; work on a pool thread; done on the loop given.
 */
#ifndef MSWARM_BASE_POOL_H
#define MSWARM_BASE_POOL_H

#include "base/loop.h"

struct pool;

struct pool_job {
	void (*work)(struct pool_job *j);    /* THREAD(pool) */
	struct loop *loop;                   /* borrowed; where done is posted */
	struct loop_msg done;                /* done.fn set by the caller */
	struct pool_job *next;
};

/* first_index: of its threads' names, "mswarm-pool<index>"; a second pool goes on where the first ended. */
MUST_CHECK enum errc pool_new(unsigned threads, unsigned first_index, size_t max_queued, struct pool **ret, struct err *e);
void pool_free(struct pool *p);              /* runs what is queued, joins; NULL is fine */
MUST_CHECK enum errc pool_submit(struct pool *p, struct pool_job *j, struct err *e); /* E_BUSY when full */

#endif
