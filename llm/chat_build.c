/*
 * Writing the runner's request from the client's: members are copied raw, a few are ours (llm-execution.md 3.1, 8.5).
 * Called once for each try of a request, any thread.
 */
#include "llm/chat_priv.h"

#define EXTRA_MAX 64

/* A grammar for any JSON object, for runners that take GBNF and no response_format. */
static const char json_grammar[] =
	"root ::= object\n"
	"value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
	"object ::= \"{\" gap (member (\",\" gap member)*)? \"}\"\n"
	"member ::= string \":\" gap value gap\n"
	"array ::= \"[\" gap (value gap (\",\" gap value gap)*)? \"]\"\n"
	"string ::= \"\\\"\" char* \"\\\"\"\n"
	"char ::= [^\"\\\\\\x00-\\x1F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" hex hex hex hex)\n"
	"hex ::= [0-9a-fA-F]\n"
	"number ::= \"-\"? (\"0\" | [1-9] [0-9]*) (\".\" [0-9]+)? ([eE] [-+]? [0-9]+)?\n"
	"gap ::= [ \\t\\n]?\n";

struct build {
	const struct chat_req *r;
	const struct chat_build *b;
	struct put w;
	bool has_member;
	bool has_grammar;              /* the client sent one of its own */
	struct slice m[CHAT_M__COUNT];
	struct json_member extra[EXTRA_MAX]; /* of the agent's extra body */
	size_t extra_count;
	uint64_t is_taken;             /* bit per extra: the body has that member already */
};

static enum upstream_kind kind_of(const struct agent *a) { return a->up ? a->up->kind : UPSTREAM_OPENAI; }

static void write_key(struct build *d, struct slice key)
{
	if (d->has_member)
		PUT(&d->w, ",\"");
	else
		PUT(&d->w, "\"");
	d->has_member = true;
	put(&d->w, key);
	PUT(&d->w, "\":");
	for (size_t i = 0; i < d->extra_count; i++) {
		if (slice_eq(d->extra[i].key, key))
			d->is_taken |= UINT64_C(1) << i;
	}
}

static void write_text(struct build *d, struct slice text)
{
	if (!d->w.rc)
		d->w.rc = raw_quote(text, d->w.b, d->w.e);
}

/* ---- messages ---- */

/* What a model without constrained output is told, as the first message. */
static enum errc write_instruction(struct build *d, struct slice format)
{
	struct slice wrapper = { 0 }, schema = { 0 };
	AUTO_BUF text = BUF_MAX(format.n + 1024);
	struct put t = { &text, d->w.e, E_OK };

	PUT(&t, "Constraint on the form of your answer: reply with exactly one JSON object and nothing else. "
		"No code fences, no reasoning, no words before or after it.");
	if (json_find_member(format, "json_schema", &wrapper)) {
		if (!json_find_member(wrapper, "schema", &schema) || !raw_is_object(schema))
			schema = wrapper;
		PUT(&t, " The object must be valid under this JSON Schema: ");
		if (!t.rc)
			t.rc = raw_compact(schema, &text, d->w.e);
	}
	if (t.rc)
		return t.rc;
	PUT(&d->w, "{\"role\":\"system\",\"content\":");
	write_text(d, buf_slice(&text));
	PUT(&d->w, "}");
	return d->w.rc;
}

/* A message whose role is developer, for a runner that does not know it: the value alone is replaced. */
static void write_message(struct build *d, struct slice message)
{
	struct slice role = { 0 };
	struct json_member m;
	size_t pos = 0;
	bool bad = false;

	while (json_next_member(message, &pos, &m, &bad)) {
		if (raw_body_is(m.key, "role"))
			role = m.value;
	}
	if (!raw_string_is(role, "developer")) {
		put(&d->w, message);
		return;
	}
	put(&d->w, slice_cut(message, (size_t)(role.p - message.p)));
	PUT(&d->w, "\"system\"");
	put(&d->w, slice_from(message, (size_t)(role.p - message.p) + role.n));
}

static void write_messages(struct build *d, bool is_instructed)
{
	struct slice messages = d->m[CHAT_M_MESSAGES], message;
	bool rewrites = d->r->has_developer && kind_of(d->b->agent) != UPSTREAM_OPENAI, is_first = !is_instructed, bad = false;
	size_t pos = 0;

	write_key(d, SLICE("messages"));
	if (!rewrites && !is_instructed) {
		put(&d->w, messages);
		return;
	}
	PUT(&d->w, "[");
	if (is_instructed)
		d->w.rc = d->w.rc ? d->w.rc : write_instruction(d, d->m[CHAT_M_RESPONSE_FORMAT]);
	while (json_next_element(messages, &pos, &message, &bad)) {
		if (!is_first)
			PUT(&d->w, ",");
		is_first = false;
		if (rewrites)
			write_message(d, message);
		else
			put(&d->w, message);
	}
	PUT(&d->w, "]");
}

/* ---- members that are ours ---- */

