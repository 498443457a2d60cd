/*
 * What this machine has and can run, as plain data: filled by capability_probe, taken as copies by everybody else.
 *
 * Source: direct-api.md 2.6, 3.5; gateway.md 5.
 */
#ifndef MSWARM_JOBS_CAPABILITIES_H
#define MSWARM_JOBS_CAPABILITIES_H

#include "base/slice.h"

#define CAPABILITY_DEVICES_MAX 16
#define CAPABILITY_STATUSES(X) X(MISSING, "missing") X(AVAILABLE, "available") X(ERROR, "error") X(UNKNOWN, "unknown")
enum capability_status {
#define X(id, name) CAPABILITY_##id,
	CAPABILITY_STATUSES(X)
#undef X
};

/* Empty texts and 0: not known. */
struct capability_device {
	char id[16], vendor[16], name[96], driver_version[32], compute_capability[16], cuda_version[16];
	double vram_gb;
	bool is_cuda_by_query;          /* the device list itself gave the CUDA version */
};
struct capability_software {
	enum capability_status status;
	char version[64], message[200];
};

struct capabilities {
	struct capability_device devices[CAPABILITY_DEVICES_MAX];
	size_t device_count;
	enum capability_status gpu_status;
	char gpu_message[200];
	struct capability_software docker, docker_nvidia, blender, ffmpeg;
	unsigned gpu_count;
	bool is_nvidia, has_blender, has_docker_nvidia;
	double max_vram_gb;             /* of the largest device */
	char cuda_version[16];          /* empty: none known */
};

/* A runner for this type is built, and what it needs is here. */
bool capabilities_has_type(const struct capabilities *c, struct slice job_type);

#endif
