/*
 * What a job comes to: the result object (llm-execution.md 1.7, 4.3, 4.4) and the frames of its stream that do not come
 * from a runner (4.2, 3.3). Called by routes/node_job_create.c. Pure.
 */
#include "llm/job_priv.h"

#include "base/clock.h"
#include "base/mem.h"
#include "llm/raw.h"

#define OLLAMA_LIMITS ((struct json_limits){ .max_bytes = 64u << 20, .max_depth = 64 })

/* What a completion says, in the pieces that the result needs. */
struct answer {
	struct slice message;              /* raw object, or empty */
	struct slice content;              /* decoded text, when there is no message */
	struct slice finish_reason;        /* raw string token, or empty: stop */
	struct slice raw;                  /* Ollama's reply */
	struct chat_usage usage;
	struct json *tree;                 /* that content points into, or NULL */
};

static void answer_done(struct answer *a)
{
	json_free(a->tree);
}
#define AUTO_ANSWER CLEANUP(answer_done) struct answer

/* ---- reading ---- */

static void read_completion(struct slice completion, struct answer *ret)
{
	struct slice choices = { 0 }, choice = { 0 };
	bool is_bad = false;
	size_t pos = 0;

	if (!json_find_member(completion, "choices", &choices) || !json_next_element(choices, &pos, &choice, &is_bad))
		return;
	(void)!json_find_member(choice, "message", &ret->message);
	(void)!json_find_member(choice, "finish_reason", &ret->finish_reason);
	if (!raw_is_object(ret->message))
		ret->message = (struct slice){ 0 };
	if (!raw_is_string(ret->finish_reason))
		ret->finish_reason = (struct slice){ 0 };
}

bool job_is_ollama_reply(struct slice reply)
{
	AUTO_JSON tree = NULL;
	struct err ignored;

	return !json_parse(reply, OLLAMA_LIMITS, &tree, &ignored) && json_is_object(tree) && !json_is_string(json_get(tree, "error"));
}

static enum errc read_ollama(struct slice reply, struct answer *ret, struct err *e)
{
	enum errc rc = json_parse(reply, OLLAMA_LIMITS, &ret->tree, e);
	int64_t prompt = 0, completion = 0;
	bool has_prompt, has_completion;

	if (rc || !json_is_object(ret->tree))
		return err_set(e, E_UPSTREAM, "Ollama answered with something that is no JSON object");
	has_prompt = json_i64(json_get(ret->tree, "prompt_eval_count"), &prompt);
	has_completion = json_i64(json_get(ret->tree, "eval_count"), &completion);
	ret->content = json_slice(json_get(json_get(ret->tree, "message"), "content"));
	if (slice_eq(json_slice(json_get(ret->tree, "done_reason")), SLICE("length")))
		ret->finish_reason = SLICE("\"length\"");
	ret->raw = slice_trim(reply);
	ret->usage = (struct chat_usage){ .is_known = has_prompt || has_completion, .prompt_tokens = prompt,
					  .completion_tokens = completion, .total_tokens = prompt + completion };
	return E_OK;
}

/* ---- openai_response ---- */

static enum errc write_id(struct jw *w, const struct invocation *j, struct err *e)
{
	AUTO_BUF id = BUF_MAX(j->request_id.n + 16);
	enum errc rc = buf_add_str(&id, "chatcmpl-", e);

	if (!rc)
		rc = buf_add_slice(&id, j->request_id, e);
	if (!rc)
		jw_slice(w, "id", buf_slice(&id));
	return rc;
}

static bool uses_tools(const struct agent *a)
{
	return a->is_supports_tools_known && a->supports_tools;
}

static const char *mode_name(const struct job_result *r)
{
	if (!r->job->allows_tools)
		return "freeform";
	return uses_tools(r->agent) ? "tool_loop" : "protocol_loop";
}

