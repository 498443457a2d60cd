/* The catalogue's fingerprint against the vectors of gateway.md 6, and its order. */
#include "base/crypto.h"
#include "gateway/catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_vectors(void **state)
{
	struct catalog_row rows[] = {
		{ .name = "phi3-reviewer", .provider = "mcoda", .adapter = "ollama-remote", .slug = "phi3-reviewer", .model_id = "phi3.5:latest",
		  .capabilities = "[\"code_review\",\"plan\"]", .health = "healthy", .is_exposed = true },
		{ .name = "Alpha_2", .provider = "mcoda", .adapter = "vllm-local", .slug = "Alpha_2", .model_id = "Alpha_2", .health = "unreachable",
		  .is_exposed = true },
	};
	char got[FINGERPRINT_LEN];
	struct err e;

	(void)state;
	assert_int_equal(catalog_fingerprint(NULL, 0, got, &e), E_OK);
	assert_string_equal(got, "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945");
	assert_int_equal(catalog_fingerprint(rows, ARRAY_LEN(rows), got, &e), E_OK);
	assert_string_equal(got, "sha256:275486383ecf32ba1f1e1c11ee52e231c50c29beccb6faf5786205fa6eabb522");
}

static void test_order(void **state)
{
	/* verified order of the reference, and the characters of its table */
	static const char *const sorted[] = { "a", "A", "a_b", "a-b", "a:b", "a.b", "a1", "a10", "a2", "ab", "aB", "Ab", "b", "B", "z", "\xc3\xa9" };
	static const char chars[] = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789aAbBzZ";

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sorted); i++)
		for (size_t k = 0; k < ARRAY_LEN(sorted); k++) {
			int c = catalog_collate(slice_str(sorted[i]), slice_str(sorted[k]));

			assert_int_equal(c < 0 ? -1 : c > 0, i < k ? -1 : i > k);
		}
	for (size_t i = 0; i + 2 < sizeof(chars); i++)
		assert_true(catalog_collate(slice_of(&chars[i], 1), slice_of(&chars[i + 1], 1)) < 0);
}

static void test_exposed(void **state)
{
	struct upstream up = { 0 };
	struct agent a = { .is_exposed = true, .up = &up };

	(void)state;
	for (int h = 0; h < HEALTH__COUNT; h++) {
		a.health = (enum agent_health)h;
		assert_int_equal(catalog_is_exposed(&a), h == HEALTH_HEALTHY || h == HEALTH_UNKNOWN);
	}
	a.health = HEALTH_HEALTHY;
	a.is_embedding = true;
	assert_false(catalog_is_exposed(&a));
	a.is_embedding = false;
	a.up = NULL;
	assert_false(catalog_is_exposed(&a));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_vectors), cmocka_unit_test(test_order), cmocka_unit_test(test_exposed) };
	struct err e;

	if (crypto_init(&e))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
