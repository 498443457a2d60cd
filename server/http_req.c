/*
 * A request on its way in: target, headers, body, handler, end. Phases as http_priv.h names them; libmicrohttpd calls
 * from its run on the loop of the connection.
 */
#include "server/http_priv.h"

#include "base/crypto.h"
#include "base/mem.h"

#define REPLY_BODY_MAX (128u << 20)
#define BODY_STEP (64 << 10)    /* bodies above it get their room at once */

static struct http_conn *conn_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

/* The raw target, query included, before anything is unescaped: the one place that has it. */
void *http_on_target(void *cls, const char *target, struct MHD_Connection *mhd)
{
	struct http *h = cls;
	struct http_conn *c = conn_of(mhd);
	struct http_req *hr = c ? NEW(struct http_req) : NULL;
	ptrdiff_t query;

	if (!hr)
		return NULL;
	hr->target = mem_strdup(target);
	if (!hr->target) {
		mem_free(hr);
		return NULL;
	}
	hr->conn = c;
	hr->mhd = mhd;
	c->req = hr;
	h->open_requests++;
	hr->q.ctx = h->ctx;
	hr->q.started_mono_ms = loop_now_ms(h->ctx->loop);
	if (c->limit_mono_ms == CLOCK_NEVER || c->limit_mono_ms > hr->q.started_mono_ms + h->ctx->svc->cfg->http_header_ms)
		http_set_limit(c, h->ctx->svc->cfg->http_header_ms);   /* not the first of the connection */
	hr->q.target = slice_str(hr->target);
	query = slice_find_char(hr->q.target, '?');
	hr->q.path = query < 0 ? hr->q.target : slice_cut(hr->q.target, (size_t)query);
	hr->q.query = query < 0 ? slice_of("", 0) : slice_from(hr->q.target, (size_t)query + 1);
	memcpy(hr->q.id, "req_", 4);
	crypto_random_id(hr->q.id + 4, sizeof(hr->q.id) - 5);
	buf_init(&hr->q.reply.body, REPLY_BODY_MAX);
	hr->q.reply.status = 200;
	return hr;
}

static void body_account(struct http_req *hr, size_t now)
{
	atomic_fetch_add(&hr->conn->h->shared->body_bytes, (int64_t)now - (int64_t)hr->body_accounted);
	hr->body_accounted = now;
}

void http_close_stream(struct http_req *hr)
{
	if (!hr->stream || hr->is_closed)
		return;
	hr->is_closed = true;
	hr->stream->close(hr->stream_state);
}

/*
 * libmicrohttpd 0.9.75 with epoll: a connection that a body callback or a reader ended by an error is closed, but taken
 * off its ready list before it is cleaned up, and then only looked at as the oldest of its timeout list: socket and
 * memory stay behind any older living connection. Connections with a timeout of their own are looked at in every run.
 */
static void end_connection(struct http *h, struct MHD_Connection *mhd)
{
	(void)MHD_set_connection_option(mhd, MHD_CONNECTION_OPTION_TIMEOUT, 1u);
	h->is_due = true;
}

void http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode code)
{
	struct http *h = cls;
	struct http_req *hr = *con_cls;

	*con_cls = NULL;
	if (!hr)
		return;
	if (hr->is_waiting)
		h->waiting--;
	http_direct_forget(hr);
	buf_done(&hr->direct_rest);
	if (http_is_worked_on(hr) && hr->q.on_gone)
		hr->q.on_gone(&hr->q);
	http_close_stream(hr);
	h->ops->on_end(&hr->q, hr->phase >= PHASE_STREAM ? hr->q.reply.status : 0, hr->bytes_out,
		       hr->is_gone || code != MHD_REQUEST_TERMINATED_COMPLETED_OK);
	body_account(hr, 0);
	buf_done(&hr->body);
	buf_done(&hr->q.reply.body);
	for (unsigned i = 0; i < hr->q.reply.header_count; i++)
		mem_free(hr->q.reply.headers[i].value);
	route_args_done(hr->q.arg);
	mem_free(hr->target);
	hr->conn->req = NULL;
	h->open_requests--;
	if (hr->conn->has_end)
		h->is_due = true;
	if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK || hr->conn->is_shut)
		end_connection(h, mhd);
	http_set_limit(hr->conn, h->ctx->svc->cfg->http_idle_ms);
	mem_free(hr);
}

