/*
 * The demo agent: gives back the words that it was given, one at a time, and says of itself that it is no model. Speaks
 * the way a runner does, through a transfer's callbacks, so that all that stands behind is exercised for real.
 * Used by llm/call.c, on its loop.
 */
#include "llm/call_priv.h"

#include "base/clock.h"
#include "base/crypto.h"
#include "base/jw.h"
#include "base/mem.h"

#include <stdio.h>

#define DEMO_WORD_MS 20
#define DEMO_TEXT_MAX (64u * 1024)
static const char preface[] = "(mswarm demo, not a model) ";

struct demo {
	struct loop *loop;
	struct loop_timer tick;
	const struct httpc_ops *ops;       /* borrowed, of the call */
	void *ctx;
	struct buf text;                   /* what is said: preface and words */
	size_t said;                       /* bytes of text sent so far */
	struct buf out;                    /* one event, or the plain reply */
	char model[81];
	char id[34];
	int64_t created_s, prompt_words, said_words;
	int64_t max_words;                 /* -1: all */
	bool as_stream, is_head_sent, is_paused, is_last_sent, is_in_callback, is_dead;
};

static int64_t count_words(struct slice s)
{
	int64_t n = 0;
	bool is_in = false;

	for (size_t i = 0; i < s.n; i++) {
		bool is_blank = s.p[i] == ' ' || (s.p[i] >= '\t' && s.p[i] <= '\r');

		n += !is_blank && !is_in;
		is_in = !is_blank;
	}
	return n;
}

/* Text of a content token: a string, or the text parts of an array. */
static enum errc add_content(struct slice token, struct buf *out, struct err *e)
{
	struct slice part, text;
	size_t pos = 0;
	bool is_bad = false;

	if (token.n && token.p[0] == '"')
		return json_unquote(token, out, e);
	if (!token.n || token.p[0] != '[')
		return E_OK;
	while (json_next_element(token, &pos, &part, &is_bad)) {
		if (!json_find_member(part, "text", &text) || !text.n || text.p[0] != '"')
			continue;
		if (json_unquote(text, out, e) || buf_add_str(out, " ", e))
			return e->code;
	}
	return E_OK;
}

static enum errc count_prompt(struct demo *d, const struct chat_req *chat, struct err *e)
{
	AUTO_BUF text = BUF_MAX(chat->text.n + 1024);
	struct slice messages, one, content;
	size_t pos = 0;
	bool is_bad = false;

	if (!json_find_member(chat->text, "messages", &messages))
		return E_OK;
	while (json_next_element(messages, &pos, &one, &is_bad)) {
		if (!json_find_member(one, "content", &content))
			continue;
		buf_clear(&text);
		if (add_content(content, &text, e))
			return e->code;
		d->prompt_words += count_words(buf_slice(&text));
	}
	return E_OK;
}

static void begin_chunk(struct demo *d, struct jw *w, const char *object)
{
	jw_obj(w, NULL);
	jw_str(w, "id", d->id);
	jw_str(w, "object", object);
	jw_i64(w, "created", d->created_s);
	jw_str(w, "model", d->model);
}

static void write_usage(struct demo *d, struct jw *w)
{
	jw_obj(w, "usage");
	jw_i64(w, "prompt_tokens", d->prompt_words);
	jw_i64(w, "completion_tokens", d->said_words);
	jw_i64(w, "total_tokens", d->prompt_words + d->said_words);
	jw_end(w);
}

static const char *finish_reason(const struct demo *d)
{
	return d->max_words >= 0 && d->said < d->text.n ? "length" : "stop";
}

/* The next word with the blanks before it; empty when all is said. */
static struct slice next_word(struct demo *d)
{
	struct slice rest = slice_from(buf_slice(&d->text), d->said);
	size_t n = 0;

	if (d->max_words >= 0 && d->said_words >= d->max_words)
		return slice_of("", 0);
	while (n < rest.n && rest.p[n] == ' ')
		n++;
	while (n < rest.n && rest.p[n] != ' ')
		n++;
	d->said += n;
	d->said_words += count_words(slice_cut(rest, n));
	return slice_cut(rest, n);
}

