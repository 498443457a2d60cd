/*
 * Connections whose stream ended cleanly and that wait for the next one to the same origin, the warmest first. Watched
 * meanwhile: a byte or an end that nobody asked for ends them. Called by httpc*.c; the loop's thread.
 */
#include "base/httpc_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <sys/socket.h>

static void on_parked_timer(struct loop_timer *t)
{
	struct httpc *c = CONTAINER_OF(t, struct httpc, parked_timer);
	struct httpc_sock *next, *oldest = NULL;

	for (struct httpc_sock *s = c->parked; s; s = next) {
		next = s->next;
		if (s->parked_ms + HTTPC_PARKED_MS <= loop_now_ms(c->loop))
			httpc_parked_drop(s);
		else
			oldest = s;
	}
	if (oldest)
		loop_timer_set(c->loop, t, oldest->parked_ms + HTTPC_PARKED_MS);
}

void httpc_parked_init(struct httpc *c)
{
	c->taking = -1;
	c->parked_timer.fn = on_parked_timer;
}

static void unpark(struct httpc_sock *s)
{
	struct httpc_sock **at = &s->c->parked;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	s->next = NULL;
	s->c->parked_count--;
}

void httpc_parked_drop(struct httpc_sock *s)
{
	unpark(s);
	httpc_sock_close(s);
}

void httpc_parked_drop_all(struct httpc *c)
{
	while (c->parked)
		httpc_parked_drop(c->parked);
	loop_timer_cancel(c->loop, &c->parked_timer);
}

bool httpc_parked_has(const struct httpc *c, struct slice origin)
{
	for (const struct httpc_sock *s = c->parked; s; s = s->next) {
		if (slice_eq_nocase(slice_str(s->origin), origin))
			return true;
	}
	return false;
}

/* Silent so far. */
static bool is_quiet(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

struct httpc_sock *httpc_parked_get(struct httpc *c, const char *origin)
{
	struct httpc_sock *next;

	for (struct httpc_sock *s = c->parked; s; s = next) {
		next = s->next;
		if (!slice_eq_nocase(slice_str(s->origin), slice_str(origin)))
			continue;
		if (is_quiet(s->fd)) {
			unpark(s);
			mem_free(s->origin);
			s->origin = NULL;
			return s;
		}
		httpc_parked_drop(s);
	}
	return NULL;
}

static bool may_park(const struct httpc_xfer *x)
{
	const struct httpc *c = x->c;

	return x->is_clean && !x->is_last && !x->is_cut && !x->is_fresh && (!c->max_idle_per_host || x->has_claim) && c->parked_count < HTTPC_PARKED_MAX;
}

bool httpc_parked_put(struct httpc_xfer *x)
{
	struct httpc *c = x->c;
	struct httpc_sock *s = x->direct;

	if (!may_park(x))
		return false;
	x->direct = NULL;
	httpc_sock_unlink(s);
	s->use = SOCK_PARKED;
	s->origin = x->origin_name;
	x->origin_name = NULL;
	s->parked_ms = loop_now_ms(c->loop);
	s->next = c->parked;
	c->parked = s;
	c->parked_count++;
	if (!c->parked_timer.heap_pos)
		loop_timer_set(c->loop, &c->parked_timer, s->parked_ms + HTTPC_PARKED_MS);
	return true;
}
