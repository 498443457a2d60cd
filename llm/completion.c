/*
 * Joining a stream into one reply, and mending a plain one: the steps that repair.c tells are gathered. Called by the
 * relay and by jobs, on the thread that owns the join.
 */
#include "llm/completion_priv.h"

#include "base/mem.h"

#define REPLY_SPARE 65536              /* what a mended reply may hold beyond the one that came */

/* ---- bags ---- */

struct join_field *join_find(struct join_bag *bag, struct slice key)
{
	for (size_t i = 0; i < bag->n; i++) {
		if (slice_eq(buf_slice(&bag->v[i].key), key))
			return &bag->v[i];
	}
	return NULL;
}

static void bag_done(struct join_bag *bag)
{
	for (size_t i = 0; i < bag->n; i++) {
		buf_done(&bag->v[i].key);
		buf_done(&bag->v[i].value);
	}
}

/* What the API concatenates over deltas; any other member is replaced. */
static bool is_text_key(struct slice key)
{
	static const char *const keys[] = { "content", "refusal", "reasoning_content", "reasoning", "thinking" };

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (slice_eq(key, slice_str(keys[i])))
			return true;
	}
	return false;
}

static enum errc grow(struct completion *j, struct buf *to, struct slice s, struct err *e)
{
	if (s.n > j->max - j->total)
		return err_set(e, E_TOO_LARGE, "the answer is larger than %zu bytes", j->max);
	j->total += s.n;
	return buf_add_slice(to, s, e);
}

/* A text field holds a string token whose closing quote is still to come. */
static enum errc field_put(struct completion *j, struct join_field *f, struct slice value, struct err *e)
{
	enum errc rc;

	if (f->is_text && raw_is_string(value)) {
		rc = f->value.n ? E_OK : buf_add(&f->value, "\"", 1, e);
		return rc ? rc : grow(j, &f->value, raw_body(value), e);
	}
	f->is_text = false;
	buf_clear(&f->value);
	return buf_add_slice(&f->value, value, e);
}

static enum errc bag_put(struct completion *j, struct join_bag *bag, struct json_member m, struct join_field **ret, struct err *e)
{
	struct join_field *f = join_find(bag, m.key);
	enum errc rc = E_OK;

	if (!f && bag->n == REPAIR_MEMBERS)
		return E_OK; /* as in a stream: what is beyond is dropped */
	if (!f) {
		f = &bag->v[bag->n++];
		buf_init(&f->key, j->max);
		buf_init(&f->value, j->max);
		f->is_text = is_text_key(m.key) && raw_is_string(m.value);
		rc = buf_add_slice(&f->key, m.key, e);
	}
	if (ret)
		*ret = f;
	return rc ? rc : field_put(j, f, m.value, e);
}

static enum errc bag_put_all(struct completion *j, struct join_bag *bag, const struct repair_members *m, struct err *e)
{
	enum errc rc = E_OK;

	for (size_t i = 0; i < m->n && !rc; i++)
		rc = bag_put(j, bag, m->v[i], NULL, e);
	return rc;
}

/* ---- choices ---- */

static enum errc choice_get(struct completion *j, unsigned index, struct join_choice **ret, struct err *e)
{
	struct join_choice *ch = j->choice[index];

	if (!ch) {
		ch = NEW(struct join_choice);
		if (!ch)
			return err_set(e, E_NO_MEMORY, "no memory for a choice");
		buf_init(&ch->logprobs, j->max);
		buf_init(&ch->logprobs_raw, j->max);
		j->choice[index] = ch;
	}
	*ret = ch;
	return E_OK;
}

static void choice_free(struct join_choice *ch)
{
	if (!ch)
		return;
	bag_done(&ch->message);
	bag_done(&ch->extra);
	buf_done(&ch->logprobs);
	buf_done(&ch->logprobs_raw);
	for (size_t i = 0; i < ch->calls; i++) {
		buf_done(&ch->call[i].id);
		buf_done(&ch->call[i].name);
		buf_done(&ch->call[i].args);
		buf_done(&ch->call[i].extra);
	}
	mem_free(ch->call);
	mem_free(ch);
}

/* The token lists of the pieces become one list; a form that has none is kept as it came last. */
static enum errc take_logprobs(struct completion *j, struct join_choice *ch, struct slice logprobs, struct err *e)
{
	struct slice content = { 0 }, item;
	size_t pos = 0;
	bool bad = false;
	enum errc rc = E_OK;

