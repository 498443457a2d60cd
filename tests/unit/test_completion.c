/* Plain replies: mended (completion_fix) and joined from streams, llm-execution.md 8.5.1. */
#include "llm/completion.h"

#include "base/crypto.h"
#include "base/json.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define LINES 10
#define U3 "{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}"
#define IN(choices) "{\"id\":\"r1\",\"created\":5,\"object\":\"chat.completion\",\"model\":\"real\",\"choices\":[" choices "]}"
#define MSG(members) IN("{\"index\":0,\"message\":{\"role\":\"assistant\"," members "},\"finish_reason\":\"stop\"}")
#define OUT(choices) "{\"id\":\"r1\",\"object\":\"chat.completion\",\"created\":5,\"model\":\"mine\",\"choices\":[" choices "]}"
#define OMSG(members, finish) "{\"index\":0,\"message\":{\"role\":\"assistant\"," members "},\"logprobs\":null,\"finish_reason\":\"" finish "\"}"
#define CALL(id, name, args) "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"arguments\":\"" args "\"}}"

/* Equal, where "call_*" of the wish stands for any made-up id. */
static bool like(const char *got, const char *want)
{
	const char *star;

	while ((star = strstr(want, "call_*")) != NULL) {
		size_t n = (size_t)(star - want) + 5;

		if (strncmp(got, want, n) != 0 || strspn(got + n, "abcdefghijklmnopqrstuvwxyz0123456789") != 24)
			return false;
		got += n + 24;
		want = star + 6;
	}
	return strcmp(got, want) == 0;
}

