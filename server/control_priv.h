/* Shared by server/control*.c only: the control socket on the inside. */
#ifndef MSWARM_SERVER_CONTROL_PRIV_H
#define MSWARM_SERVER_CONTROL_PRIV_H

#include "gateway/gateway.h"
#include "server/control.h"
#include "server/keyop.h"

#include <sys/un.h>

#define CONTROL_CONNS_MAX	32
#define CONTROL_LINE_MAX	(64 * 1024)
#define CONTROL_ANSWER_MAX	(4 * 1024 * 1024)
#define CONTROL_IDLE_MS		30000

struct control_conn {
	struct control *c;
	int fd;                        /* -1: the slot is free */
	loop_watch_id watch;
	struct buf in, out;
	struct loop_timer limit;       /* a client that says or takes nothing for this long is closed */
	struct key_op *pending;        /* its request is in the store: no further line is read until it is answered */
	struct control_beat *beat;     /* the same, with the gateway */
	bool has_ended;                /* it will send no more; closed when its answers are out */
};

/* A heartbeat that a command asked for. */
struct control_beat {
	struct gateway_ask ask;
	struct control *c;
	struct control_conn *owner;    /* NULL: it has gone */
	struct control_beat *next;
};

struct control {
	struct svc *svc;
	struct loop *loop;
	char *path;
	int listen_fd;
	loop_watch_id listen_watch;
	struct store_reader *reader;
	struct control_conn conns[CONTROL_CONNS_MAX];
	struct key_op *in_flight;      /* every operation that the store holds */
	struct control_beat *beats;    /* ... and that the gateway's thread holds */
};

/*
 * One request. Writes the answer's members (behind "ok":true) into w, or sets *ret_later: control_answer follows.
 * control_ops.c; THREAD(supervisor).
 */
MUST_CHECK enum errc control_request(struct control_conn *conn, const struct json *request, struct jw *w, bool *ret_later, struct err *e);
/* The answer to the request that is pending: members by op, or the error. Reads on. */
void control_answer(struct control_conn *conn, const struct key_op *op, const struct err *error);

/* The same to a heartbeat: text is an object. */
void control_answer_text(struct control_conn *conn, struct slice text, const struct err *error);

/* Address of a socket path of any length, through the folder's descriptor, which the caller keeps open until used. */
MUST_CHECK enum errc control_address(const char *path, int *ret_folder_fd, struct sockaddr_un *ret, struct err *e);

#endif
