/*
 * The life of one attempt: planned, prepared on the pool, followed, ended. One record is on its way to the store at most;
 * what happens meanwhile waits in the journal. See run.h.
 */
#include "jobs/run.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/shim/format.h"
#include "jobs/subs.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define READ_BLOCK (256u << 10)
#define AGAIN_MS 1000                   /* until the store is asked again */

/* ---- made and freed ---- */

enum errc run_new(struct supervisor *s, const struct job_row *row, struct run **ret, struct err *e)
{
	struct run *r = NEW(struct run);
	enum errc rc;

	if (!r)
		return err_set(e, E_NO_MEMORY, "jobs: no memory for an attempt");
	r->s = s;
	r->key = row->key;
	r->attempt = row->attempt;
	r->pid_fd = r->inotify = -1;
	r->plan.spec = BUF_MAX(1u << 20);
	job_record_init(&r->record);
	supervisor_attempt_dir(s, r->key, r->attempt, r->dir);
	r->job_id = mem_strdup(row->job_id);
	journal_init(&r->journal, NULL, NULL, r->job_id);
	rc = json_parse(slice_str(row->request), JSON_LIMITS_DEFAULT, &r->request, e);
	if (!rc && !r->job_id)
		rc = err_set(e, E_NO_MEMORY, "jobs: no memory for an attempt");
	if (rc) {
		run_free(r);
		return rc;
	}
	r->runner = runner_find(slice_trim_js(json_slice(json_get(r->request, "job_type"))));
	r->journal.request = r->request;
	r->journal.runner = r->runner;
	r->has_files = workspace_is_needed(r->request);
	r->files = (struct workspace){ .files = s->o.files, .job_key = r->key, .attempt = r->attempt };
	*ret = r;
	return E_OK;
}

static void close_watches(struct run *r)
{
	loop_watch_del(r->s->o.loop, r->pid_watch);
	r->pid_watch = 0;
	if (r->pid_fd >= 0)
		close(r->pid_fd);
	if (r->inotify >= 0)
		inotify_rm_watch(r->s->inotify_fd, r->inotify);
	journal_close(&r->journal);
	r->pid_fd = r->inotify = -1;
}

void run_free(struct run *r)
{
	if (!r)
		return;
	close_watches(r);
	loop_timer_cancel(r->s->o.loop, &r->again);
	job_record_done(&r->record);
	journal_done(&r->journal);
	buf_done(&r->plan.spec);
	workspace_done(&r->files);
	collected_done(&r->collected);
	json_free(r->exit_record);
	json_free(r->request);
	mem_free(r->job_id);
	mem_free(r);
}

/* ---- to the store ---- */

static void on_removed(struct loop_msg *m)
{
	struct run *r = CONTAINER_OF(m, struct run, pool.done);

	r->is_on_pool = false;
	supervisor_drop(r->s, r);
}

static void remove_work(struct pool_job *j)     /* THREAD(pool) */
{
	struct run *r = CONTAINER_OF(j, struct run, pool);

	run_dir_remove(r);
	if (r->has_files)
		artifact_work_remove(r->s->o.files, r->key, r->attempt);
	artifact_files_remove(r->s->o.files, r->record.end.outs.gone.v, r->record.end.outs.gone.n);
}

void run_on_pool(struct run *r, void (*work)(struct pool_job *), void (*done)(struct loop_msg *))
{
	struct err e;

	r->pool = (struct pool_job){ .work = work, .loop = r->s->o.loop, .done = { .fn = done } };
	r->is_on_pool = true;
	if (!pool_submit(r->s->o.pool, &r->pool, &e))
		return;
	work(&r->pool);                        /* its queue is full: rare, and better late than not */
	done(&r->pool.done);
}

static void remove_dir(struct run *r)
{
	r->phase = RUN_REMOVING;
	close_watches(r);
	run_on_pool(r, remove_work, on_removed);
}

static void on_again(struct loop_timer *t)
{
	run_submit(CONTAINER_OF(t, struct run, again));
}

