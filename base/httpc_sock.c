/*
 * A watched socket of the HTTP client: whose it is, and the end of those that are not curl's. Called by httpc*.c; the
 * loop's thread.
 */
#include "base/httpc_priv.h"

#include "base/mem.h"

#include <sys/epoll.h>
#include <unistd.h>

void httpc_sock_unlink(struct httpc_sock *s)
{
	struct httpc_sock **at;

	if (!s->x)
		return;
	for (at = &s->x->socks; *at != s; at = &(*at)->next)
		;
	*at = s->next;
	s->x = NULL;
}

void httpc_sock_link(struct httpc_sock *s, struct httpc_xfer *x)
{
	if (s->x == x)
		return;
	httpc_sock_unlink(s);
	s->x = x;
	s->next = x->socks;
	x->socks = s;
}

/* By edge: an event a stream's piece, and epoll has nothing to look at again in the next turn. */
enum errc httpc_sock_rearm(struct httpc_sock *s, struct err *e)
{
	return loop_watch_mod(s->c->loop, s->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, e);
}

void httpc_sock_close(struct httpc_sock *s)
{
	loop_watch_del(s->c->loop, s->watch);
	close(s->fd);
	mem_free(s->origin);
	mem_free(s);
}