	if (raw_is_absent(logprobs))
		return E_OK;
	if (j->r.is_reply || !json_find_member(logprobs, "content", &content) || !raw_is_array(content)) {
		buf_clear(&ch->logprobs_raw);
		return buf_add_slice(&ch->logprobs_raw, logprobs, e);
	}
	while (!rc && json_next_element(content, &pos, &item, &bad)) {
		rc = ch->logprobs.n ? buf_add(&ch->logprobs, ",", 1, e) : E_OK;
		if (!rc)
			rc = grow(j, &ch->logprobs, item, e);
	}
	return rc;
}

/* ---- the steps ---- */

static enum errc on_top(void *sink, bool usage_only, struct err *e)
{
	struct completion *j = sink;

	(void)usage_only;
	return bag_put_all(j, j->extra, &j->r.ev->extra, e);
}

static enum errc on_role(void *sink, unsigned choice, bool bare, struct err *e)
{
	struct join_choice *ch = NULL;

	(void)bare;
	return choice_get(sink, choice, &ch, e);
}

static enum errc on_delta(void *sink, const struct repair_choice_in *in, bool has_extra, struct err *e)
{
	struct completion *j = sink;
	struct join_choice *ch = NULL;
	enum errc rc = choice_get(j, in->index, &ch, e);

	j->last = NULL;
	for (size_t i = 0; i < in->fields.n && !rc; i++)
		rc = bag_put(j, &ch->message, in->fields.v[i], &j->last, e);
	if (!rc)
		rc = take_logprobs(j, ch, in->logprobs, e);
	if (!rc && has_extra)
		rc = bag_put_all(j, &ch->extra, &in->extra, e);
	return rc;
}

static enum errc call_get(struct completion *j, unsigned choice, size_t k, struct join_call **ret, struct err *e)
{
	struct join_choice *ch = NULL;
	enum errc rc = choice_get(j, choice, &ch, e);

	if (rc)
		return rc;
	if (k >= ch->calls_cap) {
		size_t cap = k + 4;
		struct join_call *grown = mem_realloc(ch->call, cap * sizeof *grown);

		if (!grown)
			return err_set(e, E_NO_MEMORY, "no memory for a tool call");
		ch->call = grown;
		ch->calls_cap = cap;
	}
	for (; ch->calls <= k; ch->calls++)
		ch->call[ch->calls] = (struct join_call){
			.id = BUF_MAX(j->max), .name = BUF_MAX(j->max), .args = BUF_MAX(j->max), .extra = BUF_MAX(j->max),
		};
	*ret = &ch->call[k];
	return E_OK;
}

static enum errc on_call(void *sink, unsigned choice, size_t call, struct slice id, struct slice name,
			 const struct repair_members *extra, struct err *e)
{
	struct join_call *c;
	enum errc rc = call_get(sink, choice, call, &c, e);
	struct put w;

	if (rc)
		return rc;
	w = (struct put){ &c->extra, e, E_OK };
	rc = grow(sink, &c->id, id, e);
	if (!rc)
		rc = grow(sink, &c->name, name, e);
	for (size_t i = 0; i < extra->n; i++)
		put_member(&w, extra->v[i]);
	return rc ? rc : w.rc;
}

static enum errc on_custom(void *sink, unsigned choice, size_t call, const struct repair_members *m, struct err *e)
{
	struct join_call *c;
	enum errc rc = call_get(sink, choice, call, &c, e);
	struct put w;

	if (rc || c->is_custom)
		return rc; /* pieces of custom calls are met in streams of OpenAI only, which are never joined */
	c->is_custom = true;
	w = (struct put){ &c->extra, e, E_OK };
	for (size_t i = 0; i < m->n; i++)
		put_member(&w, m->v[i]);
	return w.rc;
}

static enum errc on_args(void *sink, unsigned choice, size_t call, struct slice token, struct err *e)
{
	struct join_call *c;
	enum errc rc = call_get(sink, choice, call, &c, e);

	if (!rc && c->args.n == 0)
		rc = buf_add(&c->args, "\"", 1, e);
	return rc ? rc : grow(sink, &c->args, raw_body(token), e);
}

static enum errc on_finish(void *sink, const struct repair_choice_in *in, const char *reason, bool with_logprobs, struct err *e)
{
	struct completion *j = sink;
	struct join_choice *ch = NULL;
	enum errc rc = choice_get(j, in->index, &ch, e);

	if (!rc && with_logprobs)
		rc = take_logprobs(j, ch, in->logprobs, e);
	if (!rc)
		rc = bag_put_all(j, &ch->extra, &in->extra, e);
	if (!rc)
		ch->finish = reason;
	return rc;
}

