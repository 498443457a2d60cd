/* Table "tenants". Called by jobs.c and job_turns.c, and by the writer. See tenants.h. */
#include "store/tenants.h"

#include "store/job_totals.h"
#include "store/store_priv.h"

static enum errc add(struct store_tx *t, struct slice tenant_id, int64_t more, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO tenants (tenant_id, waiting, served) "
		"VALUES (?1, ?4, coalesce((SELECT value FROM job_totals WHERE id = ?2), 0) + ?3) "
		"ON CONFLICT (tenant_id) DO UPDATE SET waiting = waiting + ?4");

	query_bind_text(&q, 1, tenant_id);
	query_bind_i64(&q, 2, TOTAL_CLAIMS);
	query_bind_i64(&q, 3, t->totals[TOTAL_CLAIMS]);
	query_bind_i64(&q, 4, more);
	return query_run(&q, e);
}

enum errc tenants_write_tx(struct store_tx *t, struct err *e)
{
	int64_t more = t->tenant_more;

	t->tenant_more = 0;
	return more ? add(t, slice_str(t->tenant_id), more, e) : E_OK;
}

enum errc tenants_more_tx(struct store_tx *t, const char *tenant_id, struct err *e)
{
	enum errc rc = E_OK;

	if (t->tenant_more && strcmp(t->tenant_id, tenant_id) != 0)
		rc = tenants_write_tx(t, e);
	if (rc)
		return rc;
	if (!t->tenant_more && !slice_copy(slice_str(tenant_id), t->tenant_id, sizeof(t->tenant_id)))
		return add(t, slice_str(tenant_id), 1, e);     /* a long name */
	t->tenant_more++;
	return E_OK;
}

enum errc tenants_less_tx(struct store_tx *t, const char *tenant_id, struct err *e)
{
	AUTO_QUERY less = query_open(t->db, "UPDATE tenants SET waiting = waiting - 1 WHERE tenant_id = ?1");
	AUTO_QUERY forget = query_open(t->db, "DELETE FROM tenants WHERE tenant_id = ?1 AND waiting = 0");
	enum errc rc = tenants_write_tx(t, e);

	if (rc)
		return rc;
	query_bind_text(&less, 1, slice_str(tenant_id));
	query_bind_text(&forget, 1, slice_str(tenant_id));
	rc = query_run(&less, e);
	return rc ? rc : query_run(&forget, e);
}

enum errc tenants_served_tx(struct store_tx *t, const char *tenant_id, struct err *e)
{
	AUTO_QUERY turn = query_open(t->db, "UPDATE tenants SET served = ?2 WHERE tenant_id = ?1");
	int64_t number = 0;
	enum errc rc = tenants_write_tx(t, e);

	if (rc)
		return rc;
	job_totals_add_tx(t, TOTAL_CLAIMS, 1);
	rc = job_totals_one_tx(t, TOTAL_CLAIMS, &number, e);
	query_bind_text(&turn, 1, slice_str(tenant_id));
	query_bind_i64(&turn, 2, number);
	return rc ? rc : query_run(&turn, e);
}
