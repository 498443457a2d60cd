/*
 * The way out: replies into libmicrohttpd's responses, streams pulled from handlers, suspend and resume.
 * Called by server/http.c and, through routes/route.h, by handlers; on the loop of the connection.
 */
#include "server/http_priv.h"

#include "base/jw.h"
#include "base/mem.h"

#include <netdb.h>
#include <sys/socket.h>

static struct http_req *from_req(struct req *q)
{
	return CONTAINER_OF(q, struct http_req, q);
}

bool http_is_worked_on(const struct http_req *hr)
{
	return hr->phase == PHASE_RUN || (hr->phase == PHASE_BODY && hr->q.body_ops);
}

/* The client left, or is made to: end the work, then let libmicrohttpd see the closed socket. */
void http_client_gone(struct http_req *hr)
{
	hr->is_gone = true;
	if (http_is_worked_on(hr) && hr->q.on_gone) {
		void (*gone)(struct req *) = hr->q.on_gone;

		hr->q.on_gone = NULL;
		gone(&hr->q);
	}
	http_close_stream(hr);
	http_shut(hr->conn);
	http_wake(hr);
}

void http_watch_client(struct http_req *hr)
{
	if (hr->phase == PHASE_BODY && hr->q.body_ops)
		return;                        /* what it has sent is taken first: http_look_at_ended() */
	hr->is_watched = true;
	if (hr->conn->has_end)
		hr->conn->h->is_due = true;    /* http_look_at_ended() */
}

void http_suspend(struct http_req *hr)
{
	must(!hr->is_suspended);
	hr->is_suspended = true;
	MHD_suspend_connection(hr->mhd);
	http_watch_client(hr);
}

/*
 * To suspend a connection and to resume it are four system calls: out of libmicrohttpd's epoll, into it again, the event of
 * that, a read in vain. One that is not suspended costs a call of its handler at each run, and most answers are there after a
 * commit or a chat's first word. TLS reads ahead and is run for that, which source_run() could not tell from waiting.
 */
void http_wait(struct http_req *hr)
{
	struct http *h = hr->conn->h;

	if (h->waiting >= HTTP_WAITING_MAX || h->shared->tls_cert_pem) {
		http_suspend(hr);
		return;
	}
	hr->is_waiting = true;
	hr->suspend_mono_ms = loop_now_ms(h->ctx->loop) + HTTP_WAIT_MS;
	h->waiting++;
	http_watch_client(hr);
}

static void end_wait(struct http_req *hr)
{
	hr->is_waiting = false;
	hr->conn->h->waiting--;
}

void http_waited(struct http_req *hr)
{
	if (!hr->is_waiting || loop_now_ms(hr->conn->h->ctx->loop) < hr->suspend_mono_ms)
		return;
	end_wait(hr);
	http_suspend(hr);
}

void http_wake(struct http_req *hr)
{
	if (http_direct_possible(hr))
		http_direct_due(hr);
	else
		http_resume(hr);
}

void http_resume(struct http_req *hr)
{
	if (hr->is_waiting)
		end_wait(hr);
	else if (hr->is_suspended)
		MHD_resume_connection(hr->mhd);
	else
		return;
	hr->is_suspended = false;
	hr->conn->h->is_due = true;
}

