/* The mover: every pair of states, the times that a move sets, and beginning anew. */
#include "jobs/state.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct job_row row(enum job_state s)
{
	return (struct job_row){ .job_id = mem_strdup("j"), .state = s, .attempt = 1, .created_wall_ms = 1, .updated_wall_ms = 2, .queued_wall_ms = 3,
				 .scheduled_wall_ms = 4, .started_wall_ms = 5, .is_cancel_asked = true, .reservation = mem_strdup("{}"),
				 .backpressure = mem_strdup("{}"), .result = mem_strdup("{}"), .artifacts = mem_strdup("[]") };
}

/* direct-api.md 3.1, spelled out a second time. */
static void test_every_pair(void **state)
{
	static const char *const to[JOB__COUNT] = {
		[JOB_QUEUED] = "scheduled cancelled expired blocked", [JOB_SCHEDULED] = "running queued cancelled expired blocked",
		[JOB_RUNNING] = "succeeded failed cancelled retrying expired", [JOB_RETRYING] = "queued cancelled expired blocked",
		[JOB_SUCCEEDED] = "", [JOB_FAILED] = "", [JOB_CANCELLED] = "", [JOB_EXPIRED] = "", [JOB_BLOCKED] = "",
	};

	(void)state;
	for (int a = 0; a < JOB__COUNT; a++) {
		for (int b = 0; b < JOB__COUNT; b++) {
			bool want = a == b || strstr(to[a], job_state_name((enum job_state)b)) != NULL;
			struct job_row j = row((enum job_state)a);
			struct err e = { 0 };

			assert_int_equal(job_may((enum job_state)a, (enum job_state)b), want);
			assert_int_equal(job_move(&j, (enum job_state)b, 9, &e), want ? E_OK : E_CONFLICT);
			assert_int_equal(j.state, want ? b : a);
			assert_int_equal(j.updated_wall_ms, want ? 9 : 2);
			if (!want)
				assert_non_null(strstr(e.what, job_state_name((enum job_state)b)));
			job_row_done(&j);
		}
		assert_int_equal(job_is_ended((enum job_state)a), to[a][0] == '\0');
	}
}

static void test_times(void **state)
{
	struct job_row j = { .job_id = mem_strdup("j"), .backpressure = mem_strdup("{}") };
	struct err e;

	(void)state;
	assert_int_equal(job_move(&j, JOB_SCHEDULED, 10, &e), E_OK);
	assert_null(j.backpressure);
	assert_int_equal(j.scheduled_wall_ms, 10);
	assert_int_equal(job_move(&j, JOB_RUNNING, 11, &e), E_OK);
	assert_int_equal(j.started_wall_ms, 11);
	assert_int_equal(job_move(&j, JOB_FAILED, 12, &e), E_OK);
	assert_int_equal(j.finished_wall_ms, 12);
	assert_int_equal(j.released_wall_ms, 12);
	job_row_done(&j);
}

/* What never began has reserved nothing. */
static void test_ended_while_waiting(void **state)
{
	struct job_row j = { .job_id = mem_strdup("j"), .backpressure = mem_strdup("{}") };
	struct err e;

	(void)state;
	assert_int_equal(job_move(&j, JOB_CANCELLED, 12, &e), E_OK);
	assert_int_equal(j.finished_wall_ms, 12);
	assert_int_equal(j.released_wall_ms, 0);
	assert_non_null(j.backpressure);               /* kept: 3.4 */
	job_row_done(&j);
}

static void test_queued_again(void **state)
{
	struct job_row j = row(JOB_RETRYING);
	struct err e;

	(void)state;
	assert_int_equal(job_move(&j, JOB_QUEUED, 20, &e), E_OK);
	assert_int_equal(j.queued_wall_ms, 20);
	assert_int_equal(j.next_retry_wall_ms, 20);
	assert_int_equal(j.created_wall_ms, 1);
	assert_int_equal(j.scheduled_wall_ms + j.started_wall_ms + j.finished_wall_ms + j.released_wall_ms, 0);
	assert_false(j.is_cancel_asked);
	assert_null(j.reservation);
	assert_null(j.backpressure);
	assert_non_null(j.result);                     /* of the attempt that failed, to be seen meanwhile */
	job_row_done(&j);
}

static void test_anew(void **state)
{
	(void)state;
	for (int a = 0; a < JOB__COUNT; a++) {
		struct job_row j = row((enum job_state)a);
		struct err e = { 0 };
		bool may = job_is_ended((enum job_state)a) && a != JOB_SUCCEEDED;
		enum errc rc = job_begin_anew(&j, 30, &e);

		assert_int_equal(rc, may ? E_OK : E_BAD_REQUEST);
		if (may) {
			assert_int_equal(j.state, JOB_QUEUED);
			assert_int_equal(j.retry_count, 1);
			assert_null(j.result);
			assert_null(j.artifacts);
		} else {
			assert_string_equal(e.what, a == JOB_SUCCEEDED ? "job_retry_not_allowed_for_succeeded_jobs" : "job_retry_requires_terminal_state");
			assert_int_equal(j.state, a);
			assert_non_null(j.result);
		}
		job_row_done(&j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair), cmocka_unit_test(test_times), cmocka_unit_test(test_ended_while_waiting),
		cmocka_unit_test(test_queued_again), cmocka_unit_test(test_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
