/*
 * The link to the gateway: made on main, run by its own thread; its states, its heartbeats, its end. See NOTES.md.
 * Called by server/app*.c and the control socket.
 */
#include "gateway/gateway_priv.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "gateway/member.h"

#define REFUSED_MS 60000               /* between heartbeats with a token that was refused */
#define FIRST_LOOK_MS 20
#define FIRST_LIMIT_MS 2500
#define BEAT_MAX (32u << 20)
#define CONFIG_MAX (1u << 20)
#define STOP_POSTS_MS 1500             /* for the last results */
#define STOP_LOOK_MS 20

/* ---- states ---- */

static const char *state_name(enum link_state s)
{
	static const char *const names[] = {
#define X(id, name) [LINK_##id] = name,
		LINK_STATES(X)
#undef X
	};

	return names[s];
}

void link_set_state(struct gateway *g, enum link_state state, const char *why)
{
	char text[400];

	if (state == g->state)
		return;
	log_event(state == LINK_ONLINE || state == LINK_STOPPED || state == LINK_JOINING ? LOG_INFO : LOG_WARN, "link.changed", "from=%s to=%s why=%s",
		  state_name(g->state), state_name(state), log_quote(slice_str(why), text, sizeof(text)));
	g->state = state;
	mutex_lock(&g->mu);
	g->shown.state = state;
	g->shown.state_wall_ms = clock_wall_ms();
	mutex_unlock(&g->mu);
}

void link_note_error(struct gateway *g, const char *what)
{
	AUTO_BUF text = BUF_MAX(1024);

	if (!buf_add_str(&text, what, NULL))
		log_redact(&text);
	mutex_lock(&g->mu);
	(void)!slice_copy(slice_cut_text(buf_slice(&text), sizeof(g->shown.error) - 1), g->shown.error, sizeof(g->shown.error));
	mutex_unlock(&g->mu);
}

bool link_is_usable(const struct gateway *g)
{
	return g->token.n > 0 && g->state != LINK_REFUSED && g->state != LINK_REMOVED && g->state != LINK_JOINING;
}

bool link_judge(struct gateway *g, int status, const char *what)
{
	if (status != 401 && status != 403 && status != 410)
		return false;
	link_note_error(g, what);
	link_set_state(g, status == 410 ? LINK_REMOVED : LINK_REFUSED, what);
	if (status != 410)
		join_read_key(g);
	/* The next heartbeat is the look whether it is well again. */
	g->beat_due_ms = loop_now_ms(g->loop) + (status == 410 ? 1000 * g->cfg->gateway_recheck_seconds :
						  g->interval_ms > REFUSED_MS ? g->interval_ms : REFUSED_MS);
	if (!g->beat)
		loop_timer_set(g->loop, &g->beat_timer, g->beat_due_ms);
	return true;
}

enum errc link_load(struct gateway *g, struct heartbeat_load *ret, struct err *e)
{
	const struct heartbeat_load_in in = { .cfg = g->cfg, .admission = g->o.admission, .reader = g->reader, .claimed = g->claimed,
					      .is_draining = atomic_load(g->o.drain) != 0 || g->is_stopping };

	return heartbeat_load_read(&in, ret, e);
}

enum errc link_send(struct gateway *g, const struct link_post *p, struct exchange **ret, struct err *e)
{
	AUTO_BUF url = BUF_MAX(8192);
	struct exchange_req q = { .client = g->client, .method = "POST", .token = p->is_bare ? slice_of("", 0) : secret_slice(&g->token),
				  .take_body = p->take_body, .timeout_ms = p->timeout_ms, .max_answer = p->max_answer, .done = p->done, .ctx = p->ctx };
	enum errc rc = p->path ? gateway_url(g->cfg, g->base, p->path, &url, e) :
				 gateway_url_job(g->cfg, g->base, p->template, slice_str(p->job_id), &url, e);

	if (!rc && !(q.url = buf_cstr(&url)))
		rc = err_set(e, E_NO_MEMORY, "no memory");
	return rc ? rc : exchange_start(&q, ret, e);
}

/* ---- a heartbeat ---- */

