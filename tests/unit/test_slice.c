/* base/slice: compare, search, cut, trim, split, numbers, UTF-8. */
#include "base/mem.h"
#include "base/slice.h"

#include <math.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_slice(s, text) assert_true(slice_eq((s), slice_str(text)))

static const struct slice nothing = { .p = NULL, .n = 0 };

static void compares(void **state)
{
	(void)state;
	assert_true(slice_eq(nothing, SLICE("")));
	assert_true(slice_eq(SLICE("a\0b"), SLICE("a\0b")));
	assert_false(slice_eq(SLICE("a\0b"), SLICE("a\0c")));
	assert_false(slice_eq(SLICE("ab"), SLICE("abc")));
	assert_true(slice_eq_nocase(SLICE("aZ[@"), SLICE("Az[@")));
	assert_false(slice_eq_nocase(SLICE("["), SLICE("{")));
	assert_false(slice_eq_nocase(SLICE("\xC3\x89"), SLICE("\xC3\xA9")));
	assert_true(slice_starts_with(SLICE("abc"), SLICE("ab")));
	assert_true(slice_starts_with(nothing, SLICE("")));
	assert_false(slice_starts_with(SLICE("a"), SLICE("ab")));
	assert_true(slice_starts_with_nocase(SLICE("BEARER x"), SLICE("bearer ")));
	assert_false(slice_starts_with_nocase(SLICE("BEAR"), SLICE("bearer ")));
	assert_true(slice_ends_with(SLICE("a.json"), SLICE(".json")));
	assert_false(slice_ends_with(SLICE("json"), SLICE(".json")));
	assert_true(slice_is_empty(nothing) && !slice_is_empty(SLICE("x")));
}

static void searches(void **state)
{
	(void)state;
	assert_int_equal(slice_find(SLICE("abcabd"), SLICE("abd")), 3);
	assert_int_equal(slice_find(SLICE("ab"), SLICE("abc")), -1);
	assert_int_equal(slice_find(nothing, SLICE("")), 0);
	assert_int_equal(slice_find(nothing, SLICE("a")), -1);
	assert_int_equal(slice_find_char(SLICE("a:b:"), ':'), 1);
	assert_int_equal(slice_find_char(nothing, ':'), -1);
	assert_true(slice_contains_nocase(SLICE("xxTimedOUTyy"), SLICE("timedout")));
	assert_true(slice_contains_nocase(SLICE("OUT"), SLICE("out")));
	assert_false(slice_contains_nocase(SLICE("ou"), SLICE("out")));
	assert_true(slice_contains_nocase(nothing, SLICE("")));
}

static void cuts(void **state)
{
	(void)state;
	assert_slice(slice_from(SLICE("abc"), 1), "bc");
	assert_slice(slice_from(SLICE("abc"), 9), "");
	assert_slice(slice_from(nothing, 9), "");
	assert_slice(slice_cut(SLICE("abc"), 2), "ab");
	assert_slice(slice_cut(SLICE("abc"), 9), "abc");
	assert_slice(slice_cut_text(SLICE("abc"), 3), "abc");
	assert_slice(slice_cut_text(SLICE("ab\xC3\xA9"), 3), "ab");
	assert_slice(slice_cut_text(SLICE("ab\xC3\xA9z"), 4), "ab\xC3\xA9");
	assert_slice(slice_cut_text(SLICE("a\xF0\x9F\x98\x80z"), 4), "a");
	assert_slice(slice_cut_text(SLICE("\x80\x80\x80\x80\x80\x80"), 5), "\x80");      /* no characters at all: still at most n */
}

