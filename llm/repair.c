/*
 * Reading the events of a runner: the fast path, the top of an event, its choices, its end. Called by chunk.c and
 * completion.c on the thread of their owner. Tool calls are in repair_calls.c.
 */
#include "llm/repair.h"

#include "base/crypto.h"
#include "base/mem.h"
#include "llm/chat_priv.h"

#include <stdio.h>

#define TOKEN_MAX 512                  /* id, created, system_fingerprint */
#define USAGE_MAX 4096
#define SCRATCH_MAX (64u << 20)        /* arguments that came as an object, escaped */

enum errc repair_fail(struct chat_error *ce, struct err *e, const char *text)
{
	chat_error_upstream(ce, "%s", text);
	return err_set(e, E_UPSTREAM, "%s", text);
}

static enum errc fail_by_value(struct chat_error *ce, struct err *e, struct slice value)
{
	chat_error_from_value(0, value, ce);
	return err_set(e, E_UPSTREAM, "the runner reported: %.150s", ce->message);
}

void repair_keep(struct repair_members *to, struct json_member m)
{
	for (size_t i = 0; i < to->n; i++) {
		if (slice_eq(to->v[i].key, m.key)) { /* twice: the last counts */
			to->v[i].value = m.value;
			return;
		}
	}
	/* no runner escapes the names of members; who does could slip one of ours past us */
	if (to->n < REPAIR_MEMBERS && !memchr(m.key.p, '\\', m.key.n))
		to->v[to->n++] = m;
}

enum errc repair_init(struct repair *r, const struct repair_ops *ops, void *sink, struct slice id, int64_t created_s, struct err *e)
{
	*r = (struct repair){ .ops = ops, .sink = sink, .created_s = created_s };
	buf_init(&r->id, TOKEN_MAX);
	buf_init(&r->created, TOKEN_MAX);
	buf_init(&r->fingerprint, TOKEN_MAX);
	buf_init(&r->usage_raw, USAGE_MAX);
	buf_init(&r->scratch, SCRATCH_MAX);
	buf_init(&r->prefix, REPAIR_SKELETON_MAX);
	buf_init(&r->suffix, REPAIR_SKELETON_MAX);
	return id.n ? raw_quote(id, &r->id, e) : E_OK;
}

void repair_done(struct repair *r)
{
	for (size_t i = 0; i < CHAT_N_MAX; i++)
		mem_free(r->choice[i].call);
	buf_done(&r->id);
	buf_done(&r->created);
	buf_done(&r->fingerprint);
	buf_done(&r->usage_raw);
	buf_done(&r->scratch);
	buf_done(&r->prefix);
	buf_done(&r->suffix);
}

/* ---- the fast path ---- */

/* Is this the inside of a string token? Rare forms are left to the careful path: false. */
static bool is_plain_body(struct slice s)
{
	bool is_ascii = true;

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '\\') {
			if (++i == s.n || !memchr("\"\\/bfnrt", s.p[i], 8))
				return false; /* also \u: surrogates want a closer look */
		} else if (c < 0x20 || c == '"') {
			return false;
		}
		is_ascii = is_ascii && c < 0x80;
	}
	return is_ascii || slice_is_utf8(s);
}

static bool match(const struct repair *r, struct slice data, struct slice *ret_body)
{
	size_t a = r->prefix.n, z = r->suffix.n;

	if (a == 0 || r->is_careful || data.n < a + z || memcmp(data.p, r->prefix.p, a) != 0 || memcmp(data.p + data.n - z, r->suffix.p, z) != 0)
		return false;
	*ret_body = slice_of(data.p + a, data.n - a - z);
	return is_plain_body(*ret_body);
}

static enum errc learn(struct repair *r, struct slice data, const struct repair_choice_in *in, struct err *e)
{
	struct slice body = raw_body(in->fields.v[0].value);
	size_t a = (size_t)(body.p - data.p), z = data.n - a - body.n;
	enum errc rc;

