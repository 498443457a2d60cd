/*
 * API keys and the access state, in memory: two hash chains over the keys in force, one by hash and one by id.
 * Called by server/dispatch.c and the routes on the loops, by server/control.c on the supervisor's loop, by main at boot.
 *
 * A key is looked for by the first 8 bytes of its SHA-256 and then compared whole in constant time: what a caller can
 * learn from the time is a property of a hash, not of a key.
 */
#include "routes/auth.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "routes/guard.h"

#define KEY_TEXT_LEN 40
#define BUCKETS_MIN 64u

struct entry {
	struct entry *by_hash, *by_id;     /* chains of a bucket */
	struct key_row row;
	double tokens;                     /* requests that may come now: at most requests_per_minute */
	int64_t filled_mono_ms;
};

struct auth {
	bool is_local;                     /* const: bind and direct URL (if any) are loopback */
	atomic_bool is_keyed;              /* written under mu */
	struct mutex mu;
	struct entry **by_hash, **by_id;   /* GUARDED_BY(mu): bucket_count chains each, as all that follows */
	size_t bucket_count, count;
};

/* ---- the table ---- */

static size_t hash_slot(const uint8_t hash[SHA256_LEN], size_t bucket_count)
{
	uint64_t v;

	memcpy(&v, hash, sizeof(v));
	return (size_t)(v & (bucket_count - 1));
}

static size_t id_slot(const char *id, size_t bucket_count)
{
	uint64_t v = 14695981039346656037u; /* FNV-1a */

	for (; *id; id++)
		v = (v ^ (uint8_t)*id) * 1099511628211u;
	return (size_t)((v ^ v >> 32) & (bucket_count - 1));
}

static void link_entry(struct entry **by_hash, struct entry **by_id, size_t bucket_count, struct entry *n)
{
	struct entry **h = &by_hash[hash_slot(n->row.hash, bucket_count)], **i = &by_id[id_slot(n->row.id, bucket_count)];

	n->by_hash = *h;
	*h = n;
	n->by_id = *i;
	*i = n;
}

static void free_entry(struct entry *n)
{
	if (!n)
		return;
	key_row_done(&n->row);
	mem_free(n);
}

/* Twice the buckets, when there are as many keys as buckets. THREAD(supervisor) and main only, so reading is safe. */
static enum errc grow(struct auth *a, struct err *e)
{
	size_t count = a->bucket_count ? a->bucket_count * 2 : BUCKETS_MIN;
	struct entry **by_hash = mem_calloc(count, sizeof(struct entry *));
	struct entry **by_id = mem_calloc(count, sizeof(struct entry *));

	if (!by_hash || !by_id) {
		mem_free(by_hash);
		mem_free(by_id);
		return err_set(e, E_NO_MEMORY, "no memory for %zu keys", count);
	}
	mutex_lock(&a->mu);
	for (size_t i = 0; i < a->bucket_count; i++) {
		for (struct entry *n = a->by_hash[i], *next; n; n = next) {
			next = n->by_hash;
			link_entry(by_hash, by_id, count, n);
		}
	}
	struct entry **old_hash = a->by_hash, **old_id = a->by_id;

	a->by_hash = by_hash;
	a->by_id = by_id;
	a->bucket_count = count;
	mutex_unlock(&a->mu);
	mem_free(old_hash);
	mem_free(old_id);
	return E_OK;
}

static struct entry *find_hash(struct auth *a, const uint8_t hash[SHA256_LEN])
{
	struct slice want = slice_of((const char *)hash, SHA256_LEN);

	mutex_must_hold(&a->mu);
	for (struct entry *n = a->by_hash[hash_slot(hash, a->bucket_count)]; n; n = n->by_hash)
		if (crypto_equal(want, slice_of((const char *)n->row.hash, SHA256_LEN)))
			return n;
	return NULL;
}

static struct entry *find_id(struct auth *a, const char *id)
{
	mutex_must_hold(&a->mu);
	for (struct entry *n = a->by_id[id_slot(id, a->bucket_count)]; n; n = n->by_id)
		if (!strcmp(n->row.id, id))
			return n;
	return NULL;
}

static void unlink_entry(struct auth *a, struct entry *n)
{
	struct entry **h = &a->by_hash[hash_slot(n->row.hash, a->bucket_count)], **i = &a->by_id[id_slot(n->row.id, a->bucket_count)];

	mutex_must_hold(&a->mu);
	while (*h != n)
		h = &(*h)->by_hash;
	*h = n->by_hash;
	while (*i != n)
		i = &(*i)->by_id;
	*i = n->by_id;
	a->count--;
}

