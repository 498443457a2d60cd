/*
 * The only door to libmicrohttpd: one daemon per loop, in external-epoll mode; the loops share the one listening socket
 * that main made. Turns connections into struct req and replies into its calls; keeps every time limit itself.
 *
 * Obeys design.md 5.1-5.11. Threads: http_new and http_free on main while the loop does not run; the rest on the loop,
 * unless it says otherwise.
 */
#ifndef MSWARM_SERVER_HTTP_H
#define MSWARM_SERVER_HTTP_H

#include "routes/route.h"

#include <stdatomic.h>

struct http;
struct http_peers;

#define HTTP_DAEMONS_MAX 16

/* Shared by all daemons of the node. */
struct http_shared {
	atomic_int_fast64_t connections;      /* open now */
	atomic_int_fast64_t body_bytes;       /* request bodies in memory now */
	atomic_bool is_stopping;              /* no keep-alive any more */
	uint64_t max_connections;
	struct http_peers *peers;             /* open connections of each peer that is not loopback */
	char *tls_cert_pem, *tls_key_pem;     /* NULL: plain HTTP */
	struct http *daemons[HTTP_DAEMONS_MAX];       /* by http_new, before the loops run */
	unsigned daemon_count;
	atomic_int_fast64_t said_mono_ms;     /* that connections cannot be accepted; 0: never */
};

struct http_ops {
	/* Headers are in (no body yet): set q->route or fail; the refusal is sent when the body has been discarded. */
	enum errc (*on_head)(struct req *q, struct err *e);
	/* The whole request is in: fill q->reply, or say later or stream. An error is rendered in the route's shape. */
	enum errc (*on_request)(struct req *q, struct err *e);
	/* The answer is out or the client has gone; status 0 when nothing was sent. For the access log. */
	void (*on_end)(struct req *q, int status, uint64_t bytes_out, bool is_client_gone);
};

struct http_opts {
	struct loop_ctx *ctx;                 /* borrowed, outlives the daemon */
	int listen_fd;                        /* borrowed */
	struct http_shared *shared;
	const struct http_ops *ops;
};

MUST_CHECK enum errc http_new(const struct http_opts *o, struct http **ret, struct err *e);
/* Stop accepting. The listening socket stays open until all daemons have been quiesced. */
void http_quiesce(struct http *h);
size_t http_requests_open(const struct http *h);
/* The node stops: waiting requests are refused with node_draining, streams get their last event. Their bytes still go
 * out while the loop runs; what is left after that ends with http_free. */
void http_stop_all(struct http *h);
/* End every open request at once: handlers are told that the client has gone, sockets are shut down. */
void http_end_all(struct http *h);
void http_free(struct http *h);

MUST_CHECK enum errc http_peers_new(struct http_peers **ret, struct err *e);
void http_peers_free(struct http_peers *p);

/* One listening socket on host:port; *ret_port is the port that it has. E_CONFLICT when in use, named. */
MUST_CHECK enum errc http_listen(const char *host, int port, int *ret_fd, int *ret_port, struct err *e);

#endif
