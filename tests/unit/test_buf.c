/* base/buf: ceiling, growth, consuming, moving out, and no memory. */
#include "base/buf.h"
#include "base/mem.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_holds(b, text) assert_true(slice_eq(buf_slice(b), slice_str(text)))

static int switch_off(void **state)
{
	(void)state;
	mem_test_fail_at(0, 0);
	return 0;
}

static void adds_up_to_the_ceiling(void **state)
{
	AUTO_BUF b = BUF_MAX(6);
	struct err e = { 0 };

	(void)state;
	assert_holds(&b, "");
	assert_int_equal(buf_add_str(&b, "abc", &e), E_OK);
	assert_int_equal(buf_add_slice(&b, SLICE("de"), &e), E_OK);
	assert_int_equal(buf_add(&b, "fg", 2, &e), E_TOO_LARGE);
	assert_int_equal(e.code, E_TOO_LARGE);
	assert_holds(&b, "abcde");
	assert_int_equal(buf_addf(&b, &e, "%d", 12), E_TOO_LARGE);
	assert_holds(&b, "abcde");
	assert_int_equal(buf_addf(&b, &e, "%d", 7), E_OK);
	assert_holds(&b, "abcde7");
	assert_string_equal(buf_cstr(&b), "abcde7");
	assert_int_equal(buf_add(&b, "", 0, &e), E_OK);
	assert_int_equal(buf_add(&b, NULL, 0, &e), E_OK);
	assert_int_equal(buf_add(&b, "x", SIZE_MAX, &e), E_TOO_LARGE);
	assert_true(b.cap + b.head <= 7);
}

static void formats_past_the_first_block(void **state)
{
	AUTO_BUF b = BUF_MAX(100000);

	(void)state;
	for (size_t n = 60; n < 70; n++) { /* around a block's size, where the NUL of vsnprintf needs its place */
		AUTO_BUF exact = BUF_MAX(100);

		assert_int_equal(buf_addf(&exact, NULL, "%.*s", (int)n, "----------------------------------------------------------------------"), E_OK);
		assert_true(exact.n == n && exact.p[n - 1] == '-');
	}
	for (int i = 0; i < 1000; i++)
		assert_int_equal(buf_addf(&b, NULL, "%d:%s;", i, "some text"), E_OK);
	assert_true(slice_starts_with(buf_slice(&b), SLICE("0:some text;1:some text;")));
	assert_true(slice_ends_with(buf_slice(&b), SLICE("999:some text;")));
	assert_int_equal(b.n, 1000 * 11 + 10 + 180 + 2700);
}

static void reserves_and_wrote(void **state)
{
	AUTO_BUF b = BUF_MAX(10);
	char *p;

	(void)state;
	assert_int_equal(buf_reserve(&b, 4, &p, NULL), E_OK);
	memcpy(p, "abcd", 4);
	buf_wrote(&b, 3);
	assert_holds(&b, "abc");
	assert_int_equal(buf_reserve(&b, 8, &p, NULL), E_TOO_LARGE);
	assert_int_equal(buf_reserve(&b, 7, &p, NULL), E_OK);
	memset(p, 'x', 7);
	buf_wrote(&b, 7);
	assert_holds(&b, "abcxxxxxxx");
}

static void consumes_and_truncates(void **state)
{
	AUTO_BUF b = BUF_MAX(100);

	(void)state;
	buf_consume(&b, 0);
	assert_int_equal(buf_add_str(&b, "abcdef", NULL), E_OK);
	buf_consume(&b, 2);
	assert_holds(&b, "cdef");
	buf_truncate(&b, 3);
	buf_truncate(&b, 9);
	assert_holds(&b, "cde");
	assert_string_equal(buf_cstr(&b), "cde");
	buf_consume(&b, 3);
	assert_holds(&b, "");
	assert_int_equal(b.head, 0);
	assert_int_equal(buf_add_str(&b, "x", NULL), E_OK);
	buf_consume(&b, 1);
	buf_shrink(&b);
	assert_null(b.p);
	assert_int_equal(b.max, 100);
	assert_int_equal(buf_add_str(&b, "y", NULL), E_OK);
	buf_shrink(&b);
	assert_holds(&b, "y");
	buf_clear(&b);
	assert_holds(&b, "");
	assert_non_null(b.p);
}

/* A queue that stays short must not grow its block, however much passes through; against a plain model. */
static void long_queue_stays_small(void **state)
{
	AUTO_BUF b = BUF_MAX(1 << 20);
	unsigned in = 0, out = 0, seed = 1;

	(void)state;
	for (int turn = 0; turn < 20000; turn++) {
		seed = seed * 1103515245u + 12345u;
		size_t n = seed >> 16 & 15;
		char bytes[16];

		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)(in + i);
		if (b.n + n <= 64) {
			assert_int_equal(buf_add(&b, bytes, n, NULL), E_OK);
			in += (unsigned)n;
		}
		n = seed >> 24 & 15;
		if (n > b.n)
			n = b.n;
		for (size_t i = 0; i < n; i++)
			assert_int_equal(b.p[i], (char)(out + i));
		buf_consume(&b, n);
		out += (unsigned)n;
		assert_int_equal(b.n, in - out);
		assert_true(b.cap + b.head <= 256);
	}
}

static void takes(void **state)
{
	AUTO_BUF b = BUF_MAX(10);
	size_t n = 9;
	AUTO_FREE char *none = buf_take(&b, &n);

	(void)state;
	assert_string_equal(none, "");
	assert_int_equal(n, 0);
	assert_int_equal(buf_add_str(&b, "0123456789", NULL), E_OK);
	buf_consume(&b, 4);
	AUTO_FREE char *p = buf_take(&b, &n);

	assert_string_equal(p, "456789");
	assert_int_equal(n, 6);
	assert_null(b.p);
	assert_int_equal(b.max, 10);
	assert_int_equal(buf_add_str(&b, "x", NULL), E_OK);
	assert_holds(&b, "x");
}

/* With no memory every call fails and leaves the content as it was. */
static void no_memory(void **state)
{
	AUTO_BUF b = BUF_MAX(10000);
	struct err e = { 0 };
	char *p;

	(void)state;
	assert_int_equal(buf_add(&b, "0123456789012345678901234567890123456789012345678901234567890123", 64, &e), E_OK);
	buf_consume(&b, 1);
	mem_test_fail_at(1, 1);
	assert_int_equal(buf_add_str(&b, "0123456789012345678901234567890123456789", &e), E_NO_MEMORY);
	assert_int_equal(buf_addf(&b, &e, "%s", "0123456789012345678901234567890123456789"), E_NO_MEMORY);
	assert_int_equal(buf_reserve(&b, 500, &p, &e), E_NO_MEMORY);
	assert_null(buf_cstr(&b));
	assert_null(buf_take(&b, NULL));
	mem_test_fail_at(0, 0);
	assert_holds(&b, "123456789012345678901234567890123456789012345678901234567890123");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adds_up_to_the_ceiling), cmocka_unit_test(formats_past_the_first_block), cmocka_unit_test(reserves_and_wrote),
		cmocka_unit_test(consumes_and_truncates), cmocka_unit_test(long_queue_stays_small), cmocka_unit_test(takes),
		cmocka_unit_test_teardown(no_memory, switch_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
