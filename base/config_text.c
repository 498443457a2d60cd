/*
 * Text to values by the reference's rules (cli-config-service.md 2.2, 2.3), and what helps people who mistype. Pure.
 * Called by the other config files, on main.
 */
#include "base/config_priv.h"

#include "base/file.h"
#include "base/mem.h"

#include <limits.h>

#define URL_MAX 2048
#define DISTANCE_MAX 64

bool config_text_is_blank(const char *s)
{
	return slice_is_empty(slice_trim_js(slice_str(s)));
}

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

/* What stands behind 0x, 0o, 0b. */
static bool radix_int(struct slice s, int radix, int64_t *ret)
{
	int64_t v = 0;

	for (size_t i = 0; i < s.n; i++) {
		int d = digit_of(s.p[i]);

		if (d >= radix)
			return false;
		v = v > (INT64_MAX - d) / radix ? INT64_MAX : v * radix + d;
	}
	*ret = v;
	return s.n > 0;
}

struct decimal {
	uint64_t mantissa;  /* at most 18 digits */
	int64_t exponent;   /* of ten */
	bool has_digits;
};

/* Digits from *at on; what is too fine for the mantissa only moves the exponent. */
static void take_digits(struct slice s, size_t *at, bool is_fraction, struct decimal *d)
{
	for (; *at < s.n && s.p[*at] >= '0' && s.p[*at] <= '9'; ++*at) {
		d->has_digits = true;
		if (d->mantissa < UINT64_C(100000000000000000)) {
			d->mantissa = d->mantissa * 10 + (uint64_t)(s.p[*at] - '0');
			d->exponent -= is_fraction;
		} else {
			d->exponent += !is_fraction;
		}
	}
}

static bool take_exponent(struct slice s, size_t *at, struct decimal *d)
{
	int64_t sign = 1, v = 0;
	size_t first;

	if (*at >= s.n || (s.p[*at] != 'e' && s.p[*at] != 'E'))
		return true;
	++*at;
	if (*at < s.n && (s.p[*at] == '-' || s.p[*at] == '+'))
		sign = s.p[(*at)++] == '-' ? -1 : 1;
	for (first = *at; *at < s.n && s.p[*at] >= '0' && s.p[*at] <= '9'; ++*at)
		v = v > 99999 ? v : v * 10 + (s.p[*at] - '0');
	d->exponent += sign * v;
	return *at > first;
}

bool config_text_int(struct slice s, int64_t *ret)
{
	static const struct { const char *prefix; int radix; } radixes[] = { { "0x", 16 }, { "0o", 8 }, { "0b", 2 } };
	struct decimal d = { 0 };
	size_t at = 0;

	s = slice_trim_js(s);
	for (size_t i = 0; i < ARRAY_LEN(radixes); i++)
		if (slice_starts_with_nocase(s, slice_str(radixes[i].prefix)))
			return radix_int(slice_from(s, 2), radixes[i].radix, ret);
	bool is_negative = s.n > 0 && s.p[0] == '-';

	at = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+');
	take_digits(s, &at, false, &d);
	if (at < s.n && s.p[at] == '.') {
		at++;
		take_digits(s, &at, true, &d);
	}
	if (!d.has_digits || !take_exponent(s, &at, &d) || at != s.n)
		return false;
	if (d.mantissa != 0 && d.exponent > 308) /* infinite as a double, which is what the reference reads */
		return false;
	uint64_t v = d.mantissa;

	for (; d.exponent < 0 && v > 0; d.exponent++)
		v /= 10;
	for (; d.exponent > 0 && v > 0 && v < INT64_MAX; d.exponent--)
		v = v > (uint64_t)INT64_MAX / 10 ? (uint64_t)INT64_MAX : v * 10;
	if (is_negative && d.mantissa != 0)
		*ret = v > 0 ? -(int64_t)v : -1;
	else
		*ret = (int64_t)v;
	return true;
}

