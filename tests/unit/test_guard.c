/* routes/guard.c: Host, Origin, Sec-Fetch-Site, forwarding headers, local hosts. */
#include "routes/guard.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char *hosts[] = { "node.lan", " Other.example:8443 " };
static char *origins[] = { "https://app.example", "http://127.0.0.1:3000/", "null" };

static struct config make_config(char *direct_url, bool with_lists)
{
	struct config c = { .direct_base_url = direct_url };

	if (with_lists) {
		c.allowed_hosts = (struct str_list){ .v = hosts, .n = ARRAY_LEN(hosts) };
		c.cors_origins = (struct str_list){ .v = origins, .n = ARRAY_LEN(origins) };
	}
	return c;
}

#define ABSENT "\x01"

static const struct {
	const char *what;
	char *direct_url;
	bool has_lists;
	const char *host, *origin, *site, *local;
	bool is_tls;
	enum errc want;
	bool want_cors;
} rows[] = {
	/* Host */
	{ "literal", "", false, "127.0.0.1:18083", ABSENT, "", "127.0.0.1", false, E_OK, false },
	{ "no port", "", false, "127.0.0.1", ABSENT, "", "127.0.0.1", false, E_OK, false },
	{ "name", "", false, "LocalHost:18083", ABSENT, "", "127.0.0.1", false, E_OK, false },
	{ "forwarded port of ssh -L", "", false, "localhost:9999", ABSENT, "", "127.0.0.1", false, E_OK, false },
	{ "other 127", "", false, "127.8.9.1:1", ABSENT, "", "127.0.0.1", false, E_OK, false },
	{ "v6", "", false, "[::1]:18083", ABSENT, "", "::1", false, E_OK, false },
	{ "rebound name", "", false, "evil.example:18083", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "rebound name like localhost", "", false, "localhost.evil.example", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "name like a literal", "", false, "127.0.0.1.evil.example", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "user part", "", false, "localhost@evil.example", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "missing", "", false, "", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "only a port", "", false, ":18083", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "bad port", "", false, "localhost:x", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "open bracket", "", false, "[::1", ABSENT, "", "::1", false, E_HOST_DENIED, false },
	{ "own address", "", false, "192.168.1.7:18083", ABSENT, "", "192.168.1.7", false, E_OK, false },
	{ "own address, mapped", "", false, "192.168.1.7:18083", ABSENT, "", "::ffff:192.168.1.7", false, E_OK, false },
	{ "other spelling of own v6", "", false, "[fd00:0:0::7]", ABSENT, "", "fd00::7", false, E_OK, false },
	{ "somebody else's address", "", false, "192.168.1.8", ABSENT, "", "192.168.1.7", false, E_HOST_DENIED, false },
	{ "wildcard address", "", false, "0.0.0.0:18083", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "no known own address", "", false, "10.0.0.1", ABSENT, "", "", false, E_HOST_DENIED, false },
	{ "direct URL", "https://node.example/x", false, "Node.example", ABSENT, "", "127.0.0.1", false, E_OK, false },
	{ "direct URL, not its subdomain", "https://node.example/x", false, "a.node.example", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "configured", "", true, "NODE.lan:5", ABSENT, "", "127.0.0.1", false, E_OK, false },
	{ "configured with port", "", true, "other.example:8443", ABSENT, "", "127.0.0.1", false, E_OK, false },
	{ "configured, other port", "", true, "other.example:8444", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	{ "configured, no port", "", true, "other.example", ABSENT, "", "127.0.0.1", false, E_HOST_DENIED, false },
	/* Origin */
	{ "same", "", false, "localhost:18083", "http://localhost:18083", "same-origin", "127.0.0.1", false, E_OK, false },
	{ "same, default port", "", false, "localhost", "http://localhost:80", "", "127.0.0.1", false, E_OK, false },
	{ "same with TLS", "", false, "localhost:1", "https://localhost:1", "", "127.0.0.1", true, E_OK, false },
	{ "other scheme", "", false, "localhost:1", "https://localhost:1", "", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "other port", "", false, "localhost:18083", "http://localhost:3000", "same-site", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "other loopback name", "", false, "localhost:18083", "http://127.0.0.1:18083", "", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "foreign", "", false, "localhost:18083", "https://evil.example", "cross-site", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "null", "", false, "localhost:18083", "null", "", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "empty", "", false, "localhost:18083", "", "", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "file", "", false, "localhost:18083", "file://", "", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "with a path", "", false, "localhost:1", "http://localhost:1/x", "", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "with a user", "", false, "localhost:1", "http://localhost:1@evil.example", "", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "behind the tunnel", "https://node.example/x", false, "node.example", "https://node.example", "", "127.0.0.1", false, E_OK, false },
	{ "listed", "", true, "localhost:18083", "https://APP.example", "cross-site", "127.0.0.1", false, E_OK, true },
	{ "listed, default port", "", true, "localhost:18083", "https://app.example:443", "", "127.0.0.1", false, E_OK, true },
	{ "listed with slash", "", true, "localhost:18083", "http://127.0.0.1:3000", "", "127.0.0.1", false, E_OK, true },
	{ "listed null", "", true, "localhost:18083", "null", "cross-site", "127.0.0.1", false, E_OK, true },
	{ "like a listed one", "", true, "localhost:18083", "https://app.example.evil", "", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	/* Sec-Fetch-Site without Origin: navigation, images */
	{ "navigation from elsewhere", "", false, "localhost:18083", ABSENT, "cross-site", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "navigation, other case", "", false, "localhost:18083", ABSENT, " Cross-Site", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	{ "typed in", "", false, "localhost:18083", ABSENT, "none", "127.0.0.1", false, E_OK, false },
	{ "same origin but cross-site", "", false, "localhost:1", "http://localhost:1", "cross-site", "127.0.0.1", false, E_ORIGIN_DENIED, false },
	/* Host goes first */
	{ "listed origin, rebound host", "", true, "evil.example", "https://app.example", "", "127.0.0.1", false, E_HOST_DENIED, false },
};

static void test_check(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct config cfg = make_config(rows[i].direct_url, rows[i].has_lists);
		bool has_origin = strcmp(rows[i].origin, ABSENT) != 0, cors = !rows[i].want_cors;
		struct guard_in in = { .cfg = &cfg, .host = slice_str(rows[i].host), .origin = slice_str(has_origin ? rows[i].origin : ""),
				       .sec_fetch_site = slice_str(rows[i].site), .has_origin = has_origin,
				       .local_address = slice_str(rows[i].local), .port = 18083, .is_tls = rows[i].is_tls };
		struct err e = { 0 };
		enum errc rc = guard_check(&in, &cors, &e);

		if (rc != rows[i].want || (!rc && cors != rows[i].want_cors))
			fail_msg("%s: %s (%s), cors %d", rows[i].what, err_symbol(rc), e.what, cors);
	}
}

static void test_forwarding(void **state)
{
	static const char *const yes[] = { "Forwarded", "X-Forwarded-For", "x-forwarded-anything", "Via", "X-REAL-IP", "CF-Ray", "cf-connecting-ip" };
	static const char *const no[] = { "forwarded-for", "viable", "x-real-ipx", "x-forwarded", "cfx", "host", "" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		assert_true(guard_is_forwarding_header(slice_str(yes[i])));
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		assert_false(guard_is_forwarding_header(slice_str(no[i])));
}

static void test_local(void **state)
{
	static const char *const yes[] = { "localhost", " LOCALHOST ", "::1", "[::1]", "127.0.0.1", "127.1.2.3", "127.999.0.1" };
	static const char *const no[] = { "", "0.0.0.0", "::", "127.0.0", "127.0.0.1.1", "127.0.0.0001", "128.0.0.1", "127.0.0.", "localhost.",
					  "127.0.0.x", "1270.0.0.1", "10.0.0.1", "localhost:1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		assert_true(guard_is_local_host(slice_str(yes[i])));
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		if (guard_is_local_host(slice_str(no[i])))
			fail_msg("%s is not local", no[i]);
}

static void test_public(void **state)
{
	static const struct {
		char *url;
		bool is_public;
	} urls[] = {
		{ "", false }, { "  ", false }, { "http://127.0.0.1:18083", false }, { "https://localhost/x", false }, { "http://[::1]:1/", false },
		{ "https://node.example", true }, { "node.example", true }, { "ftp://localhost", true },
		{ "http://localhost@evil.example", true }, { "http://localhost\\@evil.example/", true }, { "http://", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
		struct config cfg = make_config(urls[i].url, false);

		if (guard_is_public(&cfg) != urls[i].is_public)
			fail_msg("%s", urls[i].url);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check), cmocka_unit_test(test_forwarding), cmocka_unit_test(test_local), cmocka_unit_test(test_public),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
