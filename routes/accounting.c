/*
 * Sums of requests by agent and key, one object a loop. Called by the routes on that loop; by main after the loop has ended.
 *
 * The timer ticks once a second whether there is anything to write or not: it is also the loop's heartbeat, by which
 * /healthz tells a stuck loop from one that sleeps.
 */
#include "routes/accounting.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/slice.h"

#define TICK_MS 1000
#define ROWS_MAX 1024u             /* agents times keys met between two writes that succeed; above it requests are not counted */

struct sums {
	struct usage_row *v;
	size_t n, cap;
};

struct accounting {
	struct loop *loop;                 /* borrowed, outlives us */
	struct store *store;               /* borrowed, outlives us */
	struct loop_timer tick;
	struct sums open;                  /* being added to */
	struct sums flying;                /* with the store; not touched while is_flying */
	struct store_job job, last;        /* last: of accounting_flush_wait, while job may still be on its way back */
	bool is_flying;
	int64_t dropped;
};

/* ---- sums ---- */

static struct usage_row *find_row(struct sums *s, const char *agent, const char *key_id)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].agent, agent) && !strcmp(s->v[i].key_id, key_id))
			return &s->v[i];
	return NULL;
}

/* The row of these two, made when it is not there; NULL when there is no room. */
static struct usage_row *get_row(struct sums *s, const char *agent, const char *key_id)
{
	struct usage_row *u = find_row(s, agent, key_id);

	if (u || s->n == ROWS_MAX)
		return u;
	if (s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 8;

		u = mem_realloc(s->v, cap * sizeof(*u));
		if (!u)
			return NULL;
		s->v = u;
		s->cap = cap;
	}
	u = &s->v[s->n++];
	*u = (struct usage_row){ 0 };
	memcpy(u->agent, agent, strlen(agent) + 1);        /* callers bring what fits */
	memcpy(u->key_id, key_id, strlen(key_id) + 1);
	return u;
}

static void add_row(struct usage_row *to, const struct usage_row *from)
{
	to->requests += from->requests;
	to->errors += from->errors;
	to->prompt_tokens += from->prompt_tokens;
	to->completion_tokens += from->completion_tokens;
	to->latency_sum_ms += from->latency_sum_ms;
	for (size_t i = 0; i < USAGE_BUCKETS; i++)
		to->latency[i] += from->latency[i];
}

/* ---- to the store ---- */

/* THREAD(store); may run again. */
static enum errc write_sums(struct store_tx *t, const struct accounting *a, struct err *e)
{
	for (size_t i = 0; i < a->flying.n; i++) {
		enum errc rc = usage_add_tx(t, &a->flying.v[i], e);

		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc write_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return write_sums(t, CONTAINER_OF(j, struct accounting, job), e);
}

static enum errc write_last_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return write_sums(t, CONTAINER_OF(j, struct accounting, last), e);
}

/* What was not written goes back to what is open. A commit whose outcome is unknown is not repeated: better a few
 * requests uncounted than counted twice. */
static void land(struct accounting *a, enum errc rc)
{
	bool is_lost = rc == E_OUTCOME_UNKNOWN;

	a->is_flying = false;
	for (size_t i = 0; rc && i < a->flying.n; i++) {
		struct usage_row *from = &a->flying.v[i], *to = is_lost ? NULL : get_row(&a->open, from->agent, from->key_id);

		if (to)
			add_row(to, from);
		else
			a->dropped += from->requests;
	}
	a->flying.n = 0;
}

static void take_off(struct accounting *a)
{
	struct sums empty = a->flying;

	must(!a->is_flying && empty.n == 0);
	a->flying = a->open;
	a->open = empty;
}

static void on_written(struct loop_msg *m)
{
	struct accounting *a = CONTAINER_OF(m, struct accounting, job.done);

	land(a, a->job.rc);
}

static void report_dropped(struct accounting *a)
{
	if (a->dropped)
		log_event(LOG_WARN, "usage.dropped", "loop=%s requests=%lld", loop_name(a->loop), (long long)a->dropped);
	a->dropped = 0;
}

static void on_tick(struct loop_timer *t)
{
	struct accounting *a = CONTAINER_OF(t, struct accounting, tick);
	struct err e;
	enum errc rc;

	loop_timer_set(a->loop, t, loop_now_ms(a->loop) + TICK_MS);
	report_dropped(a);
	if (a->is_flying || !a->open.n)
		return;
	take_off(a);
	a->is_flying = true;
	rc = store_submit(a->store, &a->job, &e);
	if (rc)
		land(a, rc);               /* a full queue or disk: kept, and tried again at the next tick */
}

/* ---- the manual's functions ---- */

enum errc accounting_new(struct loop *l, struct store *s, struct accounting **ret, struct err *e)
{
	struct accounting *a = NEW(struct accounting);

	if (!a)
		return err_set(e, E_NO_MEMORY, "no memory for accounting");
	a->loop = l;
	a->store = s;
	a->tick.fn = on_tick;
	a->job = (struct store_job){ .name = "usage.add", .body = write_body, .loop = l, .done = { .fn = on_written } };
	a->last = (struct store_job){ .name = "usage.add", .body = write_last_body };
	loop_timer_set(l, &a->tick, clock_mono_ms() + TICK_MS);
	*ret = a;
	return E_OK;
}

/* Cut at the column's size, on a character's edge. */
static void cut_copy(const char *from, char *to, size_t cap)
{
	size_t n = strlen(from);

	if (n >= cap)
		for (n = cap - 1; n && ((unsigned char)from[n] & 0xc0) == 0x80;)
			n--;
	memcpy(to, from, n);
	to[n] = '\0';
}

void accounting_add(struct accounting *a, const struct accounting_entry *n)
{
	struct usage_row one = { .requests = 1, .errors = n->is_error, .prompt_tokens = n->prompt_tokens,
				 .completion_tokens = n->completion_tokens, .latency_sum_ms = n->total_ms };
	struct usage_row *u;

	one.latency[usage_bucket(n->total_ms)] = 1;
	cut_copy(n->agent, one.agent, sizeof(one.agent));
	cut_copy(n->key_id, one.key_id, sizeof(one.key_id));
	u = get_row(&a->open, one.agent, one.key_id);
	if (u)
		add_row(u, &one);
	else
		a->dropped++;
}

static enum errc do_nothing(struct store_tx *t, struct store_job *j, struct err *e)
{
	(void)t;
	(void)j;
	(void)e;
	return E_OK;
}

void accounting_flush_wait(struct accounting *a)
{
	struct store_job barrier = { .name = "usage.barrier", .body = do_nothing };
	struct err e = { 0 };

	/* The writer works in order: when the barrier is through, so is what was sent before. */
	if (a->is_flying)
		land(a, store_run(a->store, &barrier, &e) ? E_OUTCOME_UNKNOWN : a->job.rc);
	if (a->open.n) {
		take_off(a);
		land(a, store_run(a->store, &a->last, &e));
		for (size_t i = 0; i < a->open.n; i++)
			a->dropped += a->open.v[i].requests;
		a->open.n = 0;
	}
	report_dropped(a);
}

void accounting_free(struct accounting *a)
{
	if (!a)
		return;
	loop_timer_cancel(a->loop, &a->tick);
	mem_free(a->open.v);
	mem_free(a->flying.v);
	mem_free(a);
}
