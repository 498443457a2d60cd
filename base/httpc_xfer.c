/*
 * One transfer of the HTTP client: curl's options, its callbacks, the four time limits, what an error is called.
 * Called by httpc.c and by curl; the loop's thread.
 *
 * A chunk costs no allocation, no system call for the time and no move of a timer: on_body notes the turn's time, and
 * the limit timer looks at that note when it fires.
 */
#include "base/httpc_priv.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADERS_MAX	64
#define BACKSTOP_MS	(24L * 3600 * 1000) /* curl's own connect limit would be 300 s; ours are on the loop */

/* ---- callbacks of curl; whoever is doomed hears nothing any more ---- */

/* Callbacks get the handle, which outlives the transfer that it works for. */
static struct httpc_xfer *xfer_of(void *arg)
{
	return ((struct httpc_handle *)arg)->x;
}

static size_t on_body(char *p, size_t size, size_t count, void *arg)
{
	struct httpc_xfer *x = xfer_of(arg);
	size_t n = size * count;

	if (x->where == HTTPC_DOOMED || x->e.code)
		return CURL_WRITEFUNC_ERROR;
	x->last_ms = loop_now_ms(x->c->loop);
	if (x->is_to_take)
		return httpc_direct_hold(x, slice_of(p, n)) ? n : CURL_WRITEFUNC_ERROR;
	if (x->max_body && n > x->max_body - x->received) {
		err_set(&x->e, E_TOO_LARGE, "answer: more than %llu bytes", (unsigned long long)x->max_body);
		return CURL_WRITEFUNC_ERROR;
	}
	if (x->ops->on_data(x->ctx, slice_of(p, n)) == HTTPC_PAUSE && x->where != HTTPC_DOOMED) {
		x->is_paused = true;
		return CURL_WRITEFUNC_PAUSE; /* curl keeps the bytes and gives them again */
	}
	x->received += n;
	return x->where == HTTPC_DOOMED ? CURL_WRITEFUNC_ERROR : n;
}

static void keep_value(struct slice line, struct slice name, char *out, size_t cap)
{
	if (!slice_starts_with_nocase(line, name))
		return;
	struct slice v = slice_trim(slice_from(line, name.n));

	if (!slice_copy(slice_cut(v, cap - 1), out, cap))
		out[0] = '\0';
}

void httpc_xfer_end_head(struct httpc_xfer *x, int64_t length)
{
	struct httpc_head h = { .status = x->status, .content_type = slice_str(x->content_type),
		.retry_after = slice_str(x->retry_after), .wanted = slice_str(x->wanted), .content_length = length };

	x->is_head_done = true;
	x->phase = HTTPC_BODY;
	x->last_ms = loop_now_ms(x->c->loop);
	if (x->idle_ms && (!x->limit.heap_pos || x->limit.at_mono_ms > x->last_ms + x->idle_ms))
		loop_timer_set(x->c->loop, &x->limit, x->last_ms + x->idle_ms);
	if (x->ops->on_head)
		x->ops->on_head(x->ctx, &h);
}

/* The head is whole: tell it, and from now on count silence. */
static void end_head(struct httpc_xfer *x)
{
	curl_off_t length = -1;

	if (x->is_chunked || curl_easy_getinfo(x->handle->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length))
		length = -1;
	if (x->is_stream && x->is_chunked && x->status != 204 && x->status != 304)
		httpc_direct_mark(x);
	httpc_xfer_end_head(x, length);
}

void httpc_xfer_note_header(struct httpc_xfer *x, struct slice line)
{
	if (slice_starts_with_nocase(line, SLICE("transfer-encoding:")))
		x->is_chunked = true;
	if (slice_starts_with_nocase(line, SLICE("connection:")))
		x->is_last |= slice_eq_nocase(slice_trim(slice_from(line, 11)), SLICE("close"));
	keep_value(line, SLICE("content-type:"), x->content_type, sizeof(x->content_type));
	keep_value(line, SLICE("retry-after:"), x->retry_after, sizeof(x->retry_after));
	if (x->header_wanted)
		keep_value(line, slice_str(x->header_wanted), x->wanted, sizeof(x->wanted));
}

