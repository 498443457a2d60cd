/*
 * mswarm-shim ATTEMPT-DIR: holds one attempt of one job and outlives the node. libc only, no heap, one thread.
 *
 *   main.c     order of the whole: read the spec, become the parent of all that follows, run, write the exit record
 *   spec.c     what to run
 *   start.c    the job's process
 *   run.c      the loop: output, time, stop, the end of everything that the job started
 *   journal.c  frames of output, the truth about what a job said
 *   cgroup.c   v2, v1 or none; and what to know of memory
 *   tree.c     signals to all descendants, however they hid
 *   record.c   how it ended
 *
 * Files in the attempt directory, which is the node's to make: "spec" is read; "pid", "journal", "exit" are written;
 * "stop" is the node's wish that the job ends (its content is the reason). jobs/NOTES.md says what the node makes of them.
 */
#ifndef MSWARM_JOBS_SHIM_SHIM_H
#define MSWARM_JOBS_SHIM_SHIM_H

#include "jobs/shim/format.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define SPEC_ARGS_MAX	1024
#define SPEC_ENV_MAX	1024
#define SPEC_BYTES_MAX	(1u << 20)
#define READ_BYTES	4096             /* of output at a time: small frames, so that no reader gets many thousand lines at once */

struct spec {                            /* borrowed from the mapped file */
	char *argv[SPEC_ARGS_MAX + 1];
	char *envp[SPEC_ENV_MAX + 1];
	const char *cwd;
	const char *cgroup;              /* name of the job's group, or NULL: none wanted */
	int64_t limit_ms;                /* 0: none */
	int64_t grace_ms;                /* between TERM and KILL */
	uint64_t out_max, err_max;       /* bytes of the two outputs that are kept; 0: all */
	uint64_t memory_max;             /* bytes, where a cgroup can hold it; 0: no limit */
	uint64_t nofile;                 /* open files, the soft limit; 0: as we have it */
};

enum cgroup_kind { CGROUP_NONE, CGROUP_V1, CGROUP_V2 };

struct cgroup {
	enum cgroup_kind kind;
	char memory[512], pids[512];     /* directories; with v2 both are the same */
};

struct journal {
	int fd;
	uint64_t size;                   /* bytes of whole frames */
	bool is_dirty;                   /* not synced */
};

struct stream {                          /* one of the job's two outputs */
	int fd;                          /* read end; -1 at its end */
	enum frame_kind kind;
	uint64_t seen;                   /* bytes that the job wrote */
	char held[READ_BYTES];           /* read, and not yet in the journal: the disk is full */
	size_t held_n;
	bool is_cut;                     /* over its maximum: said once */
};

enum reason { REASON_EXITED, REASON_STOPPED, REASON_TIMEOUT, REASON_NOT_STARTED };

struct shim {
	int dir;                         /* the attempt directory */
	struct spec spec;
	struct cgroup cgroup;
	struct journal journal;
	struct stream out, err;
	int epoll, signals, limit, step, watch;
	pid_t child;
	bool has_child_ended, has_none_left;
	int wait_status;
	struct rusage usage;
	enum reason reason;
	enum { STEP_RUN, STEP_TERM, STEP_KILL } stage;
	int64_t kill_at_ms, none_left_ms; /* CLOCK_BOOTTIME */
	int64_t look_at_ms, look_ms;     /* STEP_TERM: next look for what has lost its parent, and how long until the one after */
	uint64_t lost;                   /* bytes of output that could not be kept at the end */
	int64_t started_ms, ended_ms;    /* wall clock */
	char error[256];                 /* why it was not started */
	bool has_no_room;                /* that was the disk */
	int record;                      /* the exit record's file, its room taken beforehand */
};

/* false: s->error says why. */
bool spec_read(struct shim *s);
bool journal_open(struct shim *s);
bool start_job(struct shim *s);
/* False: not written, nothing of it is there; errno. */
bool journal_add(struct journal *j, enum frame_kind kind, const char *p, size_t n);
void journal_sync(struct journal *j);
void note(struct shim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void run(struct shim *s);
void cgroup_make(struct shim *s);        /* tries v2, then v1 */
void cgroup_enter(const struct cgroup *g);   /* the caller; in the child before exec */
bool cgroup_kill(const struct cgroup *g);    /* all in it at once, where the kernel can */
bool cgroup_had_oom(const struct cgroup *g);
int64_t cgroup_peak(const struct cgroup *g); /* bytes, -1 unknown */
void cgroup_remove(const struct cgroup *g);
const char *cgroup_name(const struct cgroup *g);
size_t tree_signal(int signal_number);   /* to all descendants of the caller; how many there were */
/* SIGTERM, once each: first to all, then to those whose parent is gone. What was forked while we looked is among them; what a
 * living one has started to clean up is not. */
void tree_terminate(bool is_first);
bool record_prepare(struct shim *s);
bool record_write(struct shim *s);
int64_t wall_ms(void);
void fail_file(struct shim *s, const char *name);    /* by errno */
void fail(struct shim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