static enum errc write_beat(struct gateway *g, struct buf *out, struct err *e)
{
	struct capability_runner runners[CAPABILITY_RUNNERS_MAX];
	struct capabilities caps;
	struct agents *agents = inventory_get(g->o.inventory);
	int64_t now = clock_wall_ms();
	struct heartbeat h = {
		.cfg = g->cfg, .node_id = g->o.node_id, .config_version = g->config_version, .clients = g->clients, .agents = agents, .now_wall_ms = now,
		.mismatch = g->is_mismatched ? g->mismatch : NULL, .mismatch_wall_ms = g->mismatch_wall_ms,
		.capability = { .caps = &caps, .runners = runners, .runner_count = capability_offered(runners, ARRAY_LEN(runners)), .node_id = g->o.node_id,
				.is_generic_on = g->cfg->is_generic_jobs_on, .shows_details = g->cfg->hardware_details_enabled,
				.captured_wall_ms = now, .signed_wall_ms = now, .key = secret_slice(&g->token) },
	};
	enum errc rc = catalog_read(agents, &h.catalog, e);

	capability_read(g->o.probe, &caps, NULL);
	if (!rc)
		rc = link_load(g, &h.load, e);
	outcomes_get(g->o.outcomes, &h.outcomes);
	inventory_discovery(g->o.inventory, strcmp(g->cfg->discovery_mode, "ollama") == 0 ? AGENT_FROM_OLLAMA : AGENT_FROM_MCODA, &h.discovery);
	if (!h.discovery.is_there)         /* switched off on purpose: what the owner shares is the whole of it */
		h.discovery.is_ok = true;
	if (!rc)
		rc = heartbeat_write(&h, out, e);
	buf_clear(&g->asked);
	if (!rc && g->asking)
		rc = heartbeat_write_told(&h, false, &g->asked, e);
	agents_unref(agents);
	return rc;
}

/* Those who asked hear of it: rc, and the gateway's own words. */
static void answer_asks(struct gateway *g, const struct err *e, struct slice body)
{
	struct gateway_ask *a = TAKE(g->asking), *next;

	for (; a; a = next) {
		next = a->next;
		a->rc = e ? e->code : E_OK;
		if (e)
			a->err = *e;
		if (!e && g->asked.n) {
			a->rc = buf_add_slice(&a->text, buf_slice(&g->asked), &a->err);
			if (!a->rc)
				a->rc = buf_add_str(&a->text, ",\"heartbeat_response\":", &a->err);
			if (!a->rc)
				a->rc = buf_add_slice(&a->text, json_check(body, JSON_LIMITS_DEFAULT, NULL) ? SLICE("null") : slice_trim(body), &a->err);
			if (!a->rc)
				a->rc = buf_add_str(&a->text, "}", &a->err);
		}
		loop_post(a->loop, &a->answer);
	}
}

static void on_beat_timer(struct loop_timer *t);

static void set_beat_timer(struct gateway *g)
{
	g->beat_timer.fn = on_beat_timer;
	loop_timer_set(g->loop, &g->beat_timer, g->is_beat_wanted ? loop_now_ms(g->loop) : g->beat_due_ms);
}

static void beat_taken(struct gateway *g)
{
	bool was_ill = g->state != LINK_ONLINE;

	if (g->is_mismatched)
		link_set_state(g, LINK_DEGRADED, g->mismatch);
	else if (!g->is_poll_failing)
		link_set_state(g, LINK_ONLINE, "a heartbeat was taken");
	else if (!link_is_usable(g))
		link_set_state(g, LINK_DEGRADED, "a heartbeat was taken");
	if (!was_ill && !g->poll_backoff.failures)
		return;
	backoff_reset(&g->poll_backoff);
	g->poll_next_ms = 0;
	outbox_hurry(g);
}

static void beat_failed(struct gateway *g, const struct exchange_answer *a)
{
	link_note_error(g, a->err.what);
	if (a->kind == EXCHANGE_STATUS && link_judge(g, a->status, a->err.what))
		return;
	if (g->state != LINK_REFUSED && g->state != LINK_REMOVED)
		link_set_state(g, LINK_DEGRADED, a->err.what);
}

static void on_beat(void *ctx, const struct exchange_answer *a)
{
	struct gateway *g = ctx;
	bool is_ok = a->kind == EXCHANGE_OK;

	g->beat = NULL;
	mutex_lock(&g->mu);
	g->shown.beats += is_ok;
	g->shown.beat_failures += !is_ok;
	if (is_ok) {
		g->shown.beat_wall_ms = clock_wall_ms();
		if (!g->is_poll_failing)
			(void)!slice_copy(slice_str(g->bad_path), g->shown.error, sizeof(g->shown.error));
	}
	mutex_unlock(&g->mu);
	if (is_ok)
		beat_taken(g);
	else
		beat_failed(g, a);
	answer_asks(g, is_ok ? NULL : &a->err, a->body);
	g->is_first_beat_over = true;
	if (g->is_stopping)
		return;
	set_beat_timer(g);
	poll_consider(g);
}

