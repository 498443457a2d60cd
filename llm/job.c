/*
 * Invocation jobs: reading, and the checks before a run (llm-execution.md 1). Called by routes/node_job_create.c, on a
 * loop or the pool. Pure.
 *
 * A job has no schema: a member of a wrong type counts as absent, as it does in the reference.
 */
#include "llm/job_priv.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define JOB_LIMITS ((struct json_limits){ .max_bytes = 1u << 20, .max_depth = 64 })
#define PROMPT_MAX (1u << 20)              /* no longer than the job itself */

/* ---- small readings ---- */

struct slice job_text(const struct json *j)
{
	return slice_trim_js(json_slice(j));
}

const struct json *job_request(const struct invocation *j)
{
	const struct json *r = json_get(j->tree, "openai_request");

	return json_is_object(r) ? r : NULL;
}

/* floor of a finite number >= lo, else -1 */
static int64_t read_limit(const struct json *j, double lo)
{
	double v = floor(json_num(j, -1.0));

	if (!json_is_number(j) || !isfinite(v) || v < lo)
		return -1;
	return v > 9e15 ? (int64_t)9e15 : (int64_t)v;
}

static bool is_false(const struct json *j)
{
	return json_is_bool(j) && !json_is_true(j);
}

/* Design.md 6: what makes a job one with tools. Everything else is one plain turn. */
static bool names_tools(const struct json *tree, const struct json *policy)
{
	const struct json *allowed = json_get(policy, "allowed_tools");

	return job_text(json_get(json_get(tree, "workspace"), "root")).n > 0 || json_is_object(json_get(tree, "docdex")) ||
	       (json_is_array(allowed) && json_count(allowed) > 0);
}

static void read_policy(struct invocation *j, const struct json *policy, const struct json *request)
{
	j->allows_tools = !is_false(json_get(policy, "allow_tools"));
	j->wants_tools = j->allows_tools && names_tools(j->tree, policy);
	j->docdex_required = json_is_true(json_get(json_get(j->tree, "docdex"), "required"));
	j->max_runtime_ms = read_limit(json_get(policy, "max_runtime_ms"), 0);
	j->max_output_tokens = read_limit(json_get(policy, "max_output_tokens"), 1);
	if (j->max_output_tokens < 0)
		j->max_output_tokens = read_limit(json_get(request, "max_completion_tokens"), 1);
	if (j->max_output_tokens < 0)
		j->max_output_tokens = read_limit(json_get(request, "max_tokens"), 1);
}

enum errc invocation_parse(struct slice body, struct invocation *ret, struct err *e)
{
	struct invocation j = { .text = slice_starts_with(body, SLICE("\xef\xbb\xbf")) ? slice_from(body, 3) : body };
	const struct json *request, *policy;
	enum errc rc = json_parse(body, JOB_LIMITS, &j.tree, e);

	if (rc)
		return rc;
	if (!json_is_object(j.tree)) {
		bool is_null = json_is_null(j.tree);

		json_free(j.tree);
		return err_set(e, E_BAD_REQUEST, "%s", is_null ? "Cannot read properties of null (reading 'node_id')" :
			       "job node_id does not match invocation token");
	}
	request = job_request(&j);
	policy = json_get(j.tree, "policy");
	j.job_id = json_slice(json_get(j.tree, "job_id"));
	j.request_id = json_slice(json_get(j.tree, "request_id"));
	j.node_id = json_slice(json_get(j.tree, "node_id"));
	j.request_model = json_slice(json_get(request, "model"));
	j.agent_slug = job_text(json_get(j.tree, "agent_slug"));
	j.source_agent_slug = job_text(json_get(j.tree, "source_agent_slug"));
	j.model = job_text(json_get(j.tree, "model"));
	j.is_ollama = slice_eq(json_slice(json_get(j.tree, "provider")), SLICE("ollama"));
	j.is_stream = json_is_true(json_get(request, "stream"));
	read_policy(&j, policy, request);
	*ret = j;
	return E_OK;
}

void invocation_done(struct invocation *j)
{
	json_free(j->tree);
	*j = (struct invocation){ 0 };
}

int64_t invocation_limit_ms(const struct invocation *j, int64_t job_timeout_ms)
{
	return j->max_runtime_ms > 0 && j->max_runtime_ms < job_timeout_ms ? j->max_runtime_ms : job_timeout_ms;
}

/* ---- failures ---- */

bool job_fail(struct job_error *je, const char *code, bool is_pre_start, const char *fmt, ...)
{
	va_list ap;

	*je = (struct job_error){ .is_pre_start = is_pre_start };
	snprintf(je->code, sizeof(je->code), "%s", code);
	va_start(ap, fmt);
	vsnprintf(je->message, sizeof(je->message), fmt, ap);
	va_end(ap);
	return false;
}

