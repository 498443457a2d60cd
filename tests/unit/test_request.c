/* The contract of a generic job: every issue, in order; and what the queue reads of a request. direct-api.md 3, 4, 7.1. */
#include "jobs/capabilities.h"
#include "jobs/request.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static struct json *parse(const char *text)
{
	struct json *j = NULL;
	struct err e = { 0 };

	if (json_parse(slice_str(text), JSON_LIMITS_DEFAULT, &j, &e))
		fail_msg("%s: %s", text, e.what);
	return j;
}

#define SOUND "\"schema_version\":\"2026-06-14\",\"job_type\":\"tenant.test-echo\",\"policy\":{\"trust_mode\":\"owner-local\"}"

/* "code path; code path", of the request {SOUND, more}. */
static void issues_of(const char *request, char *out, size_t cap)
{
	AUTO_BUF text = BUF_MAX(1u << 20);
	struct jw w = JW(&text);
	AUTO_JSON job = request ? parse(request) : NULL;
	AUTO_JSON list = NULL;
	struct err e;
	size_t at = 0, n;

	jw_arr(&w, NULL);
	n = job_check(job, &w);
	jw_end(&w);
	assert_int_equal(jw_done(&w, &e), E_OK);
	assert_int_equal(json_parse(buf_slice(&text), JSON_LIMITS_DEFAULT, &list, &e), E_OK);
	assert_int_equal(json_count(list), n);
	out[0] = '\0';
	for (const struct json *i = json_first(list); i; i = json_next(i)) {
		assert_non_null(json_str(json_get(i, "message")));
		at += (size_t)snprintf(out + at, cap - at, "%s%s %s", at ? "; " : "", json_str(json_get(i, "code")), json_str(json_get(i, "path")));
	}
}