/* The next is due an interval after this one was: no drift. What was missed (sleep, a slow gateway) is not made up for. */
static void plan_next(struct gateway *g)
{
	int64_t now = loop_now_ms(g->loop), late_ms = now - g->beat_due_ms;

	if (!g->is_beat_wanted && g->is_first_beat_over) {
		mutex_lock(&g->mu);
		if (late_ms > g->shown.late_max_ms)
			g->shown.late_max_ms = late_ms;
		mutex_unlock(&g->mu);
	}
	if (late_ms >= 0)
		g->beat_due_ms = late_ms >= g->interval_ms ? now + g->interval_ms : g->beat_due_ms + g->interval_ms;
	g->is_beat_wanted = false;
}

static void send_beat(struct gateway *g)
{
	AUTO_BUF body = BUF_MAX(BEAT_MAX);
	const struct link_post p = { .path = MEMBER_HEARTBEAT_PATH, .take_body = &body, .timeout_ms = g->cfg->request_timeout_ms, .done = on_beat, .ctx = g };
	struct err e = { 0 };
	enum errc rc;

	plan_next(g);
	g->asking = TAKE(g->asks);
	rc = write_beat(g, &body, &e);
	if (!rc)
		rc = link_send(g, &p, &g->beat, &e);
	if (rc) {
		const struct exchange_answer a = { .kind = EXCHANGE_UNSENT, .err = e };

		on_beat(g, &a);
	}
}

static void on_beat_timer(struct loop_timer *t)
{
	struct gateway *g = CONTAINER_OF(t, struct gateway, beat_timer);

	if (g->is_stopping || g->beat)
		return;                        /* the one in flight sets the timer when it is back */
	if (!g->token.n) {
		const struct err e = { .code = E_UNAUTHORIZED, .what = "No runtime token is stored and MSWARM_SELF_HOSTED_ENROLLMENT_TOKEN is missing" };

		g->is_beat_wanted = false;
		g->asking = TAKE(g->asks);
		answer_asks(g, &e, slice_of("", 0));
		join_begin(g);
		return;
	}
	send_beat(g);
}

void link_beat_soon(struct gateway *g)
{
	g->is_beat_wanted = true;
	if (!g->beat && !g->is_waiting && !g->is_stopping)
		set_beat_timer(g);
}

static void on_ask(struct loop_msg *m)
{
	struct gateway_ask *a = CONTAINER_OF(m, struct gateway_ask, msg);
	struct gateway *g = a->g;

	if (g->is_stopping) {
		a->rc = err_set(&a->err, E_DRAINING, "the node is stopping");
		loop_post(a->loop, &a->answer);
		return;
	}
	if (a->clients) {
		mem_free(g->clients);
		g->clients = TAKE(a->clients);
	}
	a->next = g->asks;
	g->asks = a;
	link_beat_soon(g);
}

void gateway_ask(struct gateway *g, struct gateway_ask *a)
{
	a->g = g;
	a->msg.fn = on_ask;
	loop_post(g->loop, &a->msg);
}

/* ---- the thread ---- */

/* The first word has the first round of the probes, unless that takes long. */
static void on_first_timer(struct loop_timer *t)
{
	struct gateway *g = CONTAINER_OF(t, struct gateway, beat_timer);
	struct capabilities caps;
	bool is_known;

	capability_read(g->o.probe, &caps, &is_known);
	g->beat_due_ms = loop_now_ms(g->loop);
	if (is_known || g->beat_due_ms >= g->first_limit_ms)
		set_beat_timer(g);
	else
		loop_timer_set(g->loop, t, g->beat_due_ms + FIRST_LOOK_MS);
}

static void begin_beats(struct gateway *g)
{
	g->first_limit_ms = loop_now_ms(g->loop) + FIRST_LIMIT_MS;
	g->beat_timer.fn = on_first_timer;
	on_first_timer(&g->beat_timer);
}

static void on_inventory(struct loop_msg *m)
{
	struct gateway *g = CONTAINER_OF(m, struct gateway, wait.msg);

	g->is_waiting = false;
	if (!g->is_stopping)
		begin_beats(g);
}

static void on_start(struct loop_msg *m)
{
	struct gateway *g = CONTAINER_OF(m, struct gateway, start_msg);

	thread_must_be(THREAD_GATEWAY);
	if (g->o.on_start)
		g->o.on_start(g->o.ctx, g->loop);
	poll_check_paths(g);
	outbox_recover(g);
	g->beat_due_ms = loop_now_ms(g->loop);
	g->wait.loop = g->loop;
	g->wait.msg.fn = on_inventory;
	/* An empty catalogue would take the node's models out of service: the first word waits for the first round. */
	g->is_waiting = inventory_wait_first(g->o.inventory, &g->wait);
	if (!g->is_waiting)
		begin_beats(g);
}

