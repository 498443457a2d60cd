/*
 * Table "usage": running totals by agent and key.
 * Called by routes (in batches) and the ops summary. Threads: see usage.h.
 */
#include "store/usage.h"

#include "base/mem.h"
#include "store/store_priv.h"

enum { USAGE_MAX = 10000 };

unsigned usage_bucket(int64_t ms)
{
	unsigned i = 0;

	while (i < USAGE_BUCKETS - 1 && ms > (int64_t)4 << i)
		i++;
	return i;
}

/* Columns in the order of the schema: two of text, these five, then the buckets. */
enum { COL_AGENT, COL_KEY, COL_REQUESTS, COL_ERRORS, COL_PROMPT, COL_COMPLETION, COL_LATENCY_SUM, COL_BUCKETS };

enum errc usage_add_tx(struct store_tx *t, const struct usage_row *delta, struct err *e)
{
	AUTO_QUERY q = query_open(t->db,
		"INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, "
		"?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23) "
		"ON CONFLICT (agent, key_id) DO UPDATE SET requests = requests + ?3, errors = errors + ?4, "
		"prompt_tokens = prompt_tokens + ?5, completion_tokens = completion_tokens + ?6, "
		"latency_sum_ms = latency_sum_ms + ?7, "
		"l0 = l0 + ?8, l1 = l1 + ?9, l2 = l2 + ?10, l3 = l3 + ?11, l4 = l4 + ?12, l5 = l5 + ?13, "
		"l6 = l6 + ?14, l7 = l7 + ?15, l8 = l8 + ?16, l9 = l9 + ?17, l10 = l10 + ?18, l11 = l11 + ?19, "
		"l12 = l12 + ?20, l13 = l13 + ?21, l14 = l14 + ?22, l15 = l15 + ?23");

	query_bind_text(&q, COL_AGENT + 1, slice_str(delta->agent));
	query_bind_text(&q, COL_KEY + 1, slice_str(delta->key_id));
	query_bind_i64(&q, COL_REQUESTS + 1, delta->requests);
	query_bind_i64(&q, COL_ERRORS + 1, delta->errors);
	query_bind_i64(&q, COL_PROMPT + 1, delta->prompt_tokens);
	query_bind_i64(&q, COL_COMPLETION + 1, delta->completion_tokens);
	query_bind_i64(&q, COL_LATENCY_SUM + 1, delta->latency_sum_ms);
	for (int i = 0; i < USAGE_BUCKETS; i++)
		query_bind_i64(&q, COL_BUCKETS + 1 + i, delta->latency[i]);
	return query_run(&q, e);
}

static enum errc load_row(struct query *q, struct usage_row *u, struct err *e)
{
	enum errc rc = query_copy(q, COL_AGENT, u->agent, sizeof(u->agent), e);

	if (!rc)
		rc = query_copy(q, COL_KEY, u->key_id, sizeof(u->key_id), e);
	u->requests = query_i64(q, COL_REQUESTS);
	u->errors = query_i64(q, COL_ERRORS);
	u->prompt_tokens = query_i64(q, COL_PROMPT);
	u->completion_tokens = query_i64(q, COL_COMPLETION);
	u->latency_sum_ms = query_i64(q, COL_LATENCY_SUM);
	for (int i = 0; i < USAGE_BUCKETS; i++)
		u->latency[i] = query_i64(q, COL_BUCKETS + i);
	return rc;
}

enum errc usage_list(struct store_reader *r, struct usage_row **ret, size_t *ret_n, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT * FROM usage ORDER BY agent, key_id LIMIT ?1");
	AUTO_FREE struct usage_row *rows = NULL;
	size_t n = 0, cap = 0;
	bool has_row = true;
	enum errc rc;

	query_bind_i64(&q, 1, USAGE_MAX);
	rc = query_row(&q, &has_row, e);
	while (!rc && has_row) {
		if (n == cap) {
			struct usage_row *v = mem_realloc(rows, (cap ? 2 * cap : 8) * sizeof(*v));

			if (!v)
				return err_set(e, E_NO_MEMORY, "usage: no memory");
			rows = v;
			cap = cap ? 2 * cap : 8;
		}
		rc = load_row(&q, &rows[n++], e);
		if (!rc)
			rc = query_row(&q, &has_row, e);
	}
	if (rc)
		return rc;
	*ret = TAKE(rows);
	*ret_n = n;
	return E_OK;
}
