/* See generic.h. */
#include "routes/generic.h"

#include "base/clock.h"
#include "jobs/supervisor.h"
#include "routes/auth.h"
#include "routes/guard.h"

#define BODY_ROOM 4096

/* ---- gates ---- */

struct gate_texts {
	const char *local, *secret, *missing;
};

static const struct gate_texts *texts_of(enum token_kind kind)
{
	static const struct gate_texts generic = {
		"Generic node jobs are only available in owner-local direct mode",
		"MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET is required for generic jobs",
		"Missing generic job token",
	};
	static const struct gate_texts ops = {
		"Generic node operations are only available in owner-local direct mode",
		"MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET is required for generic job operations",
		"Missing generic job ops token",
	};

	return kind == TOKEN_OPS ? &ops : &generic;
}

static bool is_owner_local(const struct config *cfg)
{
	struct slice url = slice_trim(slice_str(cfg->direct_base_url));

	return guard_is_local_host(slice_trim(slice_str(cfg->listen_host))) && (!url.n || guard_is_local_url(url));
}

enum errc generic_gate(struct req *q, enum token_kind kind, struct token_claims *ret, struct err *e)
{
	struct svc *svc = q->ctx->svc;
	const struct gate_texts *t = texts_of(kind);
	struct slice token;

	if (!svc->cfg->is_generic_jobs_on)
		return err_set(e, E_FEATURE_DISABLED, "Generic node jobs are disabled on this node");
	if (!is_owner_local(svc->cfg) || auth_is_forwarded(q) || !guard_is_local_host(req_peer_address(q)))
		return err_set(e, E_OWNER_LOCAL, "%s", t->local);
	if (!svc->signing_secret.n)
		return err_set(e, E_MISSING_CONFIG, "%s", t->secret);
	token = token_from_header(req_header(q, "authorization"));
	if (!token.n)
		return err_set(e, E_UNAUTHORIZED, "%s", t->missing);
	return token_verify(token, kind, svc->signing_secret, clock_wall_ms(), ret, e);
}

enum errc generic_check_path(struct req *q, const struct token_claims *c, struct slice *ret_job_id, struct err *e)
{
	struct slice id = slice_trim_js(slice_str(q->arg[0]));

	if (!slice_eq(slice_str(c->node_id), slice_str(q->ctx->svc->node_id)) || !slice_eq(slice_str(c->job_id), id))
		return err_set(e, E_BAD_REQUEST, "generic job token does not match this node or job");
	*ret_job_id = id;
	return E_OK;
}

enum errc generic_gate_path(struct req *q, struct slice *ret_job_id, struct err *e)
{
	struct token_claims claims = { 0 };
	enum errc rc = generic_gate(q, TOKEN_GENERIC, &claims, e);

	if (!rc)
		rc = generic_check_path(q, &claims, ret_job_id, e);
	token_claims_done(&claims);
	return rc;
}

enum errc generic_find(struct req *q, struct job_row *ret_row, struct err *e)
{
	struct slice id;
	enum errc rc = generic_gate_path(q, &id, e);

	return rc ? rc : jobs_find(q->ctx->reader, id, ret_row, e);
}

/* ---- why it waits ---- */

struct show_held generic_held(const struct svc *svc, struct store_reader *reader, const struct job_row *row)
{
	struct active_job *v = NULL;
	struct show_held held = { 0 };
	int64_t max = svc->cfg->generic_job_max_concurrency;
	size_t n = 0;
	struct err ignored;

	if (row->state != JOB_QUEUED)
		return held;
	if (atomic_load(&svc->state.drain) != DRAIN_OFF)
		return (struct show_held){ "node_draining", "Node is draining; queued jobs start when draining ends.", 0 };
	if (supervisor_is_disk_full(svc->supervisor))
		return (struct show_held){ "node_at_capacity", "Node has no room on its disk for another job.", 1000 };
	if (jobs_active(reader, (size_t)max, &v, &n, &ignored))
		return held;
	if ((int64_t)n >= max)
		held = (struct show_held){ "node_at_capacity", "Node is at generic job concurrency limit.", 1000 };
	else if (n && strcmp(v[0].tenant_id, row->tenant_id) != 0)
		held = (struct show_held){ "tenant_reserved", "Node is reserved for another tenant until active jobs finish.", 0 };
	active_jobs_free(v, n);
	return held;
}

/* ---- lists ---- */

