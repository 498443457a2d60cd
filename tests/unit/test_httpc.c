/*
 * The HTTP client against small servers made here, each a thread with a script, on 127.0.0.1 and a port of the
 * kernel's choice. Nothing pauses: servers wait in read and accept, clients in their loop.
 */
#include "base/clock.h"
#include "base/httpc.h"
#include "base/mem.h"
#include "base/thread.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- servers ---- */

struct server {
	int fd, port;
	struct thread t;
	void (*serve)(struct server *s, int conn); /* one connection; the server closes it afterwards */
	const char *answer, *given;
	void *more;
	atomic_int conns, requests, fresh_closed;
	atomic_int_fast64_t sent, closed_mono_ms;
	char seen[8192];            /* the last request; read after server_stop */
};

/* One request, head and body by content-length. False when the connection ended. */
static bool read_request(struct server *s, int conn)
{
	char text[sizeof(s->seen)] = "";
	size_t n = 0, want = 0;
	char *end;
	ssize_t got;

	while (!want || n < want) {
		got = n < sizeof(text) - 1 ? read(conn, text + n, sizeof(text) - 1 - n) : 0;
		if (got <= 0)
			return false;
		n += (size_t)got;
		text[n] = '\0';
		end = strstr(text, "\r\n\r\n");
		if (end) {
			char *length = strcasestr(text, "content-length:");

			want = (size_t)(end + 4 - text) + (length && length < end ? (size_t)strtol(length + 15, NULL, 10) : 0);
		}
	}
	memcpy(s->seen, text, n + 1);
	atomic_fetch_add(&s->requests, 1);
	return true;
}

