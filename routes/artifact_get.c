/*
 * GET and HEAD of an artifact, by path or id: ranges, validators, types. The file is read on the loop as far as it is in
 * memory already, and on the pool where the disk must be waited for. Source: RFC 9110 13, 14.
 */
#include "routes/generic.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "jobs/artifact.h"

#include <stdio.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define READ_BLOCK (128u << 10)         /* what the pool reads at a time */

struct download {
	struct req *q;                  /* NULL: closed */
	struct loop_ctx *ctx;
	struct artifact_row row;
	const char *type;
	int fd;
	int64_t at, end;                /* what is still to be sent */
	bool is_on_pool, is_failed;
	struct pool_job pool;
	char *block;                    /* read by the pool; NULL until that is needed */
	size_t block_at, block_n;
	enum errc rc;
	struct err err;
};

static void download_free(struct download *d)
{
	if (d->fd >= 0)
		close(d->fd);
	artifact_row_done(&d->row);
	mem_free(d->block);
	mem_free(d);
}

/* ---- the body ---- */

static void read_work(struct pool_job *j)       /* THREAD(pool) */
{
	struct download *d = CONTAINER_OF(j, struct download, pool);
	int64_t left = d->end - d->at;
	ssize_t n = pread(d->fd, d->block, left < (int64_t)READ_BLOCK ? (size_t)left : READ_BLOCK, (off_t)d->at);

	d->is_failed = n <= 0;
	d->block_at = 0;
	d->block_n = n > 0 ? (size_t)n : 0;
}

static void on_read(struct loop_msg *m)
{
	struct download *d = CONTAINER_OF(m, struct download, pool.done);

	d->is_on_pool = false;
	if (d->q)
		reply_wake(d->q);
	else
		download_free(d);
}

static ptrdiff_t wait_for_disk(struct download *d)
{
	struct err ignored;

	d->block = d->block ? d->block : mem_alloc(READ_BLOCK);
	d->pool = (struct pool_job){ .work = read_work, .loop = d->ctx->loop, .done = { .fn = on_read } };
	if (!d->block || pool_submit(d->ctx->svc->pool, &d->pool, &ignored))
		return -2;
	d->is_on_pool = true;
	return 0;
}

static ptrdiff_t download_read(void *state, char *dst, size_t cap)
{
	struct download *d = state;
	size_t left = (size_t)(d->end - d->at), n = left < cap ? left : cap;
	struct iovec to = { .iov_base = dst, .iov_len = n };
	ssize_t got;

	if (d->is_on_pool)
		return 0;
	if (d->is_failed)
		return -2;
	if (!n)
		return -1;
	if (d->block_n) {
		n = n < d->block_n ? n : d->block_n;
		memcpy(dst, d->block + d->block_at, n);
		d->block_at += n;
		d->block_n -= n;
		d->at += (int64_t)n;
		return (ptrdiff_t)n;
	}
	got = preadv2(d->fd, &to, 1, (off_t)d->at, RWF_NOWAIT);
	if (got <= 0)
		return wait_for_disk(d);
	d->at += got;
	return got;
}

static void download_close(void *state)
{
	struct download *d = state;

	d->q = NULL;
	if (!d->is_on_pool)
		download_free(d);
}

static void download_stop(void *state)
{
	(void)state;                           /* a node that stops lets it go on until its deadline */
}

static const struct stream_ops stream = { .read = download_read, .close = download_close, .stop = download_stop };

/* ---- the head ---- */

/* RFC 9110, 5.6.7. */
static void http_date(int64_t wall_ms, char out[40])
{
	static const char days[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t at = (time_t)(wall_ms / 1000);
	struct tm t = { 0 };

	gmtime_r(&at, &t);
	snprintf(out, 40, "%s, %02d %s %d %02d:%02d:%02d GMT", days[t.tm_wday % 7], t.tm_mday, months[t.tm_mon % 12], t.tm_year + 1900,
		 t.tm_hour, t.tm_min, t.tm_sec);
}

/* What may stand in a header: what a client gave may be anything. */
static bool is_media_type(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x20 || s.p[i] > 0x7e)
			return false;
	return s.n > 2 && s.n < 200 && slice_find_char(s, '/') > 0;
}

static enum errc file_name(struct reply *rep, const char *path, struct err *e)
{
	const char *last = strrchr(path, '/');
	AUTO_BUF text = BUF_MAX(4096);
	enum errc rc = buf_add_str(&text, "inline; filename*=UTF-8''", e);

