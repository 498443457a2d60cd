/* llm/job*.c: invocation jobs read, checked, turned into requests; results and frames. */
#include "llm/job.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct invocation parse(const char *text)
{
	struct invocation j;
	struct err e = { 0 };

	if (invocation_parse(slice_str(text), &j, &e))
		fail_msg("%s: %s", text, e.what);
	return j;
}

/* ---- reading ---- */

static void test_fields(void **state)
{
	struct invocation j = parse("{\"job_id\":\" j \",\"request_id\":\"r\",\"node_id\":\"n\",\"agent_slug\":\" a \",\"source_agent_slug\":\"  \","
				    "\"model\":\"m\",\"openai_request\":{\"model\":\" q \",\"stream\":true}}");

	(void)state;
	assert_true(slice_eq(j.job_id, SLICE(" j ")));
	assert_true(slice_eq(j.request_id, SLICE("r")));
	assert_true(slice_eq(j.node_id, SLICE("n")));
	assert_true(slice_eq(j.request_model, SLICE(" q ")));
	assert_true(slice_eq(j.agent_slug, SLICE("a")));
	assert_int_equal(j.source_agent_slug.n, 0);
	assert_true(slice_eq(j.model, SLICE("m")));
	assert_true(j.is_stream);
	assert_false(j.is_ollama);
	invocation_done(&j);
	j = parse("\xef\xbb\xbf{\"job_id\":1,\"openai_request\":{\"stream\":\"true\",\"model\":null},\"provider\":\"ollama\"}");
	assert_int_equal(j.job_id.n + j.request_id.n + j.node_id.n + j.request_model.n, 0);
	assert_false(j.is_stream);
	assert_true(j.is_ollama);
	invocation_done(&j);
	j = parse("{\"provider\":\"Ollama\",\"openai_request\":[]}");
	assert_false(j.is_ollama);
	invocation_done(&j);
}

