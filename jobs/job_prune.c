/* The body of a step of forgetting. See job.h. */
#include "base/clock.h"
#include "jobs/job.h"

static enum errc prune(struct store_tx *t, struct store_job *job, struct err *e)
{
	struct job_prune *p = CONTAINER_OF(job, struct job_prune, job);

	return jobs_prune_tx(t, &p->keep, clock_wall_ms(), &p->gone, &p->is_more, e);
}

void job_prune_init(struct job_prune *p, const struct keep_limits *keep)
{
	*p = (struct job_prune){ .job = { .name = "job.prune", .body = prune }, .keep = *keep };
}
