/* API keys: rows go in and come out whole, names are unique while in force, the access flag sticks. */
#include "store/keys.h"
#include "tests/support/store_bed.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct key_job {
	struct store_job job;
	const struct key_row *row;     /* insert */
	const char *id_or_name;        /* revoke */
	int64_t now_wall_ms;
	char id[20];
	bool is_keyed;
};

static enum errc insert_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return keys_insert_tx(t, CONTAINER_OF(j, struct key_job, job)->row, e);
}

static enum errc revoke_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	struct key_job *k = CONTAINER_OF(j, struct key_job, job);

	return keys_revoke_tx(t, k->id_or_name, k->now_wall_ms, k->id, e);
}

static enum errc keyed_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return access_set_keyed_tx(t, CONTAINER_OF(j, struct key_job, job)->is_keyed, e);
}

static struct key_row make(int n, const char *name)
{
	struct key_row k = { .requests_per_minute = n, .max_concurrent = 2 * n, .created_wall_ms = 1000 + n };

	(void)snprintf(k.id, sizeof(k.id), "key_%012d", n);
	(void)snprintf(k.name, sizeof(k.name), "%.64s", name);
	(void)snprintf(k.hint, sizeof(k.hint), "x%03d", n);
	memset(k.hash, n, sizeof(k.hash));
	return k;
}

static enum errc insert(struct bed *b, const struct key_row *row, struct err *e)
{
	struct key_job j = { .job = { .name = "key.insert", .body = insert_body }, .row = row };

	return store_run(b->s, &j.job, e);
}

static enum errc revoke(struct bed *b, const char *id_or_name, int64_t now_wall_ms, char ret_id[20], struct err *e)
{
	struct key_job j = { .job = { .name = "key.revoke", .body = revoke_body }, .id_or_name = id_or_name, .now_wall_ms = now_wall_ms };
	enum errc rc = store_run(b->s, &j.job, e);

	memcpy(ret_id, j.id, sizeof(j.id));
	return rc;
}

struct listed {
	struct store_reader *r;
	struct key_row *v;
	size_t n;
};

static struct listed list(struct bed *b)
{
	struct listed l = { 0 };
	struct err e;

	assert_int_equal(store_reader_open(b->s, &l.r, &e), E_OK);
	assert_int_equal(keys_list(l.r, &l.v, &l.n, &e), E_OK);
	return l;
}

static void listed_done(struct listed *l)
{
	for (size_t i = 0; i < l->n; i++)
		key_row_done(&l->v[i]);
	mem_free(l->v);
	store_reader_close(l->r);
}

static struct bed bed;                     /* of the running test */

static int set_up(void **state)
{
	(void)state;
	thread_set_role_self(THREAD_MAIN);
	bed_init(&bed, NULL);
	bed_open(&bed);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	bed_done(&bed);
	return 0;
}

static void test_round_trip(void **state)
{
	struct key_row in[3] = { make(1, "laptop"), make(2, "phone \xc3\xbc"), make(3, "robot") };
	CLEANUP(listed_done) struct listed l = { 0 };
	struct err e;

	(void)state;
	assert_int_equal(str_list_add(&in[1].models, SLICE("qwen/qwen3:8b"), &e), E_OK);
	assert_int_equal(str_list_add(&in[1].models, SLICE("a"), &e), E_OK);
	in[2].hash[5] = 0;                     /* a zero byte is a byte */
	in[2].requests_per_minute = in[2].max_concurrent = 0;
	for (size_t i = 0; i < ARRAY_LEN(in); i++)
		assert_int_equal(insert(&bed, &in[i], &e), E_OK);
	bed_close(&bed);
	bed_open(&bed);
	l = list(&bed);
	assert_int_equal(l.n, 3);
	for (size_t i = 0; i < l.n; i++) {
		assert_string_equal(l.v[i].id, in[i].id);
		assert_string_equal(l.v[i].name, in[i].name);
		assert_string_equal(l.v[i].hint, in[i].hint);
		assert_memory_equal(l.v[i].hash, in[i].hash, SHA256_LEN);
		assert_int_equal(l.v[i].requests_per_minute, in[i].requests_per_minute);
		assert_int_equal(l.v[i].max_concurrent, in[i].max_concurrent);
		assert_int_equal(l.v[i].created_wall_ms, in[i].created_wall_ms);
		assert_int_equal(l.v[i].revoked_wall_ms, 0);
		assert_int_equal(l.v[i].models.n, i == 1 ? 2 : 0);
	}
	assert_string_equal(l.v[1].models.v[0], "qwen/qwen3:8b");
	assert_string_equal(l.v[1].models.v[1], "a");
	key_row_done(&in[1]);
}

static void test_many(void **state)
{
	CLEANUP(listed_done) struct listed l = { 0 };
	struct err e;

	(void)state;
	for (int i = 0; i < 100; i++) {
		char name[16];
		struct key_row k;

		(void)snprintf(name, sizeof(name), "n%d", i);
		k = make(100 - i, name);       /* created_wall_ms falls: the order is that of insertion */
		assert_int_equal(insert(&bed, &k, &e), E_OK);
	}
	l = list(&bed);
	assert_int_equal(l.n, 100);
	assert_string_equal(l.v[0].name, "n0");
	assert_string_equal(l.v[99].name, "n99");
}