static void run(void *arg)
{
	struct gateway *g = arg;

	loop_run(g->loop);
	if (g->o.on_end)
		g->o.on_end(g->o.ctx);
}

static void on_kick(struct loop_msg *m)
{
	struct gateway *g = CONTAINER_OF(m, struct gateway, kick_msg);

	atomic_store(&g->is_kicked, false);
	link_beat_soon(g);                     /* drain is told at once */
	poll_consider(g);
}

void gateway_kick(struct gateway *g)
{
	if (!atomic_exchange(&g->is_kicked, true))
		loop_post(g->loop, &g->kick_msg);
}

/* ---- the end ---- */

static bool is_at_rest(const struct gateway *g)
{
	for (const struct relay *r = g->relays; r; r = r->next)
		if (r->is_storing || r->v || !r->is_over)
			return false;
	return !g->is_file_busy;
}

static bool is_posting(const struct gateway *g)
{
	for (const struct relay *r = g->relays; r; r = r->next)
		if (r->post)
			return true;
	return false;
}

static void on_stop_timer(struct loop_timer *t)
{
	struct gateway *g = CONTAINER_OF(t, struct gateway, stop_timer);
	int64_t now = loop_now_ms(g->loop);

	if (now >= g->stop_due_ms)
		for (struct relay *r = g->relays; r; r = r->next)
			if (!r->is_over)
				relay_abort(r, "the node was stopped while the job ran");
	if (is_at_rest(g) && (!is_posting(g) || now >= g->stop_due_ms + STOP_POSTS_MS)) {
		link_set_state(g, LINK_STOPPED, "the node stops");
		exchange_cancel(TAKE(g->beat));
		loop_stop(g->loop);
		return;
	}
	loop_timer_set(g->loop, t, now + STOP_LOOK_MS);
}

static void on_stop(struct loop_msg *m)
{
	struct gateway *g = CONTAINER_OF(m, struct gateway, stop_msg);
	const struct err e = { .code = E_DRAINING, .what = "the node is stopping" };
	bool is_first = !g->is_stopping;

	g->is_stopping = true;
	g->stop_due_ms = loop_now_ms(g->loop) + atomic_load(&g->stop_grace_ms);
	if (is_first) {
		poll_stop(g);
		join_stop(g);
		loop_timer_cancel(g->loop, &g->beat_timer);
		if (g->is_waiting && inventory_wait_cancel(g->o.inventory, &g->wait))
			g->is_waiting = false;
		if (!g->asking)
			g->asking = TAKE(g->asks);
		answer_asks(g, &e, slice_of("", 0));
	}
	g->stop_timer.fn = on_stop_timer;
	on_stop_timer(&g->stop_timer);
}

void gateway_stop(struct gateway *g, int64_t grace_ms)
{
	atomic_store(&g->stop_grace_ms, grace_ms);
	loop_post(g->loop, &g->stop_msg);
}

void gateway_join(struct gateway *g)
{
	thread_join(&g->thread);
	store_reader_close(TAKE(g->reader));
}

/* ---- making, freeing ---- */

/* Two members of config.json that are only passed on. */
static enum errc read_passed_on(struct gateway *g, struct err *e)
{
	AUTO_BUF text = BUF_MAX(CONFIG_MAX);
	struct slice version = { 0 }, clients = { 0 };
	enum errc rc = file_read(g->cfg->config_path, &text, NULL);

	if (rc || json_check(buf_slice(&text), JSON_LIMITS_DEFAULT, NULL))
		return E_OK;
	if (json_find_member(buf_slice(&text), "config_version", &version) && !(g->config_version = slice_dup(version)))
		return err_set(e, E_NO_MEMORY, "no memory");
	if (json_find_member(buf_slice(&text), "client_allowlist", &clients) && clients.n > 2 && clients.p[0] == '[' && !(g->clients = slice_dup(clients)))
		return err_set(e, E_NO_MEMORY, "no memory");
	return E_OK;
}

static enum errc copy_settings(struct gateway *g, struct err *e)
{
	const struct config *cfg = g->cfg;
	const struct { char **to; const char *from; } texts[] = {
		{ &g->base, cfg->gateway_base_url }, { &g->poll_path, cfg->jobs_poll_path }, { &g->start_path, cfg->jobs_start_path_template },
		{ &g->events_path, cfg->jobs_events_path_template }, { &g->result_path, cfg->jobs_result_path_template } };

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (!(*texts[i].to = mem_strdup(texts[i].from)))
			return err_set(e, E_NO_MEMORY, "no memory");
	g->interval_ms = 1000 * cfg->heartbeat_interval_seconds;
	enum errc rc = cfg->runtime_token[0] ? secret_set(&g->token, slice_str(cfg->runtime_token), e) : E_OK;

