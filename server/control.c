/*
 * The control socket's server side: connections, lines in, lines out. Runs on the supervisor's loop; made and ended by
 * main while that does not run. What the requests do is in control_ops.c.
 */
#include "server/control_priv.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void conn_close(struct control_conn *k)
{
	if (k->fd < 0)
		return;
	loop_watch_del(k->c->loop, k->watch);
	loop_timer_cancel(k->c->loop, &k->limit);
	(void)close(k->fd);
	k->fd = -1;
	k->watch = 0;
	k->has_ended = false;
	buf_done(&k->in);
	/* Answers may hold a new key. */
	if (k->out.n)
		mem_wipe(k->out.p, k->out.n);
	buf_done(&k->out);
	if (k->pending)
		k->pending->owner = NULL; /* it goes on; nobody is told */
	k->pending = NULL;
	if (k->beat)
		k->beat->owner = NULL;
	k->beat = NULL;
}

static bool is_waiting(const struct control_conn *k)
{
	return k->pending || k->beat;
}

static void on_limit(struct loop_timer *t)
{
	conn_close(CONTAINER_OF(t, struct control_conn, limit));
}

/* Send what is there; false when the connection was closed. */
static bool conn_flush(struct control_conn *k)
{
	while (k->out.n) {
		ssize_t n = send(k->fd, k->out.p, k->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			conn_close(k);
			return false;
		}
		mem_wipe(k->out.p, (size_t)n);
		buf_consume(&k->out, (size_t)n);
	}
	if (k->has_ended && !k->out.n && !is_waiting(k)) {
		conn_close(k);
		return false;
	}
	uint32_t events = (k->has_ended || is_waiting(k) ? 0u : EPOLLIN) | (k->out.n ? EPOLLOUT : 0u);

	if (loop_watch_mod(k->c->loop, k->watch, events, NULL) != E_OK) {
		conn_close(k);
		return false;
	}
	loop_timer_set(k->c->loop, &k->limit, loop_now_ms(k->c->loop) + CONTROL_IDLE_MS);
	return true;
}

static void error_json(struct jw *w, const struct err *error)
{
	jw_obj(w, NULL);
	jw_bool(w, "ok", false);
	jw_obj(w, "error");
	jw_str(w, "code", err_name(error->code));
	jw_str(w, "message", error->what);
	jw_end(w);
	jw_end(w);
}

/* Append one answer line: members if rc is E_OK, else the error. */
static enum errc put_line(struct control_conn *k, struct slice members, const struct err *error, struct err *e)
{
	struct jw w = JW(&k->out);
	enum errc rc;

	if (error) {
		error_json(&w, error);
		rc = jw_done(&w, e);
		return rc ? rc : buf_add_str(&k->out, "\n", e);
	}
	rc = buf_add_slice(&k->out, members, e);
	return rc ? rc : buf_add_str(&k->out, "\n", e);
}

static void run_lines(struct control_conn *k);

void control_answer(struct control_conn *k, const struct key_op *op, const struct err *error)
{
	AUTO_BUF text = BUF_MAX(CONTROL_ANSWER_MAX);
	struct jw w = JW(&text);
	struct err e = { 0 };

	k->pending = NULL;
	jw_obj(&w, NULL);
	jw_bool(&w, "ok", true);
	key_op_answer(op, &w);
	jw_end(&w);
	if (!error && jw_done(&w, &e) != E_OK)
		error = &e;
	if (put_line(k, buf_slice(&text), error, NULL) == E_OK)
		run_lines(k);
	else
		k->has_ended = true;
	conn_flush(k);
	if (text.n)
		mem_wipe(text.p, text.n);
}

void control_answer_text(struct control_conn *k, struct slice text, const struct err *error)
{
	k->beat = NULL;
	if (put_line(k, text, error, NULL) == E_OK)
		run_lines(k);
	else
		k->has_ended = true;
	conn_flush(k);
}

/* Run one line; its answer is appended, or follows later. */
static void run_line(struct control_conn *k, struct slice line)
{
	const struct json_limits limits = { .max_bytes = CONTROL_LINE_MAX, .max_depth = 8 };
	AUTO_BUF text = BUF_MAX(CONTROL_ANSWER_MAX);
	AUTO_JSON request = NULL;
	struct jw w = JW(&text);
	struct err e = { 0 };
	bool is_later = false;
	enum errc rc = json_parse(line, limits, &request, &e);

	if (rc == E_OK) {
		jw_obj(&w, NULL);
		jw_bool(&w, "ok", true);
		rc = control_request(k, request, &w, &is_later, &e);
		jw_end(&w);
	}
	if (is_later)
		return;
	if (rc == E_OK)
		rc = jw_done(&w, &e);
	if (put_line(k, buf_slice(&text), rc ? &e : NULL, NULL) != E_OK)
		k->has_ended = true;
}

