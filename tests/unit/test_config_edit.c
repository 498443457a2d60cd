/* Changes to config.json: what is kept, replaced, dropped; that a broken file is left alone. */
#include "base/config_edit.h"
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/mswarm-config-edit-XXXXXX";

static void check(struct config_edit *c, const char *old, const char *want)
{
	AUTO_BUF out = BUF_MAX(1 << 20);
	struct err e = { 0 };

	if (config_edit_text(c, "config.json", slice_str(old), &out, &e))
		fail_msg("%s", e.what);
	assert_string_equal(buf_cstr(&out), want);
	config_edit_done(c);
}

static void test_members(void **state)
{
	struct config_edit c;

	(void)state;
	config_edit_begin(&c);
	config_edit_str(&c, "a", "x\"y");
	config_edit_i64(&c, "n", -3);
	config_edit_bool(&c, "b", true);
	config_edit_raw(&c, "l", SLICE("[1,{\"z\":null}]"));
	config_edit_str(&c, "none", NULL);
	check(&c, "", "{\n  \"a\": \"x\\\"y\",\n  \"n\": -3,\n  \"b\": true,\n  \"l\": [\n    1,\n    {\n      \"z\": null\n    }\n  ],\n  \"none\": null\n}\n");
	config_edit_begin(&c);
	config_edit_i64(&c, "n", 1);
	config_edit_i64(&c, "n", 2);
	config_edit_drop(&c, "gone");
	config_edit_drop(&c, "never");
	config_edit_str(&c, "kept", "new");
	config_edit_keep(&c, "kept");
	check(&c, "{\"mine\": {\"deep\": [1.5]}, \"n\": 0, \"gone\": 1, \"kept\": \"old\", \"n\": 9}",
	      "{\n  \"mine\": {\n    \"deep\": [\n      1.5\n    ]\n  },\n  \"kept\": \"old\",\n  \"n\": 2\n}\n");
}

static void test_broken_is_left(void **state)
{
	static const char *const broken[] = { "{", "[]", "{\"a\": 1} x", "nul" };
	char path[128];
	struct err e = { 0 };

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/config.json", folder);
	for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
		AUTO_BUF now = BUF_MAX(4096);
		struct config_edit c;

		assert_int_equal(file_write_atomic(path, slice_str(broken[i]), 0644, &e), E_OK);
		config_edit_begin(&c);
		config_edit_i64(&c, "n", 1);
		assert_int_equal(config_edit_save(&c, path, &e), E_BAD_JSON);
		assert_non_null(strstr(e.what, "config.json"));
		config_edit_done(&c);
		assert_int_equal(file_read(path, &now, &e), E_OK);
		assert_string_equal(buf_cstr(&now), broken[i]);
	}
}

static void test_saved(void **state)
{
	AUTO_BUF now = BUF_MAX(4096);
	struct config_edit c;
	struct stat st;
	char path[128];
	struct err e = { 0 };

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/config.json", folder);
	assert_int_equal(file_write_atomic(path, SLICE("{\"x\":1}"), 0644, &e), E_OK);
	config_edit_begin(&c);
	config_edit_i64(&c, "y", 2);
	assert_int_equal(config_edit_save(&c, path, &e), E_OK);
	config_edit_done(&c);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(file_read(path, &now, &e), E_OK);
	assert_string_equal(buf_cstr(&now), "{\n  \"x\": 1,\n  \"y\": 2\n}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_members), cmocka_unit_test(test_broken_is_left), cmocka_unit_test(test_saved) };

	if (!mkdtemp(folder))
		return 1;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);

	file_remove_tree(folder);
	return rc;
}
