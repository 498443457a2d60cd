/*
 * From a request's headers to its handler: match, guard, access, cross-origin answers; and the access log at its end.
 * Called by server/http_req.c on the connection's loop.
 */
#include "server/dispatch.h"

#include "base/log.h"
#include "llm/inventory.h"
#include "routes/auth.h"
#include "routes/guard.h"

#include <stdio.h>

/* ---- cross-origin ---- */

static enum errc preflight(struct req *q, struct reply *rep, struct err *e)
{
	enum errc rc;

	(void)q;
	rep->status = 204;
	rc = reply_header(rep, "access-control-allow-methods", "GET, HEAD, POST, OPTIONS", e);
	if (!rc)
		rc = reply_header(rep, "access-control-allow-headers", "authorization, content-type, x-requested-with, openai-organization, "
				  "openai-project, x-stainless-lang, x-stainless-package-version", e);
	return rc ? rc : reply_header(rep, "access-control-max-age", "600", e);
}

static const struct route preflight_route = { .method = "OPTIONS", .pattern = "*", .access = ACCESS_PUBLIC, .shape = SHAPE_FLAT,
					      .handle = preflight, .help = "Cross-origin preflight" };

static enum errc add_cors(struct req *q, struct err *e)
{
	struct slice origin = req_header(q, "origin");
	char value[192];
	enum errc rc;

	if (!slice_copy(origin, value, sizeof(value)))
		return err_set(e, E_ORIGIN_DENIED, "origin: over %zu bytes", sizeof(value) - 1);
	rc = reply_header(&q->reply, "access-control-allow-origin", value, e);
	if (!rc)
		rc = reply_header(&q->reply, "vary", "origin", e);
	return rc ? rc : reply_header(&q->reply, "access-control-expose-headers", "x-request-id", e);
}

/* ---- head ---- */

static enum errc guard(struct req *q, bool *ret_cors, struct err *e)
{
	const struct svc *svc = q->ctx->svc;
	struct guard_in in = {
		.cfg = svc->cfg, .host = req_header(q, "host"), .origin = req_header(q, "origin"),
		.sec_fetch_site = req_header(q, "sec-fetch-site"), .port = svc->port, .is_tls = req_is_tls(q),
	};
	enum errc rc;

	in.has_origin = in.origin.p != NULL && in.origin.n;
	rc = guard_check(&in, ret_cors, e);
	if (rc != E_HOST_DENIED)
		return rc;
	in.local_address = req_local_address(q);       /* a system call: only for who did not come by a loopback name */
	return guard_check(&in, ret_cors, e);
}

static enum errc check_access(struct req *q, struct err *e)
{
	int64_t retry_s = 0;
	char text[24];
	struct err ignored;
	enum errc rc;

	if (q->route->access != ACCESS_LOCAL)
		return E_OK;
	rc = auth_check(q->ctx->svc->auth, q, &retry_s, e);
	if (rc != E_RATE_LIMITED)
		return rc;
	snprintf(text, sizeof(text), "%lld", (long long)retry_s);
	(void)!reply_header(&q->reply, "retry-after", text, &ignored);
	return rc;
}

static size_t body_limit(const struct req *q)
{
	int64_t chat = q->ctx->svc->cfg->max_chat_body_bytes;

	if (q->route->max_body == ROUTE_BODY_CHAT)
		return (size_t)chat;
	if (q->route->max_body == ROUTE_BODY_FILE)
		return (size_t)q->ctx->svc->cfg->artifact_max_mb << 20;
	return q->route->max_body;
}

static void add_allow(struct req *q)
{
	struct err ignored;
	char text[64];

	if (route_allowed(q->path, text, sizeof(text)))
		(void)!reply_header(&q->reply, "allow", text, &ignored);
}

static enum errc on_head(struct req *q, struct err *e)
{
	bool has_cors = false;
	enum errc rc = guard(q, &has_cors, e);

	if (rc)
		return rc;
	if (has_cors && (rc = add_cors(q, e)))
		return rc;
	if (has_cors && slice_eq(slice_str(q->method), SLICE("OPTIONS"))) {
		q->route = &preflight_route;
		return E_OK;
	}
	rc = route_match(slice_str(q->method), q->path, &q->route, q->arg, e);
	if (rc == E_METHOD)
		add_allow(q);
	if (rc)
		return rc;
	q->max_body = body_limit(q);
	return check_access(q, e);
}

static enum errc on_request(struct req *q, struct err *e)
{
	return q->route->handle(q, &q->reply, e);
}

/* ---- end ---- */

static void on_end(struct req *q, int status, uint64_t bytes_out, bool is_client_gone)
{
	char path[200];

	if (!q->ctx->svc->cfg->access_log || !log_is_on(LOG_INFO))
		return;
	log_event(LOG_INFO, "request.served", "req=%s method=%s path=%s status=%d bytes=%llu ms=%lld%s%s%s%s%s", q->id,
		  q->method ? q->method : "-", log_quote(slice_cut(q->path, 160), path, sizeof(path)), status, (unsigned long long)bytes_out,
		  (long long)(loop_now_ms(q->ctx->loop) - q->started_mono_ms), q->key_id[0] ? " key=" : "", q->key_id,
		  q->model[0] ? " model=" : "", q->model, is_client_gone ? " client=gone" : "");
}

const struct http_ops dispatch_ops = { .on_head = on_head, .on_request = on_request, .on_end = on_end };
