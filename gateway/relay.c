/*
 * One relayed job: claimed, checked, started, run, told. Called by poll.c with what the gateway gave, by outbox.c and report.c
 * with what it answers, by llm/invoke with what the run says. On the gateway's thread.
 */
#include "gateway/gateway_priv.h"

#include "base/log.h"
#include "base/mem.h"

#define FAILED_MAX (64u * 1024)
#define FRAMES_MAX (8u * CALL_EVENT_MAX + INVOKE_REPLY_MAX)   /* a plain reply made a stream comes as one */

static const char *quoted(const struct relay *r, char out[160])
{
	return log_quote(slice_str(r->job_id), out, 160);
}

/* ---- making, freeing ---- */

struct relay *relay_new(struct gateway *g, const char *job_id, const char *request_id, struct err *e)
{
	struct relay *r = NEW(struct relay);

	if (r) {
		r->job_id = mem_strdup(job_id);
		r->request_id = mem_strdup(request_id);
	}
	if (!r || !r->job_id || !r->request_id) {
		if (r) {
			mem_free(r->job_id);
			mem_free(r->request_id);
		}
		mem_free(r);
		(void)err_set(e, E_NO_MEMORY, "no memory for a job");
		return NULL;
	}
	r->g = g;
	r->state = RELAY_STARTING;
	r->began_ms = loop_now_ms(g->loop);
	r->limit_ms = g->cfg->job_timeout_ms;
	r->backoff = (struct backoff){ .base_ms = 500, .cap_ms = GATEWAY_BACKOFF_CAP_MS };
	buf_init(&r->text, GATEWAY_POLL_MAX);
	buf_init(&r->frames, FRAMES_MAX);
	buf_init(&r->start_body, 64 * 1024);
	buf_init(&r->result, 256u << 20);
	report_init(&r->report, r);
	r->next = g->relays;
	g->relays = r;
	g->relay_count++;
	return r;
}

