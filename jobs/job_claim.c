/*
 * The body of a claim: waiting jobs whose time is over expire, those that this node cannot run are blocked, and as many
 * begin as there is room for. See job.h. Sources: direct-api.md 3.4 to 3.6, jobs/NOTES.md "Fairness".
 */
#include "base/clock.h"
#include "jobs/job.h"

#include "base/mem.h"
#include "store/tenants.h"

#define EXPIRED_MAX 64                  /* of one claim; the rest at the next */
#define BLOCKED_MAX 64
#define TURN_MS 10000                   /* how long the tenant that has the node may go on beginning while others wait */

static char *to_text(struct buf *b, struct err *e)
{
	char *text = buf_take(b, NULL);

	if (!text)
		(void)err_set(e, E_NO_MEMORY, "no memory");
	return text;
}

/* {"job_id","status","error":{code,message,retryable}}: of a job that never ran. */
static char *early_result(const struct job_row *j, const char *status, const char *code, const char *message, bool is_retryable, struct err *e)
{
	AUTO_BUF out = BUF_MAX(256u << 10);
	struct jw w = JW(&out);

	jw_obj(&w, NULL);
	jw_str(&w, "job_id", j->job_id);
	jw_str(&w, "status", status);
	jw_obj(&w, "error");
	jw_str(&w, "code", code);
	jw_str(&w, "message", message);
	if (is_retryable)
		jw_bool(&w, "retryable", true);
	jw_end(&w);
	jw_end(&w);
	return jw_done(&w, e) ? NULL : to_text(&out, e);
}

static enum errc expire_one(struct store_tx *t, int64_t key, int64_t now_ms, struct err *e)
{
	AUTO_JOB_ROW j = { 0 };
	enum errc rc = jobs_get_tx(t, key, &j, e);

	if (!rc)
		rc = job_move(&j, JOB_EXPIRED, now_ms, e);
	if (rc)
		return rc;
	mem_free(j.result);
	j.result = early_result(&j, "expired", "expired", "generic job passed its deadline before dispatch", false, e);
	if (!j.result)
		return E_NO_MEMORY;
	rc = jobs_save_tx(t, &j, JOB_QUEUED, j.attempt, e);
	return rc ? rc : job_audit(t, &j, AUDIT_EXPIRED, now_ms, SLICE(""), e);
}

static enum errc expire(struct store_tx *t, struct job_claim *c, int64_t now_ms, struct err *e)
{
	int64_t key = 1;
	enum errc rc = E_OK;

	for (int i = 0; !rc && key && i < EXPIRED_MAX; i++) {
		rc = jobs_overdue_tx(t, now_ms, &key, &c->next_deadline_wall_ms, e);
		if (!rc && key)
			rc = expire_one(t, key, now_ms, e);
		c->has_ended_some |= key != 0;
	}
	return rc;
}

/* ---- whose turn it is ---- */

struct turns {
	struct waiting_job v[TURN_TENANTS_MAX];
	size_t n;
};

static void turns_done(struct turns *t)
{
	waiting_jobs_done(t->v, t->n);
}

/*
 * While a tenant has the node (an active job of it), others wait; it may use its free places itself, but not for ever:
 * once it has had the node for TURN_MS and others wait, nothing more of it begins until they have had their turn. Among
 * those who may: the lowest priority number, then who was not served for longest.
 */
static const struct waiting_job *choose(const struct turns *w, const struct job_claim *c, int64_t now_ms)
{
	const struct waiting_job *best = NULL;
	bool do_others_wait = false;

	for (size_t i = 0; c->holder && i < w->n; i++)
		do_others_wait |= strcmp(w->v[i].tenant_id, c->holder) != 0;
	if (do_others_wait && now_ms - c->holder_since_wall_ms >= TURN_MS)
		return NULL;
	for (size_t i = 0; i < w->n; i++) {
		const struct waiting_job *j = &w->v[i];

		if (c->holder && strcmp(j->tenant_id, c->holder) != 0)
			continue;
		if (!best || j->priority < best->priority)
			best = j;
	}
	return best;
}

/* Who has the node now; the time since when goes on while it is the same. */
static enum errc hold(struct job_claim *c, const char *tenant_id, int64_t now_ms, struct err *e)
{
	if (tenant_id && c->holder && strcmp(tenant_id, c->holder) == 0)
		return E_OK;
	mem_free(c->holder);
	c->holder = tenant_id ? mem_strdup(tenant_id) : NULL;
	c->holder_since_wall_ms = now_ms;
	return tenant_id && !c->holder ? err_set(e, E_NO_MEMORY, "no memory") : E_OK;
}

/* ---- one job ---- */

static enum errc block(struct store_tx *t, struct job_row *j, const char *message, int64_t now_ms, struct err *e)
{
	AUTO_BUF held = BUF_MAX(4096);
	struct jw w = JW(&held);
	enum errc rc = job_move(j, JOB_BLOCKED, now_ms, e);

	if (rc)
		return rc;
	jw_obj(&w, NULL);
	jw_str(&w, "reason", "no_capable_node");
	jw_str(&w, "message", message);
	jw_end(&w);
	rc = jw_done(&w, e);
	if (rc)
		return rc;
	mem_free(j->backpressure);
	mem_free(j->result);
	j->backpressure = to_text(&held, e);
	j->result = early_result(j, "failed", "no_capable_node", message, true, e);
	if (!j->backpressure || !j->result)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = jobs_save_tx(t, j, JOB_QUEUED, j->attempt, e);
	return rc ? rc : job_audit(t, j, AUDIT_BLOCKED, now_ms, SLICE("{\"reason\":\"no_capable_node\"}"), e);
}

