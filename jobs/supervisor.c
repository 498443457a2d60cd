/*
 * Which attempts there are: claims while there is room, finds what runs after a restart, hands on what inotify and people
 * say. See supervisor.h. THREAD(supervisor) unless said otherwise.
 */
#include "jobs/supervisor.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "jobs/run.h"
#include "jobs/subs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#define LATER_MS 1000                   /* until the store is asked again */
#define PROBE_LOOK_MS 20
#define PRUNE_EVERY_MS 20000
#define PRUNE_STEP_MS 5                 /* between two steps: others come first */
#define SWEEP_STEP_MS 20                /* one of ARTIFACT_SHARDS directories */
#define DISK_FREE_MIN (1 << 20)         /* bytes: an attempt needs some files before it can say anything */
#define FOUND_MAX 100000                /* active rows read at the start: more than any max_active */

static void claim(struct supervisor *s);

/* ---- what runs ---- */

static void add(struct supervisor *s, struct run *r)
{
	r->next = s->runs;
	s->runs = r;
	s->run_count++;
}

void supervisor_drop(struct supervisor *s, struct run *r)
{
	for (struct run **at = &s->runs; *at; at = &(*at)->next) {
		if (*at != r)
			continue;
		*at = r->next;
		s->run_count--;
		break;
	}
	run_free(r);
	claim(s);
}

/* A row that says that it runs and cannot be read: it ends, or nothing would ever start in its place. */
static void begin_row(struct supervisor *s, const struct job_row *row)
{
	struct run *r = NULL;
	struct err e = { 0 };
	char text[240];

	if (run_new(s, row, &r, &e)) {
		log_event(LOG_ERROR, "job.unreadable", "job=%s %s", row->job_id, log_err(&e, text, sizeof(text)));
		return;
	}
	add(s, r);
	run_begin(r);
}

/* ---- claims ---- */

static void on_later(struct loop_timer *t)
{
	claim(CONTAINER_OF(t, struct supervisor, later));
}

static void wake_at(struct supervisor *s, int64_t in_ms)
{
	s->later.fn = on_later;
	loop_timer_set(s->o.loop, &s->later, loop_now_ms(s->o.loop) + in_ms);
}

static void on_claimed(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct job_claim *c = CONTAINER_OF(job, struct job_claim, job);
	struct supervisor *s = CONTAINER_OF(c, struct supervisor, claim);
	int64_t left_ms;
	char text[240];

	s->is_claiming = false;
	if (job->rc) {
		log_event(LOG_WARN, "job.claim_failed", "%s", log_err(&job->e, text, sizeof(text)));
		wake_at(s, LATER_MS);
		return;
	}
	atomic_store(&s->is_full, c->is_full);
	if (c->has_ended_some)
		subs_publish(s->o.subs, SUBS_ALL);
	for (size_t i = 0; i < c->n; i++)
		begin_row(s, &c->begun[i]);
	left_ms = c->next_deadline_wall_ms ? c->next_deadline_wall_ms - clock_wall_ms() : 3600000;
	if (left_ms > LATER_MS && atomic_load(&s->is_disk_full))
		left_ms = LATER_MS;
	if (c->next_deadline_wall_ms || atomic_load(&s->is_disk_full))
		wake_at(s, left_ms < 1 ? 1 : left_ms > 3600000 ? 3600000 : left_ms);
	if (s->is_claim_due || c->is_more)
		claim(s);
}

/* A job that began without room for its files would fail for nothing, and the next one too. */
static void look_at_disk(struct supervisor *s)
{
	int64_t left = run_dir_free(s);
	bool is_full = left < DISK_FREE_MIN;

	if (is_full != atomic_load(&s->is_disk_full))
		log_event(is_full ? LOG_WARN : LOG_INFO, is_full ? "job.disk_full" : "job.disk_freed", "free=%lld needed=%d", (long long)left, DISK_FREE_MIN);
	atomic_store(&s->is_disk_full, is_full);
}

void supervisor_hold(struct supervisor *s)
{
	s->hold_until_ms = loop_now_ms(s->o.loop) + LATER_MS;
}

bool supervisor_is_disk_full(const struct supervisor *s)
{
	return atomic_load(&s->is_disk_full);
}

/* Let waiting jobs begin, as far as there is room. */
static void claim(struct supervisor *s)
{
	struct err e = { 0 };
	bool is_known = false;

	s->is_claim_due = true;
	if (s->is_claiming || s->is_stopping || !s->is_started)
		return;
	if (loop_now_ms(s->o.loop) < s->hold_until_ms) {
		wake_at(s, s->hold_until_ms - loop_now_ms(s->o.loop));
		return;
	}
	capability_read(s->o.probe, &s->caps, &is_known);
	if (!is_known) {                       /* what nobody has looked for yet is not "missing" */
		wake_at(s, PROBE_LOOK_MS);
		return;
	}
	look_at_disk(s);
	s->is_claim_due = false;
	s->is_claiming = true;
	atomic_store(&s->is_full, false);
	s->claim.caps = &s->caps;
	s->claim.max_active = s->o.max_active;
	s->claim.boot = s->boot;
	s->claim.is_draining = s->o.is_off || atomic_load(s->o.drain) != 0 || atomic_load(&s->is_disk_full);
	s->claim.job.loop = s->o.loop;
	s->claim.job.done.fn = on_claimed;
	if (!store_submit(s->o.store, &s->claim.job, &e))
		return;
	s->is_claiming = false;
	wake_at(s, LATER_MS);
}

