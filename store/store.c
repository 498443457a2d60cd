/*
 * The store as others see it: open, close, submit, state, readers.
 * Called by main (open, close), by loops, supervisor and pool (submit). The work behind is in writer.c.
 */
#include "store/store_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { RETRY_MS = 250, RETRY_CAP_MS = 5000 };      /* how often a full disk is tried again */

static enum errc build(struct store *s, const struct store_opts *o, struct err *e)
{
	enum errc rc;

	s->path = mem_strdup(o->path);
	s->vfs = o->vfs ? mem_strdup(o->vfs) : NULL;
	if (!s->path || (o->vfs && !s->vfs))
		return err_set(e, E_NO_MEMORY, "store: no memory");
	s->max_queued = o->max_queued;
	s->on_broken = o->on_broken;
	s->ctx = o->ctx;
	s->retry = (struct backoff){ .base_ms = RETRY_MS, .cap_ms = RETRY_CAP_MS };
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0)
		return err_set_os(e, E_IO, errno, "store: eventfd");
	rc = db_open(&s->db, s->path, s->vfs, false, e);
	if (!rc)
		rc = db_migrate(&s->db, s->path, e);
	if (!rc)
		rc = writer_prepare(s, e);
	if (rc)
		return rc;
	checkpoint_watch(s);
	return thread_start(&s->thread, THREAD_STORE, 0, writer_main, s, e);
}

enum errc store_open(const struct store_opts *o, struct store **ret, struct err *e)
{
	struct store *s = NEW(struct store);
	enum errc rc;

	thread_must_be(THREAD_MAIN);
	if (!s)
		return err_set(e, E_NO_MEMORY, "store: no memory");
	s->wake_fd = -1;
	rc = build(s, o, e);
	if (rc) {
		store_close(s);
		return rc;
	}
	*ret = s;
	return E_OK;
}

static void wake(const struct store *s)
{
	uint64_t one = 1;

	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		must(errno == EAGAIN);         /* the counter is full: the writer is awake */
}

void store_close(struct store *s)
{
	if (!s)
		return;
	thread_must_be(THREAD_MAIN);
	if (s->thread.is_started) {
		atomic_store(&s->is_stopping, true);
		wake(s);
		thread_join(&s->thread);
	}
	db_close(&s->db);
	if (s->wake_fd >= 0)
		(void)close(s->wake_fd);
	mem_free(s->path);
	mem_free(s->vfs);
	mem_free(s);
}

/*
 * Says whether the writer has to be woken. A stack without a lock, as the mailbox of a loop: a submitter must not stand still
 * because the writer's thread was taken off its processor in the middle of a lock.
 */
static enum errc put(struct store *s, struct store_job *j, bool *ret_is_first, struct err *e)
{
	struct store_job *head = atomic_load_explicit(&s->head, memory_order_relaxed);
	int_fast64_t idle = 0;
	size_t queued;

	if (atomic_load(&s->is_stopping))
		return err_set(e, E_DRAINING, "store: closing");
	queued = atomic_fetch_add(&s->queued, 1);
	if (queued >= s->max_queued) {
		atomic_fetch_sub(&s->queued, 1);
		return err_set(e, E_BUSY, "store: %zu writes are queued already", queued);
	}
	/* Before the job is there: afterwards the writer may already be done with it, and nobody would take this back. */
	(void)atomic_compare_exchange_strong(&s->busy_since_mono_ms, &idle, clock_mono_ms());
	do
		j->next = head;
	while (!atomic_compare_exchange_weak_explicit(&s->head, &head, j, memory_order_release, memory_order_relaxed));
	*ret_is_first = !head;                 /* j may be gone already, s may not */
	return E_OK;
}

static enum errc submit(struct store *s, struct store_job *j, struct store_waiter *w, struct err *e)
{
	bool is_first = false;
	enum errc rc;

	must(j->body && j->name);
	if (store_state(s) == STORE_BROKEN)
		return err_set(e, E_READ_ONLY, "store: read-only since a sync failed");
	j->waiter = w;
	j->rc = E_OK;
	rc = put(s, j, &is_first, e);
	if (!rc && is_first)
		wake(s);
	return rc;
}

enum errc store_submit(struct store *s, struct store_job *j, struct err *e)
{
	must(!j->loop || j->done.fn);
	return submit(s, j, NULL, e);
}

enum errc store_run(struct store *s, struct store_job *j, struct err *e)
{
	struct store_waiter w;
	enum thread_role self = thread_role_self();
	enum errc rc;

	must(self == THREAD_ANY || self == THREAD_MAIN || self == THREAD_POOL);
	must(sem_init(&w.is_done, 0, 0) == 0);
	rc = submit(s, j, &w, e);
	if (!rc) {
		while (sem_wait(&w.is_done) < 0)
			must(errno == EINTR);
		rc = j->rc;
		if (rc && e)
			*e = j->e;
	}
	(void)sem_destroy(&w.is_done);
	j->waiter = NULL;
	return rc;
}

enum store_state store_state(const struct store *s)
{
	return (enum store_state)atomic_load(&s->state);
}

const char *store_state_name(enum store_state st)
{
	switch (st) {
	case STORE_OK:
		return "ok";
	case STORE_FULL:
		return "disk_full";
	case STORE_BROKEN:
		return "sync_failed";
	}
	return "unknown";
}

int64_t store_stuck_ms(const struct store *s)
{
	int64_t since = atomic_load(&s->busy_since_mono_ms), now = clock_mono_ms();

	return since && now > since ? now - since : 0;
}

enum errc store_reader_open(struct store *s, struct store_reader **ret, struct err *e)
{
	struct store_reader *r = NEW(struct store_reader);
	enum errc rc;

	if (!r)
		return err_set(e, E_NO_MEMORY, "store: no memory");
	rc = db_open(&r->db, s->path, s->vfs, true, e);
	if (rc) {
		mem_free(r);
		return rc;
	}
	*ret = r;
	return E_OK;
}

void store_reader_close(struct store_reader *r)
{
	if (!r)
		return;
	db_close(&r->db);
	mem_free(r);
}

enum errc store_reader_hold(struct store_reader *r, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "BEGIN");

	return query_run(&q, e);
}

void store_reader_release(struct store_reader *r)
{
	if (sqlite3_get_autocommit(r->db.h))
		return;
	AUTO_QUERY q = query_open(&r->db, "COMMIT");
	struct err ignored;

	(void)!query_run(&q, &ignored);        /* nothing was written: it cannot fail in a way that matters */
}
