/*
 * Asking the gateway for work: at most one poll in flight, only while a slot is free. Called by link.c, relay.c and outbox.c
 * whenever something changed; on the gateway's thread.
 */
#include "gateway/gateway_priv.h"

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>

#define WAIT_MS 25000                  /* how long the gateway is asked to hold a poll */
#define WAIT_SHARED_MS 2000            /* with reserved slots: an urgent job must not wait behind a held poll */
#define WAIT_RESERVED_MS 250
#define MARGIN_MS 5000
#define GAP_MS 1000                    /* between the beginnings of polls that bring nothing */
#define LOOK_AGAIN_MS 250              /* slots that direct jobs hold come back without a word to us */
#define EXCLUDED_MAX 64
#define ALIAS_MAX 255
#define POLL_LIMITS ((struct json_limits){ .max_bytes = GATEWAY_POLL_MAX, .max_depth = 64 })

void poll_init(struct gateway *g)
{
	g->poll_backoff = (struct backoff){ .base_ms = 2000, .cap_ms = GATEWAY_BACKOFF_CAP_MS };   /* the first wait: one to two seconds */
}

/* ---- what is asked ---- */

/* A name as the gateway normalises it: lower case, everything but letters and digits a "-". */
static void write_alias(struct jw *w, const char *name)
{
	char out[ALIAS_MAX + 1];
	size_t n = 0;

	for (const char *p = name; *p && n < ALIAS_MAX; p++) {
		bool is_kept = isalnum((unsigned char)*p);

		if (is_kept || (n && out[n - 1] != '-'))
			out[n++] = is_kept ? (char)tolower((unsigned char)*p) : '-';
	}
	while (n && out[n - 1] == '-')
		n--;
	if (n)
		jw_slice(w, NULL, slice_of(out, n));
}

static void write_excluded(struct gateway *g, struct jw *w)
{
	unsigned left = EXCLUDED_MAX;

	jw_arr(w, "excluded_agent_slugs");
	for (const struct relay *r = g->relays; r && left; r = r->next)
		if (!r->is_over && r->v && r->v->agent) {
			write_alias(w, r->v->agent->slug);
			left--;
		}
	jw_end(w);
}

static enum errc write_poll(struct gateway *g, const struct heartbeat_load *l, bool is_reserved, int64_t wait_ms, struct buf *out, struct err *e)
{
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "node_id", g->o.node_id);
	jw_obj(&w, "capacity");
	jw_i64(&w, "active_jobs", heartbeat_active(l));
	jw_i64(&w, "queued_jobs", heartbeat_queued(l));
	jw_i64(&w, "max_jobs", l->max_jobs);
	jw_i64(&w, "max_concurrency", l->max_jobs);
	jw_i64(&w, "free_slots", heartbeat_free(l));
	jw_bool(&w, "drain_mode", l->is_draining);
	if (is_reserved)
		jw_i64(&w, "max_requested_priority", g->cfg->reserved_priority_max);
	if (g->cfg->reserved_llm_jobs > 0)
		write_excluded(g, &w);
	jw_end(&w);
	jw_i64(&w, "wait_ms", wait_ms);
	jw_end(&w);
	return jw_done(&w, e);
}

/* ---- what comes ---- */

static bool read_text(const struct json *obj, const char *key, char out[RELAY_ID_MAX + 1])
{
	struct slice s = json_slice(json_get(obj, key));

	return s.n && slice_copy(s, out, RELAY_ID_MAX + 1);
}

/* A job whose id makes no path can be told nothing: it is none. */
static bool has_path(struct gateway *g, const char *job_id)
{
	AUTO_BUF url = BUF_MAX(8192);
	struct err e = { 0 };
	char text[400];

	if (!gateway_url_job(g->cfg, g->base, g->result_path, slice_str(job_id), &url, &e))
		return true;
	log_event(LOG_WARN, "poll.malformed", "%s", log_err(&e, text, sizeof(text)));
	return false;
}

