/* base/jw: layout, escaping, numbers, sticky errors. */
#include "base/jw.h"
#include "base/json.h"
#include "base/mem.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_wrote(b, text) assert_true(slice_eq(buf_slice(b), slice_str(text)))

static void lays_out(void **state)
{
	AUTO_BUF b = BUF_MAX(1000);
	struct jw w = JW(&b);

	(void)state;
	jw_obj(&w, NULL);
	jw_i64(&w, "i", INT64_MIN);
	jw_str(&w, "s", "x");
	jw_str(&w, "none", NULL);
	jw_slice(&w, "e", slice_of(NULL, 0));
	jw_arr(&w, "a");
	jw_bool(&w, NULL, true);
	jw_bool(&w, NULL, false);
	jw_null(&w, NULL);
	jw_obj(&w, NULL);
	jw_end(&w);
	jw_arr(&w, NULL);
	jw_end(&w);
	jw_end(&w);
	jw_arr(&w, "next");
	jw_i64(&w, NULL, 1);
	jw_end(&w);
	jw_raw(&w, "r", SLICE("1.50"));
	jw_end(&w);
	assert_int_equal(jw_done(&w, NULL), E_OK);
	assert_wrote(&b, "{\"i\":-9223372036854775808,\"s\":\"x\",\"none\":null,\"e\":\"\",\"a\":[true,false,null,{},[]]"
		",\"next\":[1],\"r\":1.50}");
}

static void lays_out_pretty(void **state)
{
	AUTO_BUF b = BUF_MAX(1000);
	struct jw w = JW_PRETTY(&b);

	(void)state;
	jw_obj(&w, NULL);
	jw_obj(&w, "a");
	jw_end(&w);
	jw_arr(&w, "b");
	jw_i64(&w, NULL, 1);
	jw_i64(&w, NULL, 2);
	jw_end(&w);
	jw_end(&w);
	assert_int_equal(jw_done(&w, NULL), E_OK);
	assert_wrote(&b, "{\n  \"a\": {},\n  \"b\": [\n    1,\n    2\n  ]\n}");
}

static void escapes(void **state)
{
	static const struct {
		const char *in, *want;
	} rows[] = {
		{ "", "\"\"" }, { "plain ~\x7F/", "\"plain ~\x7F/\"" }, { "\"\\\b\f\n\r\t", "\"\\\"\\\\\\b\\f\\n\\r\\t\"" },
		{ "\x01\x1F\x0B", "\"\\u0001\\u001f\\u000b\"" }, { "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"" },
		{ "\xFF", "\"\xEF\xBF\xBD\"" }, { "a\xC3", "\"a\xEF\xBF\xBD\"" }, { "a\xE2\x82" "b", "\"a\xEF\xBF\xBD" "b\"" },
		{ "\xF0\x9F\x98", "\"\xEF\xBF\xBD\"" }, { "\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"" },
		{ "\xC0\xAF", "\"\xEF\xBF\xBD\xEF\xBF\xBD\"" },
		{ "123456789\n123456789\"", "\"123456789\\n123456789\\\"\"" }, { "12345678\xC3\xA9\xC3\n", "\"12345678\xC3\xA9\xEF\xBF\xBD\\n\"" },
	};
	AUTO_BUF b = BUF_MAX(1000);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct jw w = JW(&b);

		buf_clear(&b);
		jw_str(&w, NULL, rows[i].in);
		assert_int_equal(jw_done(&w, NULL), E_OK);
		assert_wrote(&b, rows[i].want);
	}
	struct jw w = JW(&b);

	buf_clear(&b);
	jw_obj(&w, NULL);
	jw_slice(&w, "k\n", SLICE("a\0b"));
	jw_end(&w);
	assert_wrote(&b, "{\"k\\n\":\"a\\u0000b\"}");
}

/* Whatever bytes go in, strict JSON comes out that decodes to the same when they were UTF-8. */
static void any_bytes_become_json(void **state)
{
	AUTO_BUF b = BUF_MAX(10000), back = BUF_MAX(10000);
	unsigned seed = 7;

	(void)state;
	for (int turn = 0; turn < 20000; turn++) {
		static const unsigned char pool[] = { 0, 9, 31, 32, '"', '\\', 'a', 'b', 0x7F, 0x80, 0xBF, 0xC2, 0xA9, 0xE2, 0x82,
			0xAC, 0xED, 0xA0, 0xF0, 0x9F, 0xF4, 0xFF };
		char text[40];
		size_t n = (size_t)turn % sizeof(text);

		for (size_t i = 0; i < n; i++) {
			seed = seed * 1103515245u + 12345u;
			text[i] = (char)pool[(seed >> 16) % sizeof(pool)];
		}
		struct jw w = JW(&b);

		buf_clear(&b);
		buf_clear(&back);
		jw_slice(&w, NULL, slice_of(text, n));
		assert_int_equal(jw_done(&w, NULL), E_OK);
		assert_int_equal(json_check(buf_slice(&b), JSON_LIMITS_DEFAULT, NULL), E_OK);
		assert_int_equal(json_unquote(buf_slice(&b), &back, NULL), E_OK);
		if (slice_is_utf8(slice_of(text, n)))
			assert_true(slice_eq(buf_slice(&back), slice_of(text, n)));
	}
}

static void write_f64(struct buf *b, double v)
{
	struct jw w = JW(b);

	buf_clear(b);
	jw_f64(&w, NULL, v);
	assert_int_equal(jw_done(&w, NULL), E_OK);
	assert_non_null(buf_cstr(b));
}

static void numbers_are_shortest(void **state)
{
	static const struct {
		double v;
		const char *want;
	} rows[] = {
		{ 0, "0" }, { -0.0, "-0" }, { 1, "1" }, { -1.5, "-1.5" }, { 0.1, "0.1" }, { 0.7, "0.7" },
		{ 1.0 / 3, "0.3333333333333333" }, { 100, "100" }, { 1e15, "1000000000000000" },
		{ 9007199254740992.0, "9007199254740992" }, { 123456789012345680.0, "123456789012345680" },
		{ 1e20, "100000000000000000000" }, { 1e21, "1e+21" },
		{ 1.5e300, "1.5e+300" }, { 0.000001, "0.000001" }, { 1e-7, "1e-7" }, { 1.25e-9, "1.25e-9" }, { 5e-324, "5e-324" },
		{ DBL_MIN, "2.2250738585072014e-308" },
		{ 2.225073858507201e-308, "2.225073858507201e-308" }, { DBL_MAX, "1.7976931348623157e+308" },
		{ 0x1p-44, "5.684341886080802e-14" }, { 0.1 + 0.2, "0.30000000000000004" },
		{ 9.5, "9.5" }, { 123.456, "123.456" }, { (double)0.1f, "0.10000000149011612" }, { NAN, "null" },
		{ INFINITY, "null" }, { -INFINITY, "null" },
	};
	AUTO_BUF b = BUF_MAX(64);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		write_f64(&b, rows[i].v);
		assert_string_equal(b.p, rows[i].want);
	}
}

