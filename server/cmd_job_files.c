/*
 * job artifact upload, job download: files to a node and from it. Both go on where a broken connection, or a node that was
 * restarted, left them; on a terminal a bar shows how far they are. Main thread, blocking.
 */
#include "server/job_session.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (8u << 20)                /* of an upload: what is lost at most when a connection breaks */
#define AGAIN_MS 500
#define AGAIN_MAX 120
#define BAR_WIDTH 30
#define BAR_EVERY_MS 100

/* ---- the bar ---- */

struct bar {
	const char *name;
	int64_t total;                  /* -1: unknown */
	int64_t shown_mono_ms;
	bool is_on;
};

static void bar_show(struct bar *b, int64_t done, bool is_last)
{
	static const char full[] = "##############################";
	int64_t now = clock_mono_ms();
	int filled = b->total > 0 ? (int)(done * BAR_WIDTH / b->total) : BAR_WIDTH;

	if (!b->is_on || (!is_last && now - b->shown_mono_ms < BAR_EVERY_MS))
		return;
	b->shown_mono_ms = now;
	filled = filled > BAR_WIDTH ? BAR_WIDTH : filled;
	fprintf(stderr, "\r%.40s [%.*s%*s] %.1f of %.1f MiB%s", b->name, filled, full, BAR_WIDTH - filled, "", (double)done / 1048576.0,
		(double)(b->total < 0 ? done : b->total) / 1048576.0, is_last ? "\n" : "");
	fflush(stderr);
}

static struct bar bar_new(const struct job_session *s, const char *name, int64_t total)
{
	return (struct bar){ .name = name, .total = total, .is_on = !s->w.is_json && isatty(STDERR_FILENO) };
}

/* ---- requests ---- */

static enum errc url_of(struct job_session *s, const char *artifact, struct buf *out, struct err *e)
{
	enum errc rc = session_path(s, "/artifacts/", out, e);

	return rc ? rc : session_escape(artifact, true, out, e);
}

static enum errc refused(struct job_session *s, struct err *e)
{
	return err_set(e, E_BAD_REQUEST, "mswarm request failed (%d): %.180s", s->client.status, s->client.body.n ? buf_cstr(&s->client.body) : "");
}

/* No answer, or one that says "later": worth another try. */
static bool is_passing(const struct job_session *s, enum errc rc)
{
	return rc == E_UPSTREAM || rc == E_TIMEOUT || (!rc && s->client.status == 503);
}

static enum errc send_piece(struct job_session *s, struct client_piece *p, struct err *e)
{
	enum errc rc = client_token(&s->client, TOKEN_GENERIC, s->job_id, s->request_id, s->job_type, &s->token, e);

	p->token = buf_slice(&s->token);
	return rc ? rc : client_send(&s->client, p, e);
}

/* ---- upload ---- */

struct upload {
	struct job_session *s;
	const char *file;
	int fd;
	int64_t size, at;
	struct buf url, digest, type, disposition;
	char *block;
	char sha256[SHA256_HEX_LEN];
	struct bar bar;
};

static void upload_done(struct upload *u)
{
	if (u->fd >= 0)
		close(u->fd);
	buf_done(&u->url);
	buf_done(&u->digest);
	buf_done(&u->type);
	buf_done(&u->disposition);
	mem_free(u->block);
}

static enum errc fail_file(const char *path, struct err *e)
{
	return err_set_os(e, E_IO, errno, "%.180s", path);
}

static enum errc read_block(struct upload *u, int64_t at, size_t *ret_n, struct err *e)
{
	int64_t left = u->size - at;
	size_t want = left < (int64_t)PIECE ? (size_t)left : PIECE, have = 0;

