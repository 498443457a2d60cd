/* base/token.c: the 49 vectors of tests/data/tokens.json, header forms, minting. */
#include "base/token.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>

#define NOW_MS INT64_C(1781395200000)
#define SECRET SLICE("vector-secret-0123456789")

/* Does the outcome agree with {"ok":bool,"error":text}? */
static bool agrees(const struct json *expect, enum errc rc, const struct err *e)
{
	if (!expect)
		return false;
	if (json_is_true(json_get(expect, "ok")))
		return rc == E_OK;
	return rc == E_UNAUTHORIZED && strcmp(e->what, json_str(json_get(expect, "error"))) == 0;
}

/* "stricter_allowed" is an outcome that this node gives on purpose, so there it is the one that must come. */
static void check_vector(const struct json *v, bool *ret_is_stricter)
{
	CLEANUP(token_claims_done) struct token_claims claims = { 0 };
	const struct json *expect = json_get(v, "expect"), *stricter = json_get(v, "stricter_allowed");
	struct err e = { 0 };
	enum token_kind kind;
	int64_t now_s;

	assert_true(token_kind_parse(json_slice(json_get(v, "kind")), &kind));
	assert_true(json_i64(json_get(v, "now"), &now_s));
	enum errc rc = token_verify(json_slice(json_get(v, "token")), kind, json_slice(json_get(v, "secret")), now_s * 1000 + 999,
		&claims, &e);
	bool is_right = agrees(expect, rc, &e);

	*ret_is_stricter = !is_right && agrees(stricter, rc, &e);
	if (!is_right && !*ret_is_stricter)
		fail_msg("%s: got %s \"%s\"", json_str(json_get(v, "id")), err_symbol(rc), e.what);
	if (rc == E_OK)
		assert_string_equal(claims.node_id, "shn_vector");
	else
		assert_null(claims.node_id);
}

static void test_vectors(void **state)
{
	AUTO_BUF text = BUF_MAX(1 << 20);
	AUTO_JSON root = NULL;
	struct err e = { 0 };
	size_t stricter = 0, n = 0;

	(void)state;
	assert_int_equal(file_read(TEST_DATA_DIR "/tokens.json", &text, &e), E_OK);
	assert_int_equal(json_parse(buf_slice(&text), JSON_LIMITS_DEFAULT, &root, &e), E_OK);
	for (const struct json *v = json_first(json_get(root, "vectors")); v; v = json_next(v), n++) {
		bool is_stricter;

		check_vector(v, &is_stricter);
		stricter += is_stricter;
	}
	assert_int_equal(n, 49);
	/* exp as a string (two) and the payload null; the padded payload is accepted as the reference does */
	assert_int_equal(stricter, 3);
}

