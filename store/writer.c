/*
 * The writing thread: takes all that is queued, runs it as one transaction, commits once, then tells.
 * Started by store_open. Thread: store, except writer_prepare.
 *
 * A savepoint for each body costs as much as the body: every page that it touches is copied first. So a batch runs without
 * them, and begins again with them when a body fails that has written something; bodies may run again.
 *
 * The engine may roll back the whole transaction under a failing body (full disk, I/O, memory), savepoints and all. A
 * SAVEPOINT would then open a transaction that commits by itself. So autocommit is looked at after every step, and
 * when the transaction is gone, the batch starts again without the body that met the failure.
 */
#include "store/store_priv.h"
#include "store/tenants.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define LOAD_JOBS 4              /* taken at once: from here on there is much to write */
#define LOAD_HEAP_BYTES (5 << 20) /* SQLite's cache of pages, and what it works with */

/* Prepared at open: undoing must not need memory. */
static const char sql_begin[] = "BEGIN IMMEDIATE";
static const char sql_savepoint[] = "SAVEPOINT body";
static const char sql_release[] = "RELEASE body";
static const char sql_undo[] = "ROLLBACK TO body";
static const char sql_commit[] = "COMMIT";
static const char sql_rollback[] = "ROLLBACK";

struct batch {
	struct store_job *live;        /* in the order of their submission */
	struct store_job *dead;        /* left out: the engine rolled back under them */
	bool is_guarded;               /* each body in a savepoint of its own */
};

enum attempt {
	ATTEMPT_COMMITTED,
	ATTEMPT_AGAIN,                 /* one body fewer is live, or savepoints are needed */
	ATTEMPT_NOT_BEGUN,             /* nothing was written, or nothing of it stands */
	ATTEMPT_NOT_COMMITTED,         /* COMMIT failed; db.last_rc says how */
};

static enum errc control(struct store *s, const char *sql, struct err *e)
{
	AUTO_QUERY q = query_open(&s->db, sql);

	return query_run(&q, e);
}

enum errc writer_prepare(struct store *s, struct err *e)
{
	const char *const all[] = { sql_begin, sql_savepoint, sql_release, sql_undo, sql_commit, sql_rollback };

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		AUTO_QUERY q = query_open(&s->db, all[i]);

		if (q.rc != SQLITE_OK)
			return db_err(&s->db, q.rc, e);
	}
	return E_OK;
}

static bool is_in_transaction(const struct store *s)
{
	return !sqlite3_get_autocommit(s->db.h);
}

static void roll_back(struct store *s)
{
	struct err ignored;

	if (is_in_transaction(s) && control(s, sql_rollback, &ignored) && is_in_transaction(s))
		writer_break(s);               /* a transaction that can be neither kept nor left */
}

/* ---- states ---- */

static void set_state(struct store *s, enum store_state st)
{
	atomic_store(&s->state, st);
}

