/*
 * The signed capability payload of a heartbeat (gateway.md 5): what this machine can run, in the three views that the gateway
 * knows, with a MAC over exactly the bytes that are sent.
 *
 * Pure but for the clock that the caller reads; any thread. What is private stays in unless shows_details (design.md 6).
 */
#ifndef MSWARM_GATEWAY_CAPABILITY_H
#define MSWARM_GATEWAY_CAPABILITY_H

#include "base/jw.h"
#include "jobs/capabilities.h"

/* A kind of job that the node offers. */
struct capability_runner {
	const char *job_type, *name;
	const char *required[4];           /* names of capabilities, up to a NULL; without all of them it is not offered */
};

struct capability_in {
	const struct capabilities *caps;
	const struct capability_runner *runners;   /* in the order in which they are told */
	size_t runner_count;
	const char *node_id;
	bool is_generic_on, shows_details;
	int64_t captured_wall_ms, signed_wall_ms;
	struct slice key;                  /* the runtime token */
};

/* The kinds of jobs that this program can run; at most max. */
size_t capability_offered(struct capability_runner *out, size_t max);
#define CAPABILITY_RUNNERS_MAX 16

/* The public projection alone, as R2 shows it (direct-api.md 2.6); key and signed_wall_ms are not used. */
MUST_CHECK enum errc capability_write_public(struct jw *w, const char *key, const struct capability_in *in, struct err *e);
MUST_CHECK enum errc capability_write(struct jw *w, const char *key, const struct capability_in *in, struct err *e);

#endif
