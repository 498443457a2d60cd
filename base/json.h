/*
 * JSON in. Three layers, cheapest first:
 *   json_check    one strict pass over the bytes (RFC 8259, UTF-8, depth), error with line and column;
 *   json_members  the members of one object as raw byte ranges, nothing decoded: what is forwarded stays byte-equal
 *                 (a number beyond 2^53, key order, spelling of a float);
 *   json_parse    a tree (cJSON, the only door to it) for what must be looked at; always runs json_check first.
 * json_read copies members of a tree into a C struct by a table of fields and names the path of what is wrong.
 *
 * Owns: json_parse's tree belongs to the caller, json_free; every pointer got from it is borrowed from the tree.
 * Threads: any; a tree is used by one thread at a time.
 */
#ifndef MSWARM_BASE_JSON_H
#define MSWARM_BASE_JSON_H

#include "base/buf.h"

struct json; /* a cJSON node */

struct json_limits {
	size_t max_bytes;
	unsigned max_depth;
};
#define JSON_LIMITS_DEFAULT ((struct json_limits){ .max_bytes = 32u << 20, .max_depth = 64 })

/* E_BAD_JSON ("line 3, column 7: expected ',' or '}'"), E_TOO_LARGE. A leading UTF-8 BOM is skipped. */
MUST_CHECK enum errc json_check(struct slice text, struct json_limits lim, struct err *e);
/* In the tree \u0000 and halves of surrogate pairs read as U+FFFD (json_check passes them, raw bytes keep them). A tree
 * has at most JSON_TREE_MAX_VALUES values, about 100 MB: E_TOO_LARGE. */
#define JSON_TREE_MAX_VALUES (1u << 20)
MUST_CHECK enum errc json_parse(struct slice text, struct json_limits lim, struct json **ret, struct err *e);
void json_free(struct json *j);
void json_auto_free(struct json **j);
#define AUTO_JSON CLEANUP(json_auto_free) struct json *

/* One member of an object, raw: key as spelled between its quotes (escapes not decoded), value with no blanks around. */
struct json_member {
	struct slice key;
	struct slice value;
};
/* Walk the members of an object text that has passed json_check, or comes from a runner (then malformed input gives
 * false early and *ret_bad is set). Start with *pos = 0. Duplicate keys are given as they stand; the last one counts. */
bool json_next_member(struct slice object, size_t *pos, struct json_member *ret, bool *ret_bad);
/* Same for the elements of an array. */
bool json_next_element(struct slice array, size_t *pos, struct slice *ret, bool *ret_bad);
/* Last member with this key (compared raw), or false. */
bool json_find_member(struct slice object, const char *key, struct slice *ret_value);
/* Likewise, several in one pass; ret[i].p NULL: not there. False: the object is bad, nothing is there. */
bool json_find_members(struct slice object, const char *const *keys, struct slice *ret, size_t n);
/* Decode a raw string token (with its quotes) onto b. E_BAD_JSON if it is none. \u0000 gives a NUL byte, half a surrogate
 * pair U+FFFD. */
MUST_CHECK enum errc json_unquote(struct slice token, struct buf *b, struct err *e);
/* The same within the token's own bytes, with a NUL behind it; here \u0000 becomes U+FFFD. NULL: none. The token is gone then. */
char *json_unquote_in_place(char *token, size_t n);

/* Tree access. Lookups are case-sensitive; with duplicate keys the last wins. NULL in gives NULL out. */
const struct json *json_get(const struct json *obj, const char *key);
const struct json *json_at(const struct json *arr, size_t i);
const struct json *json_first(const struct json *container);   /* iterate: for (c = json_first(a); c; c = json_next(c)) */
const struct json *json_next(const struct json *item);
const char *json_key(const struct json *member);
size_t json_count(const struct json *container);
bool json_is_object(const struct json *j);
bool json_is_array(const struct json *j);
bool json_is_string(const struct json *j);
bool json_is_number(const struct json *j);
bool json_is_bool(const struct json *j);
bool json_is_null(const struct json *j);
bool json_is_true(const struct json *j);
bool json_is_absent(const struct json *j);                     /* NULL pointer or JSON null */
const char *json_str(const struct json *j);                    /* NULL unless a string */
struct slice json_slice(const struct json *j);                 /* empty unless a string */
double json_num(const struct json *j, double fallback);
bool json_i64(const struct json *j, int64_t *ret_v) MUST_CHECK; /* integral and within +-2^53 */
const char *json_type_name(const struct json *j);              /* "object", "string", ..., "absent" */

