/*
 * The growing byte buffer with a ceiling. Called by everything that collects bytes, on its owner's thread.
 *
 * The heap block begins at p - head. Blocks grow by doubling, up to one byte above the ceiling (for the NUL of
 * buf_cstr). Room is made by moving the content to the front only when at least as many bytes were consumed as are
 * moved: that keeps consuming amortised O(1).
 */
#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define FIRST_BLOCK 64 /* below this a block is not worth growing step by step */

void buf_init(struct buf *b, size_t max)
{
	*b = BUF_MAX(max);
}

void buf_done(struct buf *b)
{
	mem_free(b->p ? b->p - b->head : NULL);
	*b = BUF_MAX(b->max);
}

/* Give the consumed bytes at the front back to the room behind the content. */
static void move_to_front(struct buf *b)
{
	if (b->head == 0)
		return;
	char *block = b->p - b->head;

	if (b->n)
		memmove(block, b->p, b->n);
	b->p = block;
	b->cap += b->head;
	b->head = 0;
}

void buf_clear(struct buf *b)
{
	b->n = 0;
	move_to_front(b);
}

void buf_shrink(struct buf *b)
{
	if (b->n == 0)
		buf_done(b);
}

/* A new block of at least need usable bytes; the content moves to its front. False: no memory, nothing changed. */
static bool grow(struct buf *b, size_t need)
{
	size_t ceiling = b->max < SIZE_MAX ? b->max + 1 : SIZE_MAX;
	size_t whole = b->cap + b->head;
	size_t size = whole < FIRST_BLOCK / 2 ? FIRST_BLOCK : whole <= SIZE_MAX / 2 ? whole * 2 : SIZE_MAX;

	if (size > ceiling)
		size = ceiling;
	if (size < need)
		size = need;
	/* realloc may grow in place or move pages; with a consumed front it would copy that too */
	char *block = b->head ? mem_alloc(size) : mem_realloc(b->p, size);

	if (!block)
		return false;
	if (b->head) {
		if (b->n)
			memcpy(block, b->p, b->n);
		mem_free(b->p - b->head);
	}
	b->p = block;
	b->cap = size;
	b->head = 0;
	return true;
}

/* Make need bytes usable from p (content included). */
static bool make_room(struct buf *b, size_t need)
{
	if (need <= b->cap && b->p)
		return true;
	if (b->p && need <= b->cap + b->head && b->n <= b->head) {
		move_to_front(b);
		return true;
	}
	return grow(b, need);
}

static enum errc check_ceiling(const struct buf *b, size_t n, struct err *e)
{
	if (b->n > b->max || n > b->max - b->n)
		return err_set(e, E_TOO_LARGE, "more than %zu bytes", b->max);
	return E_OK;
}

enum errc buf_reserve(struct buf *b, size_t n, char **ret_p, struct err *e)
{
	enum errc rc = check_ceiling(b, n, e);

	if (rc)
		return rc;
	if (!make_room(b, b->n + n))
		return err_set(e, E_NO_MEMORY, "no memory for a buffer of %zu bytes", b->n + n);
	*ret_p = b->p + b->n;
	return E_OK;
}

void buf_wrote(struct buf *b, size_t n)
{
	must(n <= b->cap - b->n);
	b->n += n;
}

enum errc buf_add(struct buf *b, const void *p, size_t n, struct err *e)
{
	char *at;

	if (n == 0)
		return E_OK;
	enum errc rc = buf_reserve(b, n, &at, e);

	if (rc)
		return rc;
	memcpy(at, p, n);
	b->n += n;
	return E_OK;
}

enum errc buf_add_slice(struct buf *b, struct slice s, struct err *e)
{
	return buf_add(b, s.p, s.n, e);
}

enum errc buf_add_str(struct buf *b, const char *s, struct err *e)
{
	return buf_add(b, s, strlen(s), e);
}

/* Print into the room that is there; the length needed, or -1. */
static int PRINTF_LIKE(2, 0) print_in_room(struct buf *b, const char *fmt, va_list ap)
{
	return b->p ? vsnprintf(b->p + b->n, b->cap - b->n, fmt, ap) : vsnprintf(NULL, 0, fmt, ap);
}

enum errc buf_addf(struct buf *b, struct err *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = print_in_room(b, fmt, ap);
	va_end(ap);
	if (n < 0)
		return err_set(e, E_INTERNAL, "format \"%s\" cannot be printed", fmt);
	enum errc rc = check_ceiling(b, (size_t)n, e);

	if (rc)
		return rc;
	if (!b->p || (size_t)n >= b->cap - b->n) {
		if (!make_room(b, b->n + (size_t)n + 1)) /* vsnprintf wants room for its NUL */
			return err_set(e, E_NO_MEMORY, "no memory for a buffer of %zu bytes", b->n + (size_t)n);
		va_start(ap, fmt);
		n = print_in_room(b, fmt, ap);
		va_end(ap);
	}
	b->n += (size_t)n;
	return E_OK;
}

void buf_consume(struct buf *b, size_t n)
{
	must(n <= b->n);
	if (n == b->n) {
		buf_clear(b);
		return;
	}
	b->p += n;
	b->n -= n;
	b->cap -= n;
	b->head += n;
}

void buf_truncate(struct buf *b, size_t n)
{
	if (n < b->n)
		b->n = n;
}

struct slice buf_slice(const struct buf *b)
{
	return slice_of(b->p ? b->p : "", b->n);
}

const char *buf_cstr(struct buf *b)
{
	if (b->n == SIZE_MAX || !make_room(b, b->n + 1))
		return NULL;
	b->p[b->n] = '\0';
	return b->p;
}

char *buf_take(struct buf *b, size_t *ret_n)
{
	if (!buf_cstr(b))
		return NULL;
	size_t n = b->n;

	if (b->head) {
		move_to_front(b);
		b->p[n] = '\0';
	}
	char *block = TAKE(b->p);

	*b = BUF_MAX(b->max);
	if (ret_n)
		*ret_n = n;
	return block;
}
