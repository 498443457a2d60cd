/* Shared by server/http*.c only: what a connection and a request are on the inside. */
#ifndef MSWARM_SERVER_HTTP_PRIV_H
#define MSWARM_SERVER_HTTP_PRIV_H

#include "server/http.h"

#include "base/clock.h"

#include <microhttpd.h>

#define HTTP_HEAD_MAX		(16 * 1024)        /* target and headers; 431 above it, as the reference; above the pool libmicrohttpd says it itself */
#define HTTP_POOL_BYTES		(18 * 1024)        /* of a connection, its head included; all of it is touched, so it is what a stream costs most */
#define HTTP_DISCARD_MAX	(8u << 20)         /* of a refused body, then the connection is closed: design.md 5.2 */
#define HTTP_DISCARD_MS		2000
#define HTTP_STREAM_BLOCK	512               /* what libmicrohttpd pulls of a stream; the rest goes by http_direct.c */
#define HTTP_LARGE_BYTES	(128 * 1024)       /* an answer above this is sent in blocks */
#define HTTP_LARGE_BLOCK	(64 * 1024)
#define HTTP_DIRECT_BLOCK	(16 * 1024)        /* largest chunk of a stream sent without libmicrohttpd */
#define HTTP_A_RUN		32                 /* requests taken on, and answers begun, in one run of libmicrohttpd: a millisecond's work */
#define HTTP_RUN_US		2000               /* after so long a run takes on and begins nothing new: the work may be dearer, or the machine slow */
#define HTTP_ADDRESS_MAX	46                 /* INET6_ADDRSTRLEN */
#define HTTP_WAIT_MS		10                 /* a request that has waited so long is suspended; most answers come sooner */
#define HTTP_WAITING_MAX	64                 /* of a loop: each is called at each run */

/* What a request is doing; never inferred from a size (design.md 5.1). */
enum http_phase {
	PHASE_TARGET,      /* the request line is known */
	PHASE_BODY,        /* headers seen, body being stored */
	PHASE_DISCARD,     /* refused: the body is read and dropped, then the refusal is sent */
	PHASE_RUN,         /* the handler has it; the connection waits or is suspended */
	PHASE_READY,       /* q.reply may be sent */
	PHASE_STREAM,      /* a streamed answer is being pulled */
	PHASE_SENT,        /* an answer is queued whole */
};

struct http_conn {
	struct http *h;
	struct http_conn *next, *prev;
	struct http_req *req;          /* the request in progress, or NULL */
	struct loop_timer limit;       /* headers, body, idle or write, by what is going on; armed lazily */
	int64_t limit_mono_ms;         /* when it really ends; CLOCK_NEVER: no limit now */
	int fd;
	loop_watch_id watch;           /* of the socket, by edge: the client's end, and room after a full socket */
	struct http_conn *next_ended;  /* in h->ended_first, while is_in_ended */
	bool has_end;                  /* the client has closed, at least its sending side */
	bool is_in_ended;
	bool is_refused;               /* over a connection limit: answer 503 and close */
	bool is_shut;                  /* shutdown() was called */
	bool is_counted;               /* in h->shared->peers */
	char address[2][HTTP_ADDRESS_MAX]; /* own, peer; empty until asked for: they stay what they are */
};

struct http_req {
	struct req q;                  /* first: handlers get &hr->q */
	struct http_conn *conn;
	struct MHD_Connection *mhd;
	enum http_phase phase;
	struct buf body;
	size_t body_accounted;         /* of the node-wide budget */
	uint64_t discarded, bytes_out;
	uint64_t taken;                /* of a body that has a taker */
	char *target;                  /* heap; q.target points into it */
	const struct stream_ops *stream;
	void *stream_state;
	struct http_req *direct_next, *direct_prev;  /* in h->direct_first, while is_in_direct */
	struct buf direct_rest;        /* framed bytes that the socket did not take yet */
	bool is_suspended, is_gone, is_in_handler, is_closed;
	bool is_waiting;               /* for its answer, not suspended: libmicrohttpd asks for it at each run */
	int64_t suspend_mono_ms;       /* then it is suspended, while is_waiting */
	bool is_watched;               /* its work ends when the client leaves */
	bool can_direct;               /* HTTP/1.1 without TLS */
	bool is_direct;                /* http_direct.c may send this stream */
	bool is_in_direct;
};