bool config_text_bool(struct slice s, bool *ret)
{
	static const struct { const char *word; bool value; } words[] = {
		{ "1", true }, { "true", true }, { "yes", true }, { "0", false }, { "false", false }, { "no", false },
	};

	s = slice_trim_js(s);
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (slice_eq_nocase(s, slice_str(words[i].word))) {
			*ret = words[i].value;
			return true;
		}
	}
	return false;
}

const char *config_text_policy(struct slice s)
{
	static const char *const all[] = { "all", "expose-all", "exposed", "true", "1", "yes" };
	static const char *const none[] = { "none", "off", "disabled", "false", "0", "no" };

	s = slice_trim_js(s);
	if (slice_eq_nocase(s, SLICE("expose_all")))
		return "all";
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (slice_eq_nocase(s, slice_str(all[i])))
			return "all";
	for (size_t i = 0; i < ARRAY_LEN(none); i++)
		if (slice_eq_nocase(s, slice_str(none[i])))
			return "none";
	return NULL;
}

enum errc config_text_list(struct slice s, struct str_list *out, struct err *e)
{
	struct slice piece;

	while (slice_next(&s, ',', &piece)) {
		piece = slice_trim_js(piece);
		enum errc rc = slice_is_empty(piece) ? E_OK : str_list_add(out, piece, e);

		if (rc)
			return rc;
	}
	return E_OK;
}

static struct slice without_slashes(struct slice s)
{
	while (s.n > 0 && s.p[s.n - 1] == '/')
		s.n--;
	return s;
}

char *config_text_url(struct slice s)
{
	return slice_dup(without_slashes(slice_trim_js(s)));
}

/* Cut ":80" off; a bare IPv6 address (two colons, no bracket) has no port. */
static void split_port(struct slice *host, struct slice *port)
{
	ptrdiff_t close = slice_find_char(*host, ']');
	size_t from = close < 0 ? 0 : (size_t)close + 1;
	ptrdiff_t colon = slice_find_char(slice_from(*host, from), ':');

	if (colon < 0 || slice_find_char(slice_from(*host, from + (size_t)colon + 1), ':') >= 0)
		return;
	*port = slice_from(*host, from + (size_t)colon);
	*host = slice_cut(*host, from + (size_t)colon);
}

enum errc config_text_ollama(struct slice s, char **ret, struct err *e)
{
	AUTO_BUF url = BUF_MAX(URL_MAX);
	struct slice scheme = SLICE("http://");
	enum errc rc;

	s = without_slashes(slice_trim_js(s));
	ptrdiff_t mark = slice_find(s, SLICE("://"));
	bool has_scheme = mark >= 0;

	if (has_scheme) {
		scheme = slice_cut(s, (size_t)mark + 3);
		s = slice_from(s, (size_t)mark + 3);
	}
	ptrdiff_t slash = slice_find_char(s, '/');
	struct slice host = slash < 0 ? s : slice_cut(s, (size_t)slash);
	struct slice path = slash < 0 ? SLICE("") : slice_from(s, (size_t)slash), port = SLICE("");

	split_port(&host, &port);
	/* The variable tells the server where to listen; "everywhere" is no address to call. */
	if (slice_is_empty(host) || slice_eq(host, SLICE("0.0.0.0")))
		host = SLICE("127.0.0.1");
	else if (slice_eq(host, SLICE("[::]")) || slice_eq(host, SLICE("::")) || slice_eq(host, SLICE("::1")))
		host = SLICE("[::1]");
	if (slice_is_empty(port) && !has_scheme)
		port = SLICE(":11434");
	rc = buf_addf(&url, e, SLICE_FMT SLICE_FMT SLICE_FMT SLICE_FMT, SLICE_ARG(scheme), SLICE_ARG(host), SLICE_ARG(port),
		SLICE_ARG(path));
	if (rc)
		return rc;
	*ret = buf_take(&url, NULL);
	return *ret ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
}

