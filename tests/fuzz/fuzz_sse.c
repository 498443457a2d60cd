/*
 * Fuzz target of base/sse, run by ctest (label fuzz). The events of a stream do not depend on how its bytes were cut:
 * whole, byte by byte, and cut at places that the input itself chooses. The first two bytes choose limit and cuts.
 */
#include "base/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_slice(struct buf *out, struct slice s)
{
	must(buf_addf(out, NULL, "%zu:", s.n) == E_OK);
	must(buf_add_slice(out, s, NULL) == E_OK);
}

/* An event as bytes that tell all of it apart; and what an event promises by itself. */
static void put_event(struct buf *out, const struct sse_event *ev)
{
	must(ev->raw.n > 0);
	must(ev->has_data || ev->data.n == 0);
	if (ev->is_plain) {
		must(ev->has_data && ev->raw.n == ev->data.n + 8 && ev->event.n == 0 && ev->error.n == 0);
		must(slice_starts_with(ev->raw, SLICE("data: ")) && slice_ends_with(ev->raw, SLICE("\n\n")));
		must(ev->data.p == ev->raw.p + 6);
		must(slice_find_char(ev->data, '\n') < 0 && slice_find_char(ev->data, '\r') < 0);
	}
	put_slice(out, ev->raw);
	put_slice(out, ev->data);
	put_slice(out, ev->event);
	put_slice(out, ev->error);
	must(buf_addf(out, NULL, "%d%d;", ev->has_data, ev->is_plain) == E_OK);
}

/* seed 0: whole; 1: byte by byte; else pieces of pseudo-random length. */
static enum errc run(struct slice text, size_t max, unsigned seed, struct buf *out)
{
	CLEANUP(sse_done) struct sse s;
	struct sse_event ev;

	sse_init(&s, max);
	while (text.n) {
		size_t n = seed == 0 ? text.n : 1;

		if (seed > 1) {
			seed = (seed * 1103515245u + 12345u) | 2;
			n = seed >> 16 & 31;
		}
		enum errc rc = sse_feed(&s, slice_cut(text, n), NULL);

		if (rc)
			return rc;
		text = slice_from(text, n);
		while (sse_next(&s, &ev))
			put_event(out, &ev);
	}
	while (sse_finish(&s, &ev))
		put_event(out, &ev);
	return E_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	struct slice text = slice_of((const char *)data + 2, size - 2);
	size_t max = data[0] < 128 ? 1 << 20 : data[0] & 127;
	AUTO_BUF whole = BUF_MAX(1 << 20), bytes = BUF_MAX(1 << 20), cut = BUF_MAX(1 << 20);
	enum errc rc = run(text, max, 0, &whole);

	must(rc == E_OK || (rc == E_TOO_LARGE && text.n > max));
	must(run(text, max, 1, &bytes) == rc);
	must(run(text, max, data[1] + 2u, &cut) == rc);
	/* after an error only the verdict is the same: more or fewer events came out before it */
	if (rc == E_OK) {
		must(slice_eq(buf_slice(&whole), buf_slice(&bytes)));
		must(slice_eq(buf_slice(&whole), buf_slice(&cut)));
	}
	return 0;
}
