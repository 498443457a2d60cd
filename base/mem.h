/*
 * The one allocator: every allocation of the node, cJSON, SQLite and curl goes through here, so that a test can make
 * the Nth one fail. A failed allocation returns NULL and is an error like any other.
 *
 * Threads: any. mem_test_fail_at is for tests only, set before other threads run.
 */
#ifndef MSWARM_BASE_MEM_H
#define MSWARM_BASE_MEM_H

#include "base/attr.h"

#include <stdbool.h>
#include <stdint.h>

void *mem_alloc(size_t n) MUST_CHECK;
void *mem_calloc(size_t count, size_t size) MUST_CHECK;   /* zeroed; NULL also when count * size overflows */
void *mem_realloc(void *p, size_t n) MUST_CHECK;
void mem_free(void *p);                                   /* NULL is fine */
char *mem_strdup(const char *s) MUST_CHECK;
char *mem_strndup(const char *s, size_t n) MUST_CHECK;    /* copies exactly n bytes and adds a NUL */

#define NEW(type) ((type *)mem_calloc(1, sizeof(type)))

void mem_auto_free(void *p);                              /* cleanup for a pointer variable */
#define AUTO_FREE CLEANUP(mem_auto_free)

void mem_wipe(void *p, size_t n);                         /* not optimised away */
/* A fresh block of megabytes that will be filled whole: large pages, where the system has them, save nearly all of its
 * faults. Each takes milliseconds to come: not on a loop. Smaller blocks stay as they are. */
void mem_expect_whole(void *p, size_t n);
/*
 * Room for n bytes (8 MB at most) at the end of this thread's heap, none of them touched. Without it glibc asks the kernel for each few
 * KB that the heap grows, and every time all who meet a fresh page wait for the lock of the whole address space.
 */
void mem_reserve(size_t n);
/*
 * Free heap pages go back to the system in three steps: mem_trim_begin, then mem_trim_thread on every thread that had
 * much to do, then mem_trim, which walks the heaps for some milliseconds.
 */
void mem_init(void);                                      /* first of all: how the heaps behave */
void mem_trim_begin(void);
void mem_trim_thread(void);
void mem_trim(void);

/* Tests: the nth allocation from now fails (1 = the next), and every one after it when sticky; 0 switches off. */
void mem_test_fail_at(uint64_t nth, int sticky);
uint64_t mem_test_count(void);                            /* allocations since the last mem_test_fail_at */
bool mem_test_refuses(void);                              /* counts as one: for who hands out blocks that it keeps */

#endif
