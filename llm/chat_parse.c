/*
 * Reading a chat request: one strict pass, then the members by the table of chat_members.def. No tree is built.
 * Called by the routes and by jobs, any thread.
 */
#include "llm/chat_priv.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define MODEL_NAME_MAX 512
#define STOPS_MAX 4

static void path_write(const struct chat_at *at, char *out, size_t cap)
{
	size_t n;

	if (!at || cap == 0)
		return;
	path_write(at->up, out, cap);
	n = strlen(out);
	if (at->key)
		snprintf(out + n, cap - n, "%s%s", n ? "." : "", at->key);
	else
		snprintf(out + n, cap - n, "[%zu]", at->index);
}

enum errc chat_fail(const struct chat_at *at, enum errc code, struct err *e, const char *fmt, ...)
{
	char path[sizeof e->param] = "", text[200];
	va_list ap;

	path_write(at, path, sizeof path);
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return err_set_param(e, code, path, "%s: %s", path, text);
}

enum errc chat_want(struct slice v, enum chat_want want, bool is_required, const struct chat_at *at, struct err *e)
{
	static const struct { enum raw_kind kind; const char *text; } rows[] = {
		[CHAT_WANT_STRING] = { RAW_STRING, "a string" }, [CHAT_WANT_BOOL] = { RAW_BOOL, "true or false" },
		[CHAT_WANT_OBJECT] = { RAW_OBJECT, "an object" }, [CHAT_WANT_ARRAY] = { RAW_ARRAY, "an array" },
	};

	if (is_required && v.n == 0)
		return chat_fail(at, E_MISSING_PARAMETER, e, "is required");
	if ((raw_is_absent(v) && !is_required) || raw_kind_of(v) == rows[want].kind)
		return E_OK;
	return chat_fail(at, E_INVALID_VALUE, e, "must be %s", rows[want].text);
}

/* ---- checks of plain members: v is there and not null ---- */

static CHAT_CHECK(any)
{
	(void)rule, (void)v, (void)at, (void)r, (void)e;
	return E_OK;
}

static CHAT_CHECK(bool)
{
	(void)rule, (void)r;
	return chat_want(v, CHAT_WANT_BOOL, true, at, e);
}

static CHAT_CHECK(string)
{
	(void)rule, (void)r;
	return chat_want(v, CHAT_WANT_STRING, true, at, e);
}

static CHAT_CHECK(int)
{
	int64_t n;

	(void)r;
	if (raw_to_i64(v, (int64_t)rule->lo, (int64_t)rule->hi, &n))
		return E_OK;
	if (rule->hi > 1e9)
		return chat_fail(at, E_INVALID_VALUE, e, "must be an integer of at least %.0f", rule->lo);
	return chat_fail(at, E_INVALID_VALUE, e, "must be an integer from %.0f to %.0f", rule->lo, rule->hi);
}

static CHAT_CHECK(number)
{
	double d;

	(void)r;
	if (raw_kind_of(v) == RAW_NUMBER && slice_to_f64(v, &d) && d >= rule->lo && d <= rule->hi)
		return E_OK;
	return chat_fail(at, E_INVALID_VALUE, e, "must be a number from %.0f to %.0f", rule->lo, rule->hi);
}

/* Any integer, of any size: it is forwarded as spelled. */
static CHAT_CHECK(seed)
{
	int64_t n;

	(void)rule, (void)r;
	if (raw_kind_of(v) == RAW_NUMBER && slice_find_char(v, '.') < 0 && slice_find_char(v, 'e') < 0 && slice_find_char(v, 'E') < 0)
		return E_OK;
	if (raw_to_i64(v, INT64_MIN, INT64_MAX, &n))   /* 1.0, as for every other integer */
		return E_OK;
	return chat_fail(at, E_INVALID_VALUE, e, "must be an integer");
}

