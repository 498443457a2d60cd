/* Where requests to the gateway go: the table of gateway.md 1.2, and where no token goes. */
#include "gateway/url.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct config *cfg;

static void test_job_paths(void **state)
{
	static const struct { const char *base, *template, *id, *want; } rows[] = {
		{ "https://g/api", "/v1/x", "", "https://g/v1/x" },
		{ "https://g/api", "v1/x", "", "https://g/v1/x" },
		{ "https://g", "/a/../b", "", "https://g/b" },
		{ "https://g", "/a/b/..", "", "https://g/a/" },
		{ "https://g", "/../../b", "", "https://g/b" },
		{ "https://g:8443", "/a/./b?x=../y", "", "https://g:8443/a/b?x=../y" },
		{ "https://g", "/x/:jobId/start", "a/b c$1\xc3\xa9", "https://g/x/a%2Fb%20c%241%C3%A9/start" },
		{ "https://g", "/x/{jobId}/{job_id}/:job_id/:jobId", "j", "https://g/x/j/j/j/j" },
		{ "https://g", "/x/:jobIdx/:jobId_y/:jobId", "j", "https://g/x/:jobIdx/:jobId_y/j" },
		{ "https://g", "/x/:jobId.json", "-_.!~*'()", "https://g/x/-_.!~*'().json" },
		{ "https://g", "https://g/elsewhere/:jobId", "j", "https://g/elsewhere/j" },
		{ "https://g", "https://friend/x/:jobId", "j", "https://friend/x/j" },
		{ "http://127.0.0.1:8080", "/v1/:jobId", "..j", "http://127.0.0.1:8080/v1/..j" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF got = BUF_MAX(8192);
		struct err e = { 0 };

		if (gateway_url_job(cfg, rows[i].base, rows[i].template, slice_str(rows[i].id), &got, &e))
			fail_msg("%s: %s", rows[i].template, e.what);
		assert_string_equal(buf_cstr(&got), rows[i].want);
	}
}

static void test_refused(void **state)
{
	static const struct { const char *base, *template, *id; enum errc want; } rows[] = {
		{ "https://g", "https://other/x/:jobId", "j", E_FORBIDDEN },
		{ "https://g", "https://g:444/x/:jobId", "j", E_FORBIDDEN },
		{ "https://g", "https://g.evil.example/x", "j", E_FORBIDDEN },
		{ "https://g", "http://g/x", "j", E_INVALID_VALUE },
		{ "https://g", "ftp://g/x", "j", E_INVALID_VALUE },
		{ "https://g", "javascript:alert(1)", "j", E_INVALID_VALUE },
		{ "https://g", "/x/:jobId/start", "..", E_INVALID_VALUE },
		{ "https://g", "/x/:jobId/start", ".", E_INVALID_VALUE },
		{ "http://gateway.example", "/x", "j", E_INVALID_VALUE },
		{ "not a url", "/x", "j", E_INVALID_VALUE },
		{ "https://user:pw@g", "/x", "j", E_INVALID_VALUE },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF got = BUF_MAX(8192);
		struct err e = { 0 };

		assert_int_equal(gateway_url_job(cfg, rows[i].base, rows[i].template, slice_str(rows[i].id), &got, &e), rows[i].want);
	}
}

static void test_base(void **state)
{
	AUTO_BUF got = BUF_MAX(8192);
	struct err e = { 0 };

	(void)state;
	assert_int_equal(gateway_url(cfg, "https://g/api//", "/v1/x", &got, &e), E_OK);
	assert_string_equal(buf_cstr(&got), "https://g/api/v1/x");
	buf_clear(&got);
	assert_int_equal(gateway_url(cfg, "http://gateway.example", "/v1/x", &got, &e), E_INVALID_VALUE);
	cfg->gateway_allow_http = true;
	assert_int_equal(gateway_url(cfg, "http://gateway.example", "/v1/x", &got, &e), E_OK);
	cfg->gateway_allow_http = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_job_paths), cmocka_unit_test(test_refused), cmocka_unit_test(test_base) };
	char *args[] = { "--state-path", "/nonexistent/config.json", NULL };
	const struct config_load in = { .args = args };
	struct err e;

	if (config_load(&in, &cfg, &e) || str_list_add(&cfg->gateway_hosts, SLICE("friend"), &e))
		return 1;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);

	config_free(cfg);
	return rc;
}
