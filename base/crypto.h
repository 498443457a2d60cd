/*
 * The only door to GnuTLS's primitives: SHA-256, HMAC-SHA-256, random bytes, base64url, constant-time compare; and
 * secrets that are wiped. (TLS itself is libmicrohttpd's and curl's.) Threads: any, after crypto_init.
 */
#ifndef MSWARM_BASE_CRYPTO_H
#define MSWARM_BASE_CRYPTO_H

#include "base/buf.h"

#define SHA256_LEN 32
#define SHA256_HEX_LEN 65

struct secret {
	char *p;          /* NUL-terminated heap block, wiped on free; no printer exists */
	size_t n;
};

MUST_CHECK enum errc secret_set(struct secret *s, struct slice value, struct err *e); /* replaces, wiping the old */
void secret_done(struct secret *s);
struct slice secret_slice(const struct secret *s);

MUST_CHECK enum errc crypto_init(struct err *e);
void crypto_sha256(struct slice data, uint8_t out[SHA256_LEN]);
/* The same in pieces. Used once: begin, add as often as wanted, end. A hash that was begun must be ended. */
struct sha256 {
	void *h;          /* NULL: not begun */
};
MUST_CHECK enum errc sha256_begin(struct sha256 *s, struct err *e);
void sha256_add(struct sha256 *s, struct slice data);
void sha256_end(struct sha256 *s, uint8_t out[SHA256_LEN]);
void sha256_done(struct sha256 *s);                                       /* gives it up; fine when not begun */
void crypto_hmac_sha256(struct slice key, struct slice data, uint8_t out[SHA256_LEN]);
MUST_CHECK enum errc crypto_random(void *out, size_t n, struct err *e);   /* E_IO */
void crypto_hex(const uint8_t *p, size_t n, char *out);                   /* 2n+1 bytes, lower case */
bool crypto_equal(struct slice a, struct slice b);                        /* constant time once the lengths are equal */
/* base64url without padding. */
MUST_CHECK enum errc crypto_base64url(struct slice data, struct buf *out, struct err *e);
/* Either alphabet, padding optional, anything else E_BAD_REQUEST. */
MUST_CHECK enum errc crypto_base64_decode(struct slice text, struct buf *out, struct err *e);
/* Random text of n characters from a-z0-9 (n+1 bytes with NUL): request ids, call ids. Not for keys. */
void crypto_random_id(char *out, size_t n);
/* UUID v4 text, 37 bytes with NUL. */
MUST_CHECK enum errc crypto_uuid4(char out[37], struct err *e);

#endif