void writer_break(struct store *s)
{
	if (store_state(s) == STORE_BROKEN)
		return;
	set_state(s, STORE_BROKEN);
	/* What lies in the log is for the next start to judge; closing must not touch it. */
	sqlite3_db_config(s->db.h, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	log_event(LOG_ERROR, "store.broken", "sqlite=%d reason=%s", s->db.last_rc, s->db.is_sync_failed ? "sync_failed" : "outcome_unknown");
	if (s->on_broken)
		s->on_broken(s->ctx);
}

static void become_full(struct store *s)
{
	if (store_state(s) == STORE_OK)
		log_event(LOG_ERROR, "store.filled", "path=%s", s->path);
	set_state(s, STORE_FULL);
	s->retry_mono_ms = clock_mono_ms() + backoff_next_ms(&s->retry);
}

static void become_ok(struct store *s)
{
	if (store_state(s) == STORE_OK)
		return;
	set_state(s, STORE_OK);
	backoff_reset(&s->retry);
	log_event(LOG_INFO, "store.recovered", "path=%s", s->path);
}

/* ---- one batch ---- */

/* Run one body. Afterwards its outcome stands in the job; false when the transaction is gone. */
static bool run_body(struct store *s, struct batch *b, struct store_tx *tx, struct store_job *j)
{
	struct store_tx before = *tx;
	int64_t changes = sqlite3_total_changes64(s->db.h);
	struct err ignored;

	must(is_in_transaction(s));
	j->e = (struct err){ 0 };
	j->rc = b->is_guarded ? control(s, sql_savepoint, &j->e) : E_OK;
	if (j->rc)
		return is_in_transaction(s);
	j->rc = j->body(tx, j, &j->e);
	if (j->rc)
		*tx = before;
	if (!is_in_transaction(s)) {
		if (!j->rc)                    /* the body did not look at its results */
			j->rc = err_set(&j->e, E_IO, "store: %s: rolled back by the engine (sqlite %d)", j->name, s->db.last_rc);
		return false;
	}
	if (!b->is_guarded) {
		b->is_guarded = j->rc && sqlite3_total_changes64(s->db.h) != changes;
		return true;
	}
	if (!j->rc)
		j->rc = control(s, sql_release, &j->e);
	if (j->rc && (control(s, sql_undo, &ignored) || control(s, sql_release, &ignored)))
		roll_back(s);
	return is_in_transaction(s);
}

/* Only while somebody waits: zero stays zero. */
static void note_progress(struct store *s)
{
	if (atomic_load(&s->busy_since_mono_ms) != 0)
		atomic_store(&s->busy_since_mono_ms, clock_mono_ms());
}

static enum attempt attempt(struct store *s, struct batch *b, struct err *e)
{
	if (control(s, sql_begin, e)) {
		roll_back(s);
		return ATTEMPT_NOT_BEGUN;
	}
	struct store_tx tx = { .db = &s->db, .last_key = &s->last_key };

	for (struct store_job **at = &b->live; *at; at = &(*at)->next) {
		struct store_job *j = *at;
		bool was_guarded = b->is_guarded;

		if (run_body(s, b, &tx, j)) {
			note_progress(s);
			if (b->is_guarded == was_guarded)
				continue;
			roll_back(s);          /* what it has written must go, and nothing else */
			return ATTEMPT_AGAIN;
		}
		*at = j->next;
		j->next = b->dead;
		b->dead = j;
		return ATTEMPT_AGAIN;
	}
	if (tenants_write_tx(&tx, e) || job_totals_write_tx(&tx, e)) {
		roll_back(s);
		return ATTEMPT_NOT_BEGUN;      /* nothing of it stands */
	}
	if (!control(s, sql_commit, e))
		return ATTEMPT_COMMITTED;
	roll_back(s);
	return ATTEMPT_NOT_COMMITTED;
}

static void fail_all(struct store_job *jobs, enum errc code, const char *what)
{
	for (struct store_job *j = jobs; j; j = j->next)
		j->rc = err_set(&j->e, code, "%s", what);
}

/*
 * A COMMIT that failed while writing is not in the log, or torn there, and the next one overwrites it. Other failures
 * may come after the log was complete (a sync; the index of the log in shared memory): such rows are invisible now,
 * and stand after a reopen. Only running the bodies again at the same place of the log, successfully, settles that.
 */
static bool is_surely_undone(int rc)
{
	int primary = rc & 0xff;

	return primary == SQLITE_FULL || primary == SQLITE_BUSY || primary == SQLITE_CONSTRAINT || primary == SQLITE_READONLY ||
		rc == SQLITE_IOERR_WRITE;
}

/* Settle a batch whose attempt failed as a whole. False: try once more. */
static bool settle_failed(struct store *s, struct batch *b, enum attempt how, bool is_last, const struct err *e)
{
	int rc = s->db.last_rc;
	bool is_unknown = how == ATTEMPT_NOT_COMMITTED && !is_surely_undone(rc);

	if (s->db.is_sync_failed || (is_last && is_unknown)) {
		writer_break(s);
		if (is_unknown)
			fail_all(b->live, E_OUTCOME_UNKNOWN, "store: the commit failed half-way; whether it stands shows after a restart");
		else
			fail_all(b->live, E_READ_ONLY, "store: read-only since a sync failed");
		return true;
	}
	if ((rc & 0xff) == SQLITE_FULL || is_last) {
		fail_all(b->live, e->code, e->what);
		return true;
	}
	return false;
}

/* Run the bodies until those that can have been committed, or none can. */
static void run_batch(struct store *s, struct batch *b)
{
	unsigned failures = 0;
	bool is_committed = false, is_settled = false;

	s->db.is_full_seen = false;
	while (b->live && !is_committed && !is_settled && store_state(s) != STORE_BROKEN) {
		struct err e = { 0 };
		enum attempt how = attempt(s, b, &e);

		is_committed = how == ATTEMPT_COMMITTED;
		if (is_committed || (how == ATTEMPT_AGAIN && !s->db.is_sync_failed))
			continue;
		is_settled = settle_failed(s, b, how, failures > 0, &e);
		failures++;
	}
	if (!is_committed && !is_settled)
		fail_all(b->live, E_READ_ONLY, "store: read-only until a restart");
	if (store_state(s) == STORE_BROKEN)
		return;
	if (is_committed)
		become_ok(s);
	else if (s->db.is_full_seen)
		become_full(s);
}

/* ---- telling ---- */

/* Letters to one loop, the newest first. */
struct letters {
	struct loop *loop;
	struct loop_msg *newest, *oldest;
};

#define LOOPS_TOLD_AT_ONCE 8               /* more than a node has */

/* A batch's letters to a loop are posted together: who is woken by the first of twenty would run instead of us. */
static void tell(struct letters *all, struct loop *loop, struct loop_msg *m)
{
	struct letters *l = all, *end = all + LOOPS_TOLD_AT_ONCE;

	while (l < end && l->loop && l->loop != loop)
		l++;
	if (l == end) {
		loop_post(loop, m);
		return;
	}
	m->next = l->newest;
	l->newest = m;
	if (!l->loop)
		l->oldest = m;
	l->loop = loop;
}

static void complete(struct store_job *j, struct letters *letters)
{
	char text[LOG_MSG_MAX / 4];

	if (j->rc && j->e.code != j->rc)
		(void)err_set(&j->e, j->rc, "store: %s failed", j->name);
	if (j->waiter) {
		sem_post(&j->waiter->is_done);
		return;
	}
	if (j->loop) {
		tell(letters, j->loop, &j->done);
		return;
	}
	if (j->rc)                             /* nobody waits: here the error stops */
		log_event(LOG_WARN, "store.job_failed", "name=%s %s", j->name, log_err(&j->e, text, sizeof(text)));
	if (j->free_fn)
		j->free_fn(j);
}

/* From here on a job is its receiver's. */
static void complete_all(struct store_job *j)
{
	struct letters letters[LOOPS_TOLD_AT_ONCE] = { 0 };

	while (j) {
		struct store_job *next = j->next;

		j->next = NULL;
		complete(j, letters);
		j = next;
	}
	for (size_t i = 0; i < LOOPS_TOLD_AT_ONCE && letters[i].loop; i++)
		loop_post_all(letters[i].loop, letters[i].newest, letters[i].oldest);
}

static void handle(struct store *s, struct store_job *jobs)
{
	struct batch b = { .live = jobs };

	if (store_state(s) == STORE_BROKEN)
		fail_all(jobs, E_READ_ONLY, "store: read-only until a restart");
	else if (store_state(s) == STORE_FULL)
		fail_all(jobs, E_READ_ONLY, "store: disk full");
	else
		run_batch(s, &b);
	complete_all(b.live);
	complete_all(b.dead);
}

/* ---- a full disk ---- */

/* 64 KB: that there is room again for more than the smallest of bodies. */
static enum errc probe_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT OR REPLACE INTO meta (name, value) VALUES ('store.probe', randomblob(65536))");

	(void)j;
	return query_run(&q, e);
}

