/*
 * Scoped HMAC tokens: check and mint. Called by routes/auth (on the loops) and by the token command. Pure: secret and
 * time come from the caller, nothing is kept.
 */
#include "base/token.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/jw.h"

#define PAYLOAD_MAX ((size_t)64 * 1024) /* four times what a request's headers may hold */
#define PAYLOAD_DEPTH 32
#define TTL_MAX_S INT64_C(315360000)    /* ten years */

/* The claims of 1.3 that are copied out; the bits say which kinds need them, in the order in which they are missed. */
#define FOR(kind) (1u << TOKEN_##kind)
#define FOR_ALL (FOR(INVOKE) | FOR(GENERIC) | FOR(CAPABILITIES) | FOR(OPS))

static const struct claim {
	const char *name;
	size_t offset;
	unsigned needed_by;
} claims[] = {
	{ "node_id", offsetof(struct token_claims, node_id), FOR_ALL },
	{ "job_id", offsetof(struct token_claims, job_id), FOR(INVOKE) | FOR(GENERIC) },
	{ "request_id", offsetof(struct token_claims, request_id), FOR(INVOKE) | FOR(GENERIC) },
	{ "model", offsetof(struct token_claims, model), FOR(INVOKE) },
	{ "schema_version", offsetof(struct token_claims, schema_version), FOR(GENERIC) },
	{ "job_type", offsetof(struct token_claims, job_type), FOR(GENERIC) },
	{ "operation", offsetof(struct token_claims, operation), 0 },
};

static const struct kind {
	const char *name, *scope, *prefix;
} kinds[TOKEN__COUNT] = {
#define X(id, name_, scope_, prefix_) [TOKEN_##id] = { name_, scope_, prefix_ },
	TOKEN_KINDS(X)
#undef X
};

static const char **claim_slot(struct token_claims *c, const struct claim *which)
{
	return (const char **)(void *)((char *)c + which->offset);
}

bool token_kind_parse(struct slice name, enum token_kind *ret)
{
	for (size_t i = 0; i < TOKEN__COUNT; i++) {
		if (slice_eq(name, slice_str(kinds[i].name))) {
			*ret = (enum token_kind)i;
			return true;
		}
	}
	return false;
}

struct slice token_from_header(struct slice header_value)
{
	/* Blanks around a field value are no part of it (RFC 9110 5.5): "Bearer " is the word alone, not a scheme. */
	struct slice value = slice_trim(header_value);

	if (slice_starts_with_nocase(value, SLICE("bearer"))) {
		struct slice rest = slice_from(value, 6), token = slice_trim_js(rest);

		if (token.n > 0 && token.p != rest.p)
			return token;
	}
	return slice_trim_js(value);
}

void token_claims_done(struct token_claims *c)
{
	buf_done(&c->payload);
	*c = (struct token_claims){ 0 };
}

static enum errc refuse(struct err *e, enum token_kind kind, const char *why)
{
	return err_set(e, E_UNAUTHORIZED, "%s_%s", kinds[kind].prefix, why);
}

static enum errc sign(struct slice signing_input, struct slice key, struct buf *out, struct err *e)
{
	uint8_t mac[SHA256_LEN];

	crypto_hmac_sha256(key, signing_input, mac);
	return crypto_base64url(slice_of((const char *)mac, sizeof(mac)), out, e);
}

/* Steps 3 to 5, but for the JSON: shape, signature (as text, so that only its canonical spelling counts), payload. */
static enum errc open_payload(struct slice token, enum token_kind kind, struct slice key, struct buf *ret, struct err *e)
{
	AUTO_BUF expected = BUF_MAX(64);
	ptrdiff_t first = slice_find_char(token, '.');
	ptrdiff_t second = first < 0 ? -1 : slice_find_char(slice_from(token, (size_t)first + 1), '.');

	if (second < 0)
		return refuse(e, kind, "invalid");
	size_t cut = (size_t)first + 1 + (size_t)second;
	struct slice payload = slice_from(slice_cut(token, cut), (size_t)first + 1);
	struct slice signature = slice_from(token, cut + 1);

	if (slice_find_char(signature, '.') >= 0)
		return refuse(e, kind, "invalid");
	enum errc rc = sign(slice_cut(token, cut), key, &expected, e);

