/*
 * ?follow=1 on events and logs: what happened so far and then what happens, as a stream, until the job has ended. The id of
 * an entry is its place in the job (attempt and position in the attempt's journal): with Last-Event-ID, or ?after=, a
 * client goes on exactly behind it, also at a node that was restarted.
 *
 * What is stored it reads from the store; of an attempt that runs it reads the journal as it grows, before that is
 * stored: both give the same events at the same places, so what was told is not told again. Only as fast as the client
 * reads. THREAD(loop), the connection's.
 */
#include "routes/follow.h"

#include "base/mem.h"
#include "jobs/journal.h"
#include "jobs/subs.h"
#include "jobs/supervisor.h"
#include "routes/sink.h"

#include <stdio.h>

#define ROWS_A_TURN 100                 /* the loop has others to serve */
#define JOURNAL_A_TURN (20u << 10)      /* some frames */
#define REQUEST_MAX (64u << 10)         /* a larger request takes too long to be read here: its lines come from the store */

struct follow {
	struct loop_ctx *ctx;
	struct sink sink;
	struct sub sub;
	struct show_place at;
	struct loop_timer more;
	char *job_id;
	struct {                        /* the attempt that runs; 0: none is read */
		int64_t attempt, sequence;
		bool is_fresh;          /* what is stored before its place may not all be told yet */
		char dir[512];
		struct json *request;
		struct journal journal;
		struct events events;
	} live;
	enum follow_kind kind;
	bool is_dead;
};

static void live_end(struct follow *f)
{
	if (!f->live.attempt)
		return;
	f->live.attempt = 0;
	journal_done(&f->live.journal);
	events_done(&f->live.events);
	json_free(f->live.request);
	f->live.request = NULL;
}

static void follow_free(struct follow *f)
{
	live_end(f);
	mem_free(f->job_id);
	mem_free(f);
}

static enum errc add_entry(struct follow *f, const struct event_row *v, struct err *e)
{
	struct jw w = JW(&f->sink.out);
	enum errc rc = E_OK;

	if (f->kind != FOLLOW_RUN)
		rc = buf_addf(&f->sink.out, e, "id: %lld.%lld\n", (long long)v->attempt, (long long)v->pos);
	if (!rc)
		rc = buf_addf(&f->sink.out, e, "event: %s\ndata: ", event_type_name(v->type));
	if (rc)
		return rc;
	if (f->kind == FOLLOW_LOGS)
		show_log(&w, NULL, f->job_id, v);
	else
		show_event(&w, NULL, f->job_id, v);
	rc = jw_done(&w, e);
	return rc ? rc : buf_add_str(&f->sink.out, "\n\n", e);
}

static enum errc on_event(void *ctx, const struct event_row *v, struct err *e)
{
	struct follow *f = ctx;

	if (f->sink.out.n >= SINK_HIGH_BYTES)
		return E_CANCELLED;            /* enough until the client has read it */
	f->at = (struct show_place){ v->attempt, v->pos };
	return f->kind == FOLLOW_LOGS && !event_is_log(v->type) ? E_OK : add_entry(f, v, e);
}

/* The stream's last words: how the job stands now. */
static void end(struct follow *f, const struct job_row *row)
{
	struct err e = { 0 };
	struct jw w = JW(&f->sink.out);

	if (f->kind == FOLLOW_RUN) {
		(void)!buf_add_str(&f->sink.out, "data: [DONE]\n\n", &e);
	} else if (!buf_add_str(&f->sink.out, "event: end\ndata: ", &e)) {
		jw_obj(&w, NULL);
		jw_str(&w, "job_id", row->job_id);
		jw_str(&w, "state", job_state_name(row->state));
		jw_end(&w);
		(void)!jw_done(&w, &e);
		(void)!buf_add_str(&f->sink.out, "\n\n", &e);
	}
	sink_end(&f->sink);
}

/* ---- the attempt that runs ---- */