static CHAT_CHECK(model)
{
	AUTO_BUF name = BUF_MAX(MODEL_NAME_MAX);
	enum errc rc = chat_want(v, CHAT_WANT_STRING, true, at, e);

	(void)rule;
	if (rc)
		return rc;
	rc = json_unquote(v, &name, e);
	if (rc == E_NO_MEMORY)
		return rc;
	if (rc)
		return chat_fail(at, E_INVALID_VALUE, e, "must be a string of at most %d bytes", MODEL_NAME_MAX);
	if (name.n == 0 || memchr(name.p, '\0', name.n))
		return chat_fail(at, E_INVALID_VALUE, e, "must be the name of a model");
	r->model = slice_dup(buf_slice(&name));
	return r->model ? E_OK : err_set(e, E_NO_MEMORY, "no memory for a request");
}

static CHAT_CHECK(stream_options)
{
	struct slice usage = { 0 };
	enum errc rc = chat_want(v, CHAT_WANT_OBJECT, true, at, e);

	(void)rule;
	if (rc)
		return rc;
	(void)json_find_member(v, "include_usage", &usage);
	rc = chat_want(usage, CHAT_WANT_BOOL, false, &(struct chat_at){ at, "include_usage", 0 }, e);
	if (rc)
		return rc;
	r->wants_usage = raw_is_true(usage);
	return E_OK;
}

static CHAT_CHECK(logit_bias)
{
	struct json_member m;
	size_t pos = 0;
	bool bad = false;
	enum errc rc = chat_want(v, CHAT_WANT_OBJECT, true, at, e);

	(void)rule, (void)r;
	while (!rc && json_next_member(v, &pos, &m, &bad)) {
		if (raw_kind_of(m.value) != RAW_NUMBER)
			rc = chat_fail(at, E_INVALID_VALUE, e, "must map tokens to numbers");
	}
	return rc;
}

static CHAT_CHECK(stop)
{
	struct slice item;
	size_t pos = 0, i = 0;
	bool bad = false;

	(void)rule, (void)r;
	if (raw_is_string(v))
		return E_OK;
	if (!raw_is_array(v))
		return chat_fail(at, E_INVALID_VALUE, e, "must be a string or an array of strings");
	for (; json_next_element(v, &pos, &item, &bad); i++) {
		if (!raw_is_string(item))
			return chat_fail(&(struct chat_at){ at, NULL, i }, E_INVALID_VALUE, e, "must be a string");
	}
	return i <= STOPS_MAX ? E_OK : chat_fail(at, E_INVALID_VALUE, e, "holds %zu strings of at most %d", i, STOPS_MAX);
}

static CHAT_CHECK(modalities)
{
	struct slice item;
	size_t pos = 0, i = 0;
	bool bad = false;
	enum errc rc = chat_want(v, CHAT_WANT_ARRAY, true, at, e);

	(void)rule, (void)r;
	for (; !rc && json_next_element(v, &pos, &item, &bad); i++) {
		if (raw_string_is(item, "audio"))
			return chat_fail(at, E_UNSUPPORTED_VALUE, e, "audio output is not supported");
		rc = chat_want(item, CHAT_WANT_STRING, true, &(struct chat_at){ at, NULL, i }, e);
	}
	return rc;
}

static CHAT_CHECK(audio)
{
	(void)rule, (void)v, (void)r;
	return chat_fail(at, E_UNSUPPORTED_VALUE, e, "audio output is not supported");
}

static CHAT_CHECK(functions)
{
	(void)v, (void)r;
	return chat_fail(at, E_UNSUPPORTED_VALUE, e, "is not supported, use %s instead",
			 rule->key.n == sizeof "functions" - 1 ? "tools" : "tools and tool_choice");
}

/* ---- the table ---- */

