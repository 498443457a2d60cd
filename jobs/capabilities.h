/*
 * What this machine can run. The first probe lists only what exists: the runners that are built (jobs/runners.def), and
 * no GPU; it is completed with the runners.
 *
 * Threads: const from boot on. Source: direct-api.md 2.6, 3.5.
 */
#ifndef MSWARM_JOBS_CAPABILITIES_H
#define MSWARM_JOBS_CAPABILITIES_H

#include "base/slice.h"

struct capabilities {
	unsigned gpu_count;
	bool is_nvidia, has_blender, has_docker_nvidia;
	double max_vram_gb;             /* of the largest device */
	char cuda_version[16];          /* empty: none known */
};

/* A runner for this type is built, and what it needs is here. */
bool capabilities_has_type(const struct capabilities *c, struct slice job_type);

#endif