	while (have < want) {
		ssize_t n = pread(u->fd, u->block + have, want - have, (off_t)(at + (int64_t)have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_file(u->file, e);
		if (!n)
			return err_set(e, E_IO, "%.180s: it became shorter while it was read", u->file);
		have += (size_t)n;
	}
	*ret_n = want;
	return E_OK;
}

/* Of the whole, so that the node can say that it has all of it rightly. */
static enum errc add_digest(struct upload *u, struct err *e)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	struct sha256 sha = { 0 };
	uint8_t sum[SHA256_LEN + 1] = { 0 };
	size_t n = 0;
	enum errc rc = sha256_begin(&sha, e);

	for (int64_t at = 0; !rc && at < u->size; at += (int64_t)n) {
		rc = read_block(u, at, &n, e);
		if (!rc)
			sha256_add(&sha, slice_of(u->block, n));
	}
	if (rc) {
		sha256_done(&sha);
		return rc;
	}
	sha256_end(&sha, sum);
	crypto_hex(sum, SHA256_LEN, u->sha256);
	rc = buf_add_str(&u->digest, "repr-digest: sha-256=:", e);
	for (size_t i = 0; !rc && i < SHA256_LEN + 1; i += 3) {
		uint32_t v = (uint32_t)sum[i] << 16 | (uint32_t)sum[i + 1] << 8 | sum[i + 2];
		const char four[] = { alphabet[v >> 18], alphabet[v >> 12 & 63], alphabet[v >> 6 & 63], i + 2 < SHA256_LEN ? alphabet[v & 63] : '=' };

		rc = buf_add(&u->digest, four, 4, e);
	}
	return rc ? rc : buf_add_str(&u->digest, ":", e);
}

static enum errc upload_open(struct upload *u, struct err *e)
{
	const struct job_words *w = &u->s->w;
	const char *slash = strrchr(u->file, '/'), *base = slash ? slash + 1 : u->file;
	struct stat st;
	enum errc rc;

	u->fd = open(u->file, O_RDONLY | O_CLOEXEC);
	if (u->fd < 0 || fstat(u->fd, &st))
		return fail_file(u->file, e);
	if (!S_ISREG(st.st_mode))
		return err_set(e, E_BAD_REQUEST, "%.180s: not a regular file", u->file);
	u->size = st.st_size;
	u->block = mem_alloc(PIECE);
	u->bar = bar_new(u->s, base, u->size);
	if (!u->block)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = url_of(u->s, w->artifact_path ? w->artifact_path : base, &u->url, e);
	if (!rc && w->content_type)
		rc = buf_addf(&u->type, e, "content-type: %s", w->content_type);
	if (!rc && w->artifact_name)
		rc = buf_add_str(&u->disposition, "content-disposition: attachment; filename*=UTF-8''", e);
	if (!rc && w->artifact_name)
		rc = session_escape(w->artifact_name, false, &u->disposition, e);
	return rc ? rc : add_digest(u, e);
}

/* One piece from u->at on. A file of one piece is sent whole, like any client would. */
static enum errc put(struct upload *u, struct err *e)
{
	bool is_first = u->at == 0, is_last;
	const char *headers[8] = { buf_cstr(&u->digest) };
	char offset[48], length[48];
	size_t n = 1, size = 0;
	enum errc rc = read_block(u, u->at, &size, e);

	if (rc)
		return rc;
	is_last = u->at + (int64_t)size == u->size;
	snprintf(offset, sizeof(offset), "upload-offset: %lld", (long long)u->at);
	snprintf(length, sizeof(length), "upload-length: %lld", (long long)u->size);
	headers[n++] = is_last ? "upload-complete: ?1" : "upload-complete: ?0";
	headers[n++] = length;
	if (!is_first)
		headers[n++] = offset;
	if (u->type.n)
		headers[n++] = buf_cstr(&u->type);
	if (u->disposition.n)
		headers[n++] = buf_cstr(&u->disposition);
	struct client_piece p = { .method = is_first ? "PUT" : "PATCH", .path = buf_cstr(&u->url), .body = slice_of(u->block, size), .headers = headers };

