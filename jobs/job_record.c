/*
 * The body of a record: events of an attempt with how far its journal is read, and its end, in one transaction: nothing
 * of it is lost or doubled whatever dies. See job.h. Source: direct-api.md 3.6, 3.8.
 */
#include "base/clock.h"
#include "jobs/job.h"

#include "base/mem.h"

static enum errc replace(char **at, const char *with, struct err *e)
{
	char *copy = with ? mem_strdup(with) : NULL;

	if (with && !copy)
		return err_set(e, E_NO_MEMORY, "no memory");
	mem_free(*at);
	*at = copy;
	return E_OK;
}

/* The newest "progress" event with a number in it (3.9). */
static void note_progress(struct job_row *j, struct slice data)
{
	static const char *const names[] = { "progress_percent", "percent", "progress" };
	struct slice raw;
	double v;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (!json_find_member(data, names[i], &raw) || !slice_to_f64(raw, &v))
			continue;
		j->progress_percent = v < 0 ? 0 : v > 100 ? 100 : v;
		return;
	}
}

static enum errc add_events(struct store_tx *t, struct job_record *r, struct job_row *j, struct err *e)
{
	struct audit_row a = { .job_key = j->key, .wall_ms = clock_wall_ms(), .action = AUDIT_EVENT,
			       .first_sequence = j->next_sequence, .events = (int64_t)r->events.n };
	AUTO_FREE char *last = NULL;
	AUTO_BUF types = BUF_MAX(EVENTS_BYTES_MAX);
	enum errc rc = E_OK;

	if (!r->events.n)
		return E_OK;
	for (size_t i = 0; !rc && i < r->events.n; i++) {
		struct event_row v = events_row(&r->events, i);

		char letter = (char)(AUDIT_TYPE_0 + (int)v.type);

		v.attempt = r->attempt;
		v.sequence = j->next_sequence++;
		if (event_is_log(v.type))
			j->log_bytes += (int64_t)v.message.n;
		if (v.type == EVENT_PROGRESS)
			note_progress(j, v.data);
		rc = job_events_add_tx(t, j->key, &v, 1, e);
		if (!rc)
			rc = buf_add(&types, &letter, 1, e);
		if (i + 1 < r->events.n)
			continue;
		j->last_event_type = v.type;
		last = v.message.p ? slice_dup(slice_cut(v.message, 4096)) : NULL;
	}
	if (!rc)
		rc = replace(&j->last_event_message, last, e);
	a.details = buf_slice(&types);
	return rc ? rc : audit_add_tx(t, &a, e);
}

/* 3.9, weakness 23: only jobs that reserved a GPU count, and every attempt does. */
static int64_t gpu_ms(const struct job_row *j)
{
	double count = 0;
	struct slice raw;

	if (!j->reservation || !json_find_member(slice_str(j->reservation), "gpu_count", &raw) || !slice_to_f64(raw, &count))
		return 0;
	if (j->finished_wall_ms <= j->started_wall_ms || count < 1)
		return 0;
	return (int64_t)((double)(j->finished_wall_ms - j->started_wall_ms) * (double)(int64_t)count);
}

static enum errc audit_retry(struct store_tx *t, const struct job_row *j, int64_t now_ms, struct err *e)
{
	AUTO_BUF details = BUF_MAX(256);
	char when[CLOCK_ISO_LEN];
	enum errc rc;

	clock_iso(j->next_retry_wall_ms, when);
	rc = buf_addf(&details, e, "{\"retry_count\":%lld,\"next_retry_at\":\"%s\"}", (long long)j->retry_count, when);
	return rc ? rc : job_audit(t, j, AUDIT_RETRY, now_ms, buf_slice(&details), e);
}