static size_t on_header(char *p, size_t size, size_t count, void *arg)
{
	struct httpc_xfer *x = xfer_of(arg);
	size_t n = size * count;
	struct slice line = slice_trim(slice_of(p, n));
	long status = 0;

	if (x->where == HTTPC_DOOMED || x->e.code)
		return 0;
	x->head_bytes += n;
	if (x->head_bytes > HTTPC_HEAD_MAX) {
		err_set(&x->e, E_UPSTREAM, "head of the answer: more than %d bytes", HTTPC_HEAD_MAX);
		return 0;
	}
	if (x->is_head_done)
		return n; /* trailers: counted with the head, else of no interest */
	if (slice_starts_with_nocase(line, SLICE("http/"))) {
		/* a new head: the one before was a 1xx */
		x->content_type[0] = x->retry_after[0] = x->wanted[0] = '\0';
		x->is_chunked = false;
		x->is_last = slice_starts_with_nocase(line, SLICE("http/1.0"));
	} else if (!slice_is_empty(line)) {
		httpc_xfer_note_header(x, line);
	} else {
		curl_easy_getinfo(x->handle->easy, CURLINFO_RESPONSE_CODE, &status);
		x->status = (int)status;
		if (status / 100 != 1)
			end_head(x);
	}
	return x->where == HTTPC_DOOMED ? 0 : n;
}

/* Connected, TLS included; the request goes out next. Comes again when curl retries on a new connection. */
static int on_connected(void *arg, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
	struct httpc_xfer *x = xfer_of(arg);
	long new_connects = 0;

	(void)peer_ip;
	(void)own_ip;
	(void)peer_port;
	(void)own_port;
	if (x->where == HTTPC_DOOMED || x->e.code)
		return CURL_PREREQFUNC_ABORT;
	if (x->is_once && x->phase != HTTPC_CONNECT) {
		(void)err_set(&x->e, E_UPSTREAM, "connection closed without an answer");
		return CURL_PREREQFUNC_ABORT;
	}
	httpc_lookup_ended(x);
	x->phase = HTTPC_FIRST_BYTE;
	curl_easy_getinfo(x->handle->easy, CURLINFO_NUM_CONNECTS, &new_connects);
	httpc_origin_begin(x, new_connects == 0);
	return CURL_PREREQFUNC_OK;
}

/* Our own socket() for O_CLOEXEC, and as the sign that the name is known. */
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct httpc_xfer *x = xfer_of(arg);

	(void)purpose;
	httpc_lookup_ended(x);
	int fd = socket(a->family, a->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->protocol);

	if (fd >= 0)
		x->opened[x->opened_count++ % HTTPC_OPENED_MAX] = fd;
	return fd;
}

/* arg is the client: a connection may outlive the handle that made it. */
static int on_close_socket(void *arg, curl_socket_t fd)
{
	struct httpc *c = arg;

	if (fd != c->taking)
		return close(fd);
	c->is_taken = true;
	return 0;
}

/* ---- limits ---- */

/* The first limit that counts now, and its text in *ret_text with %lld for *ret_ms. */
static int64_t next_limit(const struct httpc_xfer *x, const char **ret_text, int64_t *ret_ms)
{
	const struct {
		bool counts;
		int64_t from_ms, ms;
		const char *text;
	} limits[] = {
		{ x->phase == HTTPC_CONNECT, x->start_ms, x->connect_ms, "no connection" },
		{ !x->is_head_done, x->start_ms, x->first_byte_ms, "no answer" },
		{ x->is_head_done && !x->is_paused, x->last_ms, x->idle_ms, "no byte of the answer" },
		{ true, x->start_ms, x->total_ms, "no end of the answer" },
	};
	int64_t first = INT64_MAX;

	for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
		if (!limits[i].counts || !limits[i].ms || limits[i].from_ms + limits[i].ms >= first)
			continue;
		first = limits[i].from_ms + limits[i].ms;
		*ret_text = limits[i].text;
		*ret_ms = limits[i].ms;
	}
	return first;
}

void httpc_xfer_arm(struct httpc_xfer *x)
{
	const char *text;
	int64_t ms, at = next_limit(x, &text, &ms);

	/* Paused: silence does not count, but the timer must be no later than an idle limit after a resume. */
	if (x->is_paused && x->idle_ms && loop_now_ms(x->c->loop) + x->idle_ms < at)
		at = loop_now_ms(x->c->loop) + x->idle_ms;
	if (at != INT64_MAX)
		loop_timer_set(x->c->loop, &x->limit, at);
}

