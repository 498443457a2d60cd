/*
 * Scoped HMAC tokens of the direct API (direct-api.md 1): format, check, mint. Pure: the caller brings secret and time.
 * Threads: any.
 */
#ifndef MSWARM_BASE_TOKEN_H
#define MSWARM_BASE_TOKEN_H

#include "base/crypto.h"

/*	kind          scope claim                         error prefix */
#define TOKEN_KINDS(X) \
	X(INVOKE,       "invoke",       "self_hosted.invoke",               "self_hosted_invocation_token") \
	X(GENERIC,      "generic",      "self_hosted.generic_job.invoke",   "self_hosted_generic_job_token") \
	X(CAPABILITIES, "capabilities", "self_hosted.capabilities.read",    "self_hosted_capability_token") \
	X(OPS,          "ops",          "self_hosted.generic_job.ops.read", "self_hosted_generic_job_ops_token")

enum token_kind {
#define X(id, name, scope, prefix) TOKEN_##id,
	TOKEN_KINDS(X)
#undef X
	TOKEN__COUNT
};

struct token_claims {                 /* NULL where absent; borrowed from payload, which token_claims_done frees */
	const char *node_id, *job_id, *request_id, *model, *schema_version, *job_type, *operation;
	int64_t exp_s;
	struct buf payload;
};

bool token_kind_parse(struct slice name, enum token_kind *ret) MUST_CHECK;
/* What stands behind an optional "Bearer" in an Authorization value (1.1); empty when there is no token. */
struct slice token_from_header(struct slice header_value);
/* Check in the order of 1.4. E_UNAUTHORIZED with e->what = the exact message of the failed step. secret is trimmed here. */
MUST_CHECK enum errc token_verify(struct slice token, enum token_kind kind, struct slice secret, int64_t now_wall_ms, struct token_claims *ret, struct err *e);
void token_claims_done(struct token_claims *c);

struct token_mint {
	enum token_kind kind;
	const char *node_id;                                               /* required */
	const char *job_id, *request_id, *model, *schema_version, *job_type; /* as the kind needs */
	int64_t ttl_s;
};
/* Claims in the order that the existing clients send (direct-api.md 5.1). Appends the token to out. */
MUST_CHECK enum errc token_mint(const struct token_mint *m, struct slice secret, int64_t now_wall_ms, struct buf *out, struct err *e);

#endif
