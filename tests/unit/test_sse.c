/* base/sse: events of any cut, line ends, plain detection, limits, no memory. */
#include "base/mem.h"
#include "base/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static int switch_off(void **state)
{
	(void)state;
	mem_test_fail_at(0, 0);
	return 0;
}

static void note(struct buf *out, const struct sse_event *ev)
{
	assert_int_equal(buf_addf(out, NULL, "<%zu|" SLICE_FMT "|" SLICE_FMT "|" SLICE_FMT "|%d%d>", ev->raw.n,
		SLICE_ARG(ev->data), SLICE_ARG(ev->event),
		SLICE_ARG(ev->error), ev->has_data, ev->is_plain), E_OK);
	/* what plain promises */
	if (ev->is_plain) {
		assert_true(ev->raw.n == ev->data.n + 8 && slice_starts_with(ev->raw, SLICE("data: ")) && slice_ends_with(ev->raw, SLICE("\n\n")));
		assert_true(slice_eq(slice_of(ev->raw.p + 6, ev->data.n), ev->data));
	}
}

/* Feed text in pieces of step bytes (the first of `first`), write down all events. */
static enum errc run(struct slice text, size_t first, size_t step, size_t max, struct buf *out)
{
	CLEANUP(sse_done) struct sse s;
	struct sse_event ev;

	sse_init(&s, max);
	buf_clear(out);
	for (size_t at = 0, n = first; at < text.n; at += n, n = step) {
		/* a heap block of its own: nothing may point into what was fed */
		struct slice piece = slice_cut(slice_from(text, at), n);
		AUTO_FREE char *copy = slice_dup(piece);
		enum errc rc = sse_feed(&s, slice_of(copy, piece.n), NULL);

		if (rc)
			return rc;
		memset(copy, '#', piece.n);
		while (sse_next(&s, &ev))
			note(out, &ev);
	}
	while (sse_finish(&s, &ev))
		note(out, &ev);
	assert_false(sse_finish(&s, &ev) || sse_next(&s, &ev));
	return E_OK;
}

static const struct {
	const char *text, *want;
} rows[] = {
	{ "", "" },
	{ "data: {\"a\":1}\n\ndata: [DONE]\n\n", "<15|{\"a\":1}|||11><14|[DONE]|||11>" },
	{ "data: \n\n", "<8||||11>" },
	{ "data:  x\n\n", "<10| x|||11>" },
	/* not plain: no blank, other ends, other lines, a name alone */
	{ "data:x\n\n", "<8|x|||10>" }, { "data: x\r\n\r\n", "<11|x|||10>" }, { "data: x\r\r", "<9|x|||10>" }, { "data: x\n\r\n", "<10|x|||10>" },
	{ "data: x\r\n\n", "<10|x|||10>" }, { "data: x\r\n\r", "<10|x|||10>" }, { "data: x\n\r", "<9|x|||10>" },
	{ "data\n\n", "<6||||10>" }, { "data:\n\n", "<7||||10>" }, { ":c\ndata: x\n\n", "<12|x|||10>" }, { "data: x\n:c\n\n", "<12|x|||10>" },
	{ "event: e\ndata: x\n\n", "<18|x|e||10>" }, { "data: x\nid: 1\n\n", "<15|x|||10>" },
	{ "Data: x\n\n", "<9||||00>" }, { "data : x\n\n", "<10||||00>" },
	/* several data lines */
	{ "data: a\ndata: b\n\n", "<17|a\nb|||10>" }, { "data: a\r\ndata:\r\ndata:c\r\n\r\n", "<26|a\n\nc|||10>" },
	{ "data\ndata\n\n", "<11|\n|||10>" },
	{ "data: a\rdata: b\r\r", "<17|a\nb|||10>" }, { "data: a\ndata: b\n\ndata: c\ndata: d\n\n", "<17|a\nb|||10><17|c\nd|||10>" },
	{ "data: a\ndata: b\n\ndata: c\n\n", "<17|a\nb|||10><9|c|||11>" },
	/* comments and blank lines alone are skipped */
	{ ": ping\n\ndata: x\n\n", "<9|x|||11>" }, { "\n\n\ndata: x\n\n\n\n", "<9|x|||11>" },
	{ "\r\n\r\ndata: x\n\n", "<9|x|||11>" }, { "\r\r:\r\rdata: x\n\n", "<9|x|||11>" },
	{ ":\n\n:\n\n", "" },
	/* llama.cpp's errors after the head, then the end */
	{ "error: {\"code\":500}\n\ndata: [DONE]\n\n", "<21|||{\"code\":500}|00><14|[DONE]|||11>" },
	{ "event: a\nevent:b\n\n", "<18||b||00>" }, { "id: 7\n\n", "<7||||00>" }, { "retry\n\n", "<7||||00>" },
	{ "data: a:b: c\n\n", "<14|a:b: c|||11>" },
	/* the end of input */
	{ "data: x\n", "<8|x|||10>" }, { "data: x\r", "<8|x|||10>" }, { "data: x", "" },
	{ "data: x\n\ndata: y", "<9|x|||11>" }, { "data: x\ndata: y", "<8|x|||10>" },
	{ "data: x\n\n: c\n", "<9|x|||11>" }, { "data: x\r\n", "<9|x|||10>" }, { "event: e\ndata: y\n", "<17|y|e||10>" },
	{ "data: x\r\n\r\ndata: y\r\n\r", "<11|x|||10><10|y|||10>" },
};