static void on_limit(struct loop_timer *t)
{
	struct httpc_xfer *x = CONTAINER_OF(t, struct httpc_xfer, limit);
	const char *text = "";
	int64_t ms = 0;

	if (!x->e.code && next_limit(x, &text, &ms) <= loop_now_ms(x->c->loop))
		err_set(&x->e, E_TIMEOUT, "%s within %lld ms", text, (long long)ms);
	if (x->e.code)
		httpc_finish(x, x->e.code);
	else
		httpc_xfer_arm(x);
}

/* ---- a handle, and one request on it ---- */

static CURLcode set_longs(CURL *easy)
{
	static const struct {
		CURLoption opt;
		long v;
	} longs[] = { /* design.md 5.12-5.14 */
		{ CURLOPT_QUICK_EXIT, 1 }, { CURLOPT_NOSIGNAL, 1 }, { CURLOPT_NOPROGRESS, 1 }, { CURLOPT_FOLLOWLOCATION, 0 },
		{ CURLOPT_NETRC, CURL_NETRC_IGNORED }, { CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1 },
		{ CURLOPT_BUFFERSIZE, 2048 }, { CURLOPT_UPLOAD_BUFFERSIZE, 16384 }, { CURLOPT_TCP_NODELAY, 1 },
		{ CURLOPT_HTTP09_ALLOWED, 0 }, { CURLOPT_PATH_AS_IS, 1 }, { CURLOPT_CONNECTTIMEOUT_MS, BACKSTOP_MS },
	};

	for (size_t i = 0; i < ARRAY_LEN(longs); i++) {
		CURLcode code = curl_easy_setopt(easy, longs[i].opt, longs[i].v);

		if (code)
			return code;
	}
	return CURLE_OK;
}