static void write_event(struct demo *d, struct slice word, bool is_last)
{
	struct jw w = JW(&d->out);
	struct err e = { 0 };

	buf_clear(&d->out);
	if (buf_add_str(&d->out, "data: ", &e))
		return;
	begin_chunk(d, &w, "chat.completion.chunk");
	jw_arr(&w, "choices");
	jw_obj(&w, NULL);
	jw_i64(&w, "index", 0);
	jw_obj(&w, "delta");
	if (d->said_words <= 1 && !is_last)
		jw_str(&w, "role", "assistant");
	if (!is_last)
		jw_slice(&w, "content", word);
	jw_end(&w);
	jw_str(&w, "finish_reason", is_last ? finish_reason(d) : NULL);
	jw_end(&w);
	jw_end(&w);
	if (is_last)
		write_usage(d, &w);
	jw_end(&w);
	if (jw_done(&w, &e) || buf_add_str(&d->out, is_last ? "\n\ndata: [DONE]\n\n" : "\n\n", &e))
		buf_clear(&d->out);
}

static void write_reply(struct demo *d)
{
	struct jw w = JW(&d->out);
	struct err e = { 0 };

	while (next_word(d).n)
		continue;
	begin_chunk(d, &w, "chat.completion");
	jw_arr(&w, "choices");
	jw_obj(&w, NULL);
	jw_i64(&w, "index", 0);
	jw_obj(&w, "message");
	jw_str(&w, "role", "assistant");
	jw_slice(&w, "content", slice_cut(buf_slice(&d->text), d->said));
	jw_end(&w);
	jw_str(&w, "finish_reason", finish_reason(d));
	jw_end(&w);
	jw_end(&w);
	write_usage(d, &w);
	jw_end(&w);
	if (jw_done(&w, &e))
		buf_clear(&d->out);
}

static void demo_free(struct demo *d)
{
	loop_timer_cancel(d->loop, &d->tick);
	buf_done(&d->text);
	buf_done(&d->out);
	mem_free(d);
}

static void send_head(struct demo *d)
{
	struct httpc_head h = { .status = 200, .content_length = -1,
				.content_type = d->as_stream ? SLICE("text/event-stream") : SLICE("application/json") };

	d->is_head_sent = true;
	d->ops->on_head(d->ctx, &h);
}

static void step(struct demo *d)
{
	struct slice word;

	if (!d->is_head_sent)
		send_head(d);
	if (d->is_dead || d->is_last_sent)
		return;
	if (!d->out.n) {
		if (d->as_stream) {
			word = next_word(d);
			d->is_last_sent = !word.n;
			write_event(d, word, !word.n);
		} else {
			write_reply(d);
			d->is_last_sent = true;
		}
	}
	if (d->ops->on_data(d->ctx, buf_slice(&d->out)) == HTTPC_PAUSE) {
		d->is_paused = true;
		d->is_last_sent = false;
		return;
	}
	buf_clear(&d->out);
}

static void on_tick(struct loop_timer *t)
{
	struct demo *d = CONTAINER_OF(t, struct demo, tick);
	struct err e = { 0 };

	d->is_in_callback = true;
	step(d);
	if (!d->is_dead && d->is_last_sent) {
		d->ops->on_done(d->ctx, E_OK, HTTPC_BODY, &e);
		d->is_dead = true;
	}
	d->is_in_callback = false;
	if (d->is_dead)
		demo_free(d);
	else if (!d->is_paused)
		loop_timer_set(d->loop, &d->tick, loop_now_ms(d->loop) + DEMO_WORD_MS);
}

enum errc demo_start(struct loop *l, const struct chat_req *chat, const char *model, bool as_stream,
		     const struct httpc_ops *ops, void *ctx, struct demo **ret, struct err *e)
{
	struct demo *d = NEW(struct demo);

	if (!d)
		return err_set(e, E_NO_MEMORY, "no memory for the demo");
	d->loop = l;
	d->ops = ops;
	d->ctx = ctx;
	d->as_stream = as_stream;
	d->created_s = clock_wall_ms() / 1000;
	d->max_words = chat->max_tokens;
	d->tick.fn = on_tick;
	snprintf(d->model, sizeof(d->model), "%s", model);
	memcpy(d->id, "chatcmpl-", 9);
	crypto_random_id(d->id + 9, 24);
	buf_init(&d->text, chat->text.n + DEMO_TEXT_MAX);
	buf_init(&d->out, 2 * chat->text.n + DEMO_TEXT_MAX);
	if (count_prompt(d, chat, e) || buf_add_str(&d->text, preface, e) || add_content(chat->last_user, &d->text, e)) {
		demo_free(d);
		return e->code;
	}
	loop_timer_set(l, &d->tick, loop_now_ms(l));
	*ret = d;
	return E_OK;
}

void demo_resume(struct demo *d)
{
	d->is_paused = false;
	loop_timer_set(d->loop, &d->tick, loop_now_ms(d->loop));
}

void demo_cancel(struct demo *d)
{
	if (!d)
		return;
	d->is_dead = true;
	if (!d->is_in_callback)
		demo_free(d);
}