static enum errc end(struct store_tx *t, struct job_record *r, struct job_row *j, int64_t now_ms, struct err *e)
{
	struct job_end *x = &r->end;
	bool is_again = !j->is_cancel_asked && (x->is_lost || (x->is_retryable && j->retry_count < j->max_retries));
	AUTO_BUF details = BUF_MAX(256);
	enum errc rc = job_move(j, is_again ? JOB_RETRYING : x->to, now_ms, e);

	if (!rc && x->result)
		rc = replace(&j->result, x->result, e);
	if (!rc)
		rc = replace(&j->artifacts, x->artifacts ? x->artifacts : is_again ? NULL : "[]", e);
	if (!rc)
		rc = replace(&j->validation_issues, x->issues, e);
	if (!rc && x->has_files)
		rc = artifact_outs_tx(t, j, &x->outs, e);
	if (rc)
		return rc;
	j->artifact_count = x->artifact_count;
	j->artifact_bytes = x->artifact_bytes;
	job_totals_add_tx(t, TOTAL_ARTIFACTS, x->artifact_count);
	job_totals_add_tx(t, TOTAL_ARTIFACT_BYTES, x->artifact_bytes);
	if (is_again)
		j->finished_wall_ms = now_ms;
	job_totals_add_tx(t, TOTAL_GPU_MS, gpu_ms(j));
	if (is_again) {
		j->retry_count += !x->is_lost;
		rc = job_move(j, JOB_QUEUED, now_ms, e);
	}
	if (!rc)
		rc = jobs_save_tx(t, j, JOB_RUNNING, r->attempt, e);
	if (!rc && is_again)
		rc = audit_retry(t, j, now_ms, e);
	if (!rc && !is_again)
		rc = buf_addf(&details, e, "{\"status\":\"%s\"}", job_state_name(j->state));
	if (!rc && !is_again)
		rc = job_audit(t, j, j->state == JOB_CANCELLED ? AUDIT_CANCELLED : AUDIT_COMPLETED, now_ms, buf_slice(&details), e);
	return rc ? rc : job_audit(t, j, AUDIT_RELEASED, now_ms, SLICE(""), e);
}

static enum errc record(struct store_tx *t, struct store_job *job, struct err *e)
{
	struct job_record *r = CONTAINER_OF(job, struct job_record, job);
	AUTO_JOB_ROW j = { 0 };
	int64_t now_ms = clock_wall_ms();
	enum errc rc = jobs_get_tx(t, r->key, &j, e);

	if (rc)
		return rc;
	if (j.state != JOB_RUNNING || j.attempt != r->attempt)
		return err_set(e, E_CONFLICT, "job %s: attempt %lld is not the one that runs", j.job_id, (long long)r->attempt);
	rc = add_events(t, r, &j, e);
	if (!rc && r->at.job_key) {
		r->at.out_carry = buf_slice(&r->out_carry);
		r->at.err_carry = buf_slice(&r->err_carry);
		rc = attempts_save_tx(t, &r->at, e);
	}
	j.updated_wall_ms = now_ms;
	if (!rc)
		rc = r->has_end ? end(t, r, &j, now_ms, e) : jobs_save_tx(t, &j, JOB_RUNNING, r->attempt, e);
	if (rc)
		return rc;
	job_row_done(&r->found);
	r->found = j;
	j = (struct job_row){ 0 };
	return E_OK;
}

void job_record_init(struct job_record *r)
{
	*r = (struct job_record){ .job = { .name = "job.record", .body = record }, .events = EVENTS_EMPTY,
				  .out_carry = BUF_MAX(LINE_MAX_BYTES), .err_carry = BUF_MAX(LINE_MAX_BYTES) };
}

void job_record_done(struct job_record *r)
{
	char *texts[] = { r->end.result, r->end.artifacts, r->end.issues };

	events_done(&r->events);
	buf_done(&r->out_carry);
	buf_done(&r->err_carry);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		mem_free(texts[i]);
	artifact_outs_done(&r->end.outs);
	r->end = (struct job_end){ 0 };
	job_row_done(&r->found);
}
