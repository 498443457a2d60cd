/*
 * The gates of R3. The token is looked at before the body, so that nobody without one reaches the JSON parser (W21).
 * Called by routes/node_job_create.c on the loop of the connection.
 */
#include "routes/node_job_gate.h"

#include "base/clock.h"
#include "base/jw.h"
#include "routes/chat.h"
#include "routes/guard.h"

/* A secret that this node made for itself is known to no gateway: with a public URL it cannot have been meant. */
static bool has_secret(const struct svc *svc)
{
	bool is_own_in_public = svc->cfg->mode == MODE_DIRECT && guard_is_public(svc->cfg) && !svc->is_secret_shared;

	return svc->signing_secret.n && !is_own_in_public;
}

enum errc node_job_gate(struct req *q, struct token_claims *ret, struct err *e)
{
	struct svc *svc = q->ctx->svc;
	struct slice token;
	struct token_claims claims = { 0 };
	enum errc rc;

	if (!has_secret(svc))
		return err_set(e, E_MISSING_CONFIG, "MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET is required for direct jobs");
	token = token_from_header(req_header(q, "authorization"));
	if (!token.n)
		return err_set(e, E_UNAUTHORIZED, "Missing invocation token");
	rc = token_verify(token, TOKEN_INVOKE, svc->signing_secret, clock_wall_ms(), &claims, e);
	if (rc)
		return rc;
	if (node_refuses(svc, DRAIN_ALL)) {
		token_claims_done(&claims);
		return err_set(e, E_DRAINING, "the node is draining: no new jobs");
	}
	*ret = claims;
	return E_OK;
}

/* {"statusCode","code","error","message"}: direct-api.md 2.4 */
static void framework_reply(struct reply *rep, int status, const char *code, const char *error, const char *message)
{
	struct jw w = JW(&rep->body);
	struct err ignored;

	buf_clear(&rep->body);
	rep->status = status;
	jw_obj(&w, NULL);
	jw_i64(&w, "statusCode", status);
	jw_str(&w, "code", code);
	jw_str(&w, "error", error);
	jw_str(&w, "message", message);
	jw_end(&w);
	if (jw_done(&w, &ignored))
		buf_clear(&rep->body);
}

void node_job_bad_json(struct reply *rep)
{
	framework_reply(rep, 400, "FST_ERR_CTP_INVALID_JSON_BODY", "Bad Request",
			"Body is not valid JSON but content-type is set to 'application/json'");
}

static void bad_media_type(struct reply *rep, struct slice type)
{
	char message[160] = "Unsupported Media Type: undefined";

	if (type.n && !slice_copy(slice_cut(type, 120), message + 24, sizeof(message) - 24))
		message[24] = '\0';
	framework_reply(rep, 415, "FST_ERR_CTP_INVALID_MEDIA_TYPE", "Unsupported Media Type", message);
}

bool node_job_media(struct req *q, struct reply *rep, enum errc *ret_rc, struct err *e)
{
	struct slice header = slice_trim(req_header(q, "content-type")), rest = header, type = header;

	*ret_rc = E_OK;
	if (header.n && slice_next(&rest, ';', &type))
		type = slice_trim(type);
	if (slice_eq_nocase(type, SLICE("application/json"))) {
		if (q->body.n)
			return true;
		framework_reply(rep, 400, "FST_ERR_CTP_EMPTY_JSON_BODY", "Bad Request",
				"Body cannot be empty when content-type is set to 'application/json'");
		return false;
	}
	if (!header.n && !q->body.n)
		*ret_rc = err_set(e, E_BAD_REQUEST, "Cannot read properties of undefined (reading 'node_id')");
	else if (slice_eq_nocase(type, SLICE("text/plain")))
		*ret_rc = err_set(e, E_BAD_REQUEST, "job node_id does not match invocation token");
	else
		bad_media_type(rep, header);
	return false;
}

enum errc node_job_claims(const struct token_claims *c, const struct invocation *j, struct err *e)
{
	const struct {
		struct slice have, want;
		const char *what;
	} pairs[] = {
		{ j->node_id, slice_str(c->node_id), "job node_id does not match invocation token" },
		{ j->job_id, slice_str(c->job_id), "job_id does not match invocation token" },
		{ j->request_id, slice_str(c->request_id), "request_id does not match invocation token" },
		{ j->request_model, slice_str(c->model), "model does not match invocation token" },
	};

	for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
		if (!slice_eq(pairs[i].have, pairs[i].want))
			return err_set(e, E_BAD_REQUEST, "%s", pairs[i].what);
	return E_OK;
}

struct slice node_job_attached_key(struct req *q)
{
	struct slice key = slice_trim_js(req_header(q, "x-mswarm-attached-api-key"));

	return key.n ? key : slice_trim_js(req_header(q, "x-attached-mswarm-api-key"));
}
