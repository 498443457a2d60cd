/*
 * Tool calls of a runner's deltas: found again by index, id or order, announced once with index, id, type and name, their
 * arguments passed on as strings (llm-execution.md 8.5.2). Called by repair.c only.
 */
#include "llm/repair.h"

#include "base/crypto.h"
#include "base/mem.h"

#include <stdio.h>

struct call_in {
	int64_t index;                 /* -1: none */
	uint64_t id_hash;              /* 0: none */
	struct slice id, name, args;   /* raw; empty when absent, null or "" */
	bool is_custom;
	struct repair_members extra;   /* members of the call that we do not know */
	struct repair_members all;     /* all but index, for custom calls */
};

static uint64_t hash(struct slice s)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a: tells ids of one answer apart, keeps nothing secret */

	for (size_t i = 0; i < s.n; i++)
		h = (h ^ (unsigned char)s.p[i]) * 1099511628211u;
	return h ? h : 1;
}

static void read_function(struct slice function, struct call_in *in)
{
	struct json_member m;
	size_t pos = 0;
	bool bad = false;

	while (json_next_member(function, &pos, &m, &bad)) {
		if (raw_key_is(m.key, SLICE("name")))
			in->name = raw_is_string(m.value) && !raw_is_empty_string(m.value) ? m.value : (struct slice){ 0 };
		else if (raw_key_is(m.key, SLICE("arguments")))
			in->args = raw_is_absent(m.value) || raw_is_empty_string(m.value) ? (struct slice){ 0 } : m.value;
	}
}

static void read_call(struct slice raw, struct call_in *in)
{
	struct json_member m;
	size_t pos = 0;
	bool bad = false;

	while (json_next_member(raw, &pos, &m, &bad)) {
		if (raw_key_is(m.key, SLICE("index"))) {
			if (!raw_to_i64(m.value, 0, INT64_MAX, &in->index))
				in->index = -1;
			continue;
		}
		if (raw_key_is(m.key, SLICE("id"))) {
			in->id = raw_is_string(m.value) && !raw_is_empty_string(m.value) ? m.value : (struct slice){ 0 };
			continue;
		}
		repair_keep(&in->all, m);
		if (raw_key_is(m.key, SLICE("type")))
			in->is_custom = raw_string_is(m.value, "custom");
		else if (raw_key_is(m.key, SLICE("function")))
			read_function(m.value, in);
		else
			repair_keep(&in->extra, m);
	}
	in->id_hash = in->id.n ? hash(in->id) : 0;
}

/* Which call does this speak of? calls: a new one. */
static size_t find_call(const struct repair *r, const struct repair_choice *ch, const struct call_in *in)
{
	for (size_t k = ch->calls; k-- > 0;) {
		const struct repair_call *c = &ch->call[k];
		bool is_other_id = in->id_hash && c->id_hash && in->id_hash != c->id_hash;

		if (in->index >= 0 && c->runner_index != in->index)
			continue;
		if (in->index < 0 && in->id_hash && in->id_hash != c->id_hash)
			continue;
		if (is_other_id && in->name.n)
			return ch->calls; /* some number every call 0; others send a new id with every piece, but no name */
		if (in->index < 0 && !in->id_hash && in->name.n)
			return ch->calls; /* neither index nor id: a name begins the next one */
		if (in->name.n && c->is_announced && c->event_no == r->event_no)
			return ch->calls; /* two names in one event are two calls, whatever they are numbered */
		return k;
	}
	return ch->calls;
}

static enum errc set_id(struct repair_call *c, struct slice id, struct err *e)
{
	char random[25];

	if (id.n && id.n < sizeof c->id) {
		memcpy(c->id, id.p, id.n);
		c->id[id.n] = '\0';
		return E_OK;
	}
	crypto_random_id(random, 24);
	if (snprintf(c->id, sizeof c->id, "\"call_%s\"", random) < 0)
		return err_set(e, E_INTERNAL, "no id for a tool call");
	return E_OK;
}

static enum errc announce(struct repair *r, unsigned choice, size_t k, const struct call_in *in, struct err *e)
{
	static const struct repair_members none;
	struct repair_call *c = &r->choice[choice].call[k];

	c->is_announced = true;
	c->event_no = r->event_no;
	r->has_output = true;
	return r->ops->call(r->sink, choice, k, slice_str(c->id), in && in->name.n ? in->name : SLICE("\"\""), in ? &in->extra : &none, e);
}

/* A call without arguments: clients parse them, so an empty object. */
static enum errc fill_args(struct repair *r, unsigned choice, size_t k, struct err *e)
{
	struct repair_call *c = &r->choice[choice].call[k];
	enum errc rc = E_OK;

