/* routes/auth.c: who may call, the sticky key state, limits of a key, forwarded requests, changes while running. */
#include "routes/auth.h"
#include "tests/support/store_bed.h"

#include "base/clock.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- a request, as far as auth looks at it ---- */

struct fake_req {
	struct req q;
	const char *authorization;
	const char *extra;             /* name of one more header, or NULL */
};

struct slice req_header(const struct req *q, const char *name)
{
	const struct fake_req *f = CONTAINER_OF(q, const struct fake_req, q);

	return slice_eq(slice_str(name), SLICE("authorization")) ? slice_str(f->authorization) : slice_of("", 0);
}

void req_each_header(const struct req *q, bool (*fn)(void *ctx, struct slice name, struct slice value), void *ctx)
{
	const struct fake_req *f = CONTAINER_OF(q, const struct fake_req, q);

	if (!fn(ctx, SLICE("host"), SLICE("localhost")))
		return;
	if (f->extra && !fn(ctx, slice_str(f->extra), SLICE("x")))
		return;
	(void)fn(ctx, SLICE("accept"), SLICE("*/*"));
}

static enum errc ask(struct auth *a, const char *authorization, const char *extra, char ret_id[20], int64_t *ret_retry_s)
{
	struct fake_req f = { .authorization = authorization, .extra = extra };
	struct err e = { 0 };
	enum errc rc = auth_check(a, &f.q, ret_retry_s, &e);

	assert_int_equal(rc, rc ? e.code : E_OK);
	memcpy(ret_id, f.q.key_id, sizeof(f.q.key_id));
	return rc;
}

/* ---- a store with keys ---- */

struct key_job {
	struct store_job job;
	const struct key_row *row;
};

static enum errc insert_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	enum errc rc = keys_insert_tx(t, CONTAINER_OF(j, struct key_job, job)->row, e);

	return rc ? rc : access_set_keyed_tx(t, true, e);
}

static void insert(struct bed *b, const struct key_row *row)
{
	struct key_job j = { .job = { .name = "key.insert", .body = insert_body }, .row = row };
	struct err e;

	assert_int_equal(store_run(b->s, &j.job, &e), E_OK);
}

static struct auth *open_auth(struct bed *b, const char *host, const char *direct_url)
{
	char host_text[64], url_text[128];
	struct config cfg = { .listen_host = host_text, .direct_base_url = url_text };
	struct store_reader *r = NULL;
	struct auth *a = NULL;
	struct err e;

	(void)snprintf(host_text, sizeof(host_text), "%s", host);
	(void)snprintf(url_text, sizeof(url_text), "%s", direct_url);
	assert_int_equal(store_reader_open(b->s, &r, &e), E_OK);
	assert_int_equal(auth_new(&cfg, r, &a, &e), E_OK);
	store_reader_close(r);
	return a;
}

static struct key_row make(const char *name, char text[64])
{
	struct key_row k;
	struct err e;

	assert_int_equal(auth_make_key(name, &k, text, &e), E_OK);
	return k;
}

static const char *bearer(const char *key, char out[96])
{
	(void)snprintf(out, 96, "Bearer %s", key);
	return out;
}

/* ---- tests ---- */