	rc = send_piece(u->s, &p, e);
	if (!rc && u->s->client.status / 100 == 2)
		u->at += (int64_t)size;
	return rc;
}

/* It came whole, and only the answer was lost: when it is this file, all is well. */
static enum errc check_whole(struct upload *u, struct err *e)
{
	struct client_piece p = { .method = "HEAD", .path = buf_cstr(&u->url), .header_wanted = "etag:" };
	enum errc rc = send_piece(u->s, &p, e);

	if (rc)
		return rc;
	if (!strstr(u->s->client.header, u->sha256))
		return err_set(e, E_CONFLICT, "%.100s: the node has another file at this path", u->file);
	u->at = u->size;
	buf_clear(&u->s->client.body);
	return buf_addf(&u->s->client.body, e, "{\"artifact\":{\"size_bytes\":%lld,\"sha256\":\"%s\"}}", (long long)u->size, u->sha256);
}

/* Where it goes on after a break. */
static enum errc ask_offset(struct upload *u, bool *ret_is_whole, struct err *e)
{
	struct client_piece p = { .method = "HEAD", .path = buf_cstr(&u->url), .header_wanted = "upload-offset:" };
	enum errc rc = send_piece(u->s, &p, e);

	if (rc)
		return rc;
	*ret_is_whole = u->s->client.status == 200;
	if (u->s->client.status != 204 || !slice_to_i64(slice_str(u->s->client.header), 0, u->size, &u->at))
		u->at = 0;
	return E_OK;
}

static enum errc upload(struct upload *u, struct err *e)
{
	unsigned tries = 0;
	bool is_whole = false;

	do {
		int64_t before = u->at;
		enum errc rc = put(u, e);
		bool is_elsewhere = !rc && u->s->client.status == 409 && before > 0;   /* or a lost connection still has it */

		if (!rc && u->s->client.status / 100 == 2) {
			tries = 0;
		} else if ((is_passing(u->s, rc) || is_elsewhere) && ++tries <= AGAIN_MAX) {
			client_pause(&u->s->client, AGAIN_MS);
			rc = ask_offset(u, &is_whole, e);
			if (rc)
				u->at = before;        /* still away: tried again with what is known */
		} else {
			return rc ? rc : refused(u->s, e);
		}
		bar_show(&u->bar, u->at, false);
	} while (u->at < u->size && !is_whole);
	bar_show(&u->bar, u->size, true);
	return is_whole ? check_whole(u, e) : E_OK;
}

int cmd_job_artifact_upload(struct cli *c)
{
	CLEANUP(session_done) struct job_session s = { 0 };
	CLEANUP(upload_done) struct upload u = { .s = &s, .fd = -1, .url = BUF_MAX(64u << 10), .digest = BUF_MAX(256), .type = BUF_MAX(1024),
						 .disposition = BUF_MAX(16u << 10) };
	struct err e = { 0 };
	enum errc rc = session_load(c, &s, false, 1, &e);

	if (!rc && !s.n)
		rc = err_set(&e, E_BAD_REQUEST, "a file to upload is required");
	if (!rc && !s.w.job_id)
		rc = err_set(&e, E_BAD_REQUEST, "jobId is required");
	if (!rc)
		rc = session_keep(&s.job_id, s.w.job_id, &e);
	u.file = s.words[0];
	if (!rc)
		rc = upload_open(&u, &e);
	if (!rc)
		rc = upload(&u, &e);
	if (!rc)
		rc = json_parse(buf_slice(&s.client.body), JSON_LIMITS_DEFAULT, &s.answer, &e);
	return rc ? cli_fail(&e) : session_print(&s);
}

/* ---- download ---- */

struct download {
	struct job_session *s;
	struct buf url, part;           /* part: "<target>.part" */
	const char *target;
	int fd;
	int64_t at;
	bool is_begun;                  /* this request has brought bytes */
	char etag[80];
	struct err err;                 /* of the disk */
	struct bar bar;
};

static void download_done(struct download *d)
{
	if (d->fd >= 0)
		close(d->fd);
	buf_done(&d->url);
	buf_done(&d->part);
}

static bool on_bytes(void *ctx, struct slice bytes)
{
	struct download *d = ctx;

	if (!d->is_begun && d->s->client.status == 200 && d->at) {     /* the file has changed: all of it again */
		d->at = 0;
		if (ftruncate(d->fd, 0)) {
			(void)fail_file(d->target, &d->err);
			return false;
		}
	}
	d->is_begun = true;
	while (bytes.n) {
		ssize_t n = pwrite(d->fd, bytes.p, bytes.n, (off_t)d->at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			(void)fail_file(d->target, &d->err);
			return false;
		}
		d->at += n;
		bytes = slice_from(bytes, (size_t)n);
	}
	bar_show(&d->bar, d->at, false);
	return true;
}

/* The rest of the file, as long as it is still the one that was begun. */
static enum errc get_rest(struct download *d, struct err *e)
{
	char range[64], same[96];
	const char *headers[3] = { NULL };
	struct client_piece p = { .method = "GET", .path = buf_cstr(&d->url), .headers = headers, .header_wanted = "etag:", .on_bytes = on_bytes, .ctx = d };
	enum errc rc;