	if (rc)
		return rc;
	if (!crypto_equal(signature, buf_slice(&expected)))
		return refuse(e, kind, "invalid");
	rc = crypto_base64_decode(payload, ret, e);
	return rc && rc != E_NO_MEMORY ? refuse(e, kind, "invalid") : rc;
}

/* What a payload is looked into for: the claims in their order, then these. Values are raw, as json_find_members gives them. */
enum { OF_SCOPE = ARRAY_LEN(claims), OF_EXP, OF_DEADLINE, OF__COUNT };

/* One walk: it checks the text as well. A payload that is JSON but no object has no scope. */
static enum errc read_payload(struct slice text, enum token_kind kind, struct slice ret[OF__COUNT], struct err *e)
{
	const char *keys[OF__COUNT] = { [OF_SCOPE] = "scope", [OF_EXP] = "exp", [OF_DEADLINE] = "deadline_at" };
	const struct json_limits lim = { .max_bytes = PAYLOAD_MAX, .max_depth = PAYLOAD_DEPTH };

	for (size_t i = 0; i < ARRAY_LEN(claims); i++)
		keys[i] = claims[i].name;
	if (json_find_members(text, keys, ret, OF__COUNT))
		return E_OK;
	if (json_check(text, lim, e) || slice_eq(slice_trim(text), SLICE("null")))
		return refuse(e, kind, "invalid");
	return refuse(e, kind, "scope_denied");
}

static bool is_string(struct slice raw)
{
	return raw.n && raw.p[0] == '"';
}

/* Ends a string of the payload, in place; NULL when it is none. */
static const char *string_in(struct buf *payload, struct slice raw)
{
	return is_string(raw) ? json_unquote_in_place(payload->p + (raw.p - payload->p), raw.n) : NULL;
}

/* Steps 6 to 8. Only a number counts as exp, only RFC 3339 as deadline_at (1.5 allows both). */
static enum errc check_scope_and_time(struct buf *payload, const struct slice v[OF__COUNT], enum token_kind kind, int64_t now_s,
	double *ret_exp, struct err *e)
{
	const char *scope = string_in(payload, v[OF_SCOPE]), *deadline;
	double exp_s = 0;
	int64_t deadline_ms;

	if (!scope || strcmp(scope, kinds[kind].scope) != 0)
		return refuse(e, kind, "scope_denied");
	if (!slice_to_f64(v[OF_EXP], &exp_s) || exp_s == 0 || exp_s < (double)now_s)
		return refuse(e, kind, "expired");
	deadline = string_in(payload, v[OF_DEADLINE]);
	if (!deadline || !clock_parse_iso(slice_str(deadline), &deadline_ms) || deadline_ms < now_s * 1000)
		return refuse(e, kind, "expired");
	*ret_exp = exp_s;
	return E_OK;
}

/* Steps 9 to 13, and every claim that is there. Values stay untrimmed: " a " equals nothing later. */
static enum errc take_claims(const struct slice v[OF__COUNT], enum token_kind kind, struct token_claims *c, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(claims); i++) {
		const char *text = string_in(&c->payload, v[i]);

		if ((claims[i].needed_by & (1u << kind)) && slice_is_empty(slice_trim_js(slice_str(text))))
			return err_set(e, E_UNAUTHORIZED, "%s is required", claims[i].name);
		*claim_slot(c, &claims[i]) = text;
	}
	return E_OK;
}

enum errc token_verify(struct slice token, enum token_kind kind, struct slice secret, int64_t now_wall_ms,
	struct token_claims *ret, struct err *e)
{
	CLEANUP(token_claims_done) struct token_claims found = { .payload = BUF_MAX(PAYLOAD_MAX) };
	struct slice key = slice_trim_js(secret), values[OF__COUNT];
	int64_t now_s = now_wall_ms / 1000;
	double exp_s = 0;

	token = slice_trim_js(token);
	if (slice_is_empty(key))
		return err_set(e, E_UNAUTHORIZED, "self_hosted_invocation_secret is required");
	if (slice_is_empty(token))
		return err_set(e, E_UNAUTHORIZED, "token is required");
	enum errc rc = open_payload(token, kind, key, &found.payload, e);

