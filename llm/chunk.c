/*
 * Writing the client's stream: the steps that repair.c tells become events. Called by the relay for each event of a
 * runner, on the loop that owns the stream.
 */
#include "llm/chunk.h"

#include "base/mem.h"
#include "llm/repair.h"

#define HEAD_MAX (16u * 1024)
#define TAIL_MAX (32u * 1024)

struct chunk {
	struct repair r;
	struct buf *out;               /* borrowed during a call, else NULL */
	struct buf model;              /* raw token */
	struct buf head;               /* data: {"id":…,"object":…,"created":…,"model":… */
	struct buf tail;               /* members of a usage event, kept for ours */
	struct buf prefix, suffix;     /* of the skeleton, on our side */
	size_t event_at, text_at, text_n; /* in out: the event written last and the text in it */
	bool wants_usage;
};

/* ---- pieces of an event ---- */

static enum errc make_head(struct chunk *c, struct err *e)
{
	struct put w = { &c->head, e, E_OK };

	PUT(&w, "data: {\"id\":");
	put(&w, buf_slice(&c->r.id));
	PUT(&w, ",\"object\":\"chat.completion.chunk\",\"created\":");
	put(&w, buf_slice(&c->r.created));
	PUT(&w, ",\"model\":");
	put(&w, buf_slice(&c->model));
	return w.rc;
}

static void put_members(struct put *w, const struct repair_members *m)
{
	for (size_t i = 0; i < m->n; i++)
		put_member(w, m->v[i]);
}

static struct put begin(struct chunk *c, struct err *e)
{
	struct put w = { c->out, e, E_OK };

	c->event_at = c->out->n;
	if (c->head.n == 0)
		w.rc = make_head(c, e);
	put(&w, buf_slice(&c->head));
	return w;
}

/* The members beside ours: those of the runner's event, or on events of our own the fingerprint alone. */
static void put_extra(struct chunk *c, struct put *w, bool is_own)
{
	if (!is_own) {
		put_members(w, &c->r.ev->extra);
	} else if (c->r.fingerprint.n) {
		PUT(w, ",\"system_fingerprint\":");
		put(w, buf_slice(&c->r.fingerprint));
	}
}

static struct put begin_choice(struct chunk *c, unsigned choice, bool is_own, struct err *e)
{
	struct put w = begin(c, e);

	put_extra(c, &w, is_own);
	PUT(&w, ",\"choices\":[{\"index\":");
	put_i64(&w, choice);
	PUT(&w, ",\"delta\":{");
	return w;
}

/* Line ends between the values of a runner that wrote prettily would end our line. */
static void flatten(struct chunk *c)
{
	for (size_t i = c->event_at; i < c->out->n; i++) {
		if (c->out->p[i] == '\n' || c->out->p[i] == '\r')
			c->out->p[i] = ' ';
	}
}

static enum errc end_event(struct chunk *c, struct put *w)
{
	if (!w->rc && c->r.ev->has_newline)
		flatten(c);
	PUT(w, "}\n\n");
	return w->rc;
}

static enum errc end_choice(struct chunk *c, struct put *w, const char *finish)
{
	if (finish) {
		PUT(w, ",\"finish_reason\":\"");
		put(w, slice_str(finish));
		PUT(w, "\"}]");
	} else {
		PUT(w, ",\"finish_reason\":null}]");
	}
	if (c->wants_usage)
		PUT(w, ",\"usage\":null");
	return end_event(c, w);
}

static void put_logprobs(struct put *w, struct slice logprobs)
{
	if (logprobs.n == 0)
		return;
	PUT(w, ",\"logprobs\":");
	put(w, logprobs);
}

/* ---- the steps ---- */

static enum errc on_top(void *sink, bool usage_only, struct err *e)
{
	struct chunk *c = sink;
	AUTO_BUF plain = BUF_MAX(TAIL_MAX);
	struct put w = { &plain, e, E_OK };