struct http {
	struct loop_ctx *ctx;
	struct http_shared *shared;
	const struct http_ops *ops;
	struct MHD_Daemon *daemon;
	loop_watch_id watch;           /* the daemon's epoll */
	struct http_conn *conns;
	struct http_conn *ended_first; /* has_end, and what follows from it was not yet done */
	size_t open_requests;
	struct http_req *direct_first, *direct_last; /* streams that have something to be sent */
	char *direct_block;            /* HTTP_DIRECT_BLOCK and room for a frame */
	unsigned waiting;              /* requests with is_waiting */
	int64_t run_mono_ms;           /* when libmicrohttpd ran last */
	int64_t run_mono_us;           /* the same, for HTTP_RUN_US */
	unsigned taken, begun;         /* in that run: of HTTP_A_RUN */
	bool has_moved;                /* in that run: it may go on at once. What only reads, or waits for its answer, does not */
	bool is_due;

	/* http_accept.c */
	int listen_fd;
	loop_watch_id listen_watch;
	struct loop_timer listen_again;
	atomic_int_fast64_t coming;    /* connections that are accepted for this loop and have not begun; read by all loops */
	int64_t added;                 /* of coming: known to libmicrohttpd */
	_Atomic(struct http_accepted *) given; /* by other loops; a stack */
	atomic_bool is_given_posted;
	struct loop_msg given_msg;
};

/* http_accept.c */
MUST_CHECK enum errc http_accept_start(struct http *h, int listen_fd, struct err *e);
void http_accept_stop(struct http *h);
void http_accept_run_done(struct http *h);     /* after libmicrohttpd ran: what was added has begun */
void http_accept_free(struct http *h);         /* main, the loop does not run */

/* http_conn.c */
void http_on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context, enum MHD_ConnectionNotificationCode code);
/* ms from now the connection is closed, unless set anew; 0: no limit. Cheap: called for every piece that a stream sends. */
void http_set_limit(struct http_conn *c, int64_t ms);
void http_shut(struct http_conn *c);
void http_wait_writable(struct http_conn *c);  /* http_direct_writable() follows */
void http_look_at_ended(struct http *h);       /* after libmicrohttpd ran */
/* http_req.c */
void *http_on_target(void *cls, const char *target, struct MHD_Connection *mhd);
enum MHD_Result http_on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
			       const char *data, size_t *size, void **con_cls);
void http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode code);
void http_close_stream(struct http_req *hr);   /* tells the handler, once */
/* http_direct.c */
bool http_direct_possible(const struct http_req *hr);
void http_direct_due(struct http_req *hr);     /* to be flushed in this turn */
void http_direct_forget(struct http_req *hr);
void http_direct_writable(struct http_req *hr);
void http_direct_run(struct http *h);
/* http_reply.c */
enum MHD_Result http_send(struct http_req *hr);
void http_wake(struct http_req *hr);           /* there is something to be sent, or to be looked at */
void http_wait(struct http_req *hr);           /* for an answer, until http_resume: suspended only if that takes long */
void http_waited(struct http_req *hr);         /* was asked for its answer in vain */
void http_suspend(struct http_req *hr);        /* nothing is read or written until http_resume */
bool http_is_worked_on(const struct http_req *hr);  /* a handler or taker has it: on_gone is to be called when its client leaves */
void http_resume(struct http_req *hr);         /* gives a suspended connection back to libmicrohttpd */
void http_client_gone(struct http_req *hr);    /* ends the work behind a request */
void http_watch_client(struct http_req *hr);   /* notice when it leaves, from here to the request's end */

#endif
