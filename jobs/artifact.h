/*
 * What happens to artifacts, each one body of the store (as in job.h): an upload saved in one go or piece by piece, a removal,
 * and the outputs of an attempt. And how an artifact is shown.
 *
 * Owns: strings and rows inside are heap; <kind>_done frees. Threads: bodies on THREAD(store), the rest the owner's.
 */
#ifndef MSWARM_JOBS_ARTIFACT_H
#define MSWARM_JOBS_ARTIFACT_H

#include "base/jw.h"
#include "jobs/artifact_files.h"
#include "jobs/artifact_path.h"
#include "store/artifacts.h"

struct job_row;

#define ARTIFACT_RETAIN_S 86400         /* as the protocol says it; what is kept and how long, is the owner's setting */

/* ---- save ---- */
struct artifact_save {
	struct store_job job;
	char *job_id;
	bool is_known;                  /* row.key stands already: it grows, and is whole when row.sha256 is set */
	struct artifact_row row;        /* space_key and made_wall_ms are set by the body */
	struct buf label;               /* afterwards: of the space */
	struct artifact_keys gone;      /* afterwards: an unfinished upload that this one replaced */
};
/* E_CONFLICT: artifact_upload_target_exists. E_BAD_REQUEST: into the outputs of a job at work. E_ARTIFACT_NOT_FOUND: is_known, and it is not. */
void artifact_save_init(struct artifact_save *s);
void artifact_save_done(struct artifact_save *s);

/* ---- drop ---- */
struct artifact_drop {
	struct store_job job;
	char *job_id, *path;            /* or its id, when nothing has that path */
	struct artifact_keys gone;
};
void artifact_drop_init(struct artifact_drop *d);
void artifact_drop_done(struct artifact_drop *d);

/* ---- outputs: a part of the record that ends an attempt ---- */
struct artifact_outs {
	struct artifact_row *v;         /* space_key and job_key are set by the body */
	size_t n, cap;
	struct artifact_keys gone;      /* afterwards: of earlier attempts */
};
MUST_CHECK enum errc artifact_outs_add(struct artifact_outs *o, struct artifact_row *take_row, struct err *e);
void artifact_outs_done(struct artifact_outs *o);
/* Earlier outputs of the job go, these come. */
MUST_CHECK enum errc artifact_outs_tx(struct store_tx *t, const struct job_row *j, struct artifact_outs *o, struct err *e);

/* ---- shown ---- */
/* Of an upload (2.11). */
void artifact_upload_json(struct jw *w, const char *key, const struct artifact_row *a, struct slice label);
/* Of an output (3.10); is_tenant: trust mode tenant-owned. */
void artifact_output_json(struct jw *w, const char *key, const char *job_id, const struct artifact_row *a, struct slice label, bool is_tenant);
/* "output_" + 16 hex of SHA-256("<job_id>:<path>"), "upload_" + 16 hex of the content's. */
MUST_CHECK enum errc artifact_output_id(const char *job_id, const char *path, char **ret, struct err *e);
MUST_CHECK enum errc artifact_upload_id(const char *sha256, char **ret, struct err *e);

#endif