static void test_issues(void **state)
{
	static const struct { const char *more, *want; } rows[] = {
		{ "", "" },
		{ ",\"args\":{\"anything\":1},\"inputs\":[],\"outputs\":[],\"resources\":{},\"limits\":{},\"metadata\":{\"tenant_id\":\"t\"}", "" },
		{ ",\"surprise\":1", "unknown_field surprise" },
		{ ",\"model\":\"m\",\"b\":1,\"messages\":[]", "llm_field_not_allowed model; unknown_field b; llm_field_not_allowed messages" },
		{ ",\"schema_version\":\"x\"", "invalid_schema_version schema_version" },
		{ ",\"schema_version\":\" 2026-06-14 \",\"job_type\":\" tenant.test-echo \"", "" },
		{ ",\"job_type\":\"tenant.other\"", "unregistered_job_type job_type" },
		{ ",\"job_type\":\"package.a-b.c0\"", "unregistered_job_type job_type" },
		{ ",\"job_type\":\"tenant.\"", "invalid_job_type job_type" },
		{ ",\"job_type\":\"tenant.-a\"", "invalid_job_type job_type" },
		{ ",\"job_type\":\"tenant.A\"", "invalid_job_type job_type" },
		{ ",\"job_type\":7", "invalid_job_type job_type" },
		{ ",\"policy\":null", "invalid_policy policy" },
		{ ",\"policy\":{\"x\":1}", "unknown_field policy.x; invalid_policy policy.trust_mode" },
		{ ",\"policy\":{\"trust_mode\":\"tenant-owned\",\"network\":\"egress-allowlist\",\"allow_raw_command\":false}", "" },
		{ ",\"policy\":{\"trust_mode\":\"owner-local\",\"network\":\"all\",\"allow_raw_command\":true,\"allowed_images\":[\"a\",\" \",3],"
		  "\"allowed_package_publishers\":\"x\",\"max_artifact_bytes\":0}",
		  "invalid_policy policy.network; unsafe_field policy.allow_raw_command; invalid_request policy.allowed_images.1; "
		  "invalid_request policy.allowed_images.2; invalid_request policy.allowed_package_publishers; invalid_policy policy.max_artifact_bytes" },
		{ ",\"limits\":[]", "invalid_limits limits" },
		{ ",\"limits\":{\"network\":\"none\",\"y\":1,\"timeout_sec\":1.0,\"max_stdout_bytes\":1.5,\"max_output_bytes\":-1,\"max_stderr_bytes\":null}",
		  "unsafe_field limits.network; unknown_field limits.y; invalid_limits limits.max_stdout_bytes; invalid_limits limits.max_stderr_bytes; "
		  "invalid_limits limits.max_output_bytes" },
		{ ",\"inputs\":{}", "invalid_artifact inputs" },
		{ ",\"inputs\":[7,{\"z\":1},{\"name\":\"a\",\"artifact\":{\"uri\":\"artifact://local/j/p\",\"size_bytes\":0,\"scope\":\"x\",\"id\":\"\",\"q\":1},"
		  "\"mount_path\":\"../x\",\"required\":1}]",
		  "invalid_artifact inputs.0; unknown_field inputs.1.z; invalid_artifact inputs.1.name; unknown_field inputs.2.artifact.q; "
		  "invalid_artifact inputs.2.artifact.id; invalid_artifact inputs.2.artifact.size_bytes; invalid_artifact inputs.2.artifact.scope; "
		  "unsafe_path inputs.2.mount_path; invalid_artifact inputs.2.required" },
		{ ",\"inputs\":[{\"name\":\"a\"},{\"name\":\"b\",\"artifact\":{}},{\"name\":\"c\",\"artifact\":{\"uri\":\"https://x\"}}]",
		  "invalid_artifact inputs.0.artifact; invalid_artifact inputs.1.artifact.uri; unsafe_artifact_uri inputs.2.artifact.uri" },
		{ ",\"outputs\":7", "invalid_output outputs" },
		{ ",\"outputs\":[[],{\"path\":\"a\"},{\"name\":\"o\"},{\"name\":\"o\",\"path\":\"a\",\"content_type\":\" \",\"required\":\"yes\",\"u\":0}]",
		  "invalid_output outputs.0; invalid_output outputs.1.name; unsafe_path outputs.2.path; unknown_field outputs.3.u; "
		  "invalid_output outputs.3.content_type; invalid_output outputs.3.required" },
		{ ",\"resources\":1", "invalid_resources resources" },
		{ ",\"resources\":{\"r\":1,\"memory_gb\":0,\"disk_gb\":\"1\",\"cpu\":7,\"gpu\":{\"g\":1,\"count\":0,\"min_vram_gb\":1.5,\"vendor\":\"\","
		  "\"cuda_min_version\":5,\"capabilities\":[1]}}",
		  "unknown_field resources.r; invalid_resources resources.memory_gb; invalid_resources resources.disk_gb; invalid_resources resources.cpu; "
		  "unknown_field resources.gpu.g; invalid_resources resources.gpu.count; invalid_resources resources.gpu.min_vram_gb; "
		  "invalid_resources resources.gpu.vendor; invalid_resources resources.gpu.cuda_min_version; invalid_request resources.gpu.capabilities.0" },
		{ ",\"resources\":{\"cpu\":{\"cores\":-1,\"other\":1},\"gpu\":[]}", "invalid_resources resources.cpu.cores; invalid_resources resources.gpu" },
		{ ",\"scheduling\":7", "invalid_scheduling scheduling" },
		{ ",\"scheduling\":{\"s\":1,\"priority\":101,\"deadline_at\":\"soon\",\"fairness_key\":\"\",\"reason_code\":1,\"preemptible\":0}",
		  "unknown_field scheduling.s; invalid_scheduling scheduling.priority; invalid_scheduling scheduling.deadline_at; "
		  "invalid_scheduling scheduling.fairness_key; invalid_scheduling scheduling.reason_code; invalid_scheduling scheduling.preemptible" },
		{ ",\"scheduling\":{\"priority\":-100,\"deadline_at\":\"2026-01-01T00:00:00Z\",\"preemptible\":true}", "" },
		{ ",\"args\":\"x\"", "invalid_args args" },
		{ ",\"args\":{\"shell\":1,\"Shell\":1,\"binds\":[]}", "unsafe_field args.shell; unsafe_field args.binds" },
		{ ",\"job_type\":\"render.blender\",\"args\":{\"frames\":1,\"x\":1,\"cmd\":1}", "unknown_field args.x; unsafe_field args.cmd" },
		{ ",\"job_type\":\"cuda.run\",\"args\":{\"manifest_path\":\"a/../b\",\"profile\":\"\",\"target\":\"a b\"}",
		  "unsafe_path args.manifest_path; invalid_args args.profile; invalid_args args.target" },
		{ ",\"job_type\":\"cuda.run\",\"args\":{\"manifest_path\":\"./a/b.json\",\"profile\":\"p\",\"target\":\"t-1.x\"}", "" },
		{ ",\"job_type\":\"cuda.run\",\"args\":{}", "invalid_args args.manifest_path; invalid_args args.profile; invalid_args args.target" },
		{ ",\"idempotency_key\":\" \",\"runner_hint\":7,\"metadata\":[]",
		  "invalid_request idempotency_key; invalid_request runner_hint; invalid_request metadata" },
		{ ",\"metadata\":{\"host_path\":1,\"image\":1,\"free\":1}", "unsafe_field metadata.host_path; unsafe_field metadata.image" },
	};
	char request[2048], got[2048];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		snprintf(request, sizeof(request), "{" SOUND "%s}", rows[i].more);
		issues_of(request, got, sizeof(got));
		assert_string_equal(got, rows[i].want);
	}
	issues_of("[]", got, sizeof(got));
	assert_string_equal(got, "invalid_request ");
	issues_of(NULL, got, sizeof(got));
	assert_string_equal(got, "invalid_request ");
	issues_of("{}", got, sizeof(got));
	assert_string_equal(got, "invalid_schema_version schema_version; invalid_job_type job_type; invalid_policy policy");
}