/* MHD pulls a stream. 0 is returned only after a suspend (design.md 5.3). */
static ssize_t stream_read(void *cls, uint64_t pos, char *dst, size_t cap)
{
	struct http_req *hr = cls;
	ptrdiff_t n;

	(void)pos;
	hr->conn->h->has_moved = true;
	if (hr->is_gone || hr->is_closed)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	n = hr->stream->read(hr->stream_state, dst, cap);
	if (n > 0) {
		hr->bytes_out += (uint64_t)n;
		http_set_limit(hr->conn, hr->conn->h->ctx->svc->cfg->http_write_ms);
		return n;
	}
	if (n == 0) {
		http_set_limit(hr->conn, 0);
		http_suspend(hr);
		hr->is_direct = hr->can_direct && !hr->q.reply.has_length;
		return 0;
	}
	/* The last frame is still to be written: the limit that a silent stream does without. */
	http_set_limit(hr->conn, hr->conn->h->ctx->svc->cfg->http_write_ms);
	return n == -1 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

struct large {
	struct buf body;
	struct http_req *hr;           /* borrowed: there as long as the answer is read, not when it is freed */
};

/*
 * A large answer goes out in blocks: one send of a megabyte would hold the loop for milliseconds. A block is asked for
 * when the one before has been taken: the client reads, and its limit begins anew.
 */
static ssize_t body_read(void *cls, uint64_t pos, char *dst, size_t cap)
{
	const struct large *l = cls;
	size_t n = l->body.n - pos < cap ? l->body.n - (size_t)pos : cap;

	memcpy(dst, l->body.p + pos, n);
	l->hr->conn->h->has_moved = true;
	http_set_limit(l->hr->conn, l->hr->conn->h->ctx->svc->cfg->http_write_ms);
	return (ssize_t)n;
}

static void body_free(void *cls)
{
	struct large *l = cls;

	buf_done(&l->body);
	mem_free(l);
}

static struct MHD_Response *large_response(struct http_req *hr)
{
	struct large *l = NEW(struct large);

	if (!l)
		return NULL;
	l->hr = hr;
	l->body = hr->q.reply.body;
	buf_init(&hr->q.reply.body, l->body.max);
	hr->bytes_out = l->body.n;
	return MHD_create_response_from_callback(l->body.n, HTTP_LARGE_BLOCK, body_read, l, body_free);
}

static struct MHD_Response *make_response(struct http_req *hr)
{
	struct reply *rep = &hr->q.reply;
	size_t n = 0;
	char *body;

	if (hr->stream && rep->has_length)
		return MHD_create_response_from_callback((uint64_t)rep->length, HTTP_LARGE_BLOCK, stream_read, hr, NULL);
	if (hr->stream)
		return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_STREAM_BLOCK, stream_read, hr, NULL);
	if (rep->body.n > HTTP_LARGE_BYTES)
		return large_response(hr);
	n = rep->body.n;
	body = buf_take(&rep->body, &n);
	if (!body)
		return NULL;
	hr->bytes_out = n;
	return MHD_create_response_from_buffer_with_free_callback(n, body, mem_free);
}

static bool add_headers(struct MHD_Response *r, struct http_req *hr)
{
	struct reply *rep = &hr->q.reply;
	bool ok = MHD_add_response_header(r, "content-type",
			rep->content_type ? rep->content_type : "application/json; charset=utf-8") == MHD_YES;

	ok &= MHD_add_response_header(r, "x-request-id", hr->q.id) == MHD_YES;
	for (unsigned i = 0; i < rep->header_count; i++)
		ok &= MHD_add_response_header(r, rep->headers[i].name, rep->headers[i].value) == MHD_YES;
	if (atomic_load_explicit(&hr->conn->h->shared->is_stopping, memory_order_relaxed))
		ok &= MHD_add_response_header(r, "connection", "close") == MHD_YES;
	return ok;
}

/* Queue hr->q.reply. MHD_NO closes the connection. */
enum MHD_Result http_send(struct http_req *hr)
{
	struct MHD_Response *r = make_response(hr);
	enum MHD_Result ok;

	if (!r)
		return MHD_NO;
	if (!add_headers(r, hr)) {
		MHD_destroy_response(r);
		return MHD_NO;
	}
	hr->conn->h->has_moved = true;
	hr->phase = hr->stream ? PHASE_STREAM : PHASE_SENT;
	if (!hr->stream)
		hr->is_watched = false;    /* nothing is left to be stopped when the client leaves */
	http_set_limit(hr->conn, hr->conn->h->ctx->svc->cfg->http_write_ms);
	ok = MHD_queue_response(hr->mhd, (unsigned)hr->q.reply.status, r);
	MHD_destroy_response(r);
	return ok;
}

/* ---- routes/route.h ---- */

struct slice req_header(const struct req *q, const char *name)
{
	const struct http_req *hr = CONTAINER_OF(q, const struct http_req, q);

	return slice_str(MHD_lookup_connection_value(hr->mhd, MHD_HEADER_KIND, name));
}

enum errc reply_header(struct reply *rep, const char *name, const char *value, struct err *e)
{
	struct reply_header *h = &rep->headers[rep->header_count];

	if (rep->header_count == REPLY_HEADERS_MAX)
		return err_set(e, E_INTERNAL, "reply: more than %d headers", REPLY_HEADERS_MAX);
	h->value = mem_strdup(value);
	if (!h->value)
		return err_set(e, E_NO_MEMORY, "reply: no memory for header %s", name);
	h->name = name;
	rep->header_count++;
	return E_OK;
}

