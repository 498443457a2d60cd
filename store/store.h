/*
 * SQLite, the only door to it: one writing thread with group commit, one read connection per loop.
 *
 * A caller submits a body; the writer takes everything queued, runs each body in one transaction (BEGIN IMMEDIATE, a
 * savepoint for each body), commits once with synchronous=FULL, then posts the completions. An answer leaves only after
 * the commit that it speaks of. A body may run again (the engine rolled all back): it writes no reply, starts nothing.
 *
 * Failure (design.md 5.16-5.17): disk full -> bodies fail with E_READ_ONLY "disk full", store_state() FULL, tried again
 * by timer; sync failed -> completions get E_OUTCOME_UNKNOWN, store_state() BROKEN for good: read-only until restart,
 * on_broken is called once (on the store thread; it only posts).
 *
 * Threads: store_open/store_close on main; store_submit from any; bodies on THREAD(store); done on the loop given.
 */
#ifndef MSWARM_STORE_STORE_H
#define MSWARM_STORE_STORE_H

#include "base/loop.h"

#include <stdint.h>

struct store;
struct store_tx;       /* what a body writes through; private to store/ */
struct store_waiter;   /* private to store/ */
struct store_reader;   /* one read-only connection; private to store/ */

enum store_state { STORE_OK, STORE_FULL, STORE_BROKEN };

struct store_opts {
	const char *path;              /* node.db */
	size_t max_queued;
	void (*on_broken)(void *ctx);
	void *ctx;
	const char *vfs;               /* tests: name of a fault-injecting VFS; NULL normally */
};

struct store_job {
	const char *name;              /* "key.insert", for the log */
	/* E_OK keeps what the body wrote, anything else undoes this body alone and becomes the job's outcome. */
	enum errc (*body)(struct store_tx *t, struct store_job *j, struct err *e);
	struct loop *loop;             /* where done is posted; NULL: nobody waits (the job is then freed by free_fn) */
	struct loop_msg done;          /* done.fn set by the caller; read rc and e there */
	void (*free_fn)(struct store_job *j);
	enum errc rc;                  /* outcome, set before done is posted */
	struct err e;
	struct store_job *next;        /* private to store/ from here */
	struct store_waiter *waiter;
};

/* Opens or creates the database (0600) and brings it to the newest schema. E_CONFLICT: a newer program or another
 * program made the file; E_IO: damaged, not a database, or the disk; E_READ_ONLY: no write access, disk full. */
MUST_CHECK enum errc store_open(const struct store_opts *o, struct store **ret, struct err *e);
/* Commits what is queued, checkpoints, joins; NULL is fine. Readers are closed before, and nobody submits any more. */
void store_close(struct store *s);
/* E_BUSY when the queue is full, E_READ_ONLY when broken; the job is not taken then. */
MUST_CHECK enum errc store_submit(struct store *s, struct store_job *j, struct err *e);
/* Submit and wait: for main (boot, offline commands) and the pool, never on a loop. Uses neither loop, done nor free_fn:
 * j stays the caller's. Returns j->rc, with j->e copied to *e. */
MUST_CHECK enum errc store_run(struct store *s, struct store_job *j, struct err *e);
enum store_state store_state(const struct store *s);
const char *store_state_name(enum store_state st);  /* "ok", "disk_full", "sync_failed" */
/* Milliseconds since the writer last made progress while something was queued; 0 when idle (for /healthz). */
int64_t store_stuck_ms(const struct store *s);

MUST_CHECK enum errc store_reader_open(struct store *s, struct store_reader **ret, struct err *e);
void store_reader_close(struct store_reader *r);
/* All reads until the release see one moment of the store. Short: the log cannot be emptied meanwhile. */
MUST_CHECK enum errc store_reader_hold(struct store_reader *r, struct err *e);
void store_reader_release(struct store_reader *r);      /* also when nothing is held */

#endif
