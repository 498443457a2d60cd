/* Model entries and the catalogue's fingerprint; see catalog.h. Called by heartbeat.c and the inventory push. */
#include "gateway/catalog.h"

#include "base/crypto.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define CATALOG_MAX (16u << 20)
#define SOURCE_KEY_MAX 640             /* a name has at most 512 bytes */

/* ---- what an agent is in the catalogue ---- */

bool catalog_is_exposed(const struct agent *a)
{
	return a->is_exposed && a->up && !a->is_embedding && (a->health == HEALTH_HEALTHY || a->health == HEALTH_UNKNOWN);
}

static bool is_ollama(const struct agent *a)
{
	return a->source == AGENT_FROM_OLLAMA;
}

static bool is_in(const struct agent *a)
{
	return a->is_shared && a->source != AGENT_FROM_DEMO;
}

/* An entry of config.json that its owner shares is an agent like mcoda's: by that path jobs for it come. */
static const char *adapter_of(const struct agent *a)
{
	if (a->source == AGENT_FROM_MCODA || is_ollama(a) || !a->up)
		return a->adapter;
	return a->up->kind == UPSTREAM_VLLM ? "vllm-local" : a->up->kind == UPSTREAM_LLAMA_CPP ? "llama-cpp-local" : "openai-compatible-local";
}

static void count_or_null(struct jw *w, const char *key, int64_t n)
{
	if (n > 0)
		jw_i64(w, key, n);
	else
		jw_null(w, key);
}

static void write_plain_head(struct jw *w, const struct agent *a)
{
	jw_str(w, "name", a->slug);
	jw_str(w, "provider", "mcoda");
	jw_str(w, "adapter", adapter_of(a));
	jw_null(w, "source_agent_id");
	jw_str(w, "source_agent_slug", a->slug);
	jw_str(w, "model", a->model);
	jw_str(w, "model_id", a->model);
	jw_str(w, "auth_mode", a->up && a->up->headers[0] ? "bearer" : "none");
	jw_str(w, "display_name", a->slug);
	count_or_null(w, "context_window", a->context_window);
	count_or_null(w, "max_output_tokens", a->max_output_tokens);
	jw_bool(w, "supports_tools", a->is_supports_tools_known && a->supports_tools);
	jw_bool(w, "supports_streaming", true);
	jw_bool(w, "supports_vision", false);
	jw_bool(w, "openai_compatible", true);
}

static void write_plain_tail(struct jw *w, const struct agent *a)
{
	jw_str(w, "best_usage", a->is_embedding ? "embedding" : "general_chat");
	jw_arr(w, "capabilities");
	jw_end(w);
	jw_null(w, "cost_per_million");
	jw_null(w, "rating");
	jw_null(w, "reasoning_rating");
	jw_null(w, "max_complexity");
}

/* Pieces that a source wrote: members as they stand. */
static void write_pieces(struct jw *w, const char *piece)
{
	AUTO_BUF whole = BUF_MAX(CATALOG_MAX);
	struct json_member m;
	bool is_bad = false;
	size_t pos = 0;

	if (buf_addf(&whole, &w->err, "{%s}", piece))
		return;
	while (json_next_member(buf_slice(&whole), &pos, &m, &is_bad)) {
		char key[64];

		if (slice_copy(m.key, key, sizeof(key)))
			jw_raw(w, key, m.value);
	}
}

static void write_entry(struct jw *w, const struct agent *a)
{
	jw_obj(w, NULL);
	if (a->entry_head)
		write_pieces(w, a->entry_head);
	else
		write_plain_head(w, a);
	jw_bool(w, "exposed", catalog_is_exposed(a));
	if (a->entry_tail)
		write_pieces(w, a->entry_tail);
	else
		write_plain_tail(w, a);
	jw_str(w, "health_status", agent_health_name(a->health));
	jw_str(w, "metadata_quality", a->is_metadata_unknown ? "unknown" : "discovered");
	jw_end(w);
}

void catalog_write(struct jw *w, const char *key, const struct agents *l)
{
	jw_arr(w, key);
	for (size_t i = 0; i < l->n; i++)
		if (is_in(&l->v[i]))
			write_entry(w, &l->v[i]);
	jw_end(w);
}

/* ---- the fingerprint ---- */

/* Order of the root collation for ASCII: letters by their place, case apart. Everything else comes behind, by code point. */
static const char order[] = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789";

