/*
 * R8: how the job plane stands. Sums come from counters, rows from indexes: nothing here grows with the jobs that are held.
 * Source: direct-api.md 2.12, 3.9; "limit" for queue.jobs is an addition.
 */
#include "base/clock.h"
#include "routes/capabilities.h"
#include "routes/generic.h"
#include "store/job_totals.h"

#define AUDIT_LIMIT_MAX 250
#define AUDIT_LIMIT 50
#define AUDIT_OFFSET_MAX 10000

/* As parseInt: a decimal prefix counts, anything else is the default; clamped. */
static int64_t query_number(struct slice query, const char *name, const char *alias, int64_t fallback, int64_t max)
{
	bool has;
	struct slice v = query_value(query, name, &has);
	int64_t n = 0;
	size_t i = 0;

	if (!has && alias)
		v = query_value(query, alias, &has);
	for (; i < v.n && v.p[i] >= '0' && v.p[i] <= '9'; i++)
		n = n > max ? max : n * 10 + (v.p[i] - '0');
	return !i ? fallback : n > max ? max : n;
}

static void node_json(struct jw *w, const struct svc *svc)
{
	jw_obj(w, "node");
	jw_str(w, "node_id", svc->node_id);
	jw_str(w, "listen_host", svc->cfg->listen_host);
	jw_i64(w, "listen_port", svc->port);
	jw_bool(w, "owner_local", true);       /* or the gate would not have opened */
	jw_bool(w, "generic_jobs_enabled", true);
	jw_bool(w, "artifact_store_configured", svc->cfg->artifact_path[0] != '\0');
	jw_i64(w, "max_concurrent_jobs", svc->cfg->generic_job_max_concurrency);
	jw_end(w);
}

struct rows {
	struct jw *w;
	const char *node_id;
	size_t n, max;
	bool is_more;
};

static enum errc on_row(void *ctx, const struct job_row *j, struct err *e)
{
	struct rows *l = ctx;
	const struct show s = { .node_id = l->node_id, .row = j };

	(void)e;
	if (l->n++ == l->max)
		l->is_more = true;
	else
		show_ops_job(l->w, &s);
	return E_OK;
}

struct sums {
	int64_t t[TOTAL__COUNT];
	int64_t active, queued, ended, held;
};

static void add_up(struct sums *s)
{
	for (int i = 0; i < JOB__COUNT; i++) {
		int64_t n = s->t[TOTAL_HELD_QUEUED + i];

		s->held += n;
		if (i == JOB_SCHEDULED || i == JOB_RUNNING)
			s->active += n;
		else if (i == JOB_QUEUED || i == JOB_RETRYING)
			s->queued += n;
		else
			s->ended += n;
	}
}

static enum errc queue_json(struct jw *w, struct long_read *r, const struct sums *s, struct err *e)
{
	struct rows l = { .w = w, .node_id = r->svc->node_id, .max = r->max };
	size_t n = 0;
	enum errc rc = E_OK;

	jw_obj(w, "queue");
	jw_arr(w, "jobs");
	if (l.max)
		rc = jobs_walk_newest(r->reader, INT64_MAX, INT64_MAX, l.max + 1, on_row, &l, &n, e);
	jw_end(w);
	if (l.is_more || (!l.max && s->held))
		jw_bool(w, "jobs_truncated", true);
	jw_obj(w, "totals_by_state");
	for (int i = 0; i < JOB__COUNT; i++)
		if (s->t[TOTAL_HELD_QUEUED + i])
			jw_i64(w, job_state_name((enum job_state)i), s->t[TOTAL_HELD_QUEUED + i]);
	jw_end(w);
	jw_i64(w, "active_jobs", s->active);
	jw_i64(w, "queued_jobs", s->queued);
	jw_i64(w, "terminal_jobs", s->ended);
	jw_end(w);
	return rc;
}

static void quota_json(struct jw *w, const struct config *cfg, const struct sums *s)
{
	int64_t max = cfg->generic_job_max_concurrency;

	jw_obj(w, "quota");
	jw_i64(w, "max_concurrent_jobs", max);
	jw_i64(w, "active_jobs", s->active);
	jw_i64(w, "queued_jobs", s->queued);
	jw_i64(w, "available_slots", s->active < max ? max - s->active : 0);
	jw_bool(w, "production_enforced", false);
	jw_obj(w, "limits");
	jw_i64(w, "generic_job_timeout_ms", cfg->generic_job_timeout_ms ? cfg->generic_job_timeout_ms : cfg->job_timeout_ms);
	jw_i64(w, "job_timeout_ms", cfg->job_timeout_ms);
	jw_i64(w, "request_timeout_ms", cfg->request_timeout_ms);
	jw_bool(w, "artifact_store_configured", cfg->artifact_path[0] != '\0');
	jw_end(w);
	jw_end(w);
}

