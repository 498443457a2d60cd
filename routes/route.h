/*
 * What a handler sees: a request, a reply to fill, and the services of the node. Handlers know nothing of
 * libmicrohttpd; server/http.c turns replies into its calls, server/dispatch.c does all that is common (match, request
 * id, Host and Origin, access, body limit, error to reply, access log).
 *
 * A handler runs on a loop and never blocks. It answers at once (reply_*, return E_OK), fails (return a code, the
 * dispatcher renders it in the row's shape), answers later (reply_later, then reply_done from the same loop), or as a
 * stream (reply_stream). Threads: THREAD(loop), the connection's.
 */
#ifndef MSWARM_ROUTES_ROUTE_H
#define MSWARM_ROUTES_ROUTE_H

#include "base/config.h"
#include "base/loop.h"
#include "base/token.h"
#include "store/store.h"

#include <stdatomic.h>

#define ROUTE_ARGS_MAX 4
#define REPLY_HEADERS_MAX 12
#define ROUTE_BODY_CHAT ((size_t)-1)      /* max_body of a row: as cfg->max_chat_body_bytes says */
#define ROUTE_BODY_FILE ((size_t)-2)      /* as cfg->artifact_max_mb says */

struct svc;
struct httpc;
struct inventory;
struct admission;
struct auth;
struct accounting;
struct pool;
struct supervisor;
struct subs;
struct capability_probe;
struct artifact_files;
struct gateway;
struct outcomes;

/* The body of GET /v1/models as made last on this loop (models_list.c). All zero to begin with. */
struct models_cache {
	struct buf body;
	uint64_t revision;                 /* of the agents that it shows */
	bool is_filled;
};
void models_cache_done(struct models_cache *c);

/* What belongs to one loop thread. */
struct loop_ctx {
	struct loop *loop;
	struct httpc *client;
	struct store_reader *reader;
	struct accounting *accounting;     /* this loop's running sums */
	struct models_cache models;        /* server/app.c ends it with models_cache_done */
	struct svc *svc;
	unsigned index;
	atomic_int_fast64_t connections;   /* of clients, open on this loop; read by all */
};

enum drain_mode { DRAIN_OFF, DRAIN_ON, DRAIN_ALL };

/* What changes while the node runs and everybody may look at. */
struct node_state {
	atomic_int drain;                  /* enum drain_mode; set through the control socket */
	atomic_bool is_stopping;           /* new work is refused with node_draining */
};

/* Handles that a handler may use; filled by server/app.c, const from boot to stop but for what the members guard. */
struct svc {
	const struct config *cfg;
	struct store *store;
	struct inventory *inventory;
	struct admission *admission;
	struct auth *auth;
	struct pool *pool;
	struct pool *reads;                /* one thread for long answers (long_read.h), with a connection of its own: */
	struct store_reader *reads_reader;
	struct supervisor *supervisor;
	struct gateway *gateway;           /* NULL: no account (local mode) */
	struct outcomes *outcomes;
	struct subs *subs;
	struct capability_probe *probe;
	struct artifact_files *files;
	struct node_state state;
	const char *node_id;
	struct slice signing_secret;       /* trimmed; empty: none */
	bool is_secret_shared;             /* a gateway may hold it too; false: made by this node itself */
	int port;                          /* the port that is listened on */
	int64_t started_mono_ms;
	struct loop_ctx *loops;
	unsigned loop_count;
};

enum route_shape { SHAPE_OPENAI, SHAPE_FLAT, SHAPE_PLAIN };     /* how errors are rendered */
enum route_access {
	ACCESS_PUBLIC,                     /* /healthz, /readyz */
	ACCESS_LOCAL,                      /* key, or open by the rules of design.md 6 */
	ACCESS_TOKEN,                      /* the handler's own gates, in the order that the protocol gives */
};

struct reply_header {
	const char *name;                  /* static string */
	char *value;                       /* heap; freed with the request */
};

/* Pull side of a streamed answer. read: copy up to cap bytes; 0 = nothing yet (reply_wake when there is), -1 = end,
 * -2 = abort the connection. close: always called, once, also when the client has gone: that cancels the work. */
struct stream_ops {
	ptrdiff_t (*read)(void *state, char *dst, size_t cap);
	void (*close)(void *state);
	void (*stop)(void *state);         /* the node stops: end the work, leave a last event and the end to be read */
};

/*
 * Taker of a body that is too large to be held: given by the row's begin, before any of it has come. take: as many bytes as
 * there is room for, *ret_n; fewer than n: the connection waits until req_body_more. An error ends the body and is sent.
 * on_gone (below) is called when the client leaves in the middle. The handler is called when the body is whole.
 */