/* The codes of 1.8 for our own errors: by code, never by words in a text (weakness 26). */
static const char *code_of(enum errc code, bool *ret_pre_start)
{
	*ret_pre_start = true;
	switch ((int)code) {
	case E_MODEL_NOT_FOUND:
	case E_NOT_FOUND:
		return "selected_agent_unavailable";
	case E_UNHEALTHY:
		return "selected_agent_unhealthy";
	case E_BAD_REQUEST:
	case E_BAD_JSON:
	case E_INVALID_VALUE:
	case E_UNSUPPORTED_VALUE:
	case E_MISSING_PARAMETER:
		return "validation_failed";
	case E_FORBIDDEN:
		return "policy_denied";
	default:
		*ret_pre_start = false;
		return code == E_TIMEOUT || code == E_REQUEST_TIMEOUT ? "timeout" : "upstream_error";
	}
}

void job_error_from_err(const struct err *e, struct job_error *je)
{
	bool is_pre_start;
	const char *code = code_of(e->code, &is_pre_start);

	(void)job_fail(je, code, is_pre_start, "%s", e->what);
}

void job_error_from_chat(const struct chat_error *ce, struct job_error *je)
{
	bool is_timeout = ce->status == 504 || slice_eq(slice_str(ce->code), SLICE("timeout"));
	const char *code = is_timeout ? "timeout" : "upstream_error";

	if (slice_eq(slice_str(ce->code), SLICE("selected_agent_unhealthy")))
		code = "selected_agent_unhealthy";
	(void)job_fail(je, code, false, "%s", ce->message);
}

/* ---- checks ---- */

enum errc job_content_text(const struct json *content, struct buf *out, struct err *e)
{
	bool is_first = true;
	enum errc rc = E_OK;

	if (json_is_string(content))
		return buf_add_slice(out, json_slice(content), e);
	if (!json_is_array(content))
		return E_OK;
	for (const struct json *part = json_first(content); part && !rc; part = json_next(part)) {
		struct slice text = json_slice(json_get(part, "text"));

		if (!text.n || !slice_eq(json_slice(json_get(part, "type")), SLICE("text")))
			continue;
		if (!is_first)
			rc = buf_add_str(out, "\n", e);
		is_first = false;
		if (!rc)
			rc = buf_add_slice(out, text, e);
	}
	return rc;
}

/* Is there anything but blanks in the messages? Parts that are no text count: an image is something to answer. */
static bool has_prompt(const struct invocation *j)
{
	AUTO_BUF text = BUF_MAX(PROMPT_MAX);
	const struct json *messages = json_get(job_request(j), "messages");
	struct err ignored;

	if (!json_is_array(messages))
		return false;
	for (const struct json *m = json_first(messages); m; m = json_next(m)) {
		const struct json *content = json_get(m, "content");

		for (const struct json *part = json_is_array(content) ? json_first(content) : NULL; part; part = json_next(part))
			if (json_is_object(part) && !slice_eq(json_slice(json_get(part, "type")), SLICE("text")))
				return true;
		buf_clear(&text);
		if (job_content_text(content, &text, &ignored) || slice_trim_js(buf_slice(&text)).n)
			return true;
	}
	return false;
}

bool invocation_check(const struct invocation *j, struct slice node_id, struct job_error *je, bool *ret_is_wrong_node)
{
	*ret_is_wrong_node = !slice_eq(j->node_id, node_id);
	if (*ret_is_wrong_node)
		return job_fail(je, "validation_failed", true, "job node_id does not match this node");
	if (!j->is_ollama && !has_prompt(j))
		return job_fail(je, "validation_failed", true, "mcoda invocation prompt is empty");
	return true;
}

static bool check_docdex(const struct invocation *j, bool has_attached_key, struct job_error *je)
{
	const struct json *docdex = json_get(j->tree, "docdex"), *base_url = json_get(docdex, "base_url");

	if (!j->docdex_required)
		return true;
	/* An absent base_url has a default; one that is given and blank has not. */
	if ((!json_is_absent(base_url) && !job_text(base_url).n) || !job_text(json_get(docdex, "repo_id")).n)
		return job_fail(je, "docdex_context_missing", true, "Required Docdex runtime context must include base_url and repo_id.");
	if (!slice_eq(job_text(json_get(docdex, "credential_source")), SLICE("attached_mswarm_api_key")))
		return job_fail(je, "docdex_context_missing", true,
				"Required Docdex runtime context must use credential_source attached_mswarm_api_key.");
	if (!has_attached_key)
		return job_fail(je, "docdex_api_key_missing", true,
				"Required Docdex runtime context did not receive an attached mswarm API key.");
	return true;
}

bool invocation_check_agent(const struct invocation *j, const struct agent *a, bool has_attached_key, struct job_error *je)
{
	(void)a;
	if (!check_docdex(j, has_attached_key, je))
		return false;
	if (j->wants_tools)
		return job_fail(je, "policy_denied", true, "this node runs no tools: workspace.root, docdex and policy.allowed_tools are refused");
	return true;
}