struct fix { const char *reply, *want, *error; };
static const struct fix fixes[] = {
	{ MSG("\"content\":\"a\""), OUT(OMSG("\"content\":\"a\",\"refusal\":null", "stop")), NULL },
	{ " \n" MSG("\"content\":\"a\"") "\n", OUT(OMSG("\"content\":\"a\",\"refusal\":null", "stop")), NULL },
	{ MSG("\"content\":null"), OUT(OMSG("\"content\":\"\",\"refusal\":null", "stop")), NULL },
	{ MSG("\"content\":\"\\u00e9\\n\xc3\xa9\""), OUT(OMSG("\"content\":\"\\u00e9\\n\xc3\xa9\",\"refusal\":null", "stop")), NULL },
	{ MSG("\"refusal\":\"no\""), OUT(OMSG("\"content\":null,\"refusal\":\"no\"", "stop")), NULL },
	{ MSG("\"content\":\"a\",\"reasoning_content\":\"r\",\"annotations\":[ 1]"), OUT(OMSG("\"content\":\"a\",\"refusal\":null,\"reasoning_content\":\"r\",\"annotations\":[ 1]", "stop")), NULL },
	/* tool calls */
	{ MSG("\"content\":\"\",\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"},\"id\":\"\"},{\"index\":4,\"function\":{\"name\":\"g\",\"arguments\":{\"a\": 1e2}}}]"),
	  OUT(OMSG("\"content\":null,\"refusal\":null,\"tool_calls\":[" CALL("call_*", "f", "{}") "," CALL("call_*", "g", "{\\\"a\\\":1e2}") "]", "tool_calls")), NULL },
	{ MSG("\"content\":\"a\",\"tool_calls\":[{\"id\":\"k\",\"function\":{\"name\":\"f\"}}]"), OUT(OMSG("\"content\":\"a\",\"refusal\":null,\"tool_calls\":[" CALL("k", "f", "{}") "]", "tool_calls")), NULL },
	{ MSG("\"content\":\"a\",\"tool_calls\":[]"), OUT(OMSG("\"content\":\"a\",\"refusal\":null", "stop")), NULL },
	{ MSG("\"content\":\"a\",\"tool_calls\":null"), OUT(OMSG("\"content\":\"a\",\"refusal\":null", "stop")), NULL },
	{ MSG("\"content\":null,\"tool_calls\":[{\"id\":\"k\",\"type\":\"custom\",\"custom\":{\"input\":\"x\"}}]"),
	  OUT(OMSG("\"content\":null,\"refusal\":null,\"tool_calls\":[{\"id\":\"k\",\"type\":\"custom\",\"custom\":{\"input\":\"x\"}}]", "tool_calls")), NULL },
	/* ends, logprobs, extras, several choices */
	{ IN("{\"index\":0,\"message\":{\"content\":\"a\"},\"finish_reason\":\"max_tokens\"}"), OUT(OMSG("\"content\":\"a\",\"refusal\":null", "length")), NULL },
	{ IN("{\"message\":{\"content\":\"a\"}}"), OUT(OMSG("\"content\":\"a\",\"refusal\":null", "stop")), NULL },
	{ IN("{\"message\":{\"content\":\"a\"},\"logprobs\":{\"content\":[{\"logprob\":-7.035872459411621}]},\"stop_reason\":2,\"finish_reason\":\"stop\"}"),
	  OUT("{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\",\"refusal\":null},\"logprobs\":{\"content\":[{\"logprob\":-7.035872459411621}]},\"finish_reason\":\"stop\",\"stop_reason\":2}"), NULL },
	{ "{\"id\":\"r1\",\"created\":5,\"system_fingerprint\":\"f\",\"choices\":[{\"message\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\"timings\":{\"n\":2.50}}",
	  "{\"id\":\"r1\",\"object\":\"chat.completion\",\"created\":5,\"model\":\"mine\",\"choices\":[" OMSG("\"content\":\"a\",\"refusal\":null", "stop") "],\"system_fingerprint\":\"f\",\"timings\":{\"n\":2.50}}", NULL },
	{ IN("{\"index\":1,\"message\":{\"content\":\"b\"},\"finish_reason\":\"stop\"},{\"index\":0,\"message\":{\"content\":\"a\"},\"finish_reason\":\"length\"}"),
	  OUT(OMSG("\"content\":\"a\",\"refusal\":null", "length") ",{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"b\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}"), NULL },
	/* usage */
	{ "{\"id\":\"r1\",\"created\":5,\"choices\":[{\"message\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}",
	  "{\"id\":\"r1\",\"object\":\"chat.completion\",\"created\":5,\"model\":\"mine\",\"choices\":[" OMSG("\"content\":\"a\",\"refusal\":null", "stop") "],\"usage\":" U3 "}", NULL },
	{ "{\"id\":\"r1\",\"created\":5,\"choices\":[{\"message\":{\"content\":\"a\"}}],\"usage\":null}", OUT(OMSG("\"content\":\"a\",\"refusal\":null", "stop")), NULL },
	/* no completion */
	{ "", NULL, "the runner's answer is no JSON object" }, { "<html>", NULL, "the runner's answer is no JSON object" }, { "[]", NULL, "the runner's answer is no JSON object" },
	{ "{}", NULL, "the runner's answer has no choices" }, { IN(""), NULL, "the runner's answer has no choices" }, { "{\"choices\":null,\"usage\":" U3 "}", NULL, "the runner's answer has no choices" },
	{ "{\"error\":{\"message\":\"boom\"}}", NULL, "boom" }, { "{\"object\":\"error\",\"message\":\"boom\"}", NULL, "boom" },
	{ IN("{\"message\":{\"content\":\"a\"},\"finish_reason\":\"error\"}"), NULL, "the runner ended with the finish_reason error" },
};

static void test_fix(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(fixes); i++) {
		struct completion_opts o = { .model = SLICE("mine"), .created_s = 9 };
		AUTO_BUF out = BUF_MAX(1 << 20);
		struct chat_usage usage = { .is_known = true };
		struct chat_error ce = { .message = "" };
		struct err e;
		enum errc rc = completion_fix(slice_str(fixes[i].reply), &o, &out, &usage, &ce, &e);

		assert_int_equal(rc, fixes[i].error ? E_UPSTREAM : E_OK);
		assert_string_equal(ce.message, fixes[i].error ? fixes[i].error : "");
		if (rc) {
			assert_int_equal(ce.status, 502);
			assert_int_equal(out.n, 0);
			continue;
		}
		if (!like(buf_cstr(&out), fixes[i].want))
			fail_msg("%s\n got %s\nwant %s", fixes[i].reply, buf_cstr(&out), fixes[i].want);
		assert_int_equal(json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e), E_OK);
		assert_int_equal(usage.is_known, strstr(fixes[i].want, "usage") != NULL);
		if (usage.is_known)
			assert_true(usage.prompt_tokens == 1 && usage.completion_tokens == 2 && usage.total_tokens == 3);
	}
}

/* ---- joins ---- */

