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
	size_t whole = data.n - rest;

	for (size_t i = 0; i < whole; i += 3, to += 4) {
		uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];

		to[0] = alphabet[v >> 18];
		to[1] = alphabet[v >> 12 & 63];
		to[2] = alphabet[v >> 6 & 63];
		to[3] = alphabet[v & 63];
	}
	if (rest) {
		uint32_t v = (uint32_t)p[whole] << 16 | (rest == 2 ? (uint32_t)p[whole + 1] << 8 : 0);

		to[0] = alphabet[v >> 18];
		to[1] = alphabet[v >> 12 & 63];
		if (rest == 2)
			to[2] = alphabet[v >> 6 & 63];
	}
	buf_wrote(out, len);
	return E_OK;
}

/* Of each character of either alphabet its value and this bit; 0: none. */
#define IS_BASE64 0x40
#define V(n) (IS_BASE64 | (n))
static const uint8_t base64_values[256] = {
	['A'] = V(0), ['B'] = V(1), ['C'] = V(2), ['D'] = V(3), ['E'] = V(4), ['F'] = V(5), ['G'] = V(6), ['H'] = V(7),
	['I'] = V(8), ['J'] = V(9), ['K'] = V(10), ['L'] = V(11), ['M'] = V(12), ['N'] = V(13), ['O'] = V(14), ['P'] = V(15),
	['Q'] = V(16), ['R'] = V(17), ['S'] = V(18), ['T'] = V(19), ['U'] = V(20), ['V'] = V(21), ['W'] = V(22), ['X'] = V(23),
	['Y'] = V(24), ['Z'] = V(25), ['a'] = V(26), ['b'] = V(27), ['c'] = V(28), ['d'] = V(29), ['e'] = V(30), ['f'] = V(31),
	['g'] = V(32), ['h'] = V(33), ['i'] = V(34), ['j'] = V(35), ['k'] = V(36), ['l'] = V(37), ['m'] = V(38), ['n'] = V(39),
	['o'] = V(40), ['p'] = V(41), ['q'] = V(42), ['r'] = V(43), ['s'] = V(44), ['t'] = V(45), ['u'] = V(46), ['v'] = V(47),
	['w'] = V(48), ['x'] = V(49), ['y'] = V(50), ['z'] = V(51), ['0'] = V(52), ['1'] = V(53), ['2'] = V(54), ['3'] = V(55),
	['4'] = V(56), ['5'] = V(57), ['6'] = V(58), ['7'] = V(59), ['8'] = V(60), ['9'] = V(61), ['-'] = V(62), ['+'] = V(62),
	['_'] = V(63), ['/'] = V(63),
};
#undef V

/* Four characters into 24 bits; false when one is outside the alphabet. */
static bool base64_group(const char *text, uint32_t *ret)
{
	const uint8_t *at = (const uint8_t *)text;
	uint8_t a = base64_values[at[0]], b = base64_values[at[1]], c = base64_values[at[2]], d = base64_values[at[3]];

	*ret = (uint32_t)(a & 63) << 18 | (uint32_t)(b & 63) << 12 | (uint32_t)(c & 63) << 6 | (d & 63);
	return a & b & c & d & IS_BASE64;
}

static enum errc base64_stray(const char *text, struct err *e)
{
	size_t i = 0;

	while (base64_values[(uint8_t)text[i]])
		i++;
	return err_set(e, E_BAD_REQUEST, "base64: character %zu is outside the alphabet", i);
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
	size_t whole = n - n % 4, rest = n % 4;
	char *begin = to;
	uint32_t v;

	for (size_t i = 0; i < whole; i += 4, to += 3) {
		if (!base64_group(text.p + i, &v))
			return base64_stray(text.p, e);
		to[0] = (char)(uint8_t)(v >> 16);
		to[1] = (char)(uint8_t)(v >> 8);
		to[2] = (char)(uint8_t)v;
	}
	if (rest) {
		char last[4] = { 'A', 'A', 'A', 'A' };

		memcpy(last, text.p + whole, rest);
		if (!base64_group(last, &v))
			return base64_stray(text.p, e);
		*to++ = (char)(uint8_t)(v >> 16);
		if (rest == 3)
			*to++ = (char)(uint8_t)(v >> 8);
	}
	buf_wrote(out, (size_t)(to - begin));
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
