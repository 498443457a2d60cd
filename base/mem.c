/*
 * The one allocator. Called by everything, on any thread. The test hook costs a relaxed load an allocation while no
 * test has asked for it: the shared counter is touched only from the first mem_test_fail_at on.
 */
#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static atomic_bool mem_is_counting;       /* a test has called mem_test_fail_at */
static atomic_uint_fast64_t mem_count;    /* allocations since then */
static atomic_uint_fast64_t mem_fail_nth; /* 0 = none fails */
static atomic_bool mem_is_sticky;

/* Count one allocation; true when it is one that has to fail. */
static bool must_refuse(void)
{
	if (!atomic_load_explicit(&mem_is_counting, memory_order_relaxed))
		return false;
	uint64_t n = atomic_fetch_add(&mem_count, 1) + 1, nth = atomic_load(&mem_fail_nth);

	return nth != 0 && (n == nth || (n > nth && atomic_load(&mem_is_sticky)));
}

void *mem_alloc(size_t n)
{
	return must_refuse() ? NULL : malloc(n ? n : 1);
}

void *mem_calloc(size_t count, size_t size)
{
	size_t n;

	if (must_refuse() || __builtin_mul_overflow(count, size, &n))
		return NULL;
	return calloc(1, n ? n : 1);
}

void *mem_realloc(void *p, size_t n)
{
	return must_refuse() ? NULL : realloc(p, n ? n : 1);
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

void mem_trim(void)
{
	malloc_trim(0);
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
