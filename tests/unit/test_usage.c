/* Usage totals: bucket bounds, addition by (agent, key), listing in order. */
#include "store/usage.h"
#include "tests/support/store_bed.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct usage_job {
	struct store_job job;
	struct usage_row delta;
};

static enum errc add_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return usage_add_tx(t, &CONTAINER_OF(j, struct usage_job, job)->delta, e);
}

static void add(struct bed *b, const char *agent, const char *key_id, int64_t n)
{
	struct usage_job j = { .job = { .name = "usage.add", .body = add_body } };
	struct usage_row *d = &j.delta;
	struct err e;

	(void)snprintf(d->agent, sizeof(d->agent), "%.128s", agent);
	(void)snprintf(d->key_id, sizeof(d->key_id), "%.19s", key_id);
	d->requests = n;
	d->errors = 10 * n;
	d->prompt_tokens = 100 * n;
	d->completion_tokens = 1000 * n;
	d->latency_sum_ms = 10000 * n;
	for (int i = 0; i < USAGE_BUCKETS; i++)
		d->latency[i] = n * (i + 1);
	assert_int_equal(store_run(b->s, &j.job, &e), E_OK);
}

static void check(const struct usage_row *u, const char *agent, const char *key_id, int64_t n)
{
	assert_string_equal(u->agent, agent);
	assert_string_equal(u->key_id, key_id);
	assert_int_equal(u->requests, n);
	assert_int_equal(u->errors, 10 * n);
	assert_int_equal(u->prompt_tokens, 100 * n);
	assert_int_equal(u->completion_tokens, 1000 * n);
	assert_int_equal(u->latency_sum_ms, 10000 * n);
	for (int i = 0; i < USAGE_BUCKETS; i++)
		assert_int_equal(u->latency[i], n * (i + 1));
}

static void test_buckets(void **state)
{
	static const struct { int64_t ms; unsigned bucket; } rows[] = {
		{ -1, 0 }, { 0, 0 }, { 4, 0 }, { 5, 1 }, { 8, 1 }, { 9, 2 }, { 16, 2 }, { 1024, 8 }, { 1025, 9 },
		{ 32768, 13 }, { 32769, 14 }, { 65536, 14 }, { 65537, 15 }, { INT64_MAX, 15 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(usage_bucket(rows[i].ms), rows[i].bucket);
}

static void test_totals(void **state)
{
	char long_agent[129];
	struct bed b;
	struct store_reader *r;
	AUTO_FREE struct usage_row *v = NULL;
	size_t n = 0;
	struct err e;

	(void)state;
	memset(long_agent, 'z', sizeof(long_agent) - 1);
	long_agent[128] = '\0';
	bed_init(&b, NULL);
	bed_open(&b);
	assert_int_equal(store_reader_open(b.s, &r, &e), E_OK);
	assert_int_equal(usage_list(r, &v, &n, &e), E_OK);
	assert_int_equal(n, 0);
	mem_free(TAKE(v));
	add(&b, "qwen", "direct", 1);
	add(&b, "llama", "", 3);
	add(&b, "qwen", "direct", 2);
	add(&b, "qwen", "", 1LL << 40);
	add(&b, long_agent, "key_123456789012345", 7);
	for (int i = 0; i < 20; i++) {
		char agent[16];

		(void)snprintf(agent, sizeof(agent), "m%02d", i);
		add(&b, agent, "", i + 1);
	}
	assert_int_equal(usage_list(r, &v, &n, &e), E_OK);
	assert_int_equal(n, 24);
	check(&v[0], "llama", "", 3);
	check(&v[1], "m00", "", 1);
	check(&v[20], "m19", "", 20);
	check(&v[21], "qwen", "", 1LL << 40);
	check(&v[22], "qwen", "direct", 3);
	check(&v[23], long_agent, "key_123456789012345", 7);
	store_reader_close(r);
	bed_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buckets),
		cmocka_unit_test(test_totals),
	};

	thread_set_role_self(THREAD_MAIN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
