/*
 * Host, Origin and Sec-Fetch-Site: the gate in front of every route. Called by server/dispatch.c on the loop of the
 * connection; routes/auth.c and the routes ask for "local". Pure, no state.
 */
#include "routes/guard.h"

#include <arpa/inet.h>

/* One authority: "name", "name:port", "[v6]:port". has_port is false when there is none. */
struct authority {
	struct slice host;                 /* without brackets */
	int64_t port;
	bool has_port;
};

/* ---- parsing ---- */

static bool parse_authority(struct slice s, struct authority *ret)
{
	struct authority a = { 0 };
	struct slice rest;
	ptrdiff_t at;

	if (s.n && s.p[0] == '[') {
		at = slice_find_char(s, ']');
		if (at < 0)
			return false;
		a.host = slice_of(s.p + 1, (size_t)at - 1);
		rest = slice_from(s, (size_t)at + 1);
	} else {
		at = slice_find_char(s, ':');
		a.host = at < 0 ? s : slice_cut(s, (size_t)at);
		rest = at < 0 ? slice_of("", 0) : slice_from(s, (size_t)at);
	}
	if (!a.host.n)
		return false;
	if (rest.n) {
		if (rest.p[0] != ':' || !slice_to_i64(slice_from(rest, 1), 0, 65535, &a.port))
			return false;
		a.has_port = true;
	}
	*ret = a;
	return true;
}

/* "http://authority" with nothing but a path behind it. False for any other scheme. */
static bool parse_url(struct slice url, bool *ret_is_tls, struct authority *ret, struct slice *ret_rest)
{
	struct slice s = slice_trim(url);
	size_t n;

	*ret_is_tls = slice_starts_with_nocase(s, SLICE("https://"));
	if (!*ret_is_tls && !slice_starts_with_nocase(s, SLICE("http://")))
		return false;
	s = slice_from(s, *ret_is_tls ? 8 : 7);
	for (n = 0; n < s.n && s.p[n] != '/' && s.p[n] != '?' && s.p[n] != '#'; n++)
		if (s.p[n] == '@' || s.p[n] == '\\')
			return false;      /* a user part could pass for a host */
	*ret_rest = slice_from(s, n);
	return parse_authority(slice_cut(s, n), ret);
}

/* ---- local ---- */

/* Four groups of one to three digits, the first of them 127 (as the protocol has it: 127.999.0.1 counts). */
static bool is_127_literal(struct slice s)
{
	struct slice rest = s, group;
	unsigned groups = 0;

	while (slice_next(&rest, '.', &group)) {
		int64_t v;

		if (group.n < 1 || group.n > 3 || !slice_to_i64(group, 0, 999, &v))
			return false;
		if (groups++ == 0 && !slice_eq(group, SLICE("127")))
			return false;
	}
	return groups == 4;
}

bool guard_is_local_host(struct slice host)
{
	struct slice s = slice_trim_js(host);

	return slice_eq_nocase(s, SLICE("localhost")) || slice_eq(s, SLICE("::1")) || slice_eq(s, SLICE("[::1]")) || is_127_literal(s);
}

bool guard_is_local_url(struct slice url)
{
	struct authority a;
	struct slice rest;
	bool is_tls;

	return parse_url(url, &is_tls, &a, &rest) && guard_is_local_host(a.host);
}

bool guard_is_public(const struct config *cfg)
{
	struct slice url = slice_trim_js(slice_str(cfg->direct_base_url));

	return url.n && !guard_is_local_url(url);
}

/* ---- Host ---- */

/* An address as 16 bytes, IPv4 mapped, so that spellings compare equal. */
static bool parse_address(struct slice s, uint8_t ret[16])
{
	char text[INET6_ADDRSTRLEN];

	memset(ret, 0, 16);
	if (!slice_copy(s, text, sizeof(text)))
		return false;
	if (inet_pton(AF_INET6, text, ret) == 1)
		return true;
	ret[10] = ret[11] = 0xff;
	return inet_pton(AF_INET, text, ret + 12) == 1;
}

static bool is_same_address(struct slice a, struct slice b)
{
	uint8_t x[16], y[16];

	return parse_address(a, x) && parse_address(b, y) && !memcmp(x, y, sizeof(x));
}

static bool is_direct_host(const struct config *cfg, const struct authority *host)
{
	struct authority a;
	struct slice rest;
	bool is_tls;

	return parse_url(slice_str(cfg->direct_base_url), &is_tls, &a, &rest) && slice_eq_nocase(a.host, host->host);
}

