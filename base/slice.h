/*
 * Borrowed bytes: a pointer and a length, not NUL-terminated, never owned. Valid as long as what it points into.
 * Threads: any.
 */
#ifndef MSWARM_BASE_SLICE_H
#define MSWARM_BASE_SLICE_H

#include "base/attr.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct slice {
	const char *p;
	size_t n;
};

#define SLICE(lit) ((struct slice){ .p = "" lit, .n = sizeof(lit) - 1 })
#define SLICE_FMT "%.*s"
#define SLICE_ARG(s) (int)(s).n, (s).p

static inline struct slice slice_of(const char *p, size_t n) { return (struct slice){ .p = p, .n = n }; }
static inline struct slice slice_str(const char *s) { return (struct slice){ .p = s ? s : "", .n = s ? strlen(s) : 0 }; }
static inline bool slice_is_empty(struct slice s) { return s.n == 0; }

bool slice_eq(struct slice a, struct slice b);
bool slice_eq_nocase(struct slice a, struct slice b);            /* ASCII only */
bool slice_starts_with(struct slice s, struct slice prefix);
bool slice_starts_with_nocase(struct slice s, struct slice prefix);
bool slice_ends_with(struct slice s, struct slice suffix);
bool slice_contains_nocase(struct slice s, struct slice needle);
/* Offset of the first occurrence, or -1. */
ptrdiff_t slice_find(struct slice s, struct slice needle);
ptrdiff_t slice_find_char(struct slice s, char c);
struct slice slice_from(struct slice s, size_t at);              /* the rest from at (clamped) */
struct slice slice_cut(struct slice s, size_t n);                /* the first n bytes (clamped) */
struct slice slice_cut_text(struct slice s, size_t n);           /* at most n, and no character cut in two */
struct slice slice_trim(struct slice s);                         /* ASCII space, \t \n \v \f \r at both ends */
/* Trim as JavaScript's String.trim does: also U+00A0, U+FEFF, U+2028/9 and the Unicode space separators. */
struct slice slice_trim_js(struct slice s);
/* Split off what stands before the next sep; *rest moves behind it. False when *rest was exhausted. An empty input
 * gives one empty piece. Start with rest->p != NULL; rest->p is NULL after the last piece. */
bool slice_next(struct slice *rest, char sep, struct slice *ret_piece);
/* Whole slice is a decimal integer within lo..hi (optional '-'; no blanks, no '+'). */
bool slice_to_i64(struct slice s, int64_t lo, int64_t hi, int64_t *ret_v) MUST_CHECK;
bool slice_to_f64(struct slice s, double *ret_v) MUST_CHECK;     /* locale-free, whole slice, finite */
/* Copy as a C string into a heap block (mem_free) or a caller's array; the latter says false when it does not fit or
 * holds a NUL byte. */
char *slice_dup(struct slice s) MUST_CHECK;
bool slice_copy(struct slice s, char *dst, size_t cap) MUST_CHECK;
bool slice_is_utf8(struct slice s);                              /* strict: no surrogates, no overlong forms */
/* The character at the start of a slice that is not empty: its length, or when it is no UTF-8 (or cut off) minus the
 * bytes to skip, so that one U+FFFD stands for them as in the usual decoders (a well-formed beginning counts as one). */
int slice_utf8_step(struct slice s);

#endif
