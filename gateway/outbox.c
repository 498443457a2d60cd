/*
 * Start and result of a relayed job: written down before they are posted, posted until the gateway has taken them or says that
 * the job is gone, forgotten then. Across restarts: what a row of an earlier run says is told, too.
 * Called by relay.c and link.c, on the gateway's thread; bodies on the store's.
 */
#include "gateway/gateway_priv.h"

#include "base/log.h"
#include "base/mem.h"

#define BACKOFF_BASE_MS 500
#define RESULT_MS 60000                /* a large result on a slow line */
#define REFUSALS_MAX 8                 /* a result that the gateway calls wrong so often is given up */
#define FORGET_AGAIN_MS 5000
#define ROWS 32

static const char *quoted(const struct relay *r, char out[160])
{
	return log_quote(slice_str(r->job_id), out, 160);
}

static void count_ending(struct gateway *g, int delta)
{
	MUTEX_SCOPE(&g->mu);
	g->shown.ending += delta;
}

/* ---- writing: one after the other ---- */

static void write_next(struct relay *r);
static void post_result(struct relay *r);

static struct relay *relay_of(struct store_job *j)
{
	return CONTAINER_OF(j, struct relay, job);
}

static enum errc claim_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	struct relay *r = relay_of(j);

	return relay_claim_tx(t, r->job_id, r->request_id, clock_wall_ms(), &r->seq, e);
}

static enum errc run_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return relay_run_tx(t, relay_of(j)->seq, e);
}

static enum errc end_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return relay_end_tx(t, relay_of(j)->seq, buf_slice(&relay_of(j)->result), e);
}

static enum errc forget_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return relay_forget_tx(t, relay_of(j)->seq, e);
}

static void log_unwritten(const struct relay *r, const char *what, const struct err *e)
{
	char id[160], text[400];

	log_event(LOG_ERROR, "relay.unwritten", "job=%s what=%s %s", quoted(r, id), what, log_err(e, text, sizeof(text)));
}

static void on_claimed(struct loop_msg *m)
{
	struct relay *r = relay_of(CONTAINER_OF(m, struct store_job, done));

	r->is_storing = false;
	if (r->job.rc)
		r->seq = 0;
	relay_on_stored_claim(r, r->job.rc, &r->job.e);
}

static void on_run_written(struct loop_msg *m)
{
	struct relay *r = relay_of(CONTAINER_OF(m, struct store_job, done));

	r->is_storing = false;
	if (r->job.rc)
		log_unwritten(r, "running", &r->job.e);
	write_next(r);
	relay_release(r);
}

/* Also when the result could not be written: then it is posted from memory, and a crash before that leaves the job "interrupted". */
static void on_end_written(struct loop_msg *m)
{
	struct relay *r = relay_of(CONTAINER_OF(m, struct store_job, done));

	r->is_storing = false;
	r->is_stored = !r->job.rc;
	r->state = RELAY_ENDING;
	if (r->job.rc)
		log_unwritten(r, "result", &r->job.e);
	post_result(r);
	write_next(r);
	relay_release(r);
}

static void on_forgotten(struct loop_msg *m)
{
	struct relay *r = relay_of(CONTAINER_OF(m, struct store_job, done));

	r->is_storing = false;
	if (r->job.rc && !r->g->is_stopping) {
		r->is_forget_due = true;
		loop_timer_set(r->g->loop, &r->timer, loop_now_ms(r->g->loop) + FORGET_AGAIN_MS);
		return;
	}
	r->is_freed = true;
	relay_release(r);
}

static bool submit(struct relay *r, const char *name, enum errc (*body)(struct store_tx *, struct store_job *, struct err *),
		   void (*done)(struct loop_msg *), struct err *e)
{
	r->job = (struct store_job){ .name = name, .body = body, .loop = r->g->loop, .done = { .fn = done } };
	r->is_storing = !store_submit(r->g->o.store, &r->job, e);
	return r->is_storing;
}