/* host, host:port, [v6] or [v6]:port. */
static bool is_authority(struct slice a)
{
	size_t host_end = 0;
	int64_t port;

	if (a.n > 0 && a.p[0] == '[') {
		ptrdiff_t close = slice_find_char(a, ']');

		if (close < 3)
			return false;
		host_end = (size_t)close + 1;
	} else {
		ptrdiff_t colon = slice_find_char(a, ':');

		host_end = colon < 0 ? a.n : (size_t)colon;
		if (slice_find_char(a, '[') >= 0 || slice_find_char(a, ']') >= 0)
			return false;
	}
	if (host_end == 0)
		return false;
	if (host_end == a.n)
		return true;
	return a.p[host_end] == ':' && slice_to_i64(slice_from(a, host_end + 1), 1, 65535, &port);
}

enum errc config_text_base_url(struct slice s, char **ret, struct slice *ret_authority, struct err *e)
{
	AUTO_BUF url = BUF_MAX(URL_MAX);
	const char *scheme = "http://";

	s = slice_trim_js(s);
	if (s.n > URL_MAX - 8)
		return err_set(e, E_INVALID_VALUE, "must be at most %d bytes long", URL_MAX - 8);
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f || strchr("<>\"\\^`{|}?#", s.p[i]))
			return err_set(e, E_INVALID_VALUE, "byte %zu may not stand in a base URL", i + 1);
	if (slice_starts_with_nocase(s, SLICE("https://")))
		scheme = "https://";
	else if (!slice_starts_with_nocase(s, SLICE("http://")))
		return err_set(e, E_INVALID_VALUE, "must begin with http:// or https://");
	s = slice_from(s, strlen(scheme));
	ptrdiff_t slash = slice_find_char(s, '/');
	struct slice authority = slash < 0 ? s : slice_cut(s, (size_t)slash);
	struct slice path = without_slashes(slash < 0 ? SLICE("") : slice_from(s, (size_t)slash));

	if (slice_find_char(authority, '@') >= 0)
		return err_set(e, E_INVALID_VALUE, "must hold no user or password; use api_key_file");
	if (!is_authority(authority))
		return err_set(e, E_INVALID_VALUE, "needs a host, and a port within 1..65535 if any");
	if (slice_is_empty(path))
		path = SLICE("/v1");
	enum errc rc = buf_addf(&url, e, "%s" SLICE_FMT SLICE_FMT, scheme, SLICE_ARG(authority), SLICE_ARG(path));

	if (rc)
		return rc;
	char *text = buf_take(&url, NULL);

	if (!text)
		return err_set(e, E_NO_MEMORY, "no memory");
	*ret = text;
	*ret_authority = authority;
	return E_OK;
}

enum errc config_text_path(const char *path, const char *home, const char *folder, char **ret, struct err *e)
{
	AUTO_FREE char *expanded = file_expand_home(path, home);

	if (expanded && expanded[0] != '/') {
		char *joined = file_join(folder, expanded);

		mem_free(expanded);
		expanded = joined;
	}
	if (!expanded)
		return err_set(e, E_NO_MEMORY, "no memory");
	*ret = TAKE(expanded);
	return E_OK;
}

unsigned config_text_distance(struct slice a, struct slice b)
{
	unsigned rows[3][DISTANCE_MAX + 1] = { 0 };

	if (a.n > DISTANCE_MAX || b.n > DISTANCE_MAX)
		return UINT_MAX;
	for (unsigned j = 0; j <= b.n; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= a.n; i++) {
		unsigned *now = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= b.n; j++) {
			unsigned best = up[j - 1] + (a.p[i - 1] != b.p[j - 1]);

			if (up[j] + 1 < best)
				best = up[j] + 1;
			if (now[j - 1] + 1 < best)
				best = now[j - 1] + 1;
			if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1] && up2[j - 2] + 1 < best)
				best = up2[j - 2] + 1;
			now[j] = best;
		}
	}
	return rows[a.n % 3][b.n];
}

bool config_text_is_near(unsigned distance, size_t n)
{
	return distance <= 1 + n / 5;
}
