/*
 * What the gateway hears of a running job: its chunks in batches, one post in flight, beside the run and never in its way; and
 * signs of life while it is silent. Called by relay.c, on the gateway's thread.
 *
 * At most once (design.md 6): after a post that failed no chunk is posted any more; what is unconfirmed goes into the result.
 */
#include "gateway/gateway_priv.h"

#include "base/log.h"

#include <stdio.h>

#define BATCH 8                        /* chunks that do not wait for the timer */
#define BATCH_MS 20                    /* after the last post came back: with clock ticks and a wake-up below 25 */
#define PENDING_MAX (8u << 20)

static struct gateway *gateway_of(const struct relay_report *v)
{
	return v->r->g;
}

static void consider(struct relay_report *v);

void report_init(struct relay_report *v, struct relay *r)
{
	*v = (struct relay_report){ .r = r };
	buf_init(&v->pending, PENDING_MAX);
	buf_init(&v->flying, PENDING_MAX);
}

static void settle(struct relay_report *v)
{
	if (v->is_ended && !v->x && (v->is_broken || !v->pending_count))
		relay_on_report_settled(v->r);
}

/* ---- posting ---- */

static void break_off(struct relay_report *v, const char *why)
{
	char quoted[256], id[96];

	if (!v->is_broken)
		log_event(LOG_WARN, "relay.events_stopped", "job=%s why=%s", log_quote(slice_str(v->r->job_id), id, sizeof(id)),
			  log_quote(slice_str(why), quoted, sizeof(quoted)));
	v->is_broken = true;
}

static void on_posted(void *ctx, const struct exchange_answer *a)
{
	struct relay_report *v = ctx;
	struct gateway *g = gateway_of(v);
	bool was_progress = v->is_progress;

	v->x = NULL;
	v->is_progress = false;
	v->returned_ms = loop_now_ms(g->loop);
	if (a->kind == EXCHANGE_STATUS && (a->status == 404 || a->status == 409 || a->status == 410)) {
		relay_on_gone(v->r, a->err.what);
		return;
	}
	if (a->kind == EXCHANGE_STATUS)
		(void)link_judge(g, a->status, a->err.what);
	if (a->kind == EXCHANGE_OK && !was_progress)
		buf_clear(&v->flying);
	if (a->kind != EXCHANGE_OK && !was_progress)
		break_off(v, a->err.what);
	consider(v);
	settle(v);
}

static void post(struct relay_report *v, struct buf *take_body)
{
	struct gateway *g = gateway_of(v);
	const struct link_post p = { .template = g->events_path, .job_id = v->r->job_id, .take_body = take_body, .timeout_ms = g->cfg->request_timeout_ms,
				     .done = on_posted, .ctx = v };
	struct err e = { 0 };
	enum errc rc = link_send(g, &p, &v->x, &e);

	v->spoke_ms = loop_now_ms(g->loop);
	if (rc)
		break_off(v, e.what);
}

static void post_chunks(struct relay_report *v)
{
	AUTO_BUF body = BUF_MAX(2 * PENDING_MAX);
	struct jw w = JW(&body);
	struct buf empty = v->flying;
	struct err e = { 0 };

	v->flying = v->pending;
	v->pending = empty;
	v->pending_count = 0;
	jw_obj(&w, NULL);
	jw_str(&w, "node_id", gateway_of(v)->o.node_id);
	if (!buf_add_str(&body, ",\"stream_events\":[", &w.err) && !buf_add_slice(&body, buf_slice(&v->flying), &w.err))
		(void)!buf_add_str(&body, "]", &w.err);
	jw_end(&w);
	if (jw_done(&w, &e))
		break_off(v, e.what);
	else
		post(v, &body);
}

