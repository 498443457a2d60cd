/* The reply of a joined or mended answer, as llm-execution.md 8.5.1 has it. Called by completion.c only. */
#include "llm/completion_priv.h"

static void put_buf(struct put *w, const struct buf *b) { put(w, buf_slice(b)); }

static void put_field(struct put *w, const struct join_field *f)
{
	PUT(w, ",\"");
	put_buf(w, &f->key);
	PUT(w, "\":");
	put_buf(w, &f->value);
	if (f->is_text)
		PUT(w, "\"");
}

static void put_call(struct put *w, const struct join_call *c)
{
	if (c->is_custom) {
		PUT(w, "{");
		put(w, slice_from(buf_slice(&c->extra), 1)); /* without the first comma */
		PUT(w, "}");
		return;
	}
	PUT(w, "{\"id\":");
	put_buf(w, &c->id);
	PUT(w, ",\"type\":\"function\",\"function\":{\"name\":");
	put_buf(w, &c->name);
	PUT(w, ",\"arguments\":");
	put_buf(w, &c->args);
	PUT(w, "\"}");
	put_buf(w, &c->extra);
	PUT(w, "}");
}

/* null where nothing but calls (or a refusal) is the answer, else a string. */
static void put_content(struct put *w, struct join_choice *ch)
{
	struct join_field *f = join_find(&ch->message, SLICE("content"));
	bool is_empty = !f || (f->is_text && f->value.n <= 1);
	bool is_silent = ch->calls || join_find(&ch->message, SLICE("refusal")) || join_find(&ch->message, SLICE("function_call"));

	if (!is_empty)
		put_field(w, f);
	else if (is_silent)
		PUT(w, ",\"content\":null");
	else
		PUT(w, ",\"content\":\"\"");
}

static void put_message(struct put *w, struct join_choice *ch)
{
	PUT(w, "\"message\":{\"role\":\"assistant\"");
	put_content(w, ch);
	if (!join_find(&ch->message, SLICE("refusal")))
		PUT(w, ",\"refusal\":null");
	for (size_t i = 0; i < ch->message.n; i++) {
		if (!slice_eq(buf_slice(&ch->message.v[i].key), SLICE("content")))
			put_field(w, &ch->message.v[i]);
	}
	for (size_t i = 0; i < ch->calls; i++) {
		if (i == 0)
			PUT(w, ",\"tool_calls\":[");
		else
			PUT(w, ",");
		put_call(w, &ch->call[i]);
	}
	if (ch->calls)
		PUT(w, "]");
	PUT(w, "}");
}

static void put_logprobs(struct put *w, const struct join_choice *ch)
{
	PUT(w, ",\"logprobs\":");
	if (ch->logprobs.n) {
		PUT(w, "{\"content\":[");
		put_buf(w, &ch->logprobs);
		PUT(w, "],\"refusal\":null}");
	} else if (ch->logprobs_raw.n) {
		put_buf(w, &ch->logprobs_raw);
	} else {
		PUT(w, "null");
	}
}

static void put_choices(struct put *w, struct completion *j)
{
	bool is_first = true;

	PUT(w, ",\"choices\":[");
	for (size_t i = 0; i < CHAT_N_MAX; i++) {
		struct join_choice *ch = j->choice[i];

		if (!ch)
			continue;
		if (!is_first)
			PUT(w, ",");
		is_first = false;
		PUT(w, "{\"index\":");
		put_i64(w, (int64_t)i);
		PUT(w, ",");
		put_message(w, ch);
		put_logprobs(w, ch);
		PUT(w, ",\"finish_reason\":\"");
		put(w, slice_str(ch->finish));
		PUT(w, "\"");
		for (size_t k = 0; k < ch->extra.n; k++)
			put_field(w, &ch->extra.v[k]);
		PUT(w, "}");
	}
	PUT(w, "]");
}

enum errc completion_write(struct completion *j, struct buf *out, struct err *e)
{
	size_t before = out->n;
	struct put w = { out, e, E_OK };

	PUT(&w, "{\"id\":");
	put_buf(&w, &j->r.id);
	PUT(&w, ",\"object\":\"chat.completion\",\"created\":");
	put_buf(&w, &j->r.created);
	PUT(&w, ",\"model\":");
	put_buf(&w, &j->model);
	put_choices(&w, j);
	if (j->r.usage_raw.n) {
		PUT(&w, ",\"usage\":");
		put_buf(&w, &j->r.usage_raw);
	}
	for (size_t i = 0; i < j->extra->n; i++)
		put_field(&w, &j->extra->v[i]);
	PUT(&w, "}");
	if (w.rc)
		buf_truncate(out, before);
	return w.rc;
}
