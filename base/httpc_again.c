/*
 * A stream past curl from its beginning: the request is written to a connection that served one before, and the head
 * of the answer is read here. The first request of a connection is curl's: it resolves, connects, and knows TLS.
 * Called by httpc.c, httpc_xfer.c and httpc_direct.c; the loop's thread.
 *
 * The request has the bytes that curl would send. curl's handle stays set up beside until the head is here: when the
 * peer has closed the connection just now, the transfer begins anew with curl, as curl would do on its own.
 */
#include "base/httpc_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define SEND_MAX (1024 * 1024)         /* at a time: a whole body of megabytes would hold the loop */

/* ---- the request ---- */

static struct slice host_value(const struct httpc_url *u)
{
	return slice_ends_with(u->authority, SLICE(":80")) ? slice_cut(u->authority, u->authority.n - 3) : u->authority;
}

static bool is_given(const char *const *headers, struct slice name)
{
	for (size_t i = 0; headers && headers[i]; i++) {
		if (slice_starts_with_nocase(slice_str(headers[i]), name))
			return true;
	}
	return false;
}

/* A line without a value is none, as with curl. */
static enum errc add_lines(struct buf *out, const char *const *headers, struct err *e)
{
	enum errc rc = E_OK;

	for (size_t i = 0; headers && headers[i] && !rc; i++) {
		struct slice line = slice_str(headers[i]);
		ptrdiff_t colon = slice_find_char(line, ':');

		if (colon > 0 && slice_trim(slice_from(line, (size_t)colon + 1)).n)
			rc = buf_addf(out, e, SLICE_FMT "\r\n", SLICE_ARG(line));
	}
	return rc;
}

static enum errc compose(struct httpc_xfer *x, const struct httpc_req *r, const struct httpc_url *u, struct err *e)
{
	bool has_root = u->target.n && u->target.p[0] == '/';
	struct buf *out = &x->out;
	enum errc rc = buf_addf(out, e, "%s %s" SLICE_FMT " HTTP/1.1\r\n", r->method, has_root ? "" : "/", SLICE_ARG(u->target));

	if (!rc && !is_given(r->headers, SLICE("host:")))
		rc = buf_addf(out, e, "Host: " SLICE_FMT "\r\n", SLICE_ARG(host_value(u)));
	if (!rc && !is_given(r->headers, SLICE("user-agent:")))
		rc = buf_addf(out, e, "User-Agent: %s\r\n", x->c->user_agent);
	if (!rc && !is_given(r->headers, SLICE("accept:")))
		rc = buf_add_str(out, "Accept: */*\r\n", e);
	if (!rc)
		rc = add_lines(out, r->headers, e);
	if (!rc && (r->body.n || strcmp(r->method, "POST") == 0))
		rc = buf_addf(out, e, "Content-Length: %zu\r\n", r->body.n);
	return rc ? rc : buf_add_str(out, "\r\n", e);
}

enum errc httpc_again_set(struct httpc_xfer *x, const struct httpc_req *r, const struct httpc_url *u, struct err *e)
{
	x->is_head_only = strcmp(r->method, "HEAD") == 0;
	if (x->is_fresh)
		return E_OK;
	x->origin_name = slice_dup(u->origin);
	if (!x->origin_name)
		return err_set(e, E_NO_MEMORY, "http: no memory for a request");
	if (!httpc_parked_has(x->c, u->origin))
		return E_OK;
	x->body = r->body;
	return compose(x, r, u, e);
}

/* The connection is of no use: begin anew, with curl. */
static void restart(struct httpc_xfer *x)
{
	struct httpc_sock *s = x->direct;

	x->direct = NULL;
	httpc_sock_unlink(s);
	httpc_sock_close(s);
	buf_done(&x->out);
	buf_done(&x->held);
	x->sent = x->head_bytes = 0;
	x->e = (struct err){ 0 };
	x->is_without_parked = true;
	httpc_restart(x);
}

void httpc_again_send(struct httpc_xfer *x)
{
	size_t head = x->sent < x->out.n ? x->out.n - x->sent : 0, body_at = x->sent < x->out.n ? 0 : x->sent - x->out.n;
	size_t body = x->body.n - body_at < SEND_MAX ? x->body.n - body_at : SEND_MAX;
	struct iovec io[2] = {
		{ .iov_base = x->out.p + (x->out.n - head), .iov_len = head },
		{ .iov_base = (void *)(uintptr_t)(x->body.n ? x->body.p + body_at : ""), .iov_len = body },
	};
	struct msghdr m = { .msg_iov = io, .msg_iovlen = 2 };
	ssize_t n = head + body ? sendmsg(x->direct->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		restart(x);
		return;
	}
	x->sent += n < 0 ? 0 : (size_t)n;
	/* All of it taken, but not all there is: no event comes by itself. */
	if (n == (ssize_t)(head + body) && x->sent < x->out.n + x->body.n && httpc_sock_rearm(x->direct, &x->e))
		restart(x);
}