	if (!rc)
		rc = read_payload(buf_slice(&found.payload), kind, values, e);
	if (!rc)
		rc = check_scope_and_time(&found.payload, values, kind, now_s, &exp_s, e);
	if (!rc)
		rc = take_claims(values, kind, &found, e);
	if (rc)
		return rc;
	found.exp_s = exp_s < 9e15 ? (int64_t)exp_s : INT64_C(9000000000000000);
	*ret = found;
	found = (struct token_claims){ 0 };
	return E_OK;
}

static const char *mint_value(const struct token_mint *m, const char *name)
{
	const struct { const char *name, *value; } given[] = {
		{ "node_id", m->node_id }, { "job_id", m->job_id }, { "request_id", m->request_id }, { "model", m->model },
		{ "schema_version", m->schema_version }, { "job_type", m->job_type },
	};

	for (size_t i = 0; i < ARRAY_LEN(given); i++)
		if (strcmp(given[i].name, name) == 0)
			return given[i].value;
	return NULL;
}

/* Member order differs by kind: it is the order in which the existing signers write (5.1, vectors V1 to V4). */
static enum errc mint_payload(const struct token_mint *m, int64_t iat_s, struct buf *out, struct err *e)
{
	bool is_read = m->kind == TOKEN_CAPABILITIES || m->kind == TOKEN_OPS;
	struct jw w = JW(out);
	char deadline[CLOCK_ISO_LEN], nonce[37];
	enum errc rc = crypto_uuid4(nonce, e);

	if (rc)
		return rc;
	clock_iso((iat_s + m->ttl_s) * 1000, deadline);
	jw_obj(&w, NULL);
	for (size_t i = 0; i < ARRAY_LEN(claims); i++) {
		const char *value = mint_value(m, claims[i].name);

		if (!(claims[i].needed_by & (1u << m->kind)))
			continue;
		if (slice_is_empty(slice_trim_js(slice_str(value))))
			return err_set_param(e, E_MISSING_PARAMETER, claims[i].name, "%s is required", claims[i].name);
		jw_str(&w, claims[i].name, value);
	}
	if (m->kind == TOKEN_INVOKE)
		jw_str(&w, "deadline_at", deadline);
	jw_str(&w, "scope", kinds[m->kind].scope);
	if (is_read)
		jw_str(&w, "nonce", nonce);
	if (m->kind != TOKEN_INVOKE)
		jw_str(&w, "deadline_at", deadline);
	jw_i64(&w, "iat", iat_s);
	jw_i64(&w, "exp", iat_s + m->ttl_s);
	jw_end(&w);
	return jw_done(&w, e);
}

enum errc token_mint(const struct token_mint *m, struct slice secret, int64_t now_wall_ms, struct buf *out, struct err *e)
{
	AUTO_BUF payload = BUF_MAX(PAYLOAD_MAX);
	AUTO_BUF token = BUF_MAX(2 * PAYLOAD_MAX);
	struct slice key = slice_trim_js(secret);

	if (slice_is_empty(key))
		return err_set(e, E_MISSING_PARAMETER, "self_hosted_invocation_secret is required");
	if (m->ttl_s < 1 || m->ttl_s > TTL_MAX_S)
		return err_set_param(e, E_INVALID_VALUE, "ttl", "ttl: %lld s is not within 1..%lld", (long long)m->ttl_s,
			(long long)TTL_MAX_S);
	enum errc rc = mint_payload(m, now_wall_ms / 1000, &payload, e);

	if (rc == E_OK)
		rc = crypto_base64url(SLICE("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"), &token, e);
	if (rc == E_OK)
		rc = buf_add(&token, ".", 1, e);
	if (rc == E_OK)
		rc = crypto_base64url(buf_slice(&payload), &token, e);
	if (rc)
		return rc;
	AUTO_BUF signature = BUF_MAX(64);

	rc = sign(buf_slice(&token), key, &signature, e);
	if (rc == E_OK)
		rc = buf_add(&token, ".", 1, e);
	if (rc == E_OK)
		rc = buf_add_slice(&token, buf_slice(&signature), e);
	return rc ? rc : buf_add_slice(out, buf_slice(&token), e);
}