struct body_ops {
	enum errc (*take)(void *state, const char *p, size_t n, size_t *ret_n, struct err *e);
};

struct reply {
	int status;
	struct buf body;
	const char *content_type;          /* static string; default "application/json; charset=utf-8" */
	struct reply_header headers[REPLY_HEADERS_MAX];
	unsigned header_count;
	const struct stream_ops *stream;
	void *stream_state;
	bool has_length;                   /* of a stream: it is exactly this long; a body as such, no chunks */
	int64_t length;
};

struct req {
	struct loop_ctx *ctx;
	const struct route *route;
	char id[25];                       /* x-request-id: "req_" and 20 characters */
	const char *method;
	struct slice target;               /* raw, with the query */
	struct slice path, query;          /* raw parts of target */
	char *arg[ROUTE_ARGS_MAX];         /* decoded once, NUL-terminated */
	size_t max_body;                   /* the row's, or what the dispatcher set for this request */
	struct slice body;                 /* whole, borrowed until the reply is done */
	int64_t started_mono_ms;
	char key_id[20];                   /* of the API key used, or empty */
	char model[80];                    /* for the access log: the name that the client used, cut; or empty */
	struct reply reply;
	void *handler_state;               /* of a handler that answers later */
	void (*on_gone)(struct req *q);    /* set with reply_later: the client has left, stop the work; no reply_done after */
	const struct body_ops *body_ops;   /* set by begin, with handler_state and on_gone; NULL: the body is held */
};

struct route {
	const char *method, *pattern;
	enum route_access access;
	enum route_shape shape;
	size_t max_body;                   /* 0: no body is read */
	enum errc (*handle)(struct req *q, struct reply *rep, struct err *e);
	/* For large bodies: called with the headers, after all checks of the dispatcher; may refuse, or set body_ops. NULL: none. */
	enum errc (*begin)(struct req *q, struct err *e);
	const char *help;
};

/* The body, moved out (q->body is empty then); its bytes stay accounted to the node-wide budget until the request ends. */
struct buf req_take_body(struct req *q);
/* Literal of the connection's own and peer address ("127.0.0.1", "::1"), or empty; valid for the request. */
struct slice req_local_address(struct req *q);
struct slice req_peer_address(struct req *q);
bool req_is_tls(const struct req *q);
/* Calls fn for every header until it says false. */
void req_each_header(const struct req *q, bool (*fn)(void *ctx, struct slice name, struct slice value), void *ctx);

/* First value of a request header (any case), empty when absent; borrowed for the request. */
struct slice req_header(const struct req *q, const char *name);

MUST_CHECK enum errc reply_header(struct reply *rep, const char *name, const char *value, struct err *e);
/* The handler answers later; on_gone is called at most once, never together with reply_done. */
void reply_later(struct req *q, void *state, void (*on_gone)(struct req *q));
void reply_done(struct req *q);                              /* sends q->reply as it stands */
void reply_fail(struct req *q, const struct err *e);         /* renders e in the row's shape and sends it */
/* Begin a streamed answer, from a handler or after reply_later; headers and status must be set. */
void reply_stream(struct req *q, const struct stream_ops *ops, void *state);
void reply_wake(struct req *q);                              /* bytes are there, or the end is */
void req_body_more(struct req *q);                           /* a taker that was full has room again */
void req_body_fail(struct req *q, const struct err *e);      /* it has none any more: the rest is dropped, and e is sent */
/* Render an error into rep in a shape. */
void reply_error(struct reply *rep, enum route_shape shape, const struct err *e);

#define ROUTE(method, pattern, access, shape, max_body, name, help) \
	enum errc route_##name(struct req *q, struct reply *rep, struct err *e);
#define ROUTE_LARGE(method, pattern, access, shape, max_body, name, help) \
	enum errc route_##name(struct req *q, struct reply *rep, struct err *e); \
	enum errc route_##name##_begin(struct req *q, struct err *e);
#include "routes/routes.def"
#undef ROUTE
#undef ROUTE_LARGE

extern const struct route route_table[];
extern const size_t route_count;

/*
 * Match a raw path against the rows. E_NOT_FOUND, E_METHOD (path known, method not; HEAD matches GET), E_BAD_REQUEST for
 * a malformed escape. ":x" is one segment, decoded once; "*x" the rest. args: heap strings, freed by route_args_done.
 */
MUST_CHECK enum errc route_match(struct slice method, struct slice path, const struct route **ret, char *args[ROUTE_ARGS_MAX], struct err *e);
void route_args_done(char *args[ROUTE_ARGS_MAX]);
/* The methods that this path has, "GET, HEAD, POST": the Allow header of a 405 (RFC 9110, 15.5.6). False: none, or too many. */
bool route_allowed(struct slice path, char *out, size_t cap);

#endif
