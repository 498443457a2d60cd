/*
 * Connections of the HTTP server: how many, from whom, how long; and the listening socket. Each on its loop, but for
 * http_listen and http_peers_*, which main calls.
 */
#include "server/http_priv.h"

#include "base/mem.h"
#include "base/thread.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTEN_BACKLOG 4096
#define PEER_SLOTS 4096                /* open addressing; peers beyond that are not counted one by one */

/* ---- connections by peer: not for loopback, where a tunnel's clients share an address (design.md 5.9) ---- */

struct peer_slot {
	uint8_t address[16];
	unsigned open;                 /* 0: free */
};

struct http_peers {
	struct mutex mu;
	struct peer_slot slot[PEER_SLOTS];     /* GUARDED_BY(mu) */
};

enum errc http_peers_new(struct http_peers **ret, struct err *e)
{
	struct http_peers *p = NEW(struct http_peers);

	if (!p)
		return err_set(e, E_NO_MEMORY, "no memory for the table of peers");
	mutex_init(&p->mu);
	*ret = p;
	return E_OK;
}

void http_peers_free(struct http_peers *p)
{
	if (!p)
		return;
	mutex_done(&p->mu);
	mem_free(p);
}

/* IPv4 as mapped IPv6. False: loopback, or no IP address. */
static bool peer_address(const struct sockaddr *sa, uint8_t out[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	if (sa && sa->sa_family == AF_INET) {
		memcpy(out, mapped, sizeof(mapped));
		memcpy(out + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
		return out[12] != 127;
	}
	if (!sa || sa->sa_family != AF_INET6)
		return false;
	memcpy(out, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	if (memcmp(out, mapped, sizeof(mapped)) == 0)
		return out[12] != 127;
	return !IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

static size_t peer_hash(const uint8_t a[16])
{
	uint64_t h = 1469598103934665603u;     /* FNV-1a */

	for (unsigned i = 0; i < 16; i++)
		h = (h ^ a[i]) * 1099511628211u;
	return (size_t)(h % PEER_SLOTS);
}

/* Linear probing within a short run; a slot that became free may be taken by another peer meanwhile. */
static struct peer_slot *peer_find(struct http_peers *p, const uint8_t a[16], bool may_take)
{
	struct peer_slot *unused = NULL;

	for (size_t i = 0; i < 16; i++) {
		struct peer_slot *s = &p->slot[(peer_hash(a) + i) % PEER_SLOTS];

		if (s->open && memcmp(s->address, a, 16) == 0)
			return s;
		if (!s->open && !unused)
			unused = s;
	}
	if (may_take && unused)
		memcpy(unused->address, a, 16);
	return may_take ? unused : NULL;
}

static const struct sockaddr *client_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	return info ? info->client_addr : NULL;
}

/* Count a new connection; false: this peer has too many. */
static bool peer_open(struct http_conn *c, struct MHD_Connection *mhd)
{
	struct http_peers *p = c->h->shared->peers;
	int64_t max = c->h->ctx->svc->cfg->max_connections_per_peer;
	uint8_t a[16];
	struct peer_slot *s;

	if (!p || !peer_address(client_of(mhd), a))
		return true;
	MUTEX_SCOPE(&p->mu);
	s = peer_find(p, a, true);
	if (!s)
		return true;
	if (s->open >= (uint64_t)max)
		return false;
	s->open++;
	c->is_counted = true;
	return true;
}

static void peer_close(struct http_conn *c, struct MHD_Connection *mhd)
{
	struct http_peers *p = c->h->shared->peers;
	uint8_t a[16];
	struct peer_slot *s;

	if (!c->is_counted || !peer_address(client_of(mhd), a))
		return;
	MUTEX_SCOPE(&p->mu);
	s = peer_find(p, a, false);
	if (s)
		s->open--;
}

/* ---- limits of time ---- */

void http_shut(struct http_conn *c)
{
	if (!c->is_shut && c->fd >= 0)
		shutdown(c->fd, SHUT_RDWR);
	c->is_shut = true;
	c->h->is_due = true;
}

#define TOO_SLOW_BODY \
	"{\"error\":{\"message\":\"The request took too long to arrive: headers or body stalled.\",\"type\":\"invalid_request_error\"," \
	"\"param\":null,\"code\":\"request_timeout\"}}\n"

/* libmicrohttpd cannot answer before a request is whole; a slow client is told by hand, as far as its socket takes it. */
static void say_too_slow(struct http_conn *c)
{
	static const char text[] =
		"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: application/json; charset=utf-8\r\n"
		"content-length: 155\r\n\r\n" TOO_SLOW_BODY;

	_Static_assert(sizeof(TOO_SLOW_BODY) - 1 == 155, "content-length above");
	if (c->h->shared->tls_cert_pem || c->req->phase > PHASE_DISCARD)
		return;
	(void)!send(c->fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void on_limit(struct loop_timer *t)
{
	struct http_conn *c = CONTAINER_OF(t, struct http_conn, limit);
	int64_t now = loop_now_ms(c->h->ctx->loop);

	if (c->limit_mono_ms == CLOCK_NEVER)
		return;
	if (c->limit_mono_ms > now) {
		loop_timer_set(c->h->ctx->loop, t, c->limit_mono_ms);
		return;
	}
	if (c->req)
		say_too_slow(c);
	http_shut(c);
	if (c->req)
		http_client_gone(c->req);
}

void http_set_limit(struct http_conn *c, int64_t ms)
{
	struct loop *l = c->h->ctx->loop;

	if (ms <= 0) {
		c->limit_mono_ms = CLOCK_NEVER;
		return;
	}
	c->limit_mono_ms = loop_now_ms(l) + ms;
	/* An armed timer that fires earlier looks at limit_mono_ms again; only a later one has to move. */
	if (!c->limit.heap_pos || c->limit.at_mono_ms > c->limit_mono_ms)
		loop_timer_set(l, &c->limit, c->limit_mono_ms);
}

/* ---- the client's end ----
 *
 * A request that is being worked on ends with its client at once. Otherwise libmicrohttpd reads what came before the end,
 * and answers it; but as it reads short and then waits for an edge that was, it may never see the end itself. So after
 * it ran, a connection that has no request and nothing left to be read is shut.
 */

static void note_end(struct http_conn *c)
{
	struct http *h = c->h;

	c->has_end = true;
	if (c->req && c->req->is_watched) {
		http_client_gone(c->req);
		return;
	}
	h->is_due = true;
	if (c->is_in_ended)
		return;
	c->is_in_ended = true;
	c->next_ended = h->ended_first;
	h->ended_first = c;
}

static void forget_ended(struct http_conn *c)
{
	struct http_conn **at = &c->h->ended_first;

	if (!c->is_in_ended)
		return;
	while (*at != c)
		at = &(*at)->next_ended;
	*at = c->next_ended;
	c->is_in_ended = false;
}

static bool is_read_up(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

void http_look_at_ended(struct http *h)
{
	struct http_conn *next;

	for (struct http_conn *c = h->ended_first; c; c = next) {
		bool is_idle = !c->req || c->req->phase == PHASE_TARGET;
		bool is_taking = c->req && c->req->phase == PHASE_BODY && c->req->q.body_ops && !c->req->is_suspended;

		next = c->next_ended;
		if ((c->req && c->req->is_watched) || (is_taking && is_read_up(c->fd)))
			http_client_gone(c->req);
		else if (is_idle && is_read_up(c->fd))
			http_shut(c);
		else
			continue;              /* being answered, or still to be read */
		forget_ended(c);
	}
}

static void on_socket(void *arg, uint32_t events)
{
	struct http_conn *c = arg;

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		note_end(c);
	else if (c->req && c->req->direct_rest.n && http_direct_possible(c->req))
		http_direct_writable(c->req);
}

void http_wait_writable(struct http_conn *c)
{
	struct err e = { 0 };

	http_set_limit(c, c->h->ctx->svc->cfg->http_write_ms);
	if (loop_watch_mod(c->h->ctx->loop, c->watch, EPOLLRDHUP | EPOLLOUT | EPOLLET, &e))
		http_client_gone(c->req);
}

/* ---- connections ---- */

static void conn_open(struct http *h, struct MHD_Connection *mhd, void **socket_context)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct http_conn *c = NEW(struct http_conn);
	int64_t open_now = atomic_fetch_add(&h->shared->connections, 1) + 1;
	struct err e = { 0 };

	atomic_fetch_add(&h->ctx->connections, 1);
	*socket_context = c;
	if (!c)
		return;
	c->h = h;
	c->fd = info ? info->connect_fd : -1;
	c->limit.fn = on_limit;
	c->is_refused = (uint64_t)open_now > h->shared->max_connections || !peer_open(c, mhd);
	c->next = h->conns;
	if (c->next)
		c->next->prev = c;
	h->conns = c;
	http_set_limit(c, h->ctx->svc->cfg->http_header_ms);
	/* Unwatched, a client that leaves would be noticed too late, or never: better none. */
	if (loop_watch_add(h->ctx->loop, c->fd, EPOLLRDHUP | EPOLLET, on_socket, c, &c->watch, &e))
		http_shut(c);
}

static void conn_close(struct http *h, struct MHD_Connection *mhd, struct http_conn *c)
{
	atomic_fetch_sub(&h->shared->connections, 1);
	atomic_fetch_sub(&h->ctx->connections, 1);
	if (!c)
		return;
	peer_close(c, mhd);
	loop_timer_cancel(h->ctx->loop, &c->limit);
	loop_watch_del(h->ctx->loop, c->watch);
	forget_ended(c);
	if (c->prev)
		c->prev->next = c->next;
	else
		h->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	mem_free(c);
}

void http_on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context, enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		conn_open(cls, mhd, socket_context);
	else
		conn_close(cls, mhd, *socket_context);
}

/* ---- the listening socket ---- */

static int bind_one(const struct addrinfo *ai)
{
	int one = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, LISTEN_BACKLOG) == 0)
		return fd;
	one = errno;
	close(fd);
	errno = one;
	return -1;
}

static int port_of(int fd)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t n = sizeof(ss);

	if (getsockname(fd, (struct sockaddr *)&ss, &n))
		return 0;
	return ntohs(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port : ((struct sockaddr_in *)&ss)->sin_port);
}

enum errc http_listen(const char *host, int port, int *ret_fd, int *ret_port, struct err *e)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *list = NULL;
	char service[8];
	int rc, fd;

	snprintf(service, sizeof(service), "%d", port);
	rc = getaddrinfo(host, service, &hints, &list);
	if (rc)
		return err_set(e, E_INVALID_VALUE, "listen address %s: %s", host, gai_strerror(rc));
	fd = bind_one(list);
	freeaddrinfo(list);
	if (fd < 0 && errno == EADDRINUSE)
		return err_set(e, E_CONFLICT, "%s:%d is in use by another program; choose another port with --listen-port", host, port);
	if (fd < 0)
		return err_set_os(e, E_IO, errno, "listen on %s:%d", host, port);
	*ret_fd = fd;
	*ret_port = port_of(fd);
	return E_OK;
}
