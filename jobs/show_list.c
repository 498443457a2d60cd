/* The lists of a job: events, logs, audit. See show.h. */
#include "jobs/show.h"

#include "base/clock.h"
#include "base/crypto.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- events and logs ---- */

struct list {
	struct jw *w;
	struct show *s;
	size_t n;
	bool is_logs;
};

void show_event(struct jw *w, const char *key, const char *job_id, const struct event_row *v)
{
	jw_obj(w, key);
	jw_str(w, "job_id", job_id);
	jw_i64(w, "sequence", v->sequence);
	show_time(w, "timestamp", v->wall_ms);
	jw_str(w, "type", event_type_name(v->type));
	if (v->message.p)
		jw_slice(w, "message", v->message);
	if (v->data.n)
		jw_raw(w, "data", v->data);
	jw_end(w);
}

void show_log(struct jw *w, const char *key, const char *job_id, const struct event_row *v)
{
	jw_obj(w, key);
	jw_str(w, "job_id", job_id);
	jw_i64(w, "sequence", v->sequence);
	show_time(w, "timestamp", v->wall_ms);
	jw_str(w, "stream", event_type_name(v->type));
	jw_slice(w, "message", v->message);
	jw_bool(w, "truncated", false);
	jw_end(w);
}

static enum errc on_event(void *ctx, const struct event_row *v, struct err *e)
{
	struct list *l = ctx;
	struct show *s = l->s;

	(void)e;
	if (l->is_logs && !event_is_log(v->type)) {
		s->at = (struct show_place){ v->attempt, v->pos };
		return E_OK;
	}
	if (l->n == s->max) {
		s->is_more = true;
		return E_OK;
	}
	l->n++;
	s->at = (struct show_place){ v->attempt, v->pos };
	if (l->is_logs)
		show_log(l->w, NULL, s->row->job_id, v);
	else
		show_event(l->w, NULL, s->row->job_id, v);
	return E_OK;
}

/* Logs are few among events at worst: what is looked at is bounded, not only what is shown. */
static enum errc show_events_of(struct jw *w, const char *key, struct show *s, bool is_logs, struct err *e)
{
	struct list l = { .w = w, .s = s, .is_logs = is_logs };
	size_t looked = 0;
	enum errc rc;

	jw_arr(w, key);
	s->is_more = false;
	rc = job_events_walk(s->reader, s->row->key, s->at.major, s->at.minor, s->max + 1, on_event, &l, &looked, e);
	if (looked > s->max)
		s->is_more = true;
	jw_end(w);
	return rc;
}

enum errc show_events(struct jw *w, const char *key, struct show *s, struct err *e)
{
	return show_events_of(w, key, s, false, e);
}

enum errc show_logs(struct jw *w, const char *key, struct show *s, struct err *e)
{
	return show_events_of(w, key, s, true, e);
}

/* ---- audit ---- */

#define AUDIT_ID_LEN sizeof("audit_00000000-0000-0000-0000-000000000000")

/* Spreads 64 bits over all of them and loses none: the finalizer of MurmurHash3. */
static uint64_t mix(uint64_t v)
{
	v = (v ^ v >> 33) * 0xff51afd7ed558ccdull;
	v = (v ^ v >> 33) * 0xc4ceb9fe1a85ec53ull;
	return v ^ v >> 33;
}

/* Always the same for a record, and shaped as a random one: nothing of it is stored. */
static void audit_id(const struct audit_row *a, int64_t index, char out[AUDIT_ID_LEN])
{
	uint64_t high = mix((uint64_t)a->job_key ^ mix((uint64_t)a->seq)), low = mix(high + (uint64_t)index + 1);
	uint8_t bytes[16];
	char hex[33];

	memcpy(bytes, &high, 8);
	memcpy(bytes + 8, &low, 8);
	bytes[6] = (uint8_t)(0x40 | (bytes[6] & 0x0f));
	bytes[8] = (uint8_t)(0x80 | (bytes[8] & 0x3f));
	crypto_hex(bytes, sizeof(bytes), hex);
	memcpy(out, "audit_00000000-0000-0000-0000-000000000000", AUDIT_ID_LEN);
	for (size_t i = 0, from = 0; i < 36; i++)
		if (out[6 + i] != '-')
			out[6 + i] = hex[from++];
}

static void record_head(struct jw *w, const struct job_row *j, const char *node_id, const struct audit_row *a, int64_t index)
{
	char id[AUDIT_ID_LEN];

	audit_id(a, index, id);
	jw_obj(w, NULL);
	jw_str(w, "schema_version", JOB_SCHEMA_VERSION);
	jw_str(w, "audit_id", id);
	jw_str(w, "job_id", j->job_id);
	jw_str(w, "request_id", j->request_id);
	jw_str(w, "tenant_id", j->tenant_id);
	jw_str(w, "node_id", node_id);
	jw_str(w, "action", audit_action_name(a->action));
	show_time(w, "timestamp", a->wall_ms);
}

/* Records that one row stands for. */
static int64_t records_of(const struct audit_row *a)
{
	return a->action == AUDIT_EVENT ? a->events : 1;
}