	buf_clear(&r->prefix);
	buf_clear(&r->suffix);
	if (a > REPAIR_SKELETON_MAX || z > REPAIR_SKELETON_MAX)
		return E_OK;
	rc = buf_add(&r->suffix, data.p + a + body.n, z, e);
	if (!rc)
		rc = r->ops->learn(r->sink, in, e);
	return rc ? rc : buf_add(&r->prefix, data.p, a, e);
}

/* ---- the top of an event ---- */

static bool read_event(struct slice data, struct repair_event *ev)
{
	static const struct { struct slice key; size_t offset; } known[] = {
#define KNOWN(name, member) { { name, sizeof(name) - 1 }, offsetof(struct repair_event, member) }
		KNOWN("choices", choices), KNOWN("id", id), KNOWN("created", created), KNOWN("usage", usage),
		KNOWN("object", object), KNOWN("error", error), KNOWN("model", extra) /* dropped: ours is written */
#undef KNOWN
	};
	struct json_member m;
	size_t pos = 0;
	bool bad = false;

	while (json_next_member(data, &pos, &m, &bad)) {
		size_t i = 0;

		while (i < ARRAY_LEN(known) && !raw_key_is(m.key, known[i].key))
			i++;
		if (i == ARRAY_LEN(known))
			repair_keep(&ev->extra, m);
		else if (known[i].offset != offsetof(struct repair_event, extra))
			*(struct slice *)(void *)((char *)ev + known[i].offset) = m.value;
	}
	return !bad;
}

static enum errc keep_token(struct buf *to, struct slice token, struct err *e)
{
	return token.n <= TOKEN_MAX ? buf_add_slice(to, token, e) : E_OK;
}

/* What is the same in all chunks is fixed by the first one. */
static enum errc keep_identity(struct repair *r, struct err *e)
{
	const struct repair_event *ev = r->ev;
	int64_t seconds;
	enum errc rc = E_OK;

	if (r->id.n == 0 && raw_is_string(ev->id) && !raw_is_empty_string(ev->id))
		rc = keep_token(&r->id, ev->id, e);
	if (!rc && r->id.n == 0) {
		char id[25];

		crypto_random_id(id, 24);
		rc = buf_addf(&r->id, e, "\"chatcmpl-%s\"", id);
	}
	if (!rc && r->created.n == 0) {
		if (!raw_to_i64(ev->created, 1, INT64_MAX, &seconds))
			seconds = r->created_s;
		rc = buf_addf(&r->created, e, "%lld", (long long)seconds);
	}
	for (size_t i = 0; !rc && r->fingerprint.n == 0 && i < ev->extra.n; i++) {
		if (raw_key_is(ev->extra.v[i].key, SLICE("system_fingerprint")) && raw_is_string(ev->extra.v[i].value))
			rc = keep_token(&r->fingerprint, ev->extra.v[i].value, e);
	}
	return rc;
}

/* The last usage that was sent counts. Integers only; what is no usage is no error, but not passed on either. */
static enum errc keep_usage(struct repair *r, struct slice usage, struct err *e)
{
	struct slice v[3] = { { 0 } };
	struct chat_usage u = { .is_known = true };
	bool has_prompt, has_completion, has_total;

	if (!raw_is_object(usage) || usage.n > USAGE_MAX)
		return E_OK;
	(void)json_find_member(usage, "prompt_tokens", &v[0]);
	(void)json_find_member(usage, "completion_tokens", &v[1]);
	(void)json_find_member(usage, "total_tokens", &v[2]);
	has_prompt = raw_to_i64(v[0], 0, INT64_MAX / 2, &u.prompt_tokens);
	has_completion = raw_to_i64(v[1], 0, INT64_MAX / 2, &u.completion_tokens);
	has_total = raw_to_i64(v[2], 0, INT64_MAX, &u.total_tokens);
	if (!has_prompt && !has_completion)
		return E_OK;
	buf_clear(&r->usage_raw);
	r->usage = u;
	if (has_prompt && has_completion && has_total)
		return raw_compact(usage, &r->usage_raw, e);
	if (!has_total)
		r->usage.total_tokens = u.prompt_tokens + u.completion_tokens;
	return buf_addf(&r->usage_raw, e, "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld}",
			(long long)u.prompt_tokens, (long long)u.completion_tokens, (long long)r->usage.total_tokens);
}

