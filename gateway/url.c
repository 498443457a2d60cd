/* URLs of the gateway; see url.h. Called by gateway/link.c, relay.c and, through gateway/member.h, by commands. */
#include "gateway/url.h"

#include "llm/place.h"

#include <ctype.h>

/* ---- what may be called ---- */

static enum errc check(const struct config *cfg, struct slice url, struct place *ret, struct err *e)
{
	if (!place_parse(url, ret))
		return err_set(e, E_INVALID_VALUE, "gateway: not an http(s) URL: " SLICE_FMT, SLICE_ARG(slice_cut_text(url, 120)));
	if (!ret->is_tls && !place_is_loopback(ret) && !cfg->gateway_allow_http)
		return err_set(e, E_INVALID_VALUE, "gateway: http:// to " SLICE_FMT " would send the token in the clear; use https, or set gateway_allow_http",
			       SLICE_ARG(slice_cut_text(ret->host, 80)));
	return E_OK;
}

enum errc gateway_url(const struct config *cfg, const char *base, const char *path, struct buf *out, struct err *e)
{
	struct place at;
	struct slice s = slice_trim(slice_str(base));
	enum errc rc;

	while (s.n && s.p[s.n - 1] == '/')
		s.n--;
	rc = check(cfg, s, &at, e);
	if (!rc)
		rc = buf_add_slice(out, s, e);
	return rc ? rc : buf_add_str(out, path, e);
}

/* ---- templates ---- */

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* The placeholder that the text begins with; its length, or 0. */
static size_t placeholder(struct slice s)
{
	static const char *const names[] = { ":jobId", ":job_id", "{jobId}", "{job_id}" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct slice name = slice_str(names[i]);

		if (slice_starts_with(s, name) && (name.p[0] == '{' || s.n == name.n || !is_word(s.p[name.n])))
			return name.n;
	}
	return 0;
}

/* As JavaScript's encodeURIComponent does. */
static enum errc add_component(struct buf *out, struct slice s, struct err *e)
{
	static const char kept[] = "-_.!~*'()", hex[] = "0123456789ABCDEF";
	enum errc rc = E_OK;

	for (size_t i = 0; i < s.n && !rc; i++) {
		unsigned char c = (unsigned char)s.p[i];
		char triple[3] = { '%', hex[c >> 4], hex[c & 15] };

		rc = isalnum(c) || (c && strchr(kept, c)) ? buf_add(out, &s.p[i], 1, e) : buf_add(out, triple, 3, e);
	}
	return rc;
}

static enum errc expand(const char *template, struct slice job_id, struct buf *out, struct err *e)
{
	struct slice rest = slice_trim(slice_str(template));
	enum errc rc = E_OK;

	while (rest.n && !rc) {
		size_t n = job_id.n ? placeholder(rest) : 0;

		rc = n ? add_component(out, job_id, e) : buf_add(out, rest.p, 1, e);
		rest = slice_from(rest, n ? n : 1);
	}
	return rc;
}

/* ---- against the base ---- */

/* Does it name a scheme of its own? */
static bool is_absolute(struct slice s)
{
	size_t n = 0;

	while (n < s.n && (isalnum((unsigned char)s.p[n]) || (n && strchr("+-.", s.p[n]))))
		n++;
	return n > 0 && n < s.n && s.p[n] == ':' && isalpha((unsigned char)s.p[0]);
}

static void drop_segment(struct buf *out, size_t root)
{
	size_t n = out->n;

	while (n > root && out->p[--n] != '/')
		;
	buf_truncate(out, n);
}

/* A path without its "." and ".." segments (RFC 3986, 5.2.4); what follows "?" stays. */
static enum errc add_collapsed(struct buf *out, struct slice path, struct err *e)
{
	ptrdiff_t q = slice_find_char(path, '?');
	struct slice query = q < 0 ? slice_of("", 0) : slice_from(path, (size_t)q);
	struct slice rest = q < 0 ? path : slice_cut(path, (size_t)q), piece;
	size_t root = out->n;
	enum errc rc = E_OK;
	bool is_open = false;      /* the last segment was dots: the path ends in a slash */

	rest = slice_from(rest, 1);
	rest.p = rest.p ? rest.p : "";
	while (!rc && slice_next(&rest, '/', &piece)) {
		is_open = slice_eq(piece, SLICE(".")) || slice_eq(piece, SLICE(".."));
		if (slice_eq(piece, SLICE("..")))
			drop_segment(out, root);
		if (is_open)
			continue;
		rc = buf_add_str(out, "/", e);
		if (!rc)
			rc = buf_add_slice(out, piece, e);
	}
	if (!rc && (is_open || out->n == root))
		rc = buf_add_str(out, "/", e);
	return rc ? rc : buf_add_slice(out, query, e);
}

static bool is_trusted(const struct config *cfg, const struct place *base, const struct place *at)
{
	if (slice_eq_nocase(base->host, at->host) && base->port == at->port && base->is_tls == at->is_tls)
		return true;
	for (size_t i = 0; i < cfg->gateway_hosts.n; i++)
		if (slice_eq_nocase(slice_str(cfg->gateway_hosts.v[i]), at->host))
			return true;
	return false;
}

enum errc gateway_url_job(const struct config *cfg, const char *base, const char *template, struct slice job_id, struct buf *out, struct err *e)
{
	AUTO_BUF path = BUF_MAX(out->max);
	struct place home, at;
	enum errc rc = check(cfg, slice_str(base), &home, e);

	if (!rc && (slice_eq(job_id, SLICE(".")) || slice_eq(job_id, SLICE(".."))))
		return err_set(e, E_INVALID_VALUE, "job_id: \"" SLICE_FMT "\" makes no path", SLICE_ARG(job_id));
	if (!rc)
		rc = expand(template, job_id, &path, e);
	if (rc)
		return rc;
	if (!is_absolute(buf_slice(&path))) {
		rc = buf_add_slice(out, home.origin, e);
		if (!rc && !slice_starts_with(buf_slice(&path), SLICE("/"))) {
			AUTO_BUF rooted = BUF_MAX(out->max + 1);

			rc = buf_add_str(&rooted, "/", e);
			if (!rc)
				rc = buf_add_slice(&rooted, buf_slice(&path), e);
			return rc ? rc : add_collapsed(out, buf_slice(&rooted), e);
		}
		return rc ? rc : add_collapsed(out, buf_slice(&path), e);
	}
	rc = check(cfg, buf_slice(&path), &at, e);
	if (!rc && !is_trusted(cfg, &home, &at))
		return err_set(e, E_FORBIDDEN, "gateway: a job path leads to " SLICE_FMT ", another host than the gateway's; list it in gateway_hosts to allow that",
			       SLICE_ARG(slice_cut_text(at.host, 80)));
	return rc ? rc : buf_add_slice(out, buf_slice(&path), e);
}
