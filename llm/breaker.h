/*
 * A circuit breaker: closed, open after failures in a row, half-open by timer (one trial at a time).
 *
 * Failures are the runner's fault before it produced anything: refused, reset, time limit, 5xx. Answers of any other
 * kind close it. Threads: any; one leaf mutex, touched once or twice a request, never per chunk. The innermost of all:
 * admission takes it while it holds its own.
 */
#ifndef MSWARM_LLM_BREAKER_H
#define MSWARM_LLM_BREAKER_H

#include "base/backoff.h"
#include "base/thread.h"

#define BREAKER_FAILURES 3                 /* in a row open it */
#define BREAKER_BASE_MS 1000               /* first wait; doubles to the cap */
#define BREAKER_CAP_MS 30000

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker {
	struct mutex mu;
	enum breaker_state state;          /* GUARDED_BY(mu) as all that follows */
	unsigned failures;
	int64_t retry_mono_ms;             /* while open */
	int64_t trial_mono_ms;             /* while half-open: since when; a trial older than the cap counts as failed */
	struct backoff wait;
};

void breaker_init(struct breaker *b);
void breaker_done(struct breaker *b);
/* May a request be tried now? Moves open to half-open when its time has come; then the caller is the trial. */
bool breaker_try(struct breaker *b, int64_t now_mono_ms);
/* As breaker_try without taking the trial: for choosing and for display. *ret_wait_ms (may be NULL): until the next trial. */
bool breaker_would(struct breaker *b, int64_t now_mono_ms, int64_t *ret_wait_ms);
void breaker_ok(struct breaker *b);
void breaker_fail(struct breaker *b, int64_t now_mono_ms);
void breaker_abandon(struct breaker *b);   /* the trial was cancelled by its client: no verdict */
const char *breaker_state_name(enum breaker_state s);

#endif