	for (const char *p = last ? last + 1 : path; !rc && *p; p++) {
		bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("-_.", *p);

		rc = is_plain ? buf_add(&text, p, 1, e) : buf_addf(&text, e, "%%%02X", (unsigned char)*p);
	}
	return rc ? rc : reply_header(rep, "content-disposition", buf_cstr(&text), e);
}

/* What a job left is nobody's page: no script of it may run in this node's name. */
static enum errc common_headers(struct reply *rep, const struct artifact_row *a, struct err *e)
{
	char etag[SHA256_HEX_LEN + 2], date[40];
	enum errc rc;

	snprintf(etag, sizeof(etag), "\"%s\"", a->sha256);
	http_date(a->made_wall_ms, date);
	rc = reply_header(rep, "etag", etag, e);
	if (!rc)
		rc = reply_header(rep, "last-modified", date, e);
	if (!rc)
		rc = reply_header(rep, "accept-ranges", "bytes", e);
	if (!rc)
		rc = reply_header(rep, "x-content-type-options", "nosniff", e);
	if (!rc)
		rc = reply_header(rep, "content-security-policy", "sandbox", e);
	if (!rc)
		rc = reply_header(rep, "cache-control", "private, no-cache", e);
	return rc ? rc : file_name(rep, a->path, e);
}

static bool has_tag(struct slice list, const char *sha256, bool is_weak_fine)
{
	struct slice rest = list, one;

	while (rest.p && rest.n && slice_next(&rest, ',', &one)) {
		one = slice_trim(one);
		if (slice_eq(one, SLICE("*")))
			return is_weak_fine;
		if (is_weak_fine && slice_starts_with(one, SLICE("W/")))
			one = slice_from(one, 2);
		if (one.n == SHA256_HEX_LEN + 1 && one.p[0] == '"' && slice_eq(slice_of(one.p + 1, one.n - 2), slice_str(sha256)))
			return true;
	}
	return false;
}

/* "bytes=a-b", "a-", "-n", one of them; what is anything else is as if it were not there. False: not to be satisfied. */
static bool read_range(struct slice header, int64_t size, int64_t *at, int64_t *end, bool *ret_is_part)
{
	struct slice rest = slice_trim(header), first;
	int64_t a = 0, b = size - 1;

	*ret_is_part = false;
	if (!slice_starts_with_nocase(rest, SLICE("bytes=")) || slice_find_char(rest, ',') >= 0)
		return true;
	rest = slice_trim(slice_from(rest, 6));
	if (!slice_next(&rest, '-', &first) || !rest.p || (!first.n && !rest.n))
		return true;
	if (first.n && !slice_to_i64(first, 0, INT64_MAX - 1, &a))
		return true;
	if (rest.n && !slice_to_i64(rest, 0, INT64_MAX - 1, &b))
		return true;
	if (!first.n) {                        /* the last b bytes */
		a = b < size ? size - b : 0;
		b = b ? size - 1 : -1;
	}
	if (first.n && rest.n && b < a)
		return true;
	*ret_is_part = true;
	*at = a;
	*end = (b < size - 1 ? b : size - 1) + 1;
	return a < size && *at < *end;
}

static bool is_range_wanted(const struct req *q, const struct artifact_row *a)
{
	struct slice condition = slice_trim(req_header(q, "if-range"));
	char date[40];

	if (!condition.n)
		return true;
	http_date(a->made_wall_ms, date);
	return condition.p[0] == '"' ? has_tag(condition, a->sha256, false) : slice_eq(condition, slice_str(date));
}

/* Status, headers, and which part; a body only with 200 and 206. */
static enum errc head(struct download *d, struct reply *rep, bool *ret_has_body, struct err *e)
{
	const struct artifact_row *a = &d->row;
	struct slice range = req_header(d->q, "range");
	bool is_part = false;
	char text[80];
	enum errc rc = common_headers(rep, a, e);

