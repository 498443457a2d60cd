/* chat_parse, chat_build, chat_error: every rule of llm-execution.md 8.3 and 8.5 as a row. */
#include "llm/chat.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define MSG "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define REQ(more) "{\"model\":\"m\"," MSG more "}"
#define MESSAGES(list) "{\"model\":\"m\",\"messages\":[" list "]}"
#define MESSAGE(text) MESSAGES("{\"role\":\"system\",\"content\":\"s\"}," text)
#define TOOL(f) REQ(",\"tools\":[{\"type\":\"function\",\"function\":" f "}]")
#define FORMAT(f) REQ(",\"response_format\":" f)
#define NAME64 "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij-_09"

/* ---- parse: what is refused, and what the refusal names ---- */

struct bad { const char *body; enum errc code; const char *param; };
static const struct bad bads[] = {
	{ "", E_BAD_JSON, "" }, { "{", E_BAD_JSON, "" }, { "{\"model\":\"m\",}", E_BAD_JSON, "" }, { "{\"model\":\"\xff\"}", E_BAD_JSON, "" },
	{ REQ("") " x", E_BAD_JSON, "" },
	{ "[]", E_INVALID_VALUE, "" }, { "\"x\"", E_INVALID_VALUE, "" }, { "null", E_INVALID_VALUE, "" },
	{ "{" MSG "}", E_MISSING_PARAMETER, "model" }, { "{\"model\":null," MSG "}", E_MISSING_PARAMETER, "model" },
	{ "{\"model\":7," MSG "}", E_INVALID_VALUE, "model" }, { "{\"model\":\"\"," MSG "}", E_INVALID_VALUE, "model" },
	{ "{\"model\":\"a\\u0000b\"," MSG "}", E_INVALID_VALUE, "model" },
	{ "{\"model\":\"m\"}", E_MISSING_PARAMETER, "messages" }, { "{\"model\":\"m\",\"messages\":null}", E_MISSING_PARAMETER, "messages" },
	{ "{\"model\":\"m\",\"messages\":\"hi\"}", E_INVALID_VALUE, "messages" }, { "{\"model\":\"m\",\"messages\":[]}", E_INVALID_VALUE, "messages" },
	/* messages */
	{ MESSAGES("7"), E_INVALID_VALUE, "messages[0]" },
	{ MESSAGE("null"), E_INVALID_VALUE, "messages[1]" },
	{ MESSAGE("{\"content\":\"x\"}"), E_MISSING_PARAMETER, "messages[1].role" },
	{ MESSAGE("{\"role\":null,\"content\":\"x\"}"), E_INVALID_VALUE, "messages[1].role" },
	{ MESSAGE("{\"role\":\"boss\",\"content\":\"x\"}"), E_INVALID_VALUE, "messages[1].role" },
	{ MESSAGE("{\"role\":\"user\"}"), E_MISSING_PARAMETER, "messages[1].content" },
	{ MESSAGE("{\"role\":\"user\",\"content\":null}"), E_INVALID_VALUE, "messages[1].content" },
	{ MESSAGE("{\"role\":\"user\",\"content\":7}"), E_INVALID_VALUE, "messages[1].content" },
	{ MESSAGE("{\"role\":\"assistant\",\"content\":null}"), E_INVALID_VALUE, "messages[1].content" },
	{ MESSAGE("{\"role\":\"user\",\"content\":\"x\",\"name\":7}"), E_INVALID_VALUE, "messages[1].name" },
	{ MESSAGE("{\"role\":\"tool\",\"content\":\"x\",\"tool_call_id\":7}"), E_INVALID_VALUE, "messages[1].tool_call_id" },
	{ MESSAGE("{\"role\":\"user\",\"content\":[\"x\"]}"), E_INVALID_VALUE, "messages[1].content[0]" },
	{ MESSAGE("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{}]}"), E_MISSING_PARAMETER, "messages[1].content[1].type" },
	{ MESSAGE("{\"role\":\"user\",\"content\":[{\"type\":7}]}"), E_INVALID_VALUE, "messages[1].content[0].type" },
	{ MESSAGE("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"), E_MISSING_PARAMETER, "messages[1].content[0].text" },
	{ MESSAGE("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":\"u\"}]}"), E_INVALID_VALUE, "messages[1].content[0].image_url" },
	{ MESSAGE("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}"), E_MISSING_PARAMETER, "messages[1].content[0].image_url.url" },
	{ MESSAGE("{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}"), E_MISSING_PARAMETER, "messages[1].content[0].input_audio" },
	{ MESSAGE("{\"role\":\"assistant\",\"tool_calls\":{}}"), E_INVALID_VALUE, "messages[1].tool_calls" },
	{ MESSAGE("{\"role\":\"assistant\",\"tool_calls\":[7]}"), E_INVALID_VALUE, "messages[1].tool_calls[0]" },
	{ MESSAGE("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\"}]}"), E_MISSING_PARAMETER, "messages[1].tool_calls[0].function" },
	{ MESSAGE("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":{}}]}"), E_MISSING_PARAMETER, "messages[1].tool_calls[0].function.name" },
	{ MESSAGE("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":{}}}]}"), E_INVALID_VALUE, "messages[1].tool_calls[0].function.arguments" },
	/* plain members */
	{ REQ(",\"stream\":1"), E_INVALID_VALUE, "stream" }, { REQ(",\"stream\":\"true\""), E_INVALID_VALUE, "stream" },
	{ REQ(",\"stream_options\":{}"), E_INVALID_VALUE, "stream_options" },
	{ REQ(",\"stream\":false,\"stream_options\":{\"include_usage\":true}"), E_INVALID_VALUE, "stream_options" },
	{ REQ(",\"stream\":true,\"stream_options\":7"), E_INVALID_VALUE, "stream_options" },
	{ REQ(",\"stream\":true,\"stream_options\":{\"include_usage\":1}"), E_INVALID_VALUE, "stream_options.include_usage" },
	{ REQ(",\"max_tokens\":0"), E_INVALID_VALUE, "max_tokens" }, { REQ(",\"max_tokens\":-1"), E_INVALID_VALUE, "max_tokens" },
	{ REQ(",\"max_tokens\":1.5"), E_INVALID_VALUE, "max_tokens" }, { REQ(",\"max_tokens\":\"5\""), E_INVALID_VALUE, "max_tokens" },
	{ REQ(",\"max_completion_tokens\":0"), E_INVALID_VALUE, "max_completion_tokens" },
	{ REQ(",\"max_completion_tokens\":true"), E_INVALID_VALUE, "max_completion_tokens" },
	{ REQ(",\"temperature\":2.01"), E_INVALID_VALUE, "temperature" }, { REQ(",\"temperature\":-0.1"), E_INVALID_VALUE, "temperature" },
	{ REQ(",\"temperature\":\"1\""), E_INVALID_VALUE, "temperature" }, { REQ(",\"top_p\":1.5"), E_INVALID_VALUE, "top_p" },
	{ REQ(",\"presence_penalty\":3"), E_INVALID_VALUE, "presence_penalty" }, { REQ(",\"frequency_penalty\":-2.5"), E_INVALID_VALUE, "frequency_penalty" },
	{ REQ(",\"seed\":1.5"), E_INVALID_VALUE, "seed" }, { REQ(",\"seed\":\"1\""), E_INVALID_VALUE, "seed" },
	{ REQ(",\"logit_bias\":[]"), E_INVALID_VALUE, "logit_bias" }, { REQ(",\"logit_bias\":{\"5\":\"x\"}"), E_INVALID_VALUE, "logit_bias" },
	{ REQ(",\"stop\":7"), E_INVALID_VALUE, "stop" }, { REQ(",\"stop\":[\"a\",7]"), E_INVALID_VALUE, "stop[1]" },
	{ REQ(",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]"), E_INVALID_VALUE, "stop" },
	{ REQ(",\"n\":0"), E_INVALID_VALUE, "n" }, { REQ(",\"n\":17"), E_INVALID_VALUE, "n" }, { REQ(",\"n\":\"2\""), E_INVALID_VALUE, "n" },
	{ REQ(",\"logprobs\":1"), E_INVALID_VALUE, "logprobs" }, { REQ(",\"top_logprobs\":3"), E_INVALID_VALUE, "top_logprobs" },
	{ REQ(",\"logprobs\":false,\"top_logprobs\":3"), E_INVALID_VALUE, "top_logprobs" },
	{ REQ(",\"logprobs\":true,\"top_logprobs\":21"), E_INVALID_VALUE, "top_logprobs" },
	{ REQ(",\"parallel_tool_calls\":\"no\""), E_INVALID_VALUE, "parallel_tool_calls" },
	{ REQ(",\"reasoning_effort\":7"), E_INVALID_VALUE, "reasoning_effort" },
	{ REQ(",\"modalities\":[\"text\",\"audio\"]"), E_UNSUPPORTED_VALUE, "modalities" }, { REQ(",\"modalities\":\"text\""), E_INVALID_VALUE, "modalities" },
	{ REQ(",\"audio\":{\"voice\":\"x\"}"), E_UNSUPPORTED_VALUE, "audio" },
	{ REQ(",\"functions\":[]"), E_UNSUPPORTED_VALUE, "functions" }, { REQ(",\"function_call\":\"auto\""), E_UNSUPPORTED_VALUE, "function_call" },
	/* response_format */
	{ FORMAT("\"json\""), E_INVALID_VALUE, "response_format" }, { FORMAT("{}"), E_MISSING_PARAMETER, "response_format.type" },
	{ FORMAT("{\"type\":\"xml\"}"), E_INVALID_VALUE, "response_format.type" },
	{ FORMAT("{\"type\":\"json_schema\"}"), E_MISSING_PARAMETER, "response_format.json_schema" },
	{ FORMAT("{\"type\":\"json_schema\",\"json_schema\":{}}"), E_MISSING_PARAMETER, "response_format.json_schema.name" },
	{ FORMAT("{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a b\"}}"), E_INVALID_VALUE, "response_format.json_schema.name" },
	{ FORMAT("{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\",\"schema\":7}}"), E_INVALID_VALUE, "response_format.json_schema.schema" },
	{ FORMAT("{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\",\"strict\":7}}"), E_INVALID_VALUE, "response_format.json_schema.strict" },
	/* tools */
	{ REQ(",\"tools\":{}"), E_INVALID_VALUE, "tools" }, { REQ(",\"tools\":[7]"), E_INVALID_VALUE, "tools[0]" },
	{ REQ(",\"tools\":[{}]"), E_MISSING_PARAMETER, "tools[0].type" }, { REQ(",\"tools\":[{\"type\":\"web\"}]"), E_INVALID_VALUE, "tools[0].type" },
	{ REQ(",\"tools\":[{\"type\":\"function\"}]"), E_MISSING_PARAMETER, "tools[0].function" },
	{ TOOL("{}"), E_MISSING_PARAMETER, "tools[0].function.name" }, { TOOL("{\"name\":\"\"}"), E_INVALID_VALUE, "tools[0].function.name" },
	{ TOOL("{\"name\":\"a.b\"}"), E_INVALID_VALUE, "tools[0].function.name" }, { TOOL("{\"name\":\"" NAME64 "x\"}"), E_INVALID_VALUE, "tools[0].function.name" },
	{ TOOL("{\"name\":\"f\",\"description\":7}"), E_INVALID_VALUE, "tools[0].function.description" },
	{ TOOL("{\"name\":\"f\",\"parameters\":[]}"), E_INVALID_VALUE, "tools[0].function.parameters" },
	{ TOOL("{\"name\":\"f\",\"strict\":\"yes\"}"), E_INVALID_VALUE, "tools[0].function.strict" },
	{ REQ(",\"tool_choice\":\"maybe\""), E_INVALID_VALUE, "tool_choice" }, { REQ(",\"tool_choice\":7"), E_INVALID_VALUE, "tool_choice" },
	{ REQ(",\"tool_choice\":{}"), E_MISSING_PARAMETER, "tool_choice.type" }, { REQ(",\"tool_choice\":{\"type\":\"x\"}"), E_INVALID_VALUE, "tool_choice.type" },
	{ REQ(",\"tool_choice\":{\"type\":\"function\"}"), E_MISSING_PARAMETER, "tool_choice.function" },
	{ REQ(",\"tool_choice\":{\"type\":\"function\",\"function\":{}}"), E_MISSING_PARAMETER, "tool_choice.function.name" },
	{ REQ(",\"tool_choice\":{\"type\":\"allowed_tools\"}"), E_MISSING_PARAMETER, "tool_choice.allowed_tools" },
	{ REQ(",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\"}}"), E_MISSING_PARAMETER, "tool_choice.allowed_tools.tools" },
	/* the last of two counts, also when its name is spelled with an escape */
	{ REQ(",\"n\":1,\"n\":0"), E_INVALID_VALUE, "n" }, { REQ(",\"max_tokens\":5,\"max_tok\\u0065ns\":0"), E_INVALID_VALUE, "max_tokens" },
	{ MESSAGE("{\"role\":\"user\",\"role\":\"x\",\"content\":\"x\"}"), E_INVALID_VALUE, "messages[1].role" },
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bads); i++) {
		struct chat_req r;
		struct err e = { .code = E_OK };
		enum errc rc = chat_parse(slice_str(bads[i].body), &r, &e);

		if (rc != bads[i].code || strcmp(e.param, bads[i].param) != 0)
			fail_msg("row %zu %s: code %s param '%s' what '%s'", i, bads[i].body, err_symbol(rc), e.param, e.what);
		assert_int_equal(e.code, rc);
	}
}

