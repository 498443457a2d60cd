/*
 * PUT and PATCH of a file as it is, whole or in pieces: draft-ietf-httpbis-resumable-upload. "Upload-Complete: ?0" keeps what
 * came for later; "Upload-Offset" goes on from there; a broken connection loses nothing of such an upload.
 */
#include "routes/generic.h"
#include "routes/upload.h"

#include "base/mem.h"

#include <stdio.h>

static enum errc keep(char **at, struct slice value, struct err *e)
{
	mem_free(*at);
	*at = slice_dup(value);
	return *at ? E_OK : err_set(e, E_NO_MEMORY, "no memory for an upload");
}

static struct slice last_of(struct slice path)
{
	struct slice rest = path, last = path;

	while (rest.p && slice_next(&rest, '/', &last))
		;
	return last;
}

/* ?0 or ?1; *ret_has: it is there. */
static enum errc read_bool(struct req *q, const char *name, bool *ret, bool *ret_has, struct err *e)
{
	struct slice v = slice_trim(req_header(q, name));

	*ret_has = v.n > 0;
	*ret = slice_eq(v, SLICE("?1"));
	return !v.n || *ret || slice_eq(v, SLICE("?0")) ? E_OK : err_set(e, E_INVALID_VALUE, "%s: ?0 or ?1", name);
}

static enum errc read_number(struct req *q, const char *name, int64_t *ret, bool *ret_has, struct err *e)
{
	struct slice v = slice_trim(req_header(q, name));

	*ret_has = v.n > 0;
	return !v.n || slice_to_i64(v, 0, INT64_MAX / 2, ret) ? E_OK : err_set(e, E_INVALID_VALUE, "%s: a number of bytes", name);
}

/* "Repr-Digest: sha-256=:<base64>:" (RFC 9530), of the whole file. Other algorithms are passed over. */
static enum errc read_digest(struct req *q, char out[SHA256_HEX_LEN], struct err *e)
{
	struct slice rest = req_header(q, "repr-digest"), one, text;
	AUTO_BUF sum = BUF_MAX(256);

	while (rest.n && rest.p && slice_next(&rest, ',', &one)) {
		one = slice_trim(one);
		if (!slice_starts_with_nocase(one, SLICE("sha-256=:")) || !slice_ends_with(one, SLICE(":")) || one.n < 10)
			continue;
		text = slice_of(one.p + 9, one.n - 10);
		if (crypto_base64_decode(text, &sum, e) || sum.n != SHA256_LEN)
			return err_set(e, E_INVALID_VALUE, "repr-digest: sha-256 is %d bytes in base64 between colons", SHA256_LEN);
		crypto_hex((const uint8_t *)sum.p, sum.n, out);
	}
	return E_OK;
}

struct wish {
	int64_t offset, length;
	bool has_offset, has_length, is_complete, has_complete;
	char sha256[SHA256_HEX_LEN];
};

static enum errc read_wish(struct req *q, struct wish *w, struct err *e)
{
	enum errc rc = read_bool(q, "upload-complete", &w->is_complete, &w->has_complete, e);

	if (!rc)
		rc = read_number(q, "upload-offset", &w->offset, &w->has_offset, e);
	if (!rc)
		rc = read_number(q, "upload-length", &w->length, &w->has_length, e);
	if (!rc)
		rc = read_digest(q, w->sha256, e);
	if (!rc && slice_eq(slice_str(q->method), SLICE("PATCH")) && !w->has_offset)
		rc = err_set(e, E_BAD_REQUEST, "upload-offset: a PATCH says where it goes on");
	if (!rc && w->has_offset && !w->has_complete)
		w->is_complete = true;         /* the last piece, when it says nothing */
	return rc;
}

/* What is there of it, which must be exactly up to the offset. */
static enum errc find_begun(struct req *q, struct slice job_id, struct slice path, const struct wish *w, struct artifact_row *ret, struct err *e)
{
	AUTO_ARTIFACT a = { 0 };
	char text[24];
	enum errc rc = artifacts_get(q->ctx->reader, job_id, path, &a, e);