static enum errc audit_begin(struct store_tx *t, const struct job_row *j, int64_t now_ms, struct err *e)
{
	AUTO_BUF text = BUF_MAX(64u << 10);
	char expires[CLOCK_ISO_LEN];
	enum errc rc = buf_addf(&text, e, "{\"resources\":%s}", j->reservation);

	if (!rc)
		rc = job_audit(t, j, AUDIT_RESERVED, now_ms, buf_slice(&text), e);
	buf_clear(&text);
	clock_iso(j->scheduled_wall_ms + JOB_ENVELOPE_MS, expires);
	if (!rc)
		rc = buf_addf(&text, e, "{\"expires_at\":\"%s\"}", expires);
	if (!rc)
		rc = job_audit(t, j, AUDIT_ENVELOPE, now_ms, buf_slice(&text), e);
	buf_clear(&text);
	if (!rc)
		rc = buf_addf(&text, e, "{\"priority\":%lld}", (long long)j->priority);
	if (!rc)
		rc = job_audit(t, j, AUDIT_SCHEDULED, now_ms, buf_slice(&text), e);
	return rc ? rc : job_audit(t, j, AUDIT_STARTED, now_ms, SLICE(""), e);
}

static enum errc begin(struct store_tx *t, struct job_row *j, const struct json *request, int64_t boot, int64_t now_ms, struct err *e)
{
	AUTO_BUF resources = BUF_MAX(64u << 10);
	struct jw w = JW(&resources);
	struct attempt_row at = { .job_key = j->key, .journal_bytes = -1, .boot = boot };
	int64_t before = j->attempt;
	enum errc rc = job_move(j, JOB_SCHEDULED, now_ms, e);

	if (!rc)
		rc = job_move(j, JOB_RUNNING, now_ms, e);
	job_resources_json(&w, request);
	if (!rc)
		rc = jw_done(&w, e);
	if (rc)
		return rc;
	mem_free(j->reservation);
	j->reservation = to_text(&resources, e);
	if (!j->reservation)
		return E_NO_MEMORY;
	at.attempt = ++j->attempt;
	rc = jobs_save_tx(t, j, JOB_QUEUED, before, e);
	if (!rc)
		rc = attempts_save_tx(t, &at, e);
	if (!rc)
		rc = audit_begin(t, j, now_ms, e);
	return rc ? rc : tenants_served_tx(t, j->tenant_id, e);
}

/* Blocks or begins it; *ret_begun says which. */
static enum errc take(struct store_tx *t, struct job_claim *c, int64_t key, int64_t now_ms, bool *ret_begun, struct err *e)
{
	AUTO_JOB_ROW j = { 0 };
	AUTO_JSON request = NULL;
	char message[256];
	enum errc rc = jobs_get_tx(t, key, &j, e);

	if (!rc)
		rc = json_parse(slice_str(j.request), JSON_LIMITS_DEFAULT, &request, e);
	if (rc)
		return rc;
	/* A direct job says so itself, by its result: nobody would look for a blocked one (3.5). */
	*ret_begun = j.is_direct || !job_lacks(request, c->caps, message, sizeof(message));
	c->has_ended_some |= !*ret_begun;
	rc = *ret_begun ? begin(t, &j, request, c->boot, now_ms, e) : block(t, &j, message, now_ms, e);
	if (rc || !*ret_begun)
		return rc;
	c->begun[c->n++] = j;
	j = (struct job_row){ 0 };
	return E_OK;
}

/* ---- the whole ---- */

static void forget(struct job_claim *c)
{
	for (size_t i = 0; i < c->n; i++)
		job_row_done(&c->begun[i]);
	c->n = 0;
}

struct active {
	struct active_job *v;
	size_t n;
};

static void active_done(struct active *a)
{
	active_jobs_free(a->v, a->n);
}

static enum errc claim(struct store_tx *t, struct store_job *job, struct err *e)
{
	struct job_claim *c = CONTAINER_OF(job, struct job_claim, job);
	CLEANUP(active_done) struct active at_work = { 0 };
	int64_t now_ms = clock_wall_ms();
	size_t blocked = 0;
	enum errc rc;

	forget(c);
	c->is_more = c->has_ended_some = c->is_full = false;
	rc = expire(t, c, now_ms, e);
	if (!rc && !c->is_draining)
		rc = jobs_active_tx(t, (size_t)c->max_active, &at_work.v, &at_work.n, e);
	c->is_full = c->is_draining;
	if (rc || c->is_draining)
		return rc;
	rc = hold(c, at_work.n ? at_work.v[0].tenant_id : NULL, now_ms, e);
	while (!rc && at_work.n + c->n < (size_t)c->max_active) {
		CLEANUP(turns_done) struct turns w = { 0 };
		const struct waiting_job *next;
		bool is_begun = false;

		if (c->n == CLAIMS_MAX || blocked == BLOCKED_MAX) {
			c->is_more = true;
			break;
		}
		rc = jobs_waiting_tx(t, w.v, &w.n, e);
		next = rc ? NULL : choose(&w, c, now_ms);
		if (!next)
			break;
		rc = take(t, c, next->key, now_ms, &is_begun, e);
		blocked += !is_begun;
		if (!rc && is_begun)
			rc = hold(c, c->begun[c->n - 1].tenant_id, now_ms, e);
	}
	c->is_full = at_work.n + c->n >= (size_t)c->max_active;
	return rc;
}

void job_claim_init(struct job_claim *c)
{
	*c = (struct job_claim){ .job = { .name = "job.claim", .body = claim } };
}

void job_claim_done(struct job_claim *c)
{
	forget(c);
	mem_free(c->holder);
	c->holder = NULL;
}