static void retry_full(struct store *s)
{
	struct store_job probe = { .name = "store.probe", .body = probe_body };
	struct batch b = { .live = &probe };

	checkpoint_last(s);                    /* an emptied log may be the room that is missing */
	if (store_state(s) != STORE_FULL)
		return;
	run_batch(s, &b);
	if (store_state(s) == STORE_FULL && s->retry_mono_ms <= clock_mono_ms())      /* failed for another reason */
		s->retry_mono_ms = clock_mono_ms() + backoff_next_ms(&s->retry);
}

/* ---- the thread ---- */

static int wait_ms(const struct store *s)
{
	int64_t until, left;

	if (store_state(s) == STORE_FULL)
		until = s->retry_mono_ms;
	else if (store_state(s) == STORE_OK && s->is_checkpoint_due)
		until = s->idle_mono_ms;
	else
		return -1;
	left = until - clock_mono_ms();
	return left <= 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void wait_for_work(const struct store *s)
{
	struct pollfd p = { .fd = s->wake_fd, .events = POLLIN };
	uint64_t count;

	if (poll(&p, 1, wait_ms(s)) > 0 && read(s->wake_fd, &count, sizeof(count)) < 0)
		must(errno == EAGAIN || errno == EINTR);
}

/* All that is queued, the oldest first. */
static struct store_job *take_queued(struct store *s, bool *ret_is_stopping)
{
	struct store_job *newest, *jobs = NULL;
	size_t n = 0;

	*ret_is_stopping = atomic_load(&s->is_stopping);
	newest = atomic_exchange_explicit(&s->head, NULL, memory_order_acquire);
	while (newest) {
		struct store_job *older = newest->next;

		newest->next = jobs;
		jobs = newest;
		newest = older;
		n++;
	}
	atomic_fetch_sub(&s->queued, n);
	if (n >= LOAD_JOBS && !s->has_load_heap) {
		mem_reserve(LOAD_HEAP_BYTES);
		s->has_load_heap = true;
	}
	atomic_store(&s->busy_since_mono_ms, jobs ? clock_mono_ms() : 0);
	return jobs;
}

/* Comes before new work: a stream of refused submissions must not keep a full store full. */
static void retry_if_due(struct store *s)
{
	if (store_state(s) == STORE_FULL && clock_mono_ms() >= s->retry_mono_ms)
		retry_full(s);
}

static void checkpoint_if_due(struct store *s)
{
	if (store_state(s) == STORE_OK && s->is_checkpoint_due && clock_mono_ms() >= s->idle_mono_ms)
		checkpoint_idle(s);
}

void writer_main(void *arg)
{
	struct store *s = arg;
	bool is_stopping = false, may_wait = true;

	thread_must_be(THREAD_STORE);
	db_mem_keep();
	for (;;) {
		struct store_job *jobs;

		if (may_wait)
			wait_for_work(s);
		retry_if_due(s);
		jobs = take_queued(s, &is_stopping);
		may_wait = !jobs && !is_stopping;
		if (!jobs && is_stopping)
			break;
		if (!jobs) {
			checkpoint_if_due(s);
			continue;
		}
		handle(s, jobs);
		if (store_state(s) == STORE_OK)
			checkpoint_between(s);
	}
	checkpoint_end(s);
	if (store_state(s) == STORE_OK)
		checkpoint_last(s);
	db_mem_drop();
}