static void test_not_an_object(void **state)
{
	static const struct {
		const char *text;
		enum errc want;
		const char *what;
	} rows[] = {
		{ "null", E_BAD_REQUEST, "Cannot read properties of null (reading 'node_id')" },
		{ "[]", E_BAD_REQUEST, "job node_id does not match invocation token" },
		{ "\"x\"", E_BAD_REQUEST, "job node_id does not match invocation token" },
		{ "3", E_BAD_REQUEST, "job node_id does not match invocation token" },
		{ "{\"a\":}", E_BAD_JSON, NULL },
		{ "", E_BAD_JSON, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct invocation j;
		struct err e = { 0 };

		if (invocation_parse(slice_str(rows[i].text), &j, &e) != rows[i].want || (rows[i].what && strcmp(rows[i].what, e.what)))
			fail_msg("%s: %s %s", rows[i].text, err_symbol(e.code), e.what);
	}
}

static void test_policy(void **state)
{
	static const struct {
		const char *text;
		bool wants_tools, allows_tools, docdex_required;
		int64_t runtime, tokens, limit;        /* limit: with a node's limit of 1000 ms */
	} rows[] = {
		{ "{}", false, true, false, -1, -1, 1000 },
		{ "{\"policy\":{}}", false, true, false, -1, -1, 1000 },
		{ "{\"policy\":{\"allow_tools\":false}}", false, false, false, -1, -1, 1000 },
		{ "{\"policy\":{\"allow_tools\":null}}", false, true, false, -1, -1, 1000 },
		{ "{\"policy\":{\"allow_tools\":0}}", false, true, false, -1, -1, 1000 },
		{ "{\"workspace\":{\"root\":\"/w\"}}", true, true, false, -1, -1, 1000 },
		{ "{\"workspace\":{\"root\":\"  \"}}", false, true, false, -1, -1, 1000 },
		{ "{\"workspace\":{\"read_only\":true}}", false, true, false, -1, -1, 1000 },
		{ "{\"docdex\":{}}", true, true, false, -1, -1, 1000 },
		{ "{\"docdex\":null}", false, true, false, -1, -1, 1000 },
		{ "{\"docdex\":{\"required\":true}}", true, true, true, -1, -1, 1000 },
		{ "{\"docdex\":{\"required\":\"true\"}}", true, true, false, -1, -1, 1000 },
		{ "{\"policy\":{\"allowed_tools\":[]}}", false, true, false, -1, -1, 1000 },
		{ "{\"policy\":{\"allowed_tools\":[\"read_file\"]}}", true, true, false, -1, -1, 1000 },
		{ "{\"policy\":{\"allowed_tools\":[\"read_file\"],\"allow_tools\":false}}", false, false, false, -1, -1, 1000 },
		{ "{\"policy\":{\"max_runtime_ms\":250.9}}", false, true, false, 250, -1, 250 },
		{ "{\"policy\":{\"max_runtime_ms\":0}}", false, true, false, 0, -1, 1000 },
		{ "{\"policy\":{\"max_runtime_ms\":-5}}", false, true, false, -1, -1, 1000 },
		{ "{\"policy\":{\"max_runtime_ms\":\"5\"}}", false, true, false, -1, -1, 1000 },
		{ "{\"policy\":{\"max_runtime_ms\":1e300}}", false, true, false, INT64_C(9000000000000000), -1, 1000 },
		{ "{\"policy\":{\"max_output_tokens\":5},\"openai_request\":{\"max_tokens\":7}}", false, true, false, -1, 5, 1000 },
		{ "{\"openai_request\":{\"max_tokens\":7}}", false, true, false, -1, 7, 1000 },
		{ "{\"openai_request\":{\"max_completion_tokens\":8,\"max_tokens\":7}}", false, true, false, -1, 8, 1000 },
		{ "{\"policy\":{\"max_output_tokens\":0},\"openai_request\":{\"max_tokens\":null}}", false, true, false, -1, -1, 1000 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct invocation j = parse(rows[i].text);

		if (j.wants_tools != rows[i].wants_tools || j.allows_tools != rows[i].allows_tools ||
		    j.docdex_required != rows[i].docdex_required || j.max_runtime_ms != rows[i].runtime ||
		    j.max_output_tokens != rows[i].tokens || invocation_limit_ms(&j, 1000) != rows[i].limit)
			fail_msg("%s", rows[i].text);
		invocation_done(&j);
	}
}

/* ---- checks ---- */

#define EMPTY "mcoda invocation prompt is empty"
#define MESSAGES(m) "{\"node_id\":\"n\",\"openai_request\":{\"messages\":" m "}}"

static void test_check(void **state)
{
	static const struct {
		const char *text, *code, *message;     /* code NULL: passes */
		bool is_wrong_node;
	} rows[] = {
		{ "{\"node_id\":\"other\"}", "validation_failed", "job node_id does not match this node", true },
		{ "{\"node_id\":\" n\",\"provider\":\"ollama\"}", "validation_failed", "job node_id does not match this node", true },
		{ "{\"node_id\":\"n\",\"provider\":\"ollama\"}", NULL, NULL, false },
		{ "{\"node_id\":\"n\"}", "validation_failed", EMPTY, false },
		{ MESSAGES("[]"), "validation_failed", EMPTY, false },
		{ MESSAGES("{}"), "validation_failed", EMPTY, false },
		{ MESSAGES("[{\"role\":\"user\",\"content\":\" \\n\"}]"), "validation_failed", EMPTY, false },
		{ MESSAGES("[{\"content\":[{\"type\":\"text\",\"text\":\"\"}]}]"), "validation_failed", EMPTY, false },
		{ MESSAGES("[{\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]"), NULL, NULL, false },
		{ MESSAGES("[{\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:x\"}}]}]"), NULL, NULL, false },
		{ MESSAGES("[1,null,{\"content\":\"hi\"}]"), NULL, NULL, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct invocation j = parse(rows[i].text);
		struct job_error je = { 0 };
		bool is_wrong = !rows[i].is_wrong_node, ok = invocation_check(&j, SLICE("n"), &je, &is_wrong);

		if (ok != !rows[i].code || is_wrong != rows[i].is_wrong_node)
			fail_msg("%s", rows[i].text);
		if (!ok) {
			assert_string_equal(je.code, rows[i].code);
			assert_string_equal(je.message, rows[i].message);
			assert_true(je.is_pre_start);
		}
		invocation_done(&j);
	}
}

#define CONTEXT "Required Docdex runtime context must include base_url and repo_id."
#define SOURCE  "Required Docdex runtime context must use credential_source attached_mswarm_api_key."
#define NO_KEY  "Required Docdex runtime context did not receive an attached mswarm API key."

static void test_check_agent(void **state)
{
	static const struct {
		const char *text;
		bool has_key;
		const char *code, *message;
	} rows[] = {
		{ "{}", false, NULL, NULL },
		{ "{\"docdex\":{\"required\":true}}", true, "docdex_context_missing", CONTEXT },
		{ "{\"docdex\":{\"required\":true,\"repo_id\":\"r\",\"base_url\":\" \"}}", true, "docdex_context_missing", CONTEXT },
		{ "{\"docdex\":{\"required\":true,\"repo_id\":\"r\"}}", true, "docdex_context_missing", SOURCE },
		{ "{\"docdex\":{\"required\":true,\"repo_id\":\"r\",\"base_url\":null,\"credential_source\":\"attached_mswarm_api_key\"}}", false,
		  "docdex_api_key_missing", NO_KEY },
		{ "{\"docdex\":{\"required\":true,\"repo_id\":\"r\",\"credential_source\":\"attached_mswarm_api_key\"}}", true, "policy_denied", NULL },
		{ "{\"docdex\":{}}", false, "policy_denied", NULL },
		{ "{\"workspace\":{\"root\":\"/w\"},\"policy\":{\"allow_tools\":false}}", false, NULL, NULL },
		{ "{\"policy\":{\"allowed_tools\":[\"x\"]}}", false, "policy_denied", NULL },
	};
	struct agent a = { .slug = (char *)"a" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct invocation j = parse(rows[i].text);
		struct job_error je = { 0 };

		if (invocation_check_agent(&j, &a, rows[i].has_key, &je) != !rows[i].code)
			fail_msg("%s", rows[i].text);
		if (rows[i].code) {
			assert_string_equal(je.code, rows[i].code);
			assert_true(je.is_pre_start);
		}
		if (rows[i].message)
			assert_string_equal(je.message, rows[i].message);
		invocation_done(&j);
	}
}

static void test_error_codes(void **state)
{
	static const struct {
		enum errc code;
		const char *want;
		bool is_pre_start;
	} rows[] = {
		{ E_MODEL_NOT_FOUND, "selected_agent_unavailable", true }, { E_UNHEALTHY, "selected_agent_unhealthy", true },
		{ E_INVALID_VALUE, "validation_failed", true }, { E_UNSUPPORTED_VALUE, "validation_failed", true },
		{ E_FORBIDDEN, "policy_denied", true }, { E_TIMEOUT, "timeout", false }, { E_UPSTREAM, "upstream_error", false },
		{ E_NO_MEMORY, "upstream_error", false },
	};
	struct chat_error ce = { .status = 400, .message = "field x is required by policy, timeout" };
	struct job_error je;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e;

		err_set(&e, rows[i].code, "the text");
		job_error_from_err(&e, &je);
		assert_string_equal(je.code, rows[i].want);
		assert_string_equal(je.message, "the text");
		assert_int_equal(je.is_pre_start, rows[i].is_pre_start);
	}
	job_error_from_chat(&ce, &je);         /* words of a runner decide nothing (weakness 26) */
	assert_string_equal(je.code, "upstream_error");
	ce.status = 504;
	job_error_from_chat(&ce, &je);
	assert_string_equal(je.code, "timeout");
}

/* ---- requests ---- */

static void expect_text(const char *what, enum errc rc, const struct buf *out, const struct err *e, const char *want)
{
	if (rc)
		fail_msg("%s: %s", what, e->what);
	if (!slice_eq(buf_slice(out), slice_str(want)))
		fail_msg("%s\n got %.*s\nwant %s", what, (int)out->n, out->p, want);
}

#define JOB(request) "{\"node_id\":\"n\",\"model\":\"local\",\"openai_request\":{\"model\":\"q\"," request "}}"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CHAT(more) "{\"model\":\"q\"," HI ",\"stream\":false" more "}"

static void test_chat_body(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ JOB(HI), CHAT("") },
		{ JOB(HI ",\"stream\":true"), "{\"model\":\"q\"," HI ",\"stream\":true}" },
		{ JOB(HI ",\"stream\":\"yes\",\"stream_options\":{\"include_usage\":true},\"n\":3,\"logit_bias\":null"), CHAT("") },
		{ JOB(HI ",\"temperature\":0.10,\"seed\":1152921504606846977,\"stop\":[\"a\"]"),
		  CHAT(",\"temperature\":0.10,\"seed\":1152921504606846977,\"stop\":[\"a\"]") },
		{ JOB(HI ",\"temperature\":\"hot\",\"top_p\":true,\"stop\":{}"), CHAT("") },
		{ JOB(HI ",\"max_tokens\":7"), CHAT(",\"max_tokens\":7") },
		{ JOB(HI ",\"tools\":[],\"tool_choice\":\"auto\""), CHAT("") },
		{ JOB(HI ",\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"auto\""),
		  CHAT(",\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"auto\"") },
		{ JOB(HI ",\"response_format\":null"), CHAT("") },
		{ JOB(HI ",\"response_format\":\"json\""), CHAT("") },
		{ JOB(HI ",\"response_format\":{\"type\":\"text\"}"), CHAT("") },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_object\"}"), CHAT(",\"response_format\":{\"type\":\"json_object\"}") },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":{\"a\":1}}}"),
		  CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":{\"a\":1}}}") },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"a\":1}}}"),
		  CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"response\",\"schema\":{\"a\":1}}}") },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"type\":\"object\"}}"),
		  CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"response\",\"schema\":{\"type\":\"object\"}}}") },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_schema\"}"), CHAT(",\"response_format\":{\"type\":\"json_object\"}") },
		/* messages: as they are, but for roles that nobody knows, and content that is missing */
		{ JOB("\"messages\":[{\"role\":\"developer\",\"content\":\"d\"}, {\"content\":\"c\",\"role\":\"assistant\"}]"),
		  "{\"model\":\"q\",\"messages\":[{\"role\":\"developer\",\"content\":\"d\"},{\"content\":\"c\",\"role\":\"assistant\"}],\"stream\":false}" },
		{ JOB("\"messages\":[{\"role\":\"bot\",\"content\":\"a\",\"name\":\"x\"},7,{\"content\":\"b\"}]"),
		  "{\"model\":\"q\",\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"x\"},{\"role\":\"user\",\"content\":\"b\"}],\"stream\":false}" },
		{ JOB("\"messages\":[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]}]"),
		  "{\"model\":\"q\",\"messages\":[{\"role\":\"user\",\"content\":\"\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]}],"
		  "\"stream\":false}" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct invocation j = parse(rows[i].text);
		AUTO_BUF out = BUF_MAX(1 << 16);
		struct err e = { 0 };

		expect_text(rows[i].text, invocation_chat_body(&j, &out, &e), &out, &e, rows[i].want);
		invocation_done(&j);
	}
}

