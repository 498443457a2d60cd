/*
 * SQLite's allocations: through base/mem, each with its size in front, as SQLite asks for it.
 *
 * Debian builds SQLite without its own store of small blocks, and a row written is thirty of them, asked for and given back: a tenth of
 * the writer's time. So the writer's thread keeps some, by size. Others have too little to do with them.
 *
 * Threads: any; what is kept is the thread's own. Errors: NULL, as SQLite expects.
 */
#include "store/store_priv.h"

#include "base/mem.h"

enum {
	HEAD = 16,                     /* keeps the alignment of what mem_alloc gives */
	STEP = 64,
	KEPT_BYTES_MAX = 1024,         /* of a block that is kept, HEAD included */
	KEPT_A_SIZE = 8,               /* 64 KB in all */
};

struct kept {
	struct kept *next;
};

static _Thread_local struct {
	struct kept *first[KEPT_BYTES_MAX / STEP + 1];
	unsigned char count[KEPT_BYTES_MAX / STEP + 1];
	bool is_on;
} kept;

static void *with_size(void *p, int n)
{
	memcpy(p, &n, sizeof(n));
	return (char *)p + HEAD;
}

static void *hook_alloc(int n)
{
	size_t bytes = (size_t)n + HEAD, size = (bytes + STEP - 1) / STEP;
	struct kept *p;

	if (!kept.is_on || bytes > KEPT_BYTES_MAX) {
		p = mem_alloc(bytes);
		return p ? with_size(p, n) : NULL;
	}
	p = kept.first[size];
	if (!p)
		p = mem_alloc(size * STEP);
	else if (mem_test_refuses())
		return NULL;
	else {
		kept.first[size] = p->next;
		kept.count[size]--;
	}
	return p ? with_size(p, (int)(size * STEP) - HEAD) : NULL;
}

static int hook_size(void *p)
{
	int n = 0;

	if (p)
		memcpy(&n, (char *)p - HEAD, sizeof(n));
	return n;
}

static void hook_free(void *p)
{
	size_t bytes = (size_t)hook_size(p) + HEAD, size = bytes / STEP;
	struct kept *k;

	if (!p)
		return;
	k = (struct kept *)(void *)((char *)p - HEAD);
	if (!kept.is_on || bytes % STEP || bytes > KEPT_BYTES_MAX || kept.count[size] == KEPT_A_SIZE) {
		mem_free(k);
		return;
	}
	k->next = kept.first[size];
	kept.first[size] = k;
	kept.count[size]++;
}

static void *hook_realloc(void *old, int n)
{
	char *p = mem_realloc((char *)old - HEAD, (size_t)n + HEAD);

	return p ? with_size(p, n) : NULL;
}

static int hook_roundup(int n)
{
	return (n + 7) & ~7;
}

static int hook_init(void *arg)
{
	(void)arg;
	return SQLITE_OK;
}

static void hook_shutdown(void *arg)
{
	(void)arg;
}

const sqlite3_mem_methods db_mem_hooks = {
	.xMalloc = hook_alloc, .xFree = hook_free, .xRealloc = hook_realloc, .xSize = hook_size,
	.xRoundup = hook_roundup, .xInit = hook_init, .xShutdown = hook_shutdown,
};

void db_mem_keep(void)
{
#ifndef __SANITIZE_ADDRESS__                   /* which is to see each block's end */
	kept.is_on = true;
#endif
}

void db_mem_drop(void)
{
	kept.is_on = false;
	for (size_t i = 0; i < ARRAY_LEN(kept.first); i++) {
		for (struct kept *k = kept.first[i], *next; k; k = next) {
			next = k->next;
			mem_free(k);
		}
		kept.first[i] = NULL;
		kept.count[i] = 0;
	}
}
