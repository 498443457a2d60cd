/*
 * A growing byte buffer that is born with its ceiling. Past it buf_add returns E_TOO_LARGE and leaves the content as
 * it was. Consuming from the front is amortised O(1).
 *
 * Owns: its heap block; buf_done frees it, buf_take moves it out. Threads: its owner's only.
 */
#ifndef MSWARM_BASE_BUF_H
#define MSWARM_BASE_BUF_H

#include "base/err.h"
#include "base/slice.h"

struct buf {
	char *p;      /* first unconsumed byte; NULL while nothing was ever added */
	size_t n;     /* bytes held */
	size_t cap;   /* bytes usable from p */
	size_t max;   /* ceiling of n */
	size_t head;  /* consumed bytes in front of p, in the same heap block */
};

#define BUF_MAX(limit) ((struct buf){ .max = (limit) })
#define AUTO_BUF CLEANUP(buf_done) struct buf

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);                       /* frees; b is empty again with the same ceiling */
void buf_clear(struct buf *b);                      /* empties, keeps the block */
void buf_shrink(struct buf *b);                     /* gives an empty buffer's block back */
/* Make room for n more bytes and hand out where they go; follow with buf_wrote. */
MUST_CHECK enum errc buf_reserve(struct buf *b, size_t n, char **ret_p, struct err *e);
void buf_wrote(struct buf *b, size_t n);
MUST_CHECK enum errc buf_add(struct buf *b, const void *p, size_t n, struct err *e);
MUST_CHECK enum errc buf_add_slice(struct buf *b, struct slice s, struct err *e);
MUST_CHECK enum errc buf_add_str(struct buf *b, const char *s, struct err *e);
MUST_CHECK enum errc buf_addf(struct buf *b, struct err *e, const char *fmt, ...) PRINTF_LIKE(3, 4);
void buf_consume(struct buf *b, size_t n);          /* drop n bytes from the front */
void buf_truncate(struct buf *b, size_t n);         /* keep the first n bytes */
struct slice buf_slice(const struct buf *b);        /* borrowed until the next change */
/* NUL-terminate (not counted in n) and give the string, borrowed; NULL when no memory. */
const char *buf_cstr(struct buf *b);
/* Move the content out as a NUL-terminated heap block (mem_free); NULL when no memory, b unchanged then. */
char *buf_take(struct buf *b, size_t *ret_n);

#endif
