/*
 * Streams past curl: how the socket comes out of its hands, and the body of the answer. Called by httpc.c,
 * httpc_xfer.c and httpc_again.c; the loop's thread.
 *
 * curl 7.88 asks poll after each recv whether there is more, and holds 8 KB for a transfer that only waits. So once the
 * head of a chunked answer is here, curl is made to let go of the socket (it "closes" it, and on_close_socket does
 * not), its handle goes back to the pool, and the rest is read and taken apart here: one recv a piece, nothing else.
 * What had come with the head is held and given first. Plain HTTP only; everything else stays curl's.
 */
#include "base/httpc_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define READS_MAX 4                    /* blocks of one stream in a turn */

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
	x->body_kind = BODY_CHUNKS;
	return httpc_sock_rearm(s, &x->e);
}

/* ---- the bytes ---- */

static enum dechunk_got next_piece(struct httpc_xfer *x, struct slice *in, struct slice *ret_data)
{
	if (x->body_kind == BODY_CHUNKS)
		return dechunk_next(&x->chunks, in, ret_data);
	if (x->body_kind == BODY_LENGTH && !x->left)
		return DECHUNK_END;
	if (!in->n)
		return DECHUNK_MORE;
	*ret_data = x->body_kind == BODY_LENGTH && x->left < in->n ? slice_cut(*in, (size_t)x->left) : *in;
	*in = slice_from(*in, ret_data->n);
	x->left -= x->body_kind == BODY_LENGTH ? ret_data->n : 0;
	return DECHUNK_DATA;
}

/* The piece was not taken: it is the next one again. */
static void put_back(struct httpc_xfer *x, struct slice *in, struct slice data)
{
	if (x->body_kind == BODY_CHUNKS) {
		dechunk_back(&x->chunks, in, data);
		return;
	}
	*in = slice_of(data.p, data.n + in->n);
	x->left += x->body_kind == BODY_LENGTH ? data.n : 0;
}

static enum errc give(struct httpc_xfer *x, struct slice *rest, struct slice data)
{
	if (x->max_body && data.n > x->max_body - x->received)
		return err_set(&x->e, E_TOO_LARGE, "answer: more than %llu bytes", (unsigned long long)x->max_body);
	if (x->ops->on_data(x->ctx, data) == HTTPC_PAUSE && x->where == HTTPC_RUNNING) {
		put_back(x, rest, data);
		x->is_paused = true;
		return buf_add_slice(&x->held, *rest, &x->e);
	}
	x->received += data.n;
	return E_OK;
}

/* All that there is was given. False: x has ended. */
static bool end_piece(struct httpc_xfer *x, enum dechunk_got got, size_t behind)
{
	if (got == DECHUNK_MORE && x->direct)
		return true;
	if (got == DECHUNK_MORE)               /* curl saw the end before us */
		httpc_finish(x, httpc_xfer_judge(x, x->end_code ? x->end_code : CURLE_PARTIAL_FILE));
	else if (got == DECHUNK_BAD)
		httpc_finish(x, err_set(&x->e, E_UPSTREAM, "answer: not in chunks, as its head says it is"));
	else {
		x->is_clean = behind == 0;
		httpc_finish(x, E_OK);
	}
	return false;
}

bool httpc_direct_deliver(struct httpc_xfer *x, struct slice coded)
{
	struct httpc *c = x->c;
	enum dechunk_got got = DECHUNK_MORE;
	enum errc rc = E_OK;
	struct slice data;

	c->is_in_curl = true;
	while (x->where == HTTPC_RUNNING && !x->is_paused && !rc && (got = next_piece(x, &coded, &data)) == DECHUNK_DATA)
		rc = give(x, &coded, data);
	c->is_in_curl = false;
	if (x->where != HTTPC_RUNNING)
		httpc_end_doomed(c);
	else if (rc)
		httpc_finish(x, rc);
	else
		return x->is_paused || end_piece(x, got, coded.n);
	return false;
}

static bool deliver_held(struct httpc_xfer *x)
{
	AUTO_BUF coded = x->held;

	buf_init(&x->held, HTTPC_HELD_MAX);
	return httpc_direct_deliver(x, buf_slice(&coded));
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
		(void)deliver_held(x);
}

static void end_of_input(struct httpc_xfer *x, int os_errno)
{
	if (!x->is_head_done)
		httpc_again_cut(x, os_errno);
	else if (os_errno)
		httpc_finish(x, err_set_os(&x->e, E_UPSTREAM, os_errno, "answer cut short"));
	else if (x->body_kind == BODY_TO_CLOSE)
		httpc_finish(x, E_OK);
	else
		httpc_finish(x, err_set(&x->e, E_UPSTREAM, "answer cut short"));
}

/* One recv; false: x has ended, or there is nothing more for now. */
static bool read_piece(struct httpc_xfer *x)
{
	char *block = x->c->block;
	ssize_t n = recv(x->direct->fd, block, HTTPC_BLOCK, MSG_DONTWAIT);
	bool is_more = n == HTTPC_BLOCK || x->is_cut;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		end_of_input(x, n ? errno : 0);
		return false;
	}
	x->last_ms = loop_now_ms(x->c->loop);
	return (x->is_head_done ? httpc_direct_deliver : httpc_again_head)(x, slice_of(block, (size_t)n)) && is_more;
}

/* A full block means that there may be more, which no edge tells; a short one is the end of it, unless the peer closed. */
static void read_all(struct httpc_xfer *x)
{
	struct err e;

	for (unsigned i = 0; i < READS_MAX; i++) {
		if (x->is_paused) {
			x->is_unread = true;
			return;
		}
		if (!read_piece(x))
			return;
	}
	if (httpc_sock_rearm(x->direct, &e))
		httpc_finish(x, err_set(&x->e, e.code, "%s", e.what));
}

void httpc_direct_ready(struct httpc_xfer *x, uint32_t epoll_events)
{
	x->is_cut |= (epoll_events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
	if (!x->is_head_done && x->sent < x->out.n + x->body.n && (epoll_events & EPOLLOUT)) {
		httpc_again_send(x);
		if (!x->direct)
			return;                /* begun anew */
	}
	if (x->is_paused)
		x->is_unread = true;
	else if (x->is_cut || (epoll_events & EPOLLIN))
		read_all(x);
}

void httpc_direct_resume(struct httpc_xfer *x)
{
	bool is_unread = x->is_unread;

	x->is_unread = false;
	if (deliver_held(x) && x->direct && is_unread)
		read_all(x);
}

/* ---- the end ---- */

bool httpc_direct_end(struct httpc_xfer *x, bool is_complete)
{
	struct httpc_sock *s = x->direct;

	if (!s)
		return is_complete && !x->is_last;     /* curl saw the end, and has kept the connection or not */
	if (is_complete && httpc_parked_put(x))
		return true;
	x->direct = NULL;
	httpc_sock_unlink(s);
	httpc_sock_close(s);
	return false;
}
