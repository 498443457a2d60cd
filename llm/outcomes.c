/* How jobs ended lately; see outcomes.h. Called by R3, by relays and by the supervisor's hook; read by heartbeats. */
#include "llm/outcomes.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"

#include <stdio.h>

struct outcomes {
	struct mutex mu;
	int64_t took_ms[OUTCOME_DURATIONS];    /* GUARDED_BY(mu), as all below: rings, written at count % size */
	uint64_t count;
	struct outcome_failure failures[OUTCOME_FAILURES];
	uint64_t failure_count;
};

enum errc outcomes_new(struct outcomes **ret, struct err *e)
{
	struct outcomes *o = NEW(struct outcomes);

	if (!o)
		return err_set(e, E_NO_MEMORY, "no memory");
	mutex_init(&o->mu);
	*ret = o;
	return E_OK;
}

void outcomes_free(struct outcomes *o)
{
	if (!o)
		return;
	mutex_done(&o->mu);
	mem_free(o);
}

void outcomes_add(struct outcomes *o, enum outcome_class class, int64_t took_ms, const char *code)
{
	struct outcome_failure f = { .class = class, .at_mono_ms = clock_mono_ms(), .at_wall_ms = clock_wall_ms() };

	if (!o)
		return;
	snprintf(f.code, sizeof(f.code), "%s", code && *code ? code : "upstream_error");
	MUTEX_SCOPE(&o->mu);
	o->took_ms[o->count++ % OUTCOME_DURATIONS] = took_ms;
	if (code)
		o->failures[o->failure_count++ % OUTCOME_FAILURES] = f;
}

void outcomes_get(struct outcomes *o, struct outcomes_view *ret)
{
	int64_t now_ms = clock_mono_ms(), sum_ms = 0;

	*ret = (struct outcomes_view){ .average_ms = -1 };
	MUTEX_SCOPE(&o->mu);
	uint64_t n = o->count < OUTCOME_DURATIONS ? o->count : OUTCOME_DURATIONS;

	for (uint64_t i = 0; i < n; i++)
		sum_ms += o->took_ms[i];
	if (n)
		ret->average_ms = (2 * sum_ms + (int64_t)n) / (2 * (int64_t)n);
	for (uint64_t i = o->failure_count; i > 0 && o->failure_count - i < OUTCOME_FAILURES; i--) {
		const struct outcome_failure *f = &o->failures[(i - 1) % OUTCOME_FAILURES];

		if (now_ms - f->at_mono_ms > OUTCOME_FAILURE_MS)
			return;
		ret->failures[ret->failure_count++] = *f;
	}
}
