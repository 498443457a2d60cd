/*
 * How an attempt ends: what its exit record says, the files that it left, last events and result. Called by run.c, on the
 * supervisor's loop; outputs are collected on the pool. Source: direct-api.md 3.8, 3.10.
 */
#include "jobs/run.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define RESULT_MAX (64u << 20)          /* with the list of its artifacts */

static void result_head(const struct run *r, struct jw *w, const char *status)
{
	jw_obj(w, NULL);
	jw_str(w, "job_id", r->job_id);
	jw_str(w, "status", status);
}

static void wall_member(struct jw *w, const char *key, int64_t wall_ms)
{
	char text[CLOCK_ISO_LEN];

	clock_iso(wall_ms, text);
	jw_str(w, key, text);
}

void run_add_event(struct run *r, enum event_type type, int64_t pos, const char *message, struct slice data)
{
	(void)!events_add(&r->record.events, type, pos, clock_wall_ms(), slice_str(message), data, NULL);
}

/* Behind everything that the journal has, and the artifacts. */
static int64_t end_pos(const struct run *r)
{
	return (r->journal.read_at + 16) * 8 + (int64_t)r->record.end.outs.n;
}

/* ---- artifacts ---- */

static bool is_tenant_owned(const struct run *r)
{
	return slice_eq(json_slice(json_get(json_get(r->request, "policy"), "trust_mode")), SLICE("tenant-owned"));
}

static void artifact_list(const struct run *r, struct jw *w, const char *key)
{
	const struct artifact_outs *o = &r->record.end.outs;

	jw_arr(w, key);
	for (size_t i = 0; i < o->n; i++)
		artifact_output_json(w, NULL, r->job_id, &o->v[i], buf_slice(&r->collected.label), is_tenant_owned(r));
	jw_end(w);
}

/* One event each, their list for the row, and the rows themselves: all in the record of the end. */
static void add_artifacts(struct run *r)
{
	struct job_end *end = &r->record.end;
	const struct artifact_outs *o = &end->outs;
	AUTO_BUF text = BUF_MAX(EVENTS_BYTES_MAX);
	struct jw w = JW(&text);
	struct err ignored;

	if (end->has_files || !r->has_files)
		return;
	for (size_t i = 0; i < o->n; i++) {
		buf_clear(&text);
		w = JW(&text);
		jw_obj(&w, NULL);
		artifact_output_json(&w, "artifact", r->job_id, &o->v[i], buf_slice(&r->collected.label), is_tenant_owned(r));
		jw_end(&w);
		if (!jw_done(&w, &ignored))
			run_add_event(r, EVENT_ARTIFACT, (r->journal.read_at + 16) * 8 + (int64_t)i, "output artifact collected", buf_slice(&text));
		end->artifact_bytes += o->v[i].size_bytes;
	}
	end->artifact_count = (int64_t)o->n;
	buf_clear(&text);
	w = JW(&text);
	artifact_list(r, &w, NULL);
	end->artifacts = jw_done(&w, &ignored) ? NULL : buf_take(&text, NULL);
	end->has_files = true;
}

/* ---- ends ---- */

/* The end stands in r->record: last event and result together. */
static void end_with(struct run *r, enum job_state to, struct buf *result, struct jw *w)
{
	struct err e = { 0 };

	r->phase = RUN_ENDING;
	r->record.has_end = true;
	r->record.end.to = to;
	mem_free(r->record.end.result);
	r->record.end.result = jw_done(w, &e) ? NULL : buf_take(result, NULL);
	if (!r->is_recording)
		run_submit(r);
}

/* A failure that the node found itself: {job_id, status, error, finished_at} (3.10). */
void run_fail(struct run *r, const char *code, const char *message)
{
	bool is_cancel = strcmp(code, "cancelled") == 0, is_timeout = strcmp(code, "timeout") == 0;
	AUTO_BUF result = BUF_MAX(RESULT_MAX);
	struct jw w = JW(&result);
	char data[80];

	r->end_code = is_cancel ? NULL : code;
	r->is_judged = !is_cancel;
	snprintf(data, sizeof(data), "{\"code\":\"%s\"}", code);
	add_artifacts(r);
	run_add_event(r, is_cancel ? EVENT_CANCELLED : EVENT_FAILED, end_pos(r), message, slice_str(data));
	result_head(r, &w, is_cancel ? "cancelled" : "failed");
	jw_obj(&w, "error");
	jw_str(&w, "code", code);
	jw_str(&w, "message", message);
	jw_bool(&w, "retryable", is_timeout);
	jw_end(&w);
	if (r->record.end.outs.n)
		artifact_list(r, &w, "artifacts");
	wall_member(&w, "finished_at", clock_wall_ms());
	jw_end(&w);
	r->record.end.is_retryable = is_timeout || (r->is_lost && r->runner && r->runner->is_idempotent);
	end_with(r, is_cancel ? JOB_CANCELLED : JOB_FAILED, &result, &w);
}

/* It surely did not begin: back into the queue, and nothing is said of it. */
void run_again(struct run *r)
{
	if (r->is_stop_wanted) {
		run_fail(r, "cancelled", "generic job cancelled");
		return;
	}
	r->phase = RUN_ENDING;
	r->record.has_end = true;
	r->record.end.to = JOB_CANCELLED;      /* if it was asked to end meanwhile */
	r->record.end.is_lost = true;
	if (!r->is_recording)
		run_submit(r);
}

