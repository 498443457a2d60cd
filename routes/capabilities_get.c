/*
 * R2: what this node can do: the public view of what the probes found and of the runners that are built.
 * Source: direct-api.md 2.6, jobs-and-capabilities.md 5.4.
 */
#include "base/clock.h"
#include "gateway/capability.h"
#include "jobs/capability_probe.h"
#include "routes/capabilities.h"
#include "routes/guard.h"

enum errc capabilities_json(struct jw *w, const char *key, const struct svc *svc, struct err *e)
{
	struct capability_runner runners[CAPABILITY_RUNNERS_MAX];
	struct capabilities caps;
	struct capability_in in = { .caps = &caps, .runners = runners, .runner_count = capability_offered(runners, ARRAY_LEN(runners)),
				    .node_id = svc->node_id, .is_generic_on = svc->cfg->is_generic_jobs_on, .captured_wall_ms = clock_wall_ms() };

	capability_read(svc->probe, &caps, NULL);
	return capability_write_public(w, key, &in, e);
}

/* G2n, G3 to G5: works with the generic feature off. */
static enum errc gate(struct req *q, struct err *e)
{
	struct svc *svc = q->ctx->svc;
	struct token_claims claims = { 0 };
	struct slice token, url = slice_trim(slice_str(svc->cfg->direct_base_url));
	enum errc rc;

	if (!guard_is_local_host(slice_trim(slice_str(svc->cfg->listen_host))) || (url.n && !guard_is_local_url(url)))
		return err_set(e, E_OWNER_LOCAL, "Node capabilities are only available in owner-local direct mode");
	if (!svc->signing_secret.n)
		return err_set(e, E_MISSING_CONFIG, "MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET is required for capability reads");
	token = token_from_header(req_header(q, "authorization"));
	if (!token.n)
		return err_set(e, E_UNAUTHORIZED, "Missing capability token");
	rc = token_verify(token, TOKEN_CAPABILITIES, svc->signing_secret, clock_wall_ms(), &claims, e);
	if (!rc && !slice_eq(slice_str(claims.node_id), slice_str(svc->node_id)))
		rc = err_set(e, E_BAD_REQUEST, "capability token node_id does not match this node");
	token_claims_done(&claims);
	return rc;
}

enum errc route_capabilities_get(struct req *q, struct reply *rep, struct err *e)
{
	struct jw w = JW(&rep->body);
	enum errc rc = gate(q, e);

	if (rc)
		return rc;
	rep->status = 200;
	rc = capabilities_json(&w, NULL, q->ctx->svc, e);
	return rc ? rc : jw_done(&w, e);
}
