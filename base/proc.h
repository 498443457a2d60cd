/*
 * Short commands (inventory, probes): posix_spawn, argv, no shell, stdin closed, clean environment, output to a cap,
 * time limit with TERM and then KILL to the whole process group, end seen by pidfd.
 *
 * Threads: THREAD(supervisor); done runs on the same loop. Long jobs run under the shim instead (jobs/).
 */
#ifndef MSWARM_BASE_PROC_H
#define MSWARM_BASE_PROC_H

#include "base/buf.h"
#include "base/loop.h"

struct proc;

struct proc_result {
	enum errc rc;          /* E_OK exit 0; E_UPSTREAM other exit or signal; E_TIMEOUT; E_TOO_LARGE; E_NOT_FOUND no such program */
	int exit_code;         /* -1 when ended by a signal */
	int signal;
	struct slice out, err; /* borrowed for the call */
	struct err e;          /* texts of llm-execution.md 2.1: "command timed out after <ms>ms: <bin>", ... */
};

struct proc_req {
	const char *const *argv;   /* NULL-terminated; argv[0] is looked up in PATH */
	const char *const *env;    /* NULL-terminated NAME=value, the whole environment of the child */
	int64_t limit_ms;
	size_t max_out_bytes;      /* each of stdout and stderr */
	void (*done)(void *ctx, const struct proc_result *r);
	void *ctx;
};

MUST_CHECK enum errc proc_start(struct loop *l, const struct proc_req *r, struct proc **ret, struct err *e);
void proc_cancel(struct proc *p);      /* kills the group, no callback follows */

#endif
