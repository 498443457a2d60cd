/*
 * The strict scanner: RFC 8259 grammar, UTF-8, depth, in one pass without a tree and without recursion. Called for every
 * request body, for every chunk that is repaired, and by the raw walks. Threads: any.
 *
 * A step takes the place where it begins and gives the place behind it, or NULL after noting the fault.
 */
#include "base/json_scan.h"

static const char *fail(struct json_scan *s, const char *at, const char *fault)
{
	s->p = at;
	s->fault = fault;
	return NULL;
}

static inline const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

static inline bool is_digit(const char *p, const char *end)
{
	return p < end && *p >= '0' && *p <= '9';
}

static bool read_hex4(const char *p, const char *end, uint32_t *ret_v)
{
	uint32_t v = 0;

	if (end - p < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		unsigned char c = (unsigned char)p[i], lower = c | 0x20;

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if (lower >= 'a' && lower <= 'f')
			v = v << 4 | (uint32_t)(lower - 'a' + 10);
		else
			return false;
	}
	*ret_v = v;
	return true;
}

size_t json_read_escape(const char *p, const char *end, uint32_t *ret_code)
{
	static const char names[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
	uint32_t first, second;

	if (end - p < 2 || p[0] != '\\')
		return 0;
	if (p[1] != 'u') {
		const char *name = memchr(names, p[1], sizeof(names) - 1);

		if (!name)
			return 0;
		*ret_code = (unsigned char)codes[name - names];
		return 2;
	}
	if (!read_hex4(p + 2, end, &first))
		return 0;
	*ret_code = first;
	if (first < 0xD800 || first > 0xDBFF || end - p < 12 || p[6] != '\\' || p[7] != 'u')
		return 6;
	if (!read_hex4(p + 8, end, &second) || second < 0xDC00 || second > 0xDFFF)
		return 6;
	*ret_code = 0x10000 + ((first - 0xD800) << 10 | (second - 0xDC00));
	return 12;
}

static const char *scan_escape(struct json_scan *s, const char *p)
{
	uint32_t code;
	size_t n = json_read_escape(p, s->end, &code);

	if (n == 0)
		return fail(s, p, "not an escape sequence");
	if (code == 0 || (code >= 0xD800 && code <= 0xDFFF))
		s->is_odd = true;
	return p + n;
}

static const char *scan_not_ascii(struct json_scan *s, const char *p)
{
	while (p < s->end && (unsigned char)*p >= 0x80) {
		int step = slice_utf8_step(slice_of(p, (size_t)(s->end - p)));

		if (step < 0)
			return fail(s, p, "not UTF-8");
		p += step;
	}
	return p;
}

static const char *scan_string(struct json_scan *s, const char *p)
{
	if (p == s->end || *p != '"')
		return fail(s, p, "expected a string");
	p++;
	for (;;) {
		p += json_plain_run(p, (size_t)(s->end - p));
		if (p == s->end)
			return fail(s, p, "expected '\"' to close a string");
		if (*p == '"')
			return p + 1;
		if (*p == '\\')
			p = scan_escape(s, p);
		else if ((unsigned char)*p >= 0x80)
			p = scan_not_ascii(s, p);
		else
			return fail(s, p, "control characters in a string must be escaped");
		if (!p)
			return NULL;
	}
}

static const char *scan_number(struct json_scan *s, const char *p)
{
	const char *begin = p, *end = s->end;

	if (*p == '-')
		p++;
	if (!is_digit(p, end))
		return fail(s, p, "expected a digit");
	if (*p == '0' && is_digit(p + 1, end))
		return fail(s, p, "a number does not begin with 0");
	while (is_digit(p, end))
		p++;
	if (p < end && *p == '.') {
		p++;
		if (!is_digit(p, end))
			return fail(s, p, "expected a digit after the point");
		while (is_digit(p, end))
			p++;
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		if (!is_digit(p, end))
			return fail(s, p, "expected a digit in the exponent");
		while (is_digit(p, end))
			p++;
	}
	if (p - begin > JSON_LONG_NUMBER)
		s->is_odd = true;
	return p;
}

static const char *scan_word(struct json_scan *s, const char *p, const char *word, size_t n)
{
	if ((size_t)(s->end - p) < n || memcmp(p, word, n) != 0)
		return fail(s, p, "expected a value");
	return p + n;
}

static const char *scan_scalar(struct json_scan *s, const char *p)
{
	if (p == s->end)
		return fail(s, p, "expected a value");
	switch (*p) {
	case '"':
		return scan_string(s, p);
	case 't':
		return scan_word(s, p, "true", 4);
	case 'f':
		return scan_word(s, p, "false", 5);
	case 'n':
		return scan_word(s, p, "null", 4);
	case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
		return scan_number(s, p);
	default:
		return fail(s, p, "expected a value");
	}
}

/* The open levels: one bit each, set for an array. */
struct levels {
	unsigned depth;
	uint64_t is_array[JSON_DEPTH_MAX / 64 + 1];
};

static void push_level(struct levels *l, bool is_array)
{
	uint64_t bit = UINT64_C(1) << l->depth % 64, *word = &l->is_array[l->depth / 64];

	*word = is_array ? *word | bit : *word & ~bit;
	l->depth++;
}

static bool is_in_array(const struct levels *l)
{
	unsigned top = l->depth - 1;

	return l->is_array[top / 64] >> top % 64 & 1;
}

/* "name" : */
static const char *scan_key(struct json_scan *s, const char *p)
{
	p = skip_blanks(p, s->end);
	if (p == s->end || *p != '"')
		return fail(s, p, "expected a member name in quotes");
	p = scan_string(s, p);
	if (!p)
		return NULL;
	p = skip_blanks(p, s->end);
	if (p == s->end || *p != ':')
		return fail(s, p, "expected ':'");
	return p + 1;
}

/* Open the containers that begin here, down to the first scalar or empty container, and read that. */
static const char *descend(struct json_scan *s, struct levels *l, const char *p)
{
	for (;;) {
		p = skip_blanks(p, s->end);
		s->values++;
		if (p == s->end || (*p != '{' && *p != '['))
			return scan_scalar(s, p);
		bool is_array = *p == '[';

		if (l->depth >= s->max_depth)
			return fail(s, p, "nested too deep");
		push_level(l, is_array);
		p = skip_blanks(p + 1, s->end);
		if (p < s->end && *p == (is_array ? ']' : '}')) {
			l->depth--;
			return p + 1;
		}
		if (!is_array) {
			p = scan_key(s, p);
			if (!p)
				return NULL;
		}
	}
}

/* After a value: close what ends here. Gives the place of the next value, or of the end of all when depth is 0. */
static const char *ascend(struct json_scan *s, struct levels *l, const char *p)
{
	while (l->depth) {
		bool is_array = is_in_array(l);

		p = skip_blanks(p, s->end);
		if (p < s->end && *p == ',')
			return is_array ? p + 1 : scan_key(s, p + 1);
		if (p == s->end || *p != (is_array ? ']' : '}'))
			return fail(s, p, is_array ? "expected ',' or ']'" : "expected ',' or '}'");
		l->depth--;
		p++;
	}
	return p;
}

bool json_scan_value(struct json_scan *s)
{
	struct levels l; /* the bits below depth are always written before they are read */
	const char *p = s->p;

	l.depth = 0;
	do {
		p = descend(s, &l, p);
		p = p ? ascend(s, &l, p) : NULL;
	} while (p && l.depth);
	if (p)
		s->p = p;
	return p != NULL;
}

bool json_scan_string(struct json_scan *s)
{
	const char *p = scan_string(s, s->p);

	if (p)
		s->p = p;
	return p != NULL;
}

void json_scan_blanks(struct json_scan *s)
{
	s->p = skip_blanks(s->p, s->end);
}

/* Lines end by \n; a column counts characters. Only looked up when there is a fault to tell. */
static enum errc tell_fault(const struct json_scan *s, size_t text_bytes, struct err *e)
{
	size_t line = 1, column = 1;

	for (const char *p = s->end - text_bytes; p < s->p; p++) {
		if (*p == '\n') {
			line++;
			column = 1;
		} else if (((unsigned char)*p & 0xC0) != 0x80) {
			column++;
		}
	}
	return err_set(e, E_BAD_JSON, "line %zu, column %zu: %s%s", line, column, s->fault,
		s->p == s->end ? ", but the text ends" : "");
}

enum errc json_scan_text(struct slice text, struct json_limits lim, struct json_scan *ret, struct err *e)
{
	if (text.n > lim.max_bytes)
		return err_set(e, E_TOO_LARGE, "JSON text: %zu of at most %zu bytes", text.n, lim.max_bytes);
	text = json_skip_bom(text);
	struct json_scan s = json_scan_of(text);

	if (lim.max_depth < s.max_depth)
		s.max_depth = lim.max_depth;
	if (!json_scan_value(&s))
		return tell_fault(&s, text.n, e);
	json_scan_blanks(&s);
	if (s.p < s.end) {
		s.fault = "expected nothing more";
		return tell_fault(&s, text.n, e);
	}
	*ret = s;
	return E_OK;
}

enum errc json_check(struct slice text, struct json_limits lim, struct err *e)
{
	struct json_scan s;

	return json_scan_text(text, lim, &s, e);
}
