/* Names of artifacts. See artifact_path.h. Called by the routes and by what prepares and collects files of a job. */
#include "jobs/artifact_path.h"

#define SEGMENT_UNITS_MAX 255

/* ---- paths ---- */

/* As the protocol counts: UTF-16 units. */
static size_t units(struct slice s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		if (((unsigned char)s.p[i] & 0xc0) != 0x80)
			n += (unsigned char)s.p[i] >= 0xf0 ? 2 : 1;
	return n;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_absolute(struct slice s)
{
	return s.p[0] == '/' || (s.n > 2 && is_letter(s.p[0]) && s.p[1] == ':' && s.p[2] == '/');
}

/* Begins as the scheme of a uri does: "a:b". */
static bool has_scheme(struct slice s)
{
	size_t n = 0;

	if (!is_letter(s.p[0]))
		return false;
	while (n < s.n && (is_letter(s.p[n]) || is_digit(s.p[n]) || s.p[n] == '+' || s.p[n] == '.' || s.p[n] == '-'))
		n++;
	return n < s.n && s.p[n] == ':';
}

/* NULL: fine so far. */
static const char *reason_of(struct slice s)
{
	if (!s.n)
		return "path_required";
	if (memchr(s.p, '\0', s.n))
		return "null_byte";
	if (memchr(s.p, '\\', s.n))
		return "backslash_not_allowed";
	if (is_absolute(s))
		return "absolute_path_not_allowed";
	if (has_scheme(s))
		return "uri_path_not_allowed";
	return slice_is_utf8(s) ? NULL : "path_not_utf8";
}

static bool is_dropped(struct slice piece)
{
	return !piece.n || slice_eq(piece, SLICE("."));
}

static const char *reason_of_pieces(struct slice s)
{
	const char *reason = "path_required";
	struct slice rest = s, piece;

	while (rest.p && slice_next(&rest, '/', &piece)) {
		if (slice_eq(piece, SLICE("..")))
			return "parent_path_not_allowed";
		if (!is_dropped(piece))
			reason = NULL;
	}
	for (rest = s; !reason && rest.p && slice_next(&rest, '/', &piece);)
		if (units(piece) > SEGMENT_UNITS_MAX)
			reason = "path_segment_too_long";
	return reason;
}

enum errc artifact_path(struct slice raw, const char *label, struct buf *out, struct err *e)
{
	struct slice s = slice_trim_js(raw), rest = s, piece;
	const char *reason = reason_of(s);
	size_t from = out->n;
	enum errc rc = E_OK;

	if (!reason)
		reason = reason_of_pieces(s);
	if (!reason && s.n > ARTIFACT_PATH_MAX)
		reason = "path_too_long";
	if (reason)
		return err_set(e, E_BAD_REQUEST, "%s_%s", label, reason);
	while (!rc && rest.p && slice_next(&rest, '/', &piece)) {
		if (is_dropped(piece))
			continue;
		if (out->n > from)
			rc = buf_add(out, "/", 1, e);
		if (!rc)
			rc = buf_add_slice(out, piece, e);
	}
	return rc;
}

enum errc artifact_label(struct slice job_id, struct buf *out, struct err *e)
{
	AUTO_BUF text = BUF_MAX(job_id.n + 16);
	enum errc rc = E_OK;

	for (size_t i = 0; !rc && i < job_id.n; i++) {
		char c = job_id.p[i];

		if (((unsigned char)c & 0xc0) == 0x80)
			continue;              /* a character is one sign, beyond the basic plane two */
		if (is_letter(c) || is_digit(c) || c == '_' || c == '.' || c == '-')
			rc = buf_add(&text, &c, 1, e);
		else
			rc = buf_add(&text, "__", (unsigned char)c >= 0xf0 ? 2 : 1, e);
	}
	return rc ? rc : artifact_path(buf_slice(&text), "job_id", out, e);
}

/* ---- uris ---- */

static int hex_value(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* What is no escape stays as it is: the node's own uris are not encoded, and a file may be called "100%". */
enum errc artifact_unescape(struct slice s, struct buf *out, struct err *e)
{
	enum errc rc = E_OK;

	for (size_t i = 0; !rc && i < s.n; i++) {
		char c = s.p[i];

		if (c == '%' && i + 2 < s.n && hex_value(s.p[i + 1]) >= 0 && hex_value(s.p[i + 2]) >= 0) {
			c = (char)(hex_value(s.p[i + 1]) * 16 + hex_value(s.p[i + 2]));
			i += 2;
		}
		rc = buf_add(out, &c, 1, e);
	}
	return rc;
}

bool artifact_uri_parse(struct slice uri, struct buf *label, struct buf *path)
{
	const struct slice head = SLICE("artifact://local/");
	AUTO_BUF text = BUF_MAX(2 * ARTIFACT_PATH_MAX + 32768);
	struct slice rest, first;
	struct err ignored;

	if (!slice_starts_with(uri, head) || artifact_unescape(slice_from(uri, head.n), &text, &ignored))
		return false;
	rest = buf_slice(&text);
	if (!rest.n || !slice_next(&rest, '/', &first) || !first.n || !rest.p)
		return false;
	return !buf_add_slice(label, first, &ignored) && !artifact_path(rest, "artifact", path, &ignored);
}

/* ---- media types ---- */

const char *artifact_media_type(struct slice path)
{
	static const struct {
		const char *end, *type;
	} rows[] = {
		{ ".png", "image/png" }, { ".jpg", "image/jpeg" }, { ".jpeg", "image/jpeg" }, { ".gif", "image/gif" }, { ".webp", "image/webp" },
		{ ".exr", "image/x-exr" }, { ".tif", "image/tiff" }, { ".tiff", "image/tiff" }, { ".svg", "image/svg+xml" },
		{ ".mp4", "video/mp4" }, { ".webm", "video/webm" }, { ".mov", "video/quicktime" }, { ".mkv", "video/x-matroska" },
		{ ".mp3", "audio/mpeg" }, { ".wav", "audio/wav" }, { ".flac", "audio/flac" }, { ".ogg", "audio/ogg" },
		{ ".txt", "text/plain; charset=utf-8" }, { ".log", "text/plain; charset=utf-8" }, { ".md", "text/markdown; charset=utf-8" },
		{ ".csv", "text/csv; charset=utf-8" }, { ".html", "text/html; charset=utf-8" }, { ".json", "application/json" },
		{ ".pdf", "application/pdf" }, { ".zip", "application/zip" }, { ".gz", "application/gzip" }, { ".tgz", "application/gzip" },
		{ ".tar", "application/x-tar" }, { ".wasm", "application/wasm" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct slice end = slice_str(rows[i].end);

		if (path.n > end.n && slice_eq_nocase(slice_from(path, path.n - end.n), end))
			return rows[i].type;
	}
	return "application/octet-stream";
}
