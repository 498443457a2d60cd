/*
 * The inventory: asks its parts in rounds, keeps what each said last, publishes a new list when something changed, and
 * tells those who waited for the first round. Runs on the supervisor's loop; readers and waiters are on any thread.
 */
#include "llm/inventory.h"

#include "base/clock.h"
#include "base/jw.h"
#include "base/log.h"
#include "base/mem.h"
#include "llm/source.h"

#include <stdio.h>

#define PARTS_MAX 80                       /* config has at most 64 entries, discovery a few ports */
#define PORTS_MAX 12
#define FIRST_ROUND_MS 2500                /* after this, requests no longer wait for slow sources */
#define ROUND_GAP_MS 1000                  /* at most one round a second on request */

struct inventory {
	const struct config *cfg;
	struct loop *loop;
	struct source_part *parts[PARTS_MAX];
	size_t part_count;
	struct upstream *demo;             /* one for the life of the inventory: its breaker and counts live on */
	struct loop_timer round, first;
	struct loop_msg asked;             /* the letter of inventory_refresh */
	atomic_bool is_asked;              /* it is on its way */
	bool is_running;                   /* THREAD(supervisor), as the next three */
	bool is_first_over;
	int64_t round_mono_ms;             /* when the last round began; 0: never */
	int64_t born_s;
	struct mutex mu;
	struct agents *now;                /* GUARDED_BY(mu), as all below; never NULL */
	bool is_first_done;
	int64_t took_ms;                   /* of the last round, up to its latest answer */
	struct inventory_waiter *waiters;
};

/* ---- publishing ---- */

static bool has_listed(const struct agent_vec *v)
{
	for (size_t i = 0; i < v->n; i++)
		if (v->v[i].is_exposed && !v->v[i].is_embedding && v->v[i].up)
			return true;
	return false;
}

static enum errc gather(struct inventory *inv, struct agent_vec *v, struct err *e)
{
	struct agent demo;
	enum errc rc = E_OK;

	for (size_t i = 0; i < inv->part_count && rc == E_OK; i++)
		rc = agent_vec_copy(v, inv->parts[i]->said.v, inv->parts[i]->said.n, e);
	if (rc || (!inv->cfg->demo && (!inv->is_first_over || has_listed(v))))
		return rc;
	rc = source_demo_agent(inv->cfg, inv->demo, inv->born_s, &demo, e);
	if (rc == E_OK && !demo.is_exposed)
		agent_done(&demo); /* the owner's policy hides it: then it stands in for nobody */
	else if (rc == E_OK)
		rc = agent_vec_add(v, &demo, e);
	return rc;
}

static enum errc make_list(struct inventory *inv, struct agents **ret, struct err *e)
{
	AUTO_AGENTS v = { 0 };
	enum errc rc = gather(inv, &v, e);

	return rc ? rc : agent_vec_seal(&v, inv->now->revision + 1, ret, e);
}

/* A list like the one that is out is dropped, so that a new revision means a change. */
static void publish(struct inventory *inv)
{
	struct agents *fresh = NULL, *old;
	struct err e = { 0 };
	char text[400];

	/* now is changed by this thread only: reading it here needs no lock */
	if (make_list(inv, &fresh, &e)) {
		log_event(LOG_WARN, "inventory.publish_failed", "%s", log_err(&e, text, sizeof(text)));
		return;
	}
	if (agent_vec_is_same(fresh->v, fresh->n, inv->now->v, inv->now->n)) {
		agents_unref(fresh);
		return;
	}
	log_event(LOG_DEBUG, "inventory.published", "revision=%llu agents=%zu", (unsigned long long)fresh->revision, fresh->n);
	mutex_lock(&inv->mu);
	old = inv->now;
	inv->now = fresh;
	mutex_unlock(&inv->mu);
	agents_unref(old);
}

/* ---- the first round ---- */

static void wake_waiters(struct inventory *inv)
{
	struct inventory_waiter *w, *next;

	mutex_lock(&inv->mu);
	inv->is_first_done = true;
	w = inv->waiters;
	inv->waiters = NULL;
	mutex_unlock(&inv->mu);
	for (; w; w = next) {
		next = w->next; /* the letter's receiver may free it at once */
		loop_post(w->loop, &w->msg);
	}
}

static void end_first_round(struct inventory *inv)
{
	if (inv->is_first_over)
		return;
	inv->is_first_over = true;
	loop_timer_cancel(inv->loop, &inv->first);
	publish(inv);
	wake_waiters(inv);
}