void relay_free(struct relay *r)
{
	struct gateway *g = r->g;

	for (struct relay **at = &g->relays; *at; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	g->relay_count--;
	if (r->is_recovered && g->recovering)
		g->recovering--;
	loop_timer_cancel(g->loop, &r->timer);
	exchange_cancel(r->post);
	report_done(&r->report);
	invoke_free(r->v);
	secret_done(&r->attached);
	buf_done(&r->text);
	buf_done(&r->frames);
	buf_done(&r->start_body);
	buf_done(&r->result);
	mem_free(r->job_id);
	mem_free(r->request_id);
	mem_free(r);
}

static void on_free(struct loop_msg *m)
{
	struct relay *r = CONTAINER_OF(m, struct relay, free_msg);
	struct gateway *g = r->g;

	relay_free(r);
	outbox_recover(g);
}

/* By a letter: whoever is on the stack may still look at it. */
void relay_release(struct relay *r)
{
	if (!r->is_freed || r->is_leaving || r->is_storing || r->post || r->v || r->report.x)
		return;
	r->is_leaving = true;
	r->free_msg.fn = on_free;
	loop_post(r->g->loop, &r->free_msg);
}

bool relay_is_known(struct gateway *g, const char *job_id)
{
	for (const struct relay *r = g->relays; r; r = r->next)
		if (strcmp(r->job_id, job_id) == 0 && !r->is_freed)
			return true;
	for (size_t i = 0; i < GATEWAY_ENDED_KEPT; i++)
		if (g->ended[i] && strcmp(g->ended[i], job_id) == 0)
			return true;
	return false;
}

/* A job that went well is not run again when the gateway's answer to a poll comes twice. */
static void remember(struct relay *r)
{
	struct gateway *g = r->g;
	char **slot = &g->ended[g->ended_at++ % GATEWAY_ENDED_KEPT];

	mem_free(*slot);
	*slot = mem_strdup(r->job_id);
}

/* ---- the outcome ---- */

static void unclaim(struct relay *r)
{
	if (r->is_claimed)
		r->g->claimed--;
	r->is_claimed = false;
}

/* Once: the run has an outcome. code NULL: success; counts for heartbeats and books unless it never was ours to run. */
static void over(struct relay *r, const char *code, bool is_booked)
{
	struct gateway *g = r->g;
	struct gateway_use u = { .agent = "", .is_error = code != NULL };

	if (r->is_over)
		return;
	r->is_over = true;
	unclaim(r);
	if (r->is_counted)
		g->running_count--;
	r->is_counted = false;
	mutex_lock(&g->mu);
	g->shown.failed += code && is_booked;
	g->shown.running = (int64_t)g->running_count;
	mutex_unlock(&g->mu);
	if (!is_booked)
		return;
	outcomes_add(g->o.outcomes, OUTCOME_LLM, loop_now_ms(g->loop) - r->began_ms, code);
	if (!code)
		remember(r);
	if (r->v && r->v->is_started && g->o.on_job) {
		u.agent = r->v->agent ? r->v->agent->slug : "";
		u.usage = invoke_usage(r->v);
		u.took_ms = invoke_latency_ms(r->v);
		g->o.on_job(g->o.ctx, &u);
	}
}

/* A result for a job that has none of its own. */
static void write_failed(struct relay *r, const char *code, const char *message, bool is_retryable)
{
	struct jw w = JW(&r->result);

	buf_clear(&r->result);
	jw_obj(&w, NULL);
	jw_str(&w, "job_id", r->job_id);
	jw_str(&w, "request_id", r->request_id);
	jw_str(&w, "status", "failed");
	if (!r->was_started)
		jw_bool(&w, "pre_start_failure", true);
	jw_obj(&w, "error");
	jw_str(&w, "code", code);
	jw_str(&w, "message", message);
	if (is_retryable)
		jw_bool(&w, "retryable", true);
	jw_end(&w);
	jw_obj(&w, "timing");
	jw_i64(&w, "local_latency_ms", loop_now_ms(r->g->loop) - r->began_ms);
	jw_end(&w);
	jw_str(&w, "node_id", r->g->o.node_id);
	jw_end(&w);
	if (jw_done(&w, NULL))
		buf_clear(&r->result);
}

static void end_failed(struct relay *r, const char *code, const char *message, bool is_retryable)
{
	char id[160], text[400];

	log_event(LOG_WARN, "relay.job_failed", "job=%s code=%s why=%s", quoted(r, id), code, log_quote(slice_str(message), text, sizeof(text)));
	over(r, code, true);
	write_failed(r, code, message, is_retryable);
	invoke_free(TAKE(r->v));
	outbox_end(r);
	poll_consider(r->g);
}

void relay_abort(struct relay *r, const char *why)
{
	outbox_cancel(r);
	report_done(&r->report);
	end_failed(r, "node_interrupted", why, true);
}

void relay_on_gone(struct relay *r, const char *why)
{
	struct gateway *g = r->g;
	char id[160], text[400];

	if (r->is_gone)
		return;
	r->is_gone = true;
	log_event(LOG_INFO, "relay.job_gone", "job=%s why=%s", quoted(r, id), log_quote(slice_str(why), text, sizeof(text)));
	over(r, NULL, false);
	mutex_lock(&g->mu);
	g->shown.gone++;
	mutex_unlock(&g->mu);
	outbox_cancel(r);
	report_done(&r->report);
	invoke_free(TAKE(r->v));
	outbox_forget(r);
	poll_consider(g);
}

/* ---- the run ---- */

static enum errc write_start(struct relay *r, struct err *e)
{
	const struct invocation *j = &r->v->job;
	const struct agent *a = j->is_ollama ? NULL : r->v->agent;
	struct slice slug = a ? slice_str(a->slug) : slice_of("", 0);
	struct slice agent_slug = j->agent_slug.n ? j->agent_slug : slug;
	struct slice source_slug = j->source_agent_slug.n ? j->source_agent_slug : slug;
	struct jw w = JW(&r->start_body);

	jw_obj(&w, NULL);
	jw_str(&w, "node_id", r->g->o.node_id);
	if (agent_slug.n)
		jw_slice(&w, "agent_slug", agent_slug);
	else
		jw_null(&w, "agent_slug");
	if (source_slug.n)
		jw_slice(&w, "source_agent_slug", source_slug);
	else
		jw_null(&w, "source_agent_slug");
	jw_slice(&w, "model", j->model.n ? j->model : j->request_model);
	jw_end(&w);
	return jw_done(&w, e);
}

static void on_ready(void *ctx)
{
	struct relay *r = ctx;
	struct err e = { 0 };

	r->limit_ms = invocation_limit_ms(&r->v->job, r->g->cfg->job_timeout_ms);
	if (write_start(r, &e))
		end_failed(r, "upstream_error", e.what, false);
	else
		outbox_post_start(r);
}

void relay_on_started(struct relay *r)
{
	r->was_started = true;
	r->state = RELAY_RUNNING;
	outbox_started(r);
	unclaim(r);                        /* from here on admission counts it */
	invoke_run(r->v);
	if (r->v && !r->is_over)
		report_begin(&r->report);
}

void relay_on_refused(struct relay *r, const struct err *e)
{
	if (r->v)
		invoke_abort(r->v, e);
}

static enum call_take on_frames(void *ctx)
{
	struct relay *r = ctx;

	report_take(&r->report, &r->frames);
	return CALL_MORE;
}

static void on_end(void *ctx, enum invoke_how how, const struct err *e, int64_t retry_after_s)
{
	struct relay *r = ctx;

	(void)retry_after_s;
	if (how == INVOKE_UNREADABLE) {
		end_failed(r, "validation_failed", e->what, false);
		return;
	}
	over(r, how == INVOKE_DONE ? NULL : r->v->failure.code, true);
	if (r->v->job.is_stream && r->frames.n)
		report_take(&r->report, &r->frames);
	report_end(&r->report);
	poll_consider(r->g);
}

void relay_on_report_settled(struct relay *r)
{
	AUTO_BUF chunks = BUF_MAX(20u << 20);
	struct err e = { 0 };

	if (!r->v || r->is_gone)
		return;
	if (report_unconfirmed(&r->report, &chunks, &e))
		buf_clear(&chunks);
	invoke_result(r->v, slice_str(r->g->o.node_id), buf_slice(&chunks));
}

static void on_result(void *ctx, enum errc rc, const struct err *e)
{
	struct relay *r = ctx;

	if (rc) {
		end_failed(r, "upstream_error", e->what, false);
		return;
	}
	buf_done(&r->result);
	r->result = r->v->result;
	buf_init(&r->v->result, 0);
	invoke_free(TAKE(r->v));
	outbox_end(r);
}

static const struct invoke_ops run_ops = { .on_ready = on_ready, .on_frames = on_frames, .on_end = on_end, .on_result = on_result };

/* ---- the claim ---- */

void relay_on_stored_claim(struct relay *r, enum errc rc, const struct err *e)
{
	struct gateway *g = r->g;
	const struct invoke_req q = { .take_text = &r->text, .attached_key = secret_slice(&r->attached), .client = "gateway",
				      .frames = &r->frames, .wants_join = true, .ops = &run_ops, .ctx = r };
	struct err why = { 0 };
	char id[160];

	if (rc == E_CONFLICT) {
		log_event(LOG_WARN, "relay.job_doubled", "job=%s", quoted(r, id));
		over(r, NULL, false);
		r->is_freed = true;
	} else if (rc) {
		/* What cannot be written down is not begun: a crash would lose it. */
		end_failed(r, "upstream_error", e->what, true);
	} else if (g->is_stopping) {
		relay_abort(r, "the node is stopping");
	} else if (invoke_begin(&g->env, &q, &r->v, &why)) {
		end_failed(r, "upstream_error", why.what, true);
	}
	secret_done(&r->attached);
	relay_release(r);
}

void relay_begin(struct gateway *g, struct slice job, struct slice attached_key, const char *job_id, const char *request_id)
{
	struct err e = { 0 };
	struct relay *r = relay_new(g, job_id, request_id, &e);

	/* Without memory the gateway hears nothing of this job: its own deadline frees it. */
	if (!r || buf_add_slice(&r->text, job, &e) || (attached_key.n && secret_set(&r->attached, attached_key, &e))) {
		log_event(LOG_ERROR, "relay.job_dropped", "reason=no_memory");
		if (r)
			relay_free(r);
		return;
	}
	r->is_claimed = r->is_counted = true;
	g->claimed++;
	g->running_count++;
	mutex_lock(&g->mu);
	g->shown.jobs++;
	g->shown.job_wall_ms = clock_wall_ms();
	g->shown.running = (int64_t)g->running_count;
	mutex_unlock(&g->mu);
	outbox_claim(r);
}
