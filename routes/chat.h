/* What the routes that run models share: draining, and what a reply says about trying again. Threads: the loop's. */
#ifndef MSWARM_ROUTES_CHAT_H
#define MSWARM_ROUTES_CHAT_H

#include "routes/route.h"

/* New work is refused: the node stops, or drains at this level (DRAIN_ON: jobs of a gateway; DRAIN_ALL: everything). */
static inline bool node_refuses(struct svc *svc, enum drain_mode at)
{
	return atomic_load_explicit(&svc->state.is_stopping, memory_order_relaxed) ||
	       atomic_load_explicit(&svc->state.drain, memory_order_relaxed) >= (int)at;
}

/* Headers that SDKs obey (llm-execution.md 8.1): retry-after where waiting helps; x-should-retry: false on a 5xx once a
 * run has begun, since a retry is a second full run. */
void reply_retry(struct reply *rep, int status, int64_t retry_after_s, bool is_started);

#endif
