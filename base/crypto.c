/*
 * SHA-256, HMAC, random bytes, base64, constant-time compare, secrets: the only file that calls GnuTLS's primitives.
 * Called from any thread; GnuTLS keeps its random state per thread.
 */
#include "base/crypto.h"

#include "base/mem.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <sys/random.h>

enum errc secret_set(struct secret *s, struct slice value, struct err *e)
{
	char *p = mem_strndup(value.p ? value.p : "", value.n);

	if (!p)
		return err_set(e, E_NO_MEMORY, "no memory");
	secret_done(s);
	s->p = p;
	s->n = value.n;
	return E_OK;
}

void secret_done(struct secret *s)
{
	if (s->p)
		mem_wipe(s->p, s->n);
	mem_free(s->p);
	*s = (struct secret){ 0 };
}

struct slice secret_slice(const struct secret *s)
{
	return slice_of(s->p ? s->p : "", s->n);
}

enum errc crypto_init(struct err *e)
{
	int rc = gnutls_global_init();

	if (rc != GNUTLS_E_SUCCESS)
		return err_set(e, E_INTERNAL, "GnuTLS does not start: %s", gnutls_strerror(rc));
	return E_OK;
}

/* Both algorithms are built in and hash in place: a refusal would be a bug of the build, hence must(). */
void crypto_sha256(struct slice data, uint8_t out[SHA256_LEN])
{
	must(gnutls_hash_fast(GNUTLS_DIG_SHA256, data.p ? data.p : "", data.n, out) == 0);
}

enum errc sha256_begin(struct sha256 *s, struct err *e)
{
	gnutls_hash_hd_t h = NULL;
	int rc = gnutls_hash_init(&h, GNUTLS_DIG_SHA256);

	if (rc)
		return err_set(e, E_NO_MEMORY, "sha256: %s", gnutls_strerror(rc));
	s->h = h;
	return E_OK;
}

void sha256_add(struct sha256 *s, struct slice data)
{
	must(gnutls_hash(s->h, data.p ? data.p : "", data.n) == 0);
}

void sha256_end(struct sha256 *s, uint8_t out[SHA256_LEN])
{
	gnutls_hash_deinit(s->h, out);
	s->h = NULL;
}

void sha256_done(struct sha256 *s)
{
	uint8_t ignored[SHA256_LEN];

	if (s->h)
		sha256_end(s, ignored);
}

void crypto_hmac_sha256(struct slice key, struct slice data, uint8_t out[SHA256_LEN])
{
	must(gnutls_hmac_fast(GNUTLS_MAC_SHA256, key.p ? key.p : "", key.n, data.p ? data.p : "", data.n, out) == 0);
}

enum errc crypto_random(void *out, size_t n, struct err *e)
{
	int rc = n ? gnutls_rnd(GNUTLS_RND_KEY, out, n) : 0;

	if (rc != 0)
		return err_set(e, E_IO, "no random bytes: %s", gnutls_strerror(rc));
	return E_OK;
}

void crypto_hex(const uint8_t *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * n] = '\0';
}

bool crypto_equal(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || gnutls_memcmp(a.p, b.p, a.n) == 0);
}

enum errc crypto_base64url(struct slice data, struct buf *out, struct err *e)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char *to = NULL;

	/* Far above any buffer's ceiling, and it keeps the sum below from wrapping. */
	if (data.n > SIZE_MAX / 2)
		return err_set(e, E_TOO_LARGE, "base64: too large");
	size_t rest = data.n % 3, len = data.n / 3 * 4 + (rest ? rest + 1 : 0);
	enum errc rc = buf_reserve(out, len, &to, e);

	if (rc)
		return rc;
	const uint8_t *p = (const uint8_t *)data.p;
	uint32_t acc = 0;
	unsigned bits = 0;
	size_t at = 0;

	for (size_t i = 0; i < data.n; i++) {
		acc = (acc << 8) | p[i];
		bits += 8;
		while (bits >= 6) {
			bits -= 6;
			to[at++] = alphabet[(acc >> bits) & 63];
		}
	}
	if (bits > 0)
		to[at++] = alphabet[(acc << (6 - bits)) & 63];
	buf_wrote(out, at);
	return E_OK;
}

/* Value of one character of either alphabet, or -1. */
static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-' || c == '+')
		return 62;
	return c == '_' || c == '/' ? 63 : -1;
}

/* Bits left over in the last character are ignored: what must be unforgeable is compared as text by its caller. */
enum errc crypto_base64_decode(struct slice text, struct buf *out, struct err *e)
{
	size_t pad = 0;
	char *to = NULL;

	while (pad < 2 && pad < text.n && text.p[text.n - 1 - pad] == '=')
		pad++;
	if (pad > 0 && text.n % 4 != 0)
		return err_set(e, E_BAD_REQUEST, "base64: wrong padding");
	size_t n = text.n - pad;

	if (n % 4 == 1)
		return err_set(e, E_BAD_REQUEST, "base64: %zu characters cannot be", n);
	enum errc rc = buf_reserve(out, n / 4 * 3 + (n % 4 ? n % 4 - 1 : 0), &to, e);

	if (rc)
		return rc;
	uint32_t acc = 0;
	unsigned bits = 0;
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		int v = base64_value(text.p[i]);

		if (v < 0)
			return err_set(e, E_BAD_REQUEST, "base64: character %zu is outside the alphabet", i);
		acc = (acc << 6) | (uint32_t)v;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			to[at++] = (char)(uint8_t)(acc >> bits);
		}
	}
	buf_wrote(out, at);
	return E_OK;
}

void crypto_random_id(char *out, size_t n)
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	const unsigned fair = 256 / 36 * 36; /* bytes from here on would favour the first letters */
	uint8_t bytes[32];
	size_t at = 0;

	while (at < n) {
		if (gnutls_rnd(GNUTLS_RND_NONCE, bytes, sizeof(bytes)) != 0)
			must(getrandom(bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes)); /* cannot fail for so few bytes */
		for (size_t i = 0; i < sizeof(bytes) && at < n; i++)
			if (bytes[i] < fair)
				out[at++] = alphabet[bytes[i] % 36];
	}
	out[n] = '\0';
}

enum errc crypto_uuid4(char out[37], struct err *e)
{
	uint8_t b[16];
	char hex[33];
	enum errc rc = crypto_random(b, sizeof(b), e);

	if (rc)
		return rc;
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* RFC 4122: version 4 ... */
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80); /* ... variant 1 */
	crypto_hex(b, sizeof(b), hex);
	snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
	return E_OK;
}