static void trims(void **state)
{
	static const struct {
		const char *in, *plain, *js;
	} rows[] = {
		{ " \t\n\v\f\r a b \r\n", "a b", "a b" },
		{ "", "", "" },
		{ " \n ", "", "" },
		{ "\xC2\xA0x\xC2\xA0", "\xC2\xA0x\xC2\xA0", "x" },
		{ "\xEF\xBB\xBFx\xEF\xBB\xBF", "\xEF\xBB\xBFx\xEF\xBB\xBF", "x" },
		{ "\xE2\x80\xA8 \xE2\x80\xA9x\xE2\x80\xAF\xE2\x81\x9F\xE3\x80\x80",
		"\xE2\x80\xA8 \xE2\x80\xA9x\xE2\x80\xAF\xE2\x81\x9F\xE3\x80\x80", "x" },
		{ "\xE1\x9A\x80\xE2\x80\x80\xE2\x80\x8A-\xE2\x80\x8B", "\xE1\x9A\x80\xE2\x80\x80\xE2\x80\x8A-\xE2\x80\x8B", "-\xE2\x80\x8B" },
		{ "\xC2\x85x\xE1\xA0\x8E", "\xC2\x85x\xE1\xA0\x8E", "\xC2\x85x\xE1\xA0\x8E" },
		{ "\xC2\xA0 ", "\xC2\xA0", "" },
		{ "\xA0x\x80", "\xA0x\x80", "\xA0x\x80" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_slice(slice_trim(slice_str(rows[i].in)), rows[i].plain);
		assert_slice(slice_trim_js(slice_str(rows[i].in)), rows[i].js);
	}
	assert_slice(slice_trim(nothing), "");
	assert_slice(slice_trim_js(nothing), "");
}

static void splits(void **state)
{
	static const struct {
		const char *in;
		const char *pieces[5];
	} rows[] = {
		{ "", { "" } }, { "a", { "a" } }, { "a,b", { "a", "b" } }, { ",", { "", "" } }, { "a,,b,", { "a", "", "b", "" } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct slice rest = slice_str(rows[i].in), piece;
		size_t n = 0;

		for (; slice_next(&rest, ',', &piece); n++) {
			assert_non_null(rows[i].pieces[n]);
			assert_slice(piece, rows[i].pieces[n]);
		}
		assert_null(rows[i].pieces[n]);
		assert_null(rest.p);
	}
}

static void reads_integers(void **state)
{
	static const struct {
		const char *in;
		int64_t lo, hi;
		bool is_ok;
		int64_t v;
	} rows[] = {
		{ "0", 0, 0, true, 0 }, { "-0", 0, 0, true, 0 }, { "42", 0, 100, true, 42 }, { "-42", -42, 0, true, -42 }, { "007", 0, 10, true, 7 },
		{ "9223372036854775807", INT64_MIN, INT64_MAX, true, INT64_MAX },
		{ "-9223372036854775808", INT64_MIN, INT64_MAX, true, INT64_MIN },
		{ "9223372036854775808", INT64_MIN, INT64_MAX, false, 0 }, { "-9223372036854775809", INT64_MIN, INT64_MAX, false, 0 },
		{ "99999999999999999999999", INT64_MIN, INT64_MAX, false, 0 },
		{ "101", 0, 100, false, 0 }, { "-1", 0, 100, false, 0 }, { "", 0, 9, false, 0 }, { "-", -9, 9, false, 0 }, { "+1", 0, 9, false, 0 },
		{ " 1", 0, 9, false, 0 }, { "1 ", 0, 9, false, 0 }, { "1x", 0, 99, false, 0 }, { "0x1", 0, 9, false, 0 }, { "--1", -9, 9, false, 0 },
		{ "1.0", 0, 9, false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t v = 77;

		assert_int_equal(slice_to_i64(slice_str(rows[i].in), rows[i].lo, rows[i].hi, &v), rows[i].is_ok);
		assert_true(v == (rows[i].is_ok ? rows[i].v : 77));
	}
	assert_false(slice_to_i64(nothing, 0, 9, &(int64_t){ 0 }));
}

static void reads_floats(void **state)
{
	static const struct {
		const char *in;
		bool is_ok;
		double v;
	} rows[] = {
		{ "0", true, 0 }, { "-1.5", true, -1.5 }, { "1e3", true, 1000 }, { "1E-2", true, 0.01 }, { ".5", true, 0.5 }, { "5.", true, 5 },
		{ "1e+2", true, 100 }, { "0.1000000000000000000000000000000000000000000000000000000000000000000000000000000000001", true, 0.1 },
		{ "", false, 0 }, { "-", false, 0 }, { ".", false, 0 }, { "+1", false, 0 }, { "1e", false, 0 }, { "1e+", false, 0 }, { "e5", false, 0 },
		{ "inf", false, 0 }, { "nan", false, 0 }, { "0x10", false, 0 }, { " 1", false, 0 }, { "1 ", false, 0 }, { "1,5", false, 0 },
		{ "1e999", false, 0 }, { "-1e999", false, 0 }, { "1.2.3", false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		double v = 77;

		assert_int_equal(slice_to_f64(slice_str(rows[i].in), &v), rows[i].is_ok);
		assert_true(v == (rows[i].is_ok ? rows[i].v : 77));
	}
	assert_false(slice_to_f64(SLICE("1\0"), &(double){ 0 }));
}

static void copies(void **state)
{
	char a[4] = "zzz";
	AUTO_FREE char *p = slice_dup(SLICE("a\0b")), *empty = slice_dup(nothing);

	(void)state;
	assert_memory_equal(p, "a\0b", 4);
	assert_string_equal(empty, "");
	assert_true(slice_copy(SLICE("abc"), a, sizeof(a)));
	assert_string_equal(a, "abc");
	assert_false(slice_copy(SLICE("abcd"), a, sizeof(a)));
	assert_false(slice_copy(SLICE("a\0"), a, sizeof(a)));
	assert_false(slice_copy(nothing, a, 0));
	assert_string_equal(a, "abc");
	assert_true(slice_copy(nothing, a, 1));
	assert_string_equal(a, "");
}

static void checks_utf8(void **state)
{
	static const struct {
		const char *in;
		int step;     /* of the first character */
		bool is_utf8;
	} rows[] = {
		{ "a", 1, true }, { "\x7F", 1, true }, { "\xC2\x80", 2, true }, { "\xDF\xBF", 2, true }, { "\xE0\xA0\x80", 3, true },
		{ "\xED\x9F\xBF", 3, true }, { "\xEE\x80\x80", 3, true }, { "\xEF\xBF\xBF", 3, true }, { "\xF0\x90\x80\x80", 4, true },
		{ "\xF4\x8F\xBF\xBF", 4, true },
		{ "\x80", -1, false }, { "\xBF", -1, false }, { "\xC0\x80", -1, false }, { "\xC1\xBF", -1, false }, { "\xE0\x9F\xBF", -1, false },
		{ "\xED\xA0\x80", -1, false }, { "\xF0\x8F\xBF\xBF", -1, false }, { "\xF4\x90\x80\x80", -1, false }, { "\xF5\x80\x80\x80", -1, false },
		{ "\xFF", -1, false }, { "\xC3", -1, false }, { "\xE2\x82", -2, false }, { "\xE2\x82x", -2, false }, { "\xF0\x9F\x98", -3, false },
		{ "\xF0\x9Fxx", -2, false }, { "\xC3x", -1, false }, { "abcdefgh\x80", 1, false }, { "abcdefghi\xC3\xA9jklmnopqrst", 1, true },
		{ "abcdefghijklmno\xC3", 1, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(slice_utf8_step(slice_str(rows[i].in)), rows[i].step);
		assert_int_equal(slice_is_utf8(slice_str(rows[i].in)), rows[i].is_utf8);
	}
	assert_true(slice_is_utf8(nothing));
	assert_true(slice_is_utf8(SLICE("a\0b")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(compares), cmocka_unit_test(searches), cmocka_unit_test(cuts), cmocka_unit_test(trims), cmocka_unit_test(splits),
		cmocka_unit_test(reads_integers), cmocka_unit_test(reads_floats), cmocka_unit_test(copies), cmocka_unit_test(checks_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
