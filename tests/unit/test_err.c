/* base/err: filling, cutting on a character, prefixes, and the table. */
#include "base/err.h"
#include "base/slice.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void sets_code_and_text(void **state)
{
	struct err e = { .os_errno = 7, .param = "old" };

	(void)state;
	assert_int_equal(err_set(&e, E_TOO_LARGE, "body: %d of at most %d bytes", 9, 8), E_TOO_LARGE);
	assert_int_equal(e.code, E_TOO_LARGE);
	assert_int_equal(e.os_errno, 0);
	assert_string_equal(e.param, "");
	assert_string_equal(e.what, "body: 9 of at most 8 bytes");
	assert_int_equal(err_set_param(&e, E_INVALID_VALUE, "a.b", "a.b: %s", "no"), E_INVALID_VALUE);
	assert_string_equal(e.param, "a.b");
	assert_string_equal(e.what, "a.b: no");
}

static void null_error_is_fine(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, E_IO, "x"), E_IO);
	assert_int_equal(err_set_param(NULL, E_IO, "p", "x"), E_IO);
	assert_int_equal(err_set_os(NULL, E_IO, EPERM, "x"), E_IO);
	assert_int_not_equal(err_prefix(NULL, "x"), E_OK);
}

static void system_text_is_appended(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(err_set_os(&e, E_IO, ENOENT, "open %s", "/a"), E_IO);
	assert_int_equal(e.os_errno, ENOENT);
	assert_string_equal(e.what, "open /a: No such file or directory");
}

static void prefix_keeps_the_rest(void **state)
{
	struct err e = { 0 };

	(void)state;
	err_set_param(&e, E_BAD_JSON, "p", "line 1");
	e.os_errno = 3;
	assert_int_equal(err_prefix(&e, "config %d", 5), E_BAD_JSON);
	assert_string_equal(e.what, "config 5: line 1");
	assert_string_equal(e.param, "p");
	assert_int_equal(e.os_errno, 3);
}

/* A text of k ASCII bytes followed by many copies of one character is cut between two of them. */
static void text_is_cut_on_a_character(void **state)
{
	static const char *const characters[] = { "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "x" };
	char text[1200];
	struct err e;

	(void)state;
	for (size_t c = 0; c < ARRAY_LEN(characters); c++)
		for (size_t k = 0; k < 5; k++) {
			size_t n = strlen(characters[c]);

			memset(text, 'a', k);
			for (size_t i = k; i + n < sizeof(text); i += n)
				memcpy(text + i, characters[c], n + 1);
			err_set_param(&e, E_IO, text, "%s", text);
			assert_true(slice_is_utf8(slice_str(e.what)));
			assert_true(slice_is_utf8(slice_str(e.param)));
			assert_true(strlen(e.what) > sizeof(e.what) - 1 - n && strlen(e.what) < sizeof(e.what));
			assert_true(strlen(e.param) > sizeof(e.param) - 1 - n);
			assert_memory_equal(e.what, text, strlen(e.what));
			err_prefix(&e, "%s", "p");
			assert_true(slice_is_utf8(slice_str(e.what)));
			assert_memory_equal(e.what, "p: ", 3);
		}
}

static void table_answers(void **state)
{
	static const struct {
		enum errc code;
		int http;
		bool is_retryable;
		const char *name, *class, *type, *oai, *symbol;
	} rows[] = {
		{ E_BAD_REQUEST, 400, false, "validation_failed", "bad_request", "invalid_request_error", NULL, "E_BAD_REQUEST" },
		{ E_UNAUTHORIZED, 401, false, "unauthorized", "unauthorized", "invalid_request_error", "invalid_api_key", "E_UNAUTHORIZED" },
		{ E_FORBIDDEN, 403, false, "policy_denied", "forbidden", "invalid_request_error", "policy_denied", "E_FORBIDDEN" },
		{ E_NOT_FOUND, 404, false, "not_found", "not_found", "invalid_request_error", NULL, "E_NOT_FOUND" },
		{ E_CONFLICT, 409, false, "conflict", "conflict", "invalid_request_error", "conflict", "E_CONFLICT" },
		{ E_BUSY, 503, true, "node_busy", "service_unavailable", "server_error", "node_busy", "E_BUSY" },
		{ E_TIMEOUT, 504, false, "timeout", "gateway_timeout", "server_error", "timeout", "E_TIMEOUT" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum errc c = rows[i].code;

		assert_int_equal(err_http_status(c), rows[i].http);
		assert_int_equal(err_is_retryable(c), rows[i].is_retryable);
		assert_string_equal(err_name(c), rows[i].name);
		assert_string_equal(err_class(err_http_status(c)), rows[i].class);
		assert_string_equal(err_openai_type(c), rows[i].type);
		if (rows[i].oai)
			assert_string_equal(err_openai_code(c), rows[i].oai);
		else
			assert_null(err_openai_code(c));
		assert_string_equal(err_symbol(c), rows[i].symbol);
	}
	for (int c = 1; c < ERR__COUNT; c++) {
		assert_in_range(err_http_status((enum errc)c), 400, 599);
		assert_true(err_class(err_http_status((enum errc)c))[0] != '\0');
	}
	assert_string_equal(err_class(418), "bad_request");
	assert_string_equal(err_class(599), "internal_error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sets_code_and_text), cmocka_unit_test(null_error_is_fine), cmocka_unit_test(system_text_is_appended),
		cmocka_unit_test(prefix_keeps_the_rest), cmocka_unit_test(text_is_cut_on_a_character), cmocka_unit_test(table_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