static void test_ollama_body(void **state)
{
	static const struct {
		const char *text, *want;               /* want NULL: E_UNSUPPORTED_VALUE */
	} rows[] = {
		{ JOB(HI), "{\"model\":\"local\"," HI ",\"stream\":false}" },
		{ "{\"openai_request\":{\"model\":\"q\"}}", "{\"model\":\"q\",\"messages\":[],\"stream\":false}" },
		{ JOB(HI ",\"stream\":true,\"temperature\":0.5,\"top_p\":1,\"max_tokens\":9,\"stop\":\"x\""),
		  "{\"model\":\"local\"," HI ",\"stream\":false,\"options\":{\"temperature\":0.5,\"top_p\":1,\"num_predict\":9,\"stop\":[\"x\"]}}" },
		{ JOB(HI ",\"stop\":[\"x\",\"y\"]"), "{\"model\":\"local\"," HI ",\"stream\":false,\"options\":{\"stop\":[\"x\",\"y\"]}}" },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_object\"}"), "{\"model\":\"local\"," HI ",\"stream\":false,\"format\":\"json\"}" },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"a\":1}}}"),
		  "{\"model\":\"local\"," HI ",\"stream\":false,\"format\":{\"a\":1}}" },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_schema\",\"schema\":{\"b\":1}}"),
		  "{\"model\":\"local\"," HI ",\"stream\":false,\"format\":{\"b\":1}}" },
		{ JOB(HI ",\"response_format\":{\"type\":\"json_schema\"}"), "{\"model\":\"local\"," HI ",\"stream\":false,\"format\":\"json\"}" },
		{ JOB("\"messages\":[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"bot\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
		      "{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"b\"}]}]"),
		  "{\"model\":\"local\",\"messages\":[{\"role\":\"system\",\"content\":\"d\"},{\"role\":\"user\",\"content\":\"a\\nb\"}],\"stream\":false}" },
		{ JOB("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,QUJD\"}}]}]"),
		  "{\"model\":\"local\",\"messages\":[{\"role\":\"user\",\"content\":\"\",\"images\":[\"QUJD\"]}],\"stream\":false}" },
		{ JOB("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://x\"}}]}]"), NULL },
		{ JOB("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]"), NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct invocation j = parse(rows[i].text);
		AUTO_BUF out = BUF_MAX(1 << 16);
		struct err e = { 0 };
		enum errc rc = invocation_ollama_body(&j, &out, &e);

		if (rows[i].want)
			expect_text(rows[i].text, rc, &out, &e, rows[i].want);
		else
			assert_int_equal(rc, E_UNSUPPORTED_VALUE);
		invocation_done(&j);
	}
}

