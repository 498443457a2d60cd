/* The words of a heartbeat; see heartbeat.h. Called by link.c; member order as in gateway.md 4.1. */
#include "gateway/heartbeat.h"

#include "base/clock.h"
#include "base/file.h"
#include "gateway/pressure.h"
#include "store/job_totals.h"

#include <stdio.h>

#define FAILURES_SENT 10

static int64_t at_least_1(int64_t n)
{
	return n > 1 ? n : 1;
}

static int64_t floor_0(int64_t n)
{
	return n > 0 ? n : 0;
}

/* ---- load: 4.4 ---- */

void heartbeat_load_limits(const struct config *cfg, struct heartbeat_load *ret)
{
	*ret = (struct heartbeat_load){ .is_generic_on = cfg->is_generic_jobs_on, .is_draining = cfg->drain_mode };
	ret->max_llm = at_least_1(cfg->max_concurrent_llm_jobs);
	ret->max_generic = at_least_1(cfg->generic_job_max_concurrency);
	ret->max_jobs = at_least_1(cfg->max_concurrent_jobs);
	if (ret->max_jobs < ret->max_llm)
		ret->max_jobs = ret->max_llm;
	if (ret->is_generic_on && ret->max_jobs < ret->max_generic)
		ret->max_jobs = ret->max_generic;
}

enum errc heartbeat_load_read(const struct heartbeat_load_in *in, struct heartbeat_load *ret, struct err *e)
{
	int64_t totals[TOTAL__COUNT] = { 0 };
	struct admission_stats st = { 0 };
	struct heartbeat_load l;
	enum errc rc = job_totals_get(in->reader, totals, e);

	if (rc)
		return rc;
	heartbeat_load_limits(in->cfg, &l);
	l.is_draining = in->is_draining;
	admission_stats(in->admission, &st);
	l.active_llm = st.running[ADMIT_JOB] + in->claimed;
	l.queued_llm = st.queued[ADMIT_JOB];
	l.active_generic = totals[TOTAL_HELD_SCHEDULED] + totals[TOTAL_HELD_RUNNING];
	l.queued_generic = totals[TOTAL_HELD_QUEUED] + totals[TOTAL_HELD_RETRYING];
	*ret = l;
	return E_OK;
}

int64_t heartbeat_active(const struct heartbeat_load *l)
{
	return l->active_llm + l->active_generic;
}

int64_t heartbeat_queued(const struct heartbeat_load *l)
{
	return l->queued_llm + l->queued_generic;
}

int64_t heartbeat_free(const struct heartbeat_load *l)
{
	return l->is_draining ? 0 : floor_0(l->max_jobs - heartbeat_active(l) - heartbeat_queued(l));
}

int64_t heartbeat_free_llm(const struct heartbeat_load *l)
{
	return l->is_draining ? 0 : floor_0(l->max_llm - l->active_llm - l->queued_llm);
}

static void write_class(struct jw *w, const char *key, int64_t max, int64_t active, int64_t queued, int64_t spare)
{
	jw_obj(w, key);
	jw_i64(w, "max_concurrency", max);
	jw_i64(w, "active_jobs", active);
	jw_i64(w, "queued_jobs", queued);
	jw_i64(w, "free_slots", spare);
	jw_end(w);
}

static void write_classes(struct jw *w, const struct heartbeat_load *l)
{
	bool takes_generic = l->is_generic_on && !l->is_draining;

	jw_obj(w, "execution_class_capacity");
	write_class(w, "chat", l->max_llm, l->active_llm, l->queued_llm, heartbeat_free_llm(l));
	write_class(w, "agentic", l->max_llm, l->active_llm, l->queued_llm, heartbeat_free_llm(l));
	write_class(w, "generic_job", l->max_generic, l->active_generic, l->queued_generic,
		    takes_generic ? floor_0(l->max_generic - l->active_generic - l->queued_generic) : 0);
	jw_end(w);
}

/* ---- health: 4.5 ---- */

bool heartbeat_is_online(const struct heartbeat *h)
{
	return h->discovery.is_ok && !h->mismatch;
}