/* ---- parse: what is taken, and what it means ---- */

struct good { const char *body; bool is_stream, wants_usage, has_tools, has_custom, has_developer; int64_t max_tokens, n; const char *last_user; };
static const struct good goods[] = {
	{ REQ(""), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ "\xef\xbb\xbf " REQ("") "\n", 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"stream\":true"), 1, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_obfuscation\":false}"), 1, 1, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"stream\":true,\"stream_options\":null"), 1, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"stream\":null,\"n\":null,\"tools\":null,\"temperature\":null,\"functions\":null,\"audio\":null,\"stop\":null"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"max_tokens\":7"), 0, 0, 0, 0, 0, 7, 1, "\"hi\"" },
	{ REQ(",\"max_tokens\":16.0"), 0, 0, 0, 0, 0, 16, 1, "\"hi\"" },
	{ REQ(",\"max_completion_tokens\":5,\"max_tokens\":7"), 0, 0, 0, 0, 0, 5, 1, "\"hi\"" },
	{ REQ(",\"max_completion_tokens\":null,\"max_tokens\":7"), 0, 0, 0, 0, 0, 7, 1, "\"hi\"" },
	{ REQ(",\"n_predict\":9"), 0, 0, 0, 0, 0, 9, 1, "\"hi\"" }, { REQ(",\"n_predict\":-1"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"n\":16,\"n\":3"), 0, 0, 0, 0, 0, -1, 3, "\"hi\"" },
	{ REQ(",\"max_tokens\":0,\"max_tok\\u0065ns\":6"), 0, 0, 0, 0, 0, 6, 1, "\"hi\"" },
	{ REQ(",\"tools\":[]"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ TOOL("{\"name\":\"" NAME64 "\",\"description\":\"d\",\"parameters\":{},\"strict\":true}"), 0, 0, 1, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"x\"}}]"), 0, 0, 1, 1, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"tool_choice\":\"required\",\"stop\":[\"a\",\"b\",\"c\",\"d\"],\"seed\":1152921504606846977,\"logit_bias\":{\"5\":-100}"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}},\"stop\":\"x\",\"logprobs\":true,\"top_logprobs\":20"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[]}},\"modalities\":[\"text\"]"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ REQ(",\"temperature\":2,\"top_p\":0,\"presence_penalty\":-2,\"frequency_penalty\":2.0,\"reasoning_effort\":\"high\",\"anything\":[{}]"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ FORMAT("{\"type\":\"json_object\",\"schema\":{}}"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ FORMAT("{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\",\"description\":\"d\",\"schema\":{},\"strict\":null}}"), 0, 0, 0, 0, 0, -1, 1, "\"hi\"" },
	{ MESSAGES("{\"role\":\"developer\",\"content\":\"d\"}"), 0, 0, 0, 0, 1, -1, 1, "" },
	{ MESSAGES("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"b\"}]},{\"role\":\"assistant\",\"content\":\"c\"}"),
	  0, 0, 0, 0, 0, -1, 1, "[{\"type\":\"text\",\"text\":\"b\"}]" },
	{ MESSAGES("{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
		   "{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"r\"},{\"role\":\"function\",\"name\":\"f\",\"content\":null},"
		   "{\"role\":\"assistant\",\"refusal\":\"no\"},{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\",\"detail\":\"low\"}},"
		   "{\"type\":\"video\",\"video\":7},{\"type\":\"input_audio\",\"input_audio\":{}},{\"type\":\"file\",\"file\":{}},{\"type\":\"refusal\",\"refusal\":\"x\"}]}"),
	  0, 0, 0, 0, 0, -1, 1, "[{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\",\"detail\":\"low\"}},{\"type\":\"video\",\"video\":7},"
	  "{\"type\":\"input_audio\",\"input_audio\":{}},{\"type\":\"file\",\"file\":{}},{\"type\":\"refusal\",\"refusal\":\"x\"}]" },
};