	if (!usage_only || !c->wants_usage || c->r.ev->extra.n == 0)
		return E_OK;
	put_members(&w, &c->r.ev->extra);
	buf_clear(&c->tail);
	if (w.rc == E_TOO_LARGE)
		return E_OK; /* nothing that a client needs */
	return w.rc ? w.rc : raw_compact(buf_slice(&plain), &c->tail, e);
}

static enum errc on_role(void *sink, unsigned choice, bool bare, struct err *e)
{
	struct chunk *c = sink;
	struct put w = begin_choice(c, choice, !bare, e);

	PUT(&w, "\"role\":\"assistant\",\"content\":\"\"}");
	return end_choice(c, &w, NULL);
}

static enum errc on_delta(void *sink, const struct repair_choice_in *in, bool has_extra, struct err *e)
{
	struct chunk *c = sink;
	struct put w = begin_choice(c, in->index, !has_extra, e);

	for (size_t i = 0; i < in->fields.n; i++) {
		if (i)
			PUT(&w, ",\"");
		else
			PUT(&w, "\"");
		put(&w, in->fields.v[i].key);
		PUT(&w, "\":");
		c->text_at = c->out->n + 1;
		c->text_n = raw_body(in->fields.v[i].value).n;
		put(&w, in->fields.v[i].value);
	}
	PUT(&w, "}");
	put_logprobs(&w, in->logprobs);
	if (has_extra)
		put_members(&w, &in->extra);
	return end_choice(c, &w, NULL);
}

static struct put begin_call(struct chunk *c, unsigned choice, size_t call, struct err *e)
{
	struct put w = begin_choice(c, choice, false, e);

	PUT(&w, "\"tool_calls\":[{\"index\":");
	put_i64(&w, (int64_t)call);
	return w;
}

static enum errc on_call(void *sink, unsigned choice, size_t call, struct slice id, struct slice name,
			 const struct repair_members *extra, struct err *e)
{
	struct chunk *c = sink;
	struct put w = begin_call(c, choice, call, e);

	PUT(&w, ",\"id\":");
	put(&w, id);
	PUT(&w, ",\"type\":\"function\",\"function\":{\"name\":");
	put(&w, name);
	PUT(&w, ",\"arguments\":\"\"}");
	put_members(&w, extra);
	PUT(&w, "}]}");
	return end_choice(c, &w, NULL);
}

static enum errc on_custom(void *sink, unsigned choice, size_t call, const struct repair_members *m, struct err *e)
{
	struct chunk *c = sink;
	struct put w = begin_call(c, choice, call, e);

	put_members(&w, m);
	PUT(&w, "}]}");
	return end_choice(c, &w, NULL);
}

static enum errc on_args(void *sink, unsigned choice, size_t call, struct slice token, struct err *e)
{
	struct chunk *c = sink;
	struct put w = begin_call(c, choice, call, e);

	PUT(&w, ",\"function\":{\"arguments\":");
	put(&w, token);
	PUT(&w, "}}]}");
	return end_choice(c, &w, NULL);
}

static enum errc on_finish(void *sink, const struct repair_choice_in *in, const char *reason, bool with_logprobs, struct err *e)
{
	struct chunk *c = sink;
	struct put w = begin_choice(c, in->index, false, e);

	PUT(&w, "}");
	if (with_logprobs)
		put_logprobs(&w, in->logprobs);
	put_members(&w, &in->extra);
	return end_choice(c, &w, reason);
}

static enum errc on_learn(void *sink, const struct repair_choice_in *in, struct err *e)
{
	struct chunk *c = sink;
	size_t text_end = c->text_at + c->text_n;
	enum errc rc;

	(void)in;
	buf_clear(&c->prefix);
	buf_clear(&c->suffix);
	rc = buf_add(&c->prefix, c->out->p + c->event_at, c->text_at - c->event_at, e);
	return rc ? rc : buf_add(&c->suffix, c->out->p + text_end, c->out->n - text_end, e);
}

static enum errc on_text(void *sink, struct slice body, struct err *e)
{
	struct chunk *c = sink;
	size_t a = c->prefix.n, z = c->suffix.n;
	char *to;
	enum errc rc = buf_reserve(c->out, a + body.n + z, &to, e);

