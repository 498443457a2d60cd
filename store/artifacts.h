/*
 * Tables "spaces" and "artifacts": which files jobs took in and left, under which names. The files themselves are
 * jobs/artifact_files.c's; a row is what makes one exist.
 *
 * Owns: strings of a row are heap strings; artifact_row_done frees them. Times: wall_ms.
 * Threads: *_tx on THREAD(store) inside a body; the readers on their loop.
 */
#ifndef MSWARM_STORE_ARTIFACTS_H
#define MSWARM_STORE_ARTIFACTS_H

#include "base/crypto.h"
#include "base/slice.h"
#include "store/store.h"

struct artifact_row {
	int64_t key;                    /* names the file; given by artifact_files_create */
	int64_t space_key;
	int64_t job_key;                /* whose output it is; 0: an upload */
	bool is_output;                 /* left by a job; else uploaded */
	char *path;                     /* normalised; the key within its space */
	char *id, *name;                /* as the wire shows them */
	char *content_type;             /* empty: none was given */
	int64_t size_bytes;             /* of an upload that is not whole: what is safe on disk */
	int64_t wanted_bytes;           /* announced length; -1: none */
	char sha256[SHA256_HEX_LEN];    /* empty: an upload that is not whole */
	int64_t made_wall_ms;
};
void artifact_row_done(struct artifact_row *a);
#define AUTO_ARTIFACT CLEANUP(artifact_row_done) struct artifact_row

/* The keys of files whose rows a body removed: to be unlinked once that is committed. */
#define ARTIFACT_KEYS_MAX 500
struct artifact_keys {
	int64_t v[ARTIFACT_KEYS_MAX];
	size_t n;
};

/* The space of a job id, made when it is not there. label: as wanted; a taken one gets the space's key behind it. */
MUST_CHECK enum errc spaces_need_tx(struct store_tx *t, struct slice job_id, struct slice label, int64_t now_wall_ms, int64_t *ret_key, struct err *e);
/* A job leaves files in it: it is its tenant's from now on. */
MUST_CHECK enum errc spaces_own_tx(struct store_tx *t, int64_t space_key, struct slice tenant_id, struct err *e);
/* Label of a space onto out. */
MUST_CHECK enum errc spaces_label_tx(struct store_tx *t, int64_t space_key, struct buf *out, struct err *e);

/* E_CONFLICT: the path is taken. */
MUST_CHECK enum errc artifacts_insert_tx(struct store_tx *t, const struct artifact_row *a, struct err *e);
/* size_bytes, id and sha256 of an upload that went on, or is whole now. E_ARTIFACT_NOT_FOUND: it is not there any more, or whole. */
MUST_CHECK enum errc artifacts_grow_tx(struct store_tx *t, const struct artifact_row *a, struct err *e);
/* *ret_found false: nothing there. *ret is filled whole on success only. */
MUST_CHECK enum errc artifacts_find_tx(struct store_tx *t, int64_t space_key, bool is_output, struct slice path, struct artifact_row *ret, bool *ret_found, struct err *e);
/* As artifacts_get below. */
MUST_CHECK enum errc artifacts_named_tx(struct store_tx *t, struct slice job_id, struct slice path, struct artifact_row *ret, struct err *e);
MUST_CHECK enum errc artifacts_drop_tx(struct store_tx *t, const struct artifact_row *a, struct err *e);
/* Up to ARTIFACT_KEYS_MAX - out->n outputs of a job, or uploads of a space; adds their keys. *ret_any: some were there. */
MUST_CHECK enum errc artifacts_drop_outputs_tx(struct store_tx *t, int64_t job_key, struct artifact_keys *out, bool *ret_any, struct err *e);
MUST_CHECK enum errc artifacts_drop_uploads_tx(struct store_tx *t, int64_t space_key, struct artifact_keys *out, bool *ret_any, struct err *e);

/* The space of a lifecycle job, or 0; one that has no job and no output and was not used since before_wall_ms, or 0. */
MUST_CHECK enum errc spaces_of_job_tx(struct store_tx *t, int64_t job_key, int64_t *ret_key, struct err *e);
MUST_CHECK enum errc spaces_unused_tx(struct store_tx *t, int64_t before_wall_ms, int64_t *ret_key, struct err *e);
/* Unless something is in it. */
MUST_CHECK enum errc spaces_drop_tx(struct store_tx *t, int64_t space_key, struct err *e);

/* ---- readers. E_ARTIFACT_NOT_FOUND ---- */
/* By path: an output, else an upload; else the oldest that has it as its id. */
MUST_CHECK enum errc artifacts_get(struct store_reader *r, struct slice job_id, struct slice path, struct artifact_row *ret, struct err *e);
/* As the uri of an input names it, for a job of that tenant: both uri forms (jobs/NOTES.md). Files of others are not found. */
MUST_CHECK enum errc artifacts_resolve(struct store_reader *r, struct slice label, struct slice path, struct slice tenant_id, struct artifact_row *ret, struct err *e);
/* Label of a job id's space onto out; E_ARTIFACT_NOT_FOUND: it has none. */
MUST_CHECK enum errc spaces_label(struct store_reader *r, struct slice job_id, struct buf *out, struct err *e);
bool artifacts_has_key(struct store_reader *r, int64_t key);    /* true also when that cannot be told */

#endif