static void on_recorded(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct run *r = CONTAINER_OF(CONTAINER_OF(job, struct job_record, job), struct run, record);
	char text[240];

	if (job->rc == E_CONFLICT || job->rc == E_JOB_NOT_FOUND) {      /* this attempt is not the one that counts any more */
		r->is_recording = false;
		log_event(LOG_WARN, "job.attempt_dropped", "job=%s attempt=%lld %s", r->job_id, (long long)r->attempt,
			  log_err(&job->e, text, sizeof(text)));
		remove_dir(r);
		return;
	}
	if (job->rc) {                         /* still on its way: nothing is read into it meanwhile */
		log_event(LOG_WARN, "job.record_failed", "job=%s %s", r->job_id, log_err(&job->e, text, sizeof(text)));
		loop_timer_set(r->s->o.loop, &r->again, loop_now_ms(r->s->o.loop) + AGAIN_MS);
		return;
	}
	r->is_recording = false;
	subs_publish(r->s->o.subs, r->key);
	if (r->record.has_end) {
		log_event(LOG_INFO, "job.ended", "job=%s attempt=%lld state=%s", r->job_id, (long long)r->attempt,
			  job_state_name(r->record.found.state));
		if (r->is_judged && r->s->o.on_end)
			r->s->o.on_end(r->s->o.ctx, r->exit.ended_ms > r->exit.started_ms ? r->exit.ended_ms - r->exit.started_ms : 0, r->end_code);
		remove_dir(r);
		return;
	}
	events_clear(&r->record.events);
	r->record.at.job_key = 0;
	run_step(r);
}

void run_submit(struct run *r)
{
	struct err e = { 0 };

	r->record.key = r->key;
	r->record.attempt = r->attempt;
	r->record.job.loop = r->s->o.loop;
	r->record.job.done.fn = on_recorded;
	r->is_recording = true;
	r->again.fn = on_again;
	if (!store_submit(r->s->o.store, &r->record.job, &e))
		return;
	loop_timer_set(r->s->o.loop, &r->again, loop_now_ms(r->s->o.loop) + AGAIN_MS);
}

/* ---- what it says ---- */

/* How far it is read goes into the same record as what was read. */
static void note_place(struct run *r)
{
	struct job_record *rec = &r->record;
	struct err ignored;

	rec->at = (struct attempt_row){ .job_key = r->key, .attempt = r->attempt, .journal_bytes = r->journal.read_at,
					.out_lines = r->journal.out_lines, .err_lines = r->journal.err_lines };
	buf_clear(&rec->out_carry);
	buf_clear(&rec->err_carry);
	(void)!buf_add_slice(&rec->out_carry, buf_slice(&r->journal.out_line), &ignored);
	(void)!buf_add_slice(&rec->err_carry, buf_slice(&r->journal.err_line), &ignored);
}

void run_read_last(struct run *r)
{
	journal_last(&r->journal, &r->record.events);
	note_place(r);
}

/* ---- the way ---- */

void run_step(struct run *r)
{
	if (r->is_recording || r->is_on_pool)
		return;
	if (r->phase == RUN_ENDING) {
		run_submit(r);
		return;
	}
	if (r->phase != RUN_RUNNING && r->phase != RUN_OVER)
		return;
	if (journal_read(&r->journal, r->dir, READ_BLOCK, &r->record.events)) {
		note_place(r);
		run_submit(r);
		return;
	}
	if (r->phase == RUN_OVER)
		run_finish(r);
}

static void on_shim_ended(void *arg, uint32_t events)
{
	struct run *r = arg;
	int status = 0;

	(void)events;
	loop_watch_del(r->s->o.loop, r->pid_watch);
	r->pid_watch = 0;
	if (r->is_child && waitpid(r->pid, &status, WNOHANG) == r->pid)
		r->has_no_room = WIFEXITED(status) && WEXITSTATUS(status) == SHIM_NO_ROOM;
	r->phase = RUN_OVER;
	run_step(r);
}