static void on_first_limit(struct loop_timer *t)
{
	end_first_round(CONTAINER_OF(t, struct inventory, first));
}

static void after_report(struct source_part *p)
{
	struct inventory *inv = p->inv;

	p->is_asking = false;
	p->has_answered = true;
	mutex_lock(&inv->mu);
	inv->took_ms = clock_mono_ms() - inv->round_mono_ms;
	mutex_unlock(&inv->mu);
	publish(inv);
	for (size_t i = 0; i < inv->part_count; i++)
		if (!inv->parts[i]->has_answered)
			return;
	end_first_round(inv);
}

/* ---- reports of the parts ---- */

static void note(struct source_part *p, enum source_state state, const char *text)
{
	MUTEX_SCOPE(&p->inv->mu);
	p->state = state;
	p->count = p->said.n;
	snprintf(p->note, sizeof(p->note), "%s", text);
}

/* The text of a failure for people: it may quote what a command or a server wrote. */
static void note_failure(struct source_part *p, const struct err *e)
{
	AUTO_BUF text = BUF_MAX(4 * sizeof(e->what));
	const char *what = NULL;

	if (buf_add_str(&text, e->what, NULL) == E_OK) {
		log_redact(&text);
		what = buf_cstr(&text);
	}
	note(p, p->said.n ? SOURCE_STALE : SOURCE_EMPTY, what ? what : "failed");
}

/* One line when trouble begins, one when it ends. */
static void log_failure(const struct source_part *p, const struct err *e)
{
	char line[400], quoted[96];

	if (p->misses == 0)
		log_event(p->is_quiet ? LOG_DEBUG : LOG_WARN, "inventory.source_failed", "source=%s %s",
			log_quote(slice_str(p->name), quoted, sizeof(quoted)), log_err(e, line, sizeof(line)));
}

static void log_recovery(const struct source_part *p, size_t n)
{
	char quoted[96];

	if (p->misses > 0)
		log_event(p->is_quiet ? LOG_DEBUG : LOG_INFO, "inventory.source_recovered", "source=%s agents=%zu",
			log_quote(slice_str(p->name), quoted, sizeof(quoted)), n);
}

void source_said(struct source_part *p, struct agent_vec *take, const struct err *trouble)
{
	thread_must_be(THREAD_SUPER);
	if (trouble)
		log_failure(p, trouble);
	else
		log_recovery(p, take->n);
	agent_vec_done(&p->said);
	p->said = *take;
	*take = (struct agent_vec){ 0 };
	p->misses = trouble != NULL;
	if (trouble)
		note_failure(p, trouble);
	else
		note(p, SOURCE_OK, "");
	after_report(p);
}

void source_said_version(struct source_part *p, struct agent_vec *take, const char *version)
{
	mutex_lock(&p->inv->mu);
	(void)!slice_copy(slice_str(version), p->version, sizeof(p->version));
	mutex_unlock(&p->inv->mu);
	source_said(p, take, NULL);
}

static void set_unreachable(struct agent_vec *v)
{
	for (size_t i = 0; i < v->n; i++)
		if (v->v[i].health != HEALTH_BLOCKED)
			v->v[i].health = HEALTH_UNREACHABLE;
}

void source_failed(struct source_part *p, const struct err *e, bool is_down)
{
	thread_must_be(THREAD_SUPER);
	log_failure(p, e);
	if (p->misses <= SOURCE_MISSES_MAX)
		p->misses++;
	if (p->misses > SOURCE_MISSES_MAX)
		agent_vec_done(&p->said);
	else if (is_down)
		set_unreachable(&p->said);
	note_failure(p, e);
	after_report(p);
}

void source_unchanged(struct source_part *p)
{
	thread_must_be(THREAD_SUPER);
	after_report(p);
}

/* ---- rounds ---- */

static void start_round(struct inventory *inv)
{
	inv->round_mono_ms = clock_mono_ms();
	loop_timer_set(inv->loop, &inv->round, inv->round_mono_ms + inv->cfg->inventory_refresh_ms);
	for (size_t i = 0; i < inv->part_count; i++) {
		struct source_part *p = inv->parts[i];
		struct err e = { 0 };

		if (p->is_asking) /* slower than a round: it is left to finish */
			continue;
		p->is_asking = true;
		if (p->ops->ask(p, &e))
			source_failed(p, &e, false);
	}
	if (inv->part_count == 0)
		end_first_round(inv);
}

