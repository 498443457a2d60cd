/* Table "job_totals". Called by the other tables of the job plane and the ops summary. Threads: see job_totals.h. */
#include "store/job_totals.h"

#include "store/store_priv.h"

void job_totals_add_tx(struct store_tx *t, enum job_total what, int64_t delta)
{
	t->totals[what] += delta;
}

enum errc job_totals_write_tx(struct store_tx *t, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO job_totals (id, value) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET value = value + ?2");
	enum errc rc = E_OK;

	for (int i = 0; !rc && i < TOTAL__COUNT; i++) {
		if (!t->totals[i])
			continue;
		query_bind_i64(&q, 1, i);
		query_bind_i64(&q, 2, t->totals[i]);
		rc = query_run(&q, e);
	}
	return rc;
}

enum errc job_totals_one_tx(struct store_tx *t, enum job_total what, int64_t *ret, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT value FROM job_totals WHERE id = ?1");
	bool has_row = false;
	enum errc rc;

	query_bind_i64(&q, 1, what);
	rc = query_row(&q, &has_row, e);
	if (!rc)
		*ret = (has_row ? query_i64(&q, 0) : 0) + t->totals[what];
	return rc;
}

enum errc job_totals_get(struct store_reader *r, int64_t ret[TOTAL__COUNT], struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT id, value FROM job_totals");
	int64_t sums[TOTAL__COUNT] = { 0 };
	bool has_row = true;
	enum errc rc = query_row(&q, &has_row, e);

	while (!rc && has_row) {
		int64_t id = query_i64(&q, 0);

		if (id >= 0 && id < TOTAL__COUNT)
			sums[id] = query_i64(&q, 1);
		rc = query_row(&q, &has_row, e);
	}
	if (!rc)
		memcpy(ret, sums, sizeof(sums));
	return rc;
}
