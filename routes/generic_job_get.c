/* R9 to R13: a lifecycle job's snapshot and its lists. Each stands at one moment of the store. Source: direct-api.md 2.13. */
#include "routes/follow.h"
#include "routes/generic.h"

#include <stdio.h>

enum errc route_generic_job_get(struct req *q, struct reply *rep, struct err *e)
{
	AUTO_JOB_ROW row = { 0 };
	enum errc rc = generic_find(q, &row, e);

	return rc ? rc : generic_snapshot(q, rep, 200, &row, e);
}

static enum errc follow(struct req *q, enum follow_kind kind, struct err *e)
{
	AUTO_JOB_ROW row = { 0 };
	enum errc rc = generic_find(q, &row, e);

	return rc ? rc : follow_start(q, &row, kind, e);
}

/* {"job_id", name: [...]}, and when the list goes on: "truncated" and "next_after". */
static enum errc reply_list(struct req *q, struct reply *rep, const char *name,
			    enum errc (*fn)(struct jw *, const char *, struct show *, struct err *), struct err *e)
{
	AUTO_JOB_ROW row = { 0 };
	struct show s = { .reader = q->ctx->reader, .node_id = q->ctx->svc->node_id, .row = &row };
	char next[48];
	struct jw w;
	enum errc rc = generic_find(q, &row, e);

	if (!rc)
		rc = generic_page(q, &s, e);
	if (rc)
		return rc;
	buf_init(&rep->body, REPLY_MAX_BYTES);
	w = JW(&rep->body);
	rep->status = 200;
	jw_obj(&w, NULL);
	jw_str(&w, "job_id", row.job_id);
	rc = fn(&w, name, &s, e);
	if (s.is_more) {
		snprintf(next, sizeof(next), "%lld.%lld", (long long)s.at.major, (long long)s.at.minor);
		jw_bool(&w, "truncated", true);
		jw_str(&w, "next_after", next);
	}
	jw_end(&w);
	return rc ? rc : jw_done(&w, e);
}

enum errc route_generic_job_events(struct req *q, struct reply *rep, struct err *e)
{
	return follow_is_asked(q) ? follow(q, FOLLOW_EVENTS, e) : reply_list(q, rep, "events", show_events, e);
}

enum errc route_generic_job_logs(struct req *q, struct reply *rep, struct err *e)
{
	return follow_is_asked(q) ? follow(q, FOLLOW_LOGS, e) : reply_list(q, rep, "logs", show_logs, e);
}

enum errc route_generic_job_audit(struct req *q, struct reply *rep, struct err *e)
{
	return reply_list(q, rep, "audit", show_audit, e);
}

static enum errc show_artifacts(struct jw *w, const char *key, struct show *s, struct err *e)
{
	(void)e;
	jw_raw(w, key, s->row->artifacts ? slice_str(s->row->artifacts) : SLICE("[]"));
	return E_OK;
}

enum errc route_generic_job_artifacts(struct req *q, struct reply *rep, struct err *e)
{
	return reply_list(q, rep, "artifacts", show_artifacts, e);
}