/* An entry with a port must match it; one without matches any. */
static bool is_configured_host(const struct config *cfg, const struct authority *host)
{
	for (size_t i = 0; i < cfg->allowed_hosts.n; i++) {
		struct authority a;

		if (parse_authority(slice_trim(slice_str(cfg->allowed_hosts.v[i])), &a) && slice_eq_nocase(a.host, host->host) &&
		    (!a.has_port || (host->has_port && a.port == host->port)))
			return true;
	}
	return false;
}

static enum errc check_host(const struct guard_in *in, struct authority *ret, struct err *e)
{
	struct slice shown = slice_cut(in->host, 80);

	if (!parse_authority(in->host, ret))
		return err_set(e, E_HOST_DENIED, "Host is missing or malformed");
	if (guard_is_local_host(ret->host) || is_same_address(ret->host, in->local_address) ||
	    is_direct_host(in->cfg, ret) || is_configured_host(in->cfg, ret))
		return E_OK;
	return err_set(e, E_HOST_DENIED, "Host " SLICE_FMT " is not served here; allowed_hosts can name it", SLICE_ARG(shown));
}

/* ---- Origin ---- */

static int64_t port_or_default(const struct authority *a, bool is_tls)
{
	if (a->has_port)
		return a->port;
	return is_tls ? 443 : 80;
}

static bool is_same_origin(struct slice origin, bool is_tls, const struct authority *other)
{
	struct authority a;
	struct slice rest;
	bool origin_is_tls;

	return parse_url(origin, &origin_is_tls, &a, &rest) && !rest.n && origin_is_tls == is_tls &&
	       slice_eq_nocase(a.host, other->host) && port_or_default(&a, is_tls) == port_or_default(other, is_tls);
}

static bool is_listed_origin(const struct config *cfg, struct slice origin)
{
	for (size_t i = 0; i < cfg->cors_origins.n; i++) {
		struct slice entry = slice_trim(slice_str(cfg->cors_origins.v[i])), rest;
		struct authority a;
		bool is_tls;

		if (slice_ends_with(entry, SLICE("/")))
			entry.n--;
		if (slice_eq_nocase(entry, origin))
			return true;       /* also "null", for who writes that down */
		if (parse_url(entry, &is_tls, &a, &rest) && is_same_origin(origin, is_tls, &a))
			return true;
	}
	return false;
}

/* Behind a TLS tunnel the browser's origin is that of the direct URL, not of our own socket. */
static bool is_direct_origin(const struct config *cfg, struct slice origin)
{
	struct authority a;
	struct slice rest;
	bool is_tls;

	return parse_url(slice_str(cfg->direct_base_url), &is_tls, &a, &rest) && is_same_origin(origin, is_tls, &a);
}

static enum errc check_origin(const struct guard_in *in, const struct authority *host, bool *ret_cors, struct err *e)
{
	bool is_listed = in->has_origin && is_listed_origin(in->cfg, in->origin);
	struct slice shown = slice_cut(in->origin, 80);

	*ret_cors = is_listed;
	if (is_listed)
		return E_OK;               /* such a page is cross-site, and meant to be */
	if (in->has_origin && !is_same_origin(in->origin, in->is_tls, host) && !is_direct_origin(in->cfg, in->origin))
		return err_set(e, E_ORIGIN_DENIED, "Origin " SLICE_FMT " may not call this node; cors_origins can name it", SLICE_ARG(shown));
	if (slice_eq_nocase(slice_trim(in->sec_fetch_site), SLICE("cross-site")))
		return err_set(e, E_ORIGIN_DENIED, "a page of another site may not call this node");
	return E_OK;
}

enum errc guard_check(const struct guard_in *in, bool *ret_cors, struct err *e)
{
	struct authority host;
	bool cors = false;
	enum errc rc = check_host(in, &host, e);

	if (!rc)
		rc = check_origin(in, &host, &cors, e);
	if (rc)
		return rc;
	*ret_cors = cors;
	return E_OK;
}

bool guard_is_forwarding_header(struct slice name)
{
	return slice_eq_nocase(name, SLICE("forwarded")) || slice_eq_nocase(name, SLICE("via")) ||
	       slice_eq_nocase(name, SLICE("x-real-ip")) || slice_starts_with_nocase(name, SLICE("x-forwarded-")) ||
	       slice_starts_with_nocase(name, SLICE("cf-"));
}
