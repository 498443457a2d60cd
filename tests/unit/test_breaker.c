/* Unit tests of llm/breaker.c: a script of events against expected states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "llm/breaker.h"

#define T0 1000000

/* Open it at T0. */
static void trip(struct breaker *b)
{
	for (int i = 0; i < BREAKER_FAILURES; i++)
		breaker_fail(b, T0);
}

static void test_opens_on_failures_in_a_row(void **state)
{
	struct breaker b;
	int64_t wait_ms = -1;

	(void)state;
	breaker_init(&b);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < BREAKER_FAILURES - 1; i++)
			breaker_fail(&b, T0);
		assert_int_equal(b.state, BREAKER_CLOSED);
		assert_true(breaker_try(&b, T0));
		breaker_ok(&b); /* the row is broken */
	}
	trip(&b);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_false(breaker_try(&b, T0));
	assert_false(breaker_would(&b, T0, &wait_ms));
	assert_in_range(wait_ms, BREAKER_BASE_MS / 2, BREAKER_BASE_MS);
	breaker_done(&b);
}

static void test_half_open_lets_one_through(void **state)
{
	struct breaker b;
	int64_t wait_ms, at;

	(void)state;
	breaker_init(&b);
	trip(&b);
	assert_false(breaker_would(&b, T0, &wait_ms));
	at = T0 + wait_ms;
	assert_false(breaker_try(&b, at - 1));
	assert_true(breaker_would(&b, at, &wait_ms)); /* looking takes nothing */
	assert_int_equal(wait_ms, 0);
	assert_true(breaker_would(&b, at, NULL));
	assert_true(breaker_try(&b, at));
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	assert_false(breaker_try(&b, at)); /* one trial at a time */
	assert_false(breaker_would(&b, at, &wait_ms));
	assert_true(wait_ms > 0);
	breaker_ok(&b);
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_true(breaker_try(&b, at) && breaker_try(&b, at));
	breaker_done(&b);
}

static void test_waits_grow_to_the_cap(void **state)
{
	struct breaker b;
	int64_t wait_ms, now = T0, expect = BREAKER_BASE_MS;

	(void)state;
	breaker_init(&b);
	trip(&b);
	for (int i = 0; i < 10; i++) {
		assert_false(breaker_would(&b, now, &wait_ms));
		assert_in_range(wait_ms, expect / 2, expect);
		now += wait_ms;
		assert_true(breaker_try(&b, now));
		breaker_fail(&b, now);
		assert_int_equal(b.state, BREAKER_OPEN);
		expect = expect * 2 < BREAKER_CAP_MS ? expect * 2 : BREAKER_CAP_MS;
	}
	/* one success, and it starts small again */
	assert_false(breaker_would(&b, now, &wait_ms));
	now += wait_ms;
	assert_true(breaker_try(&b, now));
	breaker_ok(&b);
	for (int i = 0; i < BREAKER_FAILURES; i++)
		breaker_fail(&b, now);
	assert_false(breaker_would(&b, now, &wait_ms));
	assert_in_range(wait_ms, BREAKER_BASE_MS / 2, BREAKER_BASE_MS);
	breaker_done(&b);
}

static void test_late_failures_do_not_lengthen_the_wait(void **state)
{
	struct breaker b;
	int64_t before, after;

	(void)state;
	breaker_init(&b);
	trip(&b);
	assert_false(breaker_would(&b, T0, &before));
	for (int i = 0; i < 20; i++)
		breaker_fail(&b, T0 + 1);
	assert_false(breaker_would(&b, T0, &after));
	assert_int_equal(before, after);
	breaker_done(&b);
}

static void test_abandoned_trial_is_given_to_the_next(void **state)
{
	struct breaker b;

	(void)state;
	breaker_init(&b);
	breaker_abandon(&b); /* nothing to abandon while closed */
	assert_int_equal(b.state, BREAKER_CLOSED);
	trip(&b);
	assert_true(breaker_try(&b, T0 + BREAKER_BASE_MS));
	breaker_abandon(&b);
	assert_true(breaker_would(&b, T0 + BREAKER_BASE_MS, NULL));
	assert_true(breaker_try(&b, T0 + BREAKER_BASE_MS));
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	breaker_done(&b);
}

static void test_stale_trial_counts_as_failed(void **state)
{
	struct breaker b;
	int64_t wait_ms, stale = T0 + BREAKER_BASE_MS + BREAKER_CAP_MS;

	(void)state;
	breaker_init(&b);
	trip(&b);
	assert_true(breaker_try(&b, T0 + BREAKER_BASE_MS));
	assert_false(breaker_would(&b, stale - 1, NULL));
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	assert_false(breaker_would(&b, stale, &wait_ms));
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_in_range(wait_ms, BREAKER_BASE_MS, 2 * BREAKER_BASE_MS);
	assert_true(breaker_try(&b, stale + wait_ms));
	/* its answer came after all */
	breaker_ok(&b);
	assert_int_equal(b.state, BREAKER_CLOSED);
	breaker_done(&b);
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(breaker_state_name(BREAKER_CLOSED), "closed");
	assert_string_equal(breaker_state_name(BREAKER_OPEN), "open");
	assert_string_equal(breaker_state_name(BREAKER_HALF_OPEN), "half_open");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opens_on_failures_in_a_row), cmocka_unit_test(test_half_open_lets_one_through),
		cmocka_unit_test(test_waits_grow_to_the_cap), cmocka_unit_test(test_late_failures_do_not_lengthen_the_wait),
		cmocka_unit_test(test_abandoned_trial_is_given_to_the_next), cmocka_unit_test(test_stale_trial_counts_as_failed),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
