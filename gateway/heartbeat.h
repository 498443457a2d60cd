/*
 * The words of a heartbeat (gateway.md 4): from what the rest of the node says of itself at the moment of writing. Also the
 * capacity of a poll (8.1) and of the answer that "once" prints (cli-config-service.md 1.11).
 *
 * Threads: heartbeat_load_read on the reader's loop; the writers are pure.
 */
#ifndef MSWARM_GATEWAY_HEARTBEAT_H
#define MSWARM_GATEWAY_HEARTBEAT_H

#include "base/config.h"
#include "base/jw.h"
#include "gateway/capability.h"
#include "gateway/catalog.h"
#include "llm/admission.h"
#include "llm/inventory.h"
#include "llm/outcomes.h"
#include "store/store.h"

/* Limits as they are told, without anything that runs. */
struct heartbeat_load;
void heartbeat_load_limits(const struct config *cfg, struct heartbeat_load *ret);

/* How loaded the node is: true at the moment of reading. */
struct heartbeat_load {
	int64_t max_llm, max_generic, max_jobs;    /* L, G, M of 4.4 */
	int64_t active_llm, queued_llm, active_generic, queued_generic;
	bool is_generic_on, is_draining;
};

struct heartbeat_load_in {
	const struct config *cfg;
	struct admission *admission;
	struct store_reader *reader;
	int64_t claimed;                   /* relayed jobs that admission does not know yet */
	bool is_draining;
};
MUST_CHECK enum errc heartbeat_load_read(const struct heartbeat_load_in *in, struct heartbeat_load *ret, struct err *e);
int64_t heartbeat_active(const struct heartbeat_load *l);
int64_t heartbeat_queued(const struct heartbeat_load *l);
int64_t heartbeat_free(const struct heartbeat_load *l);        /* free_slots of the whole node */
int64_t heartbeat_free_llm(const struct heartbeat_load *l);

struct heartbeat {
	const struct config *cfg;
	const char *node_id;
	const char *config_version;        /* JSON token, NULL: null */
	const char *clients;               /* client_allowlist: JSON token, NULL: not told */
	const struct agents *agents;
	struct catalog catalog;
	struct inventory_discovery discovery;
	struct heartbeat_load load;
	struct outcomes_view outcomes;
	struct capability_in capability;
	int64_t now_wall_ms;
	/* The gateway does not know a path of the job lifecycle: NULL, or what is said of it; since when. */
	const char *mismatch;
	int64_t mismatch_wall_ms;
};

bool heartbeat_is_online(const struct heartbeat *h);
MUST_CHECK enum errc heartbeat_write(const struct heartbeat *h, struct buf *out, struct err *e);
/* What commands tell of it (cli-config-service.md 1.11), the closing brace left out: "heartbeat_response" follows. */
MUST_CHECK enum errc heartbeat_write_told(const struct heartbeat *h, bool is_enrolled_now, struct buf *out, struct err *e);
/* "capacity" as in heartbeats; is_told: without its protocol_version, with health's numbers, as once prints it. */
void heartbeat_write_capacity(struct jw *w, const char *key, const struct heartbeat *h, bool is_told);

#endif