static int64_t average_ms(const struct heartbeat *h)
{
	return h->outcomes.average_ms >= 0 ? h->outcomes.average_ms : h->discovery.took_ms;
}

static int64_t failure_count(const struct heartbeat *h)
{
	unsigned n = h->outcomes.failure_count;

	return (n < FAILURES_SENT ? n : FAILURES_SENT) + !heartbeat_is_online(h);
}

static void write_time(struct jw *w, const char *key, int64_t wall_ms)
{
	char text[CLOCK_ISO_LEN];

	clock_iso(wall_ms, text);
	jw_str(w, key, text);
}

static void write_failures(struct jw *w, const struct heartbeat *h)
{
	jw_arr(w, "recent_failures");
	for (unsigned i = 0; i < h->outcomes.failure_count && i < FAILURES_SENT; i++) {
		const struct outcome_failure *f = &h->outcomes.failures[i];

		jw_obj(w, NULL);
		jw_str(w, "execution_class", f->class == OUTCOME_GENERIC ? "generic_job" : "agentic");
		jw_str(w, "code", f->code);
		write_time(w, "at", f->at_wall_ms);
		jw_end(w);
	}
	jw_end(w);
}

static void write_health(struct jw *w, const struct heartbeat *h)
{
	jw_obj(w, "health");
	jw_i64(w, "avg_latency_ms", average_ms(h));
	jw_i64(w, "recent_failure_count", failure_count(h));
	write_failures(w, h);
	if (heartbeat_is_online(h))
		write_time(w, "last_success_at", h->now_wall_ms);
	else
		jw_null(w, "last_success_at");
	if (h->mismatch) {
		jw_str(w, "lifecycle_status", "degraded");
		jw_str(w, "lifecycle_reason", "self_hosted_protocol_mismatch");
		jw_str(w, "lifecycle_message", h->mismatch);
	}
	jw_end(w);
}

/* ---- capacity ---- */

static void write_loaded(struct jw *w, const struct heartbeat *h)
{
	const struct heartbeat_load *l = &h->load;

	jw_i64(w, "runtime_protocol_version", 1);
	jw_i64(w, "load_balancer_protocol_version", 1);
	jw_i64(w, "catalog_metadata_version", 1);
	jw_str(w, "catalog_fingerprint", h->catalog.fingerprint);
	jw_i64(w, "max_concurrency", l->max_jobs);
	jw_i64(w, "max_concurrent_llm_jobs", l->max_llm);
	jw_i64(w, "max_concurrent_generic_jobs", l->is_generic_on ? l->max_generic : 0);
	jw_i64(w, "active_jobs", heartbeat_active(l));
	jw_i64(w, "queued_jobs", heartbeat_queued(l));
	jw_i64(w, "free_slots", heartbeat_free(l));
	jw_bool(w, "drain_mode", l->is_draining);
	write_classes(w, l);
}

void heartbeat_write_capacity(struct jw *w, const char *key, const struct heartbeat *h, bool is_told)
{
	jw_obj(w, key);
	if (!h->cfg->load_reporting_enabled && !is_told) {
		jw_i64(w, "active_jobs", heartbeat_active(&h->load));
		jw_i64(w, "queued_jobs", heartbeat_queued(&h->load));
		jw_end(w);
		return;
	}
	if (!is_told)
		jw_i64(w, "protocol_version", 1);
	write_loaded(w, h);
	if (is_told) {
		jw_i64(w, "avg_latency_ms", average_ms(h));
		jw_i64(w, "recent_failure_count", failure_count(h));
		write_failures(w, h);
		if (h->cfg->hardware_telemetry_enabled)
			pressure_write(w, "hardware_pressure", h->capability.caps, h->now_wall_ms);
	}
	jw_end(w);
}

/* ---- the whole ---- */