static unsigned weight(unsigned char c)
{
	const char *at = c ? strchr(order, c) : NULL;

	if (c == ' ')
		return 1;
	if (at)
		return 2 + (unsigned)(at - order);
	if (c >= 'a' && c <= 'z')
		return 100u + c - 'a';
	if (c >= 'A' && c <= 'Z')
		return 100u + c - 'A';
	return c < 0x80 ? 0 : 200u + c;
}

int catalog_collate(struct slice a, struct slice b)
{
	int by_case = 0;

	for (size_t i = 0; i < a.n && i < b.n; i++) {
		unsigned char x = (unsigned char)a.p[i], y = (unsigned char)b.p[i];
		unsigned wx = weight(x), wy = weight(y);

		if (wx != wy)
			return wx < wy ? -1 : 1;
		if (x != y && !by_case)
			by_case = x > y ? -1 : 1;      /* lower case first */
	}
	return a.n != b.n ? (a.n < b.n ? -1 : 1) : by_case;
}

/* By "<provider>:<name>": providers first, as far as they differ. */
static int by_key(const void *a, const void *b)
{
	const struct catalog_row *x = a, *y = b;
	char kx[SOURCE_KEY_MAX], ky[SOURCE_KEY_MAX];

	snprintf(kx, sizeof(kx), "%s:%s", x->provider ? x->provider : "", x->name);
	snprintf(ky, sizeof(ky), "%s:%s", y->provider ? y->provider : "", y->name);
	int c = catalog_collate(slice_str(kx), slice_str(ky));

	return c ? c : x->at < y->at ? -1 : x->at > y->at;
}

static void text_or_null(struct jw *w, const char *key, const char *text)
{
	struct slice s = slice_trim_js(slice_str(text));

	if (s.n)
		jw_slice(w, key, s);
	else
		jw_null(w, key);
}

static void project(struct jw *w, const struct catalog_row *r)
{
	jw_obj(w, NULL);
	jw_slice(w, "name", slice_trim_js(slice_str(r->name)));
	text_or_null(w, "provider", r->provider);
	text_or_null(w, "adapter", r->adapter);
	text_or_null(w, "source_agent_slug", r->slug);
	text_or_null(w, "model_id", r->model_id);
	jw_bool(w, "exposed", r->is_exposed);
	jw_raw(w, "capabilities", r->capabilities ? slice_str(r->capabilities) : SLICE("[]"));
	jw_str(w, "health_status", r->health);
	jw_end(w);
}

enum errc catalog_fingerprint(struct catalog_row *rows, size_t n, char out[FINGERPRINT_LEN], struct err *e)
{
	AUTO_BUF text = BUF_MAX(CATALOG_MAX);
	struct jw w = JW(&text);
	uint8_t sum[SHA256_LEN];
	char hex[SHA256_HEX_LEN];

	for (size_t i = 0; i < n; i++)
		rows[i].at = i;
	if (n)                                 /* qsort takes no NULL */
		qsort(rows, n, sizeof(*rows), by_key);
	jw_arr(&w, NULL);
	for (size_t i = 0; i < n; i++)
		project(&w, &rows[i]);
	jw_end(&w);
	enum errc rc = jw_done(&w, e);

	if (rc)
		return rc;
	crypto_sha256(buf_slice(&text), sum);
	crypto_hex(sum, sizeof(sum), hex);
	snprintf(out, FINGERPRINT_LEN, "sha256:%s", hex);
	return E_OK;
}

enum errc catalog_read(const struct agents *l, struct catalog *ret, struct err *e)
{
	AUTO_FREE struct catalog_row *rows = mem_calloc(l->n + 1, sizeof(*rows));
	struct catalog c = { 0 };

	if (!rows)
		return err_set(e, E_NO_MEMORY, "no memory for the catalogue");
	for (size_t i = 0; i < l->n; i++) {
		const struct agent *a = &l->v[i];

		if (!is_in(a))
			continue;
		rows[c.count++] = (struct catalog_row){
			.name = a->slug, .provider = is_ollama(a) ? "ollama" : "mcoda", .adapter = adapter_of(a), .slug = is_ollama(a) ? NULL : a->slug,
			.model_id = a->model, .capabilities = a->entry_caps, .health = agent_health_name(a->health), .is_exposed = catalog_is_exposed(a),
		};
		c.exposed_count += catalog_is_exposed(a);
	}
	enum errc rc = catalog_fingerprint(rows, c.count, c.fingerprint, e);

	if (!rc)
		*ret = c;
	return rc;
}
