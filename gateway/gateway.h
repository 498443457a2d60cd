/*
 * The node's link to its account's gateway: membership, heartbeats, relayed jobs. One thread with a loop of its own.
 *
 * Threads: new, start, join and free on main; the others any. NOTES.md says how it works inside. Source: gateway.md.
 */
#ifndef MSWARM_GATEWAY_GATEWAY_H
#define MSWARM_GATEWAY_GATEWAY_H

#include "base/config.h"
#include "base/jw.h"
#include "base/loop.h"
#include "base/pool.h"
#include "jobs/capability_probe.h"
#include "llm/admission.h"
#include "llm/chat.h"
#include "llm/inventory.h"
#include "llm/outcomes.h"
#include "store/store.h"

#include <stdatomic.h>

struct gateway;

#define LINK_STATES(X) X(JOINING, "joining") X(ONLINE, "online") X(DEGRADED, "degraded") X(REFUSED, "refused") X(REMOVED, "removed") X(STOPPED, "stopped")
enum link_state {
#define X(id, name) LINK_##id,
	LINK_STATES(X)
#undef X
};

/* A relayed job that has ended, for the books. */
struct gateway_use {
	const char *agent;                 /* slug, or empty */
	const struct chat_usage *usage;
	int64_t took_ms;
	bool is_error;
};

struct gateway_opts {                      /* all borrowed, outlive the gateway */
	const struct config *cfg;
	struct store *store;
	struct inventory *inventory;
	struct admission *admission;
	struct pool *pool;
	struct outcomes *outcomes;
	struct capability_probe *probe;
	const atomic_int *drain;           /* not 0: no polls, no free slots */
	const char *node_id;
	void (*on_start)(void *ctx, struct loop *l);           /* THREAD(gateway), before anything else; may be NULL */
	void (*on_job)(void *ctx, const struct gateway_use *u);   /* THREAD(gateway) */
	void (*on_end)(void *ctx);         /* the last that its thread does; only tells somebody */
	void *ctx;
};

MUST_CHECK enum errc gateway_new(const struct gateway_opts *o, struct gateway **ret, struct err *e);
MUST_CHECK enum errc gateway_start(struct gateway *g, struct err *e);
/* No new work; what runs may go on for grace_ms, then it is ended and told. A second call makes the time shorter. */
void gateway_stop(struct gateway *g, int64_t grace_ms);
void gateway_join(struct gateway *g);      /* after gateway_stop, before store_close */
void gateway_free(struct gateway *g);      /* after store_close: the store's letters have come to rest. NULL is fine */

struct loop *gateway_loop(struct gateway *g);
void gateway_kick(struct gateway *g);      /* drain was changed, a slot is free: look again */
/* Members of an object: state, since, last error, counts. Any thread. */
void gateway_status(struct gateway *g, struct jw *w);

/*
 * One heartbeat now, for commands. The answer is text (JSON of cli-config-service.md 1.11) or an error; the letter is posted
 * to loop. Owner: the caller, until then.
 */
struct gateway_ask {
	struct loop_msg msg;               /* private: the way there */
	struct loop_msg answer;            /* fn set by the caller */
	struct loop *loop;
	struct gateway_ask *next;
	struct buf text;                   /* set by the caller with its limit */
	char *clients;                     /* a new client_allowlist (JSON), taken over; NULL: as it is */
	enum errc rc;
	struct err err;
	struct gateway *g;
};
void gateway_ask(struct gateway *g, struct gateway_ask *a);

#endif
