/* routes/accounting.c: sums reach the store once a second, nothing is counted twice, what cannot be written is kept. */
#include "routes/accounting.h"
#include "tests/support/store_bed.h"

#include "base/clock.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* All rows that the store has now. */
struct seen {
	struct usage_row *v;
	size_t n;
};

static struct seen look(struct bed *b)
{
	struct store_reader *r = NULL;
	struct seen s = { 0 };
	struct err e;

	assert_int_equal(store_reader_open(b->s, &r, &e), E_OK);
	assert_int_equal(usage_list(r, &s.v, &s.n, &e), E_OK);
	store_reader_close(r);
	return s;
}

static int64_t requests_seen(struct bed *b)
{
	struct seen s = look(b);
	int64_t sum = 0;

	for (size_t i = 0; i < s.n; i++)
		sum += s.v[i].requests;
	mem_free(s.v);
	return sum;
}

/* Runs the loop until the store shows this many requests, at most five seconds. */
struct watcher {
	struct loop_timer t;
	struct bed *b;
	int64_t want, until_ms;
	bool is_met;
};

static void on_watch(struct loop_timer *t)
{
	struct watcher *w = CONTAINER_OF(t, struct watcher, t);

	w->is_met = requests_seen(w->b) == w->want;
	if (w->is_met || clock_mono_ms() > w->until_ms)
		loop_stop(w->b->loop);
	else
		loop_timer_set(w->b->loop, t, clock_mono_ms() + 5);
}

static bool run_until(struct bed *b, int64_t want)
{
	struct watcher w = { .t = { .fn = on_watch }, .b = b, .want = want, .until_ms = clock_mono_ms() + 5000 };

	loop_timer_set(b->loop, &w.t, clock_mono_ms() + 1);
	loop_run(b->loop);
	return w.is_met;
}

static struct accounting *start(struct bed *b)
{
	struct accounting *a = NULL;
	struct err e;

	bed_init(b, NULL);
	bed_open(b);
	assert_int_equal(accounting_new(b->loop, b->s, &a, &e), E_OK);
	return a;
}

static void add(struct accounting *a, const char *agent, const char *key, int64_t tokens, int64_t ms, bool is_error)
{
	struct accounting_entry n = { .agent = agent, .key_id = key, .prompt_tokens = tokens, .completion_tokens = 2 * tokens,
				      .total_ms = ms, .is_error = is_error };

	accounting_add(a, &n);
}

static void test_sums(void **state)
{
	struct bed b;
	struct accounting *a = start(&b);
	struct seen s;

	(void)state;
	add(a, "m", "", 10, 3, false);
	add(a, "m", "", 5, 9, true);
	add(a, "m", "key_1", 1, 100, false);
	clock_test_advance_ms(1000);
	assert_true(run_until(&b, 3));
	add(a, "m", "", 100, 3, false);
	clock_test_advance_ms(1000);
	assert_true(run_until(&b, 4));
	accounting_flush_wait(a);
	s = look(&b);
	assert_int_equal(s.n, 2);
	for (size_t i = 0; i < s.n; i++) {
		const struct usage_row *u = &s.v[i];
		bool is_keyless = u->key_id[0] == '\0';

		assert_string_equal(u->agent, "m");
		assert_int_equal(u->requests, is_keyless ? 3 : 1);
		assert_int_equal(u->errors, is_keyless ? 1 : 0);
		assert_int_equal(u->prompt_tokens, is_keyless ? 115 : 1);
		assert_int_equal(u->completion_tokens, is_keyless ? 230 : 2);
		assert_int_equal(u->latency_sum_ms, is_keyless ? 15 : 100);
		assert_int_equal(u->latency[usage_bucket(3)], is_keyless ? 2 : 0);
	}
	mem_free(s.v);
	accounting_free(a);
	bed_done(&b);
}

/* The end: what is left goes out, also while an earlier batch is on its way. */
static void test_flush(void **state)
{
	struct bed b;
	struct accounting *a = start(&b);

	(void)state;
	accounting_flush_wait(a);
	add(a, "m", "", 1, 1, false);
	accounting_flush_wait(a);
	assert_int_equal(requests_seen(&b), 1);
	accounting_flush_wait(a);
	assert_int_equal(requests_seen(&b), 1);
	accounting_free(a);
	bed_done(&b);
}

static void on_stop(struct loop_timer *t)
{
	loop_stop(CONTAINER_OF(t, struct watcher, t)->b->loop);
}

/* The loop ends while a batch is with the writer: it is counted once. */
static void test_flush_in_flight(void **state)
{
	struct bed b;
	struct accounting *a = start(&b);
	struct watcher w = { .t = { .fn = on_stop }, .b = &b };

	(void)state;
	bed_hold(&b);
	add(a, "m", "", 1, 1, false);
	clock_test_advance_ms(1000);
	loop_timer_set(b.loop, &w.t, clock_mono_ms() + 20);
	loop_run(b.loop);                      /* the batch is queued behind the gate now */
	add(a, "m", "", 1, 1, false);
	bed_go(&b);
	accounting_flush_wait(a);
	assert_int_equal(requests_seen(&b), 2);
	accounting_free(a);
	bed_done(&b);
}

/* The store's queue is full: sums are kept and written later. */
static void test_full_queue(void **state)
{
	struct bed b;
	struct accounting *a;
	struct put p;
	struct watcher w = { .t = { .fn = on_stop }, .b = &b };
	struct err e;

	(void)state;
	bed_init(&b, NULL);
	b.max_queued = 1;
	bed_open(&b);
	assert_int_equal(accounting_new(b.loop, b.s, &a, &e), E_OK);
	bed_hold(&b);
	put_init(&p, &b, 1, 10);
	put_submit(&p);
	add(a, "m", "", 7, 1, false);
	clock_test_advance_ms(1000);
	loop_timer_set(b.loop, &w.t, clock_mono_ms() + 20);
	loop_run(b.loop);
	assert_int_equal(requests_seen(&b), 0);
	bed_go(&b);
	bed_collect(&b);
	add(a, "m", "", 7, 1, false);
	clock_test_advance_ms(1000);
	assert_true(run_until(&b, 2));
	accounting_flush_wait(a);
	accounting_free(a);
	bed_done(&b);
}

/* Long names are cut on a character's edge; more rows than the ceiling are not counted, and do no harm. */
static void test_bounds(void **state)
{
	struct bed b;
	struct accounting *a = start(&b);
	char name[200];
	struct seen s;

	(void)state;
	for (size_t i = 0; i + 2 < sizeof(name); i += 2)
		memcpy(name + i, "\xc3\xa9", 2);
	memmove(name + 1, name, sizeof(name) - 2);
	name[0] = 'x';
	name[sizeof(name) - 1] = '\0';
	add(a, name, "key_000000000000000000000", 1, 1, false);
	accounting_flush_wait(a);
	s = look(&b);
	assert_int_equal(s.n, 1);
	assert_int_equal(strlen(s.v[0].agent), 127);
	assert_true(slice_is_utf8(slice_str(s.v[0].agent)));
	assert_int_equal(strlen(s.v[0].key_id), 19);
	mem_free(s.v);
	for (int i = 0; i < 1500; i++) {
		(void)snprintf(name, sizeof(name), "agent-%d", i);
		add(a, name, "", 1, 1, false);
	}
	accounting_flush_wait(a);
	assert_int_equal(requests_seen(&b), 1 + 1024);
	accounting_free(a);
	bed_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sums), cmocka_unit_test(test_flush), cmocka_unit_test(test_flush_in_flight),
		cmocka_unit_test(test_full_queue), cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
