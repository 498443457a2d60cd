/*
 * How the jobs of gateways ended lately, for heartbeats (gateway.md 4.5): durations of the last 50, failures of the last
 * quarter of an hour. Relayed, direct (R3) and generic jobs together; local clients are no jobs.
 *
 * Threads: any; one leaf mutex.
 */
#ifndef MSWARM_LLM_OUTCOMES_H
#define MSWARM_LLM_OUTCOMES_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define OUTCOME_DURATIONS 50
#define OUTCOME_FAILURES 20
#define OUTCOME_FAILURE_MS (15 * 60 * 1000)    /* a failure is told that long */

enum outcome_class { OUTCOME_LLM, OUTCOME_GENERIC };

struct outcome_failure {
	enum outcome_class class;
	char code[48];
	int64_t at_mono_ms, at_wall_ms;
};

struct outcomes;

struct outcomes_view {
	int64_t average_ms;                /* rounded; -1: no job has ended */
	struct outcome_failure failures[OUTCOME_FAILURES];   /* newest first */
	unsigned failure_count;
};

MUST_CHECK enum errc outcomes_new(struct outcomes **ret, struct err *e);
void outcomes_free(struct outcomes *o);        /* NULL is fine */
/* code NULL: it succeeded. Without an object (NULL) nothing is kept. */
void outcomes_add(struct outcomes *o, enum outcome_class class, int64_t took_ms, const char *code);
void outcomes_get(struct outcomes *o, struct outcomes_view *ret);

#endif