/* What holds for every request of a handle; the rest is set by httpc_xfer_set each time. */
static CURLcode set_constants(struct httpc *c, struct httpc_handle *handle)
{
	CURL *h = handle->easy;
	CURLcode code = set_longs(h);

	code = code ? code : curl_easy_setopt(h, CURLOPT_PROXY, "");
	code = code ? code : curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
	code = code ? code : curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
	code = code ? code : curl_easy_setopt(h, CURLOPT_CAINFO, c->ca_file);
	code = code ? code : curl_easy_setopt(h, CURLOPT_USERAGENT, c->user_agent);
	code = code ? code : curl_easy_setopt(h, CURLOPT_PRIVATE, handle);
	code = code ? code : curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
	code = code ? code : curl_easy_setopt(h, CURLOPT_WRITEDATA, handle);
	code = code ? code : curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
	code = code ? code : curl_easy_setopt(h, CURLOPT_HEADERDATA, handle);
	code = code ? code : curl_easy_setopt(h, CURLOPT_PREREQFUNCTION, on_connected);
	code = code ? code : curl_easy_setopt(h, CURLOPT_PREREQDATA, handle);
	code = code ? code : curl_easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	code = code ? code : curl_easy_setopt(h, CURLOPT_OPENSOCKETDATA, handle);
	code = code ? code : curl_easy_setopt(h, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
	code = code ? code : curl_easy_setopt(h, CURLOPT_CLOSESOCKETDATA, c);
	return code;
}

void httpc_handle_free(struct httpc_handle *h)
{
	if (!h)
		return;
	curl_easy_cleanup(h->easy);
	mem_free(h);
}

/* From the pool, the warmest, or a new one. */
static enum errc handle_get(struct httpc *c, struct httpc_handle **ret, struct err *e)
{
	struct httpc_handle *h = c->idle;
	CURLcode code = CURLE_OUT_OF_MEMORY;

	if (h) {
		c->idle = h->next;
		c->idle_count--;
		*ret = h;
		return E_OK;
	}
	h = NEW(struct httpc_handle);
	if (h)
		h->easy = curl_easy_init();
	if (h && h->easy)
		code = set_constants(c, h);
	if (code) {
		httpc_handle_free(h);
		return err_set(e, code == CURLE_OUT_OF_MEMORY ? E_NO_MEMORY : E_INTERNAL, "http: options: %s", curl_easy_strerror(code));
	}
	*ret = h;
	return E_OK;
}

void httpc_xfer_unhand(struct httpc_xfer *x)
{
	struct httpc *c = x->c;
	struct httpc_handle *h = x->handle;

	if (!h)
		return;
	/* these hold pointers into what is freed here, or is the caller's */
	curl_easy_setopt(h->easy, CURLOPT_HTTPHEADER, NULL);
	curl_easy_setopt(h->easy, CURLOPT_POSTFIELDS, NULL);
	curl_slist_free_all(x->headers);
	x->headers = NULL;
	x->handle = NULL;
	h->x = NULL;
	if (c->idle_count >= HTTPC_IDLE_MAX) {
		httpc_handle_free(h);
		return;
	}
	h->next = c->idle;
	c->idle = h;
	c->idle_count++;
}

enum errc httpc_xfer_new(struct httpc *c, struct httpc_xfer **ret, struct err *e)
{
	struct httpc_xfer *x = NEW(struct httpc_xfer);
	enum errc rc;

	if (!x)
		return err_set(e, E_NO_MEMORY, "http: no memory for a request");
	x->c = c;
	x->limit.fn = on_limit;
	buf_init(&x->held, HTTPC_HELD_MAX);
	buf_init(&x->out, HTTPC_HEAD_MAX);
	rc = handle_get(c, &x->handle, e);
	if (rc) {
		mem_free(x);
		return rc;
	}
	x->handle->x = x;
	*ret = x;
	return E_OK;
}

void httpc_xfer_free(struct httpc_xfer *x)
{
	if (!x)
		return;
	httpc_xfer_unhand(x);
	buf_done(&x->held);
	buf_done(&x->out);
	mem_free(x->origin_name);
	mem_free(x);
}

static bool add_header(struct httpc_xfer *x, const char *line)
{
	struct curl_slist *l = curl_slist_append(x->headers, line);

	if (l)
		x->headers = l;
	return l != NULL;
}

/* Headers as given, and none of curl's own making: no Expect, no guessed content type. */
static enum errc set_headers(struct httpc_xfer *x, const char *const *headers, struct err *e)
{
	bool has_type = false, is_added = add_header(x, "Expect:");
	size_t n = 0;

	for (; headers && headers[n] && is_added; n++) {
		struct slice line = slice_str(headers[n]);

		if (n == HEADERS_MAX)
			return err_set(e, E_TOO_LARGE, "http: more than %d headers", HEADERS_MAX);
		if (strpbrk(headers[n], "\r\n") || slice_find_char(line, ':') <= 0)
			return err_set(e, E_INVALID_VALUE, "http: header %zu is no \"name: value\" line", n);
		has_type |= slice_starts_with_nocase(line, SLICE("content-type:"));
		is_added = add_header(x, headers[n]);
	}
	if (!has_type)
		is_added = is_added && add_header(x, "Content-Type:");
	if (!is_added || curl_easy_setopt(x->handle->easy, CURLOPT_HTTPHEADER, x->headers))
		return err_set(e, E_NO_MEMORY, "http: no memory for headers");
	return E_OK;
}

static CURLcode set_method(CURL *h, const struct httpc_req *r)
{
	bool is_get = strcmp(r->method, "GET") == 0, is_head = strcmp(r->method, "HEAD") == 0;
	bool has_body = r->body.n || strcmp(r->method, "POST") == 0;
	CURLcode code = curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, NULL);

	/* the last of these three decides; NOBODY is not undone by the others */
	code = code ? code : curl_easy_setopt(h, CURLOPT_NOBODY, is_head ? 1L : 0L);
	if (is_head)
		return code;
	if (!has_body) {
		code = code ? code : curl_easy_setopt(h, CURLOPT_HTTPGET, 1L);
	} else {
		code = code ? code : curl_easy_setopt(h, CURLOPT_POST, 1L);
		code = code ? code : curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
		code = code ? code : curl_easy_setopt(h, CURLOPT_POSTFIELDS, r->body.n ? r->body.p : "");
	}
	if (code || (is_get && !has_body) || strcmp(r->method, "POST") == 0)
		return code;
	return curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, r->method);
}

