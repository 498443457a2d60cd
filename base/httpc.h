/*
 * HTTP client on a loop: the only door to curl. One client (one curl multi handle) per loop, driven by socket_action.
 *
 * Obeys design.md 5.12-5.15: no proxy, http and https only, no redirects, no netrc, HTTP/1.1, QUICK_EXIT, one CA file,
 * at most 8 look-ups in flight, starts in slices, 2-4 KB receive buffer, idle easy handles kept.
 *
 * Threads: the loop's. Callbacks run on the loop, never from inside httpc_start, httpc_cancel, httpc_pause or
 * httpc_resume (data that curl held back during a pause is delivered from the loop, later in the same turn).
 */
#ifndef MSWARM_BASE_HTTPC_H
#define MSWARM_BASE_HTTPC_H

#include "base/loop.h"
#include "base/slice.h"

struct httpc;
struct httpc_xfer;

struct httpc_opts {
	size_t max_idle_per_host;      /* kept-alive connections a host; 0 = curl's default handling */
	const char *ca_file;           /* NULL: the system's bundle */
	const char *user_agent;        /* "mswarm/<version>" */
};

enum httpc_phase { HTTPC_CONNECT, HTTPC_FIRST_BYTE, HTTPC_BODY };

struct httpc_head {
	int status;
	struct slice content_type;     /* empty when absent; borrowed for the call */
	struct slice retry_after;
	struct slice wanted;           /* value of the header that header_wanted names; empty when absent */
	int64_t content_length;        /* -1 unknown */
};

enum httpc_take { HTTPC_TAKEN, HTTPC_PAUSE }; /* PAUSE: bytes were not taken; they come again after httpc_resume */

struct httpc_ops {
	void (*on_head)(void *ctx, const struct httpc_head *h);               /* once, final status (no 1xx) */
	enum httpc_take (*on_data)(void *ctx, struct slice bytes);            /* body bytes */
	/* Exactly once unless cancelled; x is freed after it returns. rc: E_OK body complete; E_UPSTREAM connection
	 * refused, reset, cut, wrong length, TLS; E_TIMEOUT one of the limits; E_TOO_LARGE max_body. phase tells how far
	 * it came: HTTPC_CONNECT means that no byte of the request was taken. Text never holds headers or the body. */
	void (*on_done)(void *ctx, enum errc rc, enum httpc_phase phase, const struct err *e);
};

struct httpc_req {
	const char *method;            /* "GET", "POST" */
	const char *url;               /* copied */
	const char *const *headers;    /* NULL-terminated "name: value" lines, copied */
	const char *header_wanted;     /* "etag:", of the answer; static; NULL: none */
	struct slice body;             /* borrowed until on_done or httpc_cancel */
	int64_t connect_ms;            /* limits; 0 = none */
	int64_t first_byte_ms;         /* from start to the head */
	int64_t idle_ms;               /* silence between body bytes, not counted while paused */
	int64_t total_ms;
	uint64_t max_body;             /* 0 = unlimited (streams) */
	bool is_fresh;                 /* do not reuse, do not keep the connection */
	bool is_once;                  /* at most once: not sent anew when a kept connection turns out to be closed */
	bool is_stream;                /* many small pieces over time: read past curl where that can be done */
	const struct httpc_ops *ops;
	void *ctx;
};

MUST_CHECK enum errc httpc_new(struct loop *l, const struct httpc_opts *o, struct httpc **ret, struct err *e);
void httpc_free(struct httpc *c);                      /* cancels all; NULL is fine */
MUST_CHECK enum errc httpc_start(struct httpc *c, const struct httpc_req *r, struct httpc_xfer **ret, struct err *e);
void httpc_cancel(struct httpc_xfer *x);               /* closes the connection at once; no callback follows */
void httpc_resume(struct httpc_xfer *x);               /* after HTTPC_PAUSE */
size_t httpc_active(const struct httpc *c);
void httpc_trim(struct httpc *c);                      /* drop idle handles but a few, and the connections they kept */
/* Process-wide set-up and end, on main before and after the loops. Installs mem hooks. */
MUST_CHECK enum errc httpc_global_init(struct err *e);
void httpc_global_done(void);
/* True when url is http(s) with a host and no user part; *ret_is_loopback by literal host ("localhost", 127/8, ::1). */
bool httpc_url_check(struct slice url, bool *ret_is_loopback);

#endif
