/* Reading URLs of model runners: see place.h. Called by upstream.c and the sources of the inventory. */
#include "llm/place.h"

#include "base/httpc.h"

#include <arpa/inet.h>

/* Split "host:port", "[v6]:port"; port 0 when none is written. */
static bool split_authority(struct slice auth, struct place *ret)
{
	struct slice port = { .p = NULL, .n = 0 };

	ret->port = 0;
	if (auth.n > 0 && auth.p[0] == '[') {
		ptrdiff_t end = slice_find_char(auth, ']');

		if (end < 0)
			return false;
		ret->host = slice_of(auth.p + 1, (size_t)end - 1);
		port = slice_from(auth, (size_t)end + 1);
	} else {
		ptrdiff_t colon = slice_find_char(auth, ':');

		ret->host = colon < 0 ? auth : slice_cut(auth, (size_t)colon);
		port = colon < 0 ? slice_of("", 0) : slice_from(auth, (size_t)colon);
	}
	if (port.n <= 1)
		return port.n == 0 || port.p[0] == ':';
	return port.p[0] == ':' && slice_to_i64(slice_from(port, 1), 1, 65535, &ret->port);
}

bool place_parse(struct slice url, struct place *ret)
{
	struct place p = { .is_tls = slice_starts_with_nocase(url, SLICE("https:")) };
	bool is_loopback;

	if (!httpc_url_check(url, &is_loopback))
		return false;
	ptrdiff_t mark = slice_find(url, SLICE("://"));

	if (mark < 0)
		return false;
	size_t from = (size_t)mark + 3, at = from;

	while (at < url.n && url.p[at] != '/' && url.p[at] != '?' && url.p[at] != '#')
		at++;
	if (!split_authority(slice_of(url.p + from, at - from), &p) || p.host.n == 0)
		return false;
	if (p.port == 0)
		p.port = p.is_tls ? 443 : 80;
	p.origin = slice_cut(url, at);
	size_t end = at;

	while (end < url.n && url.p[end] != '?' && url.p[end] != '#')
		end++;
	p.path = slice_of(url.p + at, end - at);
	p.has_tail = end < url.n;
	*ret = p;
	return true;
}

static bool host_v4(struct slice host, uint32_t *ret)
{
	char text[64];
	struct in_addr a;

	if (!slice_copy(host, text, sizeof(text)) || inet_pton(AF_INET, text, &a) != 1)
		return false;
	*ret = ntohl(a.s_addr);
	return true;
}

static bool host_v6(struct slice host, struct in6_addr *ret)
{
	char text[64];

	return slice_copy(host, text, sizeof(text)) && inet_pton(AF_INET6, text, ret) == 1;
}

static bool is_loopback_v6(const struct in6_addr *a)
{
	if (IN6_IS_ADDR_V4MAPPED(a))
		return a->s6_addr[12] == 127;
	return IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a);
}

bool place_is_loopback(const struct place *p)
{
	struct in6_addr v6;
	uint32_t v4;

	if (slice_eq_nocase(p->host, SLICE("localhost")) || slice_eq_nocase(p->host, SLICE("localhost.")))
		return true;
	if (host_v4(p->host, &v4))
		return v4 >> 24 == 127 || v4 == 0;
	return host_v6(p->host, &v6) && is_loopback_v6(&v6);
}

static bool is_private_v4(uint32_t a)
{
	return a >> 24 == 10 || a >> 20 == 0xac1 || a >> 16 == 0xc0a8 || a >> 22 == 0x191 /* 100.64/10 */ ||
	       a >> 16 == 0xa9fe /* 169.254/16 */;
}

static bool is_private_v6(const struct in6_addr *a)
{
	if (IN6_IS_ADDR_V4MAPPED(a))
		return is_private_v4((uint32_t)a->s6_addr[12] << 24 | (uint32_t)a->s6_addr[13] << 16 |
			(uint32_t)a->s6_addr[14] << 8 | (uint32_t)a->s6_addr[15]);
	return IN6_IS_ADDR_LINKLOCAL(a) || (a->s6_addr[0] & 0xfe) == 0xfc;
}

bool place_is_private(const struct place *p)
{
	static const char *const endings[] = { ".local", ".internal", ".lan", ".home", ".intranet", ".test", ".localhost" };
	struct in6_addr v6;
	uint32_t v4;

	if (place_is_loopback(p))
		return true;
	if (host_v4(p->host, &v4))
		return is_private_v4(v4);
	if (host_v6(p->host, &v6))
		return is_private_v6(&v6);
	if (slice_find_char(p->host, '.') < 0)
		return true;
	for (size_t i = 0; i < ARRAY_LEN(endings); i++) {
		struct slice end = slice_str(endings[i]);

		if (p->host.n > end.n && slice_eq_nocase(slice_from(p->host, p->host.n - end.n), end))
			return true;
	}
	return false;
}