static void test_make_key(void **state)
{
	char a[64], b[64], long_name[80];
	struct key_row ka = make("one", a), kb = make("two", b);
	uint8_t hash[SHA256_LEN];
	struct err e;

	(void)state;
	assert_int_equal(strlen(a), 44);
	assert_memory_equal(a, AUTH_KEY_PREFIX, 4);
	assert_int_equal(strspn(a + 4, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"), 40);
	assert_string_not_equal(a, b);
	assert_string_not_equal(ka.id, kb.id);
	crypto_sha256(slice_str(a), hash);
	assert_memory_equal(hash, ka.hash, SHA256_LEN);
	assert_string_equal(ka.hint, a + 40);
	assert_memory_equal(ka.id, "key_", 4);
	assert_int_equal(strlen(ka.id), 16);
	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	assert_int_equal(auth_make_key("", &ka, a, &e), E_INVALID_VALUE);
	assert_int_equal(auth_make_key(long_name, &ka, a, &e), E_INVALID_VALUE);
}

/* No key was ever added: who gets in depends on where the node listens. */
static void test_open(void **state)
{
	static const struct {
		const char *host, *url, *authorization, *extra;
		enum errc want;
	} rows[] = {
		{ "127.0.0.1", "", "", NULL, E_OK },
		{ "localhost", "http://127.0.0.1:1", "", NULL, E_OK },
		{ "127.0.0.1", "", "Bearer sk-anything", NULL, E_OK },
		{ "127.0.0.1", "", "Bearer msk_unknown", NULL, E_OK },
		{ "127.0.0.1", "", "", "X-Forwarded-For", E_FORWARDED_DENIED },
		{ "127.0.0.1", "", "Bearer sk-anything", "via", E_FORWARDED_DENIED },
		{ "127.0.0.1", "", "Bearer msk_unknown", "CF-Ray", E_FORWARDED_DENIED },
		{ "127.0.0.1", "", "", "x-stainless-lang", E_OK },
		{ "0.0.0.0", "", "", NULL, E_UNAUTHORIZED },
		{ "192.168.1.2", "", "Bearer sk-anything", NULL, E_UNAUTHORIZED },
		{ "127.0.0.1", "https://node.example", "", NULL, E_UNAUTHORIZED },
		{ "127.0.0.1", "no url", "", NULL, E_UNAUTHORIZED },
	};
	struct bed b;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct auth *a = open_auth(&b, rows[i].host, rows[i].url);
		int64_t retry = 7;
		char id[20];
		enum errc rc = ask(a, rows[i].authorization, rows[i].extra, id, &retry);

		if (rc != rows[i].want || id[0] || retry)
			fail_msg("row %zu: %s", i, err_symbol(rc));
		assert_false(auth_is_keyed(a));
		assert_true(auth_allows_model(a, id, SLICE("any")));
		assert_int_equal(auth_max_concurrent(a, id), 0);
		auth_free(a);
	}
	bed_done(&b);
}

/* Keys from the store, added and revoked while running; the node never becomes open again by itself. */
static void test_keyed(void **state)
{
	char first[64], second[64], head[96], id[20];
	struct key_row k1 = make("first", first), k2 = make("second", second);
	struct err e;
	int64_t retry;
	struct auth *a;
	struct bed b;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	insert(&b, &k1);
	a = open_auth(&b, "127.0.0.1", "");
	assert_true(auth_is_keyed(a));
	assert_int_equal(ask(a, "", NULL, id, &retry), E_UNAUTHORIZED);
	assert_int_equal(ask(a, "Bearer sk-anything", NULL, id, &retry), E_UNAUTHORIZED);
	assert_int_equal(ask(a, bearer(first, head), "x-forwarded-for", id, &retry), E_OK);  /* a key needs no trust in the way */
	assert_string_equal(id, k1.id);
	assert_int_equal(ask(a, bearer(second, head), NULL, id, &retry), E_UNAUTHORIZED);
	assert_int_equal(auth_apply_add(a, &k2, &e), E_OK);
	assert_int_equal(ask(a, bearer(second, head), NULL, id, &retry), E_OK);
	assert_string_equal(id, k2.id);
	auth_apply_revoke(a, k1.id);
	auth_apply_revoke(a, "key_nobody");
	assert_int_equal(ask(a, bearer(first, head), NULL, id, &retry), E_UNAUTHORIZED);
	assert_false(auth_allows_model(a, k1.id, SLICE("m")));       /* a request on its way loses it too */
	auth_apply_revoke(a, k2.id);
	assert_int_equal(ask(a, "", NULL, id, &retry), E_UNAUTHORIZED);
	auth_apply_open(a);
	assert_int_equal(ask(a, "", NULL, id, &retry), E_OK);
	assert_int_equal(ask(a, bearer(second, head), NULL, id, &retry), E_OK);
	assert_int_equal(id[0], 0);
	auth_free(a);
	bed_done(&b);
}

/* Open again, but a key that is in force still counts as itself. */
static void test_key_on_open_node(void **state)
{
	char text[64], head[96], id[20];
	struct key_row k = make("k", text);
	struct err e;
	int64_t retry;
	struct bed b;
	struct auth *a;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	a = open_auth(&b, "127.0.0.1", "");
	assert_int_equal(auth_apply_add(a, &k, &e), E_OK);
	assert_true(auth_is_keyed(a));
	auth_apply_open(a);
	assert_int_equal(ask(a, bearer(text, head), "via", id, &retry), E_OK);
	assert_string_equal(id, k.id);
	auth_free(a);
	bed_done(&b);
}

static void test_rate(void **state)
{
	char text[64], head[96], id[20];
	struct key_row k = make("k", text);
	struct err e;
	int64_t retry;
	struct bed b;
	struct auth *a;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	a = open_auth(&b, "127.0.0.1", "");
	k.requests_per_minute = 3;
	assert_int_equal(auth_apply_add(a, &k, &e), E_OK);
	bearer(text, head);
	for (int i = 0; i < 3; i++)
		assert_int_equal(ask(a, head, NULL, id, &retry), E_OK);
	assert_int_equal(ask(a, head, NULL, id, &retry), E_RATE_LIMITED);
	assert_in_range(retry, 19, 21);
	assert_string_equal(id, k.id);
	clock_test_advance_ms(10000);
	assert_int_equal(ask(a, head, NULL, id, &retry), E_RATE_LIMITED);
	assert_in_range(retry, 9, 11);
	clock_test_advance_ms(retry * 1000);
	assert_int_equal(ask(a, head, NULL, id, &retry), E_OK);
	assert_int_equal(retry, 0);
	assert_int_equal(ask(a, head, NULL, id, &retry), E_RATE_LIMITED);
	clock_test_advance_ms(3600000);            /* an hour saves up one minute's worth, no more */
	for (int i = 0; i < 3; i++)
		assert_int_equal(ask(a, head, NULL, id, &retry), E_OK);
	assert_int_equal(ask(a, head, NULL, id, &retry), E_RATE_LIMITED);
	auth_free(a);
	bed_done(&b);
}

static void test_limits_of_a_key(void **state)
{
	char text[64], *models[] = { "a", "b/c" };
	struct key_row k = make("k", text);
	struct err e;
	struct bed b;
	struct auth *a;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	k.models = (struct str_list){ .v = models, .n = 2 };
	k.max_concurrent = 5;
	insert(&b, &k);
	a = open_auth(&b, "127.0.0.1", "");
	assert_true(auth_limits_models(a, k.id));
	assert_false(auth_limits_models(a, ""));
	assert_true(auth_allows_model(a, k.id, SLICE("b/c")));
	assert_false(auth_allows_model(a, k.id, SLICE("b")));
	assert_int_equal(auth_max_concurrent(a, k.id), 5);
	assert_int_equal(auth_max_concurrent(a, "key_nobody"), 0);
	(void)e;
	auth_free(a);
	bed_done(&b);
}

/* Many keys: the table grows, and every key finds its own row. */
static void test_many(void **state)
{
	enum { MANY = 500 };
	static char text[MANY][64];
	static char ids[MANY][20];
	char head[96], id[20];
	struct err e;
	int64_t retry;
	struct bed b;
	struct auth *a;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	a = open_auth(&b, "0.0.0.0", "");
	for (int i = 0; i < MANY; i++) {
		struct key_row k = make("k", text[i]);

		memcpy(ids[i], k.id, sizeof(k.id));
		assert_int_equal(auth_apply_add(a, &k, &e), E_OK);
	}
	for (int i = 0; i < MANY; i += 2)
		auth_apply_revoke(a, ids[i]);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(ask(a, bearer(text[i], head), NULL, id, &retry), i % 2 ? E_OK : E_UNAUTHORIZED);
		assert_string_equal(id, i % 2 ? ids[i] : "");
	}
	auth_free(a);
	bed_done(&b);
}