static void every_cut_gives_the_same(void **state)
{
	AUTO_BUF out = BUF_MAX(10000);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct slice text = slice_str(rows[i].text);

		for (size_t first = 1; first <= text.n + 1; first++)
			for (size_t step = 1; step <= text.n + 1; step++) {
				assert_int_equal(run(text, first, step, 1000, &out), E_OK);
				assert_string_equal(buf_cstr(&out), rows[i].want);
			}
	}
}

/* An event comes out with its last byte, not later. */
static void events_are_not_held_back(void **state)
{
	static const char *const texts[] = { "data: x\n\n", "data: x\r\n\r\n", "event: e\ndata: a\ndata: b\n\n" };
	struct sse_event ev;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		CLEANUP(sse_done) struct sse s;
		struct slice text = slice_str(texts[i]);

		sse_init(&s, 100);
		for (int turn = 0; turn < 3; turn++)
			for (size_t at = 0; at < text.n; at++) {
				assert_int_equal(sse_feed(&s, slice_of(text.p + at, 1), NULL), E_OK);
				assert_int_equal(sse_next(&s, &ev), at == text.n - 1);
			}
		assert_true(slice_eq(ev.raw, text));
		assert_false(sse_next(&s, &ev));
	}
}

/* Events may be fetched late, and fed on in between. */
static void events_wait(void **state)
{
	CLEANUP(sse_done) struct sse s;
	struct sse_event ev;

	(void)state;
	sse_init(&s, 100);
	assert_int_equal(sse_feed(&s, SLICE("data: 1\n\ndata: 2\n\ndata: 3"), NULL), E_OK);
	assert_true(sse_next(&s, &ev) && slice_eq(ev.data, SLICE("1")));
	assert_int_equal(sse_feed(&s, SLICE("3\n\n"), NULL), E_OK);
	assert_int_equal(sse_feed(&s, slice_of(NULL, 0), NULL), E_OK);
	assert_true(sse_next(&s, &ev) && slice_eq(ev.data, SLICE("2")));
	assert_true(sse_next(&s, &ev) && slice_eq(ev.data, SLICE("33")));
	assert_false(sse_next(&s, &ev));
	assert_int_equal(s.held.n, 0);
}