	*ret_has_body = false;
	if (rc)
		return rc;
	rep->status = 304;
	if (has_tag(req_header(d->q, "if-none-match"), a->sha256, true))
		return E_OK;
	d->at = 0;
	d->end = a->size_bytes;
	rep->status = 200;
	*ret_has_body = true;
	if (!range.n || !is_range_wanted(d->q, a))
		return E_OK;
	if (!read_range(range, a->size_bytes, &d->at, &d->end, &is_part)) {
		snprintf(text, sizeof(text), "bytes */%lld", (long long)a->size_bytes);
		rc = reply_header(rep, "content-range", text, e);
		return rc ? rc : err_set(e, E_RANGE, "range: the artifact has %lld bytes", (long long)a->size_bytes);
	}
	if (!is_part)
		return E_OK;
	rep->status = 206;
	snprintf(text, sizeof(text), "bytes %lld-%lld/%lld", (long long)d->at, (long long)(d->end - 1), (long long)a->size_bytes);
	return reply_header(rep, "content-range", text, e);
}

/* ---- open ---- */

static void open_work(struct pool_job *j)       /* THREAD(pool) */
{
	struct download *d = CONTAINER_OF(j, struct download, pool);

	d->rc = artifact_files_get(d->ctx->svc->files, d->row.key, false, &d->fd, &d->err);
}

static void on_opened(struct loop_msg *m)
{
	struct download *d = CONTAINER_OF(m, struct download, pool.done);
	struct req *q = d->q;
	bool has_body = false;

	d->is_on_pool = false;
	if (q && !d->rc)
		d->rc = head(d, &q->reply, &has_body, &d->err);
	if (!q || d->rc || !has_body) {
		if (q && d->rc)
			reply_fail(q, &d->err);
		else if (q)
			reply_done(q);
		download_free(d);
		return;
	}
	q->reply.content_type = d->type;
	q->reply.has_length = true;
	q->reply.length = d->end - d->at;
	reply_stream(q, &stream, d);
}

static void on_gone(struct req *q)
{
	struct download *d = q->handler_state;

	d->q = NULL;                           /* it is on the pool: freed when it comes back */
}

/* How far an upload is that was begun (draft-ietf-httpbis-resumable-upload, 4.3). */
static enum errc reply_progress(struct reply *rep, const struct artifact_row *a, struct err *e)
{
	char text[24];
	enum errc rc;

	snprintf(text, sizeof(text), "%lld", (long long)a->size_bytes);
	rep->status = 204;
	rc = reply_header(rep, "upload-offset", text, e);
	if (!rc)
		rc = reply_header(rep, "upload-complete", "?0", e);
	snprintf(text, sizeof(text), "%lld", (long long)a->wanted_bytes);
	if (!rc && a->wanted_bytes >= 0)
		rc = reply_header(rep, "upload-length", text, e);
	return rc ? rc : reply_header(rep, "cache-control", "no-store", e);
}

/* By its path as uploads spell it, or by its id. */
static enum errc find(struct req *q, struct artifact_row *ret, struct err *e)
{
	AUTO_BUF path = BUF_MAX(ARTIFACT_PATH_MAX + 1);
	struct slice id;
	enum errc rc = generic_gate_path(q, &id, e);

	if (!rc)
		rc = artifact_path(slice_str(q->arg[1]), "artifact_path", &path, e);
	return rc ? rc : artifacts_get(q->ctx->reader, id, buf_slice(&path), ret, e);
}

enum errc route_generic_job_artifact_get(struct req *q, struct reply *rep, struct err *e)
{
	bool is_head = slice_eq(slice_str(q->method), SLICE("HEAD"));
	struct download *d;
	AUTO_ARTIFACT row = { 0 };
	enum errc rc = find(q, &row, e);

	if (rc)
		return rc;
	if (!row.sha256[0])
		return is_head ? reply_progress(rep, &row, e) : err_set(e, E_ARTIFACT_NOT_FOUND, "the upload has not ended: %lld bytes are there",
									(long long)row.size_bytes);
	d = NEW(struct download);
	if (!d)
		return err_set(e, E_NO_MEMORY, "no memory for a download");
	d->q = q;
	d->ctx = q->ctx;
	d->fd = -1;
	d->row = row;
	row = (struct artifact_row){ 0 };
	d->type = is_media_type(slice_str(d->row.content_type)) ? d->row.content_type : artifact_media_type(slice_str(d->row.path));
	d->pool = (struct pool_job){ .work = open_work, .loop = q->ctx->loop, .done = { .fn = on_opened } };
	rc = pool_submit(q->ctx->svc->pool, &d->pool, e);
	if (rc) {
		download_free(d);
		return rc;
	}
	d->is_on_pool = true;
	reply_later(q, d, on_gone);
	return E_OK;
}