static void write_metadata(struct jw *w, const struct job_result *r, const struct answer *a)
{
	jw_obj(w, "metadata");
	if (!r->agent) {
		jw_str(w, "provider", "ollama");
		jw_raw(w, "raw", a->raw);
		jw_end(w);
		return;
	}
	jw_str(w, "provider", r->agent->provider);
	jw_str(w, "adapter", r->agent->adapter);
	jw_str(w, "local_model", r->agent->model);
	jw_str(w, "agent_slug", r->agent->slug);
	jw_slice(w, "codali_run_id", r->job->request_id);
	jw_i64(w, "tool_calls_executed", 0);
	jw_arr(w, "touched_files");
	jw_end(w);
	jw_arr(w, "warnings");
	jw_end(w);
	jw_str(w, "mode", mode_name(r));
	jw_end(w);
}

static void write_count(struct jw *w, const char *key, bool is_known, int64_t v)
{
	if (is_known)
		jw_i64(w, key, v);
	else
		jw_null(w, key);
}

static void write_choices(struct jw *w, const struct answer *a)
{
	jw_arr(w, "choices");
	jw_obj(w, NULL);
	jw_i64(w, "index", 0);
	if (a->message.n) {
		jw_raw(w, "message", a->message);
	} else {
		jw_obj(w, "message");
		jw_str(w, "role", "assistant");
		jw_slice(w, "content", a->content);
		jw_end(w);
	}
	jw_raw(w, "finish_reason", a->finish_reason.n ? a->finish_reason : SLICE("\"stop\""));
	jw_end(w);
	jw_end(w);
}

static enum errc write_response(struct jw *w, const struct job_result *r, const struct answer *a, struct err *e)
{
	enum errc rc;

	jw_obj(w, "openai_response");
	rc = write_id(w, r->job, e);
	if (rc)
		return rc;
	jw_str(w, "object", "chat.completion");
	jw_i64(w, "created", r->now_wall_ms / 1000);
	jw_slice(w, "model", r->job->request_model);
	write_choices(w, a);
	jw_obj(w, "usage");
	write_count(w, "prompt_tokens", a->usage.is_known, a->usage.prompt_tokens);
	write_count(w, "completion_tokens", a->usage.is_known, a->usage.completion_tokens);
	write_count(w, "total_tokens", a->usage.is_known, a->usage.total_tokens);
	jw_i64(w, "cost_cents", 0);
	jw_end(w);
	write_metadata(w, r, a);
	jw_end(w);
	return E_OK;
}

/* ---- the result ---- */

static void open_event(struct jw *w, const struct job_result *r, const char *type)
{
	jw_obj(w, NULL);
	jw_str(w, "type", type);
	jw_slice(w, "job_id", r->job->job_id);
	jw_slice(w, "request_id", r->job->request_id);
}

static void close_event(struct jw *w, int64_t at_wall_ms)
{
	char at[CLOCK_ISO_LEN];

	clock_iso(at_wall_ms, at);
	jw_str(w, "at", at);
	jw_end(w);
}

/* 4.4, agent path only: nothing is recorded before the job was started. */
static void write_progress(struct jw *w, const struct job_result *r)
{
	if (!r->agent || !r->is_started)
		return;
	jw_arr(w, "progress_events");
	open_event(w, r, "agent_selected");
	jw_str(w, "agent_slug", r->agent->slug);
	jw_str(w, "adapter", r->agent->adapter);
	jw_bool(w, "supports_tools", uses_tools(r->agent));
	jw_end(w);
	open_event(w, r, "status");
	jw_str(w, "phase", "thinking");
	close_event(w, r->now_wall_ms - r->latency_ms);
	if (r->error) {
		open_event(w, r, "error");
		jw_str(w, "message", r->error->message);
		jw_str(w, "code", "Error");
		close_event(w, r->now_wall_ms);
	}
	jw_end(w);
}

static void write_usage(struct jw *w, const struct answer *a)
{
	jw_obj(w, "usage");
	jw_i64(w, "prompt_tokens", a->usage.prompt_tokens);
	jw_i64(w, "completion_tokens", a->usage.completion_tokens);
	jw_i64(w, "total_tokens", a->usage.prompt_tokens + a->usage.completion_tokens);
	jw_end(w);
}