static void limit_is_of_one_event(void **state)
{
	static const struct {
		const char *text;
		size_t max;
		enum errc rc;
	} cases[] = {
		{ "data: 1234\n\ndata: 5678\n\ndata: 9\n\n", 12, E_OK }, { "data: 1234\n\ndata: 5678\n\n", 11, E_TOO_LARGE },
		{ "data: 1\n\ndata: 12345\n\n", 12, E_TOO_LARGE }, { "data: 1\n\ndata: 12345", 11, E_OK }, { "data: 1\n\ndata: 123456", 11, E_TOO_LARGE },
		{ ":123456789012\n\n", 12, E_TOO_LARGE }, { "data: 1\r\n\r\ndata: 2\r\n\r\n", 11, E_OK }, { "1234567890123", 12, E_TOO_LARGE },
	};
	AUTO_BUF out = BUF_MAX(10000);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		for (size_t step = 1; step <= strlen(cases[i].text); step++)
			assert_int_equal(run(slice_str(cases[i].text), step, step, cases[i].max, &out), cases[i].rc);
}

/* Long inputs that would take minutes if bytes were looked at again for every line, block or feed. */
static void work_is_linear(void **state)
{
	static const struct {
		const char *head, *unit;
		size_t step;
	} cases[] = {
		{ "data: ", "x", 1 }, { "", "\r", 65536 }, { "", "a\r\r", 65536 }, { "", "a\n\n", 65536 }, { "", "a\r", 65536 },
		{ "data: ", "\rdata:", 65536 },
		{ "", "\n", 1 }, { ":", "\n:", 7 },
	};
	const size_t total = 900000;
	AUTO_FREE char *text = mem_alloc(total);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		CLEANUP(sse_done) struct sse s;
		struct sse_event ev;
		size_t head = strlen(cases[i].head), unit = strlen(cases[i].unit);

		memcpy(text, cases[i].head, head);
		for (size_t at = head; at < total; at++)
			text[at] = cases[i].unit[(at - head) % unit];
		sse_init(&s, total + 1);
		for (size_t at = 0; at < total; at += cases[i].step) {
			assert_int_equal(sse_feed(&s, slice_cut(slice_of(text + at, total - at), cases[i].step), NULL), E_OK);
			while (sse_next(&s, &ev))
				assert_true(ev.raw.n > 0);
		}
		while (sse_finish(&s, &ev))
			assert_true(ev.raw.n > 0);
	}
}

/* The Nth allocation fails: the stream ends with E_NO_MEMORY, never with an event that lacks something. */
static void no_memory(void **state)
{
	const struct slice text = SLICE("data: first line of some length, long enough to grow\ndata: second line\n\ndata: x\n\n");
	unsigned n = 0;
	bool is_done = false;

	(void)state;
	for (; !is_done; n++) {
		CLEANUP(sse_done) struct sse s;
		struct sse_event ev;
		enum errc rc = E_OK;
		size_t events = 0;

		sse_init(&s, 1000);
		mem_test_fail_at(n + 1, 1);
		for (size_t at = 0; at < text.n && rc == E_OK; at += 20) {
			rc = sse_feed(&s, slice_cut(slice_from(text, at), 20), NULL);
			while (rc == E_OK && sse_next(&s, &ev)) {
				assert_true(slice_eq(ev.data, events ? SLICE("x") : SLICE("first line of some length, long enough to grow\nsecond line")));
				events++;
			}
		}
		is_done = mem_test_count() <= n;
		assert_int_equal(events, is_done ? 2 : 0);
		if (!is_done && rc == E_OK)
			rc = sse_feed(&s, SLICE("y"), NULL);
		assert_int_equal(rc, is_done ? E_OK : E_NO_MEMORY);
		assert_false(!is_done && (sse_next(&s, &ev) || (s.is_out_of_memory && sse_finish(&s, &ev))));
	}
	assert_true(n > 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cut_gives_the_same), cmocka_unit_test(events_are_not_held_back), cmocka_unit_test(events_wait),
		cmocka_unit_test(limit_is_of_one_event), cmocka_unit_test(work_is_linear), cmocka_unit_test_teardown(no_memory, switch_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