/* ---- forgetting ---- */

static void prune_at(struct supervisor *s, int64_t in_ms)
{
	if (!s->is_stopping)
		loop_timer_set(s->o.loop, &s->prune_timer, loop_now_ms(s->o.loop) + in_ms);
}

static void unlink_work(struct pool_job *j)     /* THREAD(pool) */
{
	struct supervisor *s = CONTAINER_OF(j, struct supervisor, files_job);

	artifact_files_remove(s->o.files, s->prune.gone.v, s->prune.gone.n);
}

static void on_unlinked(struct loop_msg *m)
{
	struct supervisor *s = CONTAINER_OF(m, struct supervisor, files_job.done);

	prune_at(s, s->prune.is_more ? PRUNE_STEP_MS : PRUNE_EVERY_MS);
}

static void on_pruned(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct supervisor *s = CONTAINER_OF(CONTAINER_OF(job, struct job_prune, job), struct supervisor, prune);
	struct err ignored;

	if (job->rc)
		s->prune.is_more = false;
	s->files_job = (struct pool_job){ .work = unlink_work, .loop = s->o.loop, .done = { .fn = on_unlinked } };
	/* What cannot be unlinked now has no row any more, and is swept at the next start. */
	if (job->rc || !s->prune.gone.n || pool_submit(s->o.pool, &s->files_job, &ignored))
		on_unlinked(&s->files_job.done);
}

static void on_prune(struct loop_timer *t)
{
	struct supervisor *s = CONTAINER_OF(t, struct supervisor, prune_timer);
	struct err ignored;

	job_prune_init(&s->prune, &s->o.keep);
	s->prune.job.loop = s->o.loop;
	s->prune.job.done.fn = on_pruned;
	if (store_submit(s->o.store, &s->prune.job, &ignored))
		prune_at(s, PRUNE_EVERY_MS);
}

/* ---- files that no row knows: their writer died before it could say so ---- */

static bool is_gone(void *ctx, int64_t key)
{
	const struct supervisor *s = ctx;

	return !artifacts_has_key(s->o.reader, key);
}

static void on_sweep(struct loop_timer *t)
{
	struct supervisor *s = CONTAINER_OF(t, struct supervisor, sweep_timer);

	artifact_files_sweep(s->o.files, s->swept++, is_gone, s);
	if (s->swept < ARTIFACT_SHARDS && !s->is_stopping)
		loop_timer_set(s->o.loop, t, loop_now_ms(s->o.loop) + SWEEP_STEP_MS);
}

static bool is_at_work(void *ctx, int64_t job_key, int64_t attempt)
{
	const struct supervisor *s = ctx;

	for (const struct run *r = s->runs; r; r = r->next)
		if (r->key == job_key && r->attempt == attempt)
			return true;
	return false;
}

static void start_sweep(struct supervisor *s)
{
	artifact_work_sweep(s->o.files, is_at_work, s);
	s->sweep_timer.fn = on_sweep;
	loop_timer_set(s->o.loop, &s->sweep_timer, loop_now_ms(s->o.loop) + SWEEP_STEP_MS);
}

/* ---- what others say ---- */

static void stop_asked(struct supervisor *s)
{
	for (struct run *r = s->runs; r; r = r->next) {
		AUTO_JOB_ROW row = { 0 };
		struct err e = { 0 };

		if (!jobs_get_brief(s->o.reader, r->key, &row, &e) && row.is_cancel_asked && row.attempt == r->attempt)
			run_stop(r);
	}
}

static void on_kick(struct loop_msg *m)
{
	struct supervisor *s = CONTAINER_OF(m, struct supervisor, kick_msg);

	atomic_store(&s->is_kicked, false);
	if (atomic_exchange(&s->is_cancel_due, false))
		stop_asked(s);
	claim(s);
}

void supervisor_attempt_dir(const struct supervisor *s, int64_t job_key, int64_t attempt, char out[512])
{
	snprintf(out, 512, "%.400s/%016llx/%lld", s->folder, (unsigned long long)job_key, (long long)attempt);
}

void supervisor_kick(struct supervisor *s)
{
	if (!atomic_exchange(&s->is_kicked, true))
		loop_post(s->o.loop, &s->kick_msg);
}