/* ---- headers ---- */

struct header_sum {
	size_t bytes;
	unsigned hosts, lengths;
	bool is_chunked, has_control;
};

static bool has_control(struct slice v)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
	size_t i = 0;
	uint64_t w;

	/* Eight at a time as long as none is below 0x20: most values have nothing of the kind, and a token is long. */
	for (; i + sizeof(w) <= v.n; i += sizeof(w)) {
		memcpy(&w, v.p + i, sizeof(w));
		if ((w - ones * 0x20) & ~w & tops)
			break;
	}
	for (; i < v.n; i++)
		if ((unsigned char)v.p[i] < 0x20 && v.p[i] != '\t')
			return true;
	return false;
}

static enum MHD_Result sum_header(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
	struct header_sum *s = cls;
	struct slice k = slice_str(key), v = slice_str(value);

	(void)kind;
	s->bytes += k.n + v.n + 4;
	s->hosts += slice_eq_nocase(k, SLICE("host"));
	s->lengths += slice_eq_nocase(k, SLICE("content-length"));
	s->is_chunked |= slice_eq_nocase(k, SLICE("transfer-encoding"));
	s->has_control |= has_control(v);
	return MHD_YES;
}

/* What libmicrohttpd lets through and nobody should (design.md 5.8). */
static enum errc check_framing(struct http_req *hr, const char *version, struct err *e)
{
	struct header_sum s = { .bytes = hr->target ? strlen(hr->target) : 0 };

	MHD_get_connection_values(hr->mhd, MHD_HEADER_KIND, sum_header, &s);
	if (s.bytes > HTTP_HEAD_MAX)
		return err_set(e, E_HEADERS_TOO_LARGE, "target and headers: %zu of at most %d bytes", s.bytes, HTTP_HEAD_MAX);
	if (s.has_control)
		return err_set(e, E_BAD_REQUEST, "headers: control byte in a value");
	if (s.hosts > 1 || (s.hosts == 0 && slice_eq(slice_str(version), SLICE("HTTP/1.1"))))
		return err_set(e, E_BAD_REQUEST, "headers: %u Host headers, 1 needed", s.hosts);
	if (s.lengths > 1 || (s.lengths && s.is_chunked))
		return err_set(e, E_BAD_REQUEST, "headers: content-length given twice, or with transfer-encoding");
	if (hr->q.path.n == 0 || hr->q.path.p[0] != '/')
		return err_set(e, E_BAD_REQUEST, "request target: must begin with /");
	for (size_t i = 0; i < hr->q.target.n; i++)
		if ((unsigned char)hr->q.target.p[i] <= 0x20 || hr->q.target.p[i] == 0x7f)
			return err_set(e, E_BAD_REQUEST, "request target: control byte at %zu", i);
	return E_OK;
}

static enum errc check_length(struct http_req *hr, struct err *e)
{
	int64_t declared = 0;
	struct slice text = req_header(&hr->q, "content-length");

	if (!text.n)
		return E_OK;
	if (!slice_to_i64(text, 0, INT64_MAX, &declared))
		return err_set(e, E_BAD_REQUEST, "content-length: not a number");
	if ((uint64_t)declared > hr->q.max_body && hr->q.max_body)
		return err_set(e, E_TOO_LARGE, "body: %lld of at most %zu bytes", (long long)declared, hr->q.max_body);
	return E_OK;
}

static enum errc check_head(struct http_req *hr, const char *version, struct err *e)
{
	struct http *h = hr->conn->h;
	enum errc rc = check_framing(hr, version, e);

	if (!rc && hr->conn->is_refused)
		rc = err_set(e, E_BUSY, "connections: %llu open at most, and %lld of one address",
			     (unsigned long long)h->shared->max_connections, (long long)h->ctx->svc->cfg->max_connections_per_peer);
	if (!rc)
		rc = h->ops->on_head(&hr->q, e);
	if (!rc)
		rc = check_length(hr, e);
	if (!rc && hr->q.route->begin)
		rc = hr->q.route->begin(&hr->q, e);
	return rc;
}

static void refuse(struct http_req *hr, const struct err *e)
{
	struct slice path = hr->q.path;
	enum route_shape shape = SHAPE_FLAT;

	if (hr->q.route)
		shape = hr->q.route->shape;
	else if (slice_starts_with(path, SLICE("/v1/")) && !slice_starts_with(path, SLICE("/v1/swarm/")))
		shape = SHAPE_OPENAI;
	reply_error(&hr->q.reply, shape, e);
	hr->phase = PHASE_DISCARD;
}