static void test_taken(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(goods); i++) {
		const struct good *g = &goods[i];
		struct chat_req r;
		struct err e = { .what = "" };

		if (chat_parse(slice_str(g->body), &r, &e))
			fail_msg("row %zu %s: %s", i, g->body, e.what);
		assert_string_equal(r.model, "m");
		if (r.is_stream != g->is_stream || r.wants_usage != g->wants_usage || r.has_tools != g->has_tools || r.has_custom_tools != g->has_custom ||
		    r.has_developer != g->has_developer || r.max_tokens != g->max_tokens || r.n != g->n || !slice_eq(r.last_user, slice_str(g->last_user)))
			fail_msg("row %zu %s", i, g->body);
		chat_req_done(&r);
	}
}

static void test_model_is_decoded(void **state)
{
	struct chat_req r;
	struct err e;

	(void)state;
	assert_int_equal(chat_parse(SLICE("{\"m\\u006fdel\":\"a\\/b \\u00e9\"," MSG "}"), &r, &e), E_OK);
	assert_string_equal(r.model, "a/b \xc3\xa9");
	chat_req_done(&r);
}

/* ---- build ---- */

struct built {
	const char *body;
	enum upstream_kind kind;
	enum agent_format format;
	const char *extra_body;
	int64_t agent_max, owner_max;
	bool as_stream, hides_model, no_tools;
	enum errc code;
	const char *want;      /* the whole output, or the param of the error */
};

