/*
 * See upload_json.h. The scan is only as strict as it must be to find the one member: what it lets through wrongly, the
 * parser of the rest refuses. Called by upload.c, on the pool.
 */
#include "routes/upload_json.h"

#include "base/json.h"
#include "base/mem.h"

#define KEY "content_base64"
#define KEY_MAX 256
#define OUT_MAX (48u << 10)

enum place {
	PLACE_OUTSIDE,                  /* of any string */
	PLACE_STRING,
	PLACE_ESCAPE,                   /* behind a backslash */
	PLACE_CONTENT, PLACE_CONTENT_ESCAPE, PLACE_CONTENT_UNICODE,
};

struct upload_json {
	enum place place;
	unsigned depth;
	bool is_key_next;               /* at depth 1: the next string is a member's name */
	bool is_in_key;
	bool is_content_next;           /* the value that comes is the content */
	size_t key_at;                  /* in rest, of the name's opening quote */
	struct buf rest;
	/* content */
	uint32_t bits;
	unsigned bit_count, pads, unicode, unicode_n;
	uint64_t signs;                 /* without blanks, padding included */
	bool is_invalid, has_content;
	char out[OUT_MAX];
	size_t out_n;
};

enum errc upload_json_new(struct upload_json **ret, struct err *e)
{
	struct upload_json *j = NEW(struct upload_json);

	if (!j)
		return err_set(e, E_NO_MEMORY, "no memory for an upload");
	j->rest = BUF_MAX(UPLOAD_JSON_REST_MAX);
	*ret = j;
	return E_OK;
}

void upload_json_free(struct upload_json *j)
{
	if (!j)
		return;
	buf_done(&j->rest);
	mem_free(j);
}

/* ---- content ---- */

static int value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static enum errc flush(struct upload_json *j, upload_sink *sink, void *ctx, struct err *e)
{
	size_t n = j->out_n;

	j->out_n = 0;
	return n ? sink(ctx, slice_of(j->out, n), e) : E_OK;
}

/* One sign of the text, blanks dropped. Room for one more byte in out is the caller's to keep. */
static void take_sign(struct upload_json *j, char c)
{
	int v = value_of(c);

	if (c == ' ' || (c >= '\t' && c <= '\r'))
		return;
	j->signs++;
	if (c == '=') {
		j->is_invalid |= ++j->pads > 2 || j->signs == 1;
		return;
	}
	if (v < 0 || j->pads) {
		j->is_invalid = true;
		return;
	}
	j->bits = j->bits << 6 | (uint32_t)v;
	j->bit_count += 6;
	if (j->bit_count >= 8) {
		j->bit_count -= 8;
		j->out[j->out_n++] = (char)(uint8_t)(j->bits >> j->bit_count);
	}
}

static enum errc bad(struct err *e, const char *what)
{
	return err_set(e, E_BAD_JSON, "content_base64: %s", what);
}

static enum errc take_escape(struct upload_json *j, char c, struct err *e)
{
	j->place = PLACE_CONTENT;
	switch (c) {
	case 'u':
		j->place = PLACE_CONTENT_UNICODE;
		j->unicode = j->unicode_n = 0;
		return E_OK;
	case 'n':
	case 'r':
	case 't':
	case 'f':
		return E_OK;                   /* blanks */
	case '/':
		take_sign(j, c);
		return E_OK;
	case 'b':
	case '"':
	case '\\':
		j->is_invalid = true;
		j->signs++;
		return E_OK;
	default:
		return bad(e, "an escape that JSON does not have");
	}
}

static enum errc take_unicode(struct upload_json *j, char c, struct err *e)
{
	int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

	if (v < 0)
		return bad(e, "an escape that JSON does not have");
	j->unicode = j->unicode << 4 | (unsigned)v;
	if (++j->unicode_n < 4)
		return E_OK;
	j->place = PLACE_CONTENT;
	if (j->unicode == 0xa0 || j->unicode == 0xfeff || j->unicode == 0x2028 || j->unicode == 0x2029)
		return E_OK;                   /* blanks of the protocol's language */
	take_sign(j, j->unicode < 0x80 ? (char)j->unicode : '\x7f');
	return E_OK;
}

