/*
 * Who may call /v1: API keys and the access state, held in memory, loaded from the store at boot. Only hashes of keys.
 *
 * A change comes in through the control socket: written to the store first, then applied here, then the command is
 * answered; one leaf mutex, so that a revocation is in force on all loops before the command returns.
 *
 * Rules: design.md 6 "local /v1 without a key": open while bind and direct URL are loopback and no key was ever added;
 * keyed for good after that. A keyless request that carries forwarding headers is refused.
 *
 * Threads: auth_new on main; auth_apply_* on the supervisor's loop; auth_check and auth_allows_model from any loop.
 */
#ifndef MSWARM_ROUTES_AUTH_H
#define MSWARM_ROUTES_AUTH_H

#include "routes/route.h"
#include "store/keys.h"

#define AUTH_KEY_PREFIX "msk_"             /* a key is "msk_" and 40 characters base62 of 30 random bytes */

struct auth;

MUST_CHECK enum errc auth_new(const struct config *cfg, struct store_reader *r, struct auth **ret, struct err *e);
void auth_free(struct auth *a);
bool auth_is_keyed(struct auth *a);
/*
 * The gate of ACCESS_LOCAL routes; fills q->key_id. E_UNAUTHORIZED (missing or unknown key: texts say which),
 * E_FORWARDED_DENIED, E_RATE_LIMITED (requests per minute of the key; *ret_retry_s says when).
 */
MUST_CHECK enum errc auth_check(struct auth *a, struct req *q, int64_t *ret_retry_s, struct err *e);
/* It came through a proxy or tunnel: any of Forwarded, X-Forwarded-*, Via, X-Real-IP, CF-*. */
bool auth_is_forwarded(const struct req *q);
bool auth_limits_models(struct auth *a, const char *key_id);                     /* the key has a list of models */
bool auth_allows_model(struct auth *a, const char *key_id, struct slice model);  /* true for keyless requests */
int64_t auth_max_concurrent(struct auth *a, const char *key_id);                 /* 0: no limit */

/* THREAD(supervisor), after the commit: */
MUST_CHECK enum errc auth_apply_add(struct auth *a, const struct key_row *k, struct err *e);
void auth_apply_revoke(struct auth *a, const char *id);
void auth_apply_open(struct auth *a);
/* A new key: text (for the one time that it is shown) and row (hash, hint, id filled). */
MUST_CHECK enum errc auth_make_key(const char *name, struct key_row *ret_row, char ret_text[64], struct err *e);

#endif
