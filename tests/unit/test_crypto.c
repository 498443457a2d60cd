/* base/crypto.c: known answers (FIPS 180-2, RFC 4231, RFC 4648), random, secrets. */
#include "base/crypto.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static struct slice of(const char *s)
{
	return slice_str(s);
}

static void test_sha256(void **state)
{
	const struct { const char *in, *hex; } rows[] = {
		{ "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
		{ "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
			"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint8_t out[SHA256_LEN];
		char hex[SHA256_HEX_LEN];

		crypto_sha256(of(rows[i].in), out);
		crypto_hex(out, sizeof(out), hex);
		assert_string_equal(hex, rows[i].hex);
	}
}

static void test_hmac(void **state)
{
	const struct { const char *key, *data, *hex; } rows[] = {
		{ "Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
		{ "\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", "Hi There",
			"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
	};
	char long_key[131], hex[SHA256_HEX_LEN];
	uint8_t out[SHA256_LEN];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		crypto_hmac_sha256(of(rows[i].key), of(rows[i].data), out);
		crypto_hex(out, sizeof(out), hex);
		assert_string_equal(hex, rows[i].hex);
	}
	memset(long_key, 0xaa, sizeof(long_key));
	crypto_hmac_sha256(slice_of(long_key, sizeof(long_key)), SLICE("Test Using Larger Than Block-Size Key - Hash Key First"), out);
	crypto_hex(out, sizeof(out), hex);
	assert_string_equal(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void test_base64_encode(void **state)
{
	const struct { const char *in, *out; } rows[] = {
		{ "", "" }, { "f", "Zg" }, { "fo", "Zm8" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg" }, { "fooba", "Zm9vYmE" },
		{ "foobar", "Zm9vYmFy" }, { "\xfb\xff\xfe", "-__-" },
	};
	struct err e = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF b = BUF_MAX(strlen(rows[i].out) + 1);

		assert_int_equal(buf_add_str(&b, ".", &e), E_OK);
		assert_int_equal(crypto_base64url(of(rows[i].in), &b, &e), E_OK);
		assert_true(slice_eq(slice_from(buf_slice(&b), 1), of(rows[i].out)));
	}
	AUTO_BUF small = BUF_MAX(7);

	assert_int_equal(crypto_base64url(SLICE("foobar"), &small, &e), E_TOO_LARGE);
	assert_int_equal(small.n, 0);
}

static void test_base64_decode(void **state)
{
	const struct { const char *in, *out; enum errc want; } rows[] = {
		{ "", "", E_OK }, { "Zg", "f", E_OK }, { "Zg==", "f", E_OK }, { "Zm8", "fo", E_OK }, { "Zm8=", "fo", E_OK },
		{ "Zm9v", "foo", E_OK }, { "Zm9vYmFy", "foobar", E_OK }, { "-__-", "\xfb\xff\xfe", E_OK }, { "+//+", "\xfb\xff\xfe", E_OK },
		{ "Z", "", E_BAD_REQUEST }, { "Zm9vY", "", E_BAD_REQUEST }, { "Zg=", "", E_BAD_REQUEST }, { "Zm9v=", "", E_BAD_REQUEST },
		{ "Zm9v====", "", E_BAD_REQUEST }, { "=", "", E_BAD_REQUEST }, { "Zm 9v", "", E_BAD_REQUEST }, { "Zm9v\n", "", E_BAD_REQUEST },
		{ "Zm=9", "", E_BAD_REQUEST }, { "Zm.v", "", E_BAD_REQUEST }, { "Zm\xc3\xa9", "", E_BAD_REQUEST },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF b = BUF_MAX(rows[i].want ? 100 : strlen(rows[i].out)); /* exactly enough */
		struct err e = { 0 };

		assert_int_equal(crypto_base64_decode(of(rows[i].in), &b, &e), rows[i].want);
		assert_true(slice_eq(buf_slice(&b), of(rows[i].out)));
	}
}

static void test_base64_round_trip(void **state)
{
	uint8_t data[200];
	struct err e = { 0 };

	(void)state;
	assert_int_equal(crypto_random(data, sizeof(data), &e), E_OK);
	for (size_t n = 0; n <= sizeof(data); n++) {
		AUTO_BUF text = BUF_MAX(1000);
		AUTO_BUF back = BUF_MAX(n);

		assert_int_equal(crypto_base64url(slice_of((char *)data, n), &text, &e), E_OK);
		assert_int_equal(crypto_base64_decode(buf_slice(&text), &back, &e), E_OK);
		assert_int_equal(back.n, n);
		assert_memory_equal(back.p ? back.p : "", data, n);
	}
}

static void test_equal(void **state)
{
	(void)state;
	assert_true(crypto_equal(SLICE("abc"), SLICE("abc")));
	assert_false(crypto_equal(SLICE("abc"), SLICE("abd")));
	assert_false(crypto_equal(SLICE("abc"), SLICE("ab")));
	assert_false(crypto_equal(SLICE(""), SLICE("a")));
	assert_true(crypto_equal(SLICE(""), (struct slice){ 0 }));
}

static void test_random(void **state)
{
	char a[21], b[21], uuid[37], seen[128] = { 0 };
	uint8_t none = 7;
	struct err e = { 0 };

	(void)state;
	memset(a, '#', sizeof(a));
	crypto_random_id(a, 20);
	crypto_random_id(b, 20);
	assert_int_equal(strlen(a), 20);
	assert_string_not_equal(a, b);
	for (unsigned i = 0; i < 200; i++) {
		crypto_random_id(a, 20);
		for (const char *p = a; *p; p++)
			seen[(unsigned char)*p & 127] = 1;
	}
	for (unsigned c = 0; c < 128; c++) /* all of a-z0-9 and nothing else */
		assert_int_equal(seen[c], (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'));
	crypto_random_id(a, 0);
	assert_string_equal(a, "");
	assert_int_equal(crypto_uuid4(uuid, &e), E_OK);
	assert_int_equal(strlen(uuid), 36);
	for (size_t i = 0; i < 36; i++)
		assert_true(i == 8 || i == 13 || i == 18 || i == 23 ? uuid[i] == '-' : strchr("0123456789abcdef", uuid[i]) != NULL);
	assert_int_equal(uuid[14], '4');
	assert_non_null(strchr("89ab", uuid[19]));
	assert_int_equal(crypto_random(&none, 0, &e), E_OK);
	assert_int_equal(none, 7);
}

static void test_secret(void **state)
{
	struct secret s = { 0 };
	struct err e = { 0 };

	(void)state;
	assert_int_equal(secret_slice(&s).n, 0);
	assert_int_equal(secret_set(&s, SLICE("one"), &e), E_OK);
	assert_string_equal(s.p, "one");
	/* from itself: the old block must not be gone before it is copied */
	assert_int_equal(secret_set(&s, slice_from(secret_slice(&s), 1), &e), E_OK);
	assert_true(slice_eq(secret_slice(&s), SLICE("ne")));
	mem_test_fail_at(1, 0);
	assert_int_equal(secret_set(&s, SLICE("other"), &e), E_NO_MEMORY);
	mem_test_fail_at(0, 0);
	assert_string_equal(s.p, "ne");
	secret_done(&s);
	secret_done(&s);
	assert_null(s.p);
	assert_int_equal(secret_set(&s, (struct slice){ 0 }, &e), E_OK);
	assert_string_equal(s.p, "");
	secret_done(&s);
}

static int start(void **state)
{
	(void)state;
	return crypto_init(NULL) == E_OK ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_hmac),
		cmocka_unit_test(test_base64_encode),
		cmocka_unit_test(test_base64_decode),
		cmocka_unit_test(test_base64_round_trip),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_secret),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