/* ---- choices ---- */

static void read_delta(struct slice delta, struct repair_choice_in *in)
{
	struct json_member m;
	size_t pos = 0;
	bool bad = false;

	while (json_next_member(delta, &pos, &m, &bad)) {
		if (raw_is_absent(m.value) || raw_key_is(m.key, SLICE("role")))
			continue;
		if (!raw_key_is(m.key, SLICE("tool_calls")))
			repair_keep(&in->fields, m);
		else if (raw_is_array(m.value))
			in->tool_calls = m.value;
	}
}

static enum errc read_choice(struct slice raw, size_t position, struct repair_choice_in *in, struct chat_error *ce, struct err *e)
{
	struct slice index = { 0 }, delta = { 0 };
	struct json_member m;
	size_t pos = 0;
	bool bad = false;
	int64_t v = (int64_t)position;

	while (json_next_member(raw, &pos, &m, &bad)) {
		if (raw_key_is(m.key, SLICE("delta")) || raw_key_is(m.key, SLICE("message")))
			delta = raw_is_object(m.value) ? m.value : delta;
		else if (raw_key_is(m.key, SLICE("index")))
			index = m.value;
		else if (raw_key_is(m.key, SLICE("finish_reason")))
			in->finish = raw_is_absent(m.value) ? (struct slice){ 0 } : m.value;
		else if (raw_key_is(m.key, SLICE("logprobs")))
			in->logprobs = m.value;
		else
			repair_keep(&in->extra, m);
	}
	if (!raw_is_absent(index) && !raw_to_i64(index, 0, CHAT_N_MAX - 1, &v))
		return repair_fail(ce, e, "the runner sent a choice with a wrong index");
	if (v >= CHAT_N_MAX)
		return repair_fail(ce, e, "the runner sent too many choices");
	in->index = (unsigned)v;
	if (delta.n)
		read_delta(delta, in);
	return E_OK;
}

/* Runners' words for the ends that the API knows; NULL: an error. */
static const char *map_finish(struct slice finish, bool has_calls)
{
	static const struct { const char *from, *to; } rows[] = {
		{ "stop", "stop" }, { "length", "length" }, { "tool_calls", "tool_calls" }, { "content_filter", "content_filter" },
		{ "function_call", "function_call" }, { "max_tokens", "length" }, { "max_length", "length" }, { "max_new_tokens", "length" },
		{ "tool_use", "tool_calls" }, { "tool_call", "tool_calls" }, { "function", "tool_calls" }, { "safety", "content_filter" },
		/* cut off for any reason: what is there is not the whole answer */
		{ "abort", "length" }, { "aborted", "length" }, { "cancelled", "length" }, { "canceled", "length" }, { "timeout", "length" },
		{ "error", NULL },
	};
	struct slice type = { 0 };
	const char *to = "stop"; /* eos, eos_token, end_turn, stop_sequence, and what else there may be */

	if (raw_is_object(finish) && json_find_member(finish, "type", &type))
		finish = type;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (raw_string_is(finish, rows[i].from)) {
			to = rows[i].to;
			break;
		}
	}
	return to && has_calls && strcmp(to, "stop") == 0 ? "tool_calls" : to;
}

static bool is_blank(const struct repair_choice_in *in)
{
	const struct json_member *only = &in->fields.v[0];

	return in->fields.n == 0 || (in->fields.n == 1 && raw_key_is(only->key, SLICE("content")) && raw_is_empty_string(only->value));
}

static enum errc finish_choice(struct repair *r, const struct repair_choice_in *in, bool with_logprobs, struct chat_error *ce,
			       struct err *e)
{
	struct repair_choice *ch = &r->choice[in->index];
	const char *reason = map_finish(in->finish, ch->calls > 0);
	enum errc rc;

