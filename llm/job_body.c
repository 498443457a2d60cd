/*
 * What a job asks of a runner: the chat request of the agent path, and Ollama's own request of the raw path
 * (llm-execution.md 1.2, 1.3, 3.3). Called by routes/node_job_create.c. Pure.
 *
 * Members of the request are copied as the bytes that they came in, so that a seed beyond 2^53 and the spelling of a
 * float survive. Roles that the protocol does not know become "user" as in the reference; images and the like are kept
 * for the runner to judge, not dropped.
 */
#include "llm/job_priv.h"
#include "llm/raw.h"

/* ---- the chat request ---- */

static bool is_known_role(struct slice role)
{
	static const char *const known[] = { "system", "developer", "user", "assistant", "tool", "function" };

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (slice_eq(role, slice_str(known[i])))
			return true;
	return false;
}

/* May a message of this role do without content? */
static bool needs_content(const struct json *message)
{
	const struct json *content = json_get(message, "content");

	if (json_is_string(content) || json_is_array(content))
		return false;
	return !json_is_array(json_get(message, "tool_calls")) && !json_is_object(json_get(message, "function_call"));
}

/* One message: as it is when it is right, else with role and content put right. */
static void put_message(struct put *w, struct slice raw, const struct json *m)
{
	bool is_role_known = is_known_role(json_slice(json_get(m, "role"))), is_bare = needs_content(m), is_bad = false;
	struct json_member member;
	size_t pos = 0;

	if (is_role_known && !is_bare) {
		put(w, raw);
		return;
	}
	PUT(w, "{\"role\":");
	if (!w->rc)
		w->rc = raw_quote(is_role_known ? json_slice(json_get(m, "role")) : SLICE("user"), w->b, w->e);
	if (is_bare)
		PUT(w, ",\"content\":\"\"");
	while (json_next_member(raw, &pos, &member, &is_bad))
		if (!raw_body_is(member.key, "role") && !(is_bare && raw_body_is(member.key, "content")))
			put_member(w, member);
	PUT(w, "}");
}

static void put_messages(struct put *w, struct slice raw, const struct json *messages)
{
	const struct json *m = json_first(messages);
	struct slice element;
	bool is_bad = false, is_first = true;
	size_t pos = 0;

	PUT(w, ",\"messages\":[");
	for (; m && json_next_element(raw, &pos, &element, &is_bad); m = json_next(m)) {
		if (!json_is_object(m))
			continue;
		if (!is_first)
			PUT(w, ",");
		is_first = false;
		put_message(w, element, m);
	}
	PUT(w, "]");
}

/* 1.3. A bare schema, or a wrapper without a name, gets the wrapper that servers expect (weakness 3). */
static void put_format(struct put *w, struct slice raw)
{
	struct slice type = { 0 }, wrapper = { 0 }, name = { 0 }, schema = { 0 };

	if (!raw_is_object(raw) || !json_find_member(raw, "type", &type))
		return;
	if (raw_string_is(type, "json_object")) {
		PUT(w, ",\"response_format\":");
		put(w, raw);
	}
	if (!raw_string_is(type, "json_schema"))
		return;
	PUT(w, ",\"response_format\":");
	if (!json_find_member(raw, "json_schema", &wrapper) || !raw_is_object(wrapper)) {
		PUT(w, "{\"type\":\"json_object\"}");
		return;
	}
	if (!json_find_member(wrapper, "schema", &schema) || !raw_is_object(schema))
		schema = wrapper;
	else if (json_find_member(wrapper, "name", &name) && raw_is_string(name) && !raw_is_empty_string(name)) {
		put(w, raw);
		return;
	}
	PUT(w, "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"response\",\"schema\":");
	put(w, schema);
	PUT(w, "}}");
}

/* Members that are written here, or that mean nothing in a job. */
static bool is_left_out(struct slice key, bool has_tools)
{
	static const char *const never[] = { "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n",
					     "response_format", "functions", "function_call" };
	static const char *const with_tools[] = { "tools", "tool_choice", "parallel_tool_calls" };

	for (size_t i = 0; i < ARRAY_LEN(never); i++)
		if (raw_body_is(key, never[i]))
			return true;
	for (size_t i = 0; !has_tools && i < ARRAY_LEN(with_tools); i++)
		if (raw_body_is(key, with_tools[i]))
			return true;
	return false;
}