#define EV(choice) "{\"id\":\"r1\",\"created\":5,\"choices\":[" choice "]}"
#define D(delta) EV("{\"index\":0,\"delta\":{" delta "},\"finish_reason\":null}")
#define T(text) D("\"content\":\"" text "\"")
#define END EV("{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}")

struct join { const char *in[LINES]; const char *want, *error, *text; };
static const struct join joins[] = {
	{ { T("a"), T("b"), T("\\n\\ud83d"), T("\\ude00"), END, "[DONE]" }, OUT(OMSG("\"content\":\"ab\\n\\ud83d\\ude00\",\"refusal\":null", "stop")), NULL, "ab\n\xf0\x9f\x98\x80" },
	{ { END }, OUT(OMSG("\"content\":\"\",\"refusal\":null", "stop")), NULL, "" },
	{ { T("a"), T("b"), D("\"reasoning_content\":\"x\""), T("c"), T("d"), D("\"reasoning_content\":\"y\""), D("\"content\":null,\"odd\":\"1\""), D("\"content\":null,\"odd\":\"2\""), END },
	  OUT(OMSG("\"content\":\"abcd\",\"refusal\":null,\"reasoning_content\":\"xy\",\"odd\":\"2\"", "stop")), NULL, "abcd" },
	/* the field of the skeleton is not the last one seen */
	{ { T("a"), EV("{\"index\":1,\"delta\":{\"content\":\"x\"},\"logprobs\":{\"content\":[]},\"finish_reason\":null}"), T("b"), T("c"), EV("{\"index\":1,\"delta\":{},\"finish_reason\":\"length\"}"), END },
	  OUT(OMSG("\"content\":\"abc\",\"refusal\":null", "stop") ",{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"x\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"length\"}"), NULL, "abc" },
	{ { D("\"tool_calls\":[{\"index\":0,\"id\":\"k\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\"\"}}]"), D("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]"),
	    D("\"tool_calls\":[{\"function\":{\"name\":\"g\",\"arguments\":{}}}]"), END },
	  OUT(OMSG("\"content\":null,\"refusal\":null,\"tool_calls\":[" CALL("k", "f", "{\\\"a\\\":1}") "," CALL("call_*", "g", "{}") "]", "tool_calls")), NULL, "" },
	{ { EV("{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[1,2]}}"), EV("{\"index\":0,\"delta\":{\"content\":\"b\"},\"logprobs\":{\"content\":[3]},\"stop_reason\":null}"), END },
	  OUT("{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"ab\",\"refusal\":null},\"logprobs\":{\"content\":[1,2,3],\"refusal\":null},\"finish_reason\":\"stop\",\"stop_reason\":null}"), NULL, "ab" },
	/* the same bytes thrice are three tokens */
	{ { EV("{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[7]}}"), EV("{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[7]}}"), EV("{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[7]}}"), END },
	  OUT("{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"aaa\",\"refusal\":null},\"logprobs\":{\"content\":[7,7,7],\"refusal\":null},\"finish_reason\":\"stop\"}"), NULL, "aaa" },
	{ { "{\"id\":\"r1\",\"created\":5,\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"timings\":{\"n\":1}}", END, "{\"choices\":[],\"usage\":" U3 ",\"timings\":{\"n\":2}}", "[DONE]" },
	  "{\"id\":\"r1\",\"object\":\"chat.completion\",\"created\":5,\"model\":\"mine\",\"choices\":[" OMSG("\"content\":\"a\",\"refusal\":null", "stop") "],\"usage\":" U3 ",\"timings\":{\"n\":2}}", NULL, "a" },
	{ { END, D("\"tool_calls\":[{\"id\":\"k\",\"function\":{\"name\":\"f\"}}]"), "[DONE]" },
	  OUT(OMSG("\"content\":null,\"refusal\":null,\"tool_calls\":[" CALL("k", "f", "{}") "]", "stop")), NULL, "" },
	{ { T("a"), "[DONE]" }, NULL, "the runner's stream ended without a finish_reason", "a" },
	{ { T("a"), "{\"error\":\"boom\"}" }, NULL, "boom", "a" },
};

static enum errc run(const struct join *t, size_t max, struct buf *out, struct chat_usage *usage, struct chat_error *ce, bool checks_text)
{
	struct completion_opts o = { .model = SLICE("mine"), .created_s = 9 };
	struct completion *j;
	struct err e;
	enum errc rc = completion_new(&o, max, &j, &e);