static enum errc copy_row(const struct key_row *from, struct key_row *to, struct err *e)
{
	*to = *from;
	to->models = (struct str_list){ 0 };
	for (size_t i = 0; i < from->models.n; i++) {
		enum errc rc = str_list_add(&to->models, slice_str(from->models.v[i]), e);

		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc add_entry(struct auth *a, const struct key_row *k, struct err *e)
{
	struct entry *n = NEW(struct entry);
	enum errc rc = n ? copy_row(k, &n->row, e) : err_set(e, E_NO_MEMORY, "no memory for a key");

	if (!rc && a->count >= a->bucket_count)
		rc = grow(a, e);
	if (rc) {
		free_entry(n);
		return rc;
	}
	n->tokens = (double)k->requests_per_minute;
	n->filled_mono_ms = clock_mono_ms();
	MUTEX_SCOPE(&a->mu);
	link_entry(a->by_hash, a->by_id, a->bucket_count, n);
	a->count++;
	return E_OK;
}

/* ---- life ---- */

static enum errc load(struct auth *a, struct store_reader *r, struct err *e)
{
	struct key_row *rows = NULL;
	bool is_keyed = false;
	size_t n = 0;
	enum errc rc = access_is_keyed(r, &is_keyed, e);

	if (!rc)
		rc = keys_list(r, &rows, &n, e);
	for (size_t i = 0; i < n; i++) {
		if (!rc && rows[i].revoked_wall_ms == 0)
			rc = add_entry(a, &rows[i], e);
		key_row_done(&rows[i]);
	}
	mem_free(rows);
	atomic_store(&a->is_keyed, is_keyed);
	return rc;
}

enum errc auth_new(const struct config *cfg, struct store_reader *r, struct auth **ret, struct err *e)
{
	struct auth *a = NEW(struct auth);
	enum errc rc;

	if (!a)
		return err_set(e, E_NO_MEMORY, "no memory for the keys");
	mutex_init(&a->mu);
	a->is_local = guard_is_local_host(slice_str(cfg->listen_host)) && !guard_is_public(cfg);
	rc = grow(a, e);
	if (!rc)
		rc = load(a, r, e);
	if (rc) {
		auth_free(a);
		return rc;
	}
	*ret = a;
	return E_OK;
}

void auth_free(struct auth *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->bucket_count; i++) {
		for (struct entry *n = a->by_hash[i], *next; n; n = next) {
			next = n->by_hash;
			free_entry(n);
		}
	}
	mem_free(a->by_hash);
	mem_free(a->by_id);
	mutex_done(&a->mu);
	mem_free(a);
}

bool auth_is_keyed(struct auth *a)
{
	return atomic_load(&a->is_keyed);
}

/* ---- the gate ---- */

/* Take one request from the key's minute; false and the seconds to wait when it is used up. */
static bool take_token(struct entry *n, int64_t now_mono_ms, int64_t *ret_retry_s)
{
	double per_ms = (double)n->row.requests_per_minute / 60000.0, most = (double)n->row.requests_per_minute;

	if (n->row.requests_per_minute <= 0)
		return true;
	n->tokens += (double)(now_mono_ms - n->filled_mono_ms) * per_ms;
	if (n->tokens > most)
		n->tokens = most;
	n->filled_mono_ms = now_mono_ms;
	if (n->tokens >= 1.0) {
		n->tokens -= 1.0;
		return true;
	}
	*ret_retry_s = (int64_t)((1.0 - n->tokens) / per_ms) / 1000 + 1;
	return false;
}

enum look { LOOK_UNKNOWN, LOOK_OK, LOOK_USED_UP };

static enum look look_up(struct auth *a, struct slice key, char ret_id[20], int64_t *ret_per_minute, int64_t *ret_retry_s)
{
	uint8_t hash[SHA256_LEN];
	struct entry *n;

	crypto_sha256(key, hash);
	MUTEX_SCOPE(&a->mu);
	n = find_hash(a, hash);
	if (!n)
		return LOOK_UNKNOWN;
	memcpy(ret_id, n->row.id, sizeof(n->row.id));
	*ret_per_minute = n->row.requests_per_minute;
	return take_token(n, clock_mono_ms(), ret_retry_s) ? LOOK_OK : LOOK_USED_UP;
}

static bool note_forwarding(void *ctx, struct slice name, struct slice value)
{
	bool *is_forwarded = ctx;

	(void)value;
	*is_forwarded = guard_is_forwarding_header(name);
	return !*is_forwarded;
}

bool auth_is_forwarded(const struct req *q)
{
	bool is_forwarded = false;

	req_each_header(q, note_forwarding, &is_forwarded);
	return is_forwarded;
}

enum errc auth_check(struct auth *a, struct req *q, int64_t *ret_retry_s, struct err *e)
{
	struct slice key = token_from_header(req_header(q, "authorization"));
	bool is_open = a->is_local && !auth_is_keyed(a);
	int64_t per_minute = 0;

