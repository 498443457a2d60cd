/* Names of artifacts: the table of direct-api.md 4.8, labels, uris, media types. */
#include "jobs/artifact_path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define X50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define E50 "éééééééééééééééééééééééééééééééééééééééééééééééééé"

static void check_path(struct slice raw, const char *want)
{
	AUTO_BUF out = BUF_MAX(ARTIFACT_PATH_MAX + 1);
	struct err e = { 0 };
	enum errc rc = artifact_path(raw, "p", &out, &e);

	if (strncmp(want, "p_", 2) == 0) {
		assert_int_equal(rc, E_BAD_REQUEST);
		assert_string_equal(e.what, want);
	} else {
		assert_int_equal(rc, E_OK);
		assert_string_equal(buf_cstr(&out), want);
	}
}

static void test_paths(void **state)
{
	static const struct {
		const char *raw, *want;
	} rows[] = {
		{ "a", "a" }, { " a/b ", "a/b" }, { "./a//b/./c/", "a/b/c" }, { "~/x y", "~/x y" }, { "1:b", "1:b" }, { "x/a:b", "x/a:b" },
		{ "a\tb", "a\tb" }, { "é/ü", "é/ü" }, { "...", "..." }, { "a/..b", "a/..b" },
		{ "", "p_path_required" }, { " \t", "p_path_required" }, { ".", "p_path_required" }, { "././/", "p_path_required" },
		{ "a\\b", "p_backslash_not_allowed" }, { "..\\x", "p_backslash_not_allowed" },
		{ "/a", "p_absolute_path_not_allowed" }, { "//a", "p_absolute_path_not_allowed" }, { "C:/a", "p_absolute_path_not_allowed" },
		{ "a:b", "p_uri_path_not_allowed" }, { "file:///x", "p_uri_path_not_allowed" }, { "a+b.c-1:x", "p_uri_path_not_allowed" },
		{ "..", "p_parent_path_not_allowed" }, { "a/../b", "p_parent_path_not_allowed" }, { "a/..", "p_parent_path_not_allowed" },
		{ X50 X50 X50 X50 X50 "xxxxx", X50 X50 X50 X50 X50 "xxxxx" }, { X50 X50 X50 X50 X50 "xxxxxx", "p_path_segment_too_long" },
		{ E50 E50 E50 E50 E50 "éééé/x", E50 E50 E50 E50 E50 "éééé/x" }, { "x/" E50 E50 E50 E50 E50 "éééééé", "p_path_segment_too_long" },
		{ "a\xff", "p_path_not_utf8" }, { "\xc0\xae\xc0\xae/x", "p_path_not_utf8" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		check_path(slice_str(rows[i].raw), rows[i].want);
	check_path(slice_of("a\0b", 3), "p_null_byte");
	check_path(slice_of("\0", 1), "p_null_byte");
}

static void test_a_long_path(void **state)
{
	AUTO_BUF text = BUF_MAX(8192);

	(void)state;
	for (int i = 0; i < 2100; i++)
		assert_int_equal(buf_add_str(&text, "a/", NULL), E_OK);
	check_path(buf_slice(&text), "p_path_too_long");
}

static void test_labels(void **state)
{
	static const struct {
		const char *id, *want;
	} rows[] = {
		{ "job:render/1", "job_render_1" }, { "a b", "a_b" }, { "é", "_" }, { "\xf0\x9f\x98\x80", "__" }, { "A-z_0.9", "A-z_0.9" },
		{ "..", NULL }, { ".", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF out = BUF_MAX(1024);
		struct err e = { 0 };
		enum errc rc = artifact_label(slice_str(rows[i].id), &out, &e);

		assert_int_equal(rc, rows[i].want ? E_OK : E_BAD_REQUEST);
		if (rows[i].want)
			assert_string_equal(buf_cstr(&out), rows[i].want);
		else
			assert_true(strncmp(e.what, "job_id_", 7) == 0);
	}
}

static void test_uris(void **state)
{
	static const struct {
		const char *uri, *label, *path;
	} rows[] = {
		{ "artifact://local/j/a/b", "j", "a/b" }, { "artifact://local/j_1~00ff/x", "j_1~00ff", "x" },
		{ "artifact://local/j/a%20b%2Fc", "j", "a b/c" }, { "artifact://local/j/100%", "j", "100%" }, { "artifact://local/j/a#b?c", "j", "a#b?c" },
		{ "artifact://local/j/%zz", "j", "%zz" },
		{ "artifact://local/j", NULL, NULL }, { "artifact://local/j/", NULL, NULL }, { "artifact://local//x", NULL, NULL },
		{ "artifact://Local/j/x", NULL, NULL }, { "artifact://other/j/x", NULL, NULL }, { "https://local/j/x", NULL, NULL },
		{ "artifact://local/j/../x", NULL, NULL }, { "artifact://local/j/%2e%2e/x", NULL, NULL }, { "artifact://local/j/%00", NULL, NULL },
		{ "artifact://local/", NULL, NULL }, { "", NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF label = BUF_MAX(1024);
		AUTO_BUF path = BUF_MAX(ARTIFACT_PATH_MAX);

		assert_int_equal(artifact_uri_parse(slice_str(rows[i].uri), &label, &path), rows[i].label != NULL);
		if (!rows[i].label)
			continue;
		assert_string_equal(buf_cstr(&label), rows[i].label);
		assert_string_equal(buf_cstr(&path), rows[i].path);
	}
}

static void test_media_types(void **state)
{
	(void)state;
	assert_string_equal(artifact_media_type(SLICE("a/frame.PNG")), "image/png");
	assert_string_equal(artifact_media_type(SLICE("x.tar.gz")), "application/gzip");
	assert_string_equal(artifact_media_type(SLICE("png")), "application/octet-stream");
	assert_string_equal(artifact_media_type(SLICE(".png")), "application/octet-stream");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths), cmocka_unit_test(test_a_long_path), cmocka_unit_test(test_labels), cmocka_unit_test(test_uris),
		cmocka_unit_test(test_media_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
