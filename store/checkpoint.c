/*
 * Checkpoints: moving the write-ahead log into the database file, on the store thread, between transactions and never
 * inside a commit. PASSIVE waits for nobody; TRUNCATE, which gives the log's disk space back, may wait a moment for
 * readers, so it is kept for logs above 64 MB, for a disk that is almost full, and for the end.
 *
 * Under load most of a log is copied ahead, by a second thread while the writer goes on (struct ahead): 8 MB and their sync would
 * hold everybody who waits for a commit for five milliseconds, a dozen times a second.
 * Called by writer.c. Thread: store, but for ahead_main.
 */
#include "store/store_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <sys/statvfs.h>

enum {
	STEP_PAGES = 2000,                            /* about 8 MB: what a checkpoint under load may copy */
	PAGE_BYTES = 4096 + 24,                       /* a page in the log, with its header */
	TRUNCATE_PAGES = (64 << 20) / PAGE_BYTES,
	READERS_WAIT_MS = 50,
	TIGHT_PAGES = 64,                             /* a log that is worth giving back on a disk with less than this left: */
	TIGHT_BYTES = 8 << 20,
	TIGHT_LOOK_MS = 1000,
};

static int on_commit(void *arg, sqlite3 *h, const char *schema, int pages)
{
	struct store *s = arg;

	(void)h;
	(void)schema;
	if (pages < s->wal_done)                      /* the log began again from its start */
		s->wal_done = 0;
	if (pages > s->wal_high)
		s->wal_high = pages;
	s->wal_pages = pages;
	s->is_checkpoint_due = true;
	return SQLITE_OK;
}

void checkpoint_watch(struct store *s)
{
	sqlite3_wal_hook(s->db.h, on_commit, s);
	s->is_checkpoint_due = true;                  /* a log may have been left by a crash */
}

static void failed(struct store *s, int rc)
{
	struct err e = { 0 };
	char text[LOG_MSG_MAX / 4];

	(void)db_err(&s->db, rc, &e);
	if (!s->is_checkpoint_failing)                /* it is tried each second: say it once */
		log_event(LOG_WARN, "store.checkpoint_failed", "pages=%d %s", s->wal_pages, log_err(&e, text, sizeof(text)));
	s->is_checkpoint_failing = true;
	if (s->db.is_sync_failed)
		writer_break(s);
}

static void run(struct store *s, int mode)
{
	int rc, pages = 0, copied = 0;

	sqlite3_busy_timeout(s->db.h, READERS_WAIT_MS);
	rc = sqlite3_wal_checkpoint_v2(s->db.h, NULL, mode, &pages, &copied);
	sqlite3_busy_timeout(s->db.h, DB_BUSY_MS);
	s->wal_done = s->wal_pages;
	s->is_checkpoint_due = false;
	if (rc == SQLITE_OK) {
		s->is_checkpoint_failing = false;
		if (pages > s->wal_high)
			s->wal_high = pages;
		if (mode == SQLITE_CHECKPOINT_TRUNCATE)
			s->wal_high = s->wal_done = s->wal_pages = 0;
		return;
	}
	s->idle_mono_ms = clock_mono_ms() + CHECKPOINT_IDLE_MS;
	s->is_checkpoint_due = true;
	if ((rc & 0xff) != SQLITE_BUSY)               /* busy: a reader is in the way, later */
		failed(s, rc);
}

/* ---- ahead ---- */

enum ahead_state {
	AHEAD_IDLE,                /* db is nobody's */
	AHEAD_ASKED,               /* db is its thread's */
	AHEAD_DONE,                /* db is the writer's to look at */
};

/* What fails here the writer meets again; but a sync fails only once. db.is_sync_failed keeps that. */
static void copy_ahead(struct ahead *a)
{
	struct err e = { 0 };
	int rc;

	if (!a->db.h && db_open(&a->db, a->path, a->vfs, false, &e))
		return;
	rc = sqlite3_wal_checkpoint_v2(a->db.h, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	if (rc != SQLITE_OK)
		(void)db_err(&a->db, rc, &e);
}

static void ahead_main(void *arg)       /* a second THREAD(store) */
{
	struct ahead *a = arg;

	for (;;) {
		while (sem_wait(&a->asked) < 0)
			must(errno == EINTR);
		if (atomic_load(&a->is_stopping))
			break;
		copy_ahead(a);
		atomic_store(&a->state, AHEAD_DONE);
	}
	db_close(&a->db);
}

static bool make_ahead(struct store *s)
{
	struct ahead *a = &s->ahead;
	struct err ignored;

	if (a->is_made)
		return true;
	a->path = s->path;
	a->vfs = s->vfs;
	must(sem_init(&a->asked, 0, 0) == 0);
	a->is_made = thread_start(&a->thread, THREAD_STORE, 1, ahead_main, a, &ignored) == E_OK;
	if (!a->is_made)
		sem_destroy(&a->asked);
	return a->is_made;
}

/* True: the writer's turn, for what came meanwhile or for all of it. */
static bool is_copied_ahead(struct store *s)
{
	struct ahead *a = &s->ahead;

	switch ((enum ahead_state)atomic_load(&a->state)) {
	case AHEAD_ASKED:
		return false;
	case AHEAD_DONE:
		atomic_store(&a->state, AHEAD_IDLE);
		if (!a->db.is_sync_failed)
			return true;
		writer_break(s);
		return false;
	case AHEAD_IDLE:
		break;
	}
	if (!make_ahead(s))
		return true;
	atomic_store(&a->state, AHEAD_ASKED);
	sem_post(&a->asked);
	return false;
}

void checkpoint_end(struct store *s)
{
	struct ahead *a = &s->ahead;

	if (!a->is_made)
		return;
	atomic_store(&a->is_stopping, true);
	sem_post(&a->asked);
	thread_join(&a->thread);
	sem_destroy(&a->asked);
	a->is_made = false;
	if (a->db.is_sync_failed)
		writer_break(s);
}

/* Does the log take room that others wait for? Asked once a second. */
static bool is_tight(struct store *s)
{
	int64_t now_ms = clock_mono_ms();
	struct statvfs v;

	if (s->wal_high < TIGHT_PAGES || now_ms < s->tight_mono_ms)
		return false;
	s->tight_mono_ms = now_ms + TIGHT_LOOK_MS;
	return statvfs(s->path, &v) == 0 && (int64_t)v.f_bavail * (int64_t)v.f_frsize < TIGHT_BYTES;
}

static int mode_for(const struct store *s)
{
	return s->wal_high > TRUNCATE_PAGES ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE;
}

void checkpoint_between(struct store *s)
{
	if (is_tight(s))
		run(s, SQLITE_CHECKPOINT_TRUNCATE);
	else if (s->wal_pages - s->wal_done >= STEP_PAGES && (mode_for(s) != SQLITE_CHECKPOINT_PASSIVE || is_copied_ahead(s)))
		run(s, mode_for(s));
	else
		s->idle_mono_ms = clock_mono_ms() + CHECKPOINT_IDLE_MS;
}

void checkpoint_idle(struct store *s)
{
	if (atomic_load(&s->ahead.state) == AHEAD_DONE && !is_copied_ahead(s))
		return;
	run(s, mode_for(s));
}

void checkpoint_last(struct store *s)
{
	run(s, SQLITE_CHECKPOINT_TRUNCATE);
}