static void test_header(void **state)
{
	const struct { const char *value, *token; } rows[] = {
		{ "", "" }, { "Bearer x.y.z", "x.y.z" }, { "bEaReR    x.y.z", "x.y.z" }, { "x.y.z", "x.y.z" }, { "Basic abc", "Basic abc" },
		{ "Bearer", "Bearer" }, { "Bearer ", "Bearer" }, { "  Bearer \t x.y.z  ", "x.y.z" }, { "Bearerx.y.z", "Bearerx.y.z" },
		{ "Bearer Bearer x", "Bearer x" }, { "   ", "" }, { "Bearer\xc2\xa0x", "x" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_true(slice_eq(token_from_header(slice_str(rows[i].value)), slice_str(rows[i].token)));
}

static void test_kind_names(void **state)
{
	enum token_kind kind = TOKEN_OPS;

	(void)state;
	assert_true(token_kind_parse(SLICE("generic"), &kind));
	assert_int_equal(kind, TOKEN_GENERIC);
	assert_false(token_kind_parse(SLICE("Generic"), &kind));
	assert_false(token_kind_parse(SLICE(""), &kind));
	assert_int_equal(kind, TOKEN_GENERIC);
}

static const struct token_mint full = {
	.node_id = "shn_vector", .job_id = "job-1", .request_id = "req-1", .model = "mcoda-qwen-reviewer",
	.schema_version = "2026-06-14", .job_type = "tenant.test-echo", .ttl_s = 60,
};

/* Byte for byte what the existing signers make (direct-api.md 1.6, V1 and V2). */
static void test_mint_bytes(void **state)
{
	const struct { enum token_kind kind; int64_t ttl_s; const char *token; } rows[] = {
		{ TOKEN_INVOKE, 60,
			"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJub2RlX2lkIjoic2huX3ZlY3RvciIsImpvYl9pZCI6ImpvYi0xIiwicmVxdWVzdF9pZCI6"
			"InJlcS0xIiwibW9kZWwiOiJtY29kYS1xd2VuLXJldmlld2VyIiwiZGVhZGxpbmVfYXQiOiIyMDI2LTA2LTE0VDAwOjAxOjAwLjAwMFoiLCJz"
			"Y29wZSI6InNlbGZfaG9zdGVkLmludm9rZSIsImlhdCI6MTc4MTM5NTIwMCwiZXhwIjoxNzgxMzk1MjYwfQ."
			"EHxI5Ci4SJgQ3TMouFh_9ckWEL45g8IS7n621DO_buA" },
		{ TOKEN_GENERIC, 3600,
			"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJub2RlX2lkIjoic2huX3ZlY3RvciIsImpvYl9pZCI6ImpvYi0xIiwicmVxdWVzdF9pZCI6"
			"InJlcS0xIiwic2NoZW1hX3ZlcnNpb24iOiIyMDI2LTA2LTE0Iiwiam9iX3R5cGUiOiJ0ZW5hbnQudGVzdC1lY2hvIiwic2NvcGUiOiJzZWxm"
			"X2hvc3RlZC5nZW5lcmljX2pvYi5pbnZva2UiLCJkZWFkbGluZV9hdCI6IjIwMjYtMDYtMTRUMDE6MDA6MDAuMDAwWiIsImlhdCI6MTc4MTM5"
			"NTIwMCwiZXhwIjoxNzgxMzk4ODAwfQ.1FJRghuevcoLOJ3aQkFfyDs2n_hvyWmDu4_WnKh7pgk" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF out = BUF_MAX(4096);
		struct token_mint m = full;
		struct err e = { 0 };

		m.kind = rows[i].kind;
		m.ttl_s = rows[i].ttl_s;
		assert_int_equal(token_mint(&m, SLICE("  vector-secret-0123456789\n"), NOW_MS + 500, &out, &e), E_OK);
		assert_true(slice_eq(buf_slice(&out), slice_str(rows[i].token)));
	}
}

/* Every kind opens its own route, no other, until its end and not after. */
static void test_mint_and_verify(void **state)
{
	(void)state;
	for (unsigned made = 0; made < TOKEN__COUNT; made++) {
		AUTO_BUF out = BUF_MAX(4096);
		struct token_mint m = full;
		struct err e = { 0 };

		m.kind = (enum token_kind)made;
		assert_int_equal(token_mint(&m, SECRET, NOW_MS, &out, &e), E_OK);
		for (unsigned want = 0; want < TOKEN__COUNT; want++) {
			CLEANUP(token_claims_done) struct token_claims c = { 0 };
			enum errc rc = token_verify(buf_slice(&out), (enum token_kind)want, SECRET, NOW_MS, &c, &e);

			assert_int_equal(rc, made == want ? E_OK : E_UNAUTHORIZED);
			if (rc)
				assert_non_null(strstr(e.what, "_scope_denied"));
			else
				assert_int_equal(c.exp_s, NOW_MS / 1000 + 60);
		}
		CLEANUP(token_claims_done) struct token_claims c = { 0 };

		assert_int_equal(token_verify(buf_slice(&out), m.kind, SECRET, NOW_MS + 60999, &c, &e), E_OK);
		CLEANUP(token_claims_done) struct token_claims late = { 0 };

		assert_int_equal(token_verify(buf_slice(&out), m.kind, SECRET, NOW_MS + 61000, &late, &e), E_UNAUTHORIZED);
		assert_non_null(strstr(e.what, "_expired"));
	}
}

static void test_claims(void **state)
{
	CLEANUP(token_claims_done) struct token_claims c = { 0 };
	AUTO_BUF out = BUF_MAX(4096);
	struct token_mint m = full;
	struct err e = { 0 };

	(void)state;
	m.kind = TOKEN_GENERIC;
	assert_int_equal(token_mint(&m, SECRET, NOW_MS, &out, &e), E_OK);
	assert_int_equal(token_verify(buf_slice(&out), TOKEN_GENERIC, SECRET, NOW_MS, &c, &e), E_OK);
	assert_string_equal(c.job_id, "job-1");
	assert_string_equal(c.request_id, "req-1");
	assert_string_equal(c.schema_version, "2026-06-14");
	assert_string_equal(c.job_type, "tenant.test-echo");
	assert_null(c.model);
	assert_null(c.operation);
}

/* Any payload under the right signature: what is checked in which order, and what a claim may look like. */
static void test_payloads(void **state)
{
#define TIMES "\"exp\":9999999999,\"deadline_at\":\"2099-01-01T00:00:00Z\""
#define SCOPE "\"scope\":\"self_hosted.generic_job.ops.read\""
	static const struct { const char *payload, *error, *node_id; } rows[] = {
		{ "{\"node_id\":\"n\"," SCOPE "," TIMES "}", NULL, "n" },
		{ "\xef\xbb\xbf {\"node_id\" : \"n\" ,\n" SCOPE "," TIMES "} ", NULL, "n" },
		{ "{\"node_id\":\"a\\u00e4\\n\\ud83d\\ude00\\ud83d-\\u0000.\"," SCOPE "," TIMES "}", NULL,
			"a\xc3\xa4\n\xf0\x9f\x98\x80\xef\xbf\xbd-\xef\xbf\xbd." },
		{ "{\"node_id\":\"n\\\\\"," SCOPE "," TIMES "}", NULL, "n\\" },
		{ "{\"node_id\":1,\"node_id\":\"last\"," SCOPE "," TIMES "}", NULL, "last" },
		{ "{\"node_id\":\"n\",\"scope\":\"self\\u005fhosted.generic_job.ops.read\",\"exp\":1e10,\"deadline_at\":\"2099-01-01T00:00:00Z\"}", NULL, "n" },
		{ "{\"node_id\":\"first\",\"node_id\":1," SCOPE "," TIMES "}", "node_id is required", NULL },
		{ "{\"node_id\":\" \\t\"," SCOPE "," TIMES "}", "node_id is required", NULL },
		{ "{" SCOPE "," TIMES "}", "node_id is required", NULL },
		{ "{" SCOPE ",\"exp\":\"9999999999\",\"deadline_at\":\"2099-01-01T00:00:00Z\"}", "self_hosted_generic_job_ops_token_expired", NULL },
		{ "{" SCOPE ",\"exp\":1e999,\"deadline_at\":\"2099-01-01T00:00:00Z\"}", "self_hosted_generic_job_ops_token_expired", NULL },
		{ "{" SCOPE ",\"exp\":9999999999,\"deadline_at\":4102444800}", "self_hosted_generic_job_ops_token_expired", NULL },
		{ "{" SCOPE ",\"exp\":9999999999}", "self_hosted_generic_job_ops_token_expired", NULL },
		{ "{\"scope\":[\"self_hosted.generic_job.ops.read\"]," TIMES "}", "self_hosted_generic_job_ops_token_scope_denied", NULL },
		{ "{}", "self_hosted_generic_job_ops_token_scope_denied", NULL },
		{ "[" SCOPE "]", "self_hosted_generic_job_ops_token_invalid", NULL },
		{ "[1]", "self_hosted_generic_job_ops_token_scope_denied", NULL },
		{ " \"x\"", "self_hosted_generic_job_ops_token_scope_denied", NULL },
		{ " null\n", "self_hosted_generic_job_ops_token_invalid", NULL },
		{ "{\"node_id\":\"n\"," SCOPE "," TIMES "}}", "self_hosted_generic_job_ops_token_invalid", NULL },
		{ "{\"node_id\":\"n\"," SCOPE "," TIMES, "self_hosted_generic_job_ops_token_invalid", NULL },
		{ "{\"node_id\":\"\x01\"," SCOPE "," TIMES "}", "self_hosted_generic_job_ops_token_invalid", NULL },
		{ "", "self_hosted_generic_job_ops_token_invalid", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP(token_claims_done) struct token_claims c = { 0 };
		AUTO_BUF token = BUF_MAX(4096);
		uint8_t mac[SHA256_LEN];
		struct err e = { 0 };

		assert_int_equal(buf_add_str(&token, "e30.", &e), E_OK);
		assert_int_equal(crypto_base64url(slice_str(rows[i].payload), &token, &e), E_OK);
		crypto_hmac_sha256(SECRET, buf_slice(&token), mac);
		assert_int_equal(buf_add_str(&token, ".", &e), E_OK);
		assert_int_equal(crypto_base64url(slice_of((const char *)mac, sizeof(mac)), &token, &e), E_OK);
		assert_int_equal(token_verify(buf_slice(&token), TOKEN_OPS, SECRET, NOW_MS, &c, &e), rows[i].error ? E_UNAUTHORIZED : E_OK);
		if (rows[i].error)
			assert_string_equal(e.what, rows[i].error);
		else
			assert_string_equal(c.node_id, rows[i].node_id);
	}
#undef SCOPE
#undef TIMES
}

static void test_mint_refusals(void **state)
{
	const struct { size_t unset; enum token_kind kind; const char *text; } rows[] = {
		{ offsetof(struct token_mint, node_id), TOKEN_OPS, "node_id is required" },
		{ offsetof(struct token_mint, job_id), TOKEN_INVOKE, "job_id is required" },
		{ offsetof(struct token_mint, request_id), TOKEN_GENERIC, "request_id is required" },
		{ offsetof(struct token_mint, model), TOKEN_INVOKE, "model is required" },
		{ offsetof(struct token_mint, job_type), TOKEN_GENERIC, "job_type is required" },
	};
	const int64_t ttls[] = { 0, -1, INT64_MAX, INT64_MIN };
	AUTO_BUF out = BUF_MAX(4096);
	struct err e = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct token_mint m = full;

		m.kind = rows[i].kind;
		*(const char **)(void *)((char *)&m + rows[i].unset) = i % 2 ? "  " : NULL;
		assert_int_equal(token_mint(&m, SECRET, NOW_MS, &out, &e), E_MISSING_PARAMETER);
		assert_string_equal(e.what, rows[i].text);
	}
	for (size_t i = 0; i < ARRAY_LEN(ttls); i++) {
		struct token_mint m = full;

		m.ttl_s = ttls[i];
		assert_int_equal(token_mint(&m, SECRET, NOW_MS, &out, &e), E_INVALID_VALUE);
	}
	assert_int_equal(token_mint(&full, SLICE(" \n"), NOW_MS, &out, &e), E_MISSING_PARAMETER);
	assert_int_equal(out.n, 0);
}

/* The secret itself, a token signed with nothing, and every single changed byte are refused. */
static void test_forgeries(void **state)
{
	CLEANUP(token_claims_done) struct token_claims c = { 0 };
	AUTO_BUF out = BUF_MAX(4096);
	struct token_mint m = full;
	struct err e = { 0 };

	(void)state;
	m.kind = TOKEN_OPS;
	assert_int_equal(token_mint(&m, SECRET, NOW_MS, &out, &e), E_OK);
	assert_int_equal(token_verify(SECRET, TOKEN_OPS, SECRET, NOW_MS, &c, &e), E_UNAUTHORIZED);
	assert_int_equal(token_verify(buf_slice(&out), TOKEN_OPS, SLICE("  "), NOW_MS, &c, &e), E_UNAUTHORIZED);
	assert_string_equal(e.what, "self_hosted_invocation_secret is required");
	for (size_t i = 0; i < out.n; i++) {
		char kept = out.p[i];

		out.p[i] = kept == 'A' ? 'B' : 'A';
		assert_int_equal(token_verify(buf_slice(&out), TOKEN_OPS, SECRET, NOW_MS, &c, &e), E_UNAUTHORIZED);
		assert_string_equal(e.what, "self_hosted_generic_job_ops_token_invalid");
		out.p[i] = kept;
	}
	for (size_t n = 1; n < out.n; n++)
		assert_int_equal(token_verify(slice_cut(buf_slice(&out), n), TOKEN_OPS, SECRET, NOW_MS, &c, &e), E_UNAUTHORIZED);
}

static void test_no_memory(void **state)
{
	struct token_mint m = full;
	enum errc rc;

	(void)state;
	m.kind = TOKEN_GENERIC;
	for (uint64_t nth = 1; nth < 200; nth++) {
		CLEANUP(token_claims_done) struct token_claims c = { 0 };
		AUTO_BUF out = BUF_MAX(4096);
		struct err e = { 0 };

		mem_test_fail_at(nth, 0);
		rc = token_mint(&m, SECRET, NOW_MS, &out, &e);
		if (rc == E_OK)
			rc = token_verify(buf_slice(&out), TOKEN_GENERIC, SECRET, NOW_MS, &c, &e);
		mem_test_fail_at(0, 0);
		if (rc == E_OK)
			return;
		assert_int_equal(rc, E_NO_MEMORY);
	}
	fail_msg("never succeeded");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_kind_names),
		cmocka_unit_test(test_mint_bytes),
		cmocka_unit_test(test_mint_and_verify),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_payloads),
		cmocka_unit_test(test_mint_refusals),
		cmocka_unit_test(test_forgeries),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
