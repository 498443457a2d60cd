/* See upload.h. Called by artifact_upload.c and artifact_put.c. */
#include "routes/upload.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "routes/node_job_gate.h"
#include "store/job_totals.h"

#include <errno.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#define RESERVE_STEP (16ll << 20)       /* of a length that was not announced */

/* ---- the end ---- */

static void end_work(struct pool_job *j)        /* THREAD(pool) */
{
	struct upload *u = CONTAINER_OF(j, struct upload, pool);
	struct artifact_files *files = u->ctx->svc->files;

	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
	if (!u->is_kept && u->save.row.key)
		artifact_files_remove(files, &u->save.row.key, 1);
	artifact_files_remove(files, u->gone.v, u->gone.n);
}

static void on_ended(struct loop_msg *m)
{
	struct upload *u = CONTAINER_OF(m, struct upload, pool.done);

	if (u->reserved)
		artifact_files_give_back(u->ctx->svc->files, u->reserved);
	if (u->is_counted)
		artifact_files_leave(u->ctx->svc->files);
	upload_json_free(u->json);
	sha256_done(&u->sha);
	buf_done(&u->fill);
	buf_done(&u->work);
	artifact_save_done(&u->save);
	mem_free(u);
}

/* To unlink a large file takes long: on the pool. */
static void end(struct upload *u)
{
	struct err ignored;

	u->q = NULL;
	u->pool = (struct pool_job){ .work = end_work, .loop = u->ctx->loop, .done = { .fn = on_ended } };
	if (!pool_submit(u->ctx->svc->pool, &u->pool, &ignored))
		return;
	end_work(&u->pool);
	on_ended(&u->pool.done);
}

static void fail(struct upload *u)
{
	if (u->q)
		req_body_fail(u->q, &u->err);
	if (u->q && u->is_bad_json)
		node_job_bad_json(&u->q->reply);       /* as every body that is no JSON */
	end(u);
}

/* ---- the row ---- */

static enum errc say(struct upload *u, struct reply *rep, struct err *e)
{
	char offset[24];
	struct jw w;
	enum errc rc;

	snprintf(offset, sizeof(offset), "%lld", (long long)u->save.row.size_bytes);
	rep->status = u->status;
	if (u->is_resumable) {
		AUTO_FREE char *own = slice_dup(u->q->path);

		rc = own && u->is_incomplete && u->status == 201 ? reply_header(rep, "location", own, e) : E_OK;
		if (!rc)
			rc = reply_header(rep, "upload-offset", offset, e);
		if (!rc)
			rc = reply_header(rep, "upload-complete", u->is_incomplete ? "?0" : "?1", e);
		if (rc || u->is_incomplete)
			return rc;
	}
	w = JW(&rep->body);
	jw_obj(&w, NULL);
	jw_str(&w, "job_id", u->save.job_id);
	artifact_upload_json(&w, "artifact", &u->save.row, buf_slice(&u->save.label));
	jw_end(&w);
	return jw_done(&w, e);
}

static void next(struct upload *u);

static void on_saved(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct upload *u = CONTAINER_OF(CONTAINER_OF(job, struct artifact_save, job), struct upload, save);
	struct req *q = u->q;

	u->is_saving = false;
	u->rc = job->rc;
	u->err = job->e;
	if (u->rc == E_CONFLICT && u->json)
		u->err.code = E_BAD_REQUEST;   /* 2.11 */
	if (u->rc) {
		/* It may stand all the same: what nobody knows is left alone, and swept when it has no row after a restart. */
		u->is_kept |= u->rc == E_OUTCOME_UNKNOWN;
		fail(u);
		return;
	}
	u->is_kept = true;
	if (u->save.gone.n)
		u->gone = u->save.gone;
	if (u->is_checkpoint) {
		u->is_checkpoint = false;
		u->save.is_known = true;
		u->safe = u->written;
		next(u);
		return;
	}
	if (q && say(u, &q->reply, &u->err))
		reply_fail(q, &u->err);
	else if (q)
		reply_done(q);
	end(u);
}

static void save(struct upload *u)
{
	struct err e = { 0 };
	enum errc rc;

	u->save.job.loop = u->ctx->loop;
	u->save.job.done.fn = on_saved;
	u->is_saving = true;
	rc = store_submit(u->ctx->svc->store, &u->save.job, &e);
	if (!rc)
		return;
	u->is_saving = false;
	u->rc = rc;
	u->err = e;
	fail(u);
}

/* ---- blocks, on the pool ---- */

static enum errc open_file(struct upload *u, struct err *e)
{
	struct artifact_files *files = u->ctx->svc->files;
	enum errc rc;

