/*
 * A generic job request as it came: what the life of a job reads of it (tenant, keys, priority, limits), and the check of
 * the contract with every issue that it has. The request is kept and shown as it was received.
 *
 * Threads: any. Sources: direct-api.md 3.2 to 3.6 and 4, 7.1; jobs-and-capabilities.md 1.2, 1.3.
 */
#ifndef MSWARM_JOBS_REQUEST_H
#define MSWARM_JOBS_REQUEST_H

#include "base/json.h"
#include "base/jw.h"

#define JOB_SCHEMA_VERSION "2026-06-14"
#define JOB_RETRIES_MAX 3

struct job_facts {
	struct slice tenant_id;         /* trimmed; "owner-local" when it says none */
	struct slice idempotency_key;   /* empty: none */
	int64_t priority, deadline_wall_ms, max_retries;
	int64_t timeout_ms;             /* limits.timeout_sec; 0: none given */
	int64_t stdout_max, stderr_max; /* 0: none given */
	int64_t memory_bytes;           /* resources.memory_gb; 0: none given */
	double gpu_count;               /* what a resources.gpu asks for; 0: no GPU */
};

/* job may be NULL or no object: then the defaults. Borrows from the tree. */
struct job_facts job_facts(const struct json *job);
/* {"gpu_count":..}: what the reservation shows (3.6). */
void job_resources_json(struct jw *w, const struct json *job);

/* All issues, as elements of the array that is open in w; how many. 0: the request is sound. */
size_t job_check(const struct json *job, struct jw *w);
/* Why this node cannot run it (3.5), or false. */
struct capabilities;
bool job_lacks(const struct json *job, const struct capabilities *caps, char *ret_message, size_t cap);

#endif