#define TAIL ",\"stream\":false}"
#define M "\"model\":\"real\"," MSG
#define SCHEMA "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\",\"schema\":{\"type\" : \"object\"}}}"
#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
#define CUSTOM "\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"f\"}}]"
#define SAYS "{\"role\":\"system\",\"content\":\"Constraint on the form of your answer: reply with exactly one JSON object and nothing else. " \
	"No code fences, no reasoning, no words before or after it."

static const struct built builts[] = {
	{ .body = REQ(""), .want = "{" M TAIL },
	{ .body = REQ(""), .as_stream = true, .want = "{" M ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}" },
	/* the client's wish for a stream and the runner's are two things */
	{ .body = REQ(",\"stream\":true,\"stream_options\":{\"include_usage\":false}"), .want = "{" M TAIL },
	{ .body = REQ(""), .hides_model = true, .want = "{" MSG TAIL },
	/* raw: big numbers, spelling, order, blanks inside */
	{ .body = "{ \"seed\" : 1152921504606846977 , \"temperature\":0.70,\"x\":{ \"b\":1e2,\"a\":[ ] },\"top_k\":40, \"model\":\"m\"," MSG "}",
	  .want = "{\"x\":{ \"b\":1e2,\"a\":[ ] },\"top_k\":40,\"temperature\":0.70,\"seed\":1152921504606846977," M TAIL },
	{ .body = MESSAGES("{\"z\":1,\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:x\"}}],\"name\":\"n\"}"),
	  .want = "{\"model\":\"real\",\"messages\":[{\"z\":1,\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:x\"}}],\"name\":\"n\"}]" TAIL },
	/* dropped */
	{ .body = REQ(",\"user\":\"u\",\"metadata\":{},\"store\":true,\"service_tier\":\"auto\",\"safety_identifier\":\"s\",\"prompt_cache_key\":\"k\","
		      "\"prompt_cache_retention\":\"24h\",\"verbosity\":\"low\",\"prediction\":{},\"web_search_options\":{},\"moderation\":1"), .want = "{" M TAIL },
	{ .body = REQ(",\"temperature\":null,\"tools\":null"), .want = "{" M TAIL },
	{ .body = REQ(",\"reasoning_effort\":\"low\",\"modalities\":[\"text\"],\"grammar\":null"), .want = "{\"grammar\":null,\"reasoning_effort\":\"low\",\"modalities\":[\"text\"]," M TAIL },
	/* duplicates */
	{ .body = REQ(",\"seed\":2.0,\"max_tokens\":4.0"), .want = "{\"seed\":2.0," M ",\"max_tokens\":4,\"stream\":false}" },
	{ .body = REQ(",\"seed\":1,\"seed\":2,\"top_p\":1,\"top_p\":null"), .want = "{\"seed\":2," M TAIL },
	/* limits */
	{ .body = REQ(",\"max_tokens\":7"), .want = "{" M ",\"max_tokens\":7" TAIL },
	{ .body = REQ(",\"max_completion_tokens\":5,\"max_tokens\":7"), .want = "{" M ",\"max_tokens\":5" TAIL },
	{ .body = REQ(",\"max_tokens\":7"), .agent_max = 3, .want = "{" M ",\"max_tokens\":7" TAIL },
	{ .body = REQ(""), .agent_max = 3, .want = "{" M ",\"max_tokens\":3" TAIL },
	{ .body = REQ(""), .agent_max = 30, .owner_max = 4, .want = "{" M ",\"max_tokens\":4" TAIL },
	{ .body = REQ(""), .owner_max = 4, .want = "{" M ",\"max_tokens\":4" TAIL },
	{ .body = REQ(",\"max_tokens\":7"), .owner_max = 4, .want = "{" M ",\"max_tokens\":4" TAIL },
	{ .body = REQ(",\"max_tokens\":2"), .owner_max = 4, .want = "{" M ",\"max_tokens\":2" TAIL },
	{ .body = REQ(",\"n_predict\":100"), .owner_max = 4, .want = "{" M ",\"max_tokens\":4" TAIL },
	/* n */
	{ .body = REQ(",\"n\":1"), .kind = UPSTREAM_LLAMA_CPP, .want = "{" M TAIL },
	{ .body = REQ(",\"n\":2"), .kind = UPSTREAM_OPENAI, .want = "{" M ",\"n\":2" TAIL },
	{ .body = REQ(",\"n\":2"), .kind = UPSTREAM_VLLM, .want = "{" M ",\"n\":2" TAIL },
	{ .body = REQ(",\"n\":2"), .kind = UPSTREAM_SGLANG, .want = "{" M ",\"n\":2" TAIL },
	{ .body = REQ(",\"n\":2"), .kind = UPSTREAM_LLAMA_CPP, .code = E_UNSUPPORTED_VALUE, .want = "n" },
	{ .body = REQ(",\"n\":2"), .kind = UPSTREAM_LLAMA_CPP_PYTHON, .code = E_UNSUPPORTED_VALUE, .want = "n" },
	{ .body = REQ(",\"n\":2"), .kind = UPSTREAM_OLLAMA, .code = E_UNSUPPORTED_VALUE, .want = "n" },
	/* tools */
	{ .body = REQ("," TOOLS ",\"tool_choice\":\"auto\",\"parallel_tool_calls\":false"), .kind = UPSTREAM_OLLAMA,
	  .want = "{" TOOLS ",\"tool_choice\":\"auto\",\"parallel_tool_calls\":false," M TAIL },
	{ .body = REQ("," TOOLS), .no_tools = true, .code = E_UNSUPPORTED_VALUE, .want = "tools" },
	{ .body = REQ("," CUSTOM), .kind = UPSTREAM_OPENAI, .want = "{" CUSTOM "," M TAIL },
	{ .body = REQ("," CUSTOM), .kind = UPSTREAM_VLLM, .code = E_UNSUPPORTED_VALUE, .want = "tools" },
	/* developer */
	{ .body = MESSAGES("{\"role\":\"developer\",\"content\":\"d\"}"), .kind = UPSTREAM_OPENAI, .want = "{\"model\":\"real\",\"messages\":[{\"role\":\"developer\",\"content\":\"d\"}]" TAIL },
	{ .body = MESSAGES("{ \"content\":\"d\", \"role\" : \"developer\" ,\"seed\":1e9}, {\"role\":\"user\",\"content\":\"developer\"},{\"role\":\"developer\",\"role\":\"user\",\"content\":\"x\"}"),
	  .kind = UPSTREAM_VLLM, .want = "{\"model\":\"real\",\"messages\":[{ \"content\":\"d\", \"role\" : \"system\" ,\"seed\":1e9},{\"role\":\"user\",\"content\":\"developer\"},"
	  "{\"role\":\"developer\",\"role\":\"user\",\"content\":\"x\"}]" TAIL },
	{ .body = MESSAGES("{\"r\\u006fle\":\"develop\\u0065r\",\"content\":\"d\"}"), .kind = UPSTREAM_DEMO,
	  .want = "{\"model\":\"real\",\"messages\":[{\"r\\u006fle\":\"system\",\"content\":\"d\"}]" TAIL },
	/* response_format by strategy */
	{ .body = FORMAT(SCHEMA), .format = FORMAT_OPENAI, .want = "{\"model\":\"real\",\"response_format\":" SCHEMA "," MSG TAIL },
	{ .body = FORMAT(SCHEMA), .format = FORMAT_JSON_SCHEMA, .want = "{\"model\":\"real\",\"response_format\":" SCHEMA "," MSG TAIL },
	{ .body = FORMAT(SCHEMA), .format = FORMAT_JSON_OBJECT, .want = "{\"model\":\"real\",\"response_format\":{\"type\":\"json_object\"}," MSG TAIL },
	{ .body = FORMAT("{\"type\":\"text\"}"), .format = FORMAT_JSON_OBJECT, .want = "{\"model\":\"real\",\"response_format\":{\"type\":\"text\"}," MSG TAIL },
	{ .body = FORMAT("{\"type\":\"json_object\",\"schema\":{}}"), .format = FORMAT_JSON_OBJECT, .want = "{\"model\":\"real\",\"response_format\":{\"type\":\"json_object\",\"schema\":{}}," MSG TAIL },
	{ .body = FORMAT(SCHEMA), .format = FORMAT_NONE, .want = "{" M TAIL },
	{ .body = FORMAT("{\"type\":\"text\"}"), .format = FORMAT_GBNF, .want = "{" M TAIL },
	{ .body = FORMAT("{\"type\":\"json_object\"},\"grammar\":\"g\""), .format = FORMAT_GBNF, .want = "{\"grammar\":\"g\"," M TAIL },
	{ .body = FORMAT("{\"type\":\"text\"}"), .format = FORMAT_PROMPT_ONLY, .want = "{" M TAIL },
	{ .body = FORMAT("{\"type\":\"json_object\"}"), .format = FORMAT_PROMPT_ONLY,
	  .want = "{\"model\":\"real\",\"messages\":[" SAYS "\"},{\"role\":\"user\",\"content\":\"hi\"}]" TAIL },
	{ .body = FORMAT(SCHEMA), .format = FORMAT_PROMPT_ONLY, .want = "{\"model\":\"real\",\"messages\":[" SAYS
	  " The object must be valid under this JSON Schema: {\\\"type\\\":\\\"object\\\"}\"},{\"role\":\"user\",\"content\":\"hi\"}]" TAIL },
	/* extra body */
	{ .body = REQ(",\"top_k\":1,\"seed\":5"), .extra_body = "{\"top_k\":2,\"min_p\":0.10,\"seed\":6,\"Temperature\":0,\"model\":\"x\",\"stream_options\":{},\"MAX_TOKENS\":9}",
	  .want = "{\"top_k\":1,\"seed\":5," M ",\"stream\":false,\"min_p\":0.10}" },
	{ .body = REQ(",\"top_p\":null"), .extra_body = "{\"top_p\":0.5}", .want = "{" M ",\"stream\":false,\"top_p\":0.5}" },
	{ .body = REQ(""), .extra_body = "{\"a\":1,", .want = "{" M TAIL },
};