static void post_progress(struct relay_report *v)
{
	struct relay *r = v->r;
	AUTO_BUF body = BUF_MAX(16 * 1024);
	struct jw w = JW(&body);
	char at[CLOCK_ISO_LEN], message[64];

	clock_iso(clock_wall_ms(), at);
	snprintf(message, sizeof(message), "running for %lld s", (long long)((loop_now_ms(r->g->loop) - r->began_ms) / 1000));
	jw_obj(&w, NULL);
	jw_str(&w, "node_id", r->g->o.node_id);
	jw_arr(&w, "progress_events");
	jw_obj(&w, NULL);
	jw_str(&w, "type", "status");
	jw_str(&w, "job_id", r->job_id);
	jw_str(&w, "request_id", r->request_id);
	jw_str(&w, "phase", "thinking");
	jw_str(&w, "message", message);
	jw_str(&w, "at", at);
	jw_end(&w);
	jw_end(&w);
	jw_end(&w);
	v->spoke_ms = loop_now_ms(r->g->loop);
	if (jw_done(&w, NULL))
		return;
	v->is_progress = true;
	post(v, &body);
	v->is_progress = v->x != NULL;
}

/* Post what is due, else set the timer for the next thing that will be. */
static void consider(struct relay_report *v)
{
	struct loop *l = gateway_of(v)->loop;
	int64_t now = loop_now_ms(l), silent_ms = gateway_of(v)->cfg->keep_alive_ms;
	int64_t chunks_at = v->returned_ms ? v->returned_ms + BATCH_MS : 0;

	if (v->x)
		return;
	if (v->pending_count && !v->is_broken && (v->pending_count >= BATCH || v->is_ended || now >= chunks_at))
		post_chunks(v);
	else if (!v->is_ended && now - v->spoke_ms >= silent_ms)
		post_progress(v);
	if (v->x || v->is_ended)
		return;
	int64_t at = v->spoke_ms + silent_ms;

	loop_timer_set(l, &v->timer, v->pending_count && !v->is_broken && chunks_at < at ? chunks_at : at);
}

static void on_timer(struct loop_timer *t)
{
	consider(CONTAINER_OF(t, struct relay_report, timer));
}

/* ---- from the run ---- */

void report_begin(struct relay_report *v)
{
	v->timer.fn = on_timer;
	v->spoke_ms = loop_now_ms(gateway_of(v)->loop);
	consider(v);
}

static void keep(struct relay_report *v, struct slice data)
{
	struct err e;

	if (v->is_overfull)
		return;
	/* A gateway that is megabytes behind: the whole answer is in the result all the same. */
	if ((v->pending_count && buf_add_str(&v->pending, ",", &e)) || buf_add_slice(&v->pending, data, &e)) {
		break_off(v, "too many chunks wait to be posted");
		buf_clear(&v->pending);
		v->pending_count = 0;
		v->is_overfull = true;
		return;
	}
	v->pending_count++;
}

void report_take(struct relay_report *v, struct buf *frames)
{
	struct slice rest = buf_slice(frames);
	const struct slice data = SLICE("data: "), end = SLICE("\n\n");

	while (rest.n) {
		ptrdiff_t n = slice_find(rest, end);
		struct slice frame = n < 0 ? rest : slice_cut(rest, (size_t)n);

		rest = n < 0 ? slice_of("", 0) : slice_from(rest, (size_t)n + end.n);
		if (!slice_starts_with(frame, data))
			continue;
		frame = slice_from(frame, data.n);
		if (slice_starts_with(frame, SLICE("{")))        /* not [DONE] */
			keep(v, frame);
	}
	buf_clear(frames);
	consider(v);
}

void report_end(struct relay_report *v)
{
	v->is_ended = true;
	loop_timer_cancel(gateway_of(v)->loop, &v->timer);
	consider(v);
	settle(v);
}

enum errc report_unconfirmed(struct relay_report *v, struct buf *out, struct err *e)
{
	enum errc rc;

	if (v->is_overfull || (!v->flying.n && !v->pending.n))
		return E_OK;
	rc = buf_add_str(out, "[", e);
	if (!rc)
		rc = buf_add_slice(out, buf_slice(&v->flying), e);
	if (!rc && v->flying.n && v->pending.n)
		rc = buf_add_str(out, ",", e);
	if (!rc)
		rc = buf_add_slice(out, buf_slice(&v->pending), e);
	return rc ? rc : buf_add_str(out, "]", e);
}

void report_done(struct relay_report *v)
{
	loop_timer_cancel(gateway_of(v)->loop, &v->timer);
	exchange_cancel(TAKE(v->x));
	buf_done(&v->pending);
	buf_done(&v->flying);
}
