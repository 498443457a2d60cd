/* Raw JSON values: compare, count, compact, quote. Used by the chat, chunk and completion files, any thread. */
#include "llm/raw.h"

#include "base/jw.h"

#include <inttypes.h>
#include <stdio.h>

static bool decoded_is(struct slice body, const char *text)
{
	AUTO_BUF b = BUF_MAX(body.n + 16);
	AUTO_BUF token = BUF_MAX(body.n + 16);
	struct err e;

	if (buf_add(&token, "\"", 1, &e) || buf_add_slice(&token, body, &e) || buf_add(&token, "\"", 1, &e))
		return false;
	return !json_unquote(buf_slice(&token), &b, &e) && slice_eq(buf_slice(&b), slice_str(text));
}

bool raw_body_is(struct slice body, const char *text)
{
	size_t n = strlen(text);

	if (body.n == n && memcmp(body.p, text, n) == 0)
		return true;
	/* an escape makes it longer than what it stands for, at most six times */
	return body.n > n && body.n <= 6 * n && memchr(body.p, '\\', body.n) != NULL && decoded_is(body, text);
}

bool raw_to_i64(struct slice v, int64_t lo, int64_t hi, int64_t *ret)
{
	double d;

	if (raw_kind_of(v) != RAW_NUMBER)
		return false;
	if (slice_to_i64(v, lo, hi, ret))
		return true;
	if (slice_find_char(v, '.') < 0 && slice_find_char(v, 'e') < 0 && slice_find_char(v, 'E') < 0)
		return false;
	if (!slice_to_f64(v, &d) || d < -9007199254740992.0 || d > 9007199254740992.0 || d < (double)lo || d > (double)hi)
		return false;
	if ((double)(int64_t)d != d)
		return false;
	*ret = (int64_t)d;
	return true;
}

enum errc raw_compact(struct slice v, struct buf *out, struct err *e)
{
	char *to;
	enum errc rc = buf_reserve(out, v.n, &to, e);
	size_t n = 0;
	bool in_string = false;

	if (rc)
		return rc;
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];

		if (in_string && c == '\\' && i + 1 < v.n) {
			to[n++] = c;
			c = v.p[++i];
		} else if (c == '"') {
			in_string = !in_string;
		} else if (!in_string && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
			continue;
		}
		to[n++] = c;
	}
	buf_wrote(out, n);
	return E_OK;
}

enum errc raw_quote(struct slice text, struct buf *out, struct err *e)
{
	struct jw w = JW(out);

	jw_slice(&w, NULL, text);
	return jw_done(&w, e);
}

void put_i64(struct put *w, int64_t v)
{
	char digits[24];
	int n = snprintf(digits, sizeof digits, "%" PRId64, v);

	put(w, slice_of(digits, (size_t)n));
}

void put_member(struct put *w, struct json_member m)
{
	PUT(w, ",\"");
	put(w, m.key);
	PUT(w, "\":");
	put(w, m.value);
}
