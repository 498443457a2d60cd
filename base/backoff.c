/*
 * Capped exponential backoff with jitter. Called by whoever retries (gateway link, outbox, breakers), on its thread.
 */
#include "base/backoff.h"

#include "base/clock.h"

#include <sys/random.h>

void backoff_reset(struct backoff *b)
{
	b->failures = 0;
}

/* Jitter needs spread, not secrecy: when the kernel has no randomness yet, the clock will do. */
static uint64_t spread(void)
{
	uint64_t x;

	if (getrandom(&x, sizeof(x), GRND_NONBLOCK) != (ssize_t)sizeof(x))
		x = (uint64_t)clock_mono_us() * UINT64_C(0x9E3779B97F4A7C15);
	return x;
}

int64_t backoff_next_ms(struct backoff *b)
{
	int64_t d = b->base_ms;

	if (b->failures < UINT32_MAX)
		b->failures++;
	for (unsigned i = 1; i < b->failures && d > 0 && d < b->cap_ms; i++)
		d = d > INT64_MAX / 2 ? INT64_MAX : d * 2;
	if (d > b->cap_ms)
		d = b->cap_ms;
	if (d <= 0)
		return 0;
	int64_t half = d / 2;

	return half + (int64_t)(spread() % ((uint64_t)(d - half) + 1));
}