/* ---- reading by spec ---- */
enum json_kind { JK_END, JK_STR, JK_STRDUP, JK_I64, JK_F64, JK_BOOL, JK_OBJ, JK_ARR, JK_ANY };
enum { JF_OPTIONAL = 0, JF_REQUIRED = 1, JF_REFUSE_UNKNOWN_FLAG = 2 };

struct json_field {
	enum json_kind kind;
	const char *key;
	size_t offset;       /* of the struct member */
	size_t size;         /* JK_STR: bytes of the char array */
	unsigned flags;      /* JF_REQUIRED; JSON null counts as absent for optional fields */
	double lo, hi;       /* JK_I64, JK_F64: range. JK_STR, JK_STRDUP: length in bytes */
	size_t has_offset;   /* of a bool that says "was there", or 0 for none (so a has_ flag is never the first member) */
};
/* char[], cut never: too long is an error */
#define JF_STR(type, member, lo_, hi_, flags_) { .kind = JK_STR, .key = #member, .offset = offsetof(type, member), \
	.size = sizeof(((type *)0)->member), .flags = (flags_), .lo = (lo_), .hi = (hi_) }
/* heap string, mem_free; what the pointer held before is freed */
#define JF_STRDUP(type, member, lo_, hi_, flags_) { .kind = JK_STRDUP, .key = #member, .offset = offsetof(type, member), \
	.flags = (flags_), .lo = (lo_), .hi = (hi_) }
#define JF_I64(type, member, lo_, hi_, flags_, has_) { .kind = JK_I64, .key = #member, .offset = offsetof(type, member), \
	.flags = (flags_), .lo = (lo_), .hi = (hi_), .has_offset = offsetof(type, has_) }
#define JF_F64(type, member, lo_, hi_, flags_, has_) { .kind = JK_F64, .key = #member, .offset = offsetof(type, member), \
	.flags = (flags_), .lo = (lo_), .hi = (hi_), .has_offset = offsetof(type, has_) }
#define JF_BOOL(type, member, flags_, has_) { .kind = JK_BOOL, .key = #member, .offset = offsetof(type, member), \
	.flags = (flags_), .has_offset = offsetof(type, has_) }
/* const struct json * borrowed from the tree */
#define JF_OBJ(type, member, flags_) { .kind = JK_OBJ, .key = #member, .offset = offsetof(type, member), .flags = (flags_) }
#define JF_ARR(type, member, flags_) { .kind = JK_ARR, .key = #member, .offset = offsetof(type, member), .flags = (flags_) }
#define JF_ANY(type, member, flags_) { .kind = JK_ANY, .key = #member, .offset = offsetof(type, member), .flags = (flags_) }
#define JF_END(flags_) { .kind = JK_END, .flags = (flags_) }
#define JF_KEEP_UNKNOWN 0u
#define JF_REFUSE_UNKNOWN ((unsigned)JF_REFUSE_UNKNOWN_FLAG)

/*
 * Read obj into *out by spec. path is put in front of names in errors ("" at the root): E_INVALID_VALUE with e->param
 * "path.key" and what "path.key: must be a string"; E_MISSING_PARAMETER for a required one that is absent. Members
 * that are absent leave *out untouched (set defaults before).
 */
MUST_CHECK enum errc json_read(const struct json *obj, const char *path, const struct json_field *spec, void *out, struct err *e);

#endif
