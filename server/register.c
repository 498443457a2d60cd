/* Registration by handle; see register.h. Called by setup.c. */
#include "server/register.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define REGISTER_PATH MEMBER_BASE_PATH "/register"
#define CLAIM_PATH MEMBER_BASE_PATH "/register/claim"
#define WAIT_MS (30 * 60 * 1000)
#define ASK_MS 5000
#define FAILURES_MAX 12                /* claims in a row without an answer: a minute */

static enum errc write_register(const struct member_offer *o, const char *handle, const char *secret, struct buf *out, struct err *e)
{
	struct jw w = JW(out);
	char host[256] = "";

	(void)gethostname(host, sizeof(host) - 1);
	jw_obj(&w, NULL);
	jw_str(&w, "handle", handle);
	jw_str(&w, "server_name", o->server_name);
	jw_str(&w, "machine_fingerprint", o->fingerprint);
	jw_str(&w, "registration_secret", secret);
	jw_str(&w, "relay_mode", o->relay_mode);
	jw_str(&w, "node_version", o->cfg->node_version);
	jw_str(&w, "hostname", host);
	jw_raw(&w, "client_allowlist", o->client_allowlist.n ? o->client_allowlist : SLICE("[]"));
	jw_end(&w);
	return jw_done(&w, e);
}

/* Where people approve: the gateway's URL with "api." as "app.". */
static void print_place(const char *base)
{
	const char *api = strstr(base, "://api.");

	if (api)
		printf("  Approve at:     %.*s://app.%s\n", (int)(api - base), base, api + 7);
	else
		printf("  Approve at:     %s\n", base);
}

static enum errc claim(struct account *a, const char *node_id, const char *secret, struct json **ret, struct err *e)
{
	AUTO_BUF body = BUF_MAX(16 * 1024);
	struct jw w = JW(&body);
	enum errc rc;

	jw_obj(&w, NULL);
	jw_str(&w, "node_id", node_id);
	jw_str(&w, "registration_secret", secret);
	jw_end(&w);
	rc = jw_done(&w, e);
	if (!rc)
		rc = account_call(a, CLAIM_PATH, slice_of("", 0), slice_of("", 0), &body, e);
	return rc ? rc : json_parse(buf_slice(&a->answer), JSON_LIMITS_DEFAULT, ret, e);
}

static enum errc wait_for_approval(struct account *a, const char *handle, const char *node_id, const char *secret, struct member *ret, struct err *e)
{
	int64_t end_ms = clock_mono_ms() + WAIT_MS;
	unsigned failures = 0;

	while (clock_mono_ms() < end_ms) {
		AUTO_JSON answer = NULL;
		enum errc rc = claim(a, node_id, secret, &answer, e);
		struct slice status = json_slice(json_get(answer, "status"));

		if (rc && (++failures >= FAILURES_MAX || (a->status >= 400 && a->status < 500 && a->status != 429)))
			return rc;
		if (!rc)
			failures = 0;
		if (slice_eq(status, SLICE("rejected")))
			return err_set(e, E_FORBIDDEN, "%s rejected this machine.", handle);
		if (slice_eq(status, SLICE("approved")))
			return member_parse(buf_slice(&a->answer), MEMBER_BOOTSTRAPPED, ret, e);
		(void)poll(NULL, 0, ASK_MS);
	}
	return err_set(e, E_TIMEOUT, "Timed out waiting for approval. Re-run the installer once %s has approved this machine.", handle);
}

enum errc register_by_handle(struct account *a, const struct member_offer *o, const char *handle, struct member *ret, struct err *e)
{
	uint8_t random[32];
	char secret[2 * sizeof(random) + 1];
	AUTO_BUF body = BUF_MAX(1u << 20);
	AUTO_JSON answer = NULL;
	enum errc rc = crypto_random(random, sizeof(random), e);

	crypto_hex(random, sizeof(random), secret);
	if (!rc)
		rc = write_register(o, handle, secret, &body, e);
	if (!rc)
		rc = account_call(a, REGISTER_PATH, slice_of("", 0), slice_of("", 0), &body, e);
	if (!rc)
		rc = json_parse(buf_slice(&a->answer), JSON_LIMITS_DEFAULT, &answer, e);
	const char *node_id = json_str(json_get(answer, "node_id")), *code = json_str(json_get(answer, "approval_code"));

	if (!rc && (!node_id || !*node_id))
		rc = err_set(e, E_UPSTREAM, "Registration response did not include a node_id");
	if (!rc) {
		printf("  Approval code:  %s\n", code ? code : "");
		print_place(a->cfg->gateway_base_url);
		printf("  Waiting for %s to approve this machine...\n", handle);
		fflush(stdout);
		rc = wait_for_approval(a, handle, node_id, secret, ret, e);
	}
	mem_wipe(secret, sizeof(secret));
	mem_wipe(random, sizeof(random));
	return rc;
}
