/* See state.h. Called by the bodies of jobs/job_*.c. */
#include "jobs/state.h"

#include "base/mem.h"

static const bool may[JOB__COUNT][JOB__COUNT] = {
	[JOB_QUEUED] = { [JOB_SCHEDULED] = true, [JOB_CANCELLED] = true, [JOB_EXPIRED] = true, [JOB_BLOCKED] = true },
	[JOB_SCHEDULED] = { [JOB_RUNNING] = true, [JOB_QUEUED] = true, [JOB_CANCELLED] = true, [JOB_EXPIRED] = true, [JOB_BLOCKED] = true },
	[JOB_RUNNING] = { [JOB_SUCCEEDED] = true, [JOB_FAILED] = true, [JOB_CANCELLED] = true, [JOB_RETRYING] = true, [JOB_EXPIRED] = true },
	[JOB_RETRYING] = { [JOB_QUEUED] = true, [JOB_CANCELLED] = true, [JOB_EXPIRED] = true, [JOB_BLOCKED] = true },
};

bool job_may(enum job_state from, enum job_state to)
{
	return from == to || may[from][to];
}

bool job_is_ended(enum job_state s)
{
	return s >= JOB_SUCCEEDED;
}

/* What belongs to one attempt goes when the next one is to come. */
static void queue_again(struct job_row *j, int64_t now_wall_ms)
{
	mem_free(j->reservation);
	mem_free(j->backpressure);
	j->reservation = j->backpressure = NULL;
	j->scheduled_wall_ms = j->started_wall_ms = j->finished_wall_ms = j->released_wall_ms = 0;
	j->queued_wall_ms = j->next_retry_wall_ms = now_wall_ms;
	j->is_cancel_asked = false;
}

enum errc job_move(struct job_row *j, enum job_state to, int64_t now_wall_ms, struct err *e)
{
	enum job_state from = j->state;

	if (!job_may(from, to))
		return err_set(e, E_CONFLICT, "job %s: from %s to %s there is no way", j->job_id, job_state_name(from), job_state_name(to));
	j->state = to;
	j->updated_wall_ms = now_wall_ms;
	if (to == from)
		return E_OK;
	if (to == JOB_SCHEDULED) {
		mem_free(j->backpressure);
		j->backpressure = NULL;
		j->scheduled_wall_ms = now_wall_ms;
	} else if (to == JOB_RUNNING) {
		j->started_wall_ms = now_wall_ms;
	} else if (to == JOB_QUEUED) {
		queue_again(j, now_wall_ms);
	} else if (job_is_ended(to)) {
		j->finished_wall_ms = now_wall_ms;
		j->released_wall_ms = j->scheduled_wall_ms ? now_wall_ms : 0;
	}
	return E_OK;
}

enum errc job_begin_anew(struct job_row *j, int64_t now_wall_ms, struct err *e)
{
	char **gone[] = { &j->result, &j->artifacts, &j->validation_issues };

	if (!job_is_ended(j->state))
		return err_set(e, E_BAD_REQUEST, "job_retry_requires_terminal_state");
	if (j->state == JOB_SUCCEEDED)
		return err_set(e, E_BAD_REQUEST, "job_retry_not_allowed_for_succeeded_jobs");
	for (size_t i = 0; i < ARRAY_LEN(gone); i++) {
		mem_free(*gone[i]);
		*gone[i] = NULL;
	}
	j->state = JOB_QUEUED;
	j->updated_wall_ms = now_wall_ms;
	j->retry_count++;
	j->artifact_count = j->artifact_bytes = 0;
	queue_again(j, now_wall_ms);
	return E_OK;
}