static void run_lines(struct control_conn *k)
{
	while (!is_waiting(k)) {
		ptrdiff_t end = slice_find_char(buf_slice(&k->in), '\n');

		if (end < 0)
			break;
		struct slice line = slice_trim(slice_cut(buf_slice(&k->in), (size_t)end));

		if (line.n)
			run_line(k, line);
		buf_consume(&k->in, (size_t)end + 1);
	}
}

static void on_conn(void *arg, uint32_t events)
{
	struct control_conn *k = arg;
	char chunk[4096];

	if (events & EPOLLIN) {
		ssize_t n = recv(k->fd, chunk, sizeof(chunk), MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			conn_close(k);
			return;
		}
		if (n == 0)
			k->has_ended = true;
		if (n > 0 && buf_add(&k->in, chunk, (size_t)n, NULL) != E_OK) {
			conn_close(k);
			return;
		}
	} else if (events & (EPOLLERR | EPOLLHUP)) {
		conn_close(k);
		return;
	}
	run_lines(k);
	conn_flush(k);
}

/* Only this user, and root, may say anything. */
static bool is_peer_allowed(int fd)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

static struct control_conn *free_slot(struct control *c)
{
	for (size_t i = 0; i < CONTROL_CONNS_MAX; i++)
		if (c->conns[i].fd < 0)
			return &c->conns[i];
	return NULL;
}

static void on_listen(void *arg, uint32_t events)
{
	struct control *c = arg;
	struct control_conn *k = free_slot(c);
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	if (!k || !is_peer_allowed(fd)) {
		log_event(LOG_WARN, "control.refused", "reason=%s", k ? "peer" : "too_many");
		(void)close(fd);
		return;
	}
	*k = (struct control_conn){ .c = c, .fd = fd, .in = BUF_MAX(CONTROL_LINE_MAX), .out = BUF_MAX(CONTROL_ANSWER_MAX),
				    .limit = { .fn = on_limit } };
	if (loop_watch_add(c->loop, fd, EPOLLIN, on_conn, k, &k->watch, NULL) != E_OK) {
		conn_close(k);
		return;
	}
	loop_timer_set(c->loop, &k->limit, loop_now_ms(c->loop) + CONTROL_IDLE_MS);
}

/* The lock on the state folder is held: a socket file that is there belongs to a node that is dead. */
static enum errc start_listening(struct control *c, struct err *e)
{
	struct sockaddr_un at;
	AUTO_FD folder = -1;
	enum errc rc = control_address(c->path, &folder, &at, e);

	if (rc)
		return rc;
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listen_fd < 0)
		return err_set_os(e, E_IO, errno, "%s: socket", c->path);
	(void)unlink(c->path);
	/* On Linux the mode of the socket before bind is the mode of the file: nobody else gets in, not even for a moment. */
	if (fchmod(c->listen_fd, 0600) != 0 || bind(c->listen_fd, (struct sockaddr *)&at, sizeof(at)) != 0 ||
	    listen(c->listen_fd, 64) != 0)
		return err_set_os(e, E_IO, errno, "%s: cannot listen", c->path);
	return loop_watch_add(c->loop, c->listen_fd, EPOLLIN, on_listen, c, &c->listen_watch, e);
}

enum errc control_new(struct svc *svc, struct loop *supervisor, const char *path, struct control **ret, struct err *e)
{
	struct control *c = NEW(struct control);
	enum errc rc;

	if (!c)
		return err_set(e, E_NO_MEMORY, "control: no memory");
	c->svc = svc;
	c->loop = supervisor;
	c->listen_fd = -1;
	for (size_t i = 0; i < CONTROL_CONNS_MAX; i++)
		c->conns[i].fd = -1;
	c->path = mem_strdup(path);
	rc = c->path ? store_reader_open(svc->store, &c->reader, e) : err_set(e, E_NO_MEMORY, "control: no memory");
	if (rc == E_OK)
		rc = start_listening(c, e);
	if (rc) {
		control_stop(c);
		control_free(c);
		return rc;
	}
	*ret = c;
	return E_OK;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	thread_must_be(THREAD_MAIN);
	for (size_t i = 0; i < CONTROL_CONNS_MAX; i++)
		conn_close(&c->conns[i]);
	loop_watch_del(c->loop, c->listen_watch);
	c->listen_watch = 0;
	if (c->listen_fd >= 0) {
		(void)unlink(c->path);
		(void)close(c->listen_fd);
		c->listen_fd = -1;
	}
	store_reader_close(c->reader);
	c->reader = NULL;
}

void control_free(struct control *c)
{
	if (!c)
		return;
	while (c->in_flight) {
		struct key_op *op = c->in_flight;

		c->in_flight = op->next;
		key_op_done(op);
		mem_free(op);
	}
	while (c->beats) {
		struct control_beat *b = c->beats;

		c->beats = b->next;
		buf_done(&b->ask.text);
		mem_free(b->ask.clients);
		mem_free(b);
	}
	mem_free(c->path);
	mem_free(c);
}
