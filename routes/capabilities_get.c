/*
 * R2: what this node can do. The first probe lists only what exists: the runners that are built and no GPU.
 * Source: direct-api.md 2.6, jobs-and-capabilities.md 5.4.
 */
#include "base/clock.h"
#include "base/crypto.h"
#include "jobs/runner.h"
#include "jobs/show.h"
#include "routes/capabilities.h"
#include "routes/guard.h"

#include <stdio.h>

static void gpu_json(struct jw *w, const struct capabilities *c)
{
	double gb = c->max_vram_gb;

	jw_obj(w, "accelerators");
	jw_obj(w, "gpu");
	jw_bool(w, "available", c->gpu_count > 0);
	jw_i64(w, "count", c->gpu_count);
	jw_arr(w, "vendors");
	if (c->is_nvidia)
		jw_str(w, NULL, "nvidia");
	jw_end(w);
	jw_bool(w, "cuda", c->cuda_version[0] != '\0');
	jw_str(w, "vram_tier", !c->gpu_count || gb <= 0 ? "none" : gb < 8 ? "lt8" : gb < 16 ? "8-15" : gb < 32 ? "16-31" : "32plus");
	jw_end(w);
	jw_end(w);
}

static void software_json(struct jw *w, const char *name, bool is_there)
{
	jw_obj(w, name);
	jw_bool(w, "available", is_there);
	jw_str(w, "status", is_there ? "available" : "missing");
	jw_end(w);
}

static void names_json(struct jw *w, const struct capabilities *c, bool is_on)
{
	char name[96];

	jw_arr(w, "capabilities");             /* sorted */
	if (c->cuda_version[0])
		jw_str(w, NULL, "cuda");
	if (c->has_docker_nvidia)
		jw_str(w, NULL, "docker.nvidia");
	if (is_on)
		jw_str(w, NULL, "generic_jobs");
	if (c->gpu_count)
		jw_str(w, NULL, "gpu");
	if (c->gpu_count && c->is_nvidia)
		jw_str(w, NULL, "gpu.nvidia");
	for (size_t i = 0; is_on && i < runner_count; i++) {
		snprintf(name, sizeof(name), "job_type:%s", runner_table[i]->job_type);
		jw_str(w, NULL, name);
	}
	if (c->has_blender)
		jw_str(w, NULL, "software.blender");
	jw_end(w);
}

/* "caps_" and 16 digits: of the node and the moment, so that it differs with every reading, as the reference's does. */
static void snapshot_id(const struct svc *svc, int64_t now_ms, char out[24])
{
	uint8_t sum[SHA256_LEN];
	char hex[SHA256_HEX_LEN], text[160];

	snprintf(text, sizeof(text), "%.100s %lld", svc->node_id, (long long)now_ms);
	crypto_sha256(slice_str(text), sum);
	crypto_hex(sum, sizeof(sum), hex);
	snprintf(out, 24, "caps_%.16s", hex);
}

void capabilities_json(struct jw *w, const char *key, const struct svc *svc)
{
	const struct capabilities *c = svc->capabilities;
	bool is_on = svc->cfg->is_generic_jobs_on;
	int64_t now_ms = clock_wall_ms();
	char id[24];

	snapshot_id(svc, now_ms, id);
	jw_obj(w, key);
	jw_str(w, "schema_version", JOB_SCHEMA_VERSION);
	jw_str(w, "snapshot_id", id);
	show_time(w, "captured_at", now_ms);
	jw_bool(w, "generic_jobs_enabled", is_on);
	jw_arr(w, "job_types");
	for (size_t i = 0; is_on && i < runner_count; i++)
		jw_str(w, NULL, runner_table[i]->job_type);
	jw_end(w);
	gpu_json(w, c);
	jw_obj(w, "software");
	software_json(w, "docker_nvidia", c->has_docker_nvidia);
	software_json(w, "blender", c->has_blender);
	software_json(w, "ffmpeg", false);
	jw_end(w);
	names_json(w, c, is_on);
	jw_end(w);
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
	capabilities_json(&w, NULL, q->ctx->svc);
	return jw_done(&w, e);
}
