/* base/backoff: doubling, cap, jitter, reset. */
#include "base/backoff.h"
#include "base/attr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void doubles_up_to_the_cap(void **state)
{
	static const int64_t want[] = { 100, 200, 400, 800, 1000, 1000, 1000 };

	(void)state;
	for (int round = 0; round < 50; round++) {
		struct backoff b = { .base_ms = 100, .cap_ms = 1000 };

		for (size_t i = 0; i < ARRAY_LEN(want); i++)
			assert_in_range(backoff_next_ms(&b), want[i] / 2, want[i]);
		backoff_reset(&b);
		assert_in_range(backoff_next_ms(&b), 50, 100);
	}
}

/* Both halves of the range are met: the wait is spread, not fixed. */
static void is_spread(void **state)
{
	int low = 0, high = 0;

	(void)state;
	for (int i = 0; i < 400; i++) {
		struct backoff b = { .base_ms = 1000, .cap_ms = 1000 };
		int64_t ms = backoff_next_ms(&b);

		low += ms < 750;
		high += ms > 750;
	}
	assert_in_range(low, 100, 300);
	assert_in_range(high, 100, 300);
}

static void extremes(void **state)
{
	struct backoff huge = { .base_ms = INT64_MAX / 2 + 5, .cap_ms = INT64_MAX, .failures = 100 };
	struct backoff many = { .base_ms = 1, .cap_ms = 60000, .failures = UINT32_MAX };
	struct backoff none = { .base_ms = 0, .cap_ms = 1000 };
	struct backoff capped = { .base_ms = 5000, .cap_ms = 10 };

	(void)state;
	assert_true(backoff_next_ms(&huge) >= INT64_MAX / 2);
	assert_in_range(backoff_next_ms(&many), 30000, 60000);
	assert_int_equal(many.failures, UINT32_MAX);
	assert_int_equal(backoff_next_ms(&none), 0);
	assert_in_range(backoff_next_ms(&capped), 5, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(doubles_up_to_the_cap), cmocka_unit_test(is_spread), cmocka_unit_test(extremes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
