/* base/mem: the allocator and its failure switch. */
#include "base/mem.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static int switch_off(void **state)
{
	(void)state;
	mem_test_fail_at(0, 0);
	return 0;
}

static void allocates(void **state)
{
	AUTO_FREE char *a = mem_alloc(0), *b = mem_calloc(3, 5), *c = mem_strdup("abc"), *d = mem_strndup("a\0bc", 3);
	AUTO_FREE char *e = mem_calloc(0, 5);

	(void)state;
	assert_non_null(a);
	assert_non_null(e);
	for (int i = 0; i < 15; i++)
		assert_int_equal(b[i], 0);
	assert_string_equal(c, "abc");
	assert_memory_equal(d, "a\0b", 4);
	c = mem_realloc(c, 1000);
	assert_string_equal(c, "abc");
	mem_free(NULL);
	mem_trim();
}

static void product_that_overflows_is_refused(void **state)
{
	volatile size_t half = SIZE_MAX / 2 + 1;

	(void)state;
	assert_null(mem_calloc(half, 2));
	assert_null(mem_strndup("", SIZE_MAX));
}

static void wipes(void **state)
{
	char secret[] = "secret";

	(void)state;
	mem_wipe(secret, sizeof(secret));
	for (size_t i = 0; i < sizeof(secret); i++)
		assert_int_equal(secret[i], 0);
	mem_wipe(NULL, 0);
}

/* Six allocations of all kinds; a bit is set for each that failed. */
static unsigned six(void)
{
	AUTO_FREE void *p0 = mem_alloc(1), *p1 = mem_calloc(1, 1), *p2 = mem_strdup("x"), *p3 = mem_strndup("x", 1);
	AUTO_FREE void *p4 = NEW(int), *p5 = mem_realloc(NULL, 4);

	return (p0 ? 0u : 1u) | (p1 ? 0u : 2u) | (p2 ? 0u : 4u) | (p3 ? 0u : 8u) | (p4 ? 0u : 16u) | (p5 ? 0u : 32u);
}

static void nth_fails(void **state)
{
	(void)state;
	for (unsigned n = 1; n <= 6; n++) {
		mem_test_fail_at(n, 0);
		assert_int_equal(six(), 1u << (n - 1));
		assert_int_equal(mem_test_count(), 6);
		mem_test_fail_at(n, 1);
		assert_int_equal(six(), 0x3Fu & ~((1u << (n - 1)) - 1));
	}
	mem_test_fail_at(7, 1);
	assert_int_equal(six(), 0);
	mem_test_fail_at(0, 0);
	assert_int_equal(mem_test_count(), 0);
	assert_int_equal(six(), 0);
}

/* A realloc that fails leaves the old block alone. */
static void failed_realloc_keeps_the_block(void **state)
{
	AUTO_FREE char *p = mem_strdup("kept");

	(void)state;
	mem_test_fail_at(1, 0);
	assert_null(mem_realloc(p, 100000));
	assert_string_equal(p, "kept");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(allocates), cmocka_unit_test(product_that_overflows_is_refused), cmocka_unit_test(wipes),
		cmocka_unit_test_teardown(nth_fails, switch_off), cmocka_unit_test_teardown(failed_realloc_keeps_the_block, switch_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