/* A job has no schema: what is of a wrong type counts as absent. */
static bool is_usable(struct json_member m)
{
	static const char *const numbers[] = { "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "top_logprobs" };

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		if (raw_body_is(m.key, numbers[i]))
			return raw_kind_of(m.value) == RAW_NUMBER;
	if (raw_body_is(m.key, "stop"))
		return raw_is_string(m.value) || raw_is_array(m.value);
	return !raw_is_absent(m.value);
}

enum errc invocation_chat_body(const struct invocation *j, struct buf *out, struct err *e)
{
	struct put w = { .b = out, .e = e };
	const struct json *request = job_request(j), *tools = json_get(request, "tools");
	bool has_tools = json_is_array(tools) && json_count(tools) > 0, is_bad = false;
	struct slice raw = { 0 }, messages = { 0 }, format = { 0 };
	struct json_member m;
	size_t pos = 0;

	if (!json_find_member(j->text, "openai_request", &raw) || !json_find_member(raw, "messages", &messages) || !raw_is_array(messages))
		return err_set_param(e, E_MISSING_PARAMETER, "openai_request.messages", "openai_request.messages: required, an array");
	PUT(&w, "{\"model\":");
	if (!w.rc)
		w.rc = raw_quote(j->request_model, out, e);
	put_messages(&w, messages, json_get(request, "messages"));
	put(&w, j->is_stream ? SLICE(",\"stream\":true") : SLICE(",\"stream\":false"));
	while (json_next_member(raw, &pos, &m, &is_bad))
		if (!is_left_out(m.key, has_tools) && is_usable(m))
			put_member(&w, m);
	if (json_find_member(raw, "response_format", &format))
		put_format(&w, format);
	if (j->max_output_tokens > 0) {
		PUT(&w, ",\"max_tokens\":");
		put_i64(&w, j->max_output_tokens);
	}
	PUT(&w, "}");
	return w.rc;
}

/* ---- Ollama's own request ---- */

static const char *ollama_role(struct slice role)
{
	static const char *const kept[] = { "system", "user", "assistant", "tool" };

	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		if (slice_eq(role, slice_str(kept[i])))
			return kept[i];
	return slice_eq(role, SLICE("developer")) ? "system" : "user";
}

/* The base64 of an image part, empty for a text part. E_UNSUPPORTED_VALUE for what Ollama's chat cannot take. */
static enum errc image_of(const struct json *part, struct slice *ret, struct err *e)
{
	struct slice type = json_slice(json_get(part, "type")), url = json_slice(json_get(json_get(part, "image_url"), "url"));
	ptrdiff_t at = slice_find(url, SLICE(";base64,"));

	*ret = slice_of("", 0);
	if (!json_is_object(part) || slice_eq(type, SLICE("text")))
		return E_OK;
	if (!slice_eq(type, SLICE("image_url")) || !slice_starts_with_nocase(url, SLICE("data:image/")) || at < 0)
		return err_set(e, E_UNSUPPORTED_VALUE, "messages: a part of type \"" SLICE_FMT "\" cannot be sent to Ollama; images need a data URL",
			       SLICE_ARG(slice_cut_text(type, 40)));
	*ret = slice_from(url, (size_t)at + 8);
	return E_OK;
}

static enum errc write_images(struct jw *w, const struct json *content, struct err *e)
{
	bool has_images = false;

	for (const struct json *part = json_is_array(content) ? json_first(content) : NULL; part; part = json_next(part)) {
		struct slice image;
		enum errc rc = image_of(part, &image, e);

		if (rc)
			return rc;
		if (!image.n)
			continue;
		if (!has_images)
			jw_arr(w, "images");
		has_images = true;
		jw_slice(w, NULL, image);
	}
	if (has_images)
		jw_end(w);
	return E_OK;
}

static enum errc write_ollama_messages(struct jw *w, const struct json *messages, size_t max, struct err *e)
{
	AUTO_BUF text = BUF_MAX(max);
	enum errc rc = E_OK;

	jw_arr(w, "messages");
	for (const struct json *m = json_is_array(messages) ? json_first(messages) : NULL; m && !rc; m = json_next(m)) {
		if (!json_is_object(m))
			continue;
		buf_clear(&text);
		rc = job_content_text(json_get(m, "content"), &text, e);
		jw_obj(w, NULL);
		jw_str(w, "role", ollama_role(json_slice(json_get(m, "role"))));
		jw_slice(w, "content", buf_slice(&text));
		if (!rc)
			rc = write_images(w, json_get(m, "content"), e);
		jw_end(w);
	}
	jw_end(w);
	return rc;
}

static void write_ollama_format(struct jw *w, const struct json *format)
{
	const struct json *wrapper = json_get(format, "json_schema"), *schema = json_get(wrapper, "schema");
	struct slice type = json_slice(json_get(format, "type"));

	if (slice_eq(type, SLICE("json_object")))
		jw_str(w, "format", "json");
	if (!slice_eq(type, SLICE("json_schema")))
		return;
	if (!json_is_object(schema))
		schema = json_get(format, "schema");
	if (!json_is_object(schema))
		schema = wrapper;
	if (json_is_object(schema))
		jw_tree(w, "format", schema);
	else
		jw_str(w, "format", "json");
}

/* Ollama takes stop as a list only. */
static void write_stop(struct jw *w, const struct json *stop)
{
	if (json_is_array(stop))
		jw_tree(w, "stop", stop);
	if (!json_is_string(stop))
		return;
	jw_arr(w, "stop");
	jw_slice(w, NULL, json_slice(stop));
	jw_end(w);
}

static void write_options(struct jw *w, const struct invocation *j, const struct json *request)
{
	const struct json *temperature = json_get(request, "temperature"), *top_p = json_get(request, "top_p"), *stop = json_get(request, "stop");

	if (!json_is_number(temperature) && !json_is_number(top_p) && j->max_output_tokens < 1 && !json_is_string(stop) && !json_is_array(stop))
		return;
	jw_obj(w, "options");
	if (json_is_number(temperature))
		jw_tree(w, "temperature", temperature);
	if (json_is_number(top_p))
		jw_tree(w, "top_p", top_p);
	if (j->max_output_tokens > 0)
		jw_i64(w, "num_predict", j->max_output_tokens);
	write_stop(w, stop);
	jw_end(w);
}

enum errc invocation_ollama_body(const struct invocation *j, struct buf *out, struct err *e)
{
	const struct json *request = job_request(j);
	struct jw w = JW(out);
	enum errc rc;

	jw_obj(&w, NULL);
	jw_slice(&w, "model", j->model.n ? j->model : j->request_model);
	rc = write_ollama_messages(&w, json_get(request, "messages"), j->text.n + 1024, e);
	jw_bool(&w, "stream", false);
	write_ollama_format(&w, json_get(request, "response_format"));
	write_options(&w, j, request);
	jw_end(&w);
	return rc ? rc : jw_done(&w, e);
}
