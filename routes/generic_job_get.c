/* R9 to R13: a lifecycle job's snapshot and its lists. Each stands at one moment of the store. Source: direct-api.md 2.13. */
#include "routes/follow.h"
#include "routes/generic.h"

#include <stdio.h>

/* Gate and path here, the rest on the reading thread. */
static enum errc begin(struct req *q, enum errc (*run)(struct long_read *, struct err *), struct long_read **ret, struct err *e)
{
	struct slice id;
	enum errc rc = generic_gate_path(q, &id, e);

	if (!rc)
		rc = long_read_new(q, run, ret, e);
	if (rc)
		return rc;
	(*ret)->job_id = slice_dup(id);
	if ((*ret)->job_id)
		return E_OK;
	long_read_free(*ret);
	return err_set(e, E_NO_MEMORY, "no memory for an answer");
}

enum errc route_generic_job_get(struct req *q, struct reply *rep, struct err *e)
{
	struct long_read *r = NULL;
	enum errc rc = begin(q, generic_snapshot, &r, e);

	(void)rep;
	return rc ? rc : long_read_reply(r, e);
}

static enum errc follow(struct req *q, enum follow_kind kind, struct err *e)
{
	AUTO_JOB_ROW row = { 0 };
	enum errc rc = generic_find(q, &row, e);

	return rc ? rc : follow_start(q, &row, kind, e);
}

typedef enum errc show_fn(struct jw *w, const char *key, struct show *s, struct err *e);

/* {"job_id", name: [...]}, and when the list goes on: "truncated" and "next_after". */
static enum errc show_list(struct long_read *r, show_fn *fn, struct err *e)
{
	struct show s = { .reader = r->reader, .node_id = r->svc->node_id, .row = &r->row, .max = r->max, .at = r->after };
	char next[48];
	struct jw w;
	enum errc rc;

	buf_init(&r->reply.body, REPLY_MAX_BYTES);
	w = JW(&r->reply.body);
	r->reply.status = 200;
	jw_obj(&w, NULL);
	jw_str(&w, "job_id", r->row.job_id);
	rc = fn(&w, r->list, &s, e);
	if (s.is_more) {
		snprintf(next, sizeof(next), "%lld.%lld", (long long)s.at.major, (long long)s.at.minor);
		jw_bool(&w, "truncated", true);
		jw_str(&w, "next_after", next);
	}
	jw_end(&w);
	return rc ? rc : jw_done(&w, e);
}

static enum errc show_artifacts(struct jw *w, const char *key, struct show *s, struct err *e)
{
	(void)e;
	jw_raw(w, key, s->row->artifacts ? slice_str(s->row->artifacts) : SLICE("[]"));
	return E_OK;
}

static enum errc run_events(struct long_read *r, struct err *e)
{
	return show_list(r, show_events, e);
}

static enum errc run_logs(struct long_read *r, struct err *e)
{
	return show_list(r, show_logs, e);
}

static enum errc run_audit(struct long_read *r, struct err *e)
{
	return show_list(r, show_audit, e);
}

static enum errc run_artifacts(struct long_read *r, struct err *e)
{
	return show_list(r, show_artifacts, e);
}

static enum errc reply_list(struct req *q, const char *name, enum errc (*run)(struct long_read *, struct err *), struct err *e)
{
	struct long_read *r = NULL;
	enum errc rc = begin(q, run, &r, e);

	if (rc)
		return rc;
	r->list = name;
	rc = generic_page(q, &r->max, &r->after, e);
	if (!rc)
		return long_read_reply(r, e);
	long_read_free(r);
	return rc;
}

enum errc route_generic_job_events(struct req *q, struct reply *rep, struct err *e)
{
	(void)rep;
	return follow_is_asked(q) ? follow(q, FOLLOW_EVENTS, e) : reply_list(q, "events", run_events, e);
}

enum errc route_generic_job_logs(struct req *q, struct reply *rep, struct err *e)
{
	(void)rep;
	return follow_is_asked(q) ? follow(q, FOLLOW_LOGS, e) : reply_list(q, "logs", run_logs, e);
}

enum errc route_generic_job_audit(struct req *q, struct reply *rep, struct err *e)
{
	(void)rep;
	return reply_list(q, "audit", run_audit, e);
}

enum errc route_generic_job_artifacts(struct req *q, struct reply *rep, struct err *e)
{
	(void)rep;
	return reply_list(q, "artifacts", run_artifacts, e);
}