	if (u->fd >= 0)
		return E_OK;
	rc = u->save.is_known ? artifact_files_get(files, u->save.row.key, true, &u->fd, e)
			      : artifact_files_create(files, &u->save.row.key, &u->fd, e);
	if (rc)
		return rc;
	if (flock(u->fd, LOCK_EX | LOCK_NB))   /* of the open file: ends with it, however that ends */
		return err_set(e, E_CONFLICT, "another request is writing this upload");
	/* What came after the last place that was made safe may have holes. */
	if (u->save.is_known && ftruncate(u->fd, (off_t)u->save.row.size_bytes))
		return err_set_os(e, E_IO, errno, "artifacts: an upload");
	return E_OK;
}

static enum errc need_room(struct upload *u, int64_t more, struct err *e)
{
	enum errc rc;

	if (u->written + more <= u->reserved)
		return E_OK;
	rc = artifact_files_reserve(u->ctx->svc->files, u->held, RESERVE_STEP, e);
	if (!rc)
		u->reserved += RESERVE_STEP;
	return rc;
}

/* Bytes of the file, in order. */
static enum errc append(void *ctx, struct slice bytes, struct err *e)
{
	struct upload *u = ctx;
	struct artifact_row *row = &u->save.row;
	int64_t max = u->json ? UPLOAD_JSON_MAX : artifact_files_limits(u->ctx->svc->files)->max;
	enum errc rc;

	if (row->size_bytes + (int64_t)bytes.n > max)
		return err_set(e, u->json ? E_BAD_REQUEST : E_TOO_LARGE, "artifact_upload_size_limit_exceeded");
	rc = need_room(u, (int64_t)bytes.n, e);
	if (!rc)
		rc = artifact_write(u->fd, bytes.p, bytes.n, row->size_bytes, e);
	if (rc)
		return rc;
	if (u->hashed == row->size_bytes) {
		sha256_add(&u->sha, bytes);
		u->hashed += (int64_t)bytes.n;
	}
	row->size_bytes += (int64_t)bytes.n;
	u->written += (int64_t)bytes.n;
	return E_OK;
}

/* What was written by earlier requests is read once, now that all is there. */
static enum errc hash_rest(struct upload *u, struct err *e)
{
	AUTO_FREE char *block = u->hashed < u->save.row.size_bytes ? mem_alloc(UPLOAD_BLOCK) : NULL;

	while (u->hashed < u->save.row.size_bytes) {
		ssize_t n = block ? pread(u->fd, block, UPLOAD_BLOCK, (off_t)u->hashed) : -1;

		if (n <= 0)
			return err_set(e, E_IO, "artifacts: an upload cannot be read back");
		sha256_add(&u->sha, slice_of(block, (size_t)n));
		u->hashed += n;
	}
	return E_OK;
}

static enum errc complete(struct upload *u, struct err *e)
{
	struct artifact_row *row = &u->save.row;
	uint8_t sum[SHA256_LEN];
	enum errc rc = hash_rest(u, e);

	if (rc)
		return rc;
	sha256_end(&u->sha, sum);
	crypto_hex(sum, sizeof(sum), row->sha256);
	if (row->wanted_bytes >= 0 && row->wanted_bytes != row->size_bytes)
		return err_set(e, E_BAD_REQUEST, "artifact_upload_size_mismatch");
	if (u->wanted_sha256[0] && !slice_eq(slice_str(u->wanted_sha256), slice_str(row->sha256)))
		return err_set(e, E_BAD_REQUEST, "artifact_upload_checksum_mismatch");
	mem_free(row->id);
	row->id = NULL;
	return artifact_upload_id(row->sha256, &row->id, e);
}

static enum errc take_block(struct upload *u, struct err *e)
{
	enum errc rc = open_file(u, e);

	if (!rc && !u->sha.h)
		rc = sha256_begin(&u->sha, e);
	if (!rc)
		rc = u->json ? upload_json_feed(u->json, buf_slice(&u->work), append, u, e) : append(u, buf_slice(&u->work), e);
	if (!rc && !u->is_last && u->is_resumable && u->written - u->safe >= UPLOAD_CHECKPOINT) {
		u->is_checkpoint = true;
		return artifact_files_sync(u->ctx->svc->files, u->save.row.key, u->fd, e);
	}
	if (rc || !u->is_last)
		return rc;
	if (u->check)
		rc = u->check(u, e);
	if (!rc && !u->is_incomplete)
		rc = complete(u, e);
	return rc ? rc : artifact_files_sync(u->ctx->svc->files, u->save.row.key, u->fd, e);
}

static void block_work(struct pool_job *j)      /* THREAD(pool) */
{
	struct upload *u = CONTAINER_OF(j, struct upload, pool);

	u->rc = take_block(u, &u->err);
	u->is_bad_json = u->rc == E_BAD_JSON;
}