static void write_next(struct relay *r)
{
	struct err e = { 0 };

	if (r->is_storing)
		return;
	if (r->is_run_due) {
		r->is_run_due = false;
		if (r->seq && !submit(r, "relay.run", run_body, on_run_written, &e))
			log_unwritten(r, "running", &e);
	}
	if (!r->is_storing && r->is_end_due) {
		r->is_end_due = false;
		if (!r->seq || !submit(r, "relay.end", end_body, on_end_written, &e)) {
			if (r->seq)
				log_unwritten(r, "result", &e);
			r->state = RELAY_ENDING;
			post_result(r);
		}
	}
	if (!r->is_storing && r->is_forget_due) {
		r->is_forget_due = false;
		if (!r->seq) {
			r->is_freed = true;
		} else if (!submit(r, "relay.forget", forget_body, on_forgotten, &e)) {
			r->is_forget_due = true;
			loop_timer_set(r->g->loop, &r->timer, loop_now_ms(r->g->loop) + FORGET_AGAIN_MS);
		}
	}
}

void outbox_claim(struct relay *r)
{
	struct err e = { 0 };

	if (!submit(r, "relay.claim", claim_body, on_claimed, &e))
		relay_on_stored_claim(r, e.code, &e);
}

void outbox_started(struct relay *r)
{
	r->is_run_due = true;
	write_next(r);
}

void outbox_end(struct relay *r)
{
	r->is_end_due = r->is_ending = true;
	count_ending(r->g, 1);
	r->backoff = (struct backoff){ .base_ms = BACKOFF_BASE_MS, .cap_ms = GATEWAY_BACKOFF_CAP_MS };
	r->tries = 0;
	r->was_lost = false;
	write_next(r);
}

static void end_told(struct relay *r)
{
	if (r->is_ending)
		count_ending(r->g, -1);
	r->is_ending = false;
}

void outbox_forget(struct relay *r)
{
	loop_timer_cancel(r->g->loop, &r->timer);
	end_told(r);
	r->is_run_due = r->is_end_due = false;
	r->is_forget_due = true;
	write_next(r);
	relay_release(r);
}

void outbox_cancel(struct relay *r)
{
	loop_timer_cancel(r->g->loop, &r->timer);
	exchange_cancel(TAKE(r->post));
}

/* ---- posting ---- */

static void on_timer(struct loop_timer *t)
{
	struct relay *r = CONTAINER_OF(t, struct relay, timer);

	if (r->is_forget_due)
		write_next(r);
	else if (r->state == RELAY_ENDING)
		post_result(r);
	else if (!r->was_started)
		outbox_post_start(r);
	relay_release(r);
}

static void again(struct relay *r, const struct exchange_answer *a)
{
	int64_t wait_ms = backoff_next_ms(&r->backoff);

	if (a && a->retry_after_ms > wait_ms)
		wait_ms = a->retry_after_ms < GATEWAY_BACKOFF_CAP_MS ? a->retry_after_ms : GATEWAY_BACKOFF_CAP_MS;
	if (a && a->kind != EXCHANGE_UNSENT)
		r->was_lost = true;
	r->timer.fn = on_timer;
	loop_timer_set(r->g->loop, &r->timer, loop_now_ms(r->g->loop) + wait_ms);
}

static bool is_gone(const struct exchange_answer *a)
{
	return a->kind == EXCHANGE_STATUS && (a->status == 404 || a->status == 409 || a->status == 410);
}

static enum errc send(struct relay *r, const char *template, struct buf *take_body, int64_t timeout_ms,
		      void (*done)(void *, const struct exchange_answer *), struct err *e)
{
	const struct link_post p = { .template = template, .job_id = r->job_id, .take_body = take_body, .timeout_ms = timeout_ms, .done = done, .ctx = r };

	return link_send(r->g, &p, &r->post, e);
}

static void on_start_answered(void *ctx, const struct exchange_answer *a)
{
	struct relay *r = ctx;

	r->post = NULL;
	if (a->kind == EXCHANGE_OK || (a->kind == EXCHANGE_STATUS && a->status == 409 && r->was_lost)) {
		relay_on_started(r);
	} else if (is_gone(a)) {
		relay_on_gone(r, a->err.what);
	} else if (loop_now_ms(r->g->loop) - r->began_ms > r->limit_ms) {
		relay_on_refused(r, &a->err);
	} else if (exchange_is_transient(a) || link_judge(r->g, a->status, a->err.what)) {
		again(r, a);
	} else {
		relay_on_refused(r, &a->err);
	}
	relay_release(r);
}

void outbox_post_start(struct relay *r)
{
	AUTO_BUF body = BUF_MAX(r->start_body.n + 1);
	struct err e = { 0 };
	enum errc rc;

	if (r->post || r->is_gone || r->is_over)
		return;
	rc = buf_add_slice(&body, buf_slice(&r->start_body), &e);
	if (!rc)
		rc = send(r, r->g->start_path, &body, r->g->cfg->request_timeout_ms, on_start_answered, &e);
	if (rc == E_INVALID_VALUE || rc == E_FORBIDDEN)
		relay_on_gone(r, e.what);
	else if (rc)
		again(r, NULL);
}

