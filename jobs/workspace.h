/*
 * The files of an attempt: inputs are placed before it begins, outputs are collected when it is over. Its work directory is the
 * process's current one, with "inputs" and "outputs" in it.
 *
 * Threads: plan on the supervisor's loop (it reads the store); stage and collect may block: on the pool.
 * Source: jobs-and-capabilities.md 3.3, 3.5; direct-api.md 3.10.
 */
#ifndef MSWARM_JOBS_WORKSPACE_H
#define MSWARM_JOBS_WORKSPACE_H

#include "base/json.h"
#include "jobs/artifact.h"

#define OUTPUT_FILES_MAX 10000          /* of one attempt: they become rows in one transaction */
#define ARTIFACT_DEFAULT_MAX (512ll << 20)

struct work_input {
	int64_t key;                    /* of the artifact */
	int64_t size_bytes;
	char *target;                   /* beneath "inputs" */
};

struct workspace {
	struct artifact_files *files;   /* borrowed */
	int64_t job_key, attempt;
	struct work_input *inputs;
	size_t n;
};

/* Whether the request has anything to do with files. */
bool workspace_is_needed(const struct json *job);
/* What is to be placed where. E_BAD_REQUEST: the text of 3.3, for validation_failed. */
MUST_CHECK enum errc workspace_plan(struct workspace *w, struct store_reader *r, const struct json *job, struct slice tenant_id, struct err *e);
/* Makes the directory and places the inputs. E_BAD_REQUEST as above. */
MUST_CHECK enum errc workspace_stage(struct workspace *w, struct err *e);
void workspace_done(struct workspace *w);

struct collected {
	struct artifact_outs outs;
	struct buf label;               /* of the job's space, as uris say it */
	char lacks[256];                /* the text for a required output that is not there; empty: none */
};
/*
 * Hashes, syncs and keeps what the declared outputs are. held: bytes of all artifacts there are. E_BAD_REQUEST: the text of
 * 3.5, for runner_error; outs has nothing then.
 */
MUST_CHECK enum errc workspace_collect(const struct workspace *w, struct store *s, const char *job_id, const struct json *job, int64_t held,
				       struct collected *ret, struct err *e);
void collected_done(struct collected *c);

#endif
