/*
 * Runs what waits: claims jobs, starts a shim for each attempt, reads its journal into the store, stops it when asked, and
 * ends it. After a restart it finds what still runs and goes on with it.
 *
 * Threads: new and free on main while the loop does not run; start and stop on THREAD(supervisor); kick and cancel any.
 */
#ifndef MSWARM_JOBS_SUPERVISOR_H
#define MSWARM_JOBS_SUPERVISOR_H

#include "base/loop.h"
#include "base/pool.h"
#include "jobs/capability_probe.h"
#include "store/jobs.h"
#include "store/store.h"

#include <stdatomic.h>

struct supervisor;
struct subs;

struct supervisor_opts {
	struct loop *loop;              /* the supervisor's */
	struct store *store;
	struct store_reader *reader;    /* for the loop above; borrowed */
	struct pool *pool;
	struct subs *subs;
	struct artifact_files *files;   /* borrowed */
	const char *folder;             /* attempt directories; made when absent */
	const char *shim;               /* path of mswarm-shim */
	struct capability_probe *probe; /* borrowed; nothing begins before its first word */
	const atomic_int *drain;        /* not 0: nothing begins */
	bool is_off;                    /* nothing begins, ever; what runs is followed to its end */
	struct keep_limits keep;        /* ended jobs beyond these are forgotten */
	int64_t max_active;
	int64_t timeout_ms;             /* longest run of a job */
	int64_t grace_ms;               /* between TERM and KILL */
	/* An attempt has ended: how long its process ran, and the code of its failure (NULL: it went well). THREAD(supervisor) */
	void (*on_end)(void *ctx, int64_t took_ms, const char *code);
	void *ctx;
	int64_t nofile;                 /* open files of a job at first: what the node itself was given; 0: as the node has now */
};

MUST_CHECK enum errc supervisor_new(const struct supervisor_opts *o, struct supervisor **ret, struct err *e);
void supervisor_start(struct supervisor *s);
void supervisor_stop(struct supervisor *s);     /* nothing begins any more; what runs goes on under its shims */
void supervisor_free(struct supervisor *s);     /* main, after the store has told all: NULL is fine */
/* Directory of an attempt; for followers, who read its journal while it grows. */
void supervisor_attempt_dir(const struct supervisor *s, int64_t job_key, int64_t attempt, char out[512]);  /* any thread */
void supervisor_kick(struct supervisor *s);     /* there may be work, or room for it */
void supervisor_queued(struct supervisor *s, bool has_deadline);        /* one more waits: a kick, unless there is no room anyway */
bool supervisor_is_disk_full(const struct supervisor *s);      /* nothing begins for want of room; any thread */
void supervisor_cancel(struct supervisor *s);   /* a running job was asked to stop; which, stands in its row */

#endif