static bool has_body(const struct http_req *hr)
{
	struct slice length = req_header(&hr->q, "content-length");

	return (length.n && !slice_eq(length, SLICE("0"))) || req_header(&hr->q, "transfer-encoding").n;
}

/* First call for a request: headers only; nothing may be answered here but to "Expect: 100-continue". */
static enum MHD_Result begin(struct http_req *hr, const char *method, const char *version)
{
	struct err e = { 0 };

	hr->q.method = method;
	hr->can_direct = slice_eq(slice_str(version), SLICE("HTTP/1.1")) && !hr->conn->h->shared->tls_cert_pem;
	buf_init(&hr->direct_rest, HTTP_DIRECT_BLOCK + 64);
	hr->phase = PHASE_BODY;
	http_set_limit(hr->conn, hr->conn->h->ctx->svc->cfg->http_body_ms);
	bool is_fine = !check_head(hr, version, &e);

	if (has_body(hr))
		http_watch_client(hr);
	if (is_fine) {
		buf_init(&hr->body, hr->q.max_body);
		return MHD_YES;
	}
	refuse(hr, &e);
	if (slice_eq_nocase(req_header(&hr->q, "expect"), SLICE("100-continue")))
		return http_send(hr);
	http_set_limit(hr->conn, HTTP_DISCARD_MS);
	return MHD_YES;
}

/* ---- body ---- */

/* Stop storing; what still comes is read and dropped so that the refusal reaches the client (design.md 5.2). */
static void discard_from_here(struct http_req *hr, const struct err *e)
{
	buf_done(&hr->body);
	body_account(hr, 0);
	refuse(hr, e);
	http_set_limit(hr->conn, HTTP_DISCARD_MS);
}

/*
 * A large body gets its room at once: to grow step by step would copy megabytes in one turn. Pages that nobody has
 * written yet cost nothing, so what is counted is what has come.
 */
static enum errc reserve_body(struct http_req *hr, struct err *e)
{
	int64_t declared = 0;
	char *ignored;

	if (!slice_to_i64(req_header(&hr->q, "content-length"), BODY_STEP, (int64_t)hr->q.max_body, &declared))
		return E_OK;                   /* small, or unknown */
	return buf_reserve(&hr->body, (size_t)declared, &ignored, e);
}

static enum MHD_Result take_body(struct http_req *hr, const char *p, size_t n)
{
	struct http *h = hr->conn->h;
	int64_t budget = h->ctx->svc->cfg->body_budget_bytes;
	struct err e = { 0 };

	if (hr->phase == PHASE_DISCARD || !hr->q.max_body) {   /* a body where none belongs is ignored */
		hr->discarded += n;
		return hr->discarded > HTTP_DISCARD_MAX ? MHD_NO : MHD_YES;
	}
	http_set_limit(hr->conn, h->ctx->svc->cfg->http_body_ms);
	if (atomic_load(&h->shared->body_bytes) + (int64_t)n > budget) {
		err_set(&e, E_BUSY, "request bodies in memory: over %lld bytes", (long long)budget);
		discard_from_here(hr, &e);
		return MHD_YES;
	}
	if ((!hr->body.n && reserve_body(hr, &e)) || buf_add(&hr->body, p, n, &e)) {
		if (e.code == E_TOO_LARGE)
			err_set(&e, E_TOO_LARGE, "body: over %zu bytes", hr->q.max_body);
		discard_from_here(hr, &e);
		return MHD_YES;
	}
	body_account(hr, hr->body.n + BODY_STEP < hr->body.cap ? hr->body.n + BODY_STEP : hr->body.cap);
	return MHD_YES;
}

/* ---- a body that is taken as it comes ---- */

/* The taker has ended, or is told to. */
static void drop_taker(struct http_req *hr, bool is_told)
{
	void (*gone)(struct req *) = hr->q.on_gone;

	hr->q.on_gone = NULL;
	hr->q.body_ops = NULL;
	if (is_told && gone)
		gone(&hr->q);
}

/* *size: what has come, then what was left over. The connection waits while the taker is full; then no limit of time runs. */
static enum MHD_Result feed_taker(struct http_req *hr, const char *p, size_t *size)
{
	size_t n = *size, taken = 0;
	struct err e = { 0 };
	enum errc rc;

