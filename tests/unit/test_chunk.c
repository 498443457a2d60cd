/* The client's stream: every quirk of llm-execution.md 8.5.2 as a row, the fast path against the careful one, limits. */
#include "llm/chunk.h"

#include "base/clock.h"
#include "base/crypto.h"
#include "base/json.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define LINES 12

/* A runner's event: top members around one choice. A line that begins with '!' is an error: field, with '?' an event: error. */
#define EV(choice) "{\"id\":\"r1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"real\",\"choices\":[" choice "]}"
#define EVU(choices, usage) "{\"id\":\"r1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"real\",\"choices\":[" choices "],\"usage\":" usage "}"
#define C(delta) "{\"index\":0,\"delta\":{" delta "},\"finish_reason\":null}"
#define CF(delta, finish) "{\"index\":0,\"delta\":{" delta "},\"finish_reason\":" finish "}"
#define T(text) EV(C("\"content\":\"" text "\""))
#define END EV(CF("", "\"stop\""))
#define U3 "{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}"
#define CALLS(list) EV(C("\"tool_calls\":[" list "]"))

/* What goes out. */
#define HEAD "data: {\"id\":\"r1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"mine\""
#define O(choice) HEAD ",\"choices\":[" choice "]}\n\n"
#define OU(choice) HEAD ",\"choices\":[" choice "],\"usage\":null}\n\n"
#define ROLE O(C("\"role\":\"assistant\",\"content\":\"\""))
#define ROLEU OU(C("\"role\":\"assistant\",\"content\":\"\""))
#define OT(text) O(C("\"content\":\"" text "\""))
#define OF(finish) O(CF("", "\"" finish "\""))
#define DONE "data: [DONE]\n\n"
#define OCALL(i, id, name) O(C("\"tool_calls\":[{\"index\":" i ",\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"arguments\":\"\"}}]"))
#define OARGS(i, text) O(C("\"tool_calls\":[{\"index\":" i ",\"function\":{\"arguments\":\"" text "\"}}]"))

struct row {
	const char *name;
	bool wants_usage;
	const char *in[LINES];
	const char *want;       /* the whole output; where an id is made up: call_* */
	const char *error;      /* the runner's failure, NULL when it ends well */
};