/* From now on its files and its end are told. */
static void watch(struct run *r)
{
	struct err e = { 0 };

	r->phase = RUN_RUNNING;
	r->inotify = inotify_add_watch(r->s->inotify_fd, r->dir, IN_MODIFY | IN_MOVED_TO | IN_ONLYDIR);
	r->pid_fd = (int)syscall(SYS_pidfd_open, r->pid, 0);
	if (r->pid_fd < 0 || loop_watch_add(r->s->o.loop, r->pid_fd, EPOLLIN, on_shim_ended, r, &r->pid_watch, &e)) {
		on_shim_ended(r, 0);           /* gone already, or not to be watched: what it left says how it ended */
		return;
	}
	if (r->is_stop_wanted)
		run_dir_stop(r);
	run_step(r);
}

static void prepare_work(struct pool_job *j)    /* THREAD(pool) */
{
	struct run *r = CONTAINER_OF(j, struct run, pool);

	r->pool_rc = r->has_files ? workspace_stage(&r->files, &r->pool_err) : E_OK;
	if (!r->pool_rc)
		r->pool_rc = run_dir_start(r, &r->pool_err);
}

static int64_t limit_ms(const struct run *r)
{
	int64_t wanted = job_facts(r->request).timeout_ms;

	return wanted && wanted < r->s->o.timeout_ms ? wanted : r->s->o.timeout_ms;
}

static void add_started(struct run *r)
{
	AUTO_BUF data = BUF_MAX(1024);
	char message[256];

	snprintf(message, sizeof(message), "Running %.200s", r->runner->job_type);
	(void)!buf_addf(&data, NULL, "{\"runner\":\"%s\",\"sandbox_profile\":\"%s\",\"timeout_ms\":%lld}", r->runner->name,
			r->runner->sandbox, (long long)limit_ms(r));
	run_add_event(r, EVENT_STARTED, 0, message, buf_slice(&data));
	note_place(r);
}

static void on_prepared(struct loop_msg *m)
{
	struct run *r = CONTAINER_OF(m, struct run, pool.done);
	char text[240];

	r->is_on_pool = false;
	if (r->pool_rc == E_BAD_REQUEST) {
		run_fail(r, "validation_failed", r->pool_err.what);
		return;
	}
	if (r->pool_rc == E_READ_ONLY) {       /* no room on the disk: that is not the job's fault */
		log_event(LOG_WARN, "job.start_held", "job=%s %s", r->job_id, log_err(&r->pool_err, text, sizeof(text)));
		supervisor_hold(r->s);
		run_again(r);
		return;
	}
	if (r->pool_rc) {
		/* No room for its inputs: it may be of their size, so others are not held up, and it is told which number was passed. */
		bool is_told = r->pool_rc == E_NO_SPACE;

		log_event(LOG_ERROR, "job.start_failed", "job=%s %s", r->job_id, log_err(&r->pool_err, text, sizeof(text)));
		run_fail(r, "runner_error", is_told ? r->pool_err.what : "the job could not be started on this node");
		return;
	}
	r->is_child = true;
	add_started(r);
	run_submit(r);
	watch(r);
}

/* What every attempt has beside what its runner plans. */
static enum errc plan_limits(struct run *r, struct err *e)
{
	const struct job_facts f = job_facts(r->request);
	AUTO_BUF mark = BUF_MAX(1024);
	char group[80];
	enum errc rc = buf_addf(&mark, e, "MSWARM_ATTEMPT=%s", r->dir);

	snprintf(group, sizeof(group), "mswarm-%016llx-%lld", (unsigned long long)r->key, (long long)r->attempt);
	if (!rc)
		rc = run_plan_add(&r->plan, "env", buf_slice(&mark), e);
	if (!rc && r->has_files) {
		char work[600];

		artifact_work_path(r->s->o.files, r->key, r->attempt, work, sizeof(work));
		rc = run_plan_add(&r->plan, "cwd", slice_str(work), e);
	}
	if (!rc)
		rc = run_plan_add(&r->plan, "cgroup", slice_str(group), e);
	if (!rc)
		rc = run_plan_add_i64(&r->plan, "limit_ms", limit_ms(r), e);
	if (!rc)
		rc = run_plan_add_i64(&r->plan, "grace_ms", r->s->o.grace_ms, e);
	if (!rc && f.memory_bytes > 0)
		rc = run_plan_add_i64(&r->plan, "memory_max", f.memory_bytes, e);
	if (!rc && r->s->o.nofile > 0)
		rc = run_plan_add_i64(&r->plan, "nofile", r->s->o.nofile, e);
	if (!rc)
		rc = run_plan_add_i64(&r->plan, "out_max", f.stdout_max ? f.stdout_max : JOB_STREAM_MAX, e);
	return rc ? rc : run_plan_add_i64(&r->plan, "err_max", f.stderr_max ? f.stderr_max : JOB_STREAM_MAX, e);
}

