/*
 * What this machine has: asked of four commands (nvidia-smi, docker, blender, ffmpeg) at the start and every few minutes, side by side.
 * The newest word is in a box that everybody may read; nobody waits for a probe.
 *
 * Threads: new and free on main; start and stop on THREAD(supervisor); capability_read any (one leaf mutex).
 * Source: gateway.md 5.1.
 */
#ifndef MSWARM_JOBS_CAPABILITY_PROBE_H
#define MSWARM_JOBS_CAPABILITY_PROBE_H

#include "base/loop.h"
#include "jobs/capabilities.h"

#include <stdbool.h>

struct capability_probe;

struct capability_probe_opts {
	struct loop *loop;                 /* borrowed */
	int64_t limit_ms;                  /* of one command */
	int64_t every_ms;
	bool is_off;                       /* nothing is asked: there is nothing */
};

MUST_CHECK enum errc capability_probe_new(const struct capability_probe_opts *o, struct capability_probe **ret, struct err *e);
void capability_probe_start(struct capability_probe *p);
void capability_probe_stop(struct capability_probe *p);        /* cancels what runs */
void capability_probe_free(struct capability_probe *p);        /* NULL is fine */
/* The newest word; *ret_is_known false: the first round is not over yet, and what there is says "missing". */
void capability_read(struct capability_probe *p, struct capabilities *ret, bool *ret_is_known);

/* Readers of the commands' output, pure. */
void capability_read_gpus(struct capabilities *c, struct slice out);
void capability_read_cuda(struct capabilities *c, struct slice out);
void capability_read_docker(struct capabilities *c, struct slice out);
void capability_read_version(struct capability_software *s, struct slice out, struct slice behind);
/* A command that failed: missing or an error, by its text. */
void capability_failed(struct capability_software *s, struct slice text);
/* The sums that follow from what was read. */
void capability_settle(struct capabilities *c);

#endif