static enum errc build(const struct built *t, struct buf *out, struct err *e)
{
	struct upstream up = { .kind = t->kind };
	char model[] = "real";
	AUTO_FREE char *extra = t->extra_body ? mem_strdup(t->extra_body) : NULL;
	struct agent a = { .model = model, .format = t->format, .extra_body = extra, .supports_tools = !t->no_tools,
			   .sends_model = !t->hides_model, .max_output_tokens = t->agent_max, .up = &up };
	struct chat_build b = { .agent = &a, .as_stream = t->as_stream, .owner_max_tokens = t->owner_max };
	struct chat_req r;
	enum errc rc;

	assert_int_equal(chat_parse(slice_str(t->body), &r, e), E_OK);
	rc = chat_build(&r, &b, out, e);
	chat_req_done(&r);
	return rc;
}

static void test_built(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(builts); i++) {
		AUTO_BUF out = BUF_MAX(1 << 20);
		struct err e = { .what = "" };
		enum errc rc = build(&builts[i], &out, &e);

		if (rc != builts[i].code)
			fail_msg("row %zu %s: %s %s", i, builts[i].body, err_symbol(rc), e.what);
		if (rc) {
			assert_string_equal(e.param, builts[i].want);
			continue;
		}
		if (!slice_eq(buf_slice(&out), slice_str(builts[i].want)))
			fail_msg("row %zu\n got %s\nwant %s", i, buf_cstr(&out), builts[i].want);
		assert_int_equal(json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e), E_OK);
	}
}

