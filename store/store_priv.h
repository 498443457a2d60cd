/*
 * What the files of store/ share: a connection with its kept statements, queries, and the insides of the writer.
 * Included by store/ and by tests of the store only.
 *
 * Threads: a struct db is used by one thread at a time: the writer's by main until the thread starts, then by
 * THREAD(store), and by main again after the join; a reader's by its loop.
 */
#ifndef MSWARM_STORE_STORE_PRIV_H
#define MSWARM_STORE_STORE_PRIV_H

#include "base/backoff.h"
#include "base/slice.h"
#include "base/thread.h"
#include "store/job_totals.h"
#include "store/store.h"

#include <semaphore.h>
#include <sqlite3.h>

#define DB_KEPT_MAX 128            /* statements kept by one connection: as many as the code has, not as data has */
#define DB_BUSY_MS 2000            /* writer: another process (an offline command) may hold the lock for a moment */
#define DB_READER_BUSY_MS 20       /* a reader meets a lock only while the file is recovered; a loop must not wait long */

struct migration {
	unsigned version;          /* 1, 2, ...: becomes user_version */
	const char *name;
	const char *sql;
};
extern const struct migration migrations[];
extern const unsigned migrations_count;

/* ---- one connection: db.c ---- */
struct db {
	sqlite3 *h;
	struct {
		const char *sql;   /* the literal in the code: its address is the key */
		sqlite3_stmt *st;
	} kept[DB_KEPT_MAX];
	size_t kept_count;
	bool is_full_seen;         /* noticed by db_err: SQLITE_FULL since it was last cleared */
	bool is_sync_failed;       /* noticed by db_err: a sync failed; never cleared */
	int last_rc;               /* the extended code that db_err saw last */
};

/* db_mem.c: the allocator; and its blocks that this thread keeps until it drops them. */
extern const sqlite3_mem_methods db_mem_hooks;
void db_mem_keep(void);
void db_mem_drop(void);
/* Set SQLite's allocator and start it, once for the process; db_open does so too. E_INTERNAL: somebody started SQLite before. */
MUST_CHECK enum errc db_init(struct err *e);
MUST_CHECK enum errc db_open(struct db *db, const char *path, const char *vfs, bool is_reader, struct err *e);
void db_close(struct db *db);                        /* a zeroed struct is fine */
MUST_CHECK enum errc db_migrate(struct db *db, const char *path, struct err *e);
/* Several statements without results. */
MUST_CHECK enum errc db_exec(struct db *db, const char *sql, struct err *e);
/* Translate an SQLite result (extended) and note a full disk or a failed sync. Returns e's code, never E_OK. */
enum errc db_err(struct db *db, int rc, struct err *e);

/* ---- queries: query.c. A failed bind sticks and comes out of query_row or query_run. ---- */
struct query {
	struct db *db;
	sqlite3_stmt *st;          /* borrowed from db->kept */
	int rc;
};
#define AUTO_QUERY CLEANUP(query_done) struct query

/* sql must be a literal: it is prepared once per connection and kept. */
struct query query_open(struct db *db, const char *sql);
void query_done(struct query *q);                    /* resets: no read lock stays, no value stays bound */
void query_bind_i64(struct query *q, int at, int64_t v);
void query_bind_text(struct query *q, int at, struct slice v);
void query_bind_blob(struct query *q, int at, struct slice v);
MUST_CHECK enum errc query_row(struct query *q, bool *ret_has_row, struct err *e);
MUST_CHECK enum errc query_run(struct query *q, struct err *e);  /* to the end, rows ignored; may be bound and run again */
int64_t query_i64(struct query *q, int col);
/* Text or blob, borrowed until the next row; E_NO_MEMORY. */
MUST_CHECK enum errc query_slice(struct query *q, int col, struct slice *ret, struct err *e);
/* Into an array, with NUL; E_IO when it does not fit (the schema's checks and the struct disagree). */
MUST_CHECK enum errc query_copy(struct query *q, int col, char *dst, size_t cap, struct err *e);

/* ---- the store ---- */
struct store_waiter {              /* on the stack of store_run */
	sem_t is_done;
};

struct store_tx {
	struct db *db;
	int64_t totals[TOTAL__COUNT];      /* what the bodies of this batch add to job_totals: written once, before the commit */
	int64_t tenant_more;               /* so many more jobs of tenant_id wait: tenants.h */
	char tenant_id[64];
	int64_t *last_key;                 /* of jobs; 0: not looked up yet */
};

struct store_reader {
	struct db db;
};

/*
 * Copies what a long log holds into the database beside the writer, on a thread and a connection of its own, both made when they
 * are needed first. The writer has the rest to do, and alone can begin the log anew.
 */
struct ahead {
	struct thread thread;
	sem_t asked;
	bool is_made;              /* THREAD(store): asked and thread are there */
	atomic_int state;          /* enum ahead_state: who may touch db and rc */
	atomic_bool is_stopping;
	struct db db;
	const char *path, *vfs;    /* borrowed from the store */
};

struct store {
	/* const after store_open */
	char *path, *vfs;          /* vfs NULL: the system's */
	size_t max_queued;
	void (*on_broken)(void *ctx);
	void *ctx;

	int wake_fd;               /* eventfd; -1 before it is made */
	struct thread thread;
	_Atomic(struct store_job *) head;         /* what the writer has not taken, the newest first */
	atomic_size_t queued;
	atomic_bool is_stopping;
	atomic_int state;                         /* enum store_state; written by THREAD(store) */
	atomic_int_fast64_t busy_since_mono_ms;   /* last progress while there is work, else 0 */

	/* THREAD(store) */
	struct db db;
	int64_t last_key;          /* store_tx.last_key */
	struct backoff retry;      /* of a full disk */
	int64_t retry_mono_ms;
	int wal_pages;             /* in the log after the last commit */
	int wal_done;              /* wal_pages when a checkpoint was last tried */
	int wal_high;              /* the log file's length in pages: it is reused, not shortened, until a TRUNCATE */
	int64_t tight_mono_ms;     /* when the disk is looked at again */
	bool has_load_heap;        /* writer.c */
	bool is_checkpoint_due;    /* something was written since the last checkpoint */
	bool is_checkpoint_failing; /* said in the log already */
	int64_t idle_mono_ms;      /* when a checkpoint is due if nothing else comes */
	struct ahead ahead;
};

/* writer.c */
MUST_CHECK enum errc writer_prepare(struct store *s, struct err *e);  /* main, before the thread starts */
void writer_main(void *arg);                         /* THREAD(store); arg is the struct store */
void writer_break(struct store *s);                  /* a sync failed: read-only for good */
/* checkpoint.c: off the commit path, THREAD(store) */
void checkpoint_watch(struct store *s);              /* count the log's pages after each commit */
void checkpoint_between(struct store *s);            /* between two transactions: only when the log has grown */
void checkpoint_idle(struct store *s);               /* nothing to do for a while */
void checkpoint_last(struct store *s);               /* before the end */
void checkpoint_end(struct store *s);                /* at the end, whatever the state */
enum { CHECKPOINT_IDLE_MS = 1000 };

#endif