	if (rc)
		return rc;
	assert_string_equal(completion_finish_reason(j), "");
	assert_int_equal(completion_text(j).n, 0);
	for (size_t i = 0; i < LINES && t->in[i] && !rc; i++) {
		struct sse_event ev = { .data = slice_str(t->in[i]), .has_data = true };

		rc = completion_event(j, &ev, ce, &e);
		if (checks_text)
			assert_true(slice_starts_with(slice_str(t->text), completion_text(j)) || strstr(t->in[i], "ud83d"));
	}
	if (checks_text)
		assert_true(slice_eq(completion_text(j), slice_str(t->text)));
	if (!rc)
		rc = completion_finish(j, out, usage, ce, &e);
	if (!rc && checks_text)
		assert_true(completion_is_done(j) && strstr(t->want, completion_finish_reason(j)) != NULL && completion_finish_reason(j)[0]);
	completion_free(j);
	return rc;
}

static void test_join(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(joins); i++) {
		AUTO_BUF out = BUF_MAX(1 << 20);
		struct chat_usage usage = { .is_known = false };
		struct chat_error ce = { .message = "" };
		struct err e;
		enum errc rc = run(&joins[i], 1 << 20, &out, &usage, &ce, true);

		assert_int_equal(rc, joins[i].error ? E_UPSTREAM : E_OK);
		assert_string_equal(ce.message, joins[i].error ? joins[i].error : "");
		if (rc)
			continue;
		if (!like(buf_cstr(&out), joins[i].want))
			fail_msg("row %zu\n got %s\nwant %s", i, buf_cstr(&out), joins[i].want);
		assert_int_equal(json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e), E_OK);
		assert_int_equal(usage.is_known, strstr(joins[i].want, "usage") != NULL);
	}
}

static void test_limits(void **state)
{
	/* the limit is on all text together, not on each */
	static const struct join two = { { T("0123456789"), EV("{\"index\":1,\"delta\":{\"content\":\"0123456789\"},\"finish_reason\":\"stop\"}"), END }, NULL, NULL, NULL };
	AUTO_BUF spare = BUF_MAX(1 << 20);
	struct chat_usage usage;
	struct chat_error ce;

	(void)state;
	assert_int_equal(run(&two, 19, &spare, &usage, &ce, false), E_TOO_LARGE);
	assert_int_equal(run(&two, 20, &spare, &usage, &ce, false), E_OK);
	for (size_t max = 0; max < 5; max++) {
		AUTO_BUF out = BUF_MAX(1 << 20);

		assert_int_equal(run(&joins[0], max, &out, &usage, &ce, false), E_TOO_LARGE);
	}
	for (size_t max = 0; max < strlen(joins[0].want); max += 3) {
		AUTO_BUF out = BUF_MAX(max);

		assert_int_equal(run(&joins[0], 1 << 20, &out, &usage, &ce, false), E_TOO_LARGE);
		assert_int_equal(out.n, 0);
	}
}

static void test_no_memory(void **state)
{
	struct completion_opts o = { .model = SLICE("mine"), .created_s = 9 };
	struct chat_usage usage;
	struct chat_error ce;
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(joins); i++) {
		for (uint64_t nth = 1; nth < 50; nth++) {
			AUTO_BUF out = BUF_MAX(1 << 20);

			mem_test_fail_at(nth, 0);
			enum errc rc = run(&joins[i], 1 << 20, &out, &usage, &ce, false);

			mem_test_fail_at(0, 0);
			assert_true(rc == E_NO_MEMORY || rc == (joins[i].error ? E_UPSTREAM : E_OK));
			if (rc == E_OK)
				assert_true(like(buf_cstr(&out), joins[i].want));
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(fixes); i++) {
		for (uint64_t nth = 1; nth < 40; nth++) {
			AUTO_BUF out = BUF_MAX(1 << 20);

			mem_test_fail_at(nth, 0);
			enum errc rc = completion_fix(slice_str(fixes[i].reply), &o, &out, &usage, &ce, &e);

			mem_test_fail_at(0, 0);
			assert_true(rc == E_NO_MEMORY || rc == (fixes[i].error ? E_UPSTREAM : E_OK));
		}
	}
	completion_free(NULL);
}

static int set_up(void **state)
{
	struct err e;

	(void)state;
	return (int)crypto_init(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fix), cmocka_unit_test(test_join), cmocka_unit_test(test_limits), cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
