/*
 * Streams without libmicrohttpd in the middle. Once a stream's head is out and its reader has nothing, the connection
 * stays suspended, and what comes is framed and sent from here; libmicrohttpd gets the connection back for the end.
 *
 * Why: each resume makes libmicrohttpd walk all its suspended connections, and poll its own epoll, for one chunk; at
 * 1,000 streams that was most of the node's own work. Sound because a reader is asked only when all before it has been
 * written to the socket, and because nothing touches a suspended connection. Plain HTTP/1.1 only: with TLS, and for
 * HTTP/1.0 (which has no chunks), streams go the ordinary way.
 *
 * On the loop of the connection; flushed once a turn by http.c's source, so that pieces that came together leave together.
 */
#include "server/http_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#define FRAME_HEAD 8                   /* "3ff8\r\n" and some */
#define REST_MAX (HTTP_DIRECT_BLOCK + 64)

bool http_direct_possible(const struct http_req *hr)
{
	return hr->is_direct && hr->is_suspended && hr->phase == PHASE_STREAM && !hr->is_gone && !hr->is_closed;
}

void http_direct_due(struct http_req *hr)
{
	struct http *h = hr->conn->h;

	if (hr->is_in_direct)
		return;
	hr->is_in_direct = true;
	hr->direct_next = NULL;
	hr->direct_prev = h->direct_last;
	if (h->direct_last)
		h->direct_last->direct_next = hr;
	else
		h->direct_first = hr;
	h->direct_last = hr;
}

void http_direct_forget(struct http_req *hr)
{
	struct http *h = hr->conn->h;

	if (!hr->is_in_direct)
		return;
	hr->is_in_direct = false;
	if (hr->direct_prev)
		hr->direct_prev->direct_next = hr->direct_next;
	else
		h->direct_first = hr->direct_next;
	if (hr->direct_next)
		hr->direct_next->direct_prev = hr->direct_prev;
	else
		h->direct_last = hr->direct_prev;
}

/* False: the client has gone, or the socket is full. */
static bool send_bytes(struct http_req *hr, const char *p, size_t n)
{
	ssize_t w = send(hr->conn->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	struct err e = { 0 };

	if (w < 0 && errno != EAGAIN && errno != EINTR) {
		http_client_gone(hr);
		return false;
	}
	w = w < 0 ? 0 : w;
	if ((size_t)w == n)
		return true;
	if (buf_add(&hr->direct_rest, p + w, n - (size_t)w, &e)) {
		http_client_gone(hr);      /* no memory to go on without a gap */
		return false;
	}
	http_wait_writable(hr->conn);      /* keep the rest, go on when it takes more */
	return false;
}

/* Read, frame, send until there is nothing to read. */
static void flush(struct http_req *hr)
{
	static const char digits[] = "0123456789abcdef";
	char *block = hr->conn->h->direct_block;

	for (;;) {
		ptrdiff_t n = hr->stream->read(hr->stream_state, block + FRAME_HEAD, HTTP_DIRECT_BLOCK);
		char *p = block + FRAME_HEAD;
		size_t v;

		if (n == 0)
			return;
		if (n < 0) {                   /* the end, or an abort: libmicrohttpd asks once more and hears the same */
			http_resume(hr);
			return;
		}
		hr->bytes_out += (uint64_t)n;
		memcpy(p + n, "\r\n", 2);
		*--p = '\n';
		*--p = '\r';
		for (v = (size_t)n; v; v >>= 4)
			*--p = digits[v & 15];
		if (!send_bytes(hr, p, (size_t)(block + FRAME_HEAD + n + 2 - p)))
			return;
	}
}

void http_direct_writable(struct http_req *hr)
{
	struct buf rest = hr->direct_rest;
	bool is_sent;

	buf_init(&hr->direct_rest, REST_MAX);
	is_sent = send_bytes(hr, rest.p, rest.n);
	buf_done(&rest);
	if (!is_sent)
		return;
	http_set_limit(hr->conn, 0);
	http_direct_due(hr);
}

void http_direct_run(struct http *h)
{
	struct http_req *hr;

	/* What a flush makes due again (a call resumed from inside) waits for the next round. */
	struct http_req *last = h->direct_last;

	while ((hr = h->direct_first)) {
		bool is_last = hr == last;

		http_direct_forget(hr);
		if (http_direct_possible(hr) && !hr->direct_rest.n)
			flush(hr);
		if (is_last)
			break;
	}
}
