/*
 * R7: a file inside a JSON body, as existing clients send it. Read as it comes: 128 MiB need two blocks of memory.
 * Source: direct-api.md 2.11, with its order of checks.
 */
#include "routes/generic.h"
#include "routes/node_job_gate.h"
#include "routes/upload.h"

#include "base/json.h"
#include "base/mem.h"

static enum errc keep(char **at, struct slice value, struct err *e)
{
	mem_free(*at);
	*at = slice_dup(value);
	return *at ? E_OK : err_set(e, E_NO_MEMORY, "no memory for an upload");
}

/* A number that is none of a file matches no file. */
static int64_t wanted_size(const struct json *v)
{
	int64_t n = 0;

	if (!json_is_number(v))
		return -1;
	return json_i64(v, &n) && n >= 0 ? n : INT64_MAX;
}

/* From the text as it came: a tree has no NUL in its strings. */
static enum errc read_path(struct slice body, struct buf *out, struct err *e)
{
	AUTO_BUF text = BUF_MAX(UPLOAD_JSON_REST_MAX);
	struct slice raw = { .p = "" };
	enum errc rc = E_OK;

	body = slice_trim(body);
	if (body.n && body.p[0] == '{' && json_find_member(body, "path", &raw) && raw.p[0] == '"')
		rc = json_unquote(raw, &text, e);
	return rc ? rc : artifact_path(text.p ? buf_slice(&text) : SLICE(""), "artifact_path", out, e);
}

static enum errc names(struct upload *u, const struct json *body, struct err *e)
{
	struct artifact_row *row = &u->save.row;
	struct slice name = slice_trim_js(json_slice(json_get(body, "name"))), sha256 = json_slice(json_get(body, "sha256")), rest, last;
	AUTO_BUF path = BUF_MAX(ARTIFACT_PATH_MAX + 1);
	enum errc rc = read_path(upload_json_rest(u->json), &path, e);

	if (rc)
		return rc;
	for (rest = buf_slice(&path), last = rest; rest.p && slice_next(&rest, '/', &last);)
		;
	rc = keep(&row->path, buf_slice(&path), e);
	if (!rc)
		rc = keep(&row->name, name.n ? name : last, e);
	if (!rc)
		rc = keep(&row->content_type, slice_trim_js(json_slice(json_get(body, "content_type"))), e);
	row->wanted_bytes = wanted_size(json_get(body, "size_bytes"));
	if (slice_trim_js(sha256).n && !slice_copy(sha256, u->wanted_sha256, sizeof(u->wanted_sha256)))
		memcpy(u->wanted_sha256, "-", 2);      /* longer than any, so equal to none */
	return rc;
}

/* THREAD(pool): all of it has come. */
static enum errc check(struct upload *u, struct err *e)
{
	AUTO_JSON body = NULL;
	enum errc rc = json_parse(upload_json_rest(u->json), JSON_LIMITS_DEFAULT, &body, e);

	if (!rc)
		rc = names(u, body, e);
	if (rc)
		return rc;
	if (!json_is_string(json_get(body, "content_base64")) || upload_json_content(u->json) == CONTENT_BLANK)
		return err_set(e, E_BAD_REQUEST, "content_base64_required");
	return upload_json_content(u->json) == CONTENT_FINE ? E_OK : err_set(e, E_BAD_REQUEST, "content_base64_invalid");
}

static bool is_json(struct req *q)
{
	struct slice rest = slice_trim(req_header(q, "content-type")), type = rest;

	return rest.n && slice_next(&rest, ';', &type) && slice_eq_nocase(slice_trim(type), SLICE("application/json"));
}

static bool has_body(struct req *q)
{
	struct slice length = req_header(q, "content-length");

	return (length.n && !slice_eq(length, SLICE("0"))) || req_header(q, "transfer-encoding").n;
}

enum errc route_generic_job_artifact_upload_begin(struct req *q, struct err *e)
{
	struct upload *u = NULL;
	struct slice id;
	enum errc rc = generic_gate_path(q, &id, e);

	if (rc)
		return rc;
	if (!is_json(q) || !has_body(q)) {
		q->max_body = 0;               /* whatever comes is dropped; the handler says what is wrong */
		return E_OK;
	}
	rc = upload_begin(q, id, true, &u, e);
	if (rc)
		return rc;
	u->check = check;
	return E_OK;
}

enum errc route_generic_job_artifact_upload(struct req *q, struct reply *rep, struct err *e)
{
	enum errc rc = E_OK;

	if (q->handler_state) {
		upload_run(q);
		return E_OK;
	}
	if (node_job_media(q, rep, &rc, e) || rc == E_BAD_REQUEST)
		return err_set(e, E_BAD_REQUEST, "artifact_path_path_required");
	return rc;
}