static void usage_json(struct jw *w, const struct sums *s)
{
	const struct {
		const char *key;
		enum job_total total;
	} ended[] = {
		{ "succeeded_jobs", TOTAL_SUCCEEDED }, { "failed_jobs", TOTAL_FAILED }, { "cancelled_jobs", TOTAL_CANCELLED },
		{ "blocked_jobs", TOTAL_BLOCKED }, { "expired_jobs", TOTAL_EXPIRED },
	}, counts[] = {
		{ "artifact_count", TOTAL_ARTIFACTS }, { "artifact_bytes", TOTAL_ARTIFACT_BYTES }, { "event_count", TOTAL_EVENTS },
		{ "audit_event_count", TOTAL_AUDIT }, { "stdout_bytes", TOTAL_STDOUT_BYTES }, { "stderr_bytes", TOTAL_STDERR_BYTES },
	};

	jw_obj(w, "usage");
	jw_i64(w, "total_jobs", s->t[TOTAL_CREATED]);
	jw_i64(w, "active_jobs", s->active);
	jw_i64(w, "terminal_jobs", s->ended);
	for (size_t i = 0; i < ARRAY_LEN(ended); i++)
		jw_i64(w, ended[i].key, s->t[ended[i].total]);
	jw_f64(w, "gpu_seconds", (double)s->t[TOTAL_GPU_MS] / 1000);
	for (size_t i = 0; i < ARRAY_LEN(counts); i++)
		jw_i64(w, counts[i].key, s->t[counts[i].total]);
	jw_i64(w, "log_bytes", s->t[TOTAL_STDOUT_BYTES] + s->t[TOTAL_STDERR_BYTES]);
	jw_end(w);
}

static enum errc audit_json(struct jw *w, struct long_read *r, const struct sums *s, struct err *e)
{
	enum errc rc;

	jw_obj(w, "audit");
	jw_i64(w, "total", s->t[TOTAL_AUDIT]);
	jw_i64(w, "offset", (int64_t)r->audit_offset);
	jw_i64(w, "limit", (int64_t)r->audit_max);
	jw_arr(w, "events");
	rc = show_audit_newest(w, r->reader, r->svc->node_id, r->audit_offset, r->audit_max, e);
	jw_end(w);
	jw_end(w);
	return rc;
}

static enum errc ops_json(struct long_read *r, struct err *e)
{
	struct reply *rep = &r->reply;
	struct svc *svc = r->svc;
	struct sums s = { 0 };
	struct jw w;
	enum errc rc = job_totals_get(r->reader, s.t, e);

	if (rc)
		return rc;
	add_up(&s);
	buf_init(&rep->body, REPLY_MAX_BYTES);
	w = JW(&rep->body);
	rep->status = 200;
	jw_obj(&w, NULL);
	jw_str(&w, "schema_version", JOB_SCHEMA_VERSION);
	show_time(&w, "generated_at", clock_wall_ms());
	node_json(&w, svc);
	rc = capabilities_json(&w, "capabilities", svc, e);
	if (!rc)
		rc = queue_json(&w, r, &s, e);
	quota_json(&w, svc->cfg, &s);
	usage_json(&w, &s);
	if (!rc)
		rc = audit_json(&w, r, &s, e);
	jw_end(&w);
	return rc ? rc : jw_done(&w, e);
}

enum errc route_generic_ops(struct req *q, struct reply *rep, struct err *e)
{
	struct token_claims claims = { 0 };
	struct long_read *r = NULL;
	enum errc rc = generic_gate(q, TOKEN_OPS, &claims, e);

	(void)rep;
	if (!rc && !slice_eq(slice_str(claims.node_id), slice_str(q->ctx->svc->node_id)))
		rc = err_set(e, E_BAD_REQUEST, "generic job ops token does not match this node");
	token_claims_done(&claims);
	if (!rc)
		rc = long_read_new(q, ops_json, &r, e);
	if (rc)
		return rc;
	r->max = (size_t)query_number(q->query, "limit", NULL, SHOW_ROWS, SHOW_ROWS);
	r->audit_max = (size_t)query_number(q->query, "audit_limit", "auditLimit", AUDIT_LIMIT, AUDIT_LIMIT_MAX);
	r->audit_offset = (size_t)query_number(q->query, "audit_offset", "auditOffset", 0, AUDIT_OFFSET_MAX);
	return long_read_reply(r, e);
}