static void test_paths(void **state)
{
	static const struct { const char *path; bool is_safe; } rows[] = {
		{ "a", true }, { "a/b", true }, { "a//b", true }, { "./a", true }, { ".", true }, { "C:/x", true }, { " a ", true }, { "..a", true },
		{ "", false }, { " ", false }, { "/a", false }, { "~", false }, { "~/a", false }, { "a/", false }, { "a/../b", false }, { "..", false },
		{ "a\\\\b", false },
	};
	char request[512], got[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		snprintf(request, sizeof(request), "{" SOUND ",\"outputs\":[{\"name\":\"o\",\"path\":\"%s\"}]}", rows[i].path);
		issues_of(request, got, sizeof(got));
		assert_string_equal(got, rows[i].is_safe ? "" : "unsafe_path outputs.0.path");
	}
}

/* The value is the offending input, whole; it is absent when that was. */
static void test_value(void **state)
{
	AUTO_BUF text = BUF_MAX(4096);
	struct jw w = JW(&text);
	AUTO_JSON job = parse("{\"job_type\":{\"a\":[1]}}");
	struct err e;

	(void)state;
	jw_arr(&w, NULL);
	assert_int_equal(job_check(job, &w), 3);
	jw_end(&w);
	assert_int_equal(jw_done(&w, &e), E_OK);
	assert_string_equal(buf_cstr(&text),
		"[{\"code\":\"invalid_schema_version\",\"path\":\"schema_version\",\"message\":\"Unsupported mswarm generic job schema version; expected "
		"2026-06-14.\"},{\"code\":\"invalid_job_type\",\"path\":\"job_type\",\"message\":\"Job type must be a known type or a registered "
		"tenant/package namespace.\",\"value\":{\"a\":[1]}},{\"code\":\"invalid_policy\",\"path\":\"policy\",\"message\":\"Generic job policy is "
		"required and must be an object.\"}]");
}

