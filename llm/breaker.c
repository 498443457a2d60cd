/*
 * The circuit breaker of one runner: see breaker.h. Its mutex is the innermost of the node: admission looks at breakers
 * while it holds its own (order: admission, then breaker); nothing is called from in here but backoff.
 */
#include "llm/breaker.h"

void breaker_init(struct breaker *b)
{
	*b = (struct breaker){ .state = BREAKER_CLOSED, .wait = { .base_ms = BREAKER_BASE_MS, .cap_ms = BREAKER_CAP_MS } };
	mutex_init(&b->mu);
}

void breaker_done(struct breaker *b)
{
	mutex_done(&b->mu);
}

static void open_until_next(struct breaker *b, int64_t from_mono_ms)
{
	mutex_must_hold(&b->mu);
	b->state = BREAKER_OPEN;
	b->retry_mono_ms = from_mono_ms + backoff_next_ms(&b->wait);
}

/* A trial that nobody reported on for the cap counts as failed at that moment, whenever it is noticed. */
static void settle(struct breaker *b, int64_t now_mono_ms)
{
	if (b->state == BREAKER_HALF_OPEN && now_mono_ms - b->trial_mono_ms >= BREAKER_CAP_MS)
		open_until_next(b, b->trial_mono_ms + BREAKER_CAP_MS);
}

bool breaker_try(struct breaker *b, int64_t now_mono_ms)
{
	MUTEX_SCOPE(&b->mu);
	settle(b, now_mono_ms);
	if (b->state != BREAKER_OPEN || now_mono_ms < b->retry_mono_ms)
		return b->state == BREAKER_CLOSED;
	b->state = BREAKER_HALF_OPEN;
	b->trial_mono_ms = now_mono_ms;
	return true;
}

bool breaker_would(struct breaker *b, int64_t now_mono_ms, int64_t *ret_wait_ms)
{
	MUTEX_SCOPE(&b->mu);
	settle(b, now_mono_ms);
	int64_t wait_ms = 0;

	if (b->state == BREAKER_OPEN && now_mono_ms < b->retry_mono_ms)
		wait_ms = b->retry_mono_ms - now_mono_ms;
	else if (b->state == BREAKER_HALF_OPEN)
		wait_ms = BREAKER_BASE_MS; /* the trial under way will tell soon, most likely */
	if (ret_wait_ms)
		*ret_wait_ms = wait_ms;
	return wait_ms == 0;
}

void breaker_ok(struct breaker *b)
{
	MUTEX_SCOPE(&b->mu);
	b->state = BREAKER_CLOSED;
	b->failures = 0;
	backoff_reset(&b->wait);
}

void breaker_fail(struct breaker *b, int64_t now_mono_ms)
{
	MUTEX_SCOPE(&b->mu);
	if (b->failures < BREAKER_FAILURES)
		b->failures++;
	/* While open, what fails is a request from before: it tells nothing new and must not lengthen the wait. */
	if (b->state == BREAKER_HALF_OPEN || (b->state == BREAKER_CLOSED && b->failures >= BREAKER_FAILURES))
		open_until_next(b, now_mono_ms);
}

void breaker_abandon(struct breaker *b)
{
	MUTEX_SCOPE(&b->mu);
	/* retry_mono_ms has passed already: the next request is the trial. */
	if (b->state == BREAKER_HALF_OPEN)
		b->state = BREAKER_OPEN;
}

const char *breaker_state_name(enum breaker_state s)
{
	static const char *const names[] = { [BREAKER_CLOSED] = "closed", [BREAKER_OPEN] = "open", [BREAKER_HALF_OPEN] = "half_open" };

	return names[s];
}