/* ---- blocks, on the loop ---- */

static enum errc go_on(struct upload *u);

/* The client left in the middle: what came is kept if that was the wish. */
static void leave(struct upload *u)
{
	if (!u->is_resumable || u->rc) {
		u->is_kept |= u->save.is_known;        /* its row says how far it is good */
		end(u);
		return;
	}
	u->is_incomplete = u->is_last = true;
	if (go_on(u))
		end(u);
}

/* A block is done with. */
static void next(struct upload *u)
{
	if (!u->q)
		leave(u);
	else if ((u->is_whole || u->fill.n == UPLOAD_BLOCK) && go_on(u))
		fail(u);
	else
		req_body_more(u->q);
}

static void on_block(struct loop_msg *m)
{
	struct upload *u = CONTAINER_OF(m, struct upload, pool.done);

	u->is_on_pool = false;
	buf_clear(&u->work);
	if (u->rc) {
		u->is_kept |= u->save.is_known;        /* as far as its row says it is good */
		fail(u);
	} else if (u->is_last || u->is_checkpoint) {
		save(u);
	} else {
		next(u);
	}
}

/* Give the pool what was filled. */
static enum errc go_on(struct upload *u)
{
	struct buf full = u->fill;
	struct err e = { 0 };
	enum errc rc;

	u->fill = u->work;
	u->work = full;
	u->is_last |= u->is_whole;
	u->pool = (struct pool_job){ .work = block_work, .loop = u->ctx->loop, .done = { .fn = on_block } };
	u->is_on_pool = true;
	rc = pool_submit(u->ctx->svc->pool, &u->pool, &e);
	if (rc) {                              /* else u is the pool's: not a word is written */
		u->is_on_pool = false;
		u->rc = rc;
		u->err = e;
	}
	return rc;
}

static enum errc take(void *state, const char *p, size_t n, size_t *ret_n, struct err *e)
{
	struct upload *u = state;
	size_t room = UPLOAD_BLOCK - u->fill.n;
	enum errc rc;

	*ret_n = n < room ? n : room;
	rc = buf_add(&u->fill, p, *ret_n, e);
	if (rc)
		return rc;
	if (u->fill.n < UPLOAD_BLOCK || u->is_on_pool || u->is_saving || !go_on(u))
		return E_OK;
	*e = u->err;                           /* on_gone() ends it */
	return u->rc;
}

static const struct body_ops ops = { .take = take };

static void on_gone(struct req *q)
{
	struct upload *u = q->handler_state;

	u->q = NULL;
	if (!u->is_on_pool && !u->is_saving)
		leave(u);
}

/* ---- begin ---- */

static enum errc announced(struct req *q, struct upload *u, struct err *e)
{
	int64_t totals[TOTAL__COUNT] = { 0 }, length = 0;
	enum errc rc = job_totals_get(q->ctx->reader, totals, e);

	if (rc)
		return rc;
	u->held = totals[TOTAL_HELD_FILE_BYTES];
	if (!slice_to_i64(req_header(q, "content-length"), 1, INT64_MAX / 2, &length))
		length = 1;                    /* not announced: is there any room at all? */
	rc = artifact_files_reserve(q->ctx->svc->files, u->held, length, e);
	if (!rc)
		u->reserved = length;
	return rc;
}

enum errc upload_begin(struct req *q, struct slice job_id, bool is_json, struct upload **ret, struct err *e)
{
	struct upload *u = NEW(struct upload);
	enum errc rc;

	if (!u)
		return err_set(e, E_NO_MEMORY, "no memory for an upload");
	u->q = q;
	u->ctx = q->ctx;
	u->fd = -1;
	u->status = 201;
	u->fill = u->work = BUF_MAX(UPLOAD_BLOCK);
	artifact_save_init(&u->save);
	u->save.job_id = slice_dup(job_id);
	u->is_counted = artifact_files_enter(q->ctx->svc->files, UPLOADS_MAX);
	rc = u->is_counted ? E_OK : err_set(e, E_BUSY, "uploads: %d at a time", UPLOADS_MAX);
	if (!rc)
		rc = u->save.job_id ? announced(q, u, e) : err_set(e, E_NO_MEMORY, "no memory for an upload");
	if (!rc && is_json)
		rc = upload_json_new(&u->json, e);
	if (rc) {
		on_ended(&u->pool.done);
		return rc;
	}
	q->handler_state = u;
	q->on_gone = on_gone;
	q->body_ops = &ops;
	*ret = u;
	return E_OK;
}

void upload_run(struct req *q)
{
	struct upload *u = q->handler_state;

	reply_later(q, u, on_gone);
	u->is_whole = true;
	if (!u->is_on_pool && !u->is_saving && go_on(u))
		fail(u);
}