	hr->conn->h->has_moved = true;
	http_set_limit(hr->conn, hr->conn->h->ctx->svc->cfg->http_body_ms);
	rc = hr->taken + n > hr->q.max_body ? err_set(&e, E_TOO_LARGE, "body: over %zu bytes", hr->q.max_body)
					    : hr->q.body_ops->take(hr->q.handler_state, p, n, &taken, &e);
	if (rc) {
		*size = 0;
		drop_taker(hr, true);
		discard_from_here(hr, &e);
		return MHD_YES;
	}
	hr->taken += taken;
	*size = n - taken;
	if (hr->conn->has_end)
		hr->conn->h->is_due = true;    /* was that all? http_look_at_ended() */
	if (*size) {
		http_set_limit(hr->conn, 0);
		http_suspend(hr);
	}
	return MHD_YES;
}

void req_body_more(struct req *q)
{
	struct http_req *hr = CONTAINER_OF(q, struct http_req, q);

	if (!hr->is_suspended)
		return;
	http_set_limit(hr->conn, hr->conn->h->ctx->svc->cfg->http_body_ms);
	http_resume(hr);
}

void req_body_fail(struct req *q, const struct err *e)
{
	struct http_req *hr = CONTAINER_OF(q, struct http_req, q);

	drop_taker(hr, false);
	if (hr->phase == PHASE_RUN) {
		reply_fail(q, e);
		return;
	}
	discard_from_here(hr, e);
	http_resume(hr);
}

struct buf req_take_body(struct req *q)
{
	struct http_req *hr = CONTAINER_OF(q, struct http_req, q);
	struct buf b = hr->body;

	buf_init(&hr->body, 0);
	q->body = slice_of("", 0);
	return b;
}

/* ---- handler ---- */

/* The request is whole: run the handler. */
static enum MHD_Result run(struct http_req *hr)
{
	struct err e = { 0 };
	enum errc rc;

	http_set_limit(hr->conn, 0);
	hr->phase = PHASE_RUN;
	hr->q.body = buf_slice(&hr->body);
	hr->is_in_handler = true;
	rc = hr->conn->h->ops->on_request(&hr->q, &e);
	hr->is_in_handler = false;
	if (rc) {
		reply_error(&hr->q.reply, hr->q.route->shape, &e);
		return http_send(hr);
	}
	return hr->is_waiting || hr->is_suspended ? MHD_YES : http_send(hr);
}

/*
 * A run of libmicrohttpd deals with all that is ready. So that a hundred requests at once do not make one long turn, those
 * beyond a number, or after a time, are left as they are: they are asked for again at the next run, which follows at once.
 */
static bool is_left(struct http *h, unsigned *count)
{
	if (*count == 0 || (*count < HTTP_A_RUN && clock_mono_us() - h->run_mono_us < HTTP_RUN_US)) {
		++*count;
		return false;
	}
	h->has_moved = true;
	return true;
}

enum MHD_Result http_on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
			       const char *data, size_t *size, void **con_cls)
{
	struct http *h = cls;
	struct http_req *hr = *con_cls;

	(void)mhd;
	(void)url;
	if (hr && hr->phase == PHASE_RUN && !hr->is_gone && !hr->conn->is_shut) {
		http_waited(hr);
		return MHD_YES;
	}
	/* Also a request that is whole: its client has left, and nobody would tell a handler so a second time. */
	if (!hr || hr->is_gone || hr->conn->is_shut) {
		h->has_moved = true;
		return MHD_NO;
	}
	if (hr->phase == PHASE_TARGET)
		return begin(hr, method, version);
	if (*size && hr->phase == PHASE_BODY && hr->q.body_ops)
		return feed_taker(hr, data, size);
	if (*size) {
		size_t n = *size;

		*size = 0;
		return take_body(hr, data, n);
	}
	switch (hr->phase) {
	case PHASE_DISCARD:
	case PHASE_READY:
		return is_left(h, &h->begun) ? MHD_YES : http_send(hr);
	case PHASE_BODY:
		return is_left(h, &h->taken) ? MHD_YES : run(hr);
	case PHASE_TARGET:
	case PHASE_RUN:
	case PHASE_STREAM:
	case PHASE_SENT:
		break;
	}
	return MHD_YES;
}
