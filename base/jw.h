/*
 * JSON out: a writer onto a buffer whose first error sticks. No tree, nothing to free.
 * With key NULL a value stands in an array or at the root. Threads: its owner's only.
 */
#ifndef MSWARM_BASE_JW_H
#define MSWARM_BASE_JW_H

#include "base/buf.h"

struct json;

struct jw {
	struct buf *b;       /* borrowed */
	struct err err;      /* the first failure */
	uint64_t is_array;   /* bit per open level */
	uint64_t has_item;
	unsigned depth;      /* at most 63 */
	unsigned indent;     /* blanks a level; 0 = compact */
};

#define JW(buf_) ((struct jw){ .b = (buf_) })
#define JW_PRETTY(buf_) ((struct jw){ .b = (buf_), .indent = 2 })

void jw_obj(struct jw *w, const char *key);
void jw_arr(struct jw *w, const char *key);
void jw_end(struct jw *w);                                    /* closes the innermost */
void jw_str(struct jw *w, const char *key, const char *s);    /* s NULL writes null; bytes that are no UTF-8 become U+FFFD */
void jw_slice(struct jw *w, const char *key, struct slice s);
void jw_i64(struct jw *w, const char *key, int64_t v);
void jw_f64(struct jw *w, const char *key, double v);         /* shortest form that reads back; not finite writes null */
void jw_bool(struct jw *w, const char *key, bool v);
void jw_null(struct jw *w, const char *key);
void jw_raw(struct jw *w, const char *key, struct slice raw); /* JSON text put in as it is: the caller vouches for it */
void jw_tree(struct jw *w, const char *key, const struct json *tree); /* implemented in json.c */
/* E_OK when nothing failed and every level is closed. */
MUST_CHECK enum errc jw_done(struct jw *w, struct err *e);

#endif
