/* A job's record and its row in the ops summary. See show.h; lists stand in show_list.c. */
#include "jobs/show.h"

#include "base/clock.h"

static void text(struct jw *w, const char *key, const char *s)
{
	if (s)
		jw_str(w, key, s);
}

static void raw(struct jw *w, const char *key, const char *s)
{
	if (s)
		jw_raw(w, key, slice_str(s));
}

void show_time(struct jw *w, const char *key, int64_t wall_ms)
{
	char iso[CLOCK_ISO_LEN];

	if (!wall_ms)
		return;
	clock_iso(wall_ms, iso);
	jw_str(w, key, iso);
}

static void reservation(struct jw *w, const struct show *s)
{
	const struct job_row *j = s->row;

	if (!j->reservation)
		return;
	jw_obj(w, "reservation");
	jw_str(w, "node_id", s->node_id);
	jw_str(w, "tenant_id", j->tenant_id);
	jw_str(w, "job_id", j->job_id);
	jw_str(w, "request_id", j->request_id);
	show_time(w, "reserved_at", j->scheduled_wall_ms);
	show_time(w, "released_at", j->released_wall_ms);
	raw(w, "resources", j->reservation);
	jw_end(w);
	jw_obj(w, "envelope");
	jw_str(w, "schema_version", JOB_SCHEMA_VERSION);
	jw_str(w, "job_id", j->job_id);
	jw_str(w, "request_id", j->request_id);
	jw_str(w, "node_id", s->node_id);
	jw_str(w, "job_type", j->job_type);
	jw_str(w, "job_schema_version", j->schema_version);
	jw_str(w, "scope", "self_hosted.generic_job.invoke");
	show_time(w, "issued_at", j->scheduled_wall_ms);
	show_time(w, "expires_at", j->scheduled_wall_ms + JOB_ENVELOPE_MS);
	jw_str(w, "token_sha256", j->token_sha256);
	jw_end(w);
}

static void retry(struct jw *w, const struct job_row *j)
{
	jw_obj(w, "retry");
	jw_i64(w, "max_retries", j->max_retries);
	jw_i64(w, "retry_count", j->retry_count);
	jw_arr(w, "retryable_error_codes");
	jw_str(w, NULL, "timeout");
	jw_end(w);
	show_time(w, "next_retry_at", j->next_retry_wall_ms);
	jw_end(w);
}

static void backpressure(struct jw *w, const struct job_row *j, const struct show_held *held)
{
	if (j->backpressure || !held || !held->reason) {
		raw(w, "backpressure", j->backpressure);
		return;
	}
	jw_obj(w, "backpressure");
	jw_str(w, "reason", held->reason);
	jw_str(w, "message", held->message);
	if (held->retry_after_ms)
		jw_i64(w, "retry_after_ms", held->retry_after_ms);
	jw_end(w);
}

void show_job(struct jw *w, const char *key, const struct show *s, const struct show_held *held)
{
	const struct job_row *j = s->row;
	struct slice scheduling;

	jw_obj(w, key);
	jw_str(w, "schema_version", JOB_SCHEMA_VERSION);
	jw_str(w, "job_id", j->job_id);
	jw_str(w, "request_id", j->request_id);
	jw_str(w, "tenant_id", j->tenant_id);
	jw_str(w, "node_id", s->node_id);
	jw_str(w, "state", job_state_name(j->state));
	raw(w, "job", j->request);
	jw_str(w, "idempotency_key", j->idempotency_key);
	jw_i64(w, "priority", j->priority);
	if (json_find_member(slice_str(j->request), "scheduling", &scheduling))
		jw_raw(w, "scheduling", scheduling);
	show_time(w, "created_at", j->created_wall_ms);
	show_time(w, "updated_at", j->updated_wall_ms);
	show_time(w, "queued_at", j->queued_wall_ms);
	retry(w, j);
	show_time(w, "scheduled_at", j->scheduled_wall_ms);
	reservation(w, s);
	show_time(w, "started_at", j->started_wall_ms);
	show_time(w, "finished_at", j->finished_wall_ms);
	backpressure(w, j, held);
	raw(w, "result", j->result);
	raw(w, "artifacts", j->artifacts);
	raw(w, "validation_issues", j->validation_issues);
	jw_end(w);
}

void show_ops_job(struct jw *w, const struct show *s)
{
	const struct job_row *j = s->row;

	jw_obj(w, NULL);
	jw_str(w, "job_id", j->job_id);
	jw_str(w, "request_id", j->request_id);
	jw_str(w, "tenant_id", j->tenant_id);
	jw_str(w, "node_id", s->node_id);
	jw_str(w, "state", job_state_name(j->state));
	jw_str(w, "job_type", j->job_type);
	jw_str(w, "schema_version", j->schema_version);
	jw_i64(w, "priority", j->priority);
	show_time(w, "created_at", j->created_wall_ms);
	show_time(w, "updated_at", j->updated_wall_ms);
	show_time(w, "queued_at", j->queued_wall_ms);
	show_time(w, "scheduled_at", j->scheduled_wall_ms);
	show_time(w, "started_at", j->started_wall_ms);
	show_time(w, "finished_at", j->finished_wall_ms);
	jw_i64(w, "retry_count", j->retry_count);
	jw_i64(w, "max_retries", j->max_retries);
	if (j->progress_percent >= 0)
		jw_f64(w, "progress_percent", j->progress_percent);
	if (j->last_event_type >= 0)
		jw_str(w, "last_event_type", event_type_name((enum event_type)j->last_event_type));
	text(w, "last_event_message", j->last_event_message);
	jw_i64(w, "artifact_count", j->artifact_count);
	jw_i64(w, "artifact_bytes", j->artifact_bytes);
	jw_i64(w, "log_bytes", j->log_bytes);
	jw_end(w);
}
