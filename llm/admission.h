/*
 * Who may run now: bounded, fair, global. Two classes have bounds of their own (local clients; gateway and direct jobs),
 * every upstream has one, and a request runs when its class and one of its candidates have room.
 *
 * Fairness: waiting requests queue by client (API key, "local", "direct"); grants go round the clients, so that one that
 * floods does not starve the others; within a client by age. The queue is bounded over all (max_queued), and one client
 * may hold at most its share of it (half) while others wait.
 *
 * A ticket is made here and known by pointer until admission_leave, exactly once, whatever state it is in.
 * Breakers: who asks gets only candidates whose breaker lets a request through (looked at, not taken: breaker_try is the
 * caller's). One that waited may be granted a candidate whose breaker has opened meanwhile, when all of them have:
 * breaker_try says so, and the caller fails at once instead of waiting for nothing.
 *
 * Threads: admission_ask and admission_leave on the loop of the ticket; one leaf mutex; grants travel by letter.
 */
#ifndef MSWARM_LLM_ADMISSION_H
#define MSWARM_LLM_ADMISSION_H

#include "base/loop.h"
#include "llm/agent.h"

enum admission_class { ADMIT_LOCAL, ADMIT_JOB, ADMIT__COUNT };

struct admission;
struct ticket;

struct admission_opts {
	int64_t bound[ADMIT__COUNT];       /* running at a time */
	int64_t max_queued;
};

struct admission_ask {
	enum admission_class class;
	const char *client;                /* key id, "local", "direct", "gateway"; copied */
	int64_t client_max;                /* running and waiting of this client; 0: no limit */
	const struct agent *const *candidates; /* borrowed until admission_leave; at most AGENT_CANDIDATES_MAX */
	size_t candidate_count;
	struct loop *loop;
	void (*granted)(void *ctx, const struct agent *chosen); /* THREAD(loop); not called when granted at once */
	void *ctx;
};

MUST_CHECK enum errc admission_new(const struct admission_opts *o, struct admission **ret, struct err *e);
void admission_free(struct admission *a);
/*
 * E_OK with *ret_chosen set: runs now; NULL: waits for granted(). E_RATE_LIMITED (local) or E_AT_CAPACITY (job): full,
 * *ret_retry_s from the measured service rate (1..60). E_UNHEALTHY: every candidate's breaker is open, *ret_retry_s until
 * the next trial. No ticket on failure.
 */
MUST_CHECK enum errc admission_ask(struct admission *a, const struct admission_ask *q, struct ticket **ret, const struct agent **ret_chosen, int64_t *ret_retry_s, struct err *e);
/* Move a running ticket to another candidate, skipping those in the bit mask; NULL when none has room and a closed breaker. */
const struct agent *admission_next(struct admission *a, struct ticket *t, uint32_t tried_mask);
unsigned ticket_candidate(const struct ticket *t);      /* index of the chosen one */
/* Leaves the queue or gives the slot back. No granted() call follows. NULL is fine. */
void admission_leave(struct admission *a, struct ticket *t);

/* The node stops: who waits is granted nothing any more, so that a slot given back now starts no run. Any thread. */
void admission_close(struct admission *a);

struct admission_stats {
	int64_t running[ADMIT__COUNT], queued[ADMIT__COUNT], bound[ADMIT__COUNT];
	int64_t refused, served;
	int64_t service_ms;                /* moving average of how long a slot is held */
};
void admission_stats(struct admission *a, struct admission_stats *ret);   /* any thread */

#endif
