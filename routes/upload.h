/*
 * A file on its way from a request's body to the disk: blocks are filled on the loop, decoded, hashed and written on the pool,
 * then its row is committed and the request answered. At most two blocks are held, whatever its size.
 *
 * Of a resumable upload the row is saved every UPLOAD_CHECKPOINT, so that it can go on from there also when the node was killed.
 *
 * An upload is begun with the headers (upload_begin), ended by its answer, or by its client leaving: then what came of a
 * resumable one is kept, and of any other nothing.
 *
 * Threads: the loop of the request; what says pool, there, and then nobody else touches the upload.
 */
#ifndef MSWARM_ROUTES_UPLOAD_H
#define MSWARM_ROUTES_UPLOAD_H

#include "base/pool.h"
#include "jobs/artifact.h"
#include "routes/route.h"
#include "routes/upload_json.h"

#define UPLOAD_BLOCK (256u << 10)
#define UPLOAD_CHECKPOINT (32ll << 20)  /* of a resumable one: so much more is lost at most when the node dies */
#define UPLOADS_MAX 64                  /* at a time: their blocks are 32 MiB */

struct upload {
	struct req *q;                  /* NULL: the client has left */
	struct loop_ctx *ctx;
	struct upload_json *json;       /* the file is inside a JSON body; NULL: the body is the file */
	struct buf fill, work;          /* what comes; what the pool has */
	struct pool_job pool;
	bool is_on_pool, is_saving;
	bool is_whole;                  /* the body is */
	bool is_last;                   /* the pool has its end */
	bool is_resumable;              /* kept when it breaks */
	bool is_incomplete;             /* more will come in other requests */
	bool is_checkpoint;             /* what has come is safe on disk, and its row is on its way or due */
	bool is_kept;                   /* its row stands: the file stays */
	int status;                     /* of a success */
	int fd;
	int64_t written;                /* by this request */
	int64_t safe;                   /* written when its row was saved last */
	bool is_counted;                /* among UPLOADS_MAX */
	int64_t held, reserved;         /* bytes of all artifacts when it began; given to it beyond those */
	int64_t hashed;                 /* bytes from the start that sha has seen */
	struct sha256 sha;
	char wanted_sha256[SHA256_HEX_LEN]; /* as announced; empty: not */
	struct artifact_save save;      /* the row; row.size_bytes grows with the file */
	struct artifact_keys gone;
	/* pool, once the body is whole: what is left to be checked, and filled in from it. NULL: nothing */
	enum errc (*check)(struct upload *u, struct err *e);
	bool is_bad_json;
	enum errc rc;
	struct err err;
};

/* Makes one and sets it as the taker of q's body; is_json: the file is inside one. E_BUSY: too many; E_NO_SPACE: the length that q announces does not fit. */
MUST_CHECK enum errc upload_begin(struct req *q, struct slice job_id, bool is_json, struct upload **ret, struct err *e);
/* The body is whole: from q's handler. Answers later. */
void upload_run(struct req *q);

#endif