	if (!reason)
		return repair_fail(ce, e, "the runner ended with the finish_reason error");
	rc = repair_calls_close(r, in->index, e);
	if (!rc)
		rc = r->ops->finish(r->sink, in, reason, with_logprobs, e);
	ch->is_finished = true;
	return rc;
}

static bool is_pure_text(const struct repair *r, const struct repair_choice_in *in)
{
	return in->fields.n == 1 && raw_is_string(in->fields.v[0].value) && in->tool_calls.n == 0 && in->finish.n == 0 &&
	       raw_is_absent(in->logprobs) && raw_is_absent(r->ev->usage);
}

/* The steps of one choice, in the order that clients want. *ret_is_text: it was one step of text. */
static enum errc take_choice(struct repair *r, const struct repair_choice_in *in, bool *ret_is_text, struct chat_error *ce, struct err *e)
{
	struct repair_choice *ch = &r->choice[in->index];
	bool is_new = !ch->has_role, ends = in->finish.n && !ch->is_finished, has_logprobs = !raw_is_absent(in->logprobs);
	bool has_text = in->fields.n && !((ends || is_new) && is_blank(in)), has_delta = has_text || (has_logprobs && !ends);
	enum errc rc = E_OK;

	if (is_new) {
		ch->has_role = true;
		rc = r->ops->role(r->sink, in->index, !has_delta && !in->tool_calls.n && !ends, e);
	}
	if (!rc && has_delta)
		rc = r->ops->delta(r->sink, in, !ends, e);
	if (!rc && has_delta && !is_blank(in))
		r->has_output = true;
	if (!rc && in->tool_calls.n)
		rc = repair_calls(r, in->index, in->tool_calls, ce, e);
	if (!rc && ends)
		rc = finish_choice(r, in, !has_delta, ce, e);
	*ret_is_text = has_delta && is_pure_text(r, in);
	return rc;
}

static bool has_choices(const struct repair_event *ev)
{
	struct slice first;
	size_t pos = 0;
	bool bad = false;

	return raw_is_array(ev->choices) && json_next_element(ev->choices, &pos, &first, &bad);
}

static enum errc take_choices(struct repair *r, struct slice data, struct chat_error *ce, struct err *e)
{
	struct repair_choice_in in;
	struct slice raw;
	size_t pos = 0, n = 0;
	bool bad = false, is_text = false;
	enum errc rc = E_OK;

	for (; !rc && json_next_element(r->ev->choices, &pos, &raw, &bad); n++) {
		in = (struct repair_choice_in){ .index = 0 };
		if (!raw_is_object(raw))
			return repair_fail(ce, e, "the runner sent a choice that is no object");
		rc = read_choice(raw, n, &in, ce, e);
		if (!rc && r->is_reply && in.finish.n == 0)
			in.finish = SLICE("\"stop\"");
		if (!rc)
			rc = take_choice(r, &in, &is_text, ce, e);
	}
	if (!rc && n == 1 && is_text && !r->is_reply)
		rc = learn(r, data, &in, e);
	return rc;
}

/* ---- the whole ---- */

static enum errc take_object(struct repair *r, struct slice data, struct chat_error *ce, struct err *e)
{
	struct json_limits lim = { .max_bytes = data.n, .max_depth = 64 };
	struct repair_event *ev = r->ev;
	enum errc rc;