static void test_grammar(void **state)
{
	struct built t = { .body = FORMAT(SCHEMA), .format = FORMAT_GBNF };
	AUTO_BUF out = BUF_MAX(1 << 20);
	struct slice grammar = { 0 };
	struct err e;

	(void)state;
	assert_int_equal(build(&t, &out, &e), E_OK);
	assert_int_equal(json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e), E_OK);
	assert_true(json_find_member(buf_slice(&out), "grammar", &grammar));
	assert_true(slice_find(grammar, SLICE("root ::= object\\n")) == 1);
	assert_false(json_find_member(buf_slice(&out), "response_format", &grammar));
}

static void test_full_buffer(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(builts); i++) {
		for (size_t max = 0; builts[i].code == E_OK && max < strlen(builts[i].want); max++) {
			AUTO_BUF out = BUF_MAX(max);
			struct err e;

			assert_int_equal(build(&builts[i], &out, &e), E_TOO_LARGE);
		}
	}
}

/* ---- errors ---- */

struct said { int status; const char *body; int want_status; const char *message, *type, *code, *param; };
static const struct said saids[] = {
	/* llama.cpp: a numeric code, no param */
	{ 400, "{\"error\":{\"code\":400,\"message\":\"bad thing\",\"type\":\"invalid_request_error\"}}", 400, "bad thing", "invalid_request_error", "", "" },
	{ 500, "{\"error\":{\"code\":500,\"message\":\"Cannot use tools with stream\",\"type\":\"server_error\"}}", 502,
	  "the model runner answered 500: Cannot use tools with stream", "server_error", "upstream_error", "" },
	{ 503, "{\"error\":{\"code\":503,\"message\":\"Loading model\",\"type\":\"unavailable_error\"}}", 503, "Loading model", "server_error", "upstream_error", "" },
	{ 401, "{\"error\":{\"message\":\"Invalid key\"}}", 502, "the model runner answered 401: Invalid key", "server_error", "upstream_error", "" },
	{ 403, "{}", 502, "the model runner answered 403 without a message", "server_error", "upstream_error", "" },
	{ 404, "{\"error\":\"model 'x' not found\"}", 502, "the model runner answered 404: model 'x' not found", "server_error", "upstream_error", "" },
	/* vLLM, old and new */
	{ 400, "{\"object\":\"error\",\"message\":\"m\",\"type\":\"BadRequestError\",\"param\":\"p\",\"code\":400}", 400, "m", "BadRequestError", "", "p" },
	{ 400, "{\"error\":{\"message\":\"m\",\"type\":\"T\",\"param\":null,\"code\":\"c\"}}", 400, "m", "T", "c", "" },
	{ 400, "{\"detail\":\"d\"}", 400, "d", "invalid_request_error", "", "" },
	{ 422, "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"m\"}]}", 422, "[{\"loc\":[\"body\"],\"msg\":\"m\"}]", "invalid_request_error", "", "" },
	{ 400, "{\"error\":\"text\"}", 400, "text", "invalid_request_error", "", "" },
	{ 400, "\"just text\"", 400, "just text", "invalid_request_error", "", "" },
	{ 429, "{\"error\":{\"message\":\"slow down\"}}", 429, "slow down", "rate_limit_error", "", "" },
	{ 400, "{\"error\":{\"code\":400,\"message\":\"the request exceeds the available context size\",\"type\":\"exceed_context_size_error\"}}", 400,
	  "the request exceeds the available context size", "invalid_request_error", "context_length_exceeded", "" },
	{ 400, "{\"error\":{\"message\":\"This model's maximum context length is 4096 tokens\"}}", 400, "This model's maximum context length is 4096 tokens",
	  "invalid_request_error", "context_length_exceeded", "" },
	{ 400, "plain \xff words", 400, "plain \xef\xbf\xbd words", "invalid_request_error", "", "" },
	{ 400, "", 400, "the model runner answered 400 without a message", "invalid_request_error", "", "" },
	{ 502, " <html><body>no</body></html>", 502, "the model runner sent a page of HTML", "server_error", "upstream_error", "" },
	{ 302, "", 502, "the model runner answered 302 without a message", "server_error", "upstream_error", "" },
	{ 500, "{\"error\":{\"message\":\"Authorization: Bearer sk-canary-1234\"}}", 502, "the model runner answered 500: Authorization: Bearer [redacted]", "server_error", "upstream_error", "" },
};