void run_begin(struct run *r)
{
	AUTO_BUF issues = BUF_MAX(4u << 20);
	struct jw w = JW(&issues);
	struct err e = { 0 };
	char message[256];
	size_t n;
	enum errc rc;

	r->phase = RUN_PREPARING;
	jw_arr(&w, NULL);
	n = job_check(r->request, &w);
	jw_end(&w);
	if (n) {
		r->record.end.issues = jw_done(&w, &e) ? NULL : buf_take(&issues, NULL);
		run_fail(r, "validation_failed", "generic job request failed validation");
		return;
	}
	if (!r->runner) {
		snprintf(message, sizeof(message), "No generic job runner is registered for %.120s.", json_str(json_get(r->request, "job_type")));
		run_fail(r, "runner_unavailable", message);
		return;
	}
	rc = r->has_files ? workspace_plan(&r->files, r->s->o.reader, r->request, job_facts(r->request).tenant_id, &e) : E_OK;
	if (!rc)
		rc = r->runner->plan(r->request, &r->plan, &e);
	if (!rc)
		rc = plan_limits(r, &e);
	if (rc) {
		run_fail(r, rc == E_BAD_REQUEST ? "validation_failed" : "runner_error", e.what);
		return;
	}
	run_on_pool(r, prepare_work, on_prepared);
}

void run_stop(struct run *r)
{
	if (r->is_stop_wanted)
		return;
	r->is_stop_wanted = true;
	if (r->phase == RUN_RUNNING)
		run_dir_stop(r);
}

/* ---- after a restart ---- */

/* What of it stands in the store already. */
static enum errc load_place(struct run *r, bool *ret_has_start, int64_t *ret_boot, struct err *e)
{
	struct attempt_row at = { 0 };
	enum errc rc = attempts_get(r->s->o.reader, r->key, r->attempt, &at, &r->journal.out_line, &r->journal.err_line, e);

	r->journal.read_at = at.journal_bytes > 0 ? at.journal_bytes : 0;
	r->journal.out_lines = at.out_lines;
	r->journal.err_lines = at.err_lines;
	*ret_has_start = at.journal_bytes >= 0;
	*ret_boot = at.boot;
	return rc;
}

void run_attach(struct run *r, enum run_found found, pid_t pid)
{
	struct err e = { 0 };
	int64_t boot = 0;
	bool has_start = false;

	if (load_place(r, &has_start, &boot, &e)) {
		run_fail(r, "node_lost", "the node lost what it knew of the attempt");
		return;
	}
	if (boot && r->s->boot && boot != r->s->boot && found != FOUND_ENDED)
		found = FOUND_LOST;            /* its process cannot live, and its directory may have lost what was not synced */
	log_event(LOG_INFO, "job.found", "job=%s attempt=%lld how=%s", r->job_id, (long long)r->attempt,
		  found == FOUND_ALIVE ? "alive" : found == FOUND_ENDED ? "ended" : found == FOUND_LOST ? "lost" : "never_begun");
	r->pid = pid;
	if (!has_start && found != FOUND_NEVER_BEGUN && r->runner) {
		add_started(r);
		run_submit(r);
	}
	if (found == FOUND_ALIVE) {
		watch(r);
		return;
	}
	r->phase = RUN_OVER;
	if (found != FOUND_NEVER_BEGUN) {
		run_step(r);
		return;
	}
	run_again(r);
}
