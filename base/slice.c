/*
 * Looking at borrowed bytes: compare, search, cut, trim, numbers, UTF-8. Called by everything, on any thread; no state.
 */
#include "base/slice.h"

#include "base/mem.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

bool slice_eq(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static char ascii_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool slice_eq_nocase(struct slice a, struct slice b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
			return false;
	return true;
}

bool slice_starts_with(struct slice s, struct slice prefix)
{
	return s.n >= prefix.n && slice_eq(slice_cut(s, prefix.n), prefix);
}

bool slice_starts_with_nocase(struct slice s, struct slice prefix)
{
	return s.n >= prefix.n && slice_eq_nocase(slice_cut(s, prefix.n), prefix);
}

bool slice_ends_with(struct slice s, struct slice suffix)
{
	return s.n >= suffix.n && slice_eq(slice_from(s, s.n - suffix.n), suffix);
}

bool slice_contains_nocase(struct slice s, struct slice needle)
{
	for (; s.n > needle.n; s = slice_from(s, 1))
		if (slice_starts_with_nocase(s, needle))
			return true;
	return slice_eq_nocase(s, needle);
}

ptrdiff_t slice_find(struct slice s, struct slice needle)
{
	if (needle.n == 0)
		return 0;
	if (s.n < needle.n)
		return -1;
	const char *at = memmem(s.p, s.n, needle.p, needle.n);

	return at ? at - s.p : -1;
}

ptrdiff_t slice_find_char(struct slice s, char c)
{
	const char *at = s.n ? memchr(s.p, c, s.n) : NULL;

	return at ? at - s.p : -1;
}

struct slice slice_from(struct slice s, size_t at)
{
	if (at > s.n)
		at = s.n;
	return at ? slice_of(s.p + at, s.n - at) : s;
}

struct slice slice_cut(struct slice s, size_t n)
{
	return slice_of(s.p, n < s.n ? n : s.n);
}

static bool is_ascii_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

struct slice slice_cut_text(struct slice s, size_t n)
{
	size_t at = n;

	if (s.n <= n)
		return s;
	while (at && n - at < 4 && ((unsigned char)s.p[at] & 0xc0) == 0x80)
		at--;
	return slice_cut(s, at);
}

struct slice slice_trim(struct slice s)
{
	while (s.n && is_ascii_blank(s.p[0]))
		s = slice_from(s, 1);
	while (s.n && is_ascii_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* The three-byte characters that JavaScript calls white space or line ends: 1680, 2000-200A, 2028, 2029, 202F, 205F,
 * 3000, FEFF. Source: ECMA-262, WhiteSpace and LineTerminator. */
static bool is_js_blank3(const unsigned char *p)
{
	if (p[0] == 0xE2 && p[1] == 0x80)
		return (p[2] >= 0x80 && p[2] <= 0x8A) || p[2] == 0xA8 || p[2] == 0xA9 || p[2] == 0xAF;
	if (p[0] == 0xE1)
		return p[1] == 0x9A && p[2] == 0x80;
	if (p[0] == 0xE2)
		return p[1] == 0x81 && p[2] == 0x9F;
	if (p[0] == 0xE3)
		return p[1] == 0x80 && p[2] == 0x80;
	return p[0] == 0xEF && p[1] == 0xBB && p[2] == 0xBF;
}

/* Length of the blank character that is exactly the n bytes at p, or 0. */
static bool is_js_blank(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;

	if (n == 1)
		return is_ascii_blank(p[0]);
	if (n == 2)
		return u[0] == 0xC2 && u[1] == 0xA0;
	return is_js_blank3(u);
}

struct slice slice_trim_js(struct slice s)
{
	for (size_t k = 1; k <= 3 && k <= s.n; k++)
		if (is_js_blank(s.p, k)) {
			s = slice_from(s, k);
			k = 0;
		}
	for (size_t k = 1; k <= 3 && k <= s.n; k++)
		if (is_js_blank(s.p + s.n - k, k)) {
			s.n -= k;
			k = 0;
		}
	return s;
}

bool slice_next(struct slice *rest, char sep, struct slice *ret_piece)
{
	if (!rest->p)
		return false;
	ptrdiff_t at = slice_find_char(*rest, sep);

	if (at < 0) {
		*ret_piece = *rest;
		*rest = slice_of(NULL, 0);
		return true;
	}
	*ret_piece = slice_cut(*rest, (size_t)at);
	*rest = slice_from(*rest, (size_t)at + 1);
	return true;
}

bool slice_to_i64(struct slice s, int64_t lo, int64_t hi, int64_t *ret_v)
{
	bool is_negative = s.n && s.p[0] == '-';
	int64_t v = 0;

	if (is_negative)
		s = slice_from(s, 1);
	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		int digit = s.p[i] - '0';

		/* gathered as a negative number: INT64_MIN has no positive twin */
		if (digit < 0 || digit > 9 || __builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, digit, &v))
			return false;
	}
	if (!is_negative && __builtin_sub_overflow((int64_t)0, v, &v))
		return false;
	if (v < lo || v > hi)
		return false;
	*ret_v = v;
	return true;
}

static size_t digits_at(struct slice s, size_t at)
{
	size_t n = 0;

	while (at + n < s.n && s.p[at + n] >= '0' && s.p[at + n] <= '9')
		n++;
	return n;
}

/* [-]digits[.digits][e[+-]digits] with a digit somewhere before the exponent: no blanks, hex, inf or nan. */
static bool is_decimal(struct slice s)
{
	size_t at = s.n && s.p[0] == '-' ? 1 : 0;
	size_t digits = digits_at(s, at);

	at += digits;
	if (at < s.n && s.p[at] == '.') {
		size_t fraction = digits_at(s, at + 1);

		digits += fraction;
		at += 1 + fraction;
	}
	if (digits == 0)
		return false;
	if (at < s.n && (s.p[at] | 0x20) == 'e') {
		at++;
		if (at < s.n && (s.p[at] == '+' || s.p[at] == '-'))
			at++;
		digits = digits_at(s, at);
		if (digits == 0)
			return false;
		at += digits;
	}
	return at == s.n;
}

bool slice_to_f64(struct slice s, double *ret_v)
{
	char small[64];
	AUTO_FREE char *large = NULL;
	const char *text = small;

	if (!is_decimal(s))
		return false;
	if (!slice_copy(s, small, sizeof(small))) {
		large = slice_dup(s);
		if (!large)
			return false;
		text = large;
	}
	/* the "C" locale is a constant object of the C library: nothing to free */
	double v = strtod_l(text, NULL, newlocale(LC_ALL_MASK, "C", (locale_t)0));

	if (!isfinite(v))
		return false;
	*ret_v = v;
	return true;
}

char *slice_dup(struct slice s)
{
	return mem_strndup(s.p, s.n);
}

bool slice_copy(struct slice s, char *dst, size_t cap)
{
	if (s.n >= cap || (s.n && memchr(s.p, '\0', s.n)))
		return false;
	if (s.n)
		memcpy(dst, s.p, s.n);
	dst[s.n] = '\0';
	return true;
}

int slice_utf8_step(struct slice s)
{
	const unsigned char *u = (const unsigned char *)s.p;
	unsigned char lo = 0x80, hi = 0xBF; /* what the second byte may be */
	int len;

	if (u[0] < 0x80)
		return 1;
	if (u[0] < 0xC2 || u[0] > 0xF4)
		return -1;
	if (u[0] < 0xE0) {
		len = 2;
	} else if (u[0] < 0xF0) {
		len = 3;
		lo = u[0] == 0xE0 ? 0xA0 : 0x80; /* no overlong form */
		hi = u[0] == 0xED ? 0x9F : 0xBF; /* no surrogate */
	} else {
		len = 4;
		lo = u[0] == 0xF0 ? 0x90 : 0x80;
		hi = u[0] == 0xF4 ? 0x8F : 0xBF; /* nothing above 10FFFF */
	}
	if (s.n < 2 || u[1] < lo || u[1] > hi)
		return -1;
	for (int i = 2; i < len; i++)
		if ((size_t)i >= s.n || (u[i] & 0xC0) != 0x80)
			return -i;
	return len;
}

bool slice_is_utf8(struct slice s)
{
	while (s.n) {
		uint64_t word;

		/* eight at a time as long as it is ASCII */
		while (s.n >= sizeof(word)) {
			memcpy(&word, s.p, sizeof(word));
			if (word & UINT64_C(0x8080808080808080))
				break;
			s = slice_of(s.p + sizeof(word), s.n - sizeof(word));
		}
		if (s.n == 0)
			break;
		int step = slice_utf8_step(s);

		if (step < 0)
			return false;
		s = slice_from(s, (size_t)step);
	}
	return true;
}
