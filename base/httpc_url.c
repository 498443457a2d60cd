/*
 * URLs of the HTTP client by strict rules of our own, and the count of idle connections a host. The loop's thread;
 * httpc_url_check any thread.
 *
 * Stricter than curl: a URL that two parsers may read differently is refused, as what we take for loopback must be
 * what curl connects to.
 */
#include "base/httpc_priv.h"

#include <arpa/inet.h>

static bool is_host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

/* Nothing that may stand in a URL is outside printable ASCII, and a backslash is a slash to some. */
static bool is_clean(struct slice url)
{
	for (size_t i = 0; i < url.n; i++) {
		unsigned char c = (unsigned char)url.p[i];

		if (c <= 0x20 || c >= 0x7f || c == '\\' || c == '#')
			return false;
	}
	return true;
}

/* "host", "host:port", "[v6]:port" */
static bool split_authority(struct slice a, struct slice *ret_host, bool *ret_is_v6)
{
	ptrdiff_t close;
	int64_t port;
	struct slice rest;

	*ret_is_v6 = a.n && a.p[0] == '[';
	if (*ret_is_v6) {
		close = slice_find_char(a, ']');
		if (close < 0)
			return false;
		*ret_host = slice_of(a.p + 1, (size_t)close - 1);
		rest = slice_from(a, (size_t)close + 1);
	} else {
		size_t n = 0;

		while (n < a.n && is_host_char(a.p[n]))
			n++;
		*ret_host = slice_cut(a, n);
		rest = slice_from(a, n);
	}
	if (slice_is_empty(*ret_host) || ret_host->n > 253)
		return false;
	return !rest.n || (rest.p[0] == ':' && slice_to_i64(slice_from(rest, 1), 1, 65535, &port));
}

/* A name whose last part is a number is an address to curl, also in octal, hex or with parts left out ("127.1"). */
static bool is_odd_number(struct slice host)
{
	struct slice last = host;
	ptrdiff_t at;

	while ((at = slice_find_char(last, '.')) >= 0 && (size_t)at + 1 < last.n)
		last = slice_from(last, (size_t)at + 1);
	bool is_hex = slice_starts_with_nocase(last, SLICE("0x"));

	for (size_t i = is_hex ? 2 : 0; i < last.n; i++) {
		char c = (char)(last.p[i] | 0x20);

		if (!(last.p[i] >= '0' && last.p[i] <= '9') && !(is_hex && c >= 'a' && c <= 'f') && last.p[i] != '.')
			return false;
	}
	return true;
}

static bool judge_host(struct slice host, bool is_v6, struct httpc_url *u)
{
	static const unsigned char v6_loopback[16] = { [15] = 1 };
	unsigned char addr[16];
	char text[256];

	if (!slice_copy(host, text, sizeof(text)))
		return false;
	if (is_v6) {
		u->is_literal = inet_pton(AF_INET6, text, addr) == 1;
		u->is_loopback = u->is_literal && memcmp(addr, v6_loopback, sizeof(addr)) == 0;
		return u->is_literal;
	}
	if (inet_pton(AF_INET, text, addr) == 1) {
		u->is_literal = true;
		u->is_loopback = addr[0] == 127;
		return true;
	}
	u->is_literal = u->is_loopback = slice_eq_nocase(host, SLICE("localhost")); /* curl resolves it by itself */
	return !is_odd_number(host);
}

bool httpc_url_split(struct slice url, struct httpc_url *ret)
{
	struct httpc_url u = { 0 };
	size_t scheme = slice_starts_with_nocase(url, SLICE("http://")) ? 7 : slice_starts_with_nocase(url, SLICE("https://")) ? 8 : 0;
	struct slice rest = slice_from(url, scheme);
	size_t n = 0;
	bool is_v6;

	if (!scheme || !is_clean(url))
		return false;
	while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
		n++;
	if (!split_authority(slice_cut(rest, n), &u.host, &is_v6) || !judge_host(u.host, is_v6, &u))
		return false;
	u.origin = slice_cut(url, scheme + n);
	u.authority = slice_cut(rest, n);
	u.target = slice_from(rest, n);
	*ret = u;
	return true;
}

bool httpc_url_check(struct slice url, bool *ret_is_loopback)
{
	struct httpc_url u;

	if (!httpc_url_split(url, &u))
		return false;
	if (ret_is_loopback)
		*ret_is_loopback = u.is_loopback;
	return true;
}

/* ---- idle connections a host ----
 *
 * curl has no limit for them, so each running transfer either claims one of the host's places or closes its connection
 * at its end. A host's count heals itself: a new connection although one should be idle means that those have died. */

struct httpc_origin *httpc_origin_get(struct httpc *c, struct slice name)
{
	struct httpc_origin *o;

	for (size_t i = 0; i < c->origin_count; i++) {
		if (slice_eq_nocase(slice_str(c->origins[i].name), name))
			return &c->origins[i];
	}
	if (c->origin_count == HTTPC_ORIGINS_MAX)
		return NULL;
	o = &c->origins[c->origin_count];
	if (!slice_copy(name, o->name, sizeof(o->name)))
		return NULL;
	c->origin_count++;
	o->kept = o->claimed = 0;
	return o;
}

void httpc_origin_begin(struct httpc_xfer *x, bool is_reused)
{
	struct httpc_origin *o = x->origin;
	bool may_keep = false;

	if (!x->c->max_idle_per_host || x->is_fresh || x->has_claim)
		return;
	if (o) {
		if (!is_reused)
			o->kept = 0;
		else if (o->kept)
			o->kept--;
		may_keep = o->kept + o->claimed < x->c->max_idle_per_host;
		o->claimed += may_keep;
		x->has_claim = may_keep;
	}
	curl_easy_setopt(x->handle->easy, CURLOPT_FORBID_REUSE, may_keep ? 0L : 1L);
}

void httpc_origin_end(struct httpc_xfer *x, bool is_kept)
{
	if (!x->has_claim)
		return;
	x->has_claim = false;
	x->origin->claimed--;
	x->origin->kept += is_kept;
}