enum errc httpc_xfer_set(struct httpc_xfer *x, const struct httpc_req *r, struct err *e)
{
	struct httpc_url u;
	CURLcode code;

	if (!httpc_url_split(slice_str(r->url), &u))
		return err_set(e, E_INVALID_VALUE, "http: not a plain http or https URL");
	if (!r->method[0] || strspn(r->method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != strlen(r->method))
		return err_set(e, E_INVALID_VALUE, "http: method");
	enum errc rc = set_headers(x, r->headers, e);

	if (rc)
		return rc;
	code = curl_easy_setopt(x->handle->easy, CURLOPT_URL, r->url);
	code = code ? code : curl_easy_setopt(x->handle->easy, CURLOPT_FRESH_CONNECT, r->is_fresh ? 1L : 0L);
	code = code ? code : curl_easy_setopt(x->handle->easy, CURLOPT_FORBID_REUSE, r->is_fresh ? 1L : 0L);
	x->is_stream = r->is_stream && slice_starts_with_nocase(slice_str(r->url), SLICE("http:"));
	code = code ? code : curl_easy_setopt(x->handle->easy, CURLOPT_HTTP_TRANSFER_DECODING, x->is_stream ? 0L : 1L);
	code = code ? code : set_method(x->handle->easy, r);
	if (code)
		return err_set(e, code == CURLE_OUT_OF_MEMORY ? E_NO_MEMORY : E_INTERNAL, "http: options: %s", curl_easy_strerror(code));
	x->ops = r->ops;
	x->ctx = r->ctx;
	x->connect_ms = r->connect_ms;
	x->first_byte_ms = r->first_byte_ms;
	x->idle_ms = r->idle_ms;
	x->total_ms = r->total_ms;
	x->max_body = r->max_body;
	x->header_wanted = r->header_wanted;
	x->is_fresh = r->is_fresh;
	x->is_once = r->is_once;
	x->is_name = !u.is_literal;
	x->origin = x->c->max_idle_per_host ? httpc_origin_get(x->c, u.origin) : NULL;
	x->start_ms = x->last_ms = loop_now_ms(x->c->loop);
	return x->is_stream ? httpc_again_set(x, r, &u, e) : E_OK;
}

/* ---- errors ---- */

static enum errc judge_curl(struct httpc_xfer *x, CURLcode code)
{
	long os_errno = 0;

	if (x->handle)
		curl_easy_getinfo(x->handle->easy, CURLINFO_OS_ERRNO, &os_errno);
	switch ((int)code) { /* of some hundred values; the rest is named by curl */
	case CURLE_OUT_OF_MEMORY:
		/* curl's word also for a header line above 100 KB */
		if (!httpc_had_no_memory())
			return err_set(&x->e, E_UPSTREAM, "head of the answer is too large");
		return err_set(&x->e, E_NO_MEMORY, "http: no memory");
	case CURLE_COULDNT_RESOLVE_HOST:
		return err_set(&x->e, E_UPSTREAM, "host name not found");
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(&x->e, E_TIMEOUT, "no connection in time");
	case CURLE_COULDNT_CONNECT:
		if (os_errno)
			return err_set_os(&x->e, E_UPSTREAM, (int)os_errno, "no connection");
		break;
	case CURLE_PARTIAL_FILE:
		return err_set(&x->e, E_UPSTREAM, "answer cut short");
	case CURLE_GOT_NOTHING:
		return err_set(&x->e, E_UPSTREAM, "connection closed without an answer");
	default:
		break;
	}
	/* The fixed text of the code, not curl's message of this failure: that one quotes what the peer sent. */
	return err_set(&x->e, E_UPSTREAM, "%s", curl_easy_strerror(code));
}

enum errc httpc_xfer_judge(struct httpc_xfer *x, CURLcode code)
{
	if (x->e.code)
		return x->e.code;
	/* curl takes a connection that ends within the head for a good end */
	if (code == CURLE_OK && !x->is_head_done)
		return err_set(&x->e, E_UPSTREAM, "connection closed within the head of the answer");
	return code ? judge_curl(x, code) : E_OK;
}
