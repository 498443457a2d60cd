/* Unit tests of llm/upstream.c and llm/place.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "llm/place.h"
#include "llm/upstream.h"

static void test_kinds(void **state)
{
	static const struct { const char *text; int kind; } rows[] = {
		{ "openai", UPSTREAM_OPENAI }, { "custom", UPSTREAM_OPENAI }, { "openai-compatible", UPSTREAM_OPENAI },
		{ " LLaMA.cpp ", UPSTREAM_LLAMA_CPP }, { "llamacpp", UPSTREAM_LLAMA_CPP }, { "llama_cpp", UPSTREAM_LLAMA_CPP },
		{ "llama.cpp-python", UPSTREAM_LLAMA_CPP_PYTHON }, { "vLLM", UPSTREAM_VLLM }, { "lm_studio", UPSTREAM_LM_STUDIO },
		{ "local-ai", UPSTREAM_LOCALAI }, { "sglang", UPSTREAM_SGLANG }, { "text-generation-inference", UPSTREAM_TGI },
		{ "ollama", UPSTREAM_OLLAMA }, { "", -1 }, { " ", -1 }, { "llama", -1 }, { "openai-compatible custom", -1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum upstream_kind kind = UPSTREAM__COUNT;
		bool is_it = upstream_kind_parse(slice_str(rows[i].text), &kind);

		assert_int_equal(is_it, rows[i].kind >= 0);
		if (is_it)
			assert_int_equal(kind, rows[i].kind);
	}
	assert_false(upstream_ops(UPSTREAM_LLAMA_CPP)->keeps_idle);
	assert_true(upstream_ops(UPSTREAM_LLAMA_CPP)->joins_streams);
	assert_true(upstream_ops(UPSTREAM_VLLM)->keeps_idle);
	assert_string_equal(upstream_ops(UPSTREAM_DEMO)->name, "demo");
}

static void test_urls(void **state)
{
	static const struct { const char *base; enum upstream_kind kind; const char *kept, *chat, *ollama; } rows[] = {
		{ "http://h:8000/v1", UPSTREAM_OPENAI, "http://h:8000/v1", "http://h:8000/v1/chat/completions", NULL },
		{ "http://h:8000/v1//", UPSTREAM_OPENAI, "http://h:8000/v1", "http://h:8000/v1/chat/completions", NULL },
		{ "http://h:8000", UPSTREAM_VLLM, "http://h:8000", "http://h:8000/chat/completions", NULL },
		{ "https://h/a/b?x=1", UPSTREAM_OPENAI, "https://h/a/b?x=1", "https://h/a/chat/completions", NULL },
		{ "http://h?x=1", UPSTREAM_OPENAI, "http://h?x=1", "http://h/chat/completions", NULL },
		{ "http://[::1]:9/v1", UPSTREAM_OPENAI, "http://[::1]:9/v1", "http://[::1]:9/v1/chat/completions", NULL },
		{ "http://o:11434/v1", UPSTREAM_OLLAMA, "http://o:11434/v1", "http://o:11434/v1/chat/completions", "http://o:11434/api/chat" },
		{ "http://o/x/v1/", UPSTREAM_OLLAMA, "http://o/x/v1", "http://o/x/v1/chat/completions", "http://o/x/api/chat" },
		{ "http://o", UPSTREAM_OLLAMA, "http://o", "http://o/chat/completions", "http://o/api/chat" },
		{ "", UPSTREAM_DEMO, "", "", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct upstream_spec s = { .name = "lab", .base_url = rows[i].base, .kind = rows[i].kind, .max_concurrent = 3, .connect_ms = 1 };
		struct upstream *u = NULL;
		struct err e = { 0 };

		assert_int_equal(upstream_new(&s, &u, &e), E_OK);
		assert_string_equal(u->base_url, rows[i].kept);
		assert_string_equal(u->chat_url, rows[i].chat);
		if (rows[i].ollama)
			assert_string_equal(u->ollama_chat_url, rows[i].ollama);
		else
			assert_null(u->ollama_chat_url);
		assert_int_equal(u->max_concurrent, 3);
		assert_null(u->headers[0]);
		upstream_unref(u);
	}
	upstream_unref(NULL);
}

static void test_refused(void **state)
{
	static const char *const rows[] = { "", "h:80", "ftp://h", "http://", "http://u:p@h/v1", "file:///etc/passwd", "http://h:0/v1", "http://h:99999" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct upstream_spec s = { .name = "lab", .base_url = rows[i], .kind = UPSTREAM_OPENAI };
		struct upstream *u = NULL;
		struct err e = { 0 };

		assert_int_equal(upstream_new(&s, &u, &e), E_INVALID_VALUE);
		assert_null(u);
		assert_string_equal(e.param, "base_url");
	}
}

static void test_headers_and_refs(void **state)
{
	const char *headers[] = { "x-a: 1", "authorization: Bearer k", NULL };
	struct upstream_spec s = { .name = "lab", .base_url = "http://h/v1", .kind = UPSTREAM_OPENAI, .headers = headers };
	struct upstream *u = NULL;
	struct err e = { 0 };

	(void)state;
	assert_int_equal(upstream_new(&s, &u, &e), E_OK);
	assert_ptr_not_equal(u->headers[0], headers[0]);
	assert_string_equal(u->headers[1], "authorization: Bearer k");
	assert_null(u->headers[2]);
	assert_int_equal(u->max_concurrent, 1);
	assert_true(breaker_would(&u->breaker, 0, NULL));
	assert_ptr_equal(upstream_ref(u), u);
	upstream_unref(u);
	assert_string_equal(u->name, "lab"); /* still one reference */
	upstream_unref(u);
}