static const struct row rows[] = {
	{ "plain", false, { EV(C("\"role\":\"assistant\",\"content\":\"\"")), T("a"), T("b"), END, "[DONE]" }, ROLE OT("a") OT("b") OF("stop") DONE, NULL },
	{ "no role", false, { T("a"), T("b"), END, "[DONE]" }, ROLE OT("a") OT("b") OF("stop") DONE, NULL },
	{ "role in every chunk", false, { EV(C("\"role\":\"assistant\",\"content\":\"a\"")), EV(C("\"role\":\"assistant\",\"content\":\"b\"")),
		EV(CF("\"role\":\"assistant\",\"content\":\"\"", "\"stop\"")), "[DONE]" }, ROLE OT("a") OT("b") OF("stop") DONE, NULL },
	{ "role alone, twice", false, { EV(C("\"role\":\"assistant\"")), EV(C("\"role\":\"assistant\"")), T("a"), END, "[DONE]" }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "role with null content", false, { EV(C("\"role\":\"assistant\",\"content\":null")), T("a"), END, "[DONE]" }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "null content", false, { T("a"), EV(C("\"content\":null")), EV(C("\"content\":null,\"tool_calls\":null,\"refusal\":null")), END, "[DONE]" }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "empty content in the middle stays", false, { T("a"), T(""), END, "[DONE]" }, ROLE OT("a") OT("") OF("stop") DONE, NULL },
	{ "text with the end", false, { T("a"), EV(CF("\"content\":\"b\"", "\"length\"")), "[DONE]" }, ROLE OT("a") OT("b") OF("length") DONE, NULL },
	{ "no text at all", false, { END, "[DONE]" }, ROLE OF("stop") DONE, NULL },
	{ "no [DONE]", false, { T("a"), END }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "after [DONE] nothing counts", false, { T("a"), END, "[DONE]", T("b"), "junk", "[DONE]" }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "the end twice", false, { T("a"), END, END, "[DONE]" }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "empty data and blanks", false, { "", " ", T("a"), " " END " ", " [DONE] " }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "escapes", false, { T("a"), T("\\n\\u00e9\\\"\\\\"), T("\xc3\xa9\\/"), T("\\ud83d\\ude00"), END, "[DONE]" },
	  ROLE OT("a") OT("\\n\\u00e9\\\"\\\\") OT("\xc3\xa9\\/") OT("\\ud83d\\ude00") OF("stop") DONE, NULL },
	{ "blanks in the runner's JSON", false, { "{\"id\": \"r1\", \"created\": 5, \"choices\": [{\"index\": 0, \"delta\": {\"content\": \"a\"}, \"logprobs\": null, \"finish_reason\": null}]}",
		"{\"id\": \"r1\", \"created\": 5, \"choices\": [{\"index\": 0, \"delta\": {\"content\": \"b\"}, \"logprobs\": null, \"finish_reason\": null}]}", END, "[DONE]" },
	  ROLE O("{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":null,\"finish_reason\":null}") O("{\"index\":0,\"delta\":{\"content\":\"b\"},\"logprobs\":null,\"finish_reason\":null}")
	  OF("stop") DONE, NULL },
	{ "line ends in the runner's JSON", false, { "{\"id\":\"r1\",\"created\":5,\n\"x\":[1,\n2],\"choices\":[" C("\"content\":\"a\"") "]}", "{\"id\":\"r1\",\"created\":5,\n\"x\":[1,\n2],\"choices\":[" C("\"content\":\"b\"") "]}", END, "[DONE]" },
	  ROLE HEAD ",\"x\":[1, 2],\"choices\":[" C("\"content\":\"a\"") "]}\n\n" HEAD ",\"x\":[1, 2],\"choices\":[" C("\"content\":\"b\"") "]}\n\n" OF("stop") DONE, NULL },
	{ "id and created change", false, { T("a"), "{\"id\":\"r2\",\"created\":6,\"choices\":[" C("\"content\":\"b\"") "]}", END, "[DONE]" }, ROLE OT("a") OT("b") OF("stop") DONE, NULL },
	{ "no index, message for delta", false, { "{\"id\":\"r1\",\"created\":5,\"choices\":[{\"message\":{\"content\":\"a\"}}]}", END, "[DONE]" }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "two choices", false, { EV("{\"index\":0,\"delta\":{\"content\":\"a\"}},{\"index\":1,\"delta\":{\"content\":\"b\"}}"), EV("{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}"), END, "[DONE]" },
	  ROLE OT("a") O("{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}") O("{\"index\":1,\"delta\":{\"content\":\"b\"},\"finish_reason\":null}")
	  O("{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}") OF("stop") DONE, NULL },
	/* members of the runner's own */
	{ "reasoning", false, { EV(C("\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"h\"")), EV(C("\"content\":null,\"reasoning_content\":\"m\"")), T("a"), END, "[DONE]" },
	  ROLE O(C("\"reasoning_content\":\"h\"")) O(C("\"reasoning_content\":\"m\"")) OT("a") OF("stop") DONE, NULL },
	{ "timings and fingerprint", false, { "{\"id\":\"r1\",\"created\":5,\"system_fingerprint\":\"f\",\"choices\":[" C("\"content\":\"a\"") "],\"timings\":{\"n\":1}}",
		"{\"id\":\"r1\",\"created\":5,\"system_fingerprint\":\"f\",\"choices\":[" CF("", "\"stop\"") "],\"timings\":{\"n\":2.50}}", "[DONE]" },
	  HEAD ",\"system_fingerprint\":\"f\",\"choices\":[" C("\"role\":\"assistant\",\"content\":\"\"") "]}\n\n"
	  HEAD ",\"system_fingerprint\":\"f\",\"timings\":{\"n\":1},\"choices\":[" C("\"content\":\"a\"") "]}\n\n"
	  HEAD ",\"system_fingerprint\":\"f\",\"timings\":{\"n\":2.50},\"choices\":[" CF("", "\"stop\"") "]}\n\n" DONE, NULL },
	{ "logprobs", false, { EV("{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[1]},\"finish_reason\":null}"),
		EV("{\"index\":0,\"delta\":{\"content\":\"b\"},\"logprobs\":{\"content\":[2]},\"stop_reason\":9,\"finish_reason\":\"stop\"}"), "[DONE]" },
	  ROLE O("{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[1]},\"finish_reason\":null}")
	  O("{\"index\":0,\"delta\":{\"content\":\"b\"},\"logprobs\":{\"content\":[2]},\"finish_reason\":null}") O("{\"index\":0,\"delta\":{},\"stop_reason\":9,\"finish_reason\":\"stop\"}") DONE, NULL },
	/* ends */
	{ "eos", false, { T("a"), EV(CF("", "\"eos\"")) }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "eos_token", false, { T("a"), EV(CF("", "\"eos_token\"")) }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "max_tokens", false, { T("a"), EV(CF("", "\"max_tokens\"")) }, ROLE OT("a") OF("length") DONE, NULL },
	{ "abort", false, { T("a"), EV(CF("", "\"abort\"")) }, ROLE OT("a") OF("length") DONE, NULL },
	{ "an object", false, { T("a"), EV(CF("", "{\"type\":\"length\",\"length\":9}")) }, ROLE OT("a") OF("length") DONE, NULL },
	{ "content_filter", false, { T("a"), EV(CF("", "\"content_filter\"")) }, ROLE OT("a") OF("content_filter") DONE, NULL },
	{ "stop with calls", false, { CALLS("{\"index\":0,\"id\":\"k\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}"), END },
	  ROLE OCALL("0", "k", "f") OARGS("0", "{}") OF("tool_calls") DONE, NULL },
	{ "error as an end", false, { T("a"), EV(CF("", "\"error\"")) }, ROLE OT("a"), "the runner ended with the finish_reason error" },
	/* usage */
	{ "usage not wanted", false, { T("a"), EVU(CF("", "\"stop\""), U3), EVU("", U3), "[DONE]" }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "usage on the last choice", true, { T("a"), EVU(CF("", "\"stop\""), U3), "[DONE]" },
	  ROLEU OU(C("\"content\":\"a\"")) OU(CF("", "\"stop\"")) HEAD ",\"choices\":[],\"usage\":" U3 "}\n\n" DONE, NULL },
	{ "usage by itself", true, { T("a"), T("b"), END, EVU("", "{\"prompt_tokens\":1, \"completion_tokens\":2,\"total_tokens\":3,\"prompt_tokens_details\":null}"), "[DONE]" },
	  ROLEU OU(C("\"content\":\"a\"")) OU(C("\"content\":\"b\"")) OU(CF("", "\"stop\""))
	  HEAD ",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3,\"prompt_tokens_details\":null}}\n\n" DONE, NULL },
	{ "usage in every chunk", true, { EVU(C("\"content\":\"a\""), "{\"prompt_tokens\":1,\"completion_tokens\":1}"), EVU(C("\"content\":\"b\""), "{\"prompt_tokens\":1,\"completion_tokens\":2}"), END },
	  ROLEU OU(C("\"content\":\"a\"")) OU(C("\"content\":\"b\"")) OU(CF("", "\"stop\"")) HEAD ",\"choices\":[],\"usage\":" U3 "}\n\n" DONE, NULL },
	{ "usage null", true, { EVU(C("\"content\":\"a\""), "null"), EVU(C("\"content\":\"b\""), "null"), END }, ROLEU OU(C("\"content\":\"a\"")) OU(C("\"content\":\"b\"")) OU(CF("", "\"stop\"")) DONE, NULL },
	{ "timings beside the usage", true, { END, "{\"id\":\"r1\",\"choices\":[],\"usage\":" U3 ",\"timings\":{ \"n\":1}}" },
	  ROLEU OU(CF("", "\"stop\"")) HEAD ",\"timings\":{\"n\":1},\"choices\":[],\"usage\":" U3 "}\n\n" DONE, NULL },
	{ "no choices yet", false, { EV(""), T("a"), END }, ROLE OT("a") OF("stop") DONE, NULL },
	/* tool calls */
	{ "calls as they should be", false, { CALLS("{\"index\":0,\"id\":\"k\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}"),
		CALLS("{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\"\"}}"), CALLS("{\"index\":0,\"function\":{\"arguments\":\":1}\"}}"), EV(CF("", "\"tool_calls\"")) },
	  ROLE OCALL("0", "k", "f") OARGS("0", "{\\\"a\\\"") OARGS("0", ":1}") OF("tool_calls") DONE, NULL },
	{ "whole calls, no index, no type, empty ids", false, { EV(CF("\"tool_calls\":[{\"id\":\"\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}},{\"function\":{\"name\":\"g\",\"arguments\":\"2\"}}]", "\"stop\"")) },
	  ROLE OCALL("0", "call_*", "f") OARGS("0", "1") OCALL("1", "call_*", "g") OARGS("1", "2") OF("tool_calls") DONE, NULL },
	{ "whole calls, all with index 0", false, { CALLS("{\"index\":0,\"id\":\"k\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}},{\"index\":0,\"id\":\"l\",\"function\":{\"name\":\"f\",\"arguments\":\"2\"}}"),
		CALLS("{\"index\":0,\"id\":\"m\",\"function\":{\"name\":\"g\",\"arguments\":\"3\"}}"), END },
	  ROLE OCALL("0", "k", "f") OARGS("0", "1") OCALL("1", "l", "f") OARGS("1", "2") OCALL("2", "m", "g") OARGS("2", "3") OF("tool_calls") DONE, NULL },
	{ "arguments as an object", false, { CALLS("{\"id\":\"k\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\": \"x y\"}}}"), END },
	  ROLE OCALL("0", "k", "f") OARGS("0", "{\\\"a\\\":\\\"x y\\\"}") OF("tool_calls") DONE, NULL },
	{ "no arguments", false, { CALLS("{\"id\":\"k\",\"function\":{\"name\":\"f\"}}"), CALLS("{\"id\":\"l\",\"function\":{\"name\":\"g\",\"arguments\":null}}"), END },
	  ROLE OCALL("0", "k", "f") OARGS("0", "{}") OCALL("1", "l", "g") OARGS("1", "{}") OF("tool_calls") DONE, NULL },
	{ "id and name in every piece", false, { CALLS("{\"index\":0,\"id\":\"k\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}}"),
		CALLS("{\"index\":0,\"id\":\"k\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"2\"}}"), END }, ROLE OCALL("0", "k", "f") OARGS("0", "1") OARGS("0", "2") OF("tool_calls") DONE, NULL },
	{ "a new id with every piece", false, { CALLS("{\"index\":0,\"id\":\"k\",\"function\":{\"name\":\"f\"}}"), CALLS("{\"index\":0,\"id\":\"l\",\"function\":{\"arguments\":\"1\"}}"), END },
	  ROLE OCALL("0", "k", "f") OARGS("0", "1") OF("tool_calls") DONE, NULL },
	{ "the name comes late", false, { CALLS("{\"index\":0,\"id\":\"k\"}"), CALLS("{\"index\":0,\"function\":{\"name\":\"f\"}}"), CALLS("{\"index\":0,\"function\":{\"arguments\":\"1\"}}"), END },
	  ROLE OCALL("0", "k", "f") OARGS("0", "1") OF("tool_calls") DONE, NULL },
	{ "indexes with gaps", false, { CALLS("{\"index\":3,\"id\":\"k\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}}"), CALLS("{\"index\":7,\"id\":\"l\",\"function\":{\"name\":\"g\",\"arguments\":\"2\"}}"), END },
	  ROLE OCALL("0", "k", "f") OARGS("0", "1") OCALL("1", "l", "g") OARGS("1", "2") OF("tool_calls") DONE, NULL },
	{ "announced together, filled later", false, { CALLS("{\"index\":0,\"id\":\"k\",\"function\":{\"name\":\"f\"}},{\"index\":1,\"id\":\"l\",\"function\":{\"name\":\"g\"}}"),
		CALLS("{\"index\":0,\"function\":{\"arguments\":\"1\"}}"), CALLS("{\"index\":1,\"function\":{\"arguments\":\"2\"}}"), END },
	  ROLE OCALL("0", "k", "f") OCALL("1", "l", "g") OARGS("0", "1") OARGS("1", "2") OF("tool_calls") DONE, NULL },
	{ "whole calls, all with index 0 and no id", false, { CALLS("{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"1\"}},{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"2\"}}"), END },
	  ROLE OCALL("0", "call_*", "f") OARGS("0", "1") OCALL("1", "call_*", "f") OARGS("1", "2") OF("tool_calls") DONE, NULL },
	{ "an index only later", false, { CALLS("{\"id\":\"k\",\"function\":{\"name\":\"f\"}},{\"id\":\"l\",\"function\":{\"name\":\"g\"}}"), CALLS("{\"index\":1,\"function\":{\"arguments\":\"2\"}}"), END },
	  ROLE OCALL("0", "k", "f") OCALL("1", "l", "g") OARGS("1", "2") OARGS("0", "{}") OF("tool_calls") DONE, NULL },
	{ "a call after the end", false, { END, CALLS("{\"id\":\"k\",\"function\":{\"name\":\"f\"}}") }, ROLE OF("stop") OCALL("0", "k", "f") OARGS("0", "{}") DONE, NULL },
	{ "text, then a call", false, { T("a"), EV(CF("\"content\":\"b\",\"tool_calls\":[{\"id\":\"k\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}}]", "\"tool_calls\"")) },
	  ROLE OT("a") OT("b") OCALL("0", "k", "f") OARGS("0", "1") OF("tool_calls") DONE, NULL },
	{ "no calls in the list", false, { EV(C("\"content\":\"a\",\"tool_calls\":[]")), END }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "a custom call", false, { CALLS("{\"index\":0,\"id\":\"k\",\"type\":\"custom\",\"custom\":{\"name\":\"f\",\"input\":\"x\"}}"), CALLS("{\"index\":0,\"custom\":{\"input\":\"y\"}}"), EV(CF("", "\"tool_calls\"")) },
	  ROLE O(C("\"tool_calls\":[{\"index\":0,\"id\":\"k\",\"type\":\"custom\",\"custom\":{\"name\":\"f\",\"input\":\"x\"}}]")) O(C("\"tool_calls\":[{\"index\":0,\"custom\":{\"input\":\"y\"}}]")) OF("tool_calls") DONE, NULL },
	/* errors */
	{ "error object", false, { T("a"), "{\"error\":{\"message\":\"boom\",\"code\":500}}", "[DONE]" }, ROLE OT("a"), "boom" },
	{ "error text", false, { T("a"), "{\"error\":\"boom\"}" }, ROLE OT("a"), "boom" },
	{ "error field", false, { T("a"), "!{\"code\":500,\"message\":\"boom\",\"type\":\"server_error\"}", "[DONE]" }, ROLE OT("a"), "boom" },
	{ "error field, words", false, { "!boom" }, "", "the runner reported an error in its stream" },
	{ "error event", false, { T("a"), "?{\"message\":\"boom\"}" }, ROLE OT("a"), "boom" },
	{ "object error", false, { "{\"object\":\"error\",\"message\":\"boom\",\"code\":400}" }, "", "boom" },
	{ "error null is none", false, { "{\"id\":\"r1\",\"created\":5,\"error\":null,\"choices\":[" C("\"content\":\"a\"") "]}", END }, ROLE OT("a") OF("stop") DONE, NULL },
	{ "a secret", false, { "{\"error\":{\"message\":\"api_key=canary-1234\"}}" }, "", "api_key=[redacted]" },
	{ "no JSON", false, { T("a"), "{\"choices\":[" }, ROLE OT("a"), "the runner sent an event that is no JSON object" },
	{ "no object", false, { "[1]" }, "", "the runner sent an event that is no JSON object" },
	{ "no chunk", false, { "{\"hello\":1}" }, "", "the runner sent an event that is no chunk" },
	{ "wrong index", false, { EV("{\"index\":99,\"delta\":{}}") }, "", "the runner sent a choice with a wrong index" },
	{ "a choice that is none", false, { EV("7") }, "", "the runner sent a choice that is no object" },
	{ "[DONE] without an end", false, { T("a"), "[DONE]" }, ROLE OT("a"), "the runner's stream ended without a finish_reason" },
	{ "cut", false, { T("a") }, ROLE OT("a"), "the runner's stream ended without a finish_reason" },
	{ "one of two choices cut", false, { EV("{\"index\":1,\"delta\":{\"content\":\"b\"}}"), END }, O("{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}")
	  O("{\"index\":1,\"delta\":{\"content\":\"b\"},\"finish_reason\":null}") ROLE OF("stop"), "the runner's stream ended without a finish_reason" },
	{ "nothing", false, { NULL }, "", "the runner's stream ended without a finish_reason" },
	{ "nothing but [DONE]", false, { "[DONE]" }, "", "the runner's stream ended without a finish_reason" },
	{ "not UTF-8", false, { T("a"), T("\xff") }, ROLE OT("a"), "the runner sent an event that is no JSON object" },
};