static void write_error(struct jw *w, const struct job_error *je)
{
	jw_obj(w, "error");
	jw_str(w, "code", je->code[0] ? je->code : "upstream_error");
	jw_str(w, "message", je->message[0] ? je->message : "Self-hosted job failed");
	jw_end(w);
}

static enum errc read_answer(const struct job_result *r, struct answer *a, struct err *e)
{
	if (r->job->is_ollama)
		return read_ollama(r->completion, a, e);
	read_completion(r->completion, a);
	if (r->usage && r->usage->is_known)
		a->usage = *r->usage;
	return E_OK;
}

enum errc job_result_json(const struct job_result *r, struct buf *out, struct err *e)
{
	AUTO_ANSWER a = { 0 };
	struct jw w = JW(out);
	enum errc rc = r->error ? E_OK : read_answer(r, &a, e);

	if (rc)
		return rc;
	jw_obj(&w, NULL);
	jw_slice(&w, "job_id", r->job->job_id);
	jw_slice(&w, "request_id", r->job->request_id);
	jw_str(&w, "status", r->error ? "failed" : "success");
	if (r->error && !r->is_started)
		jw_bool(&w, "pre_start_failure", true);
	if (!r->error)
		rc = write_response(&w, r, &a, e);
	if (rc)
		return rc;
	if (r->stream_events.n)
		jw_raw(&w, "stream_events", r->stream_events);
	write_progress(&w, r);
	if (r->error)
		write_error(&w, r->error);
	else
		write_usage(&w, &a);
	if (!r->is_wrong_node) {
		jw_obj(&w, "timing");
		jw_i64(&w, "local_latency_ms", r->latency_ms);
		jw_end(&w);
	}
	if (r->node_id.n)
		jw_slice(&w, "node_id", r->node_id);
	jw_end(&w);
	return jw_done(&w, e);
}

/* ---- frames of the stream ---- */

enum errc job_error_frame(const struct job_error *je, struct buf *out, struct err *e)
{
	struct jw w = JW(out);
	enum errc rc = buf_add_str(out, "data: ", e);

	if (rc)
		return rc;
	jw_obj(&w, NULL);
	jw_str(&w, "object", "error");
	write_error(&w, je);
	jw_end(&w);
	rc = jw_done(&w, e);
	return rc ? rc : buf_add_str(out, "\n\n", e);
}

static enum errc add_chunk(const struct invocation *j, const struct answer *a, bool is_last, int64_t created_s, struct buf *out,
			   struct err *e)
{
	struct jw w = JW(out);
	enum errc rc = buf_add_str(out, "data: ", e);

	if (rc)
		return rc;
	jw_obj(&w, NULL);
	rc = write_id(&w, j, e);
	if (rc)
		return rc;
	jw_str(&w, "object", "chat.completion.chunk");
	jw_i64(&w, "created", created_s);
	jw_slice(&w, "model", j->request_model);
	jw_arr(&w, "choices");
	jw_obj(&w, NULL);
	jw_i64(&w, "index", 0);
	jw_obj(&w, "delta");
	if (!is_last) {
		jw_str(&w, "role", "assistant");
		jw_slice(&w, "content", a->content);
	}
	jw_end(&w);
	jw_raw(&w, "finish_reason", !is_last ? SLICE("null") : a->finish_reason.n ? a->finish_reason : SLICE("\"stop\""));
	jw_end(&w);
	jw_end(&w);
	jw_end(&w);
	rc = jw_done(&w, e);
	return rc ? rc : buf_add_str(out, "\n\n", e);
}

enum errc job_ollama_chunks(const struct invocation *j, struct slice reply, int64_t now_wall_ms, struct buf *out, struct err *e)
{
	AUTO_ANSWER a = { 0 };
	enum errc rc = read_ollama(reply, &a, e);

	if (!rc)
		rc = add_chunk(j, &a, false, now_wall_ms / 1000, out, e);
	return rc ? rc : add_chunk(j, &a, true, now_wall_ms / 1000, out, e);
}
