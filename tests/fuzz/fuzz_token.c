/*
 * Tokens from strangers: header value, check under a known secret, and payloads that are signed right but hold anything.
 * Input: one byte for the kind and the way, then the bytes.
 */
#include "base/mem.h"
#include "base/token.h"

#define NOW_MS INT64_C(1781395200000)
#define KEY SLICE("vector-secret-0123456789")

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct slice token, enum token_kind kind)
{
	CLEANUP(token_claims_done) struct token_claims claims = { 0 };
	struct err e = { 0 };
	enum errc rc = token_verify(token, kind, KEY, NOW_MS, &claims, &e);

	must(rc == E_OK || rc == E_UNAUTHORIZED || rc == E_NO_MEMORY);
	must((rc == E_OK) == (claims.node_id != NULL));
	must(rc == E_OK || e.what[0] != '\0');
}

/* ".payload.signature", so that the fuzzer gets behind the HMAC. */
static void check_signed(struct slice payload, enum token_kind kind)
{
	AUTO_BUF token = BUF_MAX(1 << 20);
	AUTO_BUF mac_text = BUF_MAX(64);
	uint8_t mac[SHA256_LEN];

	if (buf_add_str(&token, ".", NULL) || crypto_base64url(payload, &token, NULL))
		return;
	crypto_hmac_sha256(KEY, buf_slice(&token), mac);
	if (crypto_base64url(slice_of((char *)mac, sizeof(mac)), &mac_text, NULL))
		return;
	if (buf_add_str(&token, ".", NULL) || buf_add_slice(&token, buf_slice(&mac_text), NULL))
		return;
	check(buf_slice(&token), kind);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	enum token_kind kind = (enum token_kind)(data[0] % TOKEN__COUNT);
	struct slice text = slice_of((const char *)data + 1, size - 1);

	if (data[0] & 0x10) {
		check_signed(text, kind);
	} else {
		AUTO_BUF decoded = BUF_MAX(1 << 20);

		check(token_from_header(text), kind);
		if (crypto_base64_decode(text, &decoded, NULL) == E_OK)
			must(decoded.n <= text.n);
	}
	return 0;
}