static struct sse_event event_of(const char *line)
{
	struct sse_event ev = { .has_data = true };

	if (line[0] == '!')
		ev = (struct sse_event){ .error = slice_str(line + 1) };
	else if (line[0] == '?')
		ev = (struct sse_event){ .event = SLICE("error"), .data = slice_str(line + 1), .has_data = true };
	else
		ev.data = slice_str(line);
	return ev;
}

static enum errc run(const struct row *row, bool is_careful, struct buf *out, struct chat_error *ce, uint64_t *ret_fast)
{
	struct chunk_opts o = { .model = SLICE("mine"), .created_s = 5, .wants_usage = row->wants_usage };
	struct chunk *c;
	struct err e;
	enum errc rc = chunk_new(&o, &c, &e);

	if (rc)
		return rc;
	if (is_careful)
		chunk_be_careful(c);
	for (size_t i = 0; i < LINES && row->in[i] && !rc; i++) {
		struct sse_event ev = event_of(row->in[i]);

		rc = chunk_event(c, &ev, out, ce, &e);
	}
	if (!rc)
		rc = chunk_finish(c, out, ce, &e);
	if (!rc)
		assert_true(chunk_is_done(c));
	*ret_fast = chunk_fast_count(c);
	chunk_free(c);
	return rc;
}

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

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows) * 2; i++) {
		const struct row *row = &rows[i / 2];
		AUTO_BUF out = BUF_MAX(1 << 20);
		struct chat_error ce = { .message = "" };
		uint64_t fast;
		enum errc rc = run(row, i % 2, &out, &ce, &fast);

		assert_non_null(buf_cstr(&out));
		if (rc != (row->error ? E_UPSTREAM : E_OK))
			fail_msg("%s: %s %s", row->name, err_symbol(rc), ce.message);
		if (!like(buf_cstr(&out), row->want))
			fail_msg("%s\n got %s\nwant %s", row->name, buf_cstr(&out), row->want);
		if (!row->error)
			continue;
		assert_string_equal(ce.message, row->error);
		assert_true(ce.status >= 400 && ce.type[0]);
	}
}