void reply_later(struct req *q, void *state, void (*on_gone)(struct req *q))
{
	struct http_req *hr = from_req(q);

	must(hr->phase == PHASE_RUN && hr->is_in_handler);
	q->handler_state = state;
	q->on_gone = on_gone;
	http_wait(hr);
}

void reply_done(struct req *q)
{
	struct http_req *hr = from_req(q);

	q->on_gone = NULL;
	hr->phase = PHASE_READY;
	http_wake(hr);
}

void reply_fail(struct req *q, const struct err *e)
{
	reply_error(&q->reply, q->route ? q->route->shape : SHAPE_FLAT, e);
	reply_done(q);
}

void reply_stream(struct req *q, const struct stream_ops *ops, void *state)
{
	struct http_req *hr = from_req(q);

	hr->stream = ops;
	hr->stream_state = state;
	if (!hr->is_in_handler)
		reply_done(q);
}

void reply_wake(struct req *q)
{
	http_wake(from_req(q));
}

struct slice_walk {
	bool (*fn)(void *ctx, struct slice name, struct slice value);
	void *ctx;
};

static enum MHD_Result walk_header(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
	struct slice_walk *w = cls;

	(void)kind;
	return w->fn(w->ctx, slice_str(key), slice_str(value)) ? MHD_YES : MHD_NO;
}

void req_each_header(const struct req *q, bool (*fn)(void *ctx, struct slice name, struct slice value), void *ctx)
{
	const struct http_req *hr = CONTAINER_OF(q, const struct http_req, q);
	struct slice_walk w = { fn, ctx };

	MHD_get_connection_values(hr->mhd, MHD_HEADER_KIND, walk_header, &w);
}

static struct slice address_of(struct http_conn *c, unsigned which)
{
	char *out = c->address[which];
	struct sockaddr_storage ss = { 0 };
	socklen_t n = sizeof(ss);

	if (!out[0] && c->fd >= 0 &&
	    (which ? getpeername : getsockname)(c->fd, (struct sockaddr *)&ss, &n) == 0 &&
	    getnameinfo((struct sockaddr *)&ss, n, out, HTTP_ADDRESS_MAX, NULL, 0, NI_NUMERICHOST))
		out[0] = '\0';
	return slice_str(out);
}

struct slice req_local_address(struct req *q)
{
	return address_of(from_req(q)->conn, 0);
}

struct slice req_peer_address(struct req *q)
{
	return address_of(from_req(q)->conn, 1);
}

bool req_is_tls(const struct req *q)
{
	return q->ctx && CONTAINER_OF(q, const struct http_req, q)->conn->h->shared->tls_cert_pem != NULL;
}

static void error_openai(struct jw *w, const struct err *e)
{
	jw_obj(w, NULL);
	jw_obj(w, "error");
	jw_str(w, "message", e->what);
	jw_str(w, "type", err_openai_type(e->code));
	jw_str(w, "param", e->param[0] ? e->param : NULL);
	jw_str(w, "code", err_openai_code(e->code));
	jw_end(w);
	jw_end(w);
}

static void error_flat(struct jw *w, const struct err *e, int status)
{
	jw_obj(w, NULL);
	jw_str(w, "error", err_class(status));
	jw_str(w, "code", err_name(e->code));
	jw_str(w, "message", e->what);
	jw_end(w);
}

static bool has_header(const struct reply *rep, const char *name)
{
	for (unsigned i = 0; i < rep->header_count; i++)
		if (slice_eq(slice_str(rep->headers[i].name), slice_str(name)))
			return true;
	return false;
}

void reply_error(struct reply *rep, enum route_shape shape, const struct err *e)
{
	struct jw w = JW(&rep->body);
	struct err ignored;

	buf_clear(&rep->body);
	rep->status = err_http_status(e->code);
	rep->content_type = NULL;
	if (shape == SHAPE_OPENAI)
		error_openai(&w, e);
	else
		error_flat(&w, e, rep->status);
	if (jw_done(&w, &ignored))
		buf_clear(&rep->body);      /* no memory for the text: the status alone must do */
	if (e->code == E_UNAUTHORIZED && reply_header(rep, "www-authenticate", "Bearer", &ignored))
		return;
	if (err_is_retryable(e->code) && (rep->status == 429 || rep->status == 503) && !has_header(rep, "retry-after"))
		(void)!reply_header(rep, "retry-after", "1", &ignored);
}