	d->is_begun = false;
	snprintf(range, sizeof(range), "range: bytes=%lld-", (long long)d->at);
	snprintf(same, sizeof(same), "if-range: %s", d->etag);
	if (d->at && d->etag[0]) {
		headers[0] = range;
		headers[1] = same;
	}
	rc = send_piece(d->s, &p, e);
	if (d->s->client.header[0])
		snprintf(d->etag, sizeof(d->etag), "%.79s", d->s->client.header);
	return rc;
}

/* The ETag is the content's SHA-256: what lies on the disk must be it. */
static enum errc check(struct download *d, struct err *e)
{
	struct sha256 sha = { 0 };
	AUTO_FREE char *block = mem_alloc(PIECE);
	uint8_t sum[SHA256_LEN];
	char hex[SHA256_HEX_LEN], tag[SHA256_HEX_LEN + 2];
	enum errc rc = block ? sha256_begin(&sha, e) : err_set(e, E_NO_MEMORY, "no memory");

	for (int64_t at = 0; !rc && at < d->at;) {
		ssize_t n = pread(d->fd, block, PIECE, (off_t)at);

		if (n <= 0)
			rc = fail_file(d->target, e);
		else
			sha256_add(&sha, slice_of(block, (size_t)n));
		at += n > 0 ? n : 0;
	}
	if (rc) {
		sha256_done(&sha);
		return rc;
	}
	sha256_end(&sha, sum);
	crypto_hex(sum, sizeof(sum), hex);
	snprintf(tag, sizeof(tag), "\"%s\"", hex);
	if (strcmp(tag, d->etag) != 0)
		return err_set(e, E_UPSTREAM, "%.120s: what came is not what the node has (%.12s, not %.13s)", d->target, hex, d->etag);
	return fsync(d->fd) ? fail_file(d->target, e) : E_OK;
}

static enum errc make_parents(const char *path, struct err *e)
{
	AUTO_FREE char *copy = mem_strdup(path);

	if (!copy)
		return err_set(e, E_NO_MEMORY, "no memory");
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0755) && errno != EEXIST)
			return fail_file(copy, e);
		*slash = '/';
	}
	return E_OK;
}

static enum errc download(struct download *d, const char *artifact, struct err *e)
{
	unsigned tries = 0;
	enum errc rc = url_of(d->s, artifact, &d->url, e);

