/*
 * API keys: only the SHA-256 of a key is kept. The access state ("was a key ever added") is sticky.
 * Threads: *_tx on THREAD(store) inside a body; the others on the reader's loop, or main.
 */
#ifndef MSWARM_STORE_KEYS_H
#define MSWARM_STORE_KEYS_H

#include "base/config.h"
#include "store/store.h"

struct key_row {
	char id[20];                       /* "key_" and 12 characters: what people and logs see */
	char name[65];
	uint8_t hash[SHA256_LEN];          /* of the whole key text */
	char hint[8];                      /* last 4 characters of the key */
	struct str_list models;            /* empty: all */
	int64_t requests_per_minute;       /* 0: no limit */
	int64_t max_concurrent;            /* 0: no limit */
	int64_t created_wall_ms;
	int64_t revoked_wall_ms;           /* 0: in force */
};

void key_row_done(struct key_row *k);
MUST_CHECK enum errc keys_insert_tx(struct store_tx *t, const struct key_row *k, struct err *e);     /* E_CONFLICT: name in use by a key in force */
MUST_CHECK enum errc keys_revoke_tx(struct store_tx *t, const char *id_or_name, int64_t now_wall_ms, char ret_id[20], struct err *e); /* E_NOT_FOUND */
/* All rows, oldest first; *ret is an array (mem_free after key_row_done on each). */
MUST_CHECK enum errc keys_list(struct store_reader *r, struct key_row **ret, size_t *ret_n, struct err *e);

/* "access.keyed" is set with the first key and stays until "mswarm access open". */
MUST_CHECK enum errc access_set_keyed_tx(struct store_tx *t, bool is_keyed, struct err *e);
MUST_CHECK enum errc access_is_keyed(struct store_reader *r, bool *ret, struct err *e);

#endif
