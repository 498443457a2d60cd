/*
 * Fuzz target of chunk and completion, run by ctest (label fuzz). Whatever a runner sends: what goes to the client is
 * whole events of JSON (or [DONE]); the fast path and the careful one say the same; the join is JSON. The first byte:
 * 1 usage wanted, 2 a plain reply in place of a stream.
 */
#include "llm/chunk.h"
#include "llm/completion.h"

#include "base/crypto.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct chunk_opts base_opts = { .model = { "mi\"ne", 5 }, .id = { "id-1", 4 }, .created_s = 5 };

static void check_out(struct slice out)
{
	CLEANUP(sse_done) struct sse s;
	struct sse_event ev;
	struct err e;
	size_t total = 0;

	sse_init(&s, 1 << 24);
	must(sse_feed(&s, out, &e) == E_OK);
	while (sse_next(&s, &ev)) {
		must(ev.is_plain);
		must(slice_eq(ev.data, SLICE("[DONE]")) || json_check(ev.data, JSON_LIMITS_DEFAULT, &e) == E_OK);
		total += ev.raw.n;
	}
	must(total == out.n);
}

/* Run a stream or a reply through; a made-up call id must not make two runs differ, so ids are blanked. */
static enum errc run(struct slice text, unsigned flags, bool is_careful, struct buf *out)
{
	CLEANUP(sse_done) struct sse s;
	struct chunk_opts o = base_opts;
	struct sse_event ev;
	struct chat_error ce;
	struct chunk *c;
	struct err e;
	enum errc rc;

	o.wants_usage = flags & 1;
	must(chunk_new(&o, &c, &e) == E_OK);
	if (is_careful)
		chunk_be_careful(c);
	sse_init(&s, 1 << 20);
	if (flags & 2) {
		rc = chunk_from_reply(c, text, out, &ce, &e);
	} else {
		rc = sse_feed(&s, text, &e);
		while (!rc && sse_next(&s, &ev))
			rc = chunk_event(c, &ev, out, &ce, &e);
		while (!rc && sse_finish(&s, &ev))
			rc = chunk_event(c, &ev, out, &ce, &e);
		if (!rc)
			rc = chunk_finish(c, out, &ce, &e);
	}
	must(rc == E_OK || rc == E_UPSTREAM);
	must(rc == E_OK ? chunk_is_done(c) : ce.message[0] && ce.status >= 400);
	chunk_free(c);
	for (ptrdiff_t at, from = 0; (at = slice_find(slice_from(buf_slice(out), (size_t)from), SLICE("\"call_"))) >= 0; from += at + 6) {
		for (size_t i = (size_t)(from + at) + 6; i < out->n && out->p[i] != '"' && out->p[i] != '\\'; i++)
			out->p[i] = 'x';
	}
	return rc;
}

static void join(struct slice text, unsigned flags)
{
	CLEANUP(sse_done) struct sse s;
	struct completion_opts o = { .model = base_opts.model, .id = base_opts.id, .created_s = 5 };
	AUTO_BUF out = BUF_MAX(1 << 24);
	struct chat_usage usage;
	struct chat_error ce;
	struct completion *j;
	struct sse_event ev;
	struct err e;
	enum errc rc;

	must(completion_new(&o, 1 << 22, &j, &e) == E_OK);
	sse_init(&s, 1 << 20);
	if (flags & 2) {
		rc = completion_fix(text, &o, &out, &usage, &ce, &e);
	} else {
		rc = sse_feed(&s, text, &e);
		while (!rc && sse_next(&s, &ev))
			rc = completion_event(j, &ev, &ce, &e);
		if (!rc)
			rc = completion_finish(j, &out, &usage, &ce, &e);
		must(slice_is_utf8(completion_text(j)));
	}
	must(rc == E_OK || rc == E_UPSTREAM);
	if (rc == E_OK)
		must(json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e) == E_OK);
	completion_free(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	struct slice text = slice_of((const char *)data + 1, size - 1);
	AUTO_BUF fast = BUF_MAX(1 << 24), slow = BUF_MAX(1 << 24);
	struct err e;

	must(crypto_init(&e) == E_OK);
	must(run(text, data[0], false, &fast) == run(text, data[0], true, &slow));
	check_out(buf_slice(&fast));
	must(slice_eq(buf_slice(&fast), buf_slice(&slow)));
	join(text, data[0]);
	return 0;
}