static void test_runner_errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(saids); i++) {
		const struct said *s = &saids[i];
		struct chat_error ce;

		memset(&ce, 0xee, sizeof ce);
		chat_error_from_runner(s->status, slice_str(s->body), &ce);
		if (ce.status != s->want_status || strcmp(ce.message, s->message) || strcmp(ce.type, s->type) || strcmp(ce.code, s->code) || strcmp(ce.param, s->param))
			fail_msg("row %zu: %d '%s' '%s' '%s' '%s'", i, ce.status, ce.message, ce.type, ce.code, ce.param);
	}
}

static void test_long_errors(void **state)
{
	AUTO_BUF body = BUF_MAX(1 << 20);
	struct chat_error ce;
	struct err e;

	(void)state;
	for (size_t i = 0; i < 3000; i++)
		assert_int_equal(buf_add_str(&body, "\xe2\x82\xac", &e), E_OK);
	chat_error_from_runner(400, buf_slice(&body), &ce);
	assert_true(strlen(ce.message) <= 2000 && strlen(ce.message) > 1990);
	assert_true(slice_is_utf8(slice_str(ce.message)));
	chat_error_from_runner(500, buf_slice(&body), &ce);
	assert_true(strlen(ce.message) <= 2000 && slice_is_utf8(slice_str(ce.message)));
}

