/*
 * The one allocator. Called by everything, on any thread. The test hook costs a relaxed load an allocation while no
 * test has asked for it: the shared counter is touched only from the first mem_test_fail_at on.
 */
#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_bool mem_is_counting;       /* a test has called mem_test_fail_at */
static atomic_uint_fast64_t mem_count;    /* allocations since then */
static atomic_uint_fast64_t mem_fail_nth; /* 0 = none fails */
static atomic_bool mem_is_sticky;

/* Count one allocation; true when it is one that has to fail. */
bool mem_test_refuses(void)
{
	if (!atomic_load_explicit(&mem_is_counting, memory_order_relaxed))
		return false;
	uint64_t n = atomic_fetch_add(&mem_count, 1) + 1, nth = atomic_load(&mem_fail_nth);

	return nth != 0 && (n == nth || (n > nth && atomic_load(&mem_is_sticky)));
}

void *mem_alloc(size_t n)
{
	return mem_test_refuses() ? NULL : malloc(n ? n : 1);
}

void *mem_calloc(size_t count, size_t size)
{
	size_t n;

	if (mem_test_refuses() || __builtin_mul_overflow(count, size, &n))
		return NULL;
	return calloc(1, n ? n : 1);
}

void *mem_realloc(void *p, size_t n)
{
	return mem_test_refuses() ? NULL : realloc(p, n ? n : 1);
}

void mem_free(void *p)
{
	free(p);
}

char *mem_strdup(const char *s)
{
	return mem_strndup(s, strlen(s));
}

char *mem_strndup(const char *s, size_t n)
{
	char *p = n < SIZE_MAX ? mem_alloc(n + 1) : NULL;

	if (!p)
		return NULL;
	if (n)
		memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

void mem_auto_free(void *p)
{
	/* p is the address of a pointer variable of any type */
	void *held;

	memcpy(&held, p, sizeof(held));
	mem_free(held);
}

void mem_wipe(void *p, size_t n)
{
	if (n)
		explicit_bzero(p, n);
}

#define HUGE_PAGE	((uintptr_t)2 << 20)

void mem_expect_whole(void *p, size_t n)
{
	uintptr_t from = ((uintptr_t)p + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE, to = ((uintptr_t)p + n) / HUGE_PAGE * HUGE_PAGE;

	if (n >= 2 * HUGE_PAGE && to > from)
		(void)madvise((char *)p + (from - (uintptr_t)p), to - from, MADV_HUGEPAGE);
}

#define ARENAS_MAX	6               /* few, so that what one thread frees the next can use; enough that a loop seldom waits for the lock
				* of one that a thread without a processor holds */
#define MMAP_FROM	(1 << 20)      /* fixed, as the next: glibc would raise both with what it sees, and keep tens of MB; from
				* here on a block grows by moving pages, below it is copied, at 2.5 ms a MB */
#define TOP_KEPT	(8 << 20)      /* free at the end of a heap; fresh pages are dear on a virtual machine */
#define TOP_KEPT_TRIM	(64 << 10)
#define TOP_LOOKED_AT	(128 << 10)    /* a free of this size makes glibc look at the end of the thread's heap */

void mem_init(void)
{
	mallopt(M_ARENA_MAX, ARENAS_MAX);
	mallopt(M_MMAP_THRESHOLD, MMAP_FROM);
	mallopt(M_TRIM_THRESHOLD, TOP_KEPT);
}

#define RESERVE_STEP	(MMAP_FROM - (64 << 10))

void mem_reserve(size_t n)
{
	void *volatile block[TOP_KEPT / RESERVE_STEP] = { NULL };
	size_t count = 0;

	while (count < ARRAY_LEN(block) && count * RESERVE_STEP < n && (block[count] = malloc(RESERVE_STEP)))
		count++;
	while (count)                  /* the last first: each becomes part of the end */
		free(block[--count]);
}

void mem_trim_begin(void)
{
	mallopt(M_TRIM_THRESHOLD, TOP_KEPT_TRIM);
}

/* malloc_trim cuts the end of the main heap only; that of another goes when a thread that uses it frees enough. */
void mem_trim_thread(void)
{
	void *volatile p = malloc(TOP_LOOKED_AT);

	free(p);
}

void mem_trim(void)
{
	mem_trim_thread();
	malloc_trim(0);
	mallopt(M_TRIM_THRESHOLD, TOP_KEPT);
}

void mem_test_fail_at(uint64_t nth, int sticky)
{
	atomic_store(&mem_count, 0);
	atomic_store(&mem_fail_nth, nth);
	atomic_store(&mem_is_sticky, sticky != 0);
	atomic_store(&mem_is_counting, true);
}

uint64_t mem_test_count(void)
{
	return atomic_load(&mem_count);
}
