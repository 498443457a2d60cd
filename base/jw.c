/*
 * The JSON writer. Called by every reply, event and record that is JSON; on its owner's thread. The text goes straight
 * into the caller's buffer; the first failure sticks and makes every later call do nothing.
 */
#include "base/jw.h"

#include "base/json_scan.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DEPTH_MAX 63 /* bit 0 is the root, one bit a level above it */

static void put(struct jw *w, struct slice s)
{
	if (w->err.code == E_OK)
		(void)!buf_add_slice(w->b, s, &w->err);
}

/* The usual string, with nothing to be escaped and room for it, and what stands around it: in one go. */
static bool put_plain(struct jw *w, bool has_comma, struct slice s, bool has_colon)
{
	struct buf *b = w->b;
	size_t n = s.n + 2 + has_comma + has_colon;
	char *at;

	if (w->err.code || !s.n || n > b->cap - b->n || n > b->max - b->n || json_plain_run(s.p, s.n) < s.n)
		return false;
	at = b->p + b->n;
	if (has_comma)
		*at++ = ',';
	at[0] = '"';
	memcpy(at + 1, s.p, s.n);
	at[s.n + 1] = '"';
	if (has_colon)
		at[s.n + 2] = ':';
	buf_wrote(b, n);
	return true;
}

static uint64_t level_bit(const struct jw *w)
{
	return UINT64_C(1) << w->depth;
}

static void put_line(struct jw *w)
{
	static const char blanks[] = "                                ";

	if (!w->indent)
		return;
	put(w, SLICE("\n"));
	for (size_t n = (size_t)w->indent * w->depth; n > 0 && w->err.code == E_OK;) {
		size_t k = n < sizeof(blanks) - 1 ? n : sizeof(blanks) - 1;

		put(w, slice_of(blanks, k));
		n -= k;
	}
}

/* What stands at the start of s and may not be written as it is. Gives how many bytes it dealt with. */
static size_t put_not_plain(struct jw *w, struct slice s)
{
	static const char *const shorts[] = { ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r",
		['"'] = "\\\"", ['\\'] = "\\\\" };
	unsigned char c = (unsigned char)s.p[0];
	char escape[8];

	if (c >= 0x80) {
		put(w, SLICE("\xEF\xBF\xBD"));
		return (size_t)-slice_utf8_step(s);
	}
	if (c < ARRAY_LEN(shorts) && shorts[c]) {
		put(w, slice_of(shorts[c], 2));
	} else {
		snprintf(escape, sizeof(escape), "\\u%04x", c);
		put(w, slice_of(escape, 6));
	}
	return 1;
}

/* How many bytes at the start of s may be written as they are: plain ones and whole characters. */
static size_t writable_run(struct slice s)
{
	size_t at = 0;

	for (;;) {
		at += json_plain_run(s.p + at, s.n - at);
		if (at == s.n || (unsigned char)s.p[at] < 0x80)
			return at;
		int step = slice_utf8_step(slice_from(s, at));

		if (step < 0)
			return at;
		at += (size_t)step;
	}
}

static void put_quoted(struct jw *w, struct slice s)
{
	if (put_plain(w, false, s, false))
		return;
	put(w, SLICE("\""));
	while (s.n && w->err.code == E_OK) {
		size_t run = writable_run(s);

		put(w, slice_cut(s, run));
		s = slice_from(s, run);
		if (s.n)
			s = slice_from(s, put_not_plain(w, s));
	}
	put(w, SLICE("\""));
}

/* What stands in front of a value: comma, line, name. False when nothing may be written. */
static bool begin_value(struct jw *w, const char *key)
{
	uint64_t bit = level_bit(w);
	bool is_object = w->depth > 0 && !(w->is_array & bit);

	if (w->err.code)
		return false;
	if (is_object != (key != NULL)) {
		err_set(&w->err, E_INTERNAL, "JSON writer: %s", key ? "a name outside an object" : "a value without a name");
		return false;
	}
	if (w->depth == 0 && w->has_item & bit) {
		err_set(&w->err, E_INTERNAL, "JSON writer: a second value at the root");
		return false;
	}
	bool has_comma = w->has_item & bit;

	w->has_item |= bit;
	if (is_object && !w->indent && put_plain(w, has_comma, slice_str(key), true))
		return true;
	if (has_comma)
		put(w, SLICE(","));
	if (w->depth)
		put_line(w);
	if (is_object) {
		put_quoted(w, slice_str(key));
		put(w, w->indent ? SLICE(": ") : SLICE(":"));
	}
	return w->err.code == E_OK;
}

static void open_level(struct jw *w, const char *key, bool is_array)
{
	if (!begin_value(w, key))
		return;
	if (w->depth == DEPTH_MAX) {
		err_set(&w->err, E_TOO_LARGE, "JSON nested more than %d levels deep", DEPTH_MAX);
		return;
	}
	put(w, is_array ? SLICE("[") : SLICE("{"));
	w->depth++;
	uint64_t bit = level_bit(w);

	w->has_item &= ~bit;
	w->is_array = is_array ? w->is_array | bit : w->is_array & ~bit;
}

