/*
 * Streams past curl, and connections that wait for the next one. Called by httpc.c and httpc_xfer.c; the loop's thread.
 *
 * curl 7.88 asks poll after each recv whether there is more, and holds 8 KB for a transfer that only waits. So once the
 * head of a chunked answer is here, curl is made to let go of the socket (it "closes" it, and on_close_socket does
 * not), its handle goes back to the pool, and the rest is read and taken apart here: one recv a piece, nothing else.
 * What had come with the head is held and given first. Plain HTTP only; everything else stays curl's.
 *
 * A connection whose answer ended cleanly is parked, and handed to curl as an open socket when the next transfer
 * connects to the same address.
 */
#include "base/httpc_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- from curl to us ---- */

void httpc_direct_mark(struct httpc_xfer *x)
{
	x->is_to_take = true;
	x->next_take = x->c->take_first;
	x->c->take_first = x;
}

void httpc_direct_unmark(struct httpc_xfer *x)
{
	struct httpc_xfer **at = &x->c->take_first;

	if (!x->is_to_take)
		return;
	while (*at != x)
		at = &(*at)->next_take;
	*at = x->next_take;
	x->is_to_take = false;
}

bool httpc_direct_hold(struct httpc_xfer *x, struct slice bytes)
{
	return buf_add_slice(&x->held, bytes, &x->e) == E_OK;
}

/* The socket of x, out of curl's hands and still watched: curl had it watched before it returned. */
static enum errc take_socket(struct httpc_xfer *x)
{
	struct httpc *c = x->c;
	struct httpc_sock *s = x->socks;

	c->taking = s ? s->fd : -1;
	c->is_taken = false;
	curl_multi_remove_handle(c->multi, x->handle->easy);
	c->taking = -1;
	if (!s || !c->is_taken) {
		while (x->socks)
			httpc_sock_unlink(x->socks);
		return err_set(&x->e, E_INTERNAL, "http: curl keeps the socket of a stream");
	}
	s->use = SOCK_DIRECT;
	x->direct = s;
	return s->what == CURL_POLL_IN ? E_OK : loop_watch_mod(c->loop, s->watch, EPOLLIN, &x->e);
}

/* ---- the bytes ---- */

/* Keep what cannot be given now, and read no further. A one-shot watch: a hang-up that nobody takes must not spin. */
static enum errc hold(struct httpc_xfer *x, struct slice rest)
{
	x->is_paused = true;
	if (x->direct && loop_watch_mod(x->c->loop, x->direct->watch, EPOLLONESHOT, &x->e))
		return x->e.code;
	return buf_add_slice(&x->held, rest, &x->e);
}

static enum errc give(struct httpc_xfer *x, struct slice *rest, struct slice data)
{
	if (x->max_body && data.n > x->max_body - x->received)
		return err_set(&x->e, E_TOO_LARGE, "answer: more than %llu bytes", (unsigned long long)x->max_body);
	if (x->ops->on_data(x->ctx, data) == HTTPC_PAUSE && x->where == HTTPC_RUNNING) {
		dechunk_back(&x->chunks, rest, data);
		return hold(x, *rest);
	}
	x->received += data.n;
	return E_OK;
}

/* Give what the coded bytes hold. May end x. */
static void deliver(struct httpc_xfer *x, struct slice coded)
{
	struct httpc *c = x->c;
	enum dechunk_got got = DECHUNK_MORE;
	enum errc rc = E_OK;
	struct slice data;

	c->is_in_curl = true;
	while (x->where == HTTPC_RUNNING && !x->is_paused && !rc &&
	       (got = dechunk_next(&x->chunks, &coded, &data)) == DECHUNK_DATA)
		rc = give(x, &coded, data);
	c->is_in_curl = false;
	if (x->where != HTTPC_RUNNING) {
		httpc_end_doomed(c);
		return;
	}
	if (!rc && x->is_paused)
		return;
	if (!rc && got == DECHUNK_BAD)
		rc = err_set(&x->e, E_UPSTREAM, "answer: not in chunks, as its head says it is");
	if (!rc && got == DECHUNK_MORE && !x->direct)
		rc = httpc_xfer_judge(x, x->end_code ? x->end_code : CURLE_PARTIAL_FILE);
	if (!rc && got == DECHUNK_MORE)
		return;
	x->is_clean = coded.n == 0;
	httpc_finish(x, rc);
}

static void deliver_held(struct httpc_xfer *x)
{
	AUTO_BUF coded = x->held;

	buf_init(&x->held, HTTPC_HELD_MAX);
	deliver(x, buf_slice(&coded));
}