static enum errc end_content(struct upload_json *j, struct err *e)
{
	j->place = PLACE_OUTSIDE;
	j->is_invalid |= j->signs % 4 == 1;
	return buf_add(&j->rest, "\"", 1, e);
}

/* As many bytes of the content as there are; the rest is the caller's again. */
static enum errc take_content(struct upload_json *j, struct slice *s, upload_sink *sink, void *ctx, struct err *e)
{
	enum errc rc = E_OK;
	size_t i = 0;

	while (!rc && i < s->n && j->place >= PLACE_CONTENT) {
		char c = s->p[i++];

		if (j->place == PLACE_CONTENT_ESCAPE)
			rc = take_escape(j, c, e);
		else if (j->place == PLACE_CONTENT_UNICODE)
			rc = take_unicode(j, c, e);
		else if (c == '"')
			rc = end_content(j, e);
		else if (c == '\\')
			j->place = PLACE_CONTENT_ESCAPE;
		else if ((unsigned char)c < 0x20)
			rc = bad(e, "a control byte");
		else
			take_sign(j, c);
		if (!rc && (j->out_n == OUT_MAX || j->place < PLACE_CONTENT))
			rc = flush(j, sink, ctx, e);
	}
	*s = slice_from(*s, i);
	return rc ? rc : flush(j, sink, ctx, e);
}

/* ---- the rest ---- */

static void end_key(struct upload_json *j)
{
	AUTO_BUF name = BUF_MAX(KEY_MAX);
	struct slice token = slice_from(buf_slice(&j->rest), j->key_at);
	struct err ignored;

	j->is_in_key = false;
	j->is_content_next = token.n <= KEY_MAX && !json_unquote(token, &name, &ignored) && slice_eq(buf_slice(&name), SLICE(KEY));
}

/* Doubled members: the last one counts, so what an earlier one brought is not the file. */
static enum errc begin_content(struct upload_json *j, struct err *e)
{
	if (j->has_content)
		return err_set(e, E_BAD_REQUEST, "content_base64: given twice");
	j->has_content = true;
	j->is_content_next = false;
	j->place = PLACE_CONTENT;
	return E_OK;
}

static enum errc take_outside(struct upload_json *j, char c, struct err *e)
{
	switch (c) {
	case '"':
		if (j->is_content_next)
			return begin_content(j, e);
		j->place = PLACE_STRING;
		j->is_in_key = j->depth == 1 && j->is_key_next;
		j->key_at = j->rest.n - 1;
		j->is_key_next = false;
		break;
	case '{':
	case '[':
		j->depth++;
		j->is_key_next = j->depth == 1 && c == '{';
		j->is_content_next = false;
		break;
	case '}':
	case ']':
		j->depth -= j->depth > 0;
		break;
	case ',':
		j->is_key_next = j->depth == 1;
		j->is_content_next = false;
		break;
	default:
		break;
	}
	return E_OK;
}

static enum errc take_rest(struct upload_json *j, char c, struct err *e)
{
	enum errc rc = buf_add(&j->rest, &c, 1, e);

	if (rc)
		return rc;
	if (j->place == PLACE_OUTSIDE)
		return take_outside(j, c, e);
	if (j->place == PLACE_ESCAPE) {
		j->place = PLACE_STRING;
	} else if (c == '\\') {
		j->place = PLACE_ESCAPE;
	} else if (c == '"') {
		j->place = PLACE_OUTSIDE;
		if (j->is_in_key)
			end_key(j);
	}
	return E_OK;
}

enum errc upload_json_feed(struct upload_json *j, struct slice bytes, upload_sink *sink, void *ctx, struct err *e)
{
	enum errc rc = E_OK;

	while (!rc && bytes.n) {
		if (j->place >= PLACE_CONTENT) {
			rc = take_content(j, &bytes, sink, ctx, e);
		} else {
			rc = take_rest(j, bytes.p[0], e);
			bytes = slice_from(bytes, 1);
		}
	}
	return rc;
}

struct slice upload_json_rest(const struct upload_json *j)
{
	return j->rest.p ? buf_slice(&j->rest) : SLICE("");
}

enum upload_content upload_json_content(const struct upload_json *j)
{
	if (!j->signs && !j->is_invalid)
		return CONTENT_BLANK;
	return j->is_invalid ? CONTENT_INVALID : CONTENT_FINE;
}
