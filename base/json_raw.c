/*
 * Raw access: members and elements as byte ranges of the text, decoded strings. Called on the relay's way for what is
 * forwarded untouched, and for chunks of runners, which nobody has checked. Threads: any.
 *
 * The walks run on the strict scanner, so a walk to its end is a check of the whole text.
 */
#include "base/json_scan.h"

static bool take_char(struct json_scan *s, char c)
{
	json_scan_blanks(s);
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

/* Step over what stands in front of the next item: the opening bracket, or a comma. False at the end (then *ret_bad says
 * whether anything follows it) and on bad input. */
static bool step_to_item(struct json_scan *s, bool is_first, char open, char close, bool *ret_bad)
{
	if (is_first) {
		s->p = json_skip_bom(slice_of(s->p, (size_t)(s->end - s->p))).p;
		*ret_bad = !take_char(s, open);
		if (*ret_bad)
			return false;
	}
	if (take_char(s, close)) {
		json_scan_blanks(s);
		*ret_bad = s->p != s->end;
		return false;
	}
	*ret_bad = !is_first && !take_char(s, ',');
	json_scan_blanks(s);
	return !*ret_bad;
}

static bool take_value(struct json_scan *s, struct slice *ret)
{
	json_scan_blanks(s);
	const char *begin = s->p;

	if (!json_scan_value(s))
		return false;
	*ret = slice_of(begin, (size_t)(s->p - begin));
	return true;
}

static bool take_member(struct json_scan *s, struct json_member *ret)
{
	const char *begin = s->p;
	struct slice value;

	if (!json_scan_string(s))
		return false;
	struct slice key = slice_of(begin + 1, (size_t)(s->p - begin) - 2);

	if (!take_char(s, ':') || !take_value(s, &value))
		return false;
	*ret = (struct json_member){ .key = key, .value = value };
	return true;
}

bool json_next_member(struct slice object, size_t *pos, struct json_member *ret, bool *ret_bad)
{
	struct json_scan s = json_scan_of(object);

	*ret_bad = false;
	s.p += *pos;
	if (!step_to_item(&s, *pos == 0, '{', '}', ret_bad))
		return false;
	if (!take_member(&s, ret)) {
		*ret_bad = true;
		return false;
	}
	*pos = (size_t)(s.p - object.p);
	return true;
}

bool json_next_element(struct slice array, size_t *pos, struct slice *ret, bool *ret_bad)
{
	struct json_scan s = json_scan_of(array);

	*ret_bad = false;
	s.p += *pos;
	if (!step_to_item(&s, *pos == 0, '[', ']', ret_bad))
		return false;
	if (!take_value(&s, ret)) {
		*ret_bad = true;
		return false;
	}
	*pos = (size_t)(s.p - array.p);
	return true;
}

bool json_find_members(struct slice object, const char *const *keys, struct slice *ret, size_t n)
{
	struct json_member m;
	size_t pos = 0;
	bool is_bad;

	memset(ret, 0, n * sizeof(*ret));
	while (json_next_member(object, &pos, &m, &is_bad))
		for (size_t i = 0; i < n; i++)
			if (slice_eq(m.key, slice_str(keys[i])))
				ret[i] = m.value;      /* the last one counts */
	if (is_bad)
		memset(ret, 0, n * sizeof(*ret));
	return !is_bad;
}

bool json_find_member(struct slice object, const char *key, struct slice *ret_value)
{
	struct slice value;

	if (!json_find_members(object, &key, &value, 1) || !value.p)
		return false;
	*ret_value = value;
	return true;
}

/* The character in UTF-8; half a pair has no such form. Gives its length, never more than its escape has. */
static size_t encode(uint32_t code, char c[4])
{
	size_t n;

	if (code >= 0xD800 && code <= 0xDFFF)
		code = 0xFFFD;
	if (code < 0x80) {
		c[0] = (char)code;
		n = 1;
	} else if (code < 0x800) {
		c[0] = (char)(0xC0 | code >> 6);
		n = 2;
	} else if (code < 0x10000) {
		c[0] = (char)(0xE0 | code >> 12);
		n = 3;
	} else {
		c[0] = (char)(0xF0 | code >> 18);
		n = 4;
	}
	for (size_t i = 1; i < n; i++)
		c[i] = (char)(0x80 | (code >> 6 * (n - 1 - i) & 0x3F));
	return n;
}

/* s has passed the scanner, so its escapes are whole. */
static enum errc add_decoded(struct buf *b, struct slice s, struct err *e)
{
	while (s.n) {
		ptrdiff_t at = slice_find_char(s, '\\');
		struct slice run = at < 0 ? s : slice_cut(s, (size_t)at);
		uint32_t code;
		enum errc rc = buf_add_slice(b, run, e);

		if (rc)
			return rc;
		s = slice_from(s, run.n);
		if (s.n == 0)
			break;
		size_t n = json_read_escape(s.p, s.p + s.n, &code);

		must(n > 0);
		char c[4];

		rc = buf_add(b, c, encode(code, c), e);
		if (rc)
			return rc;
		s = slice_from(s, n);
	}
	return E_OK;
}

enum errc json_unquote(struct slice token, struct buf *b, struct err *e)
{
	struct json_scan s = json_scan_of(token);
	size_t before = b->n;

	if (token.n < 2 || !json_scan_string(&s) || s.p != s.end)
		return err_set(e, E_BAD_JSON, "not a JSON string");
	enum errc rc = add_decoded(b, slice_of(token.p + 1, token.n - 2), e);

	if (rc)
		buf_truncate(b, before);
	return rc;
}

char *json_unquote_in_place(char *token, size_t n)
{
	struct json_scan s = json_scan_of(slice_of(token, n));
	char *text = token + 1, *to, *end = token + n - 1;

	if (n < 2 || !json_scan_string(&s) || s.p != s.end)
		return NULL;
	*end = '\0';
	to = memchr(text, '\\', n - 2);
	for (const char *from = to; from && from < end;) {
		char c[4];
		uint32_t code;
		size_t taken = json_read_escape(from, end, &code), k;

		if (taken == 0) {
			*to++ = *from++;
			continue;
		}
		k = encode(code ? code : 0xFFFD, c);
		memcpy(to, c, k);
		to += k;
		from += taken;
	}
	if (to)
		*to = '\0';
	return text;
}