static void show_record(struct jw *w, const struct job_row *j, const char *node_id, const struct audit_row *a, int64_t index)
{
	record_head(w, j, node_id, a, index);
	if (a->action == AUDIT_EVENT) {
		jw_obj(w, "details");
		jw_str(w, "type", event_type_name((enum event_type)(a->details.p[index] - AUDIT_TYPE_0)));
		jw_i64(w, "sequence", a->first_sequence + index);
		jw_end(w);
	} else if (a->details.n) {
		jw_raw(w, "details", a->details);
	}
	jw_end(w);
}

struct audit_list {
	struct jw *w;
	struct show *s;
	size_t n;
	struct show_place from;         /* behind which */
};

static enum errc on_audit(void *ctx, const struct audit_row *a, struct err *e)
{
	struct audit_list *l = ctx;
	struct show *s = l->s;

	if (a->action == AUDIT_EVENT && (int64_t)a->details.n != a->events)
		return err_set(e, E_IO, "store: audit row %lld stands for %lld events and names %zu", (long long)a->seq, (long long)a->events,
			       a->details.n);
	for (int64_t i = a->seq == l->from.major ? l->from.minor : 0; i < records_of(a); i++) {
		if (l->n == s->max) {
			s->is_more = true;
			return E_OK;
		}
		l->n++;
		s->at = (struct show_place){ a->seq, i + 1 };
		show_record(l->w, s->row, s->node_id, a, i);
	}
	return E_OK;
}

enum errc show_audit(struct jw *w, const char *key, struct show *s, struct err *e)
{
	struct audit_list l = { .w = w, .s = s, .from = s->at };
	size_t n = 0;
	enum errc rc;

	jw_arr(w, key);
	s->is_more = false;
	rc = audit_walk_job(s->reader, s->row->key, s->at.major - 1, s->max + 2, on_audit, &l, &n, e);
	jw_end(w);
	return rc;
}

void show_audit_rows(struct jw *w, const char *key, const struct show *s, const struct audit_row *v, size_t n)
{
	jw_arr(w, key);
	for (size_t i = 0; i < n; i++)
		show_record(w, s->row, s->node_id, &v[i], 0);
	jw_end(w);
}

/* ---- audit of all jobs ---- */

#define NEWEST_MAX 20000                /* rows read for one page */

struct newest {
	struct audit_row *v;            /* details: borrowed from text once all are read */
	size_t n, cap;
	size_t *text_at;
	struct buf text;
	int64_t records, wanted;
};

static void newest_done(struct newest *l)
{
	mem_free(l->v);
	mem_free(l->text_at);
	buf_done(&l->text);
}

/* One row; enough are there when the page is full and the millisecond of its last row is over. */
static enum errc on_newest(void *ctx, const struct audit_row *a, struct err *e)
{
	struct newest *l = ctx;

	if (l->records >= l->wanted && l->n && l->v[l->n - 1].wall_ms != a->wall_ms)
		return E_CANCELLED;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 256;
		struct audit_row *v = mem_realloc(l->v, cap * sizeof(*v));

		if (v)
			l->v = v;
		size_t *at = v ? mem_realloc(l->text_at, cap * sizeof(*at)) : NULL;

		if (!at)
			return err_set(e, E_NO_MEMORY, "audit: no memory");
		l->text_at = at;
		l->cap = cap;
	}
	l->text_at[l->n] = l->text.n;
	l->v[l->n] = *a;
	l->records += records_of(a);
	l->n++;
	return buf_add_slice(&l->text, a->details, e);
}

static int by_time(const void *a, const void *b)
{
	const struct audit_row *x = a, *y = b;

	if (x->wall_ms != y->wall_ms)
		return x->wall_ms > y->wall_ms ? -1 : 1;
	if (x->job_key != y->job_key)
		return x->job_key < y->job_key ? -1 : 1;
	return x->seq < y->seq ? -1 : 1;
}

/* The page out of the sorted rows. A job may be gone by now: then its records are too. */
static enum errc show_page(struct jw *w, struct store_reader *r, const char *node_id, const struct newest *l, size_t offset, size_t max, struct err *e)
{
	AUTO_JOB_ROW j = { 0 };
	int64_t at = 0;

	for (size_t k = 0; k < l->n && at < (int64_t)(offset + max); k++) {
		for (int64_t i = 0; i < records_of(&l->v[k]) && at < (int64_t)(offset + max); i++, at++) {
			enum errc rc = E_OK;

			if (at < (int64_t)offset)
				continue;
			if (j.key != l->v[k].job_key) {
				job_row_done(&j);
				j.key = 0;
				rc = jobs_get_brief(r, l->v[k].job_key, &j, e);
			}
			if (rc == E_JOB_NOT_FOUND)
				continue;
			if (rc)
				return rc;
			show_record(w, &j, node_id, &l->v[k], i);
		}
	}
	return E_OK;
}

enum errc show_audit_newest(struct jw *w, struct store_reader *r, const char *node_id, size_t offset, size_t max, struct err *e)
{
	CLEANUP(newest_done) struct newest l = { .text = BUF_MAX(64u << 20), .wanted = (int64_t)(offset + max) };
	size_t n = 0;
	enum errc rc = max ? audit_walk_back(r, INT64_MAX, NEWEST_MAX, on_newest, &l, &n, e) : E_OK;

	if (rc && rc != E_CANCELLED)
		return rc;
	for (size_t i = 0; i < l.n; i++)
		l.v[i].details = slice_of(l.text.p ? l.text.p + l.text_at[i] : "", l.v[i].details.n);
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), by_time);
	return show_page(w, r, node_id, &l, offset, max, e);
}