static bool put(int conn, const char *p, size_t n)
{
	while (n) {
		ssize_t done = send(conn, p, n, MSG_NOSIGNAL);

		if (done <= 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

/* All tests run three times: as they stand; with requests for a stream; and these with heads that come first. */
static bool is_stream_run, is_split_run;
static atomic_int heads_taken;         /* heads that a client was told of, and the turn of its loop has ended */

/* The server's side: what follows the head is sent when that is out of curl's hands; 1 s: nobody took it. */
static void await_taken(int before)
{
	for (int i = 0; i < 1000 && atomic_load(&heads_taken) == before; i++)
		poll(NULL, 0, 1);
}

static bool put_str(int conn, const char *text)
{
	const char *end = is_split_run && strncmp(text, "HTTP/1.1 2", 10) == 0 ? strstr(text, "\r\n\r\n") : NULL;
	int before = atomic_load(&heads_taken);

	if (end) {
		if (!put(conn, text, (size_t)(end + 4 - text)))
			return false;
		await_taken(before);
		text = end + 4;
	}
	return put(conn, text, strlen(text));
}

static void server_main(void *arg)
{
	struct server *s = arg;
	int conn;

	while ((conn = accept(s->fd, NULL, NULL)) >= 0) {
		atomic_fetch_add(&s->conns, 1);
		s->serve(s, conn);
		close(conn);
	}
}

static int listen_any(int backlog, int *ret_port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, backlog), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	*ret_port = ntohs(a.sin_port);
	return fd;
}

/* For the stream runs: an answer with a length in chunks of three bytes, whole or as broken as it was. */
static const char *in_chunks(const char *answer)
{
	const char *length = strstr(answer, "Content-Length: "), *body = length ? strstr(length, "\r\n\r\n") : NULL;
	char *end, *text, *out;

	if (!is_stream_run || !length || !body || length[16] < '0' || length[16] > '9')
		return answer;
	size_t want = strtoul(length + 16, &end, 10), have = strlen(body += 4);

	out = text = test_malloc(strlen(answer) * 8 + 100);
	out += sprintf(out, "%.*sTransfer-Encoding: chunked%.*s", (int)(length - answer), answer, (int)(body - end), end);
	for (size_t at = 0, n; at < have && at < want; at += n) {
		n = have - at < 3 ? have - at : 3;
		n = want - at < n ? want - at : n;
		out += sprintf(out, "%zx\r\n%.*s\r\n", n, (int)n, body + at);
	}
	if (have >= want)
		out += sprintf(out, "0\r\n\r\n%s", body + want);
	return text;
}

static void server_start(struct server *s, void (*serve)(struct server *, int), const char *answer)
{
	struct err e;

	*s = (struct server){ .serve = serve, .answer = answer ? in_chunks(answer) : NULL, .given = answer };
	s->fd = listen_any(512, &s->port);
	assert_int_equal(thread_start(&s->t, THREAD_POOL, 0, server_main, s, &e), E_OK);
}

static void server_stop(struct server *s)
{
	shutdown(s->fd, SHUT_RDWR);
	thread_join(&s->t);
	close(s->fd);
	if (s->answer != s->given)
		test_free((void *)(uintptr_t)s->answer);
}

/* Answers every request of a connection with the same bytes. */
static void serve_same(struct server *s, int conn)
{
	while (read_request(s, conn) && put_str(conn, s->answer))
		;
}

static void serve_once(struct server *s, int conn)
{
	if (read_request(s, conn))
		put_str(conn, s->answer);
}

/* Sends answer and then says nothing; notes when the client closed. */
static void serve_and_hold(struct server *s, int conn)
{
	char c;

	if (read_request(s, conn))
		put_str(conn, s->answer);
	while (read(conn, &c, 1) > 0)
		;
	atomic_store(&s->closed_mono_ms, clock_mono_ms());
}

/* ---- the client ---- */

struct world {
	struct loop *l;
	struct httpc *c;
	struct loop_timer watchdog, head_timer;
	int running;                 /* stops the loop at 0 */
	bool is_in_call;             /* inside a function of httpc's */
};

struct got {
	struct world *w;
	struct httpc_xfer *x;
	int heads, dones, status;
	int64_t length;
	char type[64], retry[64];
	char body[4096];
	size_t n;                    /* all body bytes; the first of them are in body */
	uint32_t sum;
	enum errc rc;
	enum httpc_phase phase;
	struct err e;
	struct loop_timer timer;
	enum httpc_take (*on_data)(struct got *g, struct slice b); /* what a test wants beside it */
	void (*on_head)(struct got *g);
	struct got *other;
	int64_t cancel_mono_ms;
	int pauses;
};

static void on_head(void *ctx, const struct httpc_head *h)
{
	struct got *g = ctx;

	assert_false(g->w->is_in_call);
	g->heads++;
	g->status = h->status;
	g->length = h->content_length;
	assert_true(slice_copy(h->content_type, g->type, sizeof(g->type)));
	assert_true(slice_copy(h->retry_after, g->retry, sizeof(g->retry)));
	loop_timer_set(g->w->l, &g->w->head_timer, loop_now_ms(g->w->l));
	if (g->on_head)
		g->on_head(g);
}

static enum httpc_take on_data(void *ctx, struct slice b)
{
	struct got *g = ctx;

	assert_false(g->w->is_in_call);
	assert_int_equal(g->heads, 1);
	if (g->on_data && g->on_data(g, b) == HTTPC_PAUSE)
		return HTTPC_PAUSE;
	for (size_t i = 0; i < b.n; i++) {
		if (g->n < sizeof(g->body) - 1)
			g->body[g->n] = b.p[i];
		g->sum = g->sum * 31 + (unsigned char)b.p[i];
		g->n++;
	}
	return HTTPC_TAKEN;
}

static void one_less(struct world *w)
{
	if (--w->running == 0)
		loop_stop(w->l);
}

static void on_done(void *ctx, enum errc rc, enum httpc_phase phase, const struct err *e)
{
	struct got *g = ctx;

	assert_false(g->w->is_in_call);
	g->dones++;
	g->rc = rc;
	g->phase = phase;
	g->e = *e;
	httpc_cancel(g->x); /* from inside on_done: nothing happens */
	httpc_resume(g->x);
	g->x = NULL;
	one_less(g->w);
}

static const struct httpc_ops ops = { .on_head = on_head, .on_data = on_data, .on_done = on_done };

static void on_head_timer(struct loop_timer *t)
{
	(void)t;
	atomic_fetch_add(&heads_taken, 1);
}

static void on_watchdog(struct loop_timer *t)
{
	(void)t;
	fail_msg("nothing happened for 20 s");
}

static void world_open_idle(struct world *w, size_t max_idle_per_host)
{
	struct err e;

	*w = (struct world){ .watchdog.fn = on_watchdog, .head_timer.fn = on_head_timer };
	assert_int_equal(loop_new("test", &w->l, &e), E_OK);
	assert_int_equal(httpc_new(w->l, &(struct httpc_opts){ .user_agent = "test/1", .max_idle_per_host = max_idle_per_host },
			 &w->c, &e), E_OK);
	loop_timer_set(w->l, &w->watchdog, clock_mono_ms() + 20000);
}

static void world_open(struct world *w)
{
	world_open_idle(w, 0);
}

static void world_close(struct world *w)
{
	loop_timer_cancel(w->l, &w->watchdog);
	loop_timer_cancel(w->l, &w->head_timer);
	httpc_free(w->c);
	loop_free(w->l);
}

static void start(struct world *w, struct got *g, const struct httpc_req *r)
{
	struct httpc_req q = *r;
	struct err e;

	g->w = w;
	q.method = q.method ? q.method : "GET";
	q.is_stream = is_stream_run;
	q.ops = &ops;
	q.ctx = g;
	w->is_in_call = true;
	assert_int_equal(httpc_start(w->c, &q, &g->x, &e), E_OK);
	w->is_in_call = false;
	w->running++;
}

static void cancel(struct got *g)
{
	bool was = g->w->is_in_call;

	g->cancel_mono_ms = clock_mono_ms();
	g->w->is_in_call = true;
	httpc_cancel(g->x);
	g->w->is_in_call = was;
	g->x = NULL;
	one_less(g->w);
}

static void resume(struct got *g)
{
	g->w->is_in_call = true;
	httpc_resume(g->x);
	httpc_resume(g->x);
	g->w->is_in_call = false;
}

static const char *url_of(const struct server *s)
{
	static char url[64];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/x", s->port);
	return url;
}

/* One request from beginning to end in a world of its own. */
static struct got once(const struct server *s, struct httpc_req r)
{
	struct world w;
	struct got g = { .rc = E_OK };

	world_open(&w);
	r.url = r.url ? r.url : url_of(s);
	start(&w, &g, &r);
	assert_int_equal(httpc_active(w.c), 1);
	loop_run(w.l);
	assert_int_equal(g.dones, 1);
	assert_int_equal(httpc_active(w.c), 0);
	world_close(&w);
	return g;
}

/* ---- answers ---- */

static void test_plain(void **state)
{
	struct server s;

	(void)state;
	server_start(&s, serve_once, "HTTP/1.1 100 Continue\r\nContent-Type: no\r\n\r\nHTTP/1.1 429 Too Many\r\n"
		     "content-TYPE:  application/json \r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nhello");
	struct got g = once(&s, (struct httpc_req){ .method = "POST", .body = SLICE("{\"a\":1}"),
			    .headers = (const char *const[]){ "authorization: Bearer k", "X-One: 1", NULL } });

	server_stop(&s);
	assert_int_equal(g.rc, E_OK);
	assert_int_equal(g.phase, HTTPC_BODY);
	assert_int_equal(g.heads, 1);
	assert_int_equal(g.status, 429);
	assert_int_equal(g.length, is_stream_run ? -1 : 5);
	assert_string_equal(g.type, "application/json");
	assert_string_equal(g.retry, "7");
	assert_string_equal(g.body, "hello");
	/* the request as it was sent: nothing of curl's own making */
	char want[512];

	snprintf(want, sizeof(want), "POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: test/1\r\nAccept: */*\r\n"
		 "authorization: Bearer k\r\nX-One: 1\r\nContent-Length: 7\r\n\r\n{\"a\":1}", s.port);
	assert_string_equal(s.seen, want);
}

static void test_methods(void **state)
{
	static const struct {
		const char *method, *body, *first;
	} rows[] = {
		{ "POST", "abc", "POST /x " }, { "GET", "", "GET /x " }, { "POST", "", "POST /x " }, { "DELETE", "", "DELETE /x " },
		{ "HEAD", "", "HEAD /x " }, { "GET", "", "GET /x " }, { "PUT", "abc", "PUT /x " }, { "GET", "", "GET /x " },
	};
	struct server s;
	struct world w;

	(void)state;
	/* all on one handle: nothing of a request stays for the next */
	server_start(&s, serve_same, "HTTP/1.1 204 No\r\n\r\n");
	world_open(&w);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct got g = { .rc = E_OK };

		start(&w, &g, &(struct httpc_req){ .url = url_of(&s), .method = rows[i].method, .body = slice_str(rows[i].body),
		      .headers = i ? NULL : (const char *const[]){ "x-first: 1", NULL } });
		loop_run(w.l);
		assert_int_equal(g.rc, E_OK);
		assert_int_equal(g.status, 204);
		assert_int_equal(strncmp(s.seen, rows[i].first, strlen(rows[i].first)), 0);
		assert_int_equal(strstr(s.seen, "x-first") != NULL, i == 0);
		assert_string_equal(strstr(s.seen, "\r\n\r\n") + 4, rows[i].body);
	}
	world_close(&w);
	server_stop(&s);
	assert_int_equal(s.conns, 1);
}

static void test_chunked(void **state)
{
	struct server s;

	(void)state;
	server_start(&s, serve_once, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
		     "6\r\ndata: \r\n1;x=y\r\na\r\n0002\r\n\n\n\r\n0\r\nContent-Type: trailer\r\n\r\n");
	struct got g = once(&s, (struct httpc_req){ .idle_ms = 20000 });

	server_stop(&s);
	assert_int_equal(g.rc, E_OK);
	assert_int_equal(g.length, -1);
	assert_int_equal(g.heads, 1);
	assert_string_equal(g.type, "text/event-stream");
	assert_string_equal(g.body, "data: a\n\n");
}

/* Broken answers: rc and how far it came. */
static void test_broken(void **state)
{
	static const struct {
		const char *answer;
		enum errc rc;
		enum httpc_phase phase;
		const char *what;
	} rows[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", E_UPSTREAM, HTTPC_BODY, "answer cut short" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", E_UPSTREAM, HTTPC_BODY, "answer cut short" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", E_UPSTREAM, HTTPC_BODY, "answer cut short" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", E_UPSTREAM, HTTPC_BODY, NULL },
		{ "HTTP/1.1 200 OK\r\nContent-Len", E_UPSTREAM, HTTPC_FIRST_BYTE, NULL },
		{ "HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\nhello", E_UPSTREAM, HTTPC_FIRST_BYTE, NULL },
		{ "", E_UPSTREAM, HTTPC_FIRST_BYTE, "connection closed without an answer" },
		{ "hello there, this is no http at all\r\n\r\n", E_UPSTREAM, HTTPC_FIRST_BYTE, NULL },
		{ "HTTP/1.1 200 OK\r\n\r\nno length: the end is the end", E_OK, HTTPC_BODY, NULL },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and too much", E_OK, HTTPC_BODY, NULL },
		{ "HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", E_OK, HTTPC_BODY, NULL },
		{ "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", E_OK, HTTPC_BODY, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct server s;

		server_start(&s, serve_once, rows[i].answer);
		struct got g = once(&s, (struct httpc_req){ .total_ms = 10000 });

		server_stop(&s);
		if (g.rc != rows[i].rc)
			fail_msg("row %zu: %s", i, g.e.what);
		assert_int_equal(g.e.code, rows[i].rc);
		assert_int_equal(g.phase, rows[i].phase);
		assert_int_equal(s.requests, 1); /* no redirect, no second try */
		if (rows[i].what)
			assert_string_equal(g.e.what, rows[i].what);
		if (rows[i].rc)
			assert_true(g.e.what[0] != '\0');
		assert_null(strstr(g.e.what, "secret")); /* nothing that the peer sent */
	}
}

static void serve_endless_head(struct server *s, int conn)
{
	const char *begin = s->more;

	if (!read_request(s, conn) || !put_str(conn, begin))
		return;
	while (put_str(conn, s->answer))
		atomic_fetch_add(&s->sent, (int_fast64_t)strlen(s->answer));
}

static void test_endless_head(void **state)
{
	static const struct {
		const char *begin, *more;
		enum httpc_phase phase;
	} rows[] = {
		{ "HTTP/1.1 200 OK\r\n", "X-More: and more and more\r\n", HTTPC_FIRST_BYTE },
		{ "HTTP/1.1 200 OK\r\n", "and-no-end-of-line-ever", HTTPC_FIRST_BYTE },
		{ "", "HTTP/1.1 100 Continue\r\n\r\n", HTTPC_FIRST_BYTE },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-Trailer: and more and more\r\n", HTTPC_BODY },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct server s;

		server_start(&s, serve_endless_head, rows[i].more);
		s.more = (void *)(uintptr_t)rows[i].begin;
		struct got g = once(&s, (struct httpc_req){ .total_ms = 10000 });

		server_stop(&s);
		assert_int_equal(g.rc, E_UPSTREAM);
		assert_int_equal(g.phase, rows[i].phase);
		assert_int_equal(g.heads, rows[i].phase == HTTPC_BODY);
		assert_non_null(strstr(g.e.what, is_stream_run && rows[i].phase == HTTPC_BODY ? "not in chunks" : "head of the answer"));
	}
}

static void test_max_body(void **state)
{
	static const struct {
		uint64_t max;
		enum errc rc;
	} rows[] = { { 4, E_TOO_LARGE }, { 5, E_OK }, { 0, E_OK } };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct server s;

		server_start(&s, serve_once, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
		struct got g = once(&s, (struct httpc_req){ .max_body = rows[i].max });

		server_stop(&s);
		assert_int_equal(g.rc, rows[i].rc);
	}
}

/* ---- no connection, limits ---- */

static void test_refused(void **state)
{
	struct server s = { 0 };

	(void)state;
	close(listen_any(1, &s.port)); /* nobody listens there now */
	struct got g = once(&s, (struct httpc_req){ .connect_ms = 5000 });

	assert_int_equal(g.rc, E_UPSTREAM);
	assert_int_equal(g.phase, HTTPC_CONNECT);
	assert_int_equal(g.e.os_errno, ECONNREFUSED);
	assert_non_null(strstr(g.e.what, "Connection refused"));
}

static void test_proxy_is_ignored(void **state)
{
	static const char *const names[] = { "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY" };
	struct server s, proxy;

	(void)state;
	server_start(&proxy, serve_once, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen");
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		setenv(names[i], url_of(&proxy), 1);
	server_start(&s, serve_once, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
	struct got g = once(&s, (struct httpc_req){ .connect_ms = 5000 });

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		unsetenv(names[i]);
	server_stop(&s);
	server_stop(&proxy);
	assert_string_equal(g.body, "hello");
	assert_int_equal(proxy.conns, 0);
}

/* A listener whose queue is full does not answer: connecting hangs. */
static void test_connect_limit(void **state)
{
	struct server s = { 0 };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = listen_any(0, &s.port), fill[4];

	(void)state;
	a.sin_port = htons((uint16_t)s.port);
	for (size_t i = 0; i < ARRAY_LEN(fill); i++) {
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(fill[i], (struct sockaddr *)&a, sizeof(a));
	}
	struct got g = once(&s, (struct httpc_req){ .connect_ms = 60, .first_byte_ms = 5000, .total_ms = 5000 });

	assert_int_equal(g.rc, E_TIMEOUT);
	assert_int_equal(g.phase, HTTPC_CONNECT);
	assert_string_equal(g.e.what, "no connection within 60 ms");
	for (size_t i = 0; i < ARRAY_LEN(fill); i++)
		close(fill[i]);
	close(fd);
}

static void serve_for_ever(struct server *s, int conn)
{
	if (!read_request(s, conn) || !put_str(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
		return;
	while (put_str(conn, "1\r\nx\r\n"))
		;
	atomic_store(&s->closed_mono_ms, clock_mono_ms());
}

static void test_limits(void **state)
{
	static const struct {
		const char *name;
		void (*serve)(struct server *, int);
		const char *answer;
		struct httpc_req r;
		enum httpc_phase phase;
		const char *what;
	} rows[] = {
		{ "first byte", serve_and_hold, "", { .connect_ms = 20, .first_byte_ms = 60, .idle_ms = 20, .total_ms = 9000 },
		  HTTPC_FIRST_BYTE, "no answer within 60 ms" },
		{ "half a head", serve_and_hold, "HTTP/1.1 200 OK\r\n", { .first_byte_ms = 60 }, HTTPC_FIRST_BYTE, "no answer within 60 ms" },
		{ "idle", serve_and_hold, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
		  { .connect_ms = 5000, .first_byte_ms = 8000, .idle_ms = 60, .total_ms = 9000 }, HTTPC_BODY,
		  "no byte of the answer within 60 ms" },
		{ "idle after the head", serve_and_hold, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", { .idle_ms = 60 }, HTTPC_BODY,
		  "no byte of the answer within 60 ms" },
		{ "total", serve_for_ever, "", { .first_byte_ms = 5000, .idle_ms = 5000, .total_ms = 60 }, HTTPC_BODY,
		  "no end of the answer within 60 ms" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct server s;
		int64_t begin = clock_mono_ms();

		server_start(&s, rows[i].serve, rows[i].answer);
		struct got g = once(&s, rows[i].r);

		server_stop(&s);
		assert_int_equal(g.rc, E_TIMEOUT);
		assert_int_equal(g.phase, rows[i].phase);
		assert_string_equal(g.e.what, rows[i].what);
		assert_in_range(clock_mono_ms() - begin, 55, 4000);
		assert_true(s.closed_mono_ms != 0);
	}
}

/* Bytes that come in time move the idle limit: twice as long as it, in steps of the client's own. */
static void serve_on_word(struct server *s, int conn)
{
	int *step = s->more; /* a pipe that the client writes to when it wants the next byte */
	char c;

	if (!read_request(s, conn) || !put_str(conn, s->answer))
		return;
	for (int i = 0; i < 9; i++) {
		if (read(step[0], &c, 1) != 1 || !put_str(conn, is_stream_run ? "1\r\nx\r\n" : "x"))
			return;
	}
	if (is_stream_run)
		put_str(conn, "0\r\n\r\n");
}

struct stepper {
	struct loop_timer t;
	struct world *w;
	int fd;
};

static void on_step(struct loop_timer *t)
{
	struct stepper *p = CONTAINER_OF(t, struct stepper, t);

	assert_int_equal(write(p->fd, "x", 1), 1);
	loop_timer_set(p->w->l, t, loop_now_ms(p->w->l) + 50);
}

static void test_idle_is_moved(void **state)
{
	int step[2];
	struct server s;
	struct world w;
	struct got g = { .rc = E_OK };

	(void)state;
	assert_int_equal(pipe(step), 0);
	server_start(&s, serve_on_word, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
	s.more = step;
	world_open(&w);
	struct stepper p = { .t.fn = on_step, .w = &w, .fd = step[1] };

	start(&w, &g, &(struct httpc_req){ .url = url_of(&s), .idle_ms = 250 });
	loop_timer_set(w.l, &p.t, 0);
	loop_run(w.l);
	loop_timer_cancel(w.l, &p.t);
	assert_int_equal(g.rc, E_OK);
	assert_int_equal(g.n, 9);
	world_close(&w);
	close(step[1]);
	server_stop(&s);
	close(step[0]);
}

/* ---- pause, resume ---- */

enum { BIG = 24 << 20 };

static void serve_big(struct server *s, int conn)
{
	static char block[65536];
	size_t sent = 0;

	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (char)(i * 7 + (i >> 8));
	if (!read_request(s, conn) || !put_str(conn, s->answer))
		return;
	for (; sent < BIG; sent += sizeof(block)) {
		if ((is_stream_run && !put_str(conn, "10000\r\n")) || !put(conn, block, sizeof(block)) ||
		    (is_stream_run && !put_str(conn, "\r\n")))
			return;
		atomic_store(&s->sent, (int_fast64_t)(sent + sizeof(block)));
	}
	if (is_stream_run)
		put_str(conn, "0\r\n\r\n");
}

static enum httpc_take pause_now_and_then(struct got *g, struct slice b)
{
	(void)b;
	/* The first pause is long, longer than the idle limit; later ones end at once. */
	if (g->pauses == 0 || (g->pauses < 400 && g->n > (size_t)g->pauses * 8192)) {
		g->pauses++;
		loop_timer_set(g->w->l, &g->timer, loop_now_ms(g->w->l) + (g->pauses == 1 ? 300 : 0));
		return HTTPC_PAUSE;
	}
	return HTTPC_TAKEN;
}

static void on_resume_timer(struct loop_timer *t)
{
	struct got *g = CONTAINER_OF(t, struct got, timer);
	struct server *s = (struct server *)(void *)g->other;

	if (g->pauses == 1)
		assert_true(atomic_load(&s->sent) < BIG); /* the server had to wait */
	resume(g);
}

static void test_pause(void **state)
{
	struct server s;
	struct world w;
	struct got g = { .on_data = pause_now_and_then, .timer.fn = on_resume_timer };
	char head[64];
	uint32_t sum = 0;

	(void)state;
	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BIG);
	server_start(&s, serve_big, head);
	g.other = (struct got *)(void *)&s;
	world_open(&w);
	start(&w, &g, &(struct httpc_req){ .url = url_of(&s), .idle_ms = 200, .max_body = BIG });
	loop_run(w.l);
	assert_int_equal(g.rc, E_OK);
	assert_int_equal(g.n, BIG);
	assert_int_equal(g.pauses, 400);
	for (size_t i = 0; i < BIG; i++)
		sum = sum * 31 + (unsigned char)(char)((i & 65535) * 7 + ((i & 65535) >> 8));
	assert_int_equal(g.sum, sum); /* every byte, in order */
	world_close(&w);
	server_stop(&s);
}

/* Paused at the last byte of a chunked answer: the end waits for the resume. And a resume asked for inside on_data. */
static enum httpc_take pause_each_once(struct got *g, struct slice b)
{
	(void)b;
	if (++g->pauses % 2) {
		httpc_resume(g->x);
		return HTTPC_PAUSE;
	}
	return HTTPC_TAKEN;
}

static void test_pause_at_end(void **state)
{
	struct server s;
	struct world w;
	struct got g = { .on_data = pause_each_once };

	(void)state;
	server_start(&s, serve_once, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n");
	world_open(&w);
	start(&w, &g, &(struct httpc_req){ .url = url_of(&s) });
	loop_run(w.l);
	assert_int_equal(g.rc, E_OK);
	assert_string_equal(g.body, "abcd");
	assert_true(g.pauses >= 2);
	world_close(&w);
	server_stop(&s);
}

/* What was held back is delivered in one piece, and that passes the limit, inside the resume. */
static void test_too_much_at_resume(void **state)
{
	struct server s;
	struct world w;
	struct got g = { .on_data = pause_each_once };

	(void)state;
	server_start(&s, serve_and_hold, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n");
	world_open(&w);
	start(&w, &g, &(struct httpc_req){ .url = url_of(&s), .max_body = 3, .total_ms = 5000 });
	loop_run(w.l);
	assert_int_equal(g.rc, E_TOO_LARGE);
	world_close(&w);
	server_stop(&s);
}

/* ---- cancel ---- */

static void on_cancel_timer(struct loop_timer *t)
{
	cancel(CONTAINER_OF(t, struct got, timer));
}

static void cancel_in_head(struct got *g)
{
	cancel(g);
}

static enum httpc_take cancel_in_data(struct got *g, struct slice b)
{
	(void)b;
	if (g->other && g->other->x)
		cancel(g->other);
	cancel(g);
	return HTTPC_TAKEN;
}

static enum httpc_take cancel_and_pause(struct got *g, struct slice b)
{
	(void)b;
	cancel(g);
	return HTTPC_PAUSE;
}

static enum httpc_take pause_then_cancel(struct got *g, struct slice b)
{
	(void)b;
	if (g->pauses++ == 0) {
		loop_timer_set(g->w->l, &g->timer, loop_now_ms(g->w->l));
		return HTTPC_PAUSE;
	}
	cancel(g);
	return HTTPC_TAKEN;
}

static enum httpc_take pause_only(struct got *g, struct slice b)
{
	(void)b;
	loop_timer_set(g->w->l, &g->timer, loop_now_ms(g->w->l)); /* the cancel comes first */
	resume(g);
	return HTTPC_PAUSE;
}

static void on_just_resume(struct loop_timer *t)
{
	resume(CONTAINER_OF(t, struct got, timer));
}

static bool count_round(void *arg)
{
	++*(int *)arg;
	return false;
}

static int64_t no_timeout(void *arg)
{
	(void)arg;
	return -1;
}

static void on_stop_timer(struct loop_timer *t)
{
	struct got *g = CONTAINER_OF(t, struct got, timer);

	loop_stop(g->w->l);
}

/* A client with nothing to do does nothing: no list holds on to what is gone. */
static void assert_quiet(struct world *w)
{
	struct got g = { .w = w, .timer.fn = on_stop_timer };
	int rounds = 0;
	struct err e;

	assert_int_equal(loop_source_add(w->l, (struct loop_source){ .name = "count", .run = count_round, .timeout_ms = no_timeout,
			 .arg = &rounds }, &e), E_OK);
	loop_timer_set(w->l, &g.timer, clock_mono_ms() + 20);
	loop_run(w->l);
	assert_in_range(rounds, 1, 50);
}

/* In every phase: no callback afterwards, and the server sees the connection closed at once. */
static void test_cancel(void **state)
{
	static const char some[] = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello";
	static const struct {
		const char *name, *answer;
		int64_t timer_ms;            /* cancel then; -1: by a hook */
		void (*on_head)(struct got *);
		enum httpc_take (*on_data)(struct got *, struct slice);
		void (*on_timer)(struct loop_timer *);
	} rows[] = {
		{ "no answer yet", "", 30, NULL, NULL, on_cancel_timer },
		{ "in mid-answer", some, 30, NULL, NULL, on_cancel_timer },
		{ "inside on_head", some, -1, cancel_in_head, NULL, NULL },
		{ "inside on_data", some, -1, NULL, cancel_in_data, NULL },
		{ "inside on_data, which pauses", some, -1, NULL, cancel_and_pause, NULL },
		{ "inside on_data after a resume", some, -1, NULL, pause_then_cancel, on_just_resume },
		{ "while paused, resume asked", some, -1, NULL, pause_only, on_cancel_timer },
		{ "at the end of a whole answer", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", -1, NULL, cancel_in_data, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct server s;
		struct world w;
		struct got g = { .on_head = rows[i].on_head, .on_data = rows[i].on_data, .timer.fn = rows[i].on_timer };

		if (is_stream_run && !is_split_run && i == ARRAY_LEN(rows) - 1)
			break;               /* curl has seen the end of it, and keeps the connection for the next */
		server_start(&s, serve_and_hold, rows[i].answer);
		world_open(&w);
		start(&w, &g, &(struct httpc_req){ .url = url_of(&s), .idle_ms = 10000 });
		if (rows[i].timer_ms >= 0)
			loop_timer_set(w.l, &g.timer, clock_mono_ms() + rows[i].timer_ms);
		loop_run(w.l);
		assert_int_equal(g.dones, 0);
		assert_int_equal(httpc_active(w.c), 0);
		server_stop(&s); /* ends only when the connection was closed: the client still lives */
		assert_int_equal(s.requests, 1);
		assert_in_range(s.closed_mono_ms - g.cancel_mono_ms, 0, 100);
		loop_timer_cancel(w.l, &g.timer);
		assert_quiet(&w);
		world_close(&w);
	}
}

/* Cancelled before curl has it, and with all at once from inside another's callback. */
static void test_cancel_many(void **state)
{
	struct server s;
	struct world w;
	struct got g[3] = { { .on_data = cancel_in_data, .other = &g[1] }, { .rc = E_OK }, { .rc = E_OK } };

	(void)state;
	server_start(&s, serve_and_hold, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
	world_open(&w);
	start(&w, &g[2], &(struct httpc_req){ .url = url_of(&s) });
	cancel(&g[2]); /* running is 0 for a moment: the loop ends at once */
	loop_run(w.l);
	assert_int_equal(s.conns, 0);
	start(&w, &g[0], &(struct httpc_req){ .url = url_of(&s) });
	start(&w, &g[1], &(struct httpc_req){ .url = url_of(&s) });
	loop_run(w.l);
	for (int i = 0; i < 3; i++)
		assert_int_equal(g[i].dones, 0);
	assert_int_equal(httpc_active(w.c), 0);
	/* free with some waiting and some running */
	start(&w, &g[1], &(struct httpc_req){ .url = url_of(&s) });
	world_close(&w);
	server_stop(&s);
}

/* ---- many ---- */

enum { STREAMS = 200, ROUNDS = 5 };

/* Accepts all streams before it answers any, then gives each one chunk a round. */
static void serve_all(struct server *s, int conn)
{
	int fds[STREAMS] = { conn };

	for (int i = 1; i < STREAMS; i++)
		fds[i] = accept(s->fd, NULL, NULL);
	for (int i = 0; i < STREAMS; i++) {
		if (fds[i] < 0 || !read_request(s, fds[i]) || !put_str(fds[i], "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
			break;
	}
	for (int r = 0; r < ROUNDS; r++) {
		for (int i = 0; i < STREAMS; i++)
			put_str(fds[i], "9\r\ndata: 1\n\n\r\n");
	}
	for (int i = 0; i < STREAMS; i++)
		put_str(fds[i], "0\r\n\r\n");
	for (int i = 1; i < STREAMS; i++)
		close(fds[i]);
}

static void test_parallel(void **state)
{
	static struct got g[STREAMS];
	struct server s;
	struct world w;

	(void)state;
	server_start(&s, serve_all, NULL);
	world_open(&w);
	for (int i = 0; i < STREAMS; i++) {
		g[i] = (struct got){ .rc = E_OK };
		start(&w, &g[i], &(struct httpc_req){ .url = url_of(&s), .connect_ms = 20000, .idle_ms = 20000 });
	}
	assert_int_equal(httpc_active(w.c), STREAMS);
	loop_run(w.l);
	for (int i = 0; i < STREAMS; i++) {
		assert_int_equal(g[i].dones, 1);
		assert_int_equal(g[i].rc, E_OK);
		assert_int_equal(g[i].n, 9 * ROUNDS);
	}
	httpc_trim(w.c);
	httpc_trim(w.c);
	struct got again = { .rc = E_OK };

	start(&w, &again, &(struct httpc_req){ .url = "http://127.0.0.1:1/" });
	loop_run(w.l);
	assert_int_equal(again.dones, 1);
	world_close(&w);
	server_stop(&s);
}

/* Names under .localhost need no name server, but go the way of names: 40 through the 8 places. */
static void test_names(void **state)
{
	enum { N = 40 };
	static struct got g[N];
	struct server s;
	struct world w;
	char url[64];

	(void)state;
	server_start(&s, serve_once, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
	world_open(&w);
	snprintf(url, sizeof(url), "http://runner.localhost:%d/", s.port);
	for (int i = 0; i < N; i++) {
		g[i] = (struct got){ .rc = E_OK };
		start(&w, &g[i], &(struct httpc_req){ .url = url, .total_ms = 15000 });
	}
	/* some leave while their look-up runs or waits: their places come back */
	for (int i = 0; i < N; i += 3)
		cancel(&g[i]);
	loop_run(w.l);
	for (int i = 0; i < N; i++) {
		assert_int_equal(g[i].dones, i % 3 != 0);
		if (i % 3)
			assert_string_equal(g[i].body, "hello");
	}
	world_close(&w);
	server_stop(&s);
}

/* A name with an empty label is refused by every resolver without asking anybody. Its place comes back at once. */
static void test_bad_names(void **state)
{
	enum { N = 30 };
	static struct got g[N];
	struct world w;
	int64_t begin = clock_mono_ms();

	(void)state;
	world_open(&w);
	for (int i = 0; i < N; i++) {
		g[i] = (struct got){ .rc = E_OK };
		start(&w, &g[i], &(struct httpc_req){ .url = "http://no..name:1/", .total_ms = 15000 });
	}
	loop_run(w.l);
	for (int i = 0; i < N; i++) {
		assert_int_equal(g[i].rc, E_UPSTREAM);
		assert_int_equal(g[i].phase, HTTPC_CONNECT);
	}
	assert_true(clock_mono_ms() - begin < 4000);
	world_close(&w);
}

/* ---- kept connections ---- */

static struct got again(struct world *w, const struct server *s, struct httpc_req r)
{
	struct got g = { .rc = E_OK };

	r.url = url_of(s);
	start(w, &g, &r);
	loop_run(w->l);
	assert_int_equal(g.dones, 1);
	return g;
}

static void test_reuse(void **state)
{
	struct server s;
	struct world w;

	(void)state;
	server_start(&s, serve_same, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
	world_open(&w);
	for (int i = 0; i < 5; i++)
		assert_string_equal(again(&w, &s, (struct httpc_req){ .idle_ms = 5000 }).body, "hello");
	assert_int_equal(s.conns, 1);
	assert_int_equal(s.requests, 5);
	world_close(&w);
	server_stop(&s);
}

/* A fresh one neither uses a kept connection nor leaves one: the server, which serves one connection at a time, sees
 * each end before it can take the next. */
static void test_fresh(void **state)
{
	struct server s;
	struct world w;

	(void)state;
	server_start(&s, serve_same, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
	world_open(&w);
	for (int i = 0; i < 3; i++)
		assert_string_equal(again(&w, &s, (struct httpc_req){ .is_fresh = true, .total_ms = 5000 }).body, "hello");
	assert_int_equal(s.conns, 3);
	world_close(&w);
	server_stop(&s);
}

/* Three at a time, one connection may stay: the server sees two closed, and the third serves the next request. */
static void serve_three(struct server *s, int conn)
{
	struct pollfd fds[3] = { { .fd = conn, .events = POLLIN } };
	char c;

	for (int i = 1; i < 3; i++) {
		fds[i] = (struct pollfd){ .fd = accept(s->fd, NULL, NULL), .events = POLLIN };
		atomic_fetch_add(&s->conns, 1);
	}
	for (int i = 0; i < 3; i++)
		read_request(s, fds[i].fd);
	for (int i = 0; i < 3; i++)
		put_str(fds[i].fd, s->answer);
	for (int open = 3; open && poll(fds, 3, -1) > 0;) {
		for (int i = 0; i < 3; i++) {
			if (fds[i].fd < 0 || !fds[i].revents)
				continue;
			if (recv(fds[i].fd, &c, 1, MSG_PEEK) == 1) {
				read_request(s, fds[i].fd);
				put_str(fds[i].fd, s->answer);
				continue;
			}
			if (fds[i].fd != conn)
				close(fds[i].fd);
			fds[i].fd = -1;
			open--;
			atomic_fetch_add(&s->fresh_closed, 1);
		}
	}
}

static void test_max_idle(void **state)
{
	struct server s;
	struct world w;
	struct got g[3] = { { .rc = E_OK } };

	(void)state;
	server_start(&s, serve_three, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
	world_open_idle(&w, 1);
	for (int i = 0; i < 3; i++)
		start(&w, &g[i], &(struct httpc_req){ .url = url_of(&s), .total_ms = 5000 });
	loop_run(w.l);
	for (int round = 0; round < 3; round++)
		assert_string_equal(again(&w, &s, (struct httpc_req){ .total_ms = 5000 }).body, "hello");
	int64_t limit = clock_mono_ms() + 5000;

	while (atomic_load(&s.fresh_closed) < 2)
		assert_true(clock_mono_ms() < limit);
	assert_int_equal(s.fresh_closed, 2);
	assert_int_equal(s.requests, 6);
	assert_int_equal(s.conns, 3);
	world_close(&w);
	server_stop(&s);
}

/* A kept connection that the server has closed, before the next request and while it is on its way. */
static void serve_then_leave(struct server *s, int conn)
{
	if (!read_request(s, conn) || !put_str(conn, s->answer))
		return;
	if (s->more && atomic_load(&s->conns) == 1)
		read_request(s, conn); /* takes the second request and closes without a word */
}

static void test_closed_before_reuse(void **state)
{
	(void)state;
	for (int takes_second = 0; takes_second < 2; takes_second++) {
		struct server s;
		struct world w;

		server_start(&s, serve_then_leave, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
		s.more = takes_second ? &s : NULL;
		world_open(&w);
		assert_string_equal(again(&w, &s, (struct httpc_req){ .method = "POST", .body = SLICE("one") }).body, "hello");
		struct got g = again(&w, &s, (struct httpc_req){ .method = "POST", .body = SLICE("two") });

		assert_int_equal(g.rc, E_OK);
		assert_string_equal(g.body, "hello");
		assert_int_equal(s.conns, 2);
		world_close(&w);
		server_stop(&s);
		assert_non_null(strstr(s.seen, "\r\n\r\ntwo"));
	}
}

/* The same, and nobody listens any more. */
static void test_gone_before_reuse(void **state)
{
	struct server s;
	struct world w;

	(void)state;
	server_start(&s, serve_then_leave, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
	world_open(&w);
	again(&w, &s, (struct httpc_req){ .idle_ms = 5000 });
	server_stop(&s);
	struct got g = again(&w, &s, (struct httpc_req){ .idle_ms = 5000 });

	assert_int_equal(g.rc, E_UPSTREAM);
	assert_int_equal(g.phase, HTTPC_CONNECT);
	world_close(&w);
}

/* ---- a second stream on the connection of the first ---- */

enum { AGAIN_BODY = 8 << 20 };
static const char first_head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/* The first request gets a stream that ends well after its head, the second s->answer; s->more: byte by byte. */
static void serve_twice(struct server *s, int conn)
{
	int before = atomic_load(&heads_taken);

	if (!read_request(s, conn) || !put(conn, first_head, strlen(first_head)))
		return;
	await_taken(before);
	if (!put_str(conn, "5\r\nfirst\r\n0\r\n\r\n") || !read_request(s, conn))
		return;
	if (!s->more) {
		put(conn, s->answer, strlen(s->answer));
		return;
	}
	for (const char *p = s->answer; *p && put(conn, p, 1); p++)
		;
}

static void test_again(void **state)
{
	static const struct {
		const char *answer;
		enum errc rc;
		enum httpc_phase phase;
		int status, conns;
		const char *body, *what;
	} rows[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", E_OK, HTTPC_BODY, 200, 1, "hello", "" },
		{ "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding:  Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		  E_OK, HTTPC_BODY, 200, 1, "hello", "" },
		{ "HTTP/1.1 200\nTransfer-Encoding: chunked\nContent-Length: 7\n\n5\nhello\n0\n\n", E_OK, HTTPC_BODY, 200, 1, "hello", "" },
		{ "HTTP/1.0 200 OK\r\n\r\nhello", E_OK, HTTPC_BODY, 200, 1, "hello", "" },
		{ "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", E_OK, HTTPC_BODY, 204, 1, "", "" },
		{ "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{} and more", E_OK, HTTPC_BODY, 404, 1, "{}", "" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", E_UPSTREAM, HTTPC_BODY, 200, 1, "hello", "answer cut short" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", E_UPSTREAM, HTTPC_BODY, 200, 1, "he", "answer cut short" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", E_UPSTREAM, HTTPC_FIRST_BYTE, 0, 1, "", "head of the answer: not HTTP/1" },
		{ "HTTP/1.1 101 Switching Protocols\r\n\r\n", E_UPSTREAM, HTTPC_FIRST_BYTE, 0, 1, "", "head of the answer: not HTTP/1" },
		{ "HTTP/2 200\r\n\r\n", E_UPSTREAM, HTTPC_FIRST_BYTE, 0, 1, "", "head of the answer: not HTTP/1" },
		{ "secret\r\n\r\n", E_UPSTREAM, HTTPC_FIRST_BYTE, 0, 1, "", "head of the answer: not HTTP/1" },
		{ "HTTP/1.1 200 OK\r\nContent-Len", E_UPSTREAM, HTTPC_FIRST_BYTE, 0, 1, "",
		  "connection closed within the head of the answer" },
		{ "", E_OK, HTTPC_BODY, 200, 2, "first", "" },     /* nothing came: once more, on a new connection */
	};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
		size_t row = i % ARRAY_LEN(rows);
		struct httpc_req r = { .method = "POST", .body = SLICE("{}"), .total_ms = 5000,
			.headers = (const char *const[]){ "authorization: Bearer k", "content-type: a/b", "x-none:", NULL } };
		char first[sizeof(((struct server *)0)->seen)];
		struct server s;
		struct world w;

		if (!is_stream_run)
			return;
		server_start(&s, serve_twice, "");
		s.answer = s.given = rows[row].answer;
		s.more = i < ARRAY_LEN(rows) ? NULL : &s;
		world_open(&w);
		assert_string_equal(again(&w, &s, r).body, "first");
		memcpy(first, s.seen, sizeof(first));
		struct got g = again(&w, &s, r);

		world_close(&w);
		server_stop(&s);
		if (g.rc != rows[row].rc || s.conns != rows[row].conns)
			fail_msg("row %zu: rc %d, %d connections: %s", i, (int)g.rc, (int)s.conns, g.e.what);
		assert_int_equal(g.phase, rows[row].phase);
		assert_int_equal(g.status, rows[row].status);
		assert_string_equal(g.body, rows[row].body);
		assert_string_equal(g.rc ? g.e.what : "", rows[row].what);
		assert_string_equal(first, s.seen);        /* ours has the bytes that curl sent */
	}
}

/* Reads a body that does not fit into what the server sees of a request, slowly; answers with its sum. */
static void serve_sum(struct server *s, int conn)
{
	static char block[65536];
	bool has_head = false;
	uint32_t sum = 0;
	size_t n = 0;
	char text[200];

	int before = atomic_load(&heads_taken);

	if (!read_request(s, conn) || !put(conn, first_head, strlen(first_head)))
		return;
	await_taken(before);
	put_str(conn, "5\r\nfirst\r\n0\r\n\r\n");
	while (n < AGAIN_BODY) {
		ssize_t got = read(conn, block, sizeof(block));

		if (got <= 0)
			return;
		char *body = has_head ? block : memmem(block, (size_t)got, "\r\n\r\n", 4);
		size_t skip = has_head ? 0 : body ? (size_t)(body + 4 - block) : (size_t)got;

		has_head |= body != NULL;

		for (size_t i = skip; i < (size_t)got; i++)
			sum = sum * 31 + (unsigned char)block[i];
		n += (size_t)got - skip;
	}
	snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08x", sum);
	put(conn, text, strlen(text));
}

static void test_again_big(void **state)
{
	char *body = test_malloc(AGAIN_BODY), want[16];
	uint32_t sum = 0;
	struct server s;
	struct world w;

	(void)state;
	for (size_t i = 0; i < AGAIN_BODY; i++) {
		body[i] = (char)(i * 7 + (i >> 9));
		sum = sum * 31 + (unsigned char)body[i];
	}
	snprintf(want, sizeof(want), "%08x", sum);
	server_start(&s, serve_sum, NULL);
	world_open(&w);
	assert_string_equal(again(&w, &s, (struct httpc_req){ .method = "POST", .body = SLICE("{}"), .total_ms = 5000 }).body, "first");
	assert_string_equal(again(&w, &s, (struct httpc_req){ .method = "POST", .body = slice_of(body, AGAIN_BODY), .total_ms = 20000 }).body,
			    want);
	world_close(&w);
	server_stop(&s);
	assert_int_equal(s.conns, 1);
	test_free(body);
}

/* ---- what is refused at once; URLs ---- */

static void test_bad_requests(void **state)
{
	const struct {
		struct httpc_req r;
		enum errc rc;
	} rows[] = {
		{ { .url = "ftp://127.0.0.1/", .method = "GET" }, E_INVALID_VALUE },
		{ { .url = "http://u:p@127.0.0.1/", .method = "GET" }, E_INVALID_VALUE },
		{ { .url = "http://127.0.0.1/", .method = "GET /x" }, E_INVALID_VALUE },
		{ { .url = "http://127.0.0.1/", .method = "" }, E_INVALID_VALUE },
		{ { .url = "http://127.0.0.1/", .method = "GET", .headers = (const char *const[]){ "a: b\r\nc: d", NULL } }, E_INVALID_VALUE },
		{ { .url = "http://127.0.0.1/", .method = "GET", .headers = (const char *const[]){ "no colon", NULL } }, E_INVALID_VALUE },
	};
	struct world w;

	(void)state;
	world_open(&w);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct httpc_req r = rows[i].r;
		struct httpc_xfer *x = NULL;
		struct err e;

		r.ops = &ops;
		assert_int_equal(httpc_start(w.c, &r, &x, &e), rows[i].rc);
		assert_null(x);
		assert_int_equal(httpc_active(w.c), 0);
	}
	world_close(&w);
}

static void test_url_check(void **state)
{
	static const struct {
		const char *url;
		bool is_good, is_loopback;
	} rows[] = {
		{ "http://127.0.0.1:8080/v1", true, true },
		{ "HTTPS://127.9.9.9", true, true },
		{ "http://LocalHost:1/", true, true },
		{ "http://[::1]:8080/x?y", true, true },
		{ "http://[0:0:0:0:0:0:0:1]", true, true },
		{ "http://example.com", true, false },
		{ "https://example.com:443?q=1", true, false },
		{ "http://localhost.example.com/", true, false },
		{ "http://127.0.0.1.example.com/", true, false },
		{ "http://3dbox/", true, false },
		{ "http://10.0.0.1", true, false },
		{ "http://[fe80::1]/", true, false },
		{ "http://[::ffff:127.0.0.1]/", true, false },
		{ "", false, false },
		{ "http://", false, false },
		{ "http:///x", false, false },
		{ "127.0.0.1:8080", false, false },
		{ "file:///etc/passwd", false, false },
		{ "gopher://127.0.0.1/", false, false },
		{ "http://user@example.com/", false, false },
		{ "http://user:pw@example.com/", false, false },
		{ "http://example.com\\@127.0.0.1/", false, false },
		{ "http://exa mple.com/", false, false },
		{ "http://example.com/\r\nx: y", false, false },
		{ "http://example.com/#frag", false, false },
		{ "http://example.com:0/", false, false },
		{ "http://example.com:65536/", false, false },
		{ "http://example.com:/", false, false },
		{ "http://example.com:80x/", false, false },
		{ "http://[::1", false, false },
		{ "http://[nonsense]/", false, false },
		{ "http://[::1]x/", false, false },
		{ "http://127.1/", false, false },
		{ "http://2130706433/", false, false },
		{ "http://0x7f.0.0.1/", false, false },
		{ "http://0177.0.0.1/", false, false },
		{ "http://127.0.0.1./", false, false },
		{ "http://ex\xc3\xa4mple.com/", false, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bool is_loopback = false;

		if (httpc_url_check(slice_str(rows[i].url), &is_loopback) != rows[i].is_good || is_loopback != rows[i].is_loopback)
			fail_msg("%s", rows[i].url);
	}
	assert_true(httpc_url_check(SLICE("http://a/"), NULL));
	httpc_free(NULL);
}

/* ---- no memory ---- */

static void serve_short(struct server *s, int conn)
{
	if (read_request(s, conn))
		put_str(conn, s->answer);
}

/* Every allocation fails once: a clean error or an answer, nothing is left, and the next request is served. */
static void test_no_memory(void **state)
{
	struct server s;
	int good = 0;

	(void)state;
	server_start(&s, serve_short, "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello");
	for (uint64_t n = 1; n < 2000 && good < 3; n++) {
		struct world w;
		struct got g = { .w = &w };
		struct httpc_req r = { .method = "POST", .url = url_of(&s), .body = SLICE("x"), .total_ms = 2000, .ops = &ops, .ctx = &g,
			.is_stream = is_stream_run,
			.headers = (const char *const[]){ "a: b", NULL } };
		struct err e;

		world_open(&w);
		mem_test_fail_at(n, 0);
		if (httpc_start(w.c, &r, &g.x, &e) == E_OK) {
			w.running = 1;
			loop_run(w.l);
			assert_int_equal(g.dones, 1);
			if (g.rc != E_OK && g.rc != E_NO_MEMORY && g.rc != E_UPSTREAM)
				fail_msg("allocation %llu: %s", (unsigned long long)n, g.e.what);
		} else {
			assert_int_equal(e.code, E_NO_MEMORY);
		}
		good = mem_test_count() < n ? good + 1 : 0; /* the nth was never reached */
		mem_test_fail_at(0, 0);
		assert_string_equal(again(&w, &s, (struct httpc_req){ .total_ms = 2000 }).body, "hello");
		world_close(&w);
	}
	assert_int_equal(good, 3);
	server_stop(&s);
}

static int group_open(void **state)
{
	struct err e;

	(void)state;
	return (int)httpc_global_init(&e);
}

static int group_close(void **state)
{
	(void)state;
	httpc_global_done();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_methods),
		cmocka_unit_test(test_chunked),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_endless_head),
		cmocka_unit_test(test_max_body),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_proxy_is_ignored),
		cmocka_unit_test(test_connect_limit),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_idle_is_moved),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_pause_at_end),
		cmocka_unit_test(test_too_much_at_resume),
		cmocka_unit_test(test_bad_names),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_cancel_many),
		cmocka_unit_test(test_parallel),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_reuse),
		cmocka_unit_test(test_fresh),
		cmocka_unit_test(test_max_idle),
		cmocka_unit_test(test_closed_before_reuse),
		cmocka_unit_test(test_gone_before_reuse),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_again_big),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_url_check),
		cmocka_unit_test(test_no_memory),
	};

	int failed = cmocka_run_group_tests(tests, group_open, group_close);

	is_stream_run = true;
	failed += cmocka_run_group_tests_name("the same as streams", tests, group_open, group_close);
	is_split_run = true;
	return failed + cmocka_run_group_tests_name("the same, head first", tests, group_open, group_close);
}