/* Where its journal stands in the store, and the number that the next event will have, at one moment. */
static enum errc live_place(struct follow *f, int64_t attempt, struct err *e)
{
	struct attempt_row at = { 0 };
	enum errc rc = attempts_get(f->ctx->reader, f->sub.job_key, attempt, &at, &f->live.journal.out_line, &f->live.journal.err_line, e);

	if (!rc && at.journal_bytes < 0)
		rc = err_set(e, E_NOT_FOUND, "its start is not stored yet");
	if (rc)
		return rc;
	f->live.journal.read_at = at.journal_bytes;
	f->live.journal.out_lines = at.out_lines;
	f->live.journal.err_lines = at.err_lines;
	f->live.sequence = at.next_sequence;
	return E_OK;
}

/* When it cannot be read here, all comes from the store, a commit later. */
static void live_begin(struct follow *f, int64_t attempt)
{
	AUTO_FREE char *request = NULL;
	struct err ignored;

	if (jobs_get_request(f->ctx->reader, f->sub.job_key, REQUEST_MAX, &request, &ignored) ||
	    json_parse(slice_str(request), JSON_LIMITS_DEFAULT, &f->live.request, &ignored))
		return;
	f->live.attempt = attempt;
	f->live.is_fresh = true;
	f->live.events = EVENTS_EMPTY;
	journal_init(&f->live.journal, f->live.request, runner_find(slice_trim_js(json_slice(json_get(f->live.request, "job_type")))), NULL);
	supervisor_attempt_dir(f->ctx->svc->supervisor, f->sub.job_key, attempt, f->live.dir);
	if (live_place(f, attempt, &ignored))
		live_end(f);
}

/* What the journal has beyond what was told. True: there may be more at once. */
static bool live_read(struct follow *f)
{
	struct err e = { 0 };
	bool any = false, is_new;

	if (!f->live.attempt || f->live.is_fresh || f->sink.is_full || f->sink.is_ended)
		return false;
	events_clear(&f->live.events);
	is_new = journal_read(&f->live.journal, f->live.dir, JOURNAL_A_TURN, &f->live.events);
	for (size_t i = 0; i < f->live.events.n; i++) {
		struct event_row v = events_row(&f->live.events, i);

		v.attempt = f->live.attempt;
		v.sequence = f->live.sequence++;
		if (v.attempt < f->at.major || (v.attempt == f->at.major && v.pos <= f->at.minor))
			continue;              /* the store was faster */
		f->at = (struct show_place){ v.attempt, v.pos };
		any = true;
		if ((f->kind != FOLLOW_LOGS || event_is_log(v.type)) && add_entry(f, &v, &e))
			sink_end(&f->sink);
	}
	if (any && sink_push(&f->sink) == CALL_FULL)
		f->sink.is_full = true;
	return is_new;
}

static void pump(struct follow *f)
{
	AUTO_JOB_ROW row = { 0 };
	struct err e = { 0 };
	size_t n = 0;
	enum errc rc;

	if (live_read(f))
		loop_timer_set(f->ctx->loop, &f->more, loop_now_ms(f->ctx->loop));
	if (f->sink.is_ended || f->sink.is_full)
		return;
	/* First how it stands, then its events: an end that is seen has all its events before it. */
	rc = jobs_get_brief(f->ctx->reader, f->sub.job_key, &row, &e);
	if (!rc)
		rc = job_events_walk(f->ctx->reader, f->sub.job_key, f->at.major, f->at.minor, ROWS_A_TURN, on_event, f, &n, &e);
	if (rc && rc != E_CANCELLED) {         /* the job is gone, or the store cannot be read: nothing more comes */
		sink_end(&f->sink);
		return;
	}
	if (n)
		sink_push(&f->sink);
	if (rc == E_CANCELLED || f->sink.is_full)
		f->sink.is_full = true;
	else if (n == ROWS_A_TURN)
		loop_timer_set(f->ctx->loop, &f->more, loop_now_ms(f->ctx->loop));
	else if (job_is_ended(row.state))
		end(f, &row);
	else if (f->live.attempt && f->live.is_fresh) {        /* all before its place was told by this walk, which came later */
		f->live.is_fresh = false;
		loop_timer_set(f->ctx->loop, &f->more, loop_now_ms(f->ctx->loop));
	} else if (row.state == JOB_RUNNING && f->live.attempt != row.attempt) {
		live_end(f);
		live_begin(f, row.attempt);
		if (f->live.attempt)
			loop_timer_set(f->ctx->loop, &f->more, loop_now_ms(f->ctx->loop));
	}
}