	if (!rc)
		rc = make_parents(d->target, e);
	if (!rc)
		rc = buf_addf(&d->part, e, "%s.part", d->target);
	if (rc)
		return rc;
	d->fd = open(buf_cstr(&d->part), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (d->fd < 0)
		return fail_file(buf_cstr(&d->part), e);
	for (;;) {
		int64_t before = d->at;

		rc = get_rest(d, e);
		if (d->err.code) {
			*e = d->err;
			return e->code;
		}
		if (d->at > before)
			tries = 0;
		if (!is_passing(d->s, rc) || ++tries > AGAIN_MAX)
			break;
		client_pause(&d->s->client, AGAIN_MS);
	}
	if (!rc && d->s->client.status != 200 && d->s->client.status != 206)
		rc = refused(d->s, e);
	if (!rc)
		rc = check(d, e);
	if (!rc && rename(buf_cstr(&d->part), d->target))
		rc = fail_file(d->target, e);
	if (rc)
		(void)unlink(buf_cstr(&d->part));
	else
		bar_show(&d->bar, d->at, true);
	return rc;
}

/* One file; its name is printed when it is there. */
static enum errc fetch(struct job_session *s, const char *artifact, const char *target, int64_t size, struct buf *out, struct err *e)
{
	CLEANUP(download_done) struct download d = { .s = s, .fd = -1, .url = BUF_MAX(64u << 10), .part = BUF_MAX(8192), .target = target };
	enum errc rc;

	d.bar = bar_new(s, artifact, size);
	rc = download(&d, artifact, e);
	return rc ? rc : buf_addf(out, e, "%s\n", target);
}

/* The path within a uri "artifact://local/<label>/<path>"; NULL: none that may be written here. */
static const char *path_within(const struct json *artifact)
{
	const char *uri = json_str(json_get(artifact, "uri")), *root = json_str(json_get(json_get(artifact, "store"), "root_uri"));
	size_t n = root ? strlen(root) : 0;
	struct slice rest, piece;

	if (!uri || !root || strncmp(uri, root, n) != 0 || uri[n] != '/' || !uri[n + 1])
		return NULL;
	for (rest = slice_str(uri + n + 1); rest.p && slice_next(&rest, '/', &piece);)
		if (!piece.n || slice_eq(piece, SLICE("..")) || slice_eq(piece, SLICE(".")))
			return NULL;
	return uri + n + 1;
}

/* Everything that the job left, under one folder. */
static enum errc fetch_all(struct job_session *s, struct buf *out, struct err *e)
{
	const char *folder = s->w.output ? s->w.output : ".";
	AUTO_JSON list = NULL;
	enum errc rc = session_call(s, "GET", "/artifacts", e);

	if (rc)
		return rc;
	list = TAKE(s->answer);
	if (!json_count(json_get(list, "artifacts")))
		return err_set(e, E_ARTIFACT_NOT_FOUND, "the job left no files");
	for (const struct json *a = json_first(json_get(list, "artifacts")); !rc && a; a = json_next(a)) {
		const char *path = path_within(a);
		AUTO_FREE char *target = path ? file_join(folder, path) : NULL;
		int64_t size = -1;

		(void)!json_i64(json_get(a, "size_bytes"), &size);
		if (!path)
			return err_set(e, E_UPSTREAM, "the node named a file that cannot be written here");
		rc = target ? fetch(s, path, target, size, out, e) : err_set(e, E_NO_MEMORY, "no memory");
	}
	return rc;
}

int cmd_job_download(struct cli *c)
{
	CLEANUP(session_done) struct job_session s = { 0 };
	AUTO_BUF out = BUF_MAX(64u << 20);
	struct err e = { 0 };
	const char *slash;
	enum errc rc = session_load(c, &s, true, 1, &e);

	if (!rc && s.n) {
		slash = strrchr(s.words[0], '/');
		rc = fetch(&s, s.words[0], s.w.output ? s.w.output : slash ? slash + 1 : s.words[0], -1, &out, &e);
	} else if (!rc) {
		rc = fetch_all(&s, &out, &e);
	}
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}
