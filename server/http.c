/*
 * libmicrohttpd's daemon of one loop: its options, its epoll as a watch and a source of the loop, its end.
 * One struct http per loop; everything here runs on that loop unless its header says otherwise.
 */
#include "server/http_priv.h"

#include "base/log.h"
#include "base/mem.h"

#include <limits.h>
#include <stdio.h>
#include <sys/epoll.h>

static size_t keep_escaped(void *cls, struct MHD_Connection *mhd, char *s)
{
	(void)cls;
	(void)mhd;
	return strlen(s);
}

__attribute__((format(printf, 2, 0)))
static void on_mhd_log(void *cls, const char *fmt, va_list ap)
{
	char line[200];

	(void)cls;
	if (!log_is_on(LOG_DEBUG))
		return;
	vsnprintf(line, sizeof(line), fmt, ap);
	log_event(LOG_DEBUG, "http.noted", "text=%.*s", (int)strcspn(line, "\r\n"), line);
}

static void on_daemon_ready(void *arg, uint32_t events)
{
	struct http *h = arg;

	(void)events;
	h->is_due = true;
}

/*
 * How soon libmicrohttpd has to run; -1: not by time. A request that waits makes it want to run at once, for ever: then it runs
 * again as long as answers move, and each millisecond, for what it may hold without our knowing (a head that came in pieces).
 */
static int64_t due_ms(const struct http *h)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (h->is_due)
		return 0;
	if (MHD_get_timeout(h->daemon, &ms) != MHD_YES)
		return -1;
	if (ms == 0 && h->waiting && !h->has_moved && loop_now_ms(h->ctx->loop) == h->run_mono_ms)
		return 1;
	return (int64_t)ms;
}

static bool source_run(void *arg)
{
	struct http *h = arg;
	bool did = h->direct_first != NULL;

	http_direct_run(h);
	if (due_ms(h) != 0)
		return did;
	h->is_due = h->has_moved = false;
	h->taken = h->begun = 0;
	h->run_mono_ms = loop_now_ms(h->ctx->loop);
	h->run_mono_us = clock_mono_us();
	MHD_run(h->daemon);
	http_accept_run_done(h);
	http_look_at_ended(h);
	return true;
}

static int64_t source_timeout(void *arg)
{
	struct http *h = arg;

	return h->direct_first ? 0 : due_ms(h);
}

static enum errc start_daemon(struct http *h, const struct http_opts *o, struct err *e)
{
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET;
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, o->shared->tls_cert_pem },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, o->shared->tls_key_pem },
		{ MHD_OPTION_END, 0, NULL },
	};
	struct MHD_OptionItem none[] = { { MHD_OPTION_END, 0, NULL } };

	if (o->shared->tls_cert_pem)
		flags |= MHD_USE_TLS;
	h->daemon = MHD_start_daemon(flags, 0, NULL, NULL, http_on_access, h,
		MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
		MHD_OPTION_CONNECTION_LIMIT, UINT_MAX, /* http_accept.c keeps it, for all daemons together */
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_POOL_BYTES,
		MHD_OPTION_CONNECTION_TIMEOUT, 0u,
		MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, h,
		MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, h,
		MHD_OPTION_URI_LOG_CALLBACK, http_on_target, h,
		MHD_OPTION_UNESCAPE_CALLBACK, keep_escaped, NULL,
		MHD_OPTION_ARRAY, o->shared->tls_cert_pem ? tls : none,
		MHD_OPTION_END);
	if (!h->daemon)
		return err_set(e, E_IO, "http: the server does not start%s",
			       o->shared->tls_cert_pem ? " (certificate or key not usable)" : "");
	return E_OK;
}

enum errc http_new(const struct http_opts *o, struct http **ret, struct err *e)
{
	struct http *h = NEW(struct http);
	const union MHD_DaemonInfo *info;
	enum errc rc;

	if (!h)
		return err_set(e, E_NO_MEMORY, "no memory for an HTTP server");
	h->ctx = o->ctx;
	h->shared = o->shared;
	h->ops = o->ops;
	h->direct_block = mem_alloc(HTTP_DIRECT_BLOCK + 64);
	if (!h->direct_block) {
		rc = err_set(e, E_NO_MEMORY, "no memory for an HTTP server");
		goto fail;
	}
	rc = start_daemon(h, o, e);
	if (rc)
		goto fail;
	info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info) {
		rc = err_set(e, E_INTERNAL, "http: the server has no epoll");
		goto fail;
	}
	rc = loop_watch_add(h->ctx->loop, info->epoll_fd, EPOLLIN, on_daemon_ready, h, &h->watch, e);
	if (rc)
		goto fail;
	rc = loop_source_add(h->ctx->loop, (struct loop_source){ .name = "http", .run = source_run,
			     .timeout_ms = source_timeout, .arg = h }, e);
	if (rc)
		goto fail;
	rc = http_accept_start(h, o->listen_fd, e);
	if (rc)
		goto fail;
	*ret = h;
	return E_OK;
fail:
	http_free(h);
	return rc;
}

void http_quiesce(struct http *h)
{
	http_accept_stop(h);
}

size_t http_requests_open(const struct http *h)
{
	return h->open_requests;
}

void http_stop_all(struct http *h)
{
	struct err e = { 0 };

	err_set(&e, E_DRAINING, "the node is stopping");
	for (struct http_conn *c = h->conns, *next; c; c = next) {
		struct http_req *hr = c->req;

		next = c->next;
		if (!hr)
			http_shut(c);              /* idle */
		else if (hr->phase == PHASE_RUN) {
			void (*gone)(struct req *) = hr->q.on_gone;

			hr->q.on_gone = NULL;
			if (gone)
				gone(&hr->q);
			reply_fail(&hr->q, &e);
		} else if (hr->stream && !hr->is_closed && hr->stream->stop) {
			hr->stream->stop(hr->stream_state);
		}
	}
}

/* libmicrohttpd aborts the process when stopped with a suspended connection: resume all first (design.md 5.10). */
void http_end_all(struct http *h)
{
	for (struct http_conn *c = h->conns, *next; c; c = next) {
		next = c->next;
		http_shut(c);
		if (c->req)
			http_client_gone(c->req);
	}
}

void http_free(struct http *h)
{
	if (!h)
		return;
	http_accept_free(h);
	if (h->daemon) {
		http_accept_stop(h);
		http_end_all(h);
		MHD_run(h->daemon);
		loop_watch_del(h->ctx->loop, h->watch);
		MHD_stop_daemon(h->daemon);
	}
	mem_free(h->direct_block);
	mem_free(h);
}