/* True: a job came that is ours to run. */
static bool take_job(struct gateway *g, struct slice body)
{
	char job_id[RELAY_ID_MAX + 1], request_id[RELAY_ID_MAX + 1] = "", text[400];
	struct slice job = { 0 };
	AUTO_JSON tree = NULL;
	struct err e = { 0 };

	if (!slice_trim(body).n)
		return false;
	if (json_parse(body, POLL_LIMITS, &tree, &e) || !json_is_object(tree)) {
		log_event(LOG_WARN, "poll.malformed", "%s", e.code ? log_err(&e, text, sizeof(text)) : "what=\"no object\"");
		return false;
	}
	if (json_is_absent(json_get(tree, "job")))
		return false;
	if (!json_is_object(json_get(tree, "job")) || !json_find_member(body, "job", &job)) {
		log_event(LOG_WARN, "poll.malformed", "what=\"job is no object\"");
		return false;
	}
	if (!read_text(json_get(tree, "job"), "job_id", job_id)) {
		log_event(LOG_WARN, "poll.malformed", "what=\"a job without a usable job_id\"");
		return false;
	}
	if (!has_path(g, job_id))
		return false;
	(void)read_text(json_get(tree, "job"), "request_id", request_id);
	if (relay_is_known(g, job_id)) {
		log_event(LOG_WARN, "relay.job_doubled", "job=%s", log_quote(slice_str(job_id), text, sizeof(text)));
		return false;
	}
	relay_begin(g, job, json_slice(json_get(tree, "attached_mswarm_api_key")), job_id, request_id);
	return true;
}

/* ---- outcomes ---- */

/* The gateway does not know the path: said in every heartbeat, tried again with backoff, healed by the first answer. */
static void mismatch(struct gateway *g, bool is_missing)
{
	if (is_missing && !g->is_mismatched) {
		snprintf(g->mismatch, sizeof(g->mismatch),
			 "Gateway is missing lifecycle endpoint POST %.100s at %.100s (runtime package version %.20s). "
			 "Run a direct local agent/model instead, for example qwen3.6-llama.cpp.",
			 g->poll_path, g->base, g->cfg->node_version);
		g->mismatch_wall_ms = clock_wall_ms();
		log_event(LOG_WARN, "poll.path_unknown", "path=%s", g->poll_path);
	} else if (!is_missing && g->is_mismatched) {
		log_event(LOG_INFO, "poll.path_known", "path=%s", g->poll_path);
	}
	g->is_mismatched = is_missing;
}

static void failed(struct gateway *g, const struct exchange_answer *a)
{
	int64_t wait_ms = backoff_next_ms(&g->poll_backoff);
	char text[400];

	if (a->retry_after_ms > wait_ms)
		wait_ms = a->retry_after_ms < GATEWAY_BACKOFF_CAP_MS ? a->retry_after_ms : GATEWAY_BACKOFF_CAP_MS;
	if (!g->is_poll_failing)
		log_event(LOG_WARN, "poll.failed", "why=%s", log_quote(slice_str(a->err.what), text, sizeof(text)));
	g->is_poll_failing = true;
	g->poll_next_ms = loop_now_ms(g->loop) + wait_ms;
	mismatch(g, a->kind == EXCHANGE_STATUS && a->status == 404);
	if (a->kind == EXCHANGE_STATUS && link_judge(g, a->status, a->err.what))
		return;
	link_note_error(g, a->err.what);
	if (g->state == LINK_ONLINE)
		link_set_state(g, LINK_DEGRADED, a->err.what);
}

static void on_polled(void *ctx, const struct exchange_answer *a)
{
	struct gateway *g = ctx;
	bool is_ok = a->kind == EXCHANGE_OK;

	g->poll = NULL;
	mutex_lock(&g->mu);
	g->shown.polls++;
	g->shown.poll_failures += !is_ok;
	if (is_ok)
		g->shown.poll_wall_ms = clock_wall_ms();
	mutex_unlock(&g->mu);
	if (is_ok) {
		if (g->is_poll_failing)
			log_event(LOG_INFO, "poll.recovered", "failures=%u", g->poll_backoff.failures);
		g->is_poll_failing = false;
		backoff_reset(&g->poll_backoff);
		mismatch(g, false);
		if (g->state == LINK_DEGRADED)
			link_set_state(g, LINK_ONLINE, "a poll was answered");
		g->poll_next_ms = take_job(g, a->body) ? 0 : g->poll_began_ms + GAP_MS;
	} else {
		failed(g, a);
	}
	poll_consider(g);
}

