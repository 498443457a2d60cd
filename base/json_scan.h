/*
 * The strict scanner under json_check and the walks over raw members, and the few byte readers that the writer and the
 * tree share with it. Private to json*.c and jw.c. No allocation, no state; threads: any.
 */
#ifndef MSWARM_BASE_JSON_SCAN_H
#define MSWARM_BASE_JSON_SCAN_H

#include "base/json.h"

#include <endian.h>

#define JSON_DEPTH_MAX 1000     /* cJSON's own limit: it recurses */
#define JSON_LONG_NUMBER 63     /* cJSON as released reads no number that has more characters (Debian's patched one does) */

struct json_scan {
	const char *p, *end;    /* the cursor; on failure it stands at the fault */
	const char *fault;      /* what is wrong, NULL while nothing is */
	size_t values;          /* how many values were seen */
	unsigned max_depth;     /* at most JSON_DEPTH_MAX */
	bool is_odd;            /* holds what cJSON misreads: \u0000, half a surrogate pair, a very long number */
};

static inline struct json_scan json_scan_of(struct slice s)
{
	const char *p = s.n ? s.p : ""; /* an empty slice may hold NULL, and NULL + 0 is not allowed */

	return (struct json_scan){ .p = p, .end = p + s.n, .max_depth = JSON_DEPTH_MAX };
}

static inline struct slice json_skip_bom(struct slice s)
{
	return slice_starts_with(s, SLICE("\xEF\xBB\xBF")) ? slice_from(s, 3) : s;
}

/* The whole of json_check, with what was learned on the way. */
MUST_CHECK enum errc json_scan_text(struct slice text, struct json_limits lim, struct json_scan *ret, struct err *e);
void json_scan_blanks(struct json_scan *s);
bool json_scan_string(struct json_scan *s);  /* at its opening quote; the cursor moves behind it */
bool json_scan_value(struct json_scan *s);   /* one value, blanks in front of it skipped */

/* Read the escape that begins at p with a backslash: its length (2, 6, or 12 for a surrogate pair), 0 when it is none.
 * Half a pair gives its own code, D800 to DFFF. */
size_t json_read_escape(const char *p, const char *end, uint32_t *ret_code);

/*
 * Eight bytes at once: the top bit of each that is the quote, the backslash, below 0x20 or above 0x7F. Above the lowest of them bits
 * may be set without cause (a borrow), below it none is.
 */
static inline uint64_t json_odd_bytes(const char *p)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	w = le64toh(w);
	return (((w ^ (ones * '"')) - ones) | ((w ^ (ones * '\\')) - ones) | (w - ones * 0x20) | w) & tops;
}

/* How many bytes at p may stand in a JSON string as they are: ASCII without controls, quote and backslash. */
static inline size_t json_plain_run(const char *p, size_t n)
{
	size_t i = 0;

	for (; i + 8 <= n; i += 8) {
		uint64_t odd = json_odd_bytes(p + i);

		if (odd)
			return i + (size_t)__builtin_ctzll(odd) / 8;
	}
	if (i < n && n >= 8) {         /* the last eight, some of them again */
		uint64_t odd = json_odd_bytes(p + n - 8);

		return odd ? n - 8 + (size_t)__builtin_ctzll(odd) / 8 : n;
	}
	for (; i < n; i++) {
		unsigned char c = (unsigned char)p[i];

		if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\')
			break;
	}
	return i;
}

#endif
