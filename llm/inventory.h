/*
 * Keeps the list of agents fresh in the background and hands out the newest snapshot. Never a process or a probe per
 * request. A source that fails keeps what it had said last for a while (three refreshes), then is empty.
 *
 * Threads: started and run on the supervisor's loop; inventory_get from any thread (one leaf mutex).
 */
#ifndef MSWARM_LLM_INVENTORY_H
#define MSWARM_LLM_INVENTORY_H

#include "base/config.h"
#include "base/httpc.h"
#include "base/loop.h"
#include "llm/agent.h"

struct inventory;

struct inventory_opts {
	const struct config *cfg;          /* borrowed until inventory_free */
	struct loop *loop;                 /* the supervisor's */
	struct httpc *client;              /* on that loop */
};

MUST_CHECK enum errc inventory_new(const struct inventory_opts *o, struct inventory **ret, struct err *e);
void inventory_start(struct inventory *inv);           /* THREAD(supervisor), or before its loop runs */
void inventory_refresh(struct inventory *inv);         /* any thread: soon, once, however often asked (at most one a second) */
void inventory_stop(struct inventory *inv);            /* THREAD(supervisor): cancels what runs */
void inventory_free(struct inventory *inv);

/* The newest snapshot, one reference (agents_unref). Never NULL. Any thread. */
struct agents *inventory_get(struct inventory *inv);

/* Called once on w->loop when every source has answered or failed, when 2.5 s have passed, or at inventory_stop. Already
 * the case: false, and no call. */
struct inventory_waiter {
	struct loop_msg msg;               /* fn set by the caller */
	struct loop *loop;
	struct inventory_waiter *next;
};
bool inventory_wait_first(struct inventory *inv, struct inventory_waiter *w);
/* Takes a waiter off; false when its letter is already on the way (it will still arrive). */
bool inventory_wait_cancel(struct inventory *inv, struct inventory_waiter *w);

/* Has every source said or failed something? THREAD(supervisor). */
bool inventory_is_complete(const struct inventory *inv);
/* How the last word of a source came about, for heartbeats. Any thread. */
struct inventory_discovery {
	bool is_there;                     /* the source is asked at all */
	bool is_ok;                        /* its last word was no failure */
	int64_t took_ms;                   /* from the beginning of the last round to its latest answer */
	char version[40];                  /* Ollama's, or empty */
};
void inventory_discovery(struct inventory *inv, enum agent_source source, struct inventory_discovery *ret);

/* For status and the banner: what each source said. THREAD(any). Writes a JSON array member "sources". */
struct jw;
void inventory_json(struct inventory *inv, struct jw *w, const char *key);

#endif
