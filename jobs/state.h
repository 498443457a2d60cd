/*
 * The one mover of jobs: who may go from where to where, and what times and audit records belong to it. Pure but for the
 * rows that job_save writes inside a body.
 *
 * Threads: job_may and job_move any; job_save on THREAD(store). Source: direct-api.md 3.1.
 */
#ifndef MSWARM_JOBS_STATE_H
#define MSWARM_JOBS_STATE_H

#include "store/jobs.h"

bool job_may(enum job_state from, enum job_state to);      /* to itself always */
bool job_is_ended(enum job_state s);
/* Changes *j in memory: state, its time, updated. E_CONFLICT when that is not allowed. */
MUST_CHECK enum errc job_move(struct job_row *j, enum job_state to, int64_t now_wall_ms, struct err *e);
/* By a person's wish, from an ended state other than succeeded: outside the table above (R15). */
MUST_CHECK enum errc job_begin_anew(struct job_row *j, int64_t now_wall_ms, struct err *e);

#endif
