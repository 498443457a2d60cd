/* server/ops_text.c: the text of the existing client, and the table that is cut to a terminal. */
#include "server/ops_text.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW_MS INT64_C(1767225600000)          /* 2026-01-01T00:00:00Z */

static const char answer[] =
	"{\"node\":{\"node_id\":\"n1\",\"generic_jobs_enabled\":true},"
	"\"queue\":{\"active_jobs\":1,\"queued_jobs\":2,\"terminal_jobs\":3,\"jobs\":["
	"{\"job_id\":\"a-job\",\"state\":\"running\",\"job_type\":\"tenant.test-echo\",\"priority\":7,\"tenant_id\":\"t\",\"updated_at\":\"2025-12-31T23:58:55.000Z\"},"
	"{\"job_id\":\"\\u001b[2Jevil\\u202e\\u009b\",\"state\":\"queued\",\"job_type\":\"x\",\"priority\":0,\"tenant_id\":\"\\u00fcber\",\"updated_at\":\"2025-12-30T00:00:00Z\"},"
	"{\"job_id\":\"0123456789012345678901234567890123456789012345678901234567890123456789\",\"state\":\"failed\",\"job_type\":\"x\",\"tenant_id\":\"t\"}]},"
	"\"quota\":{\"max_concurrent_jobs\":4,\"available_slots\":3},"
	"\"usage\":{\"total_jobs\":6,\"succeeded_jobs\":1,\"failed_jobs\":2,\"cancelled_jobs\":0,\"blocked_jobs\":0,\"expired_jobs\":0,\"gpu_seconds\":1.5},"
	"\"audit\":{\"offset\":0,\"limit\":1,\"total\":9,\"events\":[{\"timestamp\":\"T\",\"action\":\"created\",\"job_id\":\"a-job\"}]}}";

static void check_table(const char *json, const struct ops_screen *s, const char *wanted)
{
	AUTO_JSON ops = NULL;
	AUTO_BUF out = BUF_MAX(65536);
	struct err e = { 0 };

	if (json)
		assert_int_equal(json_parse(slice_str(json), JSON_LIMITS_DEFAULT, &ops, &e), E_OK);
	assert_int_equal(ops_table(ops, s, &out, &e), E_OK);
	assert_string_equal(buf_cstr(&out), wanted);
}

static void test_text(void **state)
{
	AUTO_JSON ops = NULL;
	AUTO_BUF out = BUF_MAX(65536);
	struct err e = { 0 };

	(void)state;
	assert_int_equal(json_parse(slice_str(answer), JSON_LIMITS_DEFAULT, &ops, &e), E_OK);
	assert_int_equal(ops_text(ops, &out, &e), E_OK);
	assert_ptr_equal(strstr(buf_cstr(&out), "n1 generic-jobs-enabled\nqueue active=1 queued=2 terminal=3\nquota available=3/4 production_enforced=false\n"
		"usage total=6 succeeded=1 failed=2 cancelled=0 blocked=0 gpu_seconds=1.5\njobs:\n"
		"  a-job running tenant.test-echo priority=7 tenant=t\n"), buf_cstr(&out));
	assert_non_null(strstr(buf_cstr(&out), "audit offset=0 limit=1 total=9:\n  T created a-job\n"));
}

static void test_table(void **state)
{
	(void)state;
	check_table(answer, &(struct ops_screen){ .columns = 200, .rows = 24, .now_wall_ms = NOW_MS },
		"\033[Hn1  2026-01-01T00:00:00Z  jobs on\033[K\n"
		"1 of 4 at work, 2 waiting, 3 ended\033[K\n"
		"in all: 6 jobs, 1 succeeded, 2 failed, 0 cancelled, 0 blocked, 0 expired\033[K\n"
		"\033[K\n\033[K\n"
		"STATE    PRIO  SINCE  JOB                                           TENANT  TYPE\033[K\n"
		"running  7     1m     a-job                                         t       tenant.test-echo\033[K\n"
		"queued   0     2d     ?[2Jevil??                                    \xc3\xbc" "ber    x\033[K\n"
		"failed   0            0123456789012345678901234567890123456789012~  t       x\033[K\n"
		"\033[J");
}

static void test_small_terminals(void **state)
{
	(void)state;
	check_table(answer, &(struct ops_screen){ .columns = 26, .rows = 8, .now_wall_ms = NOW_MS, .trouble = "no answer" },
		"\033[Hn1  2026-01-01T00:00:00Z ~\033[K\n"
		"1 of 4 at work, 2 waiting~\033[K\n"
		"in all: 6 jobs, 1 succeed~\033[K\n"
		"asking again: no answer\033[K\n"
		"\033[K\n"
		"STATE    PRIO  SINCE  JOB \033[K\n"
		"running  7     1m     a-j~\033[K\n"
		"\033[J");
	check_table(answer, &(struct ops_screen){ .columns = 1, .rows = 1, .now_wall_ms = NOW_MS },
		"\033[H~\033[K\n~\033[K\n~\033[K\n\033[K\n\033[K\n~\033[K\n\033[J");
	check_table(NULL, &(struct ops_screen){ .columns = 80, .rows = 24, .now_wall_ms = NOW_MS, .trouble = "127.0.0.1: no answer" },
		"\033[Hasking again: 127.0.0.1: no answer\033[K\n\033[J");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_text), cmocka_unit_test(test_table), cmocka_unit_test(test_small_terminals) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