/* ---- results ---- */

#define IDS "{\"job_id\":\"j\",\"request_id\":\"r\","
#define ENVELOPE "{\"job_id\":\"j\",\"request_id\":\"r\",\"node_id\":\"n\","
#define COMPLETION "{\"id\":\"z\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hey\"},\"finish_reason\":\"length\"}]}"

static void expect_result(const char *what, const struct job_result *r, const char *want)
{
	AUTO_BUF out = BUF_MAX(1 << 16);
	struct err e = { 0 };

	expect_text(what, job_result_json(r, &out, &e), &out, &e, want);
}

static struct agent make_agent(void)
{
	return (struct agent){ .slug = (char *)"a", .adapter = (char *)"vllm-local", .provider = (char *)"openai-compatible", .model = (char *)"m",
			       .supports_tools = true, .is_supports_tools_known = true };
}

static void test_result_agent(void **state)
{
	struct invocation j = parse(ENVELOPE "\"openai_request\":{\"model\":\"q\"}}");
	struct agent a = make_agent();
	struct chat_usage u = { .is_known = true, .prompt_tokens = 4, .completion_tokens = 6, .total_tokens = 10 };
	struct job_result r = { .job = &j, .agent = &a, .completion = slice_str(COMPLETION), .usage = &u, .is_started = true,
				.latency_ms = 500, .now_wall_ms = INT64_C(1700000001500) };

	(void)state;
	expect_result("success", &r, IDS "\"status\":\"success\",\"openai_response\":{\"id\":\"chatcmpl-r\",\"object\":\"chat.completion\","
		"\"created\":1700000001,\"model\":\"q\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hey\"},"
		"\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":6,\"total_tokens\":10,\"cost_cents\":0},"
		"\"metadata\":{\"provider\":\"openai-compatible\",\"adapter\":\"vllm-local\",\"local_model\":\"m\",\"agent_slug\":\"a\","
		"\"codali_run_id\":\"r\",\"tool_calls_executed\":0,\"touched_files\":[],\"warnings\":[],\"mode\":\"tool_loop\"}},"
		"\"progress_events\":[{\"type\":\"agent_selected\",\"job_id\":\"j\",\"request_id\":\"r\",\"agent_slug\":\"a\","
		"\"adapter\":\"vllm-local\",\"supports_tools\":true},{\"type\":\"status\",\"job_id\":\"j\",\"request_id\":\"r\","
		"\"phase\":\"thinking\",\"at\":\"2023-11-14T22:13:21.000Z\"}],"
		"\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":6,\"total_tokens\":10},\"timing\":{\"local_latency_ms\":500}}");
	invocation_done(&j);
}