static const struct chat_rule rules[CHAT_M__COUNT] = {
#define CHAT_MEMBER(id, name, fn, low, high, what) \
	[CHAT_M_##id] = { { name, sizeof(name) - 1 }, check_##fn, low, high, CHAT_##what },
#include "llm/chat_members.def"
#undef CHAT_MEMBER
};

enum chat_member chat_member_find(struct slice key)
{
	bool is_escaped = memchr(key.p, '\\', key.n) != NULL;

	for (size_t i = 0; i < CHAT_M__COUNT; i++) {
		if (raw_key_is(key, rules[i].key) || (is_escaped && raw_body_is(key, rules[i].key.p)))
			return (enum chat_member)i;
	}
	return slice_starts_with(key, SLICE("prompt_cache_")) ? CHAT_M_DROPPED : CHAT_M_UNKNOWN;
}

enum chat_fate chat_member_fate(enum chat_member id) { return id < CHAT_M__COUNT ? rules[id].fate : CHAT_DROP; }
struct slice chat_member_key(enum chat_member id) { return rules[id].key; }

enum errc chat_scan(struct slice text, struct chat_scan *s, struct err *e)
{
	struct json_member m;
	size_t pos = 0;
	bool bad = false;
	enum errc rc = E_OK;

	while (!rc && json_next_member(text, &pos, &m, &bad)) {
		enum chat_member id = chat_member_find(m.key);

		if (id < CHAT_M__COUNT)
			s->m[id] = raw_is_absent(m.value) ? (struct slice){ 0 } : m.value;
		else if (id == CHAT_M_UNKNOWN && s->unknown)
			rc = s->unknown(s->ctx, m, e);
	}
	return rc;
}

/* Rules that speak of two members. */
static enum errc check_together(const struct slice *m, struct chat_req *r, struct err *e)
{
	struct slice limit = m[CHAT_M_MAX_COMPLETION_TOKENS].n ? m[CHAT_M_MAX_COMPLETION_TOKENS] : m[CHAT_M_MAX_TOKENS];
	int64_t v;

	if (limit.n == 0)
		limit = m[CHAT_M_N_PREDICT]; /* -1 there means none */
	r->is_stream = raw_is_true(m[CHAT_M_STREAM]);
	if (m[CHAT_M_STREAM_OPTIONS].n && !r->is_stream)
		return err_set_param(e, E_INVALID_VALUE, "stream_options", "stream_options: only with stream set to true");
	if (m[CHAT_M_TOP_LOGPROBS].n && !raw_is_true(m[CHAT_M_LOGPROBS]))
		return err_set_param(e, E_INVALID_VALUE, "top_logprobs", "top_logprobs: only with logprobs set to true");
	r->max_tokens = limit.n && raw_to_i64(limit, 1, INT64_MAX, &v) ? v : -1;
	r->n = m[CHAT_M_N].n && raw_to_i64(m[CHAT_M_N], 1, CHAT_N_MAX, &v) ? v : 1;
	return E_OK;
}

static enum errc parse_members(struct chat_req *r, struct err *e)
{
	struct chat_scan s = { .unknown = NULL };
	enum errc rc = chat_scan(r->text, &s, e);

	for (size_t i = 0; !rc && i < CHAT_M__COUNT; i++) {
		struct chat_at at = { NULL, rules[i].key.p, 0 };

		if (s.m[i].n)
			rc = rules[i].check(&rules[i], s.m[i], &at, r, e);
		else if (i == CHAT_M_MODEL || i == CHAT_M_MESSAGES)
			rc = chat_fail(&at, E_MISSING_PARAMETER, e, "is required");
	}
	return rc ? rc : check_together(s.m, r, e);
}

enum errc chat_parse(struct slice body, struct chat_req *ret, struct err *e)
{
	/* how large a body may be is the listener's question: config, not ours */
	struct json_limits lim = { .max_bytes = body.n, .max_depth = JSON_LIMITS_DEFAULT.max_depth };
	struct chat_req r = { .max_tokens = -1, .n = 1 };
	enum errc rc = json_check(body, lim, e);

	if (rc)
		return rc;
	if (slice_starts_with(body, SLICE("\xef\xbb\xbf")))
		body = slice_from(body, 3);
	r.text = slice_trim(body);
	if (!raw_is_object(r.text))
		return err_set(e, E_INVALID_VALUE, "the body must be a JSON object");
	rc = parse_members(&r, e);
	if (rc) {
		chat_req_done(&r);
		return rc;
	}
	*ret = r;
	return E_OK;
}

void chat_req_done(struct chat_req *r)
{
	mem_free(r->model);
	r->model = NULL;
}