static void test_secrets_in_errors(void **state)
{
	struct chat_error ce;

	(void)state;
	log_secret_add(SLICE("canary-of-the-owner"));
	chat_error_from_runner(400, SLICE("{\"error\":{\"message\":\"no canary-of-the-owner here\",\"type\":\"canary-of-the-owner\"}}"), &ce);
	assert_null(strstr(ce.message, "canary"));
	assert_null(strstr(ce.type, "canary"));
	log_secrets_clear();
}

static void test_error_json(void **state)
{
	AUTO_BUF out = BUF_MAX(8192);
	struct chat_error ce;
	struct err e;

	(void)state;
	(void)err_set_param(&e, E_MODEL_NOT_FOUND, "model", "no \"x\"");
	chat_error_from_err(&e, &ce);
	assert_int_equal(ce.status, 404);
	assert_int_equal(chat_error_json(&ce, &out, &e), E_OK);
	assert_string_equal(buf_cstr(&out), "{\"error\":{\"message\":\"no \\\"x\\\"\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":\"model_not_found\"}}");
	buf_clear(&out);
	(void)err_set(&e, E_BAD_JSON, "line 1");
	chat_error_from_err(&e, &ce);
	assert_int_equal(chat_error_json(&ce, &out, &e), E_OK);
	assert_string_equal(buf_cstr(&out), "{\"error\":{\"message\":\"line 1\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}");
}

/* ---- memory ---- */

static void test_no_memory(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(builts); i++) {
		for (uint64_t nth = 1; nth < 60; nth++) {
			struct upstream up = { .kind = builts[i].kind };
			char model[] = "real";
			struct agent a = { .model = model, .format = builts[i].format, .supports_tools = true, .sends_model = true, .up = &up };
			struct chat_build b = { .agent = &a };
			AUTO_BUF out = BUF_MAX(1 << 20);
			struct chat_req r;
			struct err e;

			mem_test_fail_at(nth, 0);
			if (!chat_parse(slice_str(builts[i].body), &r, &e)) {
				if (!chat_build(&r, &b, &out, &e))
					assert_int_equal(json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e), E_OK);
				chat_req_done(&r);
			}
			mem_test_fail_at(0, 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused), cmocka_unit_test(test_taken), cmocka_unit_test(test_model_is_decoded), cmocka_unit_test(test_built),
		cmocka_unit_test(test_grammar), cmocka_unit_test(test_full_buffer), cmocka_unit_test(test_runner_errors), cmocka_unit_test(test_long_errors),
		cmocka_unit_test(test_secrets_in_errors), cmocka_unit_test(test_error_json), cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