void jw_obj(struct jw *w, const char *key)
{
	open_level(w, key, false);
}

void jw_arr(struct jw *w, const char *key)
{
	open_level(w, key, true);
}

void jw_end(struct jw *w)
{
	if (w->err.code)
		return;
	if (w->depth == 0) {
		err_set(&w->err, E_INTERNAL, "JSON writer: nothing is open");
		return;
	}
	uint64_t bit = level_bit(w);

	w->depth--;
	if (w->has_item & bit)
		put_line(w);
	put(w, w->is_array & bit ? SLICE("]") : SLICE("}"));
}

void jw_slice(struct jw *w, const char *key, struct slice s)
{
	if (begin_value(w, key))
		put_quoted(w, s);
}

void jw_str(struct jw *w, const char *key, const char *s)
{
	if (s)
		jw_slice(w, key, slice_str(s));
	else
		jw_null(w, key);
}

void jw_i64(struct jw *w, const char *key, int64_t v)
{
	char text[24], *at = text + sizeof(text);
	uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

	do
		*--at = (char)('0' + rest % 10);
	while (rest /= 10);
	if (v < 0)
		*--at = '-';
	jw_raw(w, key, slice_of(at, (size_t)(text + sizeof(text) - at)));
}

/* Raise the last digit of "d.ddde-xx" by one, with its carries. False when all are nines (never for a power of two). */
static bool raise_last_digit(char *text)
{
	char *p = strchr(text, 'e');

	while (p > text) {
		p--;
		if (*p == '.')
			continue;
		if (*p != '9') {
			++*p;
			return true;
		}
		*p = '0';
	}
	return false;
}

/*
 * Fewest digits that read back, as "d.ddde-xx" with zeros at the end perhaps; v is positive. 15 always suffice for what
 * was written with 15, 17 for everything; below DBL_MIN there is less precision, so it begins at one. With 16 the
 * nearest decimal is the one to take, except at a power of two: the gap below it is half of that above, and the next
 * decimal upwards may read back where the nearest does not.
 * The process stays in the "C" locale: nobody calls setlocale.
 */
static void print_digits(char *text, size_t cap, double v)
{
	int exponent;

	for (int digits = v < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
		snprintf(text, cap, "%.*e", digits - 1, v);
		if (strtod(text, NULL) == v)
			return;
		if (digits == 16 && frexp(v, &exponent) == 0.5 && raise_last_digit(text) && strtod(text, NULL) == v)
			return;
	}
}

/* n digits d at value 0.ddd * 10^point, laid out as JavaScript does (ECMA-262, Number::toString), so that a number reads
 * the same whoever wrote it. At most 32 characters. */
static size_t lay_out(char *out, size_t cap, const char *d, int n, int point)
{
	static const char zeros[] = "0000000000000000000000";
	int len;

	if (n <= point && point <= 21)
		len = snprintf(out, cap, "%.*s%.*s", n, d, point - n, zeros);
	else if (point > 0 && point <= 21)
		len = snprintf(out, cap, "%.*s.%.*s", point, d, n - point, d + point);
	else if (point > -6 && point <= 0)
		len = snprintf(out, cap, "0.%.*s%.*s", -point, zeros, n, d);
	else
		len = snprintf(out, cap, "%c%s%.*se%+d", d[0], n > 1 ? "." : "", n - 1, d + 1, point - 1);
	return (size_t)len;
}

void jw_f64(struct jw *w, const char *key, double v)
{
	char text[40], digits[20], out[40] = "-";
	int n = 0;
	size_t sign = signbit(v) ? 1 : 0;

	if (!isfinite(v)) {
		jw_null(w, key);
		return;
	}
	print_digits(text, sizeof(text), fabs(v));
	const char *mark = strchr(text, 'e');

	for (const char *p = text; p < mark; p++)
		if (*p != '.')
			digits[n++] = *p;
	while (n > 1 && digits[n - 1] == '0')
		n--;
	int point = (int)strtol(mark + 1, NULL, 10) + 1;

	jw_raw(w, key, slice_of(out, sign + lay_out(out + sign, sizeof(out) - sign, digits, n, point)));
}

void jw_bool(struct jw *w, const char *key, bool v)
{
	jw_raw(w, key, v ? SLICE("true") : SLICE("false"));
}

void jw_null(struct jw *w, const char *key)
{
	jw_raw(w, key, SLICE("null"));
}

void jw_raw(struct jw *w, const char *key, struct slice raw)
{
	if (begin_value(w, key))
		put(w, raw);
}

enum errc jw_done(struct jw *w, struct err *e)
{
	if (w->err.code == E_OK && w->depth)
		err_set(&w->err, E_INTERNAL, "JSON writer: %u levels still open", w->depth);
	if (w->err.code && e)
		*e = w->err;
	return w->err.code;
}