static void succeed(struct run *r, const struct run_exit *x, const struct run_result *got)
{
	AUTO_BUF result = BUF_MAX(RESULT_MAX);
	struct jw w = JW(&result);
	char data[160];

	r->end_code = NULL;
	r->is_judged = true;
	add_artifacts(r);
	snprintf(data, sizeof(data), "{\"status\":\"succeeded\",\"exit_code\":%lld,\"runner\":\"%s\"}", (long long)x->code, r->runner->name);
	run_add_event(r, EVENT_COMPLETED, end_pos(r), "generic job completed", slice_str(data));
	result_head(r, &w, "succeeded");
	jw_i64(&w, "exit_code", x->code);
	if (got->metrics.n)
		jw_raw(&w, "metrics", buf_slice(&got->metrics));
	artifact_list(r, &w, "artifacts");
	wall_member(&w, "started_at", x->started_ms);
	wall_member(&w, "finished_at", x->ended_ms);
	jw_end(&w);
	end_with(r, JOB_SUCCEEDED, &result, &w);
}

static void judge(struct run *r, const struct run_exit *x)
{
	struct run_result got = { .metrics = BUF_MAX(RESULT_MAX) };
	struct err e = { 0 };
	char message[256];

	if (strcmp(x->reason, "timeout") == 0) {
		run_fail(r, "timeout", "generic job timed out");
	} else if (strcmp(x->reason, "stopped") == 0 && r->is_stop_wanted) {
		run_fail(r, "cancelled", "generic job cancelled");
	} else if (strcmp(x->reason, "not_started") == 0) {
		snprintf(message, sizeof(message), "the job could not be started: %.200s", x->error);
		run_fail(r, "runner_error", message);
	} else if (x->is_oom && x->code != 0) {
		run_fail(r, "out_of_memory", "the job was killed: out of memory");
	} else if (strcmp(x->reason, "stopped") == 0 || x->code < 0) {
		snprintf(message, sizeof(message), "the job was killed by signal %lld", (long long)x->signal);
		run_fail(r, "runner_failed", message);
	} else if (r->runner->judge(r->request, x, &got, &e)) {
		run_fail(r, "runner_error", e.what);
	} else if (got.is_success && r->collect_rc) {
		log_event(LOG_WARN, "job.collect_failed", "job=%s what=%s", r->job_id, r->collect_err.what);
		run_fail(r, "runner_error", r->collect_rc == E_BAD_REQUEST ? r->collect_err.what : "the outputs of the job could not be kept");
	} else if (got.is_success && r->collected.lacks[0]) {
		run_fail(r, "runner_error", r->collected.lacks);
	} else if (got.is_success) {
		succeed(r, x, &got);
	} else {
		run_fail(r, got.code, got.message);
	}
	buf_done(&got.metrics);
}

/* ---- over ---- */

static void collect_work(struct pool_job *j)    /* THREAD(pool) */
{
	struct run *r = CONTAINER_OF(j, struct run, pool);

	r->collect_rc = workspace_collect(&r->files, r->s->o.store, r->job_id, r->request, r->held_bytes, &r->collected, &r->collect_err);
}

static void on_collected(struct loop_msg *m)
{
	struct run *r = CONTAINER_OF(m, struct run, pool.done);

	r->is_on_pool = false;
	r->record.end.outs = r->collected.outs;
	r->collected.outs = (struct artifact_outs){ 0 };
	judge(r, &r->exit);
}

/* Also of a job that failed or was stopped: what it has done so far is its owner's. */
static void collect(struct run *r)
{
	int64_t totals[TOTAL__COUNT] = { 0 };
	struct err ignored;

	if (!job_totals_get(r->s->o.reader, totals, &ignored))
		r->held_bytes = totals[TOTAL_HELD_FILE_BYTES];
	r->phase = RUN_COLLECTING;
	run_on_pool(r, collect_work, on_collected);
}

static void read_exit(struct run *r)
{
	const struct json *record = r->exit_record;
	const char *reason = json_str(json_get(record, "reason")), *error = json_str(json_get(record, "error"));

	r->exit = (struct run_exit){ .reason = reason ? reason : "exited", .code = -1, .is_oom = json_is_true(json_get(record, "is_oom")),
				     .error = error ? error : "" };
	(void)!json_i64(json_get(record, "started_ms"), &r->exit.started_ms);
	(void)!json_i64(json_get(record, "ended_ms"), &r->exit.ended_ms);
	(void)!json_i64(json_get(record, "code"), &r->exit.code);
	(void)!json_i64(json_get(record, "signal"), &r->exit.signal);
}

void run_finish(struct run *r)
{
	AUTO_BUF text = BUF_MAX(64u << 10);
	struct err e = { 0 };

	if (r->has_no_room) {
		log_event(LOG_WARN, "job.start_held", "job=%s what=\"its shim found no room on the disk\"", r->job_id);
		supervisor_hold(r->s);
		run_again(r);
		return;
	}
	if (run_dir_exit(r, &text, &e) || json_parse(buf_slice(&text), JSON_LIMITS_DEFAULT, &r->exit_record, &e)) {
		r->is_lost = true;
		run_fail(r, "node_lost", "the job's process was lost: its supervisor ended without a record");
		return;
	}
	read_exit(r);
	run_read_last(r);
	if (r->has_files && strcmp(r->exit.reason, "not_started") != 0)
		collect(r);
	else
		judge(r, &r->exit);
}