	if (c->is_custom || c->has_args)
		return E_OK;
	if (!c->is_announced)
		rc = announce(r, choice, k, NULL, e);
	c->has_args = c->is_filled = true;
	return rc ? rc : r->ops->args(r->sink, choice, k, SLICE("\"{}\""), e);
}

enum errc repair_calls_close(struct repair *r, unsigned choice, struct err *e)
{
	enum errc rc = E_OK;

	for (size_t k = 0; k < r->choice[choice].calls && !rc; k++)
		rc = fill_args(r, choice, k, e);
	return rc;
}

static enum errc begin_call(struct repair *r, unsigned choice, const struct call_in *in, struct chat_error *ce, struct err *e)
{
	struct repair_choice *ch = &r->choice[choice];
	enum errc rc = E_OK;

	/* clients take a call for done when the next one begins; calls of one event may still get their arguments later */
	if (ch->calls && ch->call[ch->calls - 1].event_no != r->event_no)
		rc = fill_args(r, choice, ch->calls - 1, e);
	if (rc)
		return rc;
	if (ch->calls == REPAIR_CALLS)
		return repair_fail(ce, e, "the runner sent too many tool calls");
	if (ch->calls == ch->calls_cap) {
		size_t cap = ch->calls_cap ? 2 * ch->calls_cap : 4;
		struct repair_call *grown = mem_realloc(ch->call, cap * sizeof *grown);

		if (!grown)
			return err_set(e, E_NO_MEMORY, "no memory for a tool call");
		ch->call = grown;
		ch->calls_cap = cap;
	}
	ch->call[ch->calls] = (struct repair_call){
		.runner_index = in->index >= 0 ? in->index : (int64_t)ch->calls, .id_hash = in->id_hash,
		.event_no = r->event_no, .is_custom = in->is_custom,
	};
	rc = set_id(&ch->call[ch->calls], in->id, e);
	ch->calls++;
	return rc;
}

/* Arguments as a string token, however they came. */
static enum errc args_token(struct repair *r, struct slice args, struct slice *ret, struct err *e)
{
	AUTO_BUF compact = BUF_MAX(args.n);
	enum errc rc;

	if (raw_is_string(args)) {
		*ret = args;
		return E_OK;
	}
	buf_clear(&r->scratch);
	rc = raw_compact(args, &compact, e);
	if (!rc)
		rc = raw_quote(buf_slice(&compact), &r->scratch, e);
	if (!rc)
		*ret = buf_slice(&r->scratch);
	return rc;
}

static enum errc take_custom(struct repair *r, unsigned choice, size_t k, const struct call_in *in, struct err *e)
{
	struct repair_call *c = &r->choice[choice].call[k];
	struct repair_members m = { .n = 0 };

	c->is_custom = true;
	if (!c->is_announced)
		repair_keep(&m, (struct json_member){ SLICE("id"), slice_str(c->id) });
	for (size_t i = 0; i < in->all.n; i++)
		repair_keep(&m, in->all.v[i]);
	c->is_announced = true;
	r->has_output = true;
	return r->ops->custom(r->sink, choice, k, &m, e);
}

static enum errc take_call(struct repair *r, unsigned choice, const struct call_in *in, struct chat_error *ce, struct err *e)
{
	struct repair_choice *ch = &r->choice[choice];
	size_t k = find_call(r, ch, in);
	struct slice token;
	enum errc rc = k == ch->calls ? begin_call(r, choice, in, ce, e) : E_OK;

	if (rc)
		return rc;
	if (in->is_custom || ch->call[k].is_custom)
		return take_custom(r, choice, k, in, e);
	/* a call whose name is still to come waits for it, but not beyond its first arguments */
	if (!ch->call[k].is_announced && (in->name.n || in->args.n))
		rc = announce(r, choice, k, in, e);
	if (rc || in->args.n == 0)
		return rc;
	if (ch->call[k].is_filled)
		return repair_fail(ce, e, "the runner went back to an earlier tool call");
	rc = args_token(r, in->args, &token, e);
	ch->call[k].has_args = true;
	return rc ? rc : r->ops->args(r->sink, choice, k, token, e);
}

enum errc repair_calls(struct repair *r, unsigned choice, struct slice array, struct chat_error *ce, struct err *e)
{
	struct slice raw;
	size_t pos = 0;
	bool bad = false;
	enum errc rc = E_OK;

	while (!rc && json_next_element(array, &pos, &raw, &bad)) {
		struct call_in in = { .index = -1 };

		if (!raw_is_object(raw))
			return repair_fail(ce, e, "the runner sent a tool call that is no object");
		read_call(raw, &in);
		rc = take_call(r, choice, &in, ce, e);
	}
	return rc;
}