struct slice query_value(struct slice query, const char *name, bool *ret_has)
{
	struct slice rest = query, pair, value = { .p = "" };
	size_t n = strlen(name);

	*ret_has = false;
	while (rest.p && slice_next(&rest, '&', &pair)) {
		if (pair.n < n || memcmp(pair.p, name, n) != 0 || (pair.n > n && pair.p[n] != '='))
			continue;
		*ret_has = true;
		value = pair.n > n ? slice_from(pair, n + 1) : slice_of("", 0);
	}
	return value;
}

enum errc generic_page(struct req *q, size_t *ret_max, struct show_place *ret_after, struct err *e)
{
	bool has_limit, has_after;
	struct slice limit = query_value(q->query, "limit", &has_limit), after = query_value(q->query, "after", &has_after), major;
	int64_t n = SHOW_ROWS;

	if (has_limit && !slice_to_i64(limit, 1, SHOW_ROWS, &n))
		return err_set(e, E_INVALID_VALUE, "limit: a number from 1 to %d", SHOW_ROWS);
	if (has_after && (!slice_next(&after, '.', &major) || !slice_to_i64(major, 0, INT64_MAX, &ret_after->major) || !after.p ||
			  !slice_to_i64(after, 0, INT64_MAX, &ret_after->minor)))
		return err_set(e, E_INVALID_VALUE, "after: the id of an entry, two numbers and a dot between them");
	*ret_max = (size_t)n;
	return E_OK;
}

/* ---- snapshot ---- */

/* Room for the largest part at once: to grow step by step would copy it in one turn of the loop. */
static enum errc begin_body(struct reply *rep, const struct job_row *row, struct err *e)
{
	char *ignored;

	buf_init(&rep->body, REPLY_MAX_BYTES);
	return buf_reserve(&rep->body, strlen(row->request) + BODY_ROOM, &ignored, e);
}

/* A list that is cut says so, and where the rest begins. */
static void show_cut(struct jw *w, const char *flag, const struct show *s)
{
	if (s->is_more)
		jw_bool(w, flag, true);
}

enum errc generic_snapshot(struct long_read *r, struct err *e)
{
	const struct job_row *row = &r->row;
	struct show base = { .reader = r->reader, .node_id = r->svc->node_id, .row = row, .max = SHOW_ROWS };
	struct show events = base, logs = base, audit = base;
	struct show_held held = generic_held(r->svc, r->reader, row);
	struct jw w;
	enum errc rc = begin_body(&r->reply, row, e);

	if (rc)
		return rc;
	w = JW(&r->reply.body);
	r->reply.status = r->status;
	jw_obj(&w, NULL);
	show_job(&w, "job", &base, &held);
	rc = show_events(&w, "events", &events, e);
	if (!rc)
		rc = show_logs(&w, "logs", &logs, e);
	jw_raw(&w, "artifacts", row->artifacts ? slice_str(row->artifacts) : SLICE("[]"));
	if (!rc)
		rc = show_audit(&w, "audit", &audit, e);
	show_cut(&w, "events_truncated", &events);
	show_cut(&w, "logs_truncated", &logs);
	show_cut(&w, "audit_truncated", &audit);
	jw_end(&w);
	return rc ? rc : jw_done(&w, e);
}

void generic_reply_snapshot(struct req *q, int status, struct job_row *take_row)
{
	struct long_read *r = NULL;
	struct err e = { 0 };

	if (long_read_new(q, generic_snapshot, &r, &e)) {
		reply_fail(q, &e);
		return;
	}
	r->status = status;
	r->row = *take_row;
	*take_row = (struct job_row){ 0 };
	long_read_go_on(r);
}

enum errc generic_snapshot_new(struct req *q, struct reply *rep, const struct job_create *c, struct err *e)
{
	static const char *const empty[] = { "events", "logs", "artifacts" };
	const struct job_row *row = &c->wanted;
	struct show s = { .reader = q->ctx->reader, .node_id = q->ctx->svc->node_id, .row = row };
	struct jw w;
	enum errc rc = begin_body(rep, row, e);

	if (rc)
		return rc;
	w = JW(&rep->body);
	rep->status = 202;
	jw_obj(&w, NULL);
	show_job(&w, "job", &s, NULL);
	for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
		jw_arr(&w, empty[i]);
		jw_end(&w);
	}
	show_audit_rows(&w, "audit", &s, c->audit, ARRAY_LEN(c->audit));
	jw_end(&w);
	return jw_done(&w, e);
}
