/* base/clock: both clocks, the knobs of the tests, RFC 3339 out and in. */
#include "base/clock.h"

#include <time.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void tests_turn_the_clocks(void **state)
{
	int64_t mono = clock_mono_ms(), wall = clock_wall_ms();

	(void)state;
	assert_true(wall > INT64_C(1600000000000));
	clock_test_advance_ms(3600000);
	assert_in_range(clock_mono_ms() - mono, 3600000, 3660000);
	assert_in_range(clock_mono_us() / 1000 - mono, 3600000, 3660000);
	assert_in_range(clock_wall_ms() - wall, 3600000, 3660000);
	clock_test_set_wall_ms(1000);
	assert_int_equal(clock_wall_ms(), 1000);
	clock_test_advance_ms(500);
	assert_int_equal(clock_wall_ms(), 1500);
	clock_test_advance_ms(-3600500);
	clock_test_set_wall_ms(-1);
	assert_in_range(clock_wall_ms() - wall, 0, 60000);
	assert_in_range(clock_mono_ms() - mono, 0, 60000);
}

static void writes_iso(void **state)
{
	static const struct {
		int64_t ms;
		const char *text;
	} rows[] = {
		{ 0, "1970-01-01T00:00:00.000Z" }, { 1781395200000, "2026-06-14T00:00:00.000Z" }, { -1, "1969-12-31T23:59:59.999Z" },
		{ 951782399999, "2000-02-28T23:59:59.999Z" }, { 951782400000, "2000-02-29T00:00:00.000Z" },
		{ 253402300799999, "9999-12-31T23:59:59.999Z" }, { 253402300800000, "9999-12-31T23:59:59.999Z" },
		{ INT64_MAX, "9999-12-31T23:59:59.999Z" }, { INT64_MIN, "0000-01-01T00:00:00.000Z" },
	};
	char text[CLOCK_ISO_LEN];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		clock_iso(rows[i].ms, text);
		assert_string_equal(text, rows[i].text);
	}
}

/* Against the C library, over many days of many years. */
static void agrees_with_the_library(void **state)
{
	char ours[CLOCK_ISO_LEN], theirs[64];

	(void)state;
	for (int64_t s = -62167219200; s < 253402300800; s += 86400 * 17 + 7919) {
		struct tm tm;
		time_t t = (time_t)s;
		int64_t back;

		gmtime_r(&t, &tm);
		strftime(theirs, sizeof(theirs), "%m-%dT%H:%M:%S.000Z", &tm);
		clock_iso(s * 1000, ours);
		assert_string_equal(ours + 5, theirs);
		assert_true(slice_to_i64(slice_of(ours, 4), tm.tm_year + 1900, tm.tm_year + 1900, &back));
		assert_true(clock_parse_iso(slice_str(ours), &back));
		assert_true(back == s * 1000);
	}
}

static void reads_iso(void **state)
{
	static const struct {
		const char *text;
		bool is_ok;
		int64_t ms;
	} rows[] = {
		{ "1970-01-01T00:00:00Z", true, 0 }, { "1970-01-01t00:00:01Z", true, 1000 }, { "1970-01-01 00:00:01.5Z", true, 1500 },
		{ "1970-01-01T00:00:00.0019999Z", true, 1 }, { "1970-01-01T01:30:00+01:30", true, 0 }, { "1969-12-31T23:00:00-01:00", true, 0 },
		{ "2024-02-29T12:00:00.123Z", true, 1709208000123 }, { "1970-01-01T00:00:00-00:00", true, 0 },
		{ "2023-02-29T12:00:00Z", false, 0 }, { "1900-02-29T12:00:00Z", false, 0 }, { "2000-13-01T00:00:00Z", false, 0 },
		{ "2000-00-01T00:00:00Z", false, 0 }, { "2000-01-00T00:00:00Z", false, 0 }, { "2000-04-31T00:00:00Z", false, 0 },
		{ "2000-01-01T24:00:00Z", false, 0 }, { "2000-01-01T00:60:00Z", false, 0 }, { "2000-01-01T00:00:60Z", false, 0 },
		{ "2000-01-01T00:00:00", false, 0 }, { "2000-01-01T00:00:00.Z", false, 0 }, { "2000-01-01T00:00Z", false, 0 },
		{ "2000-01-01", false, 0 }, { "", false, 0 }, { " 2000-01-01T00:00:00Z", false, 0 }, { "2000-01-01T00:00:00Z ", false, 0 },
		{ "2000-01-01T00:00:00+0100", false, 0 }, { "2000-01-01T00:00:00+24:00", false, 0 }, { "2000-01-01T00:00:00+01:60", false, 0 },
		{ "-200-01-01T00:00:00Z", false, 0 }, { "2000-1-01T00:00:00Z", false, 0 }, { "2000-01-01X00:00:00Z", false, 0 },
		{ "2000-01-01T-1:00:00Z", false, 0 }, { "2000-01-01T00:00:00,5Z", false, 0 }, { "2000-01-01T00:00:00ZZ", false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t ms = 77;

		assert_int_equal(clock_parse_iso(slice_str(rows[i].text), &ms), rows[i].is_ok);
		assert_true(ms == (rows[i].is_ok ? rows[i].ms : 77));
	}
	assert_false(clock_parse_iso(SLICE("2000-01-01\0""00:00:00Z"), &(int64_t){ 0 }));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tests_turn_the_clocks), cmocka_unit_test(writes_iso), cmocka_unit_test(agrees_with_the_library),
		cmocka_unit_test(reads_iso),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