	if (!rc && (a.is_output || a.sha256[0]))
		return err_set(e, E_CONFLICT, "artifact_upload_target_exists");
	if (rc)
		return rc;
	if (a.size_bytes != w->offset) {
		snprintf(text, sizeof(text), "%lld", (long long)a.size_bytes);
		rc = reply_header(&q->reply, "upload-offset", text, e);
		return rc ? rc : err_set(e, E_CONFLICT, "upload-offset: %lld is given, %s is where it goes on", (long long)w->offset, text);
	}
	*ret = a;
	a = (struct artifact_row){ 0 };
	return E_OK;
}

/* "content-disposition: …; filename*=UTF-8''<escaped>" (RFC 6266), else the path's last part. */
static enum errc read_name(struct req *q, struct slice path, char **ret, struct err *e)
{
	struct slice header = req_header(q, "content-disposition"), text;
	ptrdiff_t at = slice_find(header, SLICE("filename*=UTF-8''"));
	AUTO_BUF name = BUF_MAX(4096);
	enum errc rc = E_OK;

	if (at < 0)
		return keep(ret, last_of(path), e);
	text = slice_from(header, (size_t)at + 17);
	if (slice_find_char(text, ';') >= 0)
		text = slice_cut(text, (size_t)slice_find_char(text, ';'));
	rc = artifact_unescape(text, &name, e);
	if (!rc && (!name.n || !slice_is_utf8(buf_slice(&name)) || slice_find_char(buf_slice(&name), '\0') >= 0))
		rc = err_set(e, E_INVALID_VALUE, "content-disposition: filename* is no name");
	return rc ? rc : keep(ret, buf_slice(&name), e);
}

/* The row of an upload that begins. */
static enum errc fill_row(struct req *q, struct slice path, struct artifact_row *row, struct err *e)
{
	enum errc rc = keep(&row->path, path, e);

	if (!rc)
		rc = read_name(q, path, &row->name, e);
	if (!rc)
		rc = keep(&row->content_type, slice_trim(req_header(q, "content-type")), e);
	return rc ? rc : keep(&row->id, SLICE("upload_"), e);
}

static enum errc begin(struct req *q, struct slice job_id, struct slice path, const struct wish *w, struct err *e)
{
	AUTO_ARTIFACT row = { .wanted_bytes = -1 };
	bool goes_on = w->has_offset && w->offset > 0;
	struct upload *u = NULL;
	enum errc rc = goes_on ? find_begun(q, job_id, path, w, &row, e) : fill_row(q, path, &row, e);

	if (!rc)
		rc = upload_begin(q, job_id, false, &u, e);
	if (rc)
		return rc;
	artifact_row_done(&u->save.row);
	u->save.row = row;
	row = (struct artifact_row){ 0 };
	if (w->has_length)
		u->save.row.wanted_bytes = w->length;
	memcpy(u->wanted_sha256, w->sha256, sizeof(u->wanted_sha256));
	u->save.is_known = u->is_kept = goes_on;
	u->is_resumable = w->has_complete || w->has_offset;
	u->is_incomplete = u->is_resumable && !w->is_complete;
	u->status = u->is_incomplete && goes_on ? 204 : 201;
	return E_OK;
}

enum errc route_generic_job_artifact_put_begin(struct req *q, struct err *e)
{
	AUTO_BUF path = BUF_MAX(ARTIFACT_PATH_MAX + 1);
	struct wish w = { 0 };
	struct slice id;
	enum errc rc = generic_gate_path(q, &id, e);

	if (!rc)
		rc = artifact_path(slice_str(q->arg[1]), "artifact_path", &path, e);
	if (!rc)
		rc = read_wish(q, &w, e);
	return rc ? rc : begin(q, id, buf_slice(&path), &w, e);
}

enum errc route_generic_job_artifact_put(struct req *q, struct reply *rep, struct err *e)
{
	(void)rep;
	(void)e;
	upload_run(q);
	return E_OK;
}

enum errc route_generic_job_artifact_patch_begin(struct req *q, struct err *e)
{
	return route_generic_job_artifact_put_begin(q, e);
}

enum errc route_generic_job_artifact_patch(struct req *q, struct reply *rep, struct err *e)
{
	return route_generic_job_artifact_put(q, rep, e);
}
