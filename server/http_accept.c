/*
 * New connections: each loop watches the listening socket, one of them is woken, and what it accepts goes to the loop that has the
 * fewest. Left to themselves, loops take what they happen to see first: of a burst one gets nearly all, and a stream stays where it is.
 *
 * Threads: the loop of the struct http, but for give(), which any loop calls on any other's.
 */
#include "server/http_priv.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	ACCEPTS_A_TURN = 16,
	SAY_EVERY_MS = 60000,
	PAUSE_MS = 50,                 /* without descriptors, memory or room there is nothing to wait for but time */
	OVER_LIMIT = 64,               /* so many more than max_connections are told that they are too many; the others wait */
};

struct http_accepted {
	struct http_accepted *next;
	int fd;
	socklen_t address_len;
	struct sockaddr_storage address;
};

/* ---- what was accepted for this loop ---- */

static void take(struct http *h, struct http_accepted *a)
{
	if (MHD_add_connection(h->daemon, a->fd, (struct sockaddr *)&a->address, a->address_len) != MHD_YES)
		log_event(LOG_DEBUG, "http.not_taken", "fd=%d", a->fd);        /* closed by then */
	h->added++;                                    /* it begins, or fails, in the next run */
	h->is_due = true;
	mem_free(a);
}

static void on_given(struct loop_msg *m)
{
	struct http *h = CONTAINER_OF(m, struct http, given_msg);
	struct http_accepted *a, *next;

	atomic_store(&h->is_given_posted, false);      /* before the stack is taken: whoever puts something later posts again */
	for (a = atomic_exchange(&h->given, NULL); a; a = next) {
		next = a->next;
		take(h, a);
	}
}

static void give(struct http *to, struct http_accepted *a)
{
	a->next = atomic_load(&to->given);
	while (!atomic_compare_exchange_weak(&to->given, &a->next, a))
		;
	if (!atomic_exchange(&to->is_given_posted, true))
		loop_post(to->ctx->loop, &to->given_msg);
}

void http_accept_run_done(struct http *h)
{
	atomic_fetch_sub(&h->coming, h->added);
	h->added = 0;
}

/* ---- accepting ---- */

static int64_t load_of(const struct http *h)
{
	return atomic_load_explicit(&h->ctx->connections, memory_order_relaxed) + atomic_load_explicit(&h->coming, memory_order_relaxed);
}

/* Among equals this loop: no letter. */
static struct http *fewest(struct http *self)
{
	struct http *best = self;
	int64_t least = load_of(self);

	for (unsigned i = 0; i < self->shared->daemon_count; i++) {
		struct http *h = self->shared->daemons[i];
		int64_t n = load_of(h);

		if (n < least) {
			best = h;
			least = n;
		}
	}
	return best;
}

static bool has_room(const struct http *h)
{
	int64_t n = 0;

	for (unsigned i = 0; i < h->shared->daemon_count; i++)
		n += load_of(h->shared->daemons[i]);
	return n < (int64_t)h->shared->max_connections + OVER_LIMIT;
}

/* Each connection that ends lets one in, and then there is no room again: once a minute is enough. */
static void say_not_accepting(struct http_shared *s, int64_t now_ms, const char *why)
{
	int_fast64_t said = atomic_load(&s->said_mono_ms);

	if (said && now_ms - said < SAY_EVERY_MS)
		return;
	if (atomic_compare_exchange_strong(&s->said_mono_ms, &said, now_ms))
		log_event(LOG_WARN, "http.not_accepting", "reason=%s connections=%lld", why, (long long)atomic_load(&s->connections));
}

/* An exclusive watch cannot be changed, only taken away. */
static void pause_accepting(struct http *h, const char *why)
{
	loop_watch_del(h->ctx->loop, h->listen_watch);
	h->listen_watch = 0;
	loop_timer_set(h->ctx->loop, &h->listen_again, loop_now_ms(h->ctx->loop) + PAUSE_MS);
	if (why)
		say_not_accepting(h->shared, loop_now_ms(h->ctx->loop), why);
}

static const char *reason_of(int error)
{
	switch (error) {
	case EMFILE:
		return "no_descriptor_left_for_this_process";
	case ENFILE:
		return "no_descriptor_left_on_this_machine";
	case ENOBUFS:
	case ENOMEM:
		return "no_memory";
	default:
		return NULL;           /* this one connection's affair: it has gone */
	}
}

/* Is there more to be accepted in this turn? */
static bool accept_one(struct http *h)
{
	struct http_accepted *a = has_room(h) ? NEW(struct http_accepted) : NULL;
	const char *why;
	struct http *to;

	if (!a) {
		pause_accepting(h, has_room(h) ? reason_of(ENOMEM) : NULL);
		return false;
	}
	a->address_len = sizeof(a->address);
	a->fd = accept4(h->listen_fd, (struct sockaddr *)&a->address, &a->address_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (a->fd < 0) {
		why = reason_of(errno);
		if (why)
			pause_accepting(h, why);
		mem_free(a);
		return !why && errno != EAGAIN;
	}
	to = fewest(h);
	atomic_fetch_add(&to->coming, 1);
	if (to == h)
		take(h, a);
	else
		give(to, a);
	return true;
}

static void on_listen(void *arg, uint32_t events)
{
	struct http *h = arg;

	(void)events;
	for (unsigned i = 0; i < ACCEPTS_A_TURN && accept_one(h); i++)
		;
}

static enum errc watch_listener(struct http *h, struct err *e)
{
	return loop_watch_add(h->ctx->loop, h->listen_fd, EPOLLIN | EPOLLEXCLUSIVE, on_listen, h, &h->listen_watch, e);
}

static void on_again(struct loop_timer *t)
{
	struct http *h = CONTAINER_OF(t, struct http, listen_again);
	struct err ignored;

	if (watch_listener(h, &ignored))
		loop_timer_set(h->ctx->loop, t, loop_now_ms(h->ctx->loop) + PAUSE_MS);
}

enum errc http_accept_start(struct http *h, int listen_fd, struct err *e)
{
	struct http_shared *s = h->shared;

	must(s->daemon_count < HTTP_DAEMONS_MAX);
	h->listen_fd = listen_fd;
	h->given_msg.fn = on_given;
	h->listen_again.fn = on_again;
	s->daemons[s->daemon_count++] = h;
	return watch_listener(h, e);
}

void http_accept_stop(struct http *h)
{
	loop_timer_cancel(h->ctx->loop, &h->listen_again);
	loop_watch_del(h->ctx->loop, h->listen_watch);
	h->listen_watch = 0;
}

/* What was given to a loop that had ended already. */
void http_accept_free(struct http *h)
{
	struct http_accepted *a, *next;

	for (a = atomic_exchange(&h->given, NULL); a; a = next) {
		next = a->next;
		(void)close(a->fd);
		mem_free(a);
	}
}
