/*
 * GET /healthz: is the node alive. Public, on every interface; names the node id as the reference does (W28), but tells
 * the truth about the status. Anybody may ask often: nothing here waits or takes a lock.
 */
#include "routes/route.h"

#include "base/clock.h"
#include "base/jw.h"

#include <stdio.h>

#define STUCK_MS 5000                      /* a loop beats once a second, the store within one commit */

/* What is wrong, or an empty text. */
static void find_reason(const struct svc *svc, char *out, size_t cap)
{
	enum store_state st = store_state(svc->store);
	int64_t ms = store_stuck_ms(svc->store), now = clock_mono_ms();

	out[0] = '\0';
	if (st != STORE_OK) {
		snprintf(out, cap, "store: %s", store_state_name(st));
		return;
	}
	if (ms > STUCK_MS) {
		snprintf(out, cap, "store: no progress for %lld s", (long long)ms / 1000);
		return;
	}
	for (unsigned i = 0; i < svc->loop_count; i++) {
		ms = now - atomic_load_explicit(&loop_stats(svc->loops[i].loop)->beat_mono_ms, memory_order_relaxed);
		if (ms > STUCK_MS) {
			snprintf(out, cap, "loop %u: no turn for %lld s", i, (long long)ms / 1000);
			return;
		}
	}
}

enum errc route_healthz(struct req *q, struct reply *rep, struct err *e)
{
	const struct svc *svc = q->ctx->svc;
	struct jw w = JW(&rep->body);
	char reason[80];

	find_reason(svc, reason, sizeof(reason));
	rep->status = reason[0] ? 503 : 200;
	jw_obj(&w, NULL);
	jw_str(&w, "service", "mswarm-self-hosted-node");
	jw_str(&w, "status", reason[0] ? "degraded" : "ok");
	jw_str(&w, "node_id", svc->node_id);
	if (reason[0])
		jw_str(&w, "reason", reason);
	jw_end(&w);
	return jw_done(&w, e);
}