/* Random bit patterns and all powers of two read back exactly, and are JSON. */
static void numbers_read_back(void **state)
{
	AUTO_BUF b = BUF_MAX(64);
	uint64_t x = 88172645463325252u;

	(void)state;
	for (int i = 0; i < 60000; i++) {
		double v;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(&v, &x, sizeof(v));
		if (i < 2100)
			v = ldexp(1, i - 1075);
		if (!isfinite(v))
			continue;
		write_f64(&b, v);
		assert_true(strtod(b.p, NULL) == v);
		assert_int_equal(json_check(buf_slice(&b), JSON_LIMITS_DEFAULT, NULL), E_OK);
	}
}

enum wrong { NAME_IN_ARRAY, NAME_AT_ROOT, NO_NAME, TWO_ROOTS, END_OF_NOTHING, LEFT_OPEN, TOO_DEEP, WRONG__COUNT };

static enum errc do_wrong(struct jw *w, enum wrong what)
{
	switch (what) {
	case NAME_IN_ARRAY:
		jw_arr(w, NULL);
		jw_i64(w, "k", 1);
		jw_end(w);
		break;
	case NAME_AT_ROOT:
		jw_str(w, "k", "v");
		break;
	case NO_NAME:
		jw_obj(w, NULL);
		jw_bool(w, NULL, true);
		jw_end(w);
		break;
	case TWO_ROOTS:
		jw_null(w, NULL);
		jw_null(w, NULL);
		break;
	case END_OF_NOTHING:
		jw_null(w, NULL);
		jw_end(w);
		break;
	case LEFT_OPEN:
		jw_arr(w, NULL);
		break;
	case TOO_DEEP:
		for (int i = 0; i < 64; i++)
			jw_arr(w, NULL);
		for (int i = 0; i < 64; i++)
			jw_end(w);
		break;
	case WRONG__COUNT:
		break;
	}
	return jw_done(w, NULL);
}

static void misuse_is_an_error(void **state)
{
	(void)state;
	for (enum wrong i = 0; i < WRONG__COUNT; i++) {
		AUTO_BUF b = BUF_MAX(1000);
		struct jw w = JW(&b);

		assert_int_equal(do_wrong(&w, i), i == TOO_DEEP ? E_TOO_LARGE : E_INTERNAL);
	}
}

static void deepest_level_works(void **state)
{
	AUTO_BUF b = BUF_MAX(1000);
	struct jw w = JW(&b);

	(void)state;
	for (int i = 0; i < 63; i++)
		jw_arr(&w, NULL);
	jw_i64(&w, NULL, 1);
	for (int i = 0; i < 63; i++)
		jw_end(&w);
	assert_int_equal(jw_done(&w, NULL), E_OK);
	assert_int_equal(json_check(buf_slice(&b), JSON_LIMITS_DEFAULT, NULL), E_OK);
	assert_int_equal(b.n, 127);
}

/* The first failure is the one that is told, whatever follows. */
static void error_sticks(void **state)
{
	AUTO_BUF b = BUF_MAX(8);
	struct jw w = JW(&b);
	struct err e = { 0 };

	(void)state;
	jw_obj(&w, NULL);
	jw_str(&w, "key", "a long value");
	jw_end(&w);
	jw_end(&w);
	assert_int_equal(jw_done(&w, &e), E_TOO_LARGE);
	assert_int_equal(e.code, E_TOO_LARGE);
	assert_true(b.n <= 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lays_out), cmocka_unit_test(lays_out_pretty), cmocka_unit_test(escapes), cmocka_unit_test(any_bytes_become_json),
		cmocka_unit_test(numbers_are_shortest), cmocka_unit_test(numbers_read_back), cmocka_unit_test(misuse_is_an_error),
		cmocka_unit_test(deepest_level_works), cmocka_unit_test(error_sticks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
