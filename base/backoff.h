/* Capped exponential backoff with jitter; reset on success. Threads: its owner's only. */
#ifndef MSWARM_BASE_BACKOFF_H
#define MSWARM_BASE_BACKOFF_H

#include <stdint.h>

struct backoff {
	int64_t base_ms, cap_ms;
	unsigned failures;
};

void backoff_reset(struct backoff *b);
/* Count one more failure and give the wait: uniform in [d/2, d], d = min(cap, base * 2^(failures-1)). */
int64_t backoff_next_ms(struct backoff *b);

#endif