void supervisor_queued(struct supervisor *s, bool has_deadline)
{
	if (has_deadline || !atomic_load(&s->is_full))
		supervisor_kick(s);
}

void supervisor_cancel(struct supervisor *s)
{
	atomic_store(&s->is_cancel_due, true);
	supervisor_kick(s);
}

static struct run *find_watch(struct supervisor *s, int wd)
{
	for (struct run *r = s->runs; r; r = r->next)
		if (r->inotify == wd)
			return r;
	return NULL;
}

/* Events were lost: whoever has something new to read is among these. */
static void look_at_all(struct supervisor *s)
{
	for (struct run *r = s->runs, *next; r; r = next) {
		next = r->next;
		run_step(r);
	}
}

static void on_inotify(void *arg, uint32_t events)
{
	struct supervisor *s = arg;
	_Alignas(struct inotify_event) char block[16384];
	ssize_t n;
	int last = -1;

	(void)events;
	while ((n = read(s->inotify_fd, block, sizeof(block))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *v = (const struct inotify_event *)(const void *)(block + at);
			struct run *r = v->wd == last || v->wd < 0 ? NULL : find_watch(s, v->wd);

			if (v->mask & IN_Q_OVERFLOW)
				look_at_all(s);
			at += (ssize_t)sizeof(*v) + v->len;
			last = v->wd;
			if (r) {
				subs_publish(s->o.subs, r->key);       /* followers read it themselves, before it is stored */
				run_step(r);
			}
		}
	}
}

/* ---- start and stop ---- */

static void find_row(struct supervisor *s, const struct active_job *a)
{
	AUTO_JOB_ROW row = { 0 };
	struct run *r = NULL;
	struct err e = { 0 };
	pid_t pid = 0;
	char text[240];
	enum run_found found;

	if (jobs_get(s->o.reader, a->key, &row, &e) || run_new(s, &row, &r, &e)) {
		log_event(LOG_ERROR, "job.unreadable", "key=%lld %s", (long long)a->key, log_err(&e, text, sizeof(text)));
		return;
	}
	found = run_dir_find(r, &pid);
	add(s, r);
	r->is_stop_wanted = row.is_cancel_asked;
	run_attach(r, found, pid);
}

void supervisor_start(struct supervisor *s)
{
	struct active_job *v = NULL;
	struct err e = { 0 };
	size_t n = 0;
	char text[240];

	thread_must_be(THREAD_SUPER);
	if (jobs_active(s->o.reader, FOUND_MAX, &v, &n, &e))
		log_event(LOG_ERROR, "job.find_failed", "%s", log_err(&e, text, sizeof(text)));
	for (size_t i = 0; i < n; i++)
		find_row(s, &v[i]);
	active_jobs_free(v, n);
	run_dir_sweep(s);
	start_sweep(s);
	s->is_started = true;
	s->prune_timer.fn = on_prune;
	prune_at(s, PRUNE_STEP_MS);
	claim(s);
}

void supervisor_stop(struct supervisor *s)
{
	thread_must_be(THREAD_SUPER);
	s->is_stopping = true;
	loop_timer_cancel(s->o.loop, &s->later);
	loop_timer_cancel(s->o.loop, &s->prune_timer);
	loop_timer_cancel(s->o.loop, &s->sweep_timer);
}

enum errc supervisor_new(const struct supervisor_opts *o, struct supervisor **ret, struct err *e)
{
	struct supervisor *s = NEW(struct supervisor);
	enum errc rc;

	if (!s)
		return err_set(e, E_NO_MEMORY, "jobs: no memory");
	s->o = *o;
	s->folder = mem_strdup(o->folder);
	s->shim = mem_strdup(o->shim);
	s->o.folder = s->folder;
	s->o.shim = s->shim;
	s->kick_msg.fn = on_kick;
	s->boot = run_dir_boot();
	job_claim_init(&s->claim);
	s->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	rc = !s->folder || !s->shim ? err_set(e, E_NO_MEMORY, "jobs: no memory") : E_OK;
	if (!rc)
		rc = s->inotify_fd < 0 ? err_set_os(e, E_IO, errno, "jobs: cannot watch files") : file_make_private_dir(o->folder, e);
	if (!rc)
		rc = loop_watch_add(o->loop, s->inotify_fd, EPOLLIN, on_inotify, s, &s->inotify_watch, e);
	if (rc) {
		supervisor_free(s);
		return rc;
	}
	*ret = s;
	return E_OK;
}

void supervisor_free(struct supervisor *s)
{
	if (!s)
		return;
	while (s->runs) {
		struct run *r = s->runs;

		s->runs = r->next;
		run_free(r);
	}
	loop_watch_del(s->o.loop, s->inotify_watch);
	if (s->inotify_fd >= 0)
		close(s->inotify_fd);
	job_claim_done(&s->claim);
	mem_free(s->folder);
	mem_free(s->shim);
	mem_free(s);
}