	return rc ? rc : read_passed_on(g, e);
}

enum errc gateway_new(const struct gateway_opts *o, struct gateway **ret, struct err *e)
{
	const struct httpc_opts client = { .user_agent = "mswarm/" MSWARM_VERSION, .max_idle_per_host = 8,
					   .ca_file = *o->cfg->gateway_ca_file ? o->cfg->gateway_ca_file : NULL };
	struct gateway *g = NEW(struct gateway);
	enum errc rc;

	if (!g)
		return err_set(e, E_NO_MEMORY, "no memory for the gateway");
	g->o = *o;
	g->cfg = o->cfg;
	mutex_init(&g->mu);
	buf_init(&g->asked, 1u << 20);
	g->start_msg.fn = on_start;
	g->stop_msg.fn = on_stop;
	g->kick_msg.fn = on_kick;
	g->shown.state_wall_ms = clock_wall_ms();
	poll_init(g);
	rc = copy_settings(g, e);
	if (!rc)
		rc = loop_new("gateway", &g->loop, e);
	if (!rc)
		rc = httpc_new(g->loop, &client, &g->client, e);
	if (!rc)
		rc = store_reader_open(o->store, &g->reader, e);
	if (rc) {
		gateway_free(g);
		return rc;
	}
	g->env = (struct invoke_env){ .call = { .loop = g->loop, .client = g->client, .admission = o->admission, .pool = o->pool, .cfg = o->cfg },
				      .inventory = o->inventory, .node_id = o->node_id };
	*ret = g;
	return E_OK;
}

enum errc gateway_start(struct gateway *g, struct err *e)
{
	loop_post(g->loop, &g->start_msg);
	return thread_start(&g->thread, THREAD_GATEWAY, 0, run, g, e);
}

void gateway_free(struct gateway *g)
{
	if (!g)
		return;
	while (g->relays)
		relay_free(g->relays);
	exchange_cancel(g->beat);
	exchange_cancel(g->poll);
	exchange_cancel(g->join);
	httpc_free(g->client);
	store_reader_close(g->reader);
	loop_free(g->loop);
	for (size_t i = 0; i < GATEWAY_ENDED_KEPT; i++)
		mem_free(g->ended[i]);
	if (g->file_text.p)
		mem_wipe(g->file_text.p, g->file_text.n);
	buf_done(&g->file_text);
	buf_done(&g->asked);
	secret_done(&g->token);
	mem_free(g->base);
	mem_free(g->poll_path);
	mem_free(g->start_path);
	mem_free(g->events_path);
	mem_free(g->result_path);
	mem_free(g->config_version);
	mem_free(g->clients);
	mutex_done(&g->mu);
	mem_free(g);
}

struct loop *gateway_loop(struct gateway *g)
{
	return g->loop;
}

/* ---- for status ---- */

static void write_time(struct jw *w, const char *key, int64_t wall_ms)
{
	char text[CLOCK_ISO_LEN];

	clock_iso(wall_ms, text);
	jw_str(w, key, wall_ms ? text : NULL);
}

void gateway_status(struct gateway *g, struct jw *w)
{
	MUTEX_SCOPE(&g->mu);
	jw_str(w, "state", state_name(g->shown.state));
	write_time(w, "since", g->shown.state_wall_ms);
	jw_str(w, "error", g->shown.error[0] ? g->shown.error : NULL);
	write_time(w, "last_heartbeat_at", g->shown.beat_wall_ms);
	write_time(w, "last_poll_at", g->shown.poll_wall_ms);
	write_time(w, "last_job_at", g->shown.job_wall_ms);
	jw_i64(w, "heartbeats", g->shown.beats);
	jw_i64(w, "heartbeats_failed", g->shown.beat_failures);
	jw_i64(w, "heartbeat_late_max_ms", g->shown.late_max_ms);
	jw_i64(w, "polls", g->shown.polls);
	jw_i64(w, "polls_failed", g->shown.poll_failures);
	jw_i64(w, "jobs", g->shown.jobs);
	jw_i64(w, "jobs_failed", g->shown.failed);
	jw_i64(w, "jobs_gone", g->shown.gone);
	jw_i64(w, "jobs_running", g->shown.running);
	jw_i64(w, "results_waiting", g->shown.ending);
}
