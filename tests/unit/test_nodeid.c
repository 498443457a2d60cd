/* Node id, machine.id, signing.key, URLs, login users: server/nodeid.c, server/users.c. */
#include "server/nodeid.h"
#include "server/users.h"

#include "base/file.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A configuration with nothing but what nodeid reads, in a folder of its own. */
struct bed {
	char dir[64], machine[128], key[128];
	char empty[1], host[32];
	struct config cfg;
};

static int set_up(void **state)
{
	struct bed *b = NEW(struct bed);
	struct err e = { 0 };

	assert_non_null(b);
	snprintf(b->dir, sizeof(b->dir), "/tmp/mswarm-nodeid-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	snprintf(b->machine, sizeof(b->machine), "%s/machine.id", b->dir);
	snprintf(b->key, sizeof(b->key), "%s/signing.key", b->dir);
	b->cfg.node_id = b->cfg.listen_host = b->cfg.tls_cert = b->empty;
	b->cfg.state_dir = b->dir;
	b->cfg.machine_id_path = b->machine;
	assert_int_equal(crypto_init(&e), E_OK);
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bed *b = *state;

	(void)unlink(b->machine);
	(void)unlink(b->key);
	(void)rmdir(b->dir);
	secret_done(&b->cfg.signing_secret);
	mem_free(b);
	return 0;
}

static void write_file(const char *path, const char *text)
{
	struct err e = { 0 };

	assert_int_equal(file_write_atomic(path, slice_str(text), 0600, &e), E_OK);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

/* Trimmed text, SHA-256, first 12 digits: sha256("abc") is ba7816bf8f01... */
static void test_id_of_machine(void **state)
{
	struct bed *b = *state;
	struct err e = { 0 };
	char *id = NULL;

	write_file(b->machine, " abc\n\n");
	assert_int_equal(nodeid_get(&b->cfg, &id, &e), E_OK);
	assert_string_equal(id, "local-ba7816bf8f01");
	mem_free(id);
}

static void test_machine_id_is_made_once(void **state)
{
	static const char *const blanks[] = { NULL, "", " \n" };
	struct bed *b = *state;

	for (size_t i = 0; i < ARRAY_LEN(blanks); i++) {
		char first[SHA256_HEX_LEN], second[SHA256_HEX_LEN];
		struct err e = { 0 };

		(void)unlink(b->machine);
		if (blanks[i])
			write_file(b->machine, blanks[i]);
		assert_int_equal(nodeid_fingerprint(&b->cfg, first, &e), E_OK);
		assert_int_equal(nodeid_fingerprint(&b->cfg, second, &e), E_OK);
		assert_string_equal(first, second);
		assert_int_equal(mode_of(b->machine), 0600);
	}
}

static void test_id_that_is_configured(void **state)
{
	struct bed *b = *state;
	char shn[] = "shn_1";
	struct err e = { 0 };
	char *id = NULL;

	b->cfg.mode = MODE_OUTBOUND;
	assert_int_equal(nodeid_get(&b->cfg, &id, &e), E_MISSING_CONFIG);
	assert_string_equal(e.what, "MSWARM_SELF_HOSTED_NODE_ID is required");
	assert_null(id);
	assert_false(file_exists(b->machine));
	b->cfg.node_id = shn;
	assert_int_equal(nodeid_get(&b->cfg, &id, &e), E_OK);
	assert_string_equal(id, "shn_1");
	mem_free(id);
}

static void test_secret_is_made_once(void **state)
{
	struct bed *b = *state;
	struct secret first = { 0 }, second = { 0 };
	struct err e = { 0 };

	assert_int_equal(nodeid_secret(&b->cfg, &first, &e), E_OK);
	assert_int_equal(nodeid_secret(&b->cfg, &second, &e), E_OK);
	assert_int_equal(first.n, 43);
	assert_string_equal(first.p, second.p);
	assert_int_equal(mode_of(b->key), 0600);
	secret_done(&first);
	secret_done(&second);
}

static void test_secret_that_is_configured(void **state)
{
	struct bed *b = *state;
	struct secret s = { 0 };
	struct err e = { 0 };

	assert_int_equal(secret_set(&b->cfg.signing_secret, SLICE("  from outside \n"), &e), E_OK);
	assert_int_equal(nodeid_secret(&b->cfg, &s, &e), E_OK);
	assert_string_equal(s.p, "from outside");
	assert_false(file_exists(b->key));
	secret_done(&s);
}

static void test_secret_file_that_is_no_good(void **state)
{
	struct bed *b = *state;
	struct secret s = { 0 };
	struct err e = { 0 };

	write_file(b->key, "readable by others\n");
	assert_int_equal(chmod(b->key, 0640), 0);
	assert_int_equal(nodeid_secret(&b->cfg, &s, &e), E_FORBIDDEN);
	write_file(b->key, " \n");
	assert_int_equal(nodeid_secret(&b->cfg, &s, &e), E_IO);
	assert_int_equal(s.n, 0);
}

static void test_secret_mark(void **state)
{
	char mark[9];

	(void)state;
	nodeid_secret_mark(SLICE("abc"), mark);
	assert_string_equal(mark, "ba7816bf");
}

static void test_url(void **state)
{
	static const struct {
		const char *host, *cert, *url;
	} rows[] = {
		{ "127.0.0.1", "", "http://127.0.0.1:7" }, { "0.0.0.0", "", "http://127.0.0.1:7" }, { "", "", "http://127.0.0.1:7" },
		{ "::", "", "http://[::1]:7" },            { "::1", "", "http://[::1]:7" },         { "[::1]", "", "http://[::1]:7" },
		{ "box.lan", "/c.pem", "https://box.lan:7" },
	};
	struct bed *b = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF out = BUF_MAX(256);
		struct err e = { 0 };
		char host[32], cert[32];

		snprintf(host, sizeof(host), "%s", rows[i].host);
		snprintf(cert, sizeof(cert), "%s", rows[i].cert);
		b->cfg.listen_host = host;
		b->cfg.tls_cert = cert;
		assert_int_equal(nodeid_url(&b->cfg, 7, &out, &e), E_OK);
		assert_string_equal(buf_cstr(&out), rows[i].url);
	}
}

static void test_users(void **state)
{
	static const struct {
		const char *line;
		unsigned n;
	} rows[] = {
		{ "ann:x:1000:1000:Ann,,,:/home/ann:/bin/bash", 1 },
		{ "bob:x:1001:1001::/home/bob:", 1 },                       /* an empty shell is /bin/sh */
		{ "me:x:1002:1002::/home/me:/bin/sh", 0 },                  /* we */
		{ "root:x:0:0:root:/root:/bin/bash", 0 },
		{ "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin", 0 },
		{ "mail:x:1003:1003::/var/mail:/usr/sbin/nologin", 0 },
		{ "git:x:1004:1004::/srv/git:/bin/false", 0 },
		{ "nobody:x:65534:65534:nobody:/nonexistent:/bin/sh", 0 },
		{ "torn:x:1005:1005:", 0 },
		{ "odd:x:many:1005::/:/bin/sh", 0 },
		{ "", 0 },
	};
	AUTO_BUF all = BUF_MAX(4096);
	unsigned sum = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(users_count(slice_str(rows[i].line), 1002), rows[i].n);
		assert_int_equal(buf_add_str(&all, rows[i].line, NULL), E_OK);
		assert_int_equal(buf_add_str(&all, "\n", NULL), E_OK);
		sum += rows[i].n;
	}
	assert_int_equal(users_count(buf_slice(&all), 1002), sum);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_id_of_machine),       TEST(test_machine_id_is_made_once),   TEST(test_id_that_is_configured),
		TEST(test_secret_is_made_once), TEST(test_secret_that_is_configured), TEST(test_secret_file_that_is_no_good),
		TEST(test_secret_mark),         TEST(test_url),                       TEST(test_users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
