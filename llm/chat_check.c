/*
 * Checks of the members of a chat request that have a structure of their own: messages, tools, tool_choice,
 * response_format. Only what the API says about types and ranges; what is unknown inside passes (llm-execution.md 8.5).
 * Called by chat_parse only, any thread.
 */
#include "llm/chat_priv.h"

#define NAME_MAX_CHARS 64

/* Pick the last values of some keys out of an object. */
static void pick(struct slice object, const char *const *keys, struct slice *ret, size_t n)
{
	struct json_member m;
	size_t pos = 0;
	bool bad = false;

	while (json_next_member(object, &pos, &m, &bad)) {
		for (size_t i = 0; i < n; i++) {
			if (raw_body_is(m.key, keys[i])) {
				ret[i] = m.value;
				break;
			}
		}
	}
}

/* Function and schema names: 1 to 64 of A-Z a-z 0-9 _ - */
static enum errc check_name(struct slice v, const struct chat_at *at, struct err *e)
{
	struct slice body = raw_body(v);
	enum errc rc = chat_want(v, CHAT_WANT_STRING, true, at, e);

	if (rc)
		return rc;
	for (size_t i = 0; i < body.n; i++) {
		char c = body.p[i];
		bool is_ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';

		if (!is_ok)
			return chat_fail(at, E_INVALID_VALUE, e, "may hold only letters, digits, _ and -");
	}
	if (body.n == 0 || body.n > NAME_MAX_CHARS)
		return chat_fail(at, E_INVALID_VALUE, e, "has %zu characters, allowed are 1 to %d", body.n, NAME_MAX_CHARS);
	return E_OK;
}

static enum errc want_string(struct slice v, bool is_required, const struct chat_at *up, const char *key, struct err *e)
{
	return chat_want(v, CHAT_WANT_STRING, is_required, &(struct chat_at){ up, key, 0 }, e);
}

static enum errc want_object(struct slice v, bool is_required, const struct chat_at *up, const char *key, struct err *e)
{
	return chat_want(v, CHAT_WANT_OBJECT, is_required, &(struct chat_at){ up, key, 0 }, e);
}

/* ---- messages ---- */

enum role { ROLE_SYSTEM, ROLE_DEVELOPER, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_FUNCTION, ROLE__COUNT };
static const char *const role_names[ROLE__COUNT] = { "system", "developer", "user", "assistant", "tool", "function" };

/* One part of a content array. Types that we do not know are the runner's business. */
static enum errc check_part(struct slice part, const struct chat_at *at, struct err *e)
{
	static const char *const keys[] = { "type", "text", "image_url", "input_audio", "file", "refusal" };
	static const enum chat_want wants[] = { CHAT_WANT_STRING, CHAT_WANT_STRING, CHAT_WANT_OBJECT, CHAT_WANT_OBJECT,
		CHAT_WANT_OBJECT, CHAT_WANT_STRING };
	struct slice v[ARRAY_LEN(keys)] = { { 0 } }, url = { 0 };
	enum errc rc = chat_want(part, CHAT_WANT_OBJECT, true, at, e);

	if (rc)
		return rc;
	pick(part, keys, v, ARRAY_LEN(keys));
	rc = want_string(v[0], true, at, "type", e);
	for (size_t i = 1; !rc && i < ARRAY_LEN(keys); i++) {
		if (raw_string_is(v[0], keys[i]))
			rc = chat_want(v[i], wants[i], true, &(struct chat_at){ at, keys[i], 0 }, e);
	}
	if (rc || !raw_string_is(v[0], "image_url"))
		return rc;
	(void)json_find_member(v[2], "url", &url);
	return want_string(url, true, &(struct chat_at){ at, "image_url", 0 }, "url", e);
}

static enum errc check_content(struct slice content, const struct chat_at *at, struct err *e)
{
	struct slice part;
	size_t pos = 0, i = 0;
	bool bad = false;
	enum errc rc = E_OK;

	if (raw_is_string(content))
		return E_OK;
	if (!raw_is_array(content))
		return chat_fail(at, E_INVALID_VALUE, e, "must be a string or an array of content parts");
	for (; !rc && json_next_element(content, &pos, &part, &bad); i++)
		rc = check_part(part, &(struct chat_at){ at, NULL, i }, e);
	return rc;
}

static enum errc check_call(struct slice call, const struct chat_at *at, struct err *e)
{
	static const char *const keys[] = { "type", "id", "function" }, *const inner[] = { "name", "arguments" };
	struct slice v[3] = { { 0 } }, f[2] = { { 0 } };
	struct chat_at in_function = { at, "function", 0 };
	enum errc rc = chat_want(call, CHAT_WANT_OBJECT, true, at, e);

