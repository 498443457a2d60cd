/*
 * What runs a kind of job: const vtables, one row each in runners.def. A runner plans a process and reads what it says; it
 * starts nothing itself. All members are pure.
 *
 * Threads: any.
 */
#ifndef MSWARM_JOBS_RUNNER_H
#define MSWARM_JOBS_RUNNER_H

#include "base/json.h"
#include "base/jw.h"
#include "jobs/events.h"

/* What the shim is to start: lines of its "spec" (jobs/shim/spec.c). */
struct run_plan {
	struct buf spec;
};
MUST_CHECK enum errc run_plan_add(struct run_plan *p, const char *key, struct slice value, struct err *e);  /* E_BAD_REQUEST: a NUL inside */
MUST_CHECK enum errc run_plan_add_i64(struct run_plan *p, const char *key, int64_t value, struct err *e);

struct output_line {
	enum event_type stream;         /* EVENT_STDOUT, EVENT_STDERR */
	int64_t index;                  /* from 0, of its stream in this attempt */
	int64_t pos, wall_ms;
	struct slice text;              /* without its newline */
};

/* How an attempt ended, as its shim wrote it down. */
struct run_exit {
	const char *reason;             /* "exited", "stopped", "timeout", "not_started" */
	int64_t code, signal;           /* code -1: ended by the signal */
	int64_t started_ms, ended_ms;   /* wall clock */
	bool is_oom;
	const char *error;              /* of "not_started" */
};

struct run_result {
	bool is_success;
	const char *code;               /* static, of a failure */
	char message[256];
	struct buf metrics;             /* JSON object; empty: none */
};

struct runner_ops {
	const char *job_type, *name, *doc;
	const char *sandbox;            /* what it really runs in (4.9), whatever was asked for */
	bool is_idempotent;             /* may run again after it was lost */
	/* argv, env and cwd. E_BAD_REQUEST: what the arguments lack, as validation_failed. */
	enum errc (*plan)(const struct json *job, struct run_plan *p, struct err *e);
	/* One line of output into events. */
	enum errc (*line)(const struct json *job, const struct output_line *l, struct events *out, struct err *e);
	/* The result of a process that ended by itself. */
	enum errc (*judge)(const struct json *job, const struct run_exit *x, struct run_result *ret, struct err *e);
};

#define RUNNER(id) extern const struct runner_ops runner_##id;
#include "jobs/runners.def"
#undef RUNNER

/* NULL: none is built for it. */
const struct runner_ops *runner_find(struct slice job_type);
extern const struct runner_ops *const runner_table[];
extern const size_t runner_count;

#endif