/* Every allocation of auth_new and auth_apply_add may fail: an error, nothing lost, and the node is not left open. */
static void test_no_memory(void **state)
{
	char text[64], head[96], id[20], *models[] = { "a" };
	struct key_row k = make("k", text);
	int64_t retry;
	struct bed b;
	struct auth *a;
	enum errc rc = E_NO_MEMORY;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	a = open_auth(&b, "127.0.0.1", "");
	k.models = (struct str_list){ .v = models, .n = 1 };
	for (uint64_t nth = 1; rc; nth++) {
		struct err e = { 0 };

		assert_true(nth < 20);
		mem_test_fail_at(nth, 0);
		rc = auth_apply_add(a, &k, &e);
		mem_test_fail_at(0, 0);
		assert_true(rc == E_OK || rc == E_NO_MEMORY);
		assert_true(auth_is_keyed(a));
		assert_int_equal(ask(a, "", NULL, id, &retry), E_UNAUTHORIZED);
		assert_int_equal(ask(a, bearer(text, head), NULL, id, &retry), rc ? E_UNAUTHORIZED : E_OK);
	}
	auth_free(a);
	bed_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_make_key), cmocka_unit_test(test_open), cmocka_unit_test(test_keyed),
		cmocka_unit_test(test_key_on_open_node), cmocka_unit_test(test_rate), cmocka_unit_test(test_limits_of_a_key),
		cmocka_unit_test(test_many), cmocka_unit_test(test_no_memory),
	};
	struct err e;

	if (crypto_init(&e))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