	if (rc)
		return rc;
	pick(call, keys, v, 3);
	rc = want_string(v[0], false, at, "type", e);
	if (!rc)
		rc = want_string(v[1], false, at, "id", e);
	if (!rc && !raw_is_absent(v[0]) && !raw_string_is(v[0], "function"))
		return E_OK;
	if (!rc)
		rc = want_object(v[2], true, at, "function", e);
	if (rc)
		return rc;
	pick(v[2], inner, f, 2);
	rc = want_string(f[0], true, &in_function, "name", e);
	return rc ? rc : want_string(f[1], false, &in_function, "arguments", e);
}

static enum errc check_calls(struct slice calls, const struct chat_at *up, struct err *e)
{
	struct chat_at at = { up, "tool_calls", 0 };
	struct slice call;
	size_t pos = 0, i = 0;
	bool bad = false;
	enum errc rc = chat_want(calls, CHAT_WANT_ARRAY, false, &at, e);

	if (raw_is_absent(calls))
		return rc;
	for (; !rc && json_next_element(calls, &pos, &call, &bad); i++)
		rc = check_call(call, &(struct chat_at){ &at, NULL, i }, e);
	return rc;
}

static enum errc check_role(struct slice v, const struct chat_at *up, enum role *ret, struct err *e)
{
	struct chat_at at = { up, "role", 0 };
	enum errc rc = chat_want(v, CHAT_WANT_STRING, true, &at, e);

	if (rc)
		return rc;
	for (size_t i = 0; i < ROLE__COUNT; i++) {
		if (raw_string_is(v, role_names[i])) {
			*ret = (enum role)i;
			return E_OK;
		}
	}
	return chat_fail(&at, E_INVALID_VALUE, e, "must be one of system, developer, user, assistant, tool, function");
}

enum message_key { MK_ROLE, MK_CONTENT, MK_NAME, MK_CALLS, MK_CALL_ID, MK_FUNCTION_CALL, MK_REFUSAL, MK_AUDIO, MK__COUNT };

static enum errc check_message(struct slice text, const struct chat_at *at, struct chat_req *r, struct err *e)
{
	static const char *const keys[MK__COUNT] = { "role", "content", "name", "tool_calls", "tool_call_id", "function_call",
		"refusal", "audio" };
	struct chat_at at_content = { at, "content", 0 };
	struct slice v[MK__COUNT] = { { 0 } };
	enum role role = ROLE_USER;
	enum errc rc = chat_want(text, CHAT_WANT_OBJECT, true, at, e);

	if (rc)
		return rc;
	pick(text, keys, v, MK__COUNT);
	rc = check_role(v[MK_ROLE], at, &role, e);
	if (!rc)
		rc = want_string(v[MK_NAME], false, at, "name", e);
	if (!rc)
		rc = want_string(v[MK_CALL_ID], false, at, "tool_call_id", e);
	if (!rc)
		rc = check_calls(v[MK_CALLS], at, e);
	if (rc)
		return rc;

	/* an assistant that called a tool, or refused, need not have said anything */
	bool has_other = !raw_is_absent(v[MK_CALLS]) || !raw_is_absent(v[MK_FUNCTION_CALL]) || !raw_is_absent(v[MK_REFUSAL]) ||
			 !raw_is_absent(v[MK_AUDIO]);
	bool may_be_silent = role == ROLE_FUNCTION || (role == ROLE_ASSISTANT && has_other);

	if (raw_is_absent(v[MK_CONTENT])) {
		if (may_be_silent)
			return E_OK;
		return v[MK_CONTENT].n == 0 ? chat_fail(&at_content, E_MISSING_PARAMETER, e, "is required")
					    : chat_fail(&at_content, E_INVALID_VALUE, e, "must be a string or an array of content parts");
	}
	rc = check_content(v[MK_CONTENT], &at_content, e);
	if (rc)
		return rc;
	if (role == ROLE_USER)
		r->last_user = v[MK_CONTENT];
	if (role == ROLE_DEVELOPER)
		r->has_developer = true;
	return E_OK;
}

CHAT_CHECK(messages)
{
	struct slice message;
	size_t pos = 0, i = 0;
	bool bad = false;
	enum errc rc = chat_want(v, CHAT_WANT_ARRAY, true, at, e);

	(void)rule;
	for (; !rc && json_next_element(v, &pos, &message, &bad); i++)
		rc = check_message(message, &(struct chat_at){ at, NULL, i }, r, e);
	if (!rc && i == 0)
		return chat_fail(at, E_INVALID_VALUE, e, "must hold at least one message");
	return rc;
}

/* ---- tools ---- */

static enum errc check_function(struct slice function, const struct chat_at *up, struct err *e)
{
	static const char *const keys[] = { "name", "description", "parameters", "strict" };
	struct chat_at at = { up, "function", 0 };
	struct slice v[4] = { { 0 } };
	enum errc rc = chat_want(function, CHAT_WANT_OBJECT, true, &at, e);