static void test_no_memory(void **state)
{
	const char *headers[] = { "x-a: 1", NULL };
	struct upstream_spec s = { .name = "lab", .base_url = "http://h/v1", .kind = UPSTREAM_OLLAMA, .headers = headers };
	enum errc rc = E_NO_MEMORY;
	uint64_t n = 0;

	(void)state;
	while (rc == E_NO_MEMORY && n < 100) {
		struct upstream *u = NULL;
		struct err e = { 0 };

		mem_test_fail_at(++n, 0);
		rc = upstream_new(&s, &u, &e);
		mem_test_fail_at(0, 0);
		assert_int_equal(u != NULL, rc == E_OK);
		upstream_unref(u);
	}
	assert_int_equal(rc, E_OK);
	assert_true(n > 6);
}

static void test_places(void **state)
{
	static const struct { const char *url; bool is_loopback, is_private; int64_t port; const char *path; } rows[] = {
		{ "http://127.0.0.1:8080/v1", true, true, 8080, "/v1" }, { "http://localhost", true, true, 80, "" },
		{ "HTTPS://LOCALHOST/x", true, true, 443, "/x" }, { "http://[::1]:1/", true, true, 1, "/" },
		{ "http://0.0.0.0:5", true, true, 5, "" }, { "http://127.9.9.9", true, true, 80, "" },
		{ "http://10.1.2.3", false, true, 80, "" }, { "http://172.16.0.1", false, true, 80, "" },
		{ "http://172.31.255.255", false, true, 80, "" }, { "http://172.32.0.1", false, false, 80, "" },
		{ "http://192.168.0.9", false, true, 80, "" }, { "http://192.169.0.9", false, false, 80, "" },
		{ "http://100.64.0.1", false, true, 80, "" }, { "http://100.127.0.1", false, true, 80, "" },
		{ "http://100.128.0.1", false, false, 80, "" }, { "http://169.254.1.1", false, true, 80, "" },
		{ "http://[fe80::1]", false, true, 80, "" }, { "http://[fd00::1]", false, true, 80, "" },
		{ "http://[2001:db8::1]", false, false, 80, "" }, { "http://8.8.8.8", false, false, 80, "" },
		{ "http://gpubox:8000", false, true, 8000, "" }, { "http://gpu.lan", false, true, 80, "" },
		{ "http://gpu.Local/v1?x", false, true, 80, "/v1" }, { "https://api.openai.com/v1", false, false, 443, "/v1" },
		{ "http://lan.example.com", false, false, 80, "" }, { "http://notlocal", false, true, 80, "" },
		{ "http://foo.notlocal", false, false, 80, "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct place p;

		assert_true(place_parse(slice_str(rows[i].url), &p));
		assert_int_equal(place_is_loopback(&p), rows[i].is_loopback);
		assert_int_equal(place_is_private(&p), rows[i].is_private);
		assert_int_equal(p.port, rows[i].port);
		assert_true(slice_eq(p.path, slice_str(rows[i].path)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds), cmocka_unit_test(test_urls), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_headers_and_refs), cmocka_unit_test(test_no_memory), cmocka_unit_test(test_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