static void test_name_in_use(void **state)
{
	struct key_row a = make(1, "laptop"), b = make(2, "laptop"), same_hash = make(1, "other");
	CLEANUP(listed_done) struct listed l = { 0 };
	char id[20];
	struct err e;

	(void)state;
	assert_int_equal(insert(&bed, &a, &e), E_OK);
	assert_int_equal(insert(&bed, &b, &e), E_CONFLICT);
	assert_string_equal(e.what, "name: a key named \"laptop\" is in force");
	memcpy(same_hash.id, b.id, sizeof(b.id));
	assert_int_equal(insert(&bed, &same_hash, &e), E_CONFLICT);
	assert_int_equal(revoke(&bed, "laptop", 5000, id, &e), E_OK);
	assert_string_equal(id, a.id);
	assert_int_equal(insert(&bed, &b, &e), E_OK);      /* the name is free again */
	l = list(&bed);
	assert_int_equal(l.n, 2);
	assert_int_equal(l.v[0].revoked_wall_ms, 5000);
	assert_int_equal(l.v[1].revoked_wall_ms, 0);
}

static void test_revoke(void **state)
{
	struct key_row a = make(1, "laptop"), b = make(2, "phone"), like_id = make(3, a.id);
	char id[20];
	struct err e;

	(void)state;
	assert_int_equal(insert(&bed, &a, &e), E_OK);
	assert_int_equal(insert(&bed, &b, &e), E_OK);
	assert_int_equal(insert(&bed, &like_id, &e), E_OK);
	assert_int_equal(revoke(&bed, "nobody", 1, id, &e), E_NOT_FOUND);
	assert_non_null(strstr(e.what, "nobody"));
	assert_int_equal(revoke(&bed, a.id, 7, id, &e), E_OK);     /* its id, not the other's name */
	assert_string_equal(id, a.id);
	assert_int_equal(revoke(&bed, "laptop", 8, id, &e), E_NOT_FOUND);
	assert_int_equal(revoke(&bed, a.id, 8, id, &e), E_OK);     /* now the name is meant */
	assert_string_equal(id, like_id.id);
	assert_int_equal(revoke(&bed, a.id, 8, id, &e), E_NOT_FOUND);
	assert_int_equal(revoke(&bed, "phone", 9, id, &e), E_OK);
}

static void test_refused_rows(void **state)
{
	struct key_row nameless = make(1, ""), negative = make(2, "x"), crowded = make(3, "y");
	CLEANUP(listed_done) struct listed l = { 0 };
	struct err e;

	(void)state;
	negative.max_concurrent = -1;
	for (int i = 0; i < 1001; i++)
		assert_int_equal(str_list_add(&crowded.models, SLICE("m"), &e), E_OK);
	assert_int_equal(insert(&bed, &nameless, &e), E_CONFLICT);
	assert_int_equal(insert(&bed, &negative, &e), E_CONFLICT);
	assert_int_equal(insert(&bed, &crowded, &e), E_TOO_LARGE); /* found after its row was written: that is undone */
	l = list(&bed);
	assert_int_equal(l.n, 0);
	key_row_done(&crowded);
}

static bool is_keyed(void)
{
	struct store_reader *r;
	struct err e;
	bool v = false;

	assert_int_equal(store_reader_open(bed.s, &r, &e), E_OK);
	assert_int_equal(access_is_keyed(r, &v, &e), E_OK);
	store_reader_close(r);
	return v;
}

static void set_keyed(bool v)
{
	struct key_job j = { .job = { .name = "access.set", .body = keyed_body }, .is_keyed = v };
	struct err e;

	assert_int_equal(store_run(bed.s, &j.job, &e), E_OK);
}

static void test_access_flag(void **state)
{
	(void)state;
	assert_false(is_keyed());
	set_keyed(true);
	set_keyed(true);
	bed_close(&bed);
	bed_open(&bed);
	assert_true(is_keyed());
	set_keyed(false);
	assert_false(is_keyed());
}

/* A reader sees what was committed, at once, through statements that it keeps. */
static void test_reader_is_current(void **state)
{
	struct store_reader *r;
	struct err e;
	bool v = true;

	(void)state;
	assert_int_equal(store_reader_open(bed.s, &r, &e), E_OK);
	for (int i = 0; i < 4; i++) {
		set_keyed(i % 2 == 0);
		assert_int_equal(access_is_keyed(r, &v, &e), E_OK);
		assert_int_equal(v, i % 2 == 0);
	}
	store_reader_close(r);
}

/* Each allocation of a list in turn fails: an error, no leak, and the next list is whole. */
static void test_list_no_memory(void **state)
{
	struct key_row k = make(1, "laptop");
	struct store_reader *r;
	struct err e;
	bool was_hit = true;

	(void)state;
	assert_int_equal(str_list_add(&k.models, SLICE("m"), &e), E_OK);
	assert_int_equal(insert(&bed, &k, &e), E_OK);
	key_row_done(&k);
	for (uint64_t nth = 1; was_hit; nth++) {
		struct key_row *v = NULL;
		size_t n = 0;
		enum errc rc;

		assert_int_equal(store_reader_open(bed.s, &r, &e), E_OK);
		mem_test_fail_at(nth, 0);
		rc = keys_list(r, &v, &n, &e);
		was_hit = mem_test_count() >= nth;
		mem_test_fail_at(0, 0);
		if (rc)
			assert_int_equal(rc, E_NO_MEMORY);
		else
			assert_int_equal(n, 1);
		for (size_t i = 0; i < n; i++)
			key_row_done(&v[i]);
		mem_free(v);
		store_reader_close(r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_name_in_use, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_revoke, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refused_rows, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_access_flag, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reader_is_current, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_list_no_memory, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
