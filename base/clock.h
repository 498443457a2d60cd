/*
 * Time: monotonic for durations and deadlines, wall for records. A test can turn both by hand.
 * Units: milliseconds; wall counts from 1970 UTC. Threads: any.
 */
#ifndef MSWARM_BASE_CLOCK_H
#define MSWARM_BASE_CLOCK_H

#include "base/slice.h"

#define CLOCK_NEVER INT64_MAX
#define CLOCK_ISO_LEN 25 /* "2026-06-14T00:00:00.000Z" and a NUL */

int64_t clock_mono_ms(void);
int64_t clock_mono_us(void);
int64_t clock_wall_ms(void);
void clock_iso(int64_t wall_ms, char out[CLOCK_ISO_LEN]);
/* RFC 3339: date 'T' (or 't' or blank) time, optional fraction, 'Z' or +-hh:mm; nothing else. */
bool clock_parse_iso(struct slice s, int64_t *ret_wall_ms) MUST_CHECK;

/* Tests: add to both clocks from now on (may be called often; negative turns back). */
void clock_test_advance_ms(int64_t ms);
/* Tests: freeze wall at this value plus later advances; -1 thaws. */
void clock_test_set_wall_ms(int64_t wall_ms);

#endif