static void on_round(struct loop_timer *t)
{
	start_round(CONTAINER_OF(t, struct inventory, round));
}

static void on_asked(struct loop_msg *m)
{
	struct inventory *inv = CONTAINER_OF(m, struct inventory, asked);
	int64_t soonest = inv->round_mono_ms + ROUND_GAP_MS;

	atomic_store(&inv->is_asked, false);
	if (inv->is_running && (!inv->round.heap_pos || inv->round.at_mono_ms > soonest))
		loop_timer_set(inv->loop, &inv->round, soonest);
}

void inventory_start(struct inventory *inv)
{
	thread_must_be(THREAD_SUPER);
	int64_t now = clock_mono_ms();

	inv->is_running = true;
	loop_timer_set(inv->loop, &inv->first, now + FIRST_ROUND_MS);
	loop_timer_set(inv->loop, &inv->round, now);
}

void inventory_refresh(struct inventory *inv)
{
	if (!atomic_exchange(&inv->is_asked, true))
		loop_post(inv->loop, &inv->asked);
}

void inventory_stop(struct inventory *inv)
{
	thread_must_be(THREAD_SUPER);
	inv->is_running = false;
	loop_timer_cancel(inv->loop, &inv->round);
	loop_timer_cancel(inv->loop, &inv->first);
	for (size_t i = 0; i < inv->part_count; i++) {
		inv->parts[i]->ops->cancel(inv->parts[i]);
		inv->parts[i]->is_asking = false;
	}
	/* nobody will be told later: who still waits goes on with what there is */
	wake_waiters(inv);
}

/* ---- making ---- */

static enum errc add_part(struct inventory *inv, struct source_part *p, struct err *e)
{
	if (inv->part_count == PARTS_MAX) {
		p->ops->free(p);
		return err_set(e, E_TOO_LARGE, "more than %d sources", PARTS_MAX);
	}
	inv->parts[inv->part_count++] = p;
	return E_OK;
}

static void log_skipped(const char *source, const char *name, const struct err *e)
{
	char text[400], quoted[128];

	log_event(LOG_WARN, "inventory.entry_skipped", "source=%s name=%s %s", source,
		log_quote(slice_str(name), quoted, sizeof(quoted)), log_err(e, text, sizeof(text)));
}

/* A malformed entry is named in the log and left out; only want of memory fails the whole. */
static enum errc add_config_parts(struct inventory *inv, const struct source_base *b, struct err *e)
{
	for (size_t i = 0; i < inv->cfg->upstream_count; i++) {
		struct source_part *p = NULL;
		struct err why = { 0 };
		enum errc rc = source_config_new(b, i, &p, &why);

		if (rc == E_OK)
			rc = add_part(inv, p, &why);
		if (rc == E_NO_MEMORY)
			return err_set(e, rc, "no memory for the inventory");
		if (rc)
			log_skipped("config", inv->cfg->upstreams[i].name, &why);
	}
	return E_OK;
}

static enum errc add_discovery_parts(struct inventory *inv, const struct source_base *b, struct err *e)
{
	int64_t ports[PORTS_MAX];
	size_t n = source_discovery_ports(inv->cfg, ports, ARRAY_LEN(ports));
	enum errc rc = E_OK;

	for (size_t i = 0; i < n && rc == E_OK; i++) {
		struct source_part *p = NULL;

		rc = source_discovery_new(b, ports[i], &p, e);
		if (rc == E_OK)
			rc = add_part(inv, p, e);
	}
	return rc;
}

static enum errc add_simple_part(struct inventory *inv, const struct source_base *b, const char *name,
				 enum errc (*make)(const struct source_base *b, struct source_part **ret, struct err *e), struct err *e)
{
	struct source_part *p = NULL;
	struct err why = { 0 };
	enum errc rc = make(b, &p, &why);

	if (rc == E_OK)
		return add_part(inv, p, e);
	if (rc == E_NO_MEMORY)
		return err_set(e, rc, "no memory for the inventory");
	log_skipped(name, name, &why);
	return E_OK;
}

static enum errc add_parts(struct inventory *inv, struct httpc *client, struct err *e)
{
	const struct source_base b = { .inv = inv, .cfg = inv->cfg, .loop = inv->loop, .client = client };
	enum errc rc = E_OK;