/* Returns whether the messages must say it in words. */
static bool write_format(struct build *d)
{
	struct slice format = d->m[CHAT_M_RESPONSE_FORMAT], type = { 0 };

	if (format.n == 0 || !json_find_member(format, "type", &type))
		return false;
	bool is_text = raw_string_is(type, "text"), is_schema = raw_string_is(type, "json_schema");

	switch (d->b->agent->format) {
	case FORMAT_OPENAI:
	case FORMAT_JSON_SCHEMA:
		write_key(d, SLICE("response_format"));
		put(&d->w, format);
		return false;
	case FORMAT_JSON_OBJECT:
		write_key(d, SLICE("response_format"));
		put(&d->w, is_schema ? SLICE("{\"type\":\"json_object\"}") : format);
		return false;
	case FORMAT_GBNF:
		if (is_text || d->has_grammar)
			return false;
		write_key(d, SLICE("grammar"));
		write_text(d, slice_str(json_grammar));
		return false;
	case FORMAT_PROMPT_ONLY:
		return !is_text;
	case FORMAT_NONE:
		return false;
	}
	return false;
}

static void write_limit(struct build *d)
{
	int64_t limit = d->r->max_tokens > 0 ? d->r->max_tokens : d->b->agent->max_output_tokens;
	int64_t cap = d->b->owner_max_tokens;

	if (cap > 0 && (limit <= 0 || limit > cap))
		limit = cap;
	if (limit <= 0)
		return;
	write_key(d, SLICE("max_tokens"));
	put_i64(&d->w, limit);
}

static void write_ours(struct build *d)
{
	if (d->b->agent->sends_model) {
		write_key(d, SLICE("model"));
		write_text(d, slice_str(d->b->agent->model));
	}
	write_messages(d, write_format(d));
	write_limit(d);
	if (d->r->n > 1) {
		write_key(d, SLICE("n"));
		put_i64(&d->w, d->r->n);
	}
	write_key(d, SLICE("stream"));
	if (!d->b->as_stream) {
		PUT(&d->w, "false");
		return;
	}
	PUT(&d->w, "true");
	write_key(d, SLICE("stream_options"));
	PUT(&d->w, "{\"include_usage\":true}");
}

/* ---- the agent's extra body ---- */

/* What an agent's configuration may never set (2.5). */
static bool is_reserved(struct slice key)
{
	static const char *const reserved[] = { "model", "messages", "stream", "stream_options", "tools", "tool_choice",
		"response_format", "max_tokens", "temperature" };

	for (size_t i = 0; i < ARRAY_LEN(reserved); i++) {
		if (slice_eq_nocase(key, slice_str(reserved[i])))
			return true;
	}
	return false;
}

static void read_extra(struct build *d)
{
	struct slice text = slice_str(d->b->agent->extra_body);
	struct json_member m;
	size_t pos = 0;
	bool bad = false;

	if (text.n == 0)
		return;
	while (d->extra_count < EXTRA_MAX && json_next_member(text, &pos, &m, &bad)) {
		if (!is_reserved(m.key))
			d->extra[d->extra_count++] = m;
	}
	if (bad)
		d->extra_count = 0; /* broken configuration must not break every request */
}

static void write_extra(struct build *d)
{
	for (size_t i = 0; i < d->extra_count; i++) {
		if (d->is_taken >> i & 1)
			continue;
		write_key(d, d->extra[i].key);
		put(&d->w, d->extra[i].value);
	}
}

/* ---- all together ---- */

static enum errc on_unknown(void *ctx, struct json_member m, struct err *e)
{
	struct build *d = ctx;

	(void)e; /* the writer has it */
	d->has_grammar = d->has_grammar || raw_body_is(m.key, "grammar");
	write_key(d, m.key);
	put(&d->w, m.value);
	return d->w.rc;
}

static bool serves_n(enum upstream_kind kind) { return kind == UPSTREAM_OPENAI || kind == UPSTREAM_VLLM || kind == UPSTREAM_SGLANG; }

static enum errc check_agent(const struct chat_req *r, const struct agent *a, struct err *e)
{
	if (r->has_tools && !a->supports_tools)
		return err_set_param(e, E_UNSUPPORTED_VALUE, "tools", "tools: the model %s does not take tools", r->model);
	if (r->has_custom_tools && kind_of(a) != UPSTREAM_OPENAI)
		return err_set_param(e, E_UNSUPPORTED_VALUE, "tools", "tools: the model %s takes tools of type function only", r->model);
	if (r->n > 1 && !serves_n(kind_of(a)))
		return err_set_param(e, E_UNSUPPORTED_VALUE, "n", "n: the model %s gives one choice only", r->model);
	return E_OK;
}

enum errc chat_build(const struct chat_req *r, const struct chat_build *b, struct buf *out, struct err *e)
{
	struct build d = { .r = r, .b = b, .w = { .b = out, .e = e } };
	struct chat_scan scan = { .unknown = on_unknown, .ctx = &d };
	enum errc rc = check_agent(r, b->agent, e);

	if (rc)
		return rc;
	read_extra(&d);
	PUT(&d.w, "{");
	rc = chat_scan(r->text, &scan, e);
	if (rc)
		return rc;
	memcpy(d.m, scan.m, sizeof d.m);
	for (unsigned i = 0; i < CHAT_M__COUNT; i++) {
		if (d.m[i].n && chat_member_fate((enum chat_member)i) == CHAT_FORWARD) {
			write_key(&d, chat_member_key((enum chat_member)i));
			put(&d.w, d.m[i]);
		}
	}
	write_ours(&d);
	write_extra(&d);
	PUT(&d.w, "}");
	return d.w.rc;
}