/* Unknown usage: null inside, 0 outside. The mode follows the reference's rule. */
static void test_result_unknowns(void **state)
{
	static const struct {
		const char *job;
		bool supports, is_known;
		const char *mode;
	} rows[] = {
		{ ENVELOPE "\"policy\":{\"allow_tools\":false}}", true, true, "\"mode\":\"freeform\"" },
		{ ENVELOPE "\"x\":1}", true, true, "\"mode\":\"tool_loop\"" },
		{ ENVELOPE "\"x\":1}", true, false, "\"mode\":\"protocol_loop\"" },
		{ ENVELOPE "\"x\":1}", false, true, "\"mode\":\"protocol_loop\"" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct invocation j = parse(rows[i].job);
		struct agent a = make_agent();
		struct chat_usage u = { 0 };
		struct job_result r = { .job = &j, .agent = &a, .completion = slice_str(COMPLETION), .usage = &u, .is_started = true };
		AUTO_BUF out = BUF_MAX(1 << 16);
		struct err e = { 0 };

		a.supports_tools = rows[i].supports;
		a.is_supports_tools_known = rows[i].is_known;
		assert_int_equal(job_result_json(&r, &out, &e), E_OK);
		assert_true(slice_find(buf_slice(&out), slice_str(rows[i].mode)) > 0);
		assert_true(slice_find(buf_slice(&out), SLICE("{\"prompt_tokens\":null,\"completion_tokens\":null,\"total_tokens\":null,\"cost_cents\":0}")) > 0);
		assert_true(slice_find(buf_slice(&out), SLICE("\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}")) > 0);
		invocation_done(&j);
	}
}

static void test_result_failed(void **state)
{
	struct invocation j = parse(ENVELOPE "\"x\":1}");
	struct agent a = make_agent();
	struct job_error je = { .code = "upstream_error", .message = "boom" };
	struct job_result r = { .job = &j, .error = &je, .is_wrong_node = true, .latency_ms = 3 };

	(void)state;
	expect_result("wrong node", &r, IDS "\"status\":\"failed\",\"pre_start_failure\":true,"
		"\"error\":{\"code\":\"upstream_error\",\"message\":\"boom\"}}");
	r.is_wrong_node = false;
	expect_result("before start", &r, IDS "\"status\":\"failed\",\"pre_start_failure\":true,"
		"\"error\":{\"code\":\"upstream_error\",\"message\":\"boom\"},\"timing\":{\"local_latency_ms\":3}}");
	r.agent = &a;
	expect_result("agent known, before start", &r, IDS "\"status\":\"failed\",\"pre_start_failure\":true,"
		"\"error\":{\"code\":\"upstream_error\",\"message\":\"boom\"},\"timing\":{\"local_latency_ms\":3}}");
	r.agent = NULL;
	r.is_started = true;
	je = (struct job_error){ 0 };
	expect_result("no text", &r, IDS "\"status\":\"failed\","
		"\"error\":{\"code\":\"upstream_error\",\"message\":\"Self-hosted job failed\"},\"timing\":{\"local_latency_ms\":3}}");
	invocation_done(&j);
}

/* After the start a failure has its progress events. */
static void test_result_failed_in_run(void **state)
{
	struct invocation j = parse(ENVELOPE "\"x\":1}");
	struct agent a = make_agent();
	struct job_error je = { .code = "timeout", .message = "Runner timeout exceeded" };
	struct job_result r = { .job = &j, .agent = &a, .error = &je, .is_started = true, .latency_ms = 1000, .now_wall_ms = 1000 };

	(void)state;
	expect_result("in run", &r, IDS "\"status\":\"failed\",\"progress_events\":[{\"type\":\"agent_selected\",\"job_id\":\"j\",\"request_id\":\"r\","
		"\"agent_slug\":\"a\",\"adapter\":\"vllm-local\",\"supports_tools\":true},{\"type\":\"status\",\"job_id\":\"j\",\"request_id\":\"r\","
		"\"phase\":\"thinking\",\"at\":\"1970-01-01T00:00:00.000Z\"},{\"type\":\"error\",\"job_id\":\"j\",\"request_id\":\"r\","
		"\"message\":\"Runner timeout exceeded\",\"code\":\"Error\",\"at\":\"1970-01-01T00:00:01.000Z\"}],"
		"\"error\":{\"code\":\"timeout\",\"message\":\"Runner timeout exceeded\"},\"timing\":{\"local_latency_ms\":1000}}");
	invocation_done(&j);
}

#define OLLAMA "{\"model\":\"l\",\"message\":{\"role\":\"assistant\",\"content\":\"h\\u00e9\"},\"done\":true,\"done_reason\":\"length\"," \
	       "\"prompt_eval_count\":2,\"eval_count\":3,\"big\":12345678901234567890}"

static void test_ollama(void **state)
{
	struct invocation j = parse(ENVELOPE "\"provider\":\"ollama\",\"openai_request\":{\"model\":\"q\"}}");
	struct job_result r = { .job = &j, .completion = SLICE(OLLAMA "\n"), .is_started = true, .latency_ms = 1, .now_wall_ms = 5000 };
	AUTO_BUF out = BUF_MAX(1 << 16);
	struct err e = { 0 };

	(void)state;
	expect_result("raw", &r, IDS "\"status\":\"success\",\"openai_response\":{\"id\":\"chatcmpl-r\",\"object\":\"chat.completion\","
		"\"created\":5,\"model\":\"q\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"h\xc3\xa9\"},"
		"\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3,\"total_tokens\":5,\"cost_cents\":0},"
		"\"metadata\":{\"provider\":\"ollama\",\"raw\":" OLLAMA "}},"
		"\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3,\"total_tokens\":5},\"timing\":{\"local_latency_ms\":1}}");
	expect_text("chunks", job_ollama_chunks(&j, SLICE(OLLAMA), 5999, &out, &e), &out, &e,
		"data: {\"id\":\"chatcmpl-r\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"q\",\"choices\":[{\"index\":0,"
		"\"delta\":{\"role\":\"assistant\",\"content\":\"h\xc3\xa9\"},\"finish_reason\":null}]}\n\n"
		"data: {\"id\":\"chatcmpl-r\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"q\",\"choices\":[{\"index\":0,"
		"\"delta\":{},\"finish_reason\":\"length\"}]}\n\n");
	assert_true(job_is_ollama_reply(SLICE(OLLAMA)));
	assert_false(job_is_ollama_reply(SLICE("{\"error\":\"x\"}")));
	assert_false(job_is_ollama_reply(SLICE("[]")));
	assert_false(job_is_ollama_reply(SLICE("<html>")));
	r.completion = SLICE("<html>");
	assert_int_equal(job_result_json(&r, &out, &e), E_UPSTREAM);
	invocation_done(&j);
}

static void test_error_frame(void **state)
{
	struct job_error je = { .code = "timeout", .message = "a \"b\"\n" };
	AUTO_BUF out = BUF_MAX(1 << 12);
	struct err e = { 0 };

	(void)state;
	expect_text("frame", job_error_frame(&je, &out, &e), &out, &e,
		"data: {\"object\":\"error\",\"error\":{\"code\":\"timeout\",\"message\":\"a \\\"b\\\"\\n\"}}\n\n");
}

/* Every allocation may fail: an error, no leak. */
static void test_no_memory(void **state)
{
	static const char text[] = JOB("\"messages\":[{\"role\":\"bot\",\"content\":\"a\"}],\"response_format\":{\"type\":\"json_schema\"},\"max_tokens\":3");
	bool is_done = false;

	(void)state;
	for (uint64_t nth = 1; !is_done; nth++) {
		struct invocation j = { 0 };
		AUTO_BUF chat = BUF_MAX(1 << 16), ollama = BUF_MAX(1 << 16), result = BUF_MAX(1 << 16);
		struct job_result r = { .job = &j, .completion = SLICE(OLLAMA) };
		struct err e = { 0 };
		enum errc rc;

		assert_true(nth < 1000);
		mem_test_fail_at(nth, 0);
		rc = invocation_parse(slice_str(text), &j, &e);
		if (!rc)
			rc = invocation_chat_body(&j, &chat, &e);
		if (!rc)
			rc = invocation_ollama_body(&j, &ollama, &e);
		j.is_ollama = true;
		if (!rc)
			rc = job_result_json(&r, &result, &e);
		is_done = mem_test_count() < nth;
		mem_test_fail_at(0, 0);
		assert_int_equal(rc == E_OK, is_done);
		invocation_done(&j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields), cmocka_unit_test(test_not_an_object), cmocka_unit_test(test_policy), cmocka_unit_test(test_check),
		cmocka_unit_test(test_check_agent), cmocka_unit_test(test_error_codes), cmocka_unit_test(test_chat_body),
		cmocka_unit_test(test_ollama_body), cmocka_unit_test(test_result_agent), cmocka_unit_test(test_result_unknowns),
		cmocka_unit_test(test_result_failed), cmocka_unit_test(test_result_failed_in_run), cmocka_unit_test(test_ollama),
		cmocka_unit_test(test_error_frame), cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