	*ret_retry_s = 0;
	/* On an open node clients send any word as a key, because their libraries insist on one. */
	if (slice_starts_with(key, SLICE(AUTH_KEY_PREFIX)) || (key.n && !is_open)) {
		switch (look_up(a, key, q->key_id, &per_minute, ret_retry_s)) {
		case LOOK_OK:
			return E_OK;
		case LOOK_USED_UP:
			return err_set(e, E_RATE_LIMITED, "key %s: %lld requests a minute are used up", q->key_id, (long long)per_minute);
		case LOOK_UNKNOWN:
			break;
		}
		if (!is_open)
			return err_set(e, E_UNAUTHORIZED, "this API key is unknown or was revoked");
	}
	if (!is_open)
		return err_set(e, E_UNAUTHORIZED, "an API key is needed: Authorization: Bearer <key> (\"mswarm keys add\" makes one)");
	if (auth_is_forwarded(q))
		return err_set(e, E_FORWARDED_DENIED, "requests that come through a proxy or tunnel need an API key (\"mswarm keys add\" makes one)");
	return E_OK;
}

bool auth_limits_models(struct auth *a, const char *key_id)
{
	struct entry *n;

	if (!key_id[0])
		return false;
	MUTEX_SCOPE(&a->mu);
	n = find_id(a, key_id);
	return n && n->row.models.n;
}

bool auth_allows_model(struct auth *a, const char *key_id, struct slice model)
{
	struct entry *n;

	if (!key_id[0])
		return true;
	MUTEX_SCOPE(&a->mu);
	n = find_id(a, key_id);
	return n && (n->row.models.n == 0 || str_list_has(&n->row.models, model)); /* revoked meanwhile: no */
}

int64_t auth_max_concurrent(struct auth *a, const char *key_id)
{
	struct entry *n;

	if (!key_id[0])
		return 0;
	MUTEX_SCOPE(&a->mu);
	n = find_id(a, key_id);
	return n ? n->row.max_concurrent : 0;
}

/* ---- changes ---- */

enum errc auth_apply_add(struct auth *a, const struct key_row *k, struct err *e)
{
	/* Keyed first, also when memory fails below: the key is in the store, and a node must not stay open then. */
	atomic_store(&a->is_keyed, true);
	return add_entry(a, k, e);
}

void auth_apply_revoke(struct auth *a, const char *id)
{
	struct entry *n;

	mutex_lock(&a->mu);
	n = find_id(a, id);
	if (n)
		unlink_entry(a, n);
	mutex_unlock(&a->mu);
	free_entry(n);
}

void auth_apply_open(struct auth *a)
{
	atomic_store(&a->is_keyed, false);
}

/* 40 digits base 62 of a 240-bit number: what is left over of the division is 2 bits. */
static void base62(uint8_t number[30], char out[KEY_TEXT_LEN])
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	for (int i = KEY_TEXT_LEN - 1; i >= 0; i--) {
		unsigned rest = 0;

		for (int j = 0; j < 30; j++) {
			rest = rest << 8 | number[j];
			number[j] = (uint8_t)(rest / 62);
			rest %= 62;
		}
		out[i] = digits[rest];
	}
}

enum errc auth_make_key(const char *name, struct key_row *ret_row, char ret_text[64], struct err *e)
{
	struct key_row k = { 0 };
	uint8_t number[30];
	char text[sizeof(AUTH_KEY_PREFIX) - 1 + KEY_TEXT_LEN + 1] = AUTH_KEY_PREFIX;
	enum errc rc;

	if (!name[0] || !slice_copy(slice_str(name), k.name, sizeof(k.name)))
		return err_set(e, E_INVALID_VALUE, "name: must be of 1 to %zu bytes", sizeof(k.name) - 1);
	rc = crypto_random(number, sizeof(number), e);
	if (rc)
		return rc;
	base62(number, text + sizeof(AUTH_KEY_PREFIX) - 1);
	crypto_sha256(slice_str(text), k.hash);
	memcpy(k.id, "key_", 4);
	crypto_random_id(k.id + 4, 12);
	memcpy(k.hint, text + sizeof(text) - 5, 4);
	k.created_wall_ms = clock_wall_ms();
	memcpy(ret_text, text, sizeof(text));
	mem_wipe(text, sizeof(text));
	mem_wipe(number, sizeof(number));
	*ret_row = k;
	return E_OK;
}
