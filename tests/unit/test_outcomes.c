/* How jobs ended lately: the last fifty durations, failures by age. */
#include "base/clock.h"
#include "llm/outcomes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct outcomes *make(void)
{
	struct outcomes *o = NULL;
	struct err e;

	assert_int_equal(outcomes_new(&o, &e), E_OK);
	return o;
}

static void test_average(void **state)
{
	struct outcomes *o = make();
	struct outcomes_view v;

	(void)state;
	outcomes_get(o, &v);
	assert_int_equal(v.average_ms, -1);
	outcomes_add(o, OUTCOME_LLM, 10, NULL);
	outcomes_add(o, OUTCOME_GENERIC, 15, "timeout");
	outcomes_get(o, &v);
	assert_int_equal(v.average_ms, 13);    /* half up */
	for (int i = 0; i < OUTCOME_DURATIONS; i++)
		outcomes_add(o, OUTCOME_LLM, 100, NULL);
	outcomes_get(o, &v);
	assert_int_equal(v.average_ms, 100);
	outcomes_free(o);
}

static void test_newest_first(void **state)
{
	struct outcomes *o = make();
	struct outcomes_view v;

	(void)state;
	for (int i = 0; i < 2 * OUTCOME_FAILURES; i++) {
		char code[16];

		(void)snprintf(code, sizeof(code), "c%d", i);
		outcomes_add(o, i % 2 ? OUTCOME_GENERIC : OUTCOME_LLM, 1, code);
		outcomes_add(o, OUTCOME_LLM, 1, NULL);
	}
	outcomes_get(o, &v);
	assert_int_equal(v.failure_count, OUTCOME_FAILURES);
	assert_string_equal(v.failures[0].code, "c39");
	assert_int_equal(v.failures[0].class, OUTCOME_GENERIC);
	assert_string_equal(v.failures[OUTCOME_FAILURES - 1].code, "c20");
	outcomes_free(o);
}

static void test_failures_age(void **state)
{
	struct outcomes *o = make();
	struct outcomes_view v;

	(void)state;
	outcomes_add(o, OUTCOME_LLM, 1, "old");
	clock_test_advance_ms(OUTCOME_FAILURE_MS - 1000);
	outcomes_add(o, OUTCOME_LLM, 1, "");
	outcomes_get(o, &v);
	assert_int_equal(v.failure_count, 2);
	assert_string_equal(v.failures[0].code, "upstream_error");
	clock_test_advance_ms(2000);
	outcomes_get(o, &v);
	assert_int_equal(v.failure_count, 1);
	clock_test_advance_ms(OUTCOME_FAILURE_MS);
	outcomes_get(o, &v);
	assert_int_equal(v.failure_count, 0);
	outcomes_add(NULL, OUTCOME_LLM, 1, NULL);
	outcomes_free(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_average), cmocka_unit_test(test_newest_first), cmocka_unit_test(test_failures_age) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