static enum errc on_learn(void *sink, const struct repair_choice_in *in, struct err *e)
{
	struct completion *j = sink;

	(void)in, (void)e;
	j->learned = j->last;
	return E_OK;
}

static enum errc on_text(void *sink, struct slice body, struct err *e)
{
	struct completion *j = sink;
	struct join_field *f = j->learned;
	enum errc rc;

	if (!f)
		return E_OK; /* a field beyond the limit of the bag */
	if (f->is_text)
		return grow(j, &f->value, body, e);
	buf_clear(&f->value);
	rc = buf_add(&f->value, "\"", 1, e);
	if (!rc)
		rc = buf_add_slice(&f->value, body, e);
	return rc ? rc : buf_add(&f->value, "\"", 1, e);
}

static enum errc on_done(void *sink, struct err *e)
{
	(void)sink, (void)e;
	return E_OK;
}

static const struct repair_ops join_ops = {
	.top = on_top, .role = on_role, .delta = on_delta, .call = on_call, .custom = on_custom, .args = on_args,
	.finish = on_finish, .learn = on_learn, .text = on_text, .done = on_done,
};

/* ---- the door ---- */

enum errc completion_new(const struct completion_opts *o, size_t max_bytes, struct completion **ret, struct err *e)
{
	struct completion *j = NEW(struct completion);
	enum errc rc;

	if (!j)
		return err_set(e, E_NO_MEMORY, "no memory for an answer");
	j->max = max_bytes;
	j->extra = NEW(struct join_bag);
	j->plain = NEW(struct buf);
	buf_init(&j->model, 16 * 1024);
	rc = repair_init(&j->r, &join_ops, j, o->id, o->created_s, e);
	if (!rc && (!j->extra || !j->plain))
		rc = err_set(e, E_NO_MEMORY, "no memory for an answer");
	if (!rc)
		rc = raw_quote(o->model, &j->model, e);
	if (rc) {
		completion_free(j);
		return rc;
	}
	buf_init(j->plain, max_bytes);
	*ret = j;
	return E_OK;
}

void completion_free(struct completion *j)
{
	if (!j)
		return;
	repair_done(&j->r);
	buf_done(&j->model);
	for (size_t i = 0; i < CHAT_N_MAX; i++)
		choice_free(j->choice[i]);
	if (j->extra)
		bag_done(j->extra);
	if (j->plain)
		buf_done(j->plain);
	mem_free(j->extra);
	mem_free(j->plain);
	mem_free(j);
}

static void free_at(struct completion **j) { completion_free(*j); }

enum errc completion_event(struct completion *j, const struct sse_event *ev, struct chat_error *ce, struct err *e)
{
	return repair_take(&j->r, ev, ce, e);
}

size_t completion_size(const struct completion *j)
{
	return j->total;
}

bool completion_is_done(const struct completion *j) { return j->r.is_done; }

enum errc completion_finish(struct completion *j, struct buf *out, struct chat_usage *ret_usage, struct chat_error *ce, struct err *e)
{
	enum errc rc = repair_finish(&j->r, ce, e);

	if (!rc)
		rc = completion_write(j, out, e);
	if (!rc)
		*ret_usage = j->r.usage;
	return rc;
}

enum errc completion_fix(struct slice reply, const struct completion_opts *o, struct buf *out, struct chat_usage *ret_usage,
			 struct chat_error *ce, struct err *e)
{
	CLEANUP(free_at) struct completion *j = NULL;
	enum errc rc = completion_new(o, 2 * reply.n + REPLY_SPARE, &j, e);

	if (!rc)
		rc = repair_take_reply(&j->r, reply, ce, e);
	return rc ? rc : completion_finish(j, out, ret_usage, ce, e);
}

struct slice completion_text(const struct completion *j)
{
	struct join_choice *ch = j->choice[0];
	struct join_field *f = ch ? join_find(&ch->message, SLICE("content")) : NULL;
	struct err e;
	enum errc rc;

	if (!f || !f->is_text || buf_add(&f->value, "\"", 1, &e))
		return SLICE("");
	buf_clear(j->plain);
	rc = json_unquote(buf_slice(&f->value), j->plain, &e);
	buf_truncate(&f->value, f->value.n - 1);
	return rc ? SLICE("") : buf_slice(j->plain);
}

const char *completion_finish_reason(const struct completion *j)
{
	return j->choice[0] && j->choice[0]->finish ? j->choice[0]->finish : "";
}
