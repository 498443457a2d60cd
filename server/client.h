/*
 * A command that talks to a node's job plane over HTTP, as the existing client does: same options, environment names and
 * messages (direct-api.md 5.1). On the node's own machine nothing need be given: id, URL and secret are found.
 *
 * Threads: main, blocking: it runs a loop of its own.
 */
#ifndef MSWARM_SERVER_CLIENT_H
#define MSWARM_SERVER_CLIENT_H

#include "base/httpc.h"
#include "base/sse.h"
#include "base/token.h"
#include "server/cli.h"

struct client_options {                 /* as given on the command line; NULL: not */
	const char *url, *token, *secret, *ttl_s, *timeout_ms;
};
/* Rows for cli_option; o is the struct above. */
#define CLIENT_OPTIONS(o) \
	{ .flag = "--node-base-url", .value = &(o).url }, { .flag = "--token", .value = &(o).token }, \
	{ .flag = "--signing-secret", .value = &(o).secret }, { .flag = "--token-ttl-seconds", .value = &(o).ttl_s }, \
	{ .flag = "--timeout-ms", .value = &(o).timeout_ms }

struct client {
	struct loop *loop;
	struct httpc *http;
	char *url;                      /* without a slash at its end */
	char *node_id;
	struct secret secret;
	const char *token;              /* ready made, or NULL */
	int64_t ttl_s, timeout_ms;
	/* of the request that runs */
	struct buf body;
	int status;
	enum errc rc;
	struct err err;
	struct sse sse;
	bool (*on_event)(void *ctx, const struct sse_event *v);  /* NULL: no stream */
	void *ctx;
	bool is_stream, is_cut;         /* cut: the stream ended before its end */
	bool (*on_bytes)(void *ctx, struct slice bytes);  /* takes the body of a 200 or 206; NULL: it is held */
	char header[128];               /* value of the header that client_send was asked for */
	struct httpc_xfer *xfer;
};

MUST_CHECK enum errc client_open(struct cli *c, const struct client_options *o, struct client *ret, struct err *e);
void client_close(struct client *c);
/* A token for a job; kind TOKEN_OPS and TOKEN_CAPABILITIES need none of the three. Appends to out. */
MUST_CHECK enum errc client_token(struct client *c, enum token_kind kind, const char *job_id, const char *request_id, const char *job_type, struct buf *out, struct err *e);
/* One request; the body of a 2xx is in c->body. E_UPSTREAM: not reached; E_BAD_REQUEST: "mswarm request failed (<status>): <body>". */
MUST_CHECK enum errc client_call(struct client *c, const char *method, const char *path, struct slice token, struct slice body, struct err *e);
/* A stream of events; on_event says false when it has heard enough. E_OK: that, or its end; E_UPSTREAM: it broke. */
MUST_CHECK enum errc client_follow(struct client *c, const char *path, struct slice token, const char *last_id, bool (*on_event)(void *ctx, const struct sse_event *v), void *ctx, struct err *e);
/* One request of a file, with headers of its own. */
struct client_piece {
	const char *method, *path;
	struct slice token, body;
	const char *const *headers;     /* NULL-terminated */
	const char *header_wanted;      /* "etag:"; its value is in c->header */
	bool (*on_bytes)(void *ctx, struct slice bytes);  /* false: it could not be kept */
	void *ctx;
};
/* E_OK: there was an answer, whatever its status, in c->status; what was not taken is in c->body. E_UPSTREAM, E_TIMEOUT: there was none,
 * or not all of it. */
MUST_CHECK enum errc client_send(struct client *c, const struct client_piece *p, struct err *e);
/* Wait without asking anybody. */
void client_pause(struct client *c, int64_t ms);

#endif