static void on_more(struct loop_timer *t)
{
	pump(CONTAINER_OF(t, struct follow, more));
}

static void on_changed(struct loop_msg *m)
{
	struct sub *v = CONTAINER_OF(m, struct sub, msg);
	struct follow *f = CONTAINER_OF(v, struct follow, sub);

	subs_taken(v);
	if (f->is_dead)
		follow_free(f);
	else
		pump(f);
}

/* Below its low mark again: not here, in the middle of a read, but in this turn of the loop. */
static void on_drained(struct sink *s)
{
	struct follow *f = CONTAINER_OF(s, struct follow, sink);

	loop_timer_set(f->ctx->loop, &f->more, loop_now_ms(f->ctx->loop));
}

static void on_closed(struct sink *s, bool is_complete)
{
	struct follow *f = CONTAINER_OF(s, struct follow, sink);

	loop_timer_cancel(f->ctx->loop, &f->more);
	f->is_dead = true;
	if (f->kind == FOLLOW_RUN && !is_complete && !s->is_ended)
		generic_cancel(f->ctx, f->sub.job_key);
	sink_done(s);
	if (!subs_remove(f->ctx->svc->subs, &f->sub))
		follow_free(f);
}

/* "attempt.pos" of the header, unless the query says otherwise. */
static enum errc begin_at(struct req *q, struct show_place *ret, struct err *e)
{
	struct slice id = slice_trim(req_header(q, "last-event-id")), major;
	struct show s = { 0 };
	enum errc rc = generic_page(q, &s.max, &s.at, e);

	if (rc)
		return rc;
	*ret = s.at;
	if (!id.n || s.at.major)
		return E_OK;
	if (!slice_next(&id, '.', &major) || !slice_to_i64(major, 0, INT64_MAX, &ret->major) || !id.p ||
	    !slice_to_i64(id, 0, INT64_MAX, &ret->minor))
		return err_set(e, E_INVALID_VALUE, "last-event-id: the id of an entry, two numbers and a dot between them");
	return E_OK;
}

bool follow_is_asked(struct req *q)
{
	bool has;
	struct slice v = query_value(q->query, "follow", &has);

	/* A HEAD has no body that could be followed. */
	return has && !slice_eq(v, SLICE("0")) && !slice_eq(v, SLICE("false")) && !slice_eq(slice_str(q->method), SLICE("HEAD"));
}

enum errc follow_start(struct req *q, const struct job_row *row, enum follow_kind kind, struct err *e)
{
	struct show_place at = { 0 };
	struct follow *f;
	enum errc rc = kind == FOLLOW_RUN ? E_OK : begin_at(q, &at, e);

	if (rc)
		return rc;
	f = NEW(struct follow);
	if (!f || !(f->job_id = mem_strdup(row->job_id))) {
		mem_free(f);
		return err_set(e, E_NO_MEMORY, "no memory for a follower");
	}
	f->ctx = q->ctx;
	f->at = at;
	f->kind = kind;
	f->more.fn = on_more;
	f->sub = (struct sub){ .loop = q->ctx->loop, .msg = { .fn = on_changed }, .job_key = row->key };
	sink_init(&f->sink, q, on_closed, NULL);
	f->sink.drained = on_drained;
	q->reply.status = 200;
	rc = sink_open(&f->sink, "no-cache, no-transform", e);
	if (rc) {
		sink_done(&f->sink);
		follow_free(f);
		return rc;
	}
	subs_add(q->ctx->svc->subs, &f->sub);
	pump(f);
	return E_OK;
}