/* ---- the result ---- */

static void give_up(struct relay *r, const char *event, const char *why)
{
	char id[160], text[400];

	log_event(LOG_ERROR, event, "job=%s tries=%u why=%s", quoted(r, id), r->tries, log_quote(slice_str(why), text, sizeof(text)));
	outbox_forget(r);
}

static void on_result_answered(void *ctx, const struct exchange_answer *a)
{
	struct relay *r = ctx;
	struct gateway *g = r->g;

	r->post = NULL;
	r->tries++;
	if (a->kind == EXCHANGE_OK) {
		outbox_forget(r);
	} else if (is_gone(a)) {
		char id[160];

		log_event(LOG_INFO, "relay.result_unwanted", "job=%s status=%d", quoted(r, id), a->status);
		outbox_forget(r);
	} else if (!exchange_is_transient(a) && !link_judge(g, a->status, a->err.what) && r->tries >= REFUSALS_MAX) {
		give_up(r, "relay.result_refused", a->err.what);
	} else {
		link_note_error(g, a->err.what);
		if (r->is_stored)
			buf_done(&r->result);  /* it lies in the store; many may have to wait */
		again(r, a);
	}
	poll_consider(g);
}

static void post_result(struct relay *r)
{
	struct gateway *g = r->g;
	AUTO_BUF body = BUF_MAX(256u << 20);
	int64_t limit_ms = g->cfg->request_timeout_ms > RESULT_MS ? g->cfg->request_timeout_ms : RESULT_MS;
	struct err e = { 0 };
	enum errc rc;

	if (r->post || r->is_gone)
		return;
	if (!link_is_usable(g)) {
		again(r, NULL);
		return;
	}
	rc = r->result.n ? buf_add_slice(&body, buf_slice(&r->result), &e) : relay_result(g->reader, r->seq, &body, &e);
	if (!rc)
		rc = send(r, g->result_path, &body, limit_ms, on_result_answered, &e);
	if (rc == E_INVALID_VALUE || rc == E_FORBIDDEN || rc == E_NOT_FOUND)
		give_up(r, "relay.result_dropped", e.what);
	else if (rc)
		again(r, NULL);
}

void outbox_hurry(struct gateway *g)
{
	for (struct relay *r = g->relays, *next; r; r = next) {
		next = r->next;
		if (!r->timer.heap_pos || r->is_forget_due)
			continue;
		backoff_reset(&r->backoff);
		loop_timer_set(g->loop, &r->timer, loop_now_ms(g->loop));
	}
}

/* ---- rows of earlier runs ---- */

static void recover(struct gateway *g, const struct relay_row *row)
{
	struct err e = { 0 };
	struct relay *r = relay_is_known(g, row->job_id) ? NULL : relay_new(g, row->job_id, row->request_id, &e);

	if (!r)
		return;
	r->seq = row->seq;
	r->state = row->state;
	r->is_over = r->is_recovered = true;
	r->was_started = row->state != RELAY_STARTING;
	g->recovering++;
	if (row->state == RELAY_ENDING) {
		r->is_stored = true;
		r->is_ending = true;
		count_ending(g, 1);
		r->backoff = (struct backoff){ .base_ms = BACKOFF_BASE_MS, .cap_ms = GATEWAY_BACKOFF_CAP_MS };
		post_result(r);
	} else {
		relay_abort(r, "the node was interrupted while the job ran");
	}
}

void outbox_recover(struct gateway *g)
{
	struct relay_row *rows = NULL;
	size_t n = 0;
	struct err e = { 0 };
	char text[400];

	if (g->recover_after < 0 || g->recovering >= GATEWAY_POSTS_MAX)
		return;
	if (relay_list(g->reader, g->recover_after, GATEWAY_POSTS_MAX - g->recovering, &rows, &n, &e)) {
		log_event(LOG_ERROR, "relay.unread", "%s", log_err(&e, text, sizeof(text)));
		g->recover_after = -1;
		return;
	}
	g->recover_after = n ? rows[n - 1].seq : -1;
	for (size_t i = 0; i < n; i++)
		recover(g, &rows[i]);
	relay_rows_free(rows, n);
}