static void test_facts(void **state)
{
	static const struct { const char *job, *tenant; int64_t priority, retries, timeout_ms; double gpus; } rows[] = {
		{ "{}", "owner-local", 0, 0, 0, 0 },
		{ "7", "owner-local", 0, 0, 0, 0 },
		{ "{\"metadata\":{\"tenant_id\":\" a \",\"retry\":{\"max_retries\":2.9}}}", "a", 0, 2, 0, 0 },
		{ "{\"metadata\":{\"tenant_id\":\" \",\"retry\":{\"max_retries\":99}}}", "owner-local", 0, 3, 0, 0 },
		{ "{\"metadata\":{\"tenant_id\":7,\"retry\":{\"max_retries\":-1}}}", "owner-local", 0, 0, 0, 0 },
		{ "{\"scheduling\":{\"priority\":-7},\"limits\":{\"timeout_sec\":3}}", "owner-local", -7, 0, 3000, 0 },
		{ "{\"scheduling\":{\"priority\":1.5},\"limits\":{\"timeout_sec\":-3}}", "owner-local", 0, 0, 0, 0 },
		{ "{\"resources\":{\"gpu\":{}}}", "owner-local", 0, 0, 0, 1 },
		{ "{\"resources\":{\"gpu\":{\"count\":4}}}", "owner-local", 0, 0, 0, 4 },
		{ "{\"resources\":{\"gpu\":null}}", "owner-local", 0, 0, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_JSON job = parse(rows[i].job);
		struct job_facts f = job_facts(job);

		assert_true(slice_eq(f.tenant_id, slice_str(rows[i].tenant)));
		assert_int_equal(f.priority, rows[i].priority);
		assert_int_equal(f.max_retries, rows[i].retries);
		assert_int_equal(f.timeout_ms, rows[i].timeout_ms);
		assert_true(f.gpu_count >= rows[i].gpus && f.gpu_count <= rows[i].gpus);
	}
}

static void test_lacks(void **state)
{
	static const struct capabilities none = { 0 };
	static const struct capabilities one = { .gpu_count = 1, .is_nvidia = true, .max_vram_gb = 8, .cuda_version = "12.4" };
	static const struct { const struct capabilities *caps; const char *job, *want; } rows[] = {
		{ &none, "{\"job_type\":\"tenant.test-echo\"}", NULL },
		{ &none, "{\"job_type\":\"render.blender\"}", "Blender is not available on this node." },
		{ &none, "{\"job_type\":\"cuda.run\"}", "No NVIDIA GPU is available on this node." },
		{ &one, "{\"job_type\":\"cuda.run\"}", "Docker with the NVIDIA runtime is not available on this node." },
		{ &none, "{\"job_type\":\"python.gpu\"}", "No capable owner-local node is available for python.gpu." },
		{ &none, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{}}}", "Requested 1 GPU(s), but this node reports 0." },
		{ &one, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{\"count\":8}}}", "Requested 8 GPU(s), but this node reports 1." },
		{ &one, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{\"vendor\":\"amd\"}}}", "Requested GPU vendor amd is not available on this node." },
		{ &one, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{\"vendor\":\"nvidia\",\"min_vram_gb\":8}}}", NULL },
		{ &one, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{\"min_vram_gb\":24}}}", "Requested GPU VRAM 24GB exceeds this node capability." },
		{ &one, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{\"cuda_min_version\":\"12.4.0\"}}}", NULL },
		{ &one, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{\"cuda_min_version\":\"12\"}}}", NULL },
		{ &one, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{\"cuda_min_version\":\"12.10\"}}}", "Requested CUDA 12.10 is not available on this node." },
		{ &one, "{\"job_type\":\"tenant.test-echo\",\"resources\":{\"gpu\":{\"cuda_min_version\":\"v13\"}}}", "Requested CUDA v13 is not available on this node." },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_JSON job = parse(rows[i].job);
		char got[256] = "";
		bool lacks = job_lacks(job, rows[i].caps, got, sizeof(got));

		assert_int_equal(lacks, rows[i].want != NULL);
		if (lacks)
			assert_string_equal(got, rows[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_issues), cmocka_unit_test(test_paths), cmocka_unit_test(test_value), cmocka_unit_test(test_facts),
		cmocka_unit_test(test_lacks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
