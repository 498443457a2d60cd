/*
 * Request accounting by agent and key: running totals and a latency histogram, added to in batches.
 * Threads: usage_add_tx on THREAD(store); usage_list on the reader's loop or main.
 */
#ifndef MSWARM_STORE_USAGE_H
#define MSWARM_STORE_USAGE_H

#include "store/store.h"

#define USAGE_BUCKETS 16                   /* upper bounds 1, 2, 4 ... 2^14 ms x 4, last: all above; see usage_bucket */

struct usage_row {
	char agent[129];
	char key_id[20];                   /* "" for keyless clients, "direct" for R3 */
	int64_t requests, errors, prompt_tokens, completion_tokens;
	int64_t latency[USAGE_BUCKETS];    /* requests by total time */
	int64_t latency_sum_ms;
};

unsigned usage_bucket(int64_t ms);         /* index 0..15: 2^(i+2) ms is the inclusive bound of bucket i */
MUST_CHECK enum errc usage_add_tx(struct store_tx *t, const struct usage_row *delta, struct err *e);
MUST_CHECK enum errc usage_list(struct store_reader *r, struct usage_row **ret, size_t *ret_n, struct err *e); /* at most 10,000 */

#endif