static void write_runtime(struct jw *w, const struct heartbeat *h)
{
	jw_obj(w, "runtime");
	jw_i64(w, "protocol_version", 1);
	jw_str(w, "relay_mode", h->cfg->mode == MODE_DIRECT ? "direct" : "outbound");
	jw_bool(w, "load_reporting_enabled", h->cfg->load_reporting_enabled);
	jw_bool(w, "hardware_telemetry_enabled", h->cfg->hardware_telemetry_enabled);
	jw_bool(w, "drain_mode", h->load.is_draining);
	if (h->mismatch) {
		jw_obj(w, "lifecycle");
		jw_str(w, "status", "degraded");
		jw_str(w, "reason", "self_hosted_protocol_mismatch");
		jw_str(w, "message", h->mismatch);
		write_time(w, "updated_at", h->mismatch_wall_ms);
		jw_end(w);
	}
	jw_end(w);
}

static void write_discovery(struct jw *w, const struct heartbeat *h)
{
	bool is_ollama = strcmp(h->cfg->discovery_mode, "ollama") == 0, is_ok = h->discovery.is_ok;

	jw_obj(w, "discovery");
	jw_str(w, "source", is_ollama ? "ollama" : "mcoda");
	jw_str(w, "mcoda_status", !is_ok ? "error" : is_ollama ? NULL : "ok");
	jw_end(w);
	jw_obj(w, "ollama");
	jw_str(w, "status", !is_ollama ? NULL : is_ok ? "ok" : "error");
	jw_str(w, "version", is_ollama && is_ok && h->discovery.version[0] ? h->discovery.version : NULL);
	jw_end(w);
}

enum errc heartbeat_write(const struct heartbeat *h, struct buf *out, struct err *e)
{
	struct jw w = JW(out);
	enum errc rc;

	jw_obj(&w, NULL);
	jw_str(&w, "node_id", h->node_id);
	jw_str(&w, "node_version", h->cfg->node_version);
	jw_i64(&w, "runtime_protocol_version", 1);
	jw_raw(&w, "config_version", h->config_version ? slice_str(h->config_version) : SLICE("null"));
	jw_str(&w, "status", heartbeat_is_online(h) ? "online" : "degraded");
	write_runtime(&w, h);
	write_discovery(&w, h);
	heartbeat_write_capacity(&w, "capacity", h, false);
	write_health(&w, h);
	jw_obj(&w, "local_agent_catalog");
	jw_str(&w, "revision", h->catalog.fingerprint);
	jw_i64(&w, "metadata_version", 1);
	jw_i64(&w, "model_count", (int64_t)h->catalog.count);
	jw_i64(&w, "exposed_model_count", (int64_t)h->catalog.exposed_count);
	jw_end(&w);
	if (h->clients)
		jw_raw(&w, "client_allowlist", slice_str(h->clients));
	catalog_write(&w, "models", h->agents);
	rc = capability_write(&w, "capabilities", &h->capability, e);
	if (rc)
		return rc;
	if (h->cfg->hardware_telemetry_enabled)
		pressure_write(&w, "hardware_pressure", h->capability.caps, h->now_wall_ms);
	jw_end(&w);
	return jw_done(&w, e);
}

enum errc heartbeat_write_told(const struct heartbeat *h, bool is_enrolled_now, struct buf *out, struct err *e)
{
	bool is_ollama = strcmp(h->cfg->discovery_mode, "ollama") == 0;
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_bool(&w, "enrolled", is_enrolled_now);
	jw_str(&w, "status", heartbeat_is_online(h) ? "online" : "degraded");
	jw_i64(&w, "model_count", (int64_t)h->catalog.exposed_count);
	jw_str(&w, "discovery_source", is_ollama ? "ollama" : "mcoda");
	if (!is_ollama)
		jw_i64(&w, "mcoda_agent_count", (int64_t)h->catalog.count);
	jw_str(&w, "ollama_version", is_ollama && h->discovery.version[0] ? h->discovery.version : NULL);
	heartbeat_write_capacity(&w, "capacity", h, true);
	jw_end(&w);
	enum errc rc = jw_done(&w, e);

	if (!rc)
		buf_truncate(out, out->n - 1);
	return rc;
}
