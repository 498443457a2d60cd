/* A file inside JSON: at every place where the text may be cut, the same bytes and the same rest. */
#include "routes/upload_json.h"

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static enum errc sink(void *ctx, struct slice bytes, struct err *e)
{
	return buf_add_slice(ctx, bytes, e);
}

struct got {
	struct buf file, rest;
	enum upload_content content;
	enum errc rc;
};

static struct got feed(struct slice text, size_t cut)
{
	struct got g = { .file = BUF_MAX(1 << 20), .rest = BUF_MAX(1 << 20) };
	struct upload_json *j = NULL;
	struct err e = { 0 };

	assert_int_equal(upload_json_new(&j, &e), E_OK);
	g.rc = upload_json_feed(j, slice_cut(text, cut), sink, &g.file, &e);
	if (!g.rc)
		g.rc = upload_json_feed(j, slice_from(text, cut), sink, &g.file, &e);
	g.content = upload_json_content(j);
	assert_int_equal(buf_add_slice(&g.rest, upload_json_rest(j), &e), E_OK);
	upload_json_free(j);
	return g;
}

static void got_done(struct got *g)
{
	buf_done(&g->file);
	buf_done(&g->rest);
}

static void test_every_cut(void **state)
{
	static const struct {
		const char *text, *file, *rest;
		enum upload_content content;
		enum errc rc;
	} rows[] = {
		{ "{\"content_base64\":\"aGVsbG8=\",\"path\":\"p\"}", "hello", "{\"content_base64\":\"\",\"path\":\"p\"}", CONTENT_FINE, E_OK },
		{ " {\"a\":\"\\\"content_base64\\\":\", \"content_base64\" : \"aGVs\\r\\n bG8\" }", "hello",
		  " {\"a\":\"\\\"content_base64\\\":\", \"content_base64\" : \"\" }", CONTENT_FINE, E_OK },
		{ "{\"x\":{\"content_base64\":\"aGVs\"},\"y\":[\"content_base64\",\"aGVs\"]}", "",
		  "{\"x\":{\"content_base64\":\"aGVs\"},\"y\":[\"content_base64\",\"aGVs\"]}", CONTENT_BLANK, E_OK },
		{ "{\"content\\u005Fbase64\":\"\\u0061GVs\\u002b\\/==\"}", "hel\xfb", NULL, CONTENT_FINE, E_OK },
		{ "{\"content_base64\":\"\\u00a0aGVs\\ufeff\"}", "hel", NULL, CONTENT_FINE, E_OK },
		{ "{\"content_base64\":\"aGVsbG8=\"", "hello", "{\"content_base64\":\"\"", CONTENT_FINE, E_OK },
		{ "{\"content_base64\":\"\"}", "", NULL, CONTENT_BLANK, E_OK },
		{ "{\"content_base64\":\"  \\n\"}", "", NULL, CONTENT_BLANK, E_OK },
		{ "{\"content_base64\":\"=\"}", "", NULL, CONTENT_INVALID, E_OK },
		{ "{\"content_base64\":\"QQ=\"}", "A", NULL, CONTENT_FINE, E_OK },
		{ "{\"content_base64\":\"QUJD=\"}", "ABC", NULL, CONTENT_INVALID, E_OK },
		{ "{\"content_base64\":\"QQ===\"}", "A", NULL, CONTENT_INVALID, E_OK },
		{ "{\"content_base64\":\"QQ==QQ==\"}", "A", NULL, CONTENT_INVALID, E_OK },
		{ "{\"content_base64\":\"a-b_\"}", NULL, NULL, CONTENT_INVALID, E_OK },
		{ "{\"content_base64\":\"a\xc3\xa9\"}", NULL, NULL, CONTENT_INVALID, E_OK },
		{ "{\"content_base64\":\"aG\\q\"}", NULL, NULL, CONTENT_FINE, E_BAD_JSON },
		{ "{\"content_base64\":\"aG\\u00g0\"}", NULL, NULL, CONTENT_FINE, E_BAD_JSON },
		{ "{\"content_base64\":\"aG\nVs\"}", NULL, NULL, CONTENT_FINE, E_BAD_JSON },
		{ "{\"content_base64\":\"aGVs\",\"content_base64\":\"aGVs\"}", NULL, NULL, CONTENT_FINE, E_BAD_REQUEST },
		{ "{\"content_base64\":7,\"b\":\"x\"}", "", "{\"content_base64\":7,\"b\":\"x\"}", CONTENT_BLANK, E_OK },
		{ "{\"content_base64\":{\"b\":\"x\"}}", "", "{\"content_base64\":{\"b\":\"x\"}}", CONTENT_BLANK, E_OK },
		{ "[\"content_base64\",\"aGVs\"]", "", "[\"content_base64\",\"aGVs\"]", CONTENT_BLANK, E_OK },
		{ "}}{\"content_base64\":\"aGVs\"}", "hel", "}}{\"content_base64\":\"\"}", CONTENT_FINE, E_OK },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct slice text = slice_str(rows[i].text);

		for (size_t cut = 0; cut <= text.n; cut++) {
			struct got g = feed(text, cut);

			if (g.rc != rows[i].rc || (!g.rc && g.content != rows[i].content))
				fail_msg("row %zu cut at %zu: rc %d, content %d", i, cut, g.rc, g.content);
			if (!g.rc && rows[i].file && rows[i].content != CONTENT_INVALID)
				assert_true(slice_eq(buf_slice(&g.file), slice_str(rows[i].file)));
			if (rows[i].rest)
				assert_string_equal(buf_cstr(&g.rest), rows[i].rest);
			got_done(&g);
		}
	}
}

static enum errc full(void *ctx, struct slice bytes, struct err *e)
{
	size_t *taken = ctx;

	*taken += bytes.n;
	return *taken > 100000 ? err_set(e, E_NO_SPACE, "full") : E_OK;
}

/* The sink's word is final, and a rest beyond its bound is refused. */
static void test_bounds(void **state)
{
	AUTO_BUF text = BUF_MAX(4 << 20);
	struct upload_json *j = NULL;
	struct err e = { 0 };
	size_t taken = 0;

	(void)state;
	assert_int_equal(upload_json_new(&j, &e), E_OK);
	assert_int_equal(buf_add_str(&text, "{\"content_base64\":\"", &e), E_OK);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf_add_str(&text, "QUJD", &e), E_OK);
	assert_int_equal(upload_json_feed(j, buf_slice(&text), full, &taken, &e), E_NO_SPACE);
	assert_true(taken < 160000);
	upload_json_free(j);
	buf_clear(&text);
	assert_int_equal(upload_json_new(&j, &e), E_OK);
	for (size_t i = 0; i <= UPLOAD_JSON_REST_MAX / 8; i++)
		assert_int_equal(buf_add_str(&text, "[[[[[[[[", &e), E_OK);
	assert_int_equal(upload_json_feed(j, buf_slice(&text), full, &taken, &e), E_TOO_LARGE);
	upload_json_free(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_cut), cmocka_unit_test(test_bounds) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
