/* The bodies of a person's cancel (R14) and retry (R15). See job.h. Source: direct-api.md 2.14, 3.6. */
#include "base/clock.h"
#include "jobs/job.h"

#include "base/mem.h"

static bool is_same(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

static enum errc check_token(const struct job_ask *a, const struct job_row *j, struct err *e)
{
	const struct token_claims *c = &a->claims;

	if (a->key || (is_same(c->request_id, j->request_id) && is_same(c->schema_version, j->schema_version) && is_same(c->job_type, j->job_type)))
		return E_OK;
	if (a->wish == JOB_WISH_CANCEL_DIRECT)
		return err_set(e, E_BAD_REQUEST, "generic cancellation token does not match the active request");
	return err_set(e, E_BAD_REQUEST, "generic %s token does not match the lifecycle job", a->wish == JOB_WISH_CANCEL ? "cancellation" : "retry");
}

static enum errc cancel_waiting(struct store_tx *t, struct job_row *j, int64_t now_ms, struct err *e)
{
	AUTO_BUF out = BUF_MAX(256u << 10);
	struct jw w = JW(&out);
	enum job_state from = j->state;
	enum errc rc = job_move(j, JOB_CANCELLED, now_ms, e);

	if (rc)
		return rc;
	jw_obj(&w, NULL);
	jw_str(&w, "job_id", j->job_id);
	jw_str(&w, "status", "cancelled");
	jw_obj(&w, "error");
	jw_str(&w, "code", "cancelled");
	jw_str(&w, "message", "generic job cancelled before dispatch");
	jw_end(&w);
	jw_end(&w);
	rc = jw_done(&w, e);
	if (rc)
		return rc;
	mem_free(j->result);
	j->result = buf_take(&out, NULL);
	if (!j->result)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = jobs_save_tx(t, j, from, j->attempt, e);
	return rc ? rc : job_audit(t, j, AUDIT_CANCELLED, now_ms, SLICE(""), e);
}

static enum errc cancel(struct store_tx *t, struct job_ask *a, struct job_row *j, int64_t now_ms, struct err *e)
{
	enum errc rc = job_audit(t, j, AUDIT_CANCEL_ASKED, now_ms, SLICE(""), e);

	if (rc || job_is_ended(j->state))
		return rc;
	if (j->state == JOB_QUEUED)
		return cancel_waiting(t, j, now_ms, e);
	a->is_stop_wanted = true;
	j->is_cancel_asked = true;
	return jobs_save_tx(t, j, j->state, j->attempt, e);
}

static enum errc retry(struct store_tx *t, struct job_row *j, int64_t now_ms, struct err *e)
{
	AUTO_BUF details = BUF_MAX(256);
	enum job_state from = j->state;
	enum errc rc = job_begin_anew(j, now_ms, e);

	if (!rc)
		rc = jobs_save_tx(t, j, from, j->attempt, e);
	if (!rc)
		rc = buf_addf(&details, e, "{\"retry_count\":%lld,\"manual\":true}", (long long)j->retry_count);
	return rc ? rc : job_audit(t, j, AUDIT_RETRY, now_ms, buf_slice(&details), e);
}

static enum errc find(struct store_tx *t, const struct job_ask *a, struct job_row *ret, struct err *e)
{
	enum errc rc;

	if (a->key)
		return jobs_get_tx(t, a->key, ret, e);
	if (a->wish != JOB_WISH_CANCEL_DIRECT)
		return jobs_find_tx(t, slice_str(a->claims.job_id), ret, e);
	rc = jobs_find_direct_tx(t, slice_str(a->claims.job_id), ret, e);
	return rc == E_JOB_NOT_FOUND ? err_set(e, E_JOB_NOT_RUNNING, "Generic job is not running on this node") : rc;
}

static enum errc ask(struct store_tx *t, struct store_job *job, struct err *e)
{
	struct job_ask *a = CONTAINER_OF(job, struct job_ask, job);
	AUTO_JOB_ROW j = { 0 };
	int64_t now_ms = clock_wall_ms();
	enum errc rc = find(t, a, &j, e);

	a->is_stop_wanted = false;
	if (!rc)
		rc = check_token(a, &j, e);
	if (!rc)
		rc = a->wish == JOB_WISH_RETRY ? retry(t, &j, now_ms, e) : cancel(t, a, &j, now_ms, e);
	if (rc)
		return rc;
	job_row_done(&a->found);
	a->found = j;
	j = (struct job_row){ 0 };
	return E_OK;
}

void job_ask_init(struct job_ask *a, enum job_wish wish)
{
	*a = (struct job_ask){ .job = { .name = wish == JOB_WISH_RETRY ? "job.retry" : "job.cancel", .body = ask }, .wish = wish };
}

void job_ask_done(struct job_ask *a)
{
	token_claims_done(&a->claims);
	job_row_done(&a->found);
}