	if (rc)
		return rc;
	pick(function, keys, v, 4);
	rc = check_name(v[0], &(struct chat_at){ &at, "name", 0 }, e);
	if (!rc)
		rc = want_string(v[1], false, &at, "description", e);
	if (!rc)
		rc = want_object(v[2], false, &at, "parameters", e);
	return rc ? rc : chat_want(v[3], CHAT_WANT_BOOL, false, &(struct chat_at){ &at, "strict", 0 }, e);
}

static enum errc check_tool(struct slice tool, const struct chat_at *at, struct chat_req *r, struct err *e)
{
	static const char *const keys[] = { "type", "function" };
	struct slice v[2] = { { 0 } };
	enum errc rc = chat_want(tool, CHAT_WANT_OBJECT, true, at, e);

	if (rc)
		return rc;
	pick(tool, keys, v, 2);
	rc = want_string(v[0], true, at, "type", e);
	if (rc)
		return rc;
	if (raw_string_is(v[0], "function"))
		return check_function(v[1], at, e);
	if (!raw_string_is(v[0], "custom"))
		return chat_fail(&(struct chat_at){ at, "type", 0 }, E_INVALID_VALUE, e, "must be function or custom");
	r->has_custom_tools = true; /* whether that goes is known when the agent is */
	return E_OK;
}

CHAT_CHECK(tools)
{
	struct slice tool;
	size_t pos = 0, i = 0;
	bool bad = false;
	enum errc rc = chat_want(v, CHAT_WANT_ARRAY, true, at, e);

	(void)rule;
	for (; !rc && json_next_element(v, &pos, &tool, &bad); i++)
		rc = check_tool(tool, &(struct chat_at){ at, NULL, i }, r, e);
	if (!rc)
		r->has_tools = i > 0;
	return rc;
}

CHAT_CHECK(tool_choice)
{
	static const char *const keys[] = { "type", "function", "allowed_tools" }, *const inner[] = { "mode", "tools" };
	struct slice o[3] = { { 0 } }, f = { 0 }, a[2] = { { 0 } };
	struct chat_at in_function = { at, "function", 0 }, in_allowed = { at, "allowed_tools", 0 };
	enum errc rc;

	(void)rule, (void)r;
	if (raw_string_is(v, "none") || raw_string_is(v, "auto") || raw_string_is(v, "required"))
		return E_OK;
	if (!raw_is_object(v))
		return chat_fail(at, E_INVALID_VALUE, e, "must be none, auto, required or an object");
	pick(v, keys, o, 3);
	rc = want_string(o[0], true, at, "type", e);
	if (rc || raw_string_is(o[0], "custom"))
		return rc;
	if (raw_string_is(o[0], "function")) {
		rc = want_object(o[1], true, at, "function", e);
		if (!rc)
			(void)json_find_member(o[1], "name", &f);
		return rc ? rc : want_string(f, true, &in_function, "name", e);
	}
	if (!raw_string_is(o[0], "allowed_tools"))
		return chat_fail(&(struct chat_at){ at, "type", 0 }, E_INVALID_VALUE, e, "must be function, allowed_tools or custom");
	rc = want_object(o[2], true, at, "allowed_tools", e);
	if (rc)
		return rc;
	pick(o[2], inner, a, 2);
	rc = want_string(a[0], true, &in_allowed, "mode", e);
	return rc ? rc : chat_want(a[1], CHAT_WANT_ARRAY, true, &(struct chat_at){ &in_allowed, "tools", 0 }, e);
}

/* ---- response_format ---- */

static enum errc check_schema(struct slice schema, const struct chat_at *up, struct err *e)
{
	static const char *const keys[] = { "name", "description", "schema", "strict" };
	struct chat_at at = { up, "json_schema", 0 };
	struct slice v[4] = { { 0 } };
	enum errc rc = chat_want(schema, CHAT_WANT_OBJECT, true, &at, e);

	if (rc)
		return rc;
	pick(schema, keys, v, 4);
	rc = check_name(v[0], &(struct chat_at){ &at, "name", 0 }, e);
	if (!rc)
		rc = want_string(v[1], false, &at, "description", e);
	if (!rc)
		rc = want_object(v[2], false, &at, "schema", e);
	return rc ? rc : chat_want(v[3], CHAT_WANT_BOOL, false, &(struct chat_at){ &at, "strict", 0 }, e);
}

CHAT_CHECK(response_format)
{
	static const char *const keys[] = { "type", "json_schema" };
	struct slice o[2] = { { 0 } };
	enum errc rc = chat_want(v, CHAT_WANT_OBJECT, true, at, e);

	(void)rule, (void)r;
	if (rc)
		return rc;
	pick(v, keys, o, 2);
	rc = want_string(o[0], true, at, "type", e);
	if (rc || raw_string_is(o[0], "text") || raw_string_is(o[0], "json_object"))
		return rc;
	if (raw_string_is(o[0], "json_schema"))
		return check_schema(o[1], at, e);
	return chat_fail(&(struct chat_at){ at, "type", 0 }, E_INVALID_VALUE, e, "must be text, json_object or json_schema");
}