void httpc_direct_take(struct httpc_xfer *x, bool is_ended, CURLcode code)
{
	enum errc rc = E_OK;

	httpc_direct_unmark(x);
	if (x->e.code) {                   /* ended by ourselves: a limit, no memory */
		httpc_finish(x, x->e.code);
		return;
	}
	x->end_code = code;
	if (is_ended)
		curl_multi_remove_handle(x->c->multi, x->handle->easy);
	else
		rc = take_socket(x);
	while (is_ended && x->socks)
		httpc_sock_unlink(x->socks);
	httpc_xfer_unhand(x);
	if (rc)
		httpc_finish(x, rc);
	else
		deliver_held(x);
}

void httpc_direct_ready(struct httpc_xfer *x)
{
	char *block = x->c->block;
	ssize_t n;

	if (x->is_paused)
		return;
	n = recv(x->direct->fd, block, HTTPC_BLOCK, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		httpc_finish(x, err_set_os(&x->e, E_UPSTREAM, errno, "answer cut short"));
	else if (n == 0)
		httpc_finish(x, err_set(&x->e, E_UPSTREAM, "answer cut short"));
	else {
		x->last_ms = loop_now_ms(x->c->loop);
		deliver(x, slice_of(block, (size_t)n));
	}
}

void httpc_direct_resume(struct httpc_xfer *x)
{
	if (x->direct && loop_watch_mod(x->c->loop, x->direct->watch, EPOLLIN, &x->e)) {
		httpc_finish(x, x->e.code);
		return;
	}
	deliver_held(x);
}

/* ---- parked connections ---- */

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

/* Out of the list and unwatched; the descriptor is the caller's. */
static int unpark(struct httpc_sock *s)
{
	struct httpc *c = s->c;
	struct httpc_sock **at = &c->parked;
	int fd = s->fd;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	c->parked_count--;
	loop_watch_del(c->loop, s->watch);
	mem_free(s);
	return fd;
}

void httpc_parked_drop(struct httpc_sock *s)
{
	close(unpark(s));
}

void httpc_parked_drop_all(struct httpc *c)
{
	while (c->parked)
		httpc_parked_drop(c->parked);
	loop_timer_cancel(c->loop, &c->parked_timer);
}

static bool is_same_peer(const union httpc_address *a, const struct sockaddr *b)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)b;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)b;

	if (a->any.sa_family != b->sa_family)
		return false;
	if (b->sa_family == AF_INET)
		return a->v4.sin_port == v4->sin_port && a->v4.sin_addr.s_addr == v4->sin_addr.s_addr;
	return b->sa_family == AF_INET6 && a->v6.sin6_port == v6->sin6_port && a->v6.sin6_scope_id == v6->sin6_scope_id &&
	       memcmp(&a->v6.sin6_addr, &v6->sin6_addr, sizeof(v6->sin6_addr)) == 0;
}

/* Parked and silent so far: a byte or an end that came meanwhile makes it useless. */
static bool is_quiet(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

int httpc_parked_get(struct httpc *c, const struct sockaddr *peer)
{
	struct httpc_sock *next;

	for (struct httpc_sock *s = c->parked; s; s = next) {
		next = s->next;
		if (!is_same_peer(&s->peer, peer))
			continue;
		if (s->parked_ms + HTTPC_PARKED_MS > loop_now_ms(c->loop) && is_quiet(s->fd))
			return unpark(s);
		httpc_parked_drop(s);
	}
	return -1;
}

static bool may_park(const struct httpc_xfer *x)
{
	const struct httpc *c = x->c;

	return x->is_clean && !x->is_last && !x->is_fresh && (!c->max_idle_per_host || x->has_claim) && c->parked_count < HTTPC_PARKED_MAX;
}

static bool park(struct httpc_xfer *x)
{
	struct httpc *c = x->c;
	struct httpc_sock *s = x->direct;
	socklen_t n = sizeof(s->peer);

	if (!may_park(x) || getpeername(s->fd, &s->peer.any, &n))
		return false;
	httpc_sock_unlink(s);
	s->use = SOCK_PARKED;
	s->parked_ms = loop_now_ms(c->loop);
	s->next = c->parked;
	c->parked = s;
	c->parked_count++;
	if (!c->parked_timer.heap_pos)
		loop_timer_set(c->loop, &c->parked_timer, s->parked_ms + HTTPC_PARKED_MS);
	return true;
}

bool httpc_direct_end(struct httpc_xfer *x, bool is_complete)
{
	struct httpc_sock *s = x->direct;

	if (!s)
		return is_complete && !x->is_last;     /* curl saw the end, and has kept the connection or not */
	if (is_complete && park(x)) {
		x->direct = NULL;
		return true;
	}
	x->direct = NULL;
	httpc_sock_unlink(s);
	loop_watch_del(x->c->loop, s->watch);
	close(s->fd);
	mem_free(s);
	return false;
}
