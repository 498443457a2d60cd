/*
 * Memory of the HTTP client: curl's allocations go through base/mem, and what has to be done when one of them fails in
 * a place where curl 7.88 cannot cope. Also curl's process-wide set-up. Called by httpc.c on the loop's thread, and by
 * main at its beginning and end.
 */
#include "base/httpc_priv.h"

#include "base/mem.h"

#include <fcntl.h>
#include <unistd.h>

/* Set when curl got no memory; by thread, as its calls are. */
static _Thread_local bool httpc_no_memory;

void httpc_memory_begin(void)
{
	httpc_no_memory = false;
}

bool httpc_had_no_memory(void)
{
	return httpc_no_memory;
}

static void *note_failure(void *p)
{
	if (!p)
		httpc_no_memory = true;
	return p;
}

static void *hook_malloc(size_t n)
{
	return note_failure(mem_alloc(n));
}

static void *hook_calloc(size_t count, size_t size)
{
	return note_failure(mem_calloc(count, size));
}

static void *hook_realloc(void *p, size_t n)
{
	return note_failure(mem_realloc(p, n));
}

static char *hook_strdup(const char *s)
{
	return note_failure(mem_strdup(s));
}

enum errc httpc_global_init(struct err *e)
{
	CURLcode code = curl_global_init_mem(CURL_GLOBAL_DEFAULT, hook_malloc, mem_free, hook_realloc, hook_strdup, hook_calloc);

	return code ? err_set(e, E_INTERNAL, "http: %s", curl_easy_strerror(code)) : E_OK;
}

void httpc_global_done(void)
{
	curl_global_cleanup();
}

/* ---- a socket that curl has no memory to note ---- */

/* Keep the number of a descriptor that was closed from being given out again while the client lives. */
static void burn(struct httpc *c, int fd)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), kept = null;

	if (null >= 0 && null != fd) {
		kept = fcntl(null, F_DUPFD_CLOEXEC, fd); /* the lowest free one from fd on */
		close(null);
	}
	if (kept == fd && c->burnt_count < HTTPC_BURNT_MAX)
		c->burnt[c->burnt_count++] = fd;
	else if (kept >= 0)
		close(kept);
}

void httpc_free_burnt(struct httpc *c)
{
	while (c->burnt_count)
		close(c->burnt[--c->burnt_count]);
}

static void end_one(struct httpc_xfer *x)
{
	struct httpc *c = x->c;
	unsigned n = x->opened_count < HTTPC_OPENED_MAX ? x->opened_count : HTTPC_OPENED_MAX;
	int fds[HTTPC_OPENED_MAX];
	bool is_connecting = x->phase == HTTPC_CONNECT;

	memcpy(fds, x->opened, sizeof(fds));
	httpc_finish(x, err_set(&x->e, E_NO_MEMORY, "http: no memory for a socket"));
	for (unsigned i = 0; i < n && is_connecting; i++) {
		if (fcntl(fds[i], F_GETFD) < 0)
			burn(c, fds[i]);
	}
}

/*
 * curl had no memory for its note of a socket, and nobody watches that socket. It does not say whose it is. New notes
 * are made for transfers that connect and for those that have no socket yet: these are ended.
 *
 * A half-made note stays in curl's table when a socket is closed that was not connected yet, and the next socket with
 * the same number then makes curl divide by zero. So the number is burnt.
 */
void httpc_end_unwatched(struct httpc *c)
{
	struct httpc_xfer *x = c->running.first;

	while (x) {
		if (!x->handle || x->direct || x->is_paused || (x->phase != HTTPC_CONNECT && x->socks)) {
			x = x->next;
			continue;
		}
		end_one(x);
		x = c->running.first; /* on_done may have changed the list */
	}
}
