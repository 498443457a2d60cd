/*
 * GET /readyz: is new work taken. Public. A node that drains for the gateway only (drain on) still serves direct jobs
 * and local clients, so it is ready; drain all, a stop in progress and a broken store are not. Chats need no writes, so
 * a full disk does not count here: /healthz says so.
 */
#include "routes/route.h"

#include "base/jw.h"

static const char *why_not(struct svc *svc)
{
	if (atomic_load(&svc->state.is_stopping))
		return "node_stopping";
	if (atomic_load(&svc->state.drain) == DRAIN_ALL)
		return "node_draining";
	if (store_state(svc->store) == STORE_BROKEN)
		return "store_read_only";
	return NULL;
}

enum errc route_readyz(struct req *q, struct reply *rep, struct err *e)
{
	const char *reason = why_not(q->ctx->svc);
	struct jw w = JW(&rep->body);

	rep->status = reason ? 503 : 200;
	jw_obj(&w, NULL);
	jw_str(&w, "status", reason ? "not_ready" : "ready");
	if (reason)
		jw_str(&w, "reason", reason);
	jw_end(&w);
	return jw_done(&w, e);
}