static void test_error_status(void **state)
{
	static const struct { const char *in; int status; const char *type, *code; } cases[] = {
		{ "!{\"code\":400,\"message\":\"the request exceeds the available context size\",\"type\":\"invalid_request_error\"}", 400, "invalid_request_error", "context_length_exceeded" },
		{ "!{\"code\":500,\"message\":\"x\",\"type\":\"server_error\"}", 502, "server_error", "upstream_error" },
		{ "{\"error\":{\"message\":\"x\",\"code\":503}}", 503, "server_error", "upstream_error" },
		{ "{\"error\":{\"message\":\"x\",\"code\":\"odd\",\"type\":\"T\"}}", 502, "server_error", "upstream_error" },
		{ "junk", 502, "server_error", "upstream_error" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct row row = { "status", false, { cases[i].in }, "", NULL };
		AUTO_BUF out = BUF_MAX(1 << 20);
		struct chat_error ce;
		uint64_t fast;

		assert_int_equal(run(&row, false, &out, &ce, &fast), E_UPSTREAM);
		assert_int_equal(ce.status, cases[i].status);
		assert_string_equal(ce.type, cases[i].type);
		assert_string_equal(ce.code, cases[i].code);
	}
}

/* Which texts take the fast path, and that it says what the careful one says. */
static void test_fast(void **state)
{
	static const struct { const char *in; bool is_fast; } cases[] = {
		{ T("b"), true }, { T(""), true }, { T(" \xe2\x82\xac\xf0\x9f\x98\x80 "), true }, { T("\\\\"), true }, { T("\\\"}]}"), true }, { T("\\n\\t\\/\\b\\f\\r"), true },
		{ T("\\u00e9"), false }, { T("\\ud83d\\ude00"), false }, { EV(C("\"content\":null")), false }, { EV(C("\"content\":\"a\",\"x\":1")), false },
		{ EV(C("\"reasoning_content\":\"a\"")), false }, { EV("{\"index\":1,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}"), false }, { END, false },
		{ T("\",\"content\":\""), false }, { T("\x01"), false }, { T("\xff"), false }, { T("\\"), false }, { T("\\x"), false }, { T("\xc3"), false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct row row = { "fast", false, { T("a"), cases[i].in, T("c"), END, "[DONE]" }, "", NULL };
		AUTO_BUF fast = BUF_MAX(1 << 20), slow = BUF_MAX(1 << 20);
		struct chat_error ce, ce2;
		uint64_t n, n2;
		enum errc rc = run(&row, false, &fast, &ce, &n);

		assert_int_equal(rc, run(&row, true, &slow, &ce2, &n2));
		assert_int_equal(n2, 0);
		if (cases[i].is_fast ? n != 2 : n > (rc ? 0 : 1)) /* the event itself, and the c behind it */
			fail_msg("%s: %d fast", cases[i].in, (int)n);
		if (!slice_eq(buf_slice(&fast), buf_slice(&slow)))
			fail_msg("%s\nfast %s\nslow %s", cases[i].in, buf_cstr(&fast), buf_cstr(&slow));
	}
}

static void test_made_identity(void **state)
{
	struct chunk_opts o = { .model = SLICE("a \"b\""), .created_s = 77 };
	struct sse_event ev = event_of("{\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}");
	AUTO_BUF out = BUF_MAX(1 << 16);
	struct chat_error ce;
	struct chunk *c;
	struct err e;

	(void)state;
	assert_int_equal(chunk_new(&o, &c, &e), E_OK);
	assert_int_equal(chunk_event(c, &ev, &out, &ce, &e), E_OK);
	assert_true(slice_starts_with(buf_slice(&out), SLICE("data: {\"id\":\"chatcmpl-")));
	assert_true(slice_find(buf_slice(&out), SLICE("\"created\":77,\"model\":\"a \\\"b\\\"\"")) > 0);
	assert_true(chunk_has_output(c));
	assert_false(chunk_is_done(c));
	assert_false(chunk_usage(c)->is_known);
	chunk_free(c);
	chunk_free(NULL);
	/* the caller's id wins over the runner's */
	o.id = SLICE("chatcmpl-ours");
	ev = event_of(T("x"));
	buf_clear(&out);
	assert_int_equal(chunk_new(&o, &c, &e), E_OK);
	assert_false(chunk_has_output(c));
	assert_int_equal(chunk_event(c, &ev, &out, &ce, &e), E_OK);
	assert_true(slice_starts_with(buf_slice(&out), SLICE("data: {\"id\":\"chatcmpl-ours\"")));
	chunk_free(c);
}

/* A plain reply becomes a stream. */
static void test_from_reply(void **state)
{
	static const struct { const char *reply; bool wants_usage; const char *want, *error; } cases[] = {
		{ "{\n \"id\": \"r1\", \"object\": \"chat.completion\", \"created\": 5, \"model\": \"real\",\n \"choices\": [{\"index\": 0,\n\"message\": {\"role\": \"assistant\", \"content\": \"a\", \"refusal\": null},"
		  "\"finish_reason\": \"length\"}],\n \"usage\": " U3 "}", true,
		  ROLEU OU(C("\"content\":\"a\"")) OU(CF("", "\"length\"")) HEAD ",\"choices\":[],\"usage\":" U3 "}\n\n" DONE, NULL },
		{ "{\"id\":\"r1\",\"created\":5,\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[{\"id\":\"\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]}}]}", false,
		  ROLE OCALL("0", "call_*", "f") OARGS("0", "{\\\"a\\\":1}") OF("tool_calls") DONE, NULL },
		{ "{\"id\":\"r1\",\"created\":5,\"choices\":[{\"message\":{\"content\":\"\"}}]}", false, ROLE OF("stop") DONE, NULL },
		{ "{\"error\":{\"message\":\"boom\"}}", false, "", "boom" },
		{ "{\"choices\":[]}", false, "", "the runner's answer has no choices" },
		{ "{}", false, "", "the runner's answer has no choices" },
		{ "<html>", false, "", "the runner's answer is no JSON object" },
		{ "", false, "", "the runner's answer is no JSON object" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct chunk_opts o = { .model = SLICE("mine"), .created_s = 5, .wants_usage = cases[i].wants_usage };
		AUTO_BUF out = BUF_MAX(1 << 20);
		struct chat_error ce = { .message = "" };
		struct chunk *c;
		struct err e;

		assert_int_equal(chunk_new(&o, &c, &e), E_OK);
		assert_int_equal(chunk_from_reply(c, slice_str(cases[i].reply), &out, &ce, &e), cases[i].error ? E_UPSTREAM : E_OK);
		assert_non_null(buf_cstr(&out));
		if (!like(buf_cstr(&out), cases[i].want))
			fail_msg("%s\n got %s\nwant %s", cases[i].reply, buf_cstr(&out), cases[i].want);
		assert_string_equal(ce.message, cases[i].error ? cases[i].error : "");
		chunk_free(c);
	}
}

/* Out of room, out of memory: an error, and no half event. */
static void test_full(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (size_t max = 0; !rows[i].error && max + 40 < strlen(rows[i].want); max += 7) {
			AUTO_BUF out = BUF_MAX(max);
			struct chat_error ce;
			uint64_t fast;

			assert_int_equal(run(&rows[i], false, &out, &ce, &fast), E_TOO_LARGE);
			assert_true(out.n == 0 || slice_ends_with(buf_slice(&out), SLICE("\n\n")));
		}
	}
}

static void test_no_memory(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (uint64_t nth = 1; nth < 40; nth++) {
			AUTO_BUF out = BUF_MAX(1 << 20);
			struct chat_error ce;
			uint64_t fast;

			mem_test_fail_at(nth, 0);
			enum errc rc = run(&rows[i], false, &out, &ce, &fast);

			mem_test_fail_at(0, 0);
			if (rc == E_OK)
				assert_true(like(buf_cstr(&out), rows[i].want));
			assert_true(rc == E_OK || rc == E_UPSTREAM || rc == E_NO_MEMORY);
		}
	}
}

static double least(double a, double b) { return a < b ? a : b; }

static double event_us(struct chunk *c, const char *const *lines, size_t n, struct buf *out)
{
	double best = 1e9;

	for (int round = 0; round < 300; round++) {
		int64_t start = clock_mono_us();

		for (int k = 0; k < 100; k++) {
			struct sse_event ev = event_of(lines[(size_t)k % n]);
			struct chat_error ce;
			struct err e;

			buf_clear(out);
			assert_int_equal(chunk_event(c, &ev, out, &ce, &e), E_OK);
		}
		best = least(best, (double)(clock_mono_us() - start) / 100);
	}
	return best;
}

static void test_speed_and_steady_memory(void **state)
{
#define LONG(text) "{\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"" text "\"}}],\"created\":1795424829,\"id\":\"chatcmpl-VZfc3bGtj8rmubUTMVkMyKh0NKPbSmI1\"," \
	"\"model\":\"tiny\",\"system_fingerprint\":\"b4748-c392e509\",\"object\":\"chat.completion.chunk\",\"padding\":\"0123456789012345678901234\"}"
	static const char *const lines[] = { LONG(" lie"), LONG(" bod"), LONG("\xe2\x82\xac") };
	struct chunk_opts o = { .model = SLICE("mine"), .wants_usage = true };
	AUTO_BUF out = BUF_MAX(1 << 16);
	struct chunk *c;
	struct err e;
	double fast, slow;

	(void)state;
	assert_int_equal(chunk_new(&o, &c, &e), E_OK);
	(void)event_us(c, lines, 3, &out);
	mem_test_fail_at(0, 0);
	fast = event_us(c, lines, 3, &out);
	assert_int_equal(mem_test_count(), 0);
	assert_true(chunk_fast_count(c) > 59000);
	chunk_be_careful(c);
	mem_test_fail_at(0, 0);
	slow = event_us(c, lines, 3, &out);
	assert_int_equal(mem_test_count(), 0);
	print_message("%zu byte event: fast %.3f us, careful %.3f us\n", strlen(lines[0]), fast, slow);
	chunk_free(c);
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
		cmocka_unit_test(test_rows), cmocka_unit_test(test_error_status), cmocka_unit_test(test_fast), cmocka_unit_test(test_made_identity),
		cmocka_unit_test(test_from_reply), cmocka_unit_test(test_full), cmocka_unit_test(test_no_memory), cmocka_unit_test(test_speed_and_steady_memory),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
