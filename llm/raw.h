/*
 * Raw JSON: what is forwarded is handled as the bytes that it came in, never as a tree. Small helpers of the chat, chunk
 * and completion files over values that json_check has passed ("tokens": no blanks around, strings with their quotes).
 *
 * Threads: any; nothing here has state.
 */
#ifndef MSWARM_LLM_RAW_H
#define MSWARM_LLM_RAW_H

#include "base/json.h"

enum raw_kind { RAW_NONE, RAW_OBJECT, RAW_ARRAY, RAW_STRING, RAW_NUMBER, RAW_BOOL, RAW_NULL };

static inline enum raw_kind raw_kind_of(struct slice v)
{
	if (v.n == 0)
		return RAW_NONE;
	switch (v.p[0]) {
	case '{': return RAW_OBJECT;
	case '[': return RAW_ARRAY;
	case '"': return RAW_STRING;
	case 't':
	case 'f': return RAW_BOOL;
	case 'n': return RAW_NULL;
	default: return RAW_NUMBER;
	}
}

/* Not there, or null: the same for every optional member of the API. */
static inline bool raw_is_absent(struct slice v) { return v.n == 0 || v.p[0] == 'n'; }
static inline bool raw_is_string(struct slice v) { return v.n >= 2 && v.p[0] == '"'; }
static inline bool raw_is_object(struct slice v) { return v.n >= 2 && v.p[0] == '{'; }
static inline bool raw_is_array(struct slice v) { return v.n >= 2 && v.p[0] == '['; }
static inline bool raw_is_true(struct slice v) { return v.n == 4 && v.p[0] == 't'; }
static inline bool raw_is_empty_string(struct slice v) { return v.n == 2 && v.p[0] == '"'; }
/* What stands between the quotes of a string token, escapes as they are. */
static inline struct slice raw_body(struct slice v) { return v.n >= 2 ? slice_of(v.p + 1, v.n - 2) : slice_of("", 0); }
static inline bool raw_key_is(struct slice key, struct slice name)
{
	return key.n == name.n && memcmp(key.p, name.p, name.n) == 0;
}

/* Does the body of a string token (or a raw key) spell this text? Escapes are looked through. */
bool raw_body_is(struct slice body, const char *text);
static inline bool raw_string_is(struct slice v, const char *text) { return raw_is_string(v) && raw_body_is(raw_body(v), text); }
/* A number token that is integral (also "16.0", "1e3") and within lo..hi. */
bool raw_to_i64(struct slice v, int64_t lo, int64_t hi, int64_t *ret) MUST_CHECK;
/* Copy a value without the blanks and line ends outside of its strings. */
MUST_CHECK enum errc raw_compact(struct slice v, struct buf *out, struct err *e);
/* Text as a string token, escaped. */
MUST_CHECK enum errc raw_quote(struct slice text, struct buf *out, struct err *e);

/* A writer whose first error sticks, for pieces that stand already as JSON. */
struct put {
	struct buf *b;
	struct err *e;
	enum errc rc;
};

static inline void put(struct put *w, struct slice s)
{
	if (!w->rc)
		w->rc = buf_add_slice(w->b, s, w->e);
}
#define PUT(w, lit) put((w), SLICE(lit))
void put_i64(struct put *w, int64_t v);
/* ,"key":value with the key as spelled */
void put_member(struct put *w, struct json_member m);

#endif