	if (json_check(data, lim, e) || !raw_is_object(data))
		return repair_fail(ce, e, r->is_reply ? "the runner's answer is no JSON object" : "the runner sent an event that is no JSON object");
	*ev = (struct repair_event){ .has_newline = memchr(data.p, '\n', data.n) || memchr(data.p, '\r', data.n) };
	r->event_no++;
	if (!read_event(data, ev))
		return repair_fail(ce, e, "the runner sent an event that is no JSON object");
	if ((!raw_is_absent(ev->error) && !raw_is_empty_string(ev->error)) || raw_string_is(ev->object, "error"))
		return fail_by_value(ce, e, data);
	if (!raw_is_array(ev->choices) && (r->is_reply || raw_is_absent(ev->usage)))
		return repair_fail(ce, e, r->is_reply ? "the runner's answer has no choices" : "the runner sent an event that is no chunk");
	rc = keep_identity(r, e);
	if (!rc)
		rc = keep_usage(r, ev->usage, e);
	if (!rc)
		rc = r->ops->top(r->sink, !has_choices(ev) && !raw_is_absent(ev->usage), e);
	if (!rc && raw_is_array(ev->choices))
		rc = take_choices(r, data, ce, e);
	return rc;
}

static enum errc finish(struct repair *r, struct chat_error *ce, struct err *e);

static enum errc take(struct repair *r, const struct sse_event *ev, struct chat_error *ce, struct err *e)
{
	struct slice data = ev->data, body;

	if (r->is_done)
		return E_OK;
	if (ev->error.n || slice_eq(ev->event, SLICE("error"))) {
		struct slice text = slice_trim(ev->error.n ? ev->error : data);
		struct json_limits lim = { .max_bytes = text.n, .max_depth = 64 };

		if (json_check(text, lim, e)) /* plain words */
			return repair_fail(ce, e, "the runner reported an error in its stream");
		return fail_by_value(ce, e, text);
	}
	if (match(r, data, &body)) {
		r->fast_count++;
		r->has_output = r->has_output || body.n > 0;
		return r->ops->text(r->sink, body, e);
	}
	data = slice_trim(data);
	if (data.n == 0)
		return E_OK;
	if (slice_eq(data, SLICE("[DONE]")))
		return finish(r, ce, e);
	return take_object(r, data, ce, e);
}

static enum errc finish(struct repair *r, struct chat_error *ce, struct err *e)
{
	bool has_any = false;

	if (r->is_done)
		return E_OK;
	for (size_t i = 0; i < CHAT_N_MAX; i++) {
		has_any = has_any || r->choice[i].is_finished;
		if (r->choice[i].has_role && !r->choice[i].is_finished)
			return repair_fail(ce, e, "the runner's stream ended without a finish_reason");
	}
	if (!has_any)
		return repair_fail(ce, e, r->is_reply ? "the runner's answer has no choices" : "the runner's stream ended without a finish_reason");
	/* calls that came after the end of their choice still want arguments */
	for (unsigned i = 0; i < CHAT_N_MAX; i++) {
		enum errc rc = repair_calls_close(r, i, e);

		if (rc)
			return rc;
	}
	r->is_done = true;
	*r->ev = (struct repair_event){ .has_newline = false };
	return r->ops->done(r->sink, e);
}

enum errc repair_take(struct repair *r, const struct sse_event *ev, struct chat_error *ce, struct err *e)
{
	struct repair_event read;      /* a kilobyte that need not stay between two events, nor be cleared for most */
	enum errc rc;

	read.has_newline = false;
	read.extra.n = 0;
	r->ev = &read;
	rc = take(r, ev, ce, e);
	r->ev = NULL;
	return rc;
}

enum errc repair_finish(struct repair *r, struct chat_error *ce, struct err *e)
{
	struct repair_event none = { .has_newline = false };
	enum errc rc;

	r->ev = &none;
	rc = finish(r, ce, e);
	r->ev = NULL;
	return rc;
}

enum errc repair_take_reply(struct repair *r, struct slice reply, struct chat_error *ce, struct err *e)
{
	struct repair_event read = { .has_newline = false };
	enum errc rc;

	r->ev = &read;
	if (slice_starts_with(reply, SLICE("\xef\xbb\xbf")))
		reply = slice_from(reply, 3);
	r->is_reply = true;
	rc = take_object(r, slice_trim(reply), ce, e);
	/* what stands beside the choices of a plain reply belongs to its end too */
	rc = rc ? rc : finish(r, ce, e);
	r->ev = NULL;
	return rc;
}
