/*
 * One attempt of one job, as the supervisor has it in hand. Private to jobs/supervisor*.c and jobs/run*.c.
 *   run.c         begin, follow, stop: the attempt's life    journal.c     what it says, into events
 *   run_end.c     its end: result and artifacts              run_dir.c    files and processes: on the pool
 *   supervisor.c  which attempts there are
 *
 * Threads: the supervisor's loop; run_dir_* on the pool or at the start.
 */
#ifndef MSWARM_JOBS_RUN_H
#define MSWARM_JOBS_RUN_H

#include "jobs/job.h"
#include "jobs/runner.h"
#include "jobs/supervisor.h"
#include "jobs/workspace.h"

#include <sys/types.h>

enum run_phase {
	RUN_PREPARING,                  /* its directory is made, the shim started: on the pool */
	RUN_RUNNING,
	RUN_OVER,                       /* the shim has ended; what it wrote is read */
	RUN_COLLECTING,                 /* its outputs are looked at: on the pool */
	RUN_ENDING,                     /* the end is on its way into the store */
	RUN_REMOVING,                   /* its directory is removed: on the pool */
};

/* How the last shim of an attempt is found: it lives; it left a record; it began and is gone, or the machine was started anew, and
 * nothing says that it did not begin; it surely did not. */
enum run_found { FOUND_ALIVE, FOUND_ENDED, FOUND_LOST, FOUND_NEVER_BEGUN };

struct run {
	struct supervisor *s;
	struct run *next;
	int64_t key, attempt;
	char *job_id;
	struct json *request;
	const struct runner_ops *runner; /* NULL: it cannot run */
	enum run_phase phase;
	char dir[512];
	pid_t pid;                      /* of the shim */
	bool is_child;                  /* ours to reap */
	bool is_stop_wanted, is_lost;
	bool has_no_room;               /* its shim began nothing for want of room on the disk */
	bool is_on_pool, is_recording;
	int pid_fd;
	loop_watch_id pid_watch;
	int inotify;                    /* its watch descriptor; -1: none */
	struct journal journal;
	struct run_plan plan;
	struct job_record record;       /* at most one is on its way */
	struct loop_timer again;        /* the store could not take it */
	bool has_files;                 /* inputs or outputs */
	struct workspace files;
	struct json *exit_record;       /* exit borrows from it */
	struct run_exit exit;
	const char *end_code;           /* of a failure, static or the runner's; NULL: it succeeded, or was cancelled */
	bool is_judged;                 /* run_fail or success: it has an outcome to tell of */
	int64_t held_bytes;             /* of all artifacts, before its own come */
	struct collected collected;     /* its list moves into record */
	enum errc collect_rc;
	struct err collect_err;
	struct pool_job pool;
	struct err pool_err;
	enum errc pool_rc;
};

struct supervisor {
	struct supervisor_opts o;
	char *folder, *shim;            /* o's are these */
	int64_t boot;                   /* which run of the machine this is */
	struct run *runs;
	size_t run_count;
	struct job_claim claim;
	struct capabilities caps;       /* that the claim in progress goes by */
	bool is_claiming, is_claim_due, is_stopping, is_started;
	struct loop_msg kick_msg;
	atomic_bool is_kicked, is_cancel_due;
	atomic_bool is_disk_full;       /* nothing begins until there is room for an attempt */
	int64_t hold_until_ms;          /* of the loop's clock: an attempt found no room */
	atomic_bool is_full;            /* as the last claim found it; false while one is on its way */
	struct job_prune prune;
	struct loop_timer prune_timer;
	struct pool_job files_job;      /* unlinks what a prune left */
	struct loop_timer sweep_timer;
	unsigned swept;                 /* shards of the artifacts' files */
	struct loop_timer later;        /* a deadline, or the store could not take a claim */
	int inotify_fd;
	loop_watch_id inotify_watch;
};

/* run.c */
MUST_CHECK enum errc run_new(struct supervisor *s, const struct job_row *row, struct run **ret, struct err *e);
void run_free(struct run *r);
void run_begin(struct run *r);          /* a fresh attempt: it was claimed */
void run_attach(struct run *r, enum run_found found, pid_t pid);
void run_stop(struct run *r);           /* the job was asked to end */
void run_submit(struct run *r);         /* r->record is filled */
void run_read_last(struct run *r);      /* lines that never ended, into r->record */
void run_step(struct run *r);           /* go on with whatever is next; nothing while a record is on its way */
void run_on_pool(struct run *r, void (*work)(struct pool_job *), void (*done)(struct loop_msg *));

/* run_end.c */
void run_finish(struct run *r);         /* the shim has ended and all that it wrote is read */
void run_fail(struct run *r, const char *code, const char *message);
void run_again(struct run *r);
void run_add_event(struct run *r, enum event_type type, int64_t pos, const char *message, struct slice data);

/* run_dir.c */
MUST_CHECK enum errc run_dir_start(struct run *r, struct err *e);       /* pool: directory, spec, shim; sets r->pid */
int64_t run_dir_boot(void);             /* a number of this run of the machine; 0: unknown */
enum run_found run_dir_find(struct run *r, pid_t *ret_pid);
int64_t run_dir_free(const struct supervisor *s);      /* bytes of the disk that attempts may still use; unknown: INT64_MAX */
void run_dir_stop(struct run *r);       /* the wish to stop, for the shim to see */
void run_dir_remove(struct run *r);     /* pool; what is left of its processes too */
void run_dir_sweep(struct supervisor *s);  /* directories of no job that runs */
MUST_CHECK enum errc run_dir_exit(struct run *r, struct buf *text, struct err *e);  /* the exit record; E_NOT_FOUND */

/* supervisor.c */
void supervisor_hold(struct supervisor *s);     /* nothing begins for a second */
void supervisor_drop(struct supervisor *s, struct run *r);      /* it has ended */

#endif
