/*
 * The table of routes and the one matcher of paths. Called by server/dispatch.c on a loop for each request.
 * Works on the raw target: %2F inside a segment stays in its segment, and nothing is decoded twice.
 */
#include "routes/route.h"

#include "base/mem.h"

#define ROUTE(method_, pattern_, access_, shape_, max_body_, name_, help_) \
	{ .method = method_, .pattern = pattern_, .access = access_, .shape = shape_, .max_body = max_body_, \
	  .handle = route_##name_, .help = help_ },
#define ROUTE_LARGE(method_, pattern_, access_, shape_, max_body_, name_, help_) \
	{ .method = method_, .pattern = pattern_, .access = access_, .shape = shape_, .max_body = max_body_, \
	  .handle = route_##name_, .begin = route_##name_##_begin, .help = help_ },
const struct route route_table[] = {
#include "routes/routes.def"
};
#undef ROUTE
#undef ROUTE_LARGE
const size_t route_count = ARRAY_LEN(route_table);

void route_args_done(char *args[ROUTE_ARGS_MAX])
{
	for (unsigned i = 0; i < ROUTE_ARGS_MAX; i++) {
		mem_free(args[i]);
		args[i] = NULL;
	}
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Percent-decode s into a heap string. %00 is refused: it would cut the string. */
static enum errc decode(struct slice s, char **ret, struct err *e)
{
	char *out = mem_alloc(s.n + 1);
	size_t n = 0;

	if (!out)
		return err_set(e, E_NO_MEMORY, "no memory for a path of %zu bytes", s.n);
	for (size_t i = 0; i < s.n; i++) {
		int hi, lo;

		if (s.p[i] != '%') {
			out[n++] = s.p[i];
			continue;
		}
		hi = i + 2 < s.n ? hex_value(s.p[i + 1]) : -1;
		lo = i + 2 < s.n ? hex_value(s.p[i + 2]) : -1;
		if (hi < 0 || lo < 0 || (hi == 0 && lo == 0)) {
			mem_free(out);
			return err_set(e, E_BAD_REQUEST, "path: malformed percent escape at byte %zu", i);
		}
		out[n++] = (char)(hi << 4 | lo);
		i += 2;
	}
	out[n] = '\0';
	*ret = out;
	return E_OK;
}

/* One pattern segment against one raw path segment; a parameter is decoded into *ret_arg. */
static enum errc match_segment(struct slice pat, struct slice seg, bool *ret_hit, char **ret_arg, struct err *e)
{
	char *text = NULL;
	enum errc rc;

	if (!(pat.n && pat.p[0] == ':') && slice_find_char(seg, '%') < 0) {    /* most of all comparisons */
		*ret_hit = slice_eq(pat, seg);
		return E_OK;
	}
	rc = decode(seg, &text, e);
	if (rc)
		return rc;
	if (pat.n && pat.p[0] == ':') {
		*ret_arg = text;
		*ret_hit = true;
		return E_OK;
	}
	*ret_hit = slice_eq(pat, slice_str(text));
	mem_free(text);
	return E_OK;
}

/* Most patterns differ from a path in what stands before their first parameter. A path with escapes is looked at whole. */
static bool can_match(const char *pattern, struct slice path)
{
	size_t literal = strcspn(pattern, ":*"), i = 0;

	while (i < path.n && i < literal && path.p[i] == pattern[i])
		i++;
	if (i == literal)
		return pattern[i] != '\0' || i == path.n;
	return i < path.n && path.p[i] == '%';
}

static enum errc match_pattern(const char *pattern, struct slice path, bool *ret_hit, char *args[ROUTE_ARGS_MAX], struct err *e)
{
	struct slice prest = slice_str(pattern), rest = path, pat, seg;
	unsigned n = 0;

	*ret_hit = false;
	if (!can_match(pattern, path))
		return E_OK;
	while (slice_next(&prest, '/', &pat)) {
		bool hit = false;
		char *arg = NULL;
		enum errc rc;

		if (pat.n && pat.p[0] == '*') {
			if (!rest.p || n == ROUTE_ARGS_MAX)
				return E_OK;
			rc = decode(rest, &args[n], e);
			*ret_hit = !rc && args[n][0] != '\0';
			return rc;
		}
		if (!rest.p || !slice_next(&rest, '/', &seg))
			return E_OK;
		rc = match_segment(pat, seg, &hit, &arg, e);
		if (rc)
			return rc;
		if (!hit)
			return E_OK;
		if (arg) {
			must(n < ROUTE_ARGS_MAX);
			args[n++] = arg;
		}
	}
	*ret_hit = rest.p == NULL;
	return E_OK;
}

bool route_allowed(struct slice path, char *out, size_t cap)
{
	AUTO_BUF b = BUF_MAX(cap);
	struct err ignored;
	enum errc rc = E_OK;

	for (size_t i = 0; i < route_count && !rc; i++) {
		const char *method = route_table[i].method;
		char *args[ROUTE_ARGS_MAX] = { 0 };
		bool hit = false;

		rc = match_pattern(route_table[i].pattern, path, &hit, args, &ignored);
		route_args_done(args);
		if (!rc && hit)
			rc = buf_addf(&b, &ignored, "%s%s%s", b.n ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
	}
	return !rc && b.n && slice_copy(buf_slice(&b), out, cap);
}

enum errc route_match(struct slice method, struct slice path, const struct route **ret, char *args[ROUTE_ARGS_MAX], struct err *e)
{
	struct slice want = slice_eq(method, SLICE("HEAD")) ? SLICE("GET") : method;
	bool is_path_known = false;

	for (size_t i = 0; i < route_count; i++) {
		bool hit = false;
		enum errc rc = match_pattern(route_table[i].pattern, path, &hit, args, e);

		if (!rc && hit && slice_eq(want, slice_str(route_table[i].method))) {
			*ret = &route_table[i];
			return E_OK;
		}
		route_args_done(args);
		if (rc)
			return rc;
		is_path_known |= hit;
	}
	if (is_path_known)
		return err_set(e, E_METHOD, "method " SLICE_FMT " is not allowed here", SLICE_ARG(slice_cut_text(method, 32)));
	return err_set(e, E_NOT_FOUND, "Invalid URL (" SLICE_FMT " " SLICE_FMT ")", SLICE_ARG(slice_cut_text(method, 32)), SLICE_ARG(slice_cut_text(path, 128)));
}