/* ---- when to ask ---- */

/* A job whose result could go nowhere must not be claimed. */
void poll_check_paths(struct gateway *g)
{
	const char *const templates[] = { g->poll_path, g->start_path, g->events_path, g->result_path };
	char text[400];

	g->has_bad_path = false;
	for (size_t i = 0; i < ARRAY_LEN(templates) && !g->has_bad_path; i++) {
		AUTO_BUF url = BUF_MAX(8192);
		struct err e = { 0 };

		if (!gateway_url_job(g->cfg, g->base, templates[i], SLICE("x"), &url, &e))
			continue;
		g->has_bad_path = true;
		log_event(LOG_ERROR, "poll.path_refused", "%s", log_err(&e, text, sizeof(text)));
		(void)!slice_copy(slice_str(e.what), g->bad_path, sizeof(g->bad_path));
	}
}

static void start_poll(struct gateway *g, const struct heartbeat_load *l, bool is_reserved)
{
	bool is_shared = g->cfg->reserved_llm_jobs > 0;
	int64_t wait_ms = is_reserved ? WAIT_RESERVED_MS : is_shared ? WAIT_SHARED_MS : WAIT_MS, limit_ms = wait_ms + MARGIN_MS;
	AUTO_BUF body = BUF_MAX(64 * 1024);
	const struct link_post p = { .template = g->poll_path, .take_body = &body, .max_answer = GATEWAY_POLL_MAX, .done = on_polled, .ctx = g,
				     .timeout_ms = g->cfg->request_timeout_ms > limit_ms ? g->cfg->request_timeout_ms : limit_ms };
	struct err e = { 0 };
	enum errc rc = write_poll(g, l, is_reserved, wait_ms, &body, &e);

	g->poll_began_ms = loop_now_ms(g->loop);
	if (!rc)
		rc = link_send(g, &p, &g->poll, &e);
	if (rc) {
		const struct exchange_answer a = { .kind = EXCHANGE_UNSENT, .err = e };

		failed(g, &a);
		loop_timer_set(g->loop, &g->poll_timer, g->poll_next_ms);
	}
}

static bool may_poll(struct gateway *g)
{
	return g->cfg->mode == MODE_OUTBOUND && link_is_usable(g) && g->is_first_beat_over && !g->is_stopping && !g->poll && !g->has_bad_path &&
	       atomic_load(g->o.drain) == 0 && store_state(g->o.store) == STORE_OK && g->relay_count - g->running_count < GATEWAY_OUTBOX_MAX;
}

static void on_timer(struct loop_timer *t)
{
	poll_consider(CONTAINER_OF(t, struct gateway, poll_timer));
}

void poll_consider(struct gateway *g)
{
	int64_t now = loop_now_ms(g->loop), reserved = g->cfg->reserved_llm_jobs;
	struct heartbeat_load l;
	struct err e;

	g->poll_timer.fn = on_timer;
	if (!may_poll(g)) {
		/* A full disk, drain and a slow outbox end without a word to us. */
		if (!g->poll && !g->is_stopping)
			loop_timer_set(g->loop, &g->poll_timer, now + GAP_MS);
		return;
	}
	if (g->poll_next_ms > now) {
		loop_timer_set(g->loop, &g->poll_timer, g->poll_next_ms);
		return;
	}
	if (link_load(g, &l, &e)) {
		loop_timer_set(g->loop, &g->poll_timer, now + GAP_MS);
		return;
	}
	int64_t spare = l.max_llm - l.active_llm - l.queued_llm;

	if (spare > 0)
		start_poll(g, &l, false);
	else if (spare + reserved > 0)
		start_poll(g, &l, true);
	else
		loop_timer_set(g->loop, &g->poll_timer, now + LOOK_AGAIN_MS);
}

void poll_stop(struct gateway *g)
{
	loop_timer_cancel(g->loop, &g->poll_timer);
	exchange_cancel(TAKE(g->poll));
}