bool httpc_again_start(struct httpc_xfer *x)
{
	struct httpc_sock *s = x->out.n && !x->is_without_parked ? httpc_parked_get(x->c, x->origin_name) : NULL;

	if (!s)
		return false;
	s->use = SOCK_DIRECT;
	x->direct = s;
	httpc_sock_link(s, x);
	x->phase = HTTPC_FIRST_BYTE;
	httpc_origin_begin(x, true);
	httpc_again_send(x);
	return true;
}

/* ---- the head of the answer ---- */

/* "HTTP/1.1 200 OK" */
static bool take_status(struct httpc_xfer *x, struct slice line)
{
	int64_t status;

	if (!slice_starts_with_nocase(line, SLICE("http/1.")) || line.n < 12 || line.p[8] != ' ' || (line.n > 12 && line.p[12] != ' ') ||
	    !slice_to_i64(slice_of(line.p + 9, 3), 100, 999, &status))
		return false;
	x->status = (int)status;
	x->is_last = line.p[7] == '0';
	x->is_chunked = false;
	x->content_length = -1;
	x->content_type[0] = x->retry_after[0] = x->wanted[0] = '\0';
	return status != 101;
}

/* One head, up to and with its empty line. False: it is none. */
static bool take_head(struct httpc_xfer *x, struct slice head)
{
	bool is_first = true;

	while (head.n) {
		ptrdiff_t end = slice_find_char(head, '\n');
		struct slice line = slice_trim(slice_cut(head, end < 0 ? head.n : (size_t)end));

		head = slice_from(head, end < 0 ? head.n : (size_t)end + 1);
		if (is_first && !take_status(x, line))
			return false;
		if (!is_first && slice_starts_with_nocase(line, SLICE("content-length:")) &&
		    !slice_to_i64(slice_trim(slice_from(line, 15)), 0, INT64_MAX, &x->content_length))
			return false;
		if (!is_first && line.n)
			httpc_xfer_note_header(x, line);
		is_first = false;
	}
	return true;
}

/* Bytes up to and with the empty line; 0: it is not here yet. */
static size_t head_length(struct slice s)
{
	size_t at = 0;

	for (;;) {
		ptrdiff_t end = slice_find_char(slice_from(s, at), '\n');

		if (end < 0)
			return 0;
		if (at && slice_trim(slice_of(s.p + at, (size_t)end)).n == 0)
			return at + (size_t)end + 1;
		at += (size_t)end + 1;
	}
}

static void choose_body(struct httpc_xfer *x)
{
	x->body_kind = x->is_chunked ? BODY_CHUNKS : x->content_length >= 0 ? BODY_LENGTH : BODY_TO_CLOSE;
	if (x->is_head_only || x->status == 204 || x->status == 304) {
		x->body_kind = BODY_LENGTH;
		x->content_length = 0;
	}
	x->left = x->body_kind == BODY_LENGTH ? (uint64_t)x->content_length : 0;
}

/* The head is whole, and rest is what came behind it. */
static bool end_head(struct httpc_xfer *x, struct slice rest)
{
	struct httpc *c = x->c;

	choose_body(x);
	x->is_last |= x->sent < x->out.n + x->body.n;       /* answered before all was said: the rest stays unsaid */
	httpc_xfer_unhand(x);
	buf_done(&x->out);
	x->body = slice_of("", 0);
	c->is_in_curl = true;
	httpc_xfer_end_head(x, x->is_chunked ? -1 : x->content_length);
	c->is_in_curl = false;
	if (x->where == HTTPC_RUNNING)
		return httpc_direct_deliver(x, rest);
	httpc_end_doomed(c);
	return false;
}

static bool fail(struct httpc_xfer *x, enum errc rc)
{
	httpc_finish(x, rc);
	return false;
}

bool httpc_again_head(struct httpc_xfer *x, struct slice bytes)
{
	AUTO_BUF whole = x->held;
	struct slice s = bytes;
	size_t n;

	buf_init(&x->held, HTTPC_HELD_MAX);
	if (whole.n) {
		if (buf_add_slice(&whole, bytes, &x->e))
			return fail(x, x->e.code);
		s = buf_slice(&whole);
	}
	while ((n = head_length(s))) {
		x->head_bytes += n;
		if (!take_head(x, slice_cut(s, n)))
			return fail(x, err_set(&x->e, E_UPSTREAM, "head of the answer: not HTTP/1"));
		s = slice_from(s, n);
		if (x->status / 100 != 1)
			return end_head(x, s);
	}
	if (x->head_bytes + s.n > HTTPC_HEAD_MAX)
		return fail(x, err_set(&x->e, E_UPSTREAM, "head of the answer: more than %d bytes", HTTPC_HEAD_MAX));
	return buf_add_slice(&x->held, s, &x->e) ? fail(x, x->e.code) : true;
}

void httpc_again_cut(struct httpc_xfer *x, int os_errno)
{
	if (!x->head_bytes && !x->held.n)
		restart(x);
	else if (os_errno)
		httpc_finish(x, err_set_os(&x->e, E_UPSTREAM, os_errno, "head of the answer cut short"));
	else
		httpc_finish(x, err_set(&x->e, E_UPSTREAM, "connection closed within the head of the answer"));
}