	if (inv->cfg->mcoda_source)
		rc = add_simple_part(inv, &b, "mcoda", source_mcoda_new, e);
	if (rc == E_OK && inv->cfg->ollama_source)
		rc = add_simple_part(inv, &b, "ollama", source_ollama_new, e);
	if (rc == E_OK && inv->cfg->upstreams_source)
		rc = add_config_parts(inv, &b, e);
	if (rc == E_OK && inv->cfg->discovery_source)
		rc = add_discovery_parts(inv, &b, e);
	return rc;
}

enum errc inventory_new(const struct inventory_opts *o, struct inventory **ret, struct err *e)
{
	struct upstream_spec demo = { .name = "demo", .base_url = "", .kind = UPSTREAM_DEMO };
	struct inventory *inv = NEW(struct inventory);
	struct agent_vec none = { 0 };

	if (!inv)
		return err_set(e, E_NO_MEMORY, "no memory for the inventory");
	mutex_init(&inv->mu);
	inv->cfg = o->cfg;
	inv->loop = o->loop;
	inv->born_s = clock_wall_ms() / 1000;
	inv->round.fn = on_round;
	inv->first.fn = on_first_limit;
	inv->asked.fn = on_asked;
	source_limits(o->cfg, &demo);
	enum errc rc = agent_vec_seal(&none, 0, &inv->now, e);

	if (rc == E_OK)
		rc = upstream_new(&demo, &inv->demo, e);
	if (rc == E_OK)
		rc = add_parts(inv, o->client, e);
	if (rc) {
		inventory_free(inv);
		return rc;
	}
	*ret = inv;
	return E_OK;
}

void inventory_free(struct inventory *inv)
{
	if (!inv)
		return;
	loop_timer_cancel(inv->loop, &inv->round);
	loop_timer_cancel(inv->loop, &inv->first);
	for (size_t i = 0; i < inv->part_count; i++) {
		inv->parts[i]->ops->cancel(inv->parts[i]);
		inv->parts[i]->ops->free(inv->parts[i]);
	}
	upstream_unref(inv->demo);
	agents_unref(inv->now);
	mutex_done(&inv->mu);
	mem_free(inv);
}

/* ---- readers ---- */

struct agents *inventory_get(struct inventory *inv)
{
	MUTEX_SCOPE(&inv->mu);
	agents_ref(inv->now);
	return inv->now;
}

bool inventory_wait_first(struct inventory *inv, struct inventory_waiter *w)
{
	MUTEX_SCOPE(&inv->mu);
	if (inv->is_first_done)
		return false;
	w->next = inv->waiters;
	inv->waiters = w;
	return true;
}

bool inventory_wait_cancel(struct inventory *inv, struct inventory_waiter *w)
{
	MUTEX_SCOPE(&inv->mu);
	for (struct inventory_waiter **at = &inv->waiters; *at; at = &(*at)->next) {
		if (*at != w)
			continue;
		*at = w->next;
		return true;
	}
	return false;
}

bool inventory_is_complete(const struct inventory *inv)
{
	for (size_t i = 0; i < inv->part_count; i++)
		if (!inv->parts[i]->has_answered)
			return false;
	return true;
}

void inventory_discovery(struct inventory *inv, enum agent_source source, struct inventory_discovery *ret)
{
	MUTEX_SCOPE(&inv->mu);
	*ret = (struct inventory_discovery){ .took_ms = inv->took_ms };
	for (size_t i = 0; i < inv->part_count; i++) {
		const struct source_part *p = inv->parts[i];

		if (p->source != source)
			continue;
		ret->is_there = true;
		ret->is_ok = p->state == SOURCE_OK;
		(void)!slice_copy(slice_str(p->version), ret->version, sizeof(ret->version));
	}
}

static const char *state_name(enum source_state s)
{
	static const char *const names[] = { [SOURCE_NEW] = "asking", [SOURCE_OK] = "ok", [SOURCE_STALE] = "stale",
		[SOURCE_EMPTY] = "absent" };

	return names[s];
}

void inventory_json(struct inventory *inv, struct jw *w, const char *key)
{
	MUTEX_SCOPE(&inv->mu);
	jw_arr(w, key);
	for (size_t i = 0; i < inv->part_count; i++) {
		const struct source_part *p = inv->parts[i];

		jw_obj(w, NULL);
		jw_str(w, "source", agent_source_name(p->source));
		jw_str(w, "name", p->name);
		jw_str(w, "state", state_name(p->state));
		jw_i64(w, "agents", (int64_t)p->count);
		jw_str(w, "error", p->note[0] ? p->note : NULL);
		jw_end(w);
	}
	jw_end(w);
}