	if (rc)
		return rc;
	memcpy(to, c->prefix.p, a);
	memcpy(to + a, body.p, body.n);
	memcpy(to + a + body.n, c->suffix.p, z);
	buf_wrote(c->out, a + body.n + z);
	return E_OK;
}

static enum errc on_done(void *sink, struct err *e)
{
	struct chunk *c = sink;
	struct put w = { c->out, e, E_OK };

	if (c->wants_usage && c->r.usage_raw.n) {
		w = begin(c, e);
		if (c->tail.n)
			put(&w, buf_slice(&c->tail));
		else
			put_extra(c, &w, true);
		PUT(&w, ",\"choices\":[],\"usage\":");
		put(&w, buf_slice(&c->r.usage_raw));
		w.rc = end_event(c, &w);
	}
	PUT(&w, "data: [DONE]\n\n");
	return w.rc;
}

static const struct repair_ops chunk_ops = {
	.top = on_top, .role = on_role, .delta = on_delta, .call = on_call, .custom = on_custom, .args = on_args,
	.finish = on_finish, .learn = on_learn, .text = on_text, .done = on_done,
};

/* ---- the door ---- */

enum errc chunk_new(const struct chunk_opts *o, struct chunk **ret, struct err *e)
{
	struct chunk *c = NEW(struct chunk);
	enum errc rc;

	if (!c)
		return err_set(e, E_NO_MEMORY, "no memory for a stream");
	c->wants_usage = o->wants_usage;
	buf_init(&c->model, HEAD_MAX / 2);
	buf_init(&c->head, HEAD_MAX);
	buf_init(&c->tail, TAIL_MAX);
	buf_init(&c->prefix, HEAD_MAX + 2 * REPAIR_SKELETON_MAX);
	buf_init(&c->suffix, HEAD_MAX + 2 * REPAIR_SKELETON_MAX);
	rc = repair_init(&c->r, &chunk_ops, c, o->id, o->created_s, e);
	if (!rc)
		rc = raw_quote(o->model, &c->model, e);
	if (rc) {
		chunk_free(c);
		return rc;
	}
	*ret = c;
	return E_OK;
}

void chunk_free(struct chunk *c)
{
	if (!c)
		return;
	repair_done(&c->r);
	buf_done(&c->model);
	buf_done(&c->head);
	buf_done(&c->tail);
	buf_done(&c->prefix);
	buf_done(&c->suffix);
	mem_free(c);
}

/* Whole events or none: what a failed step has begun is taken back. */
static enum errc leave(struct chunk *c, size_t before, enum errc rc)
{
	if (rc == E_TOO_LARGE || rc == E_NO_MEMORY)
		buf_truncate(c->out, before);
	c->out = NULL;
	return rc;
}

enum errc chunk_event(struct chunk *c, const struct sse_event *ev, struct buf *out, struct chat_error *ce, struct err *e)
{
	size_t before = out->n;

	c->out = out;
	return leave(c, before, repair_take(&c->r, ev, ce, e));
}

enum errc chunk_finish(struct chunk *c, struct buf *out, struct chat_error *ce, struct err *e)
{
	size_t before = out->n;

	c->out = out;
	return leave(c, before, repair_finish(&c->r, ce, e));
}

enum errc chunk_from_reply(struct chunk *c, struct slice reply, struct buf *out, struct chat_error *ce, struct err *e)
{
	size_t before = out->n;

	c->out = out;
	return leave(c, before, repair_take_reply(&c->r, reply, ce, e));
}

bool chunk_is_done(const struct chunk *c) { return c->r.is_done; }
bool chunk_has_output(const struct chunk *c) { return c->r.has_output; }
const struct chat_usage *chunk_usage(const struct chunk *c) { return &c->r.usage; }
uint64_t chunk_fast_count(const struct chunk *c) { return c->r.fast_count; }
void chunk_be_careful(struct chunk *c) { c->r.is_careful = true; }
