/*
 * Slots and the queue: see admission.h. Asked by calls on their loops.
 *
 * Each class has a ring of clients that wait, each client its tickets by age. When a slot comes free, the ring is gone
 * round from its head: the first client with a ticket that can run gets it and moves to the end. A ticket whose
 * upstreams are all full does not hold up the ones behind it.
 *
 * One mutex. While it is held, breakers are looked at (order: admission, then breaker); letters are posted after it was
 * given back. A ticket with a letter on its way belongs to the letter: leaving gives the slot back at once, and the
 * letter, which arrives on the same loop, frees it.
 */
#include "llm/admission.h"

#include "base/clock.h"
#include "base/mem.h"

#define RETRY_MAX_S 60
#define RESERVE_SHARE 32                   /* of the queue, one in so many places is kept for clients that have none waiting */

enum ticket_state { TICKET_QUEUED, TICKET_LETTER, TICKET_RUNNING, TICKET_LEFT };

struct client {
	struct client *next, *prev;        /* in its class's list of clients */
	struct client *ring_next, *ring_prev;
	bool is_in_ring;                   /* has tickets waiting */
	char *name;
	int64_t running, waiting;
	struct ticket *first, *last;       /* waiting, by age */
};

struct ticket {
	struct ticket *next, *prev;        /* among its client's; next also chains letters to post */
	struct client *client;
	enum admission_class class;
	enum ticket_state state;
	const struct agent *const *candidates;
	size_t candidate_count;
	unsigned chosen;
	int64_t since_mono_ms;             /* running since */
	struct loop *loop;
	void (*granted)(void *ctx, const struct agent *chosen);
	void *ctx;
	struct loop_msg msg;
};

struct lane {                              /* one class */
	int64_t bound, running, queued;
	struct client *clients;
	struct client *ring_first, *ring_last;
};

struct admission {
	struct mutex mu;
	int64_t max_queued;
	struct lane lanes[ADMIT__COUNT];   /* GUARDED_BY(mu), as all below */
	int64_t queued, refused, served;
	bool is_closed;
	int64_t service_us;                /* moving average of how long a slot is held; 0: none yet */
};

/* ---- clients ---- */

static struct client *find_client(struct lane *l, const char *name)
{
	for (struct client *c = l->clients; c; c = c->next)
		if (strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

static void client_free(struct client *c)
{
	if (c)
		mem_free(c->name);
	mem_free(c);
}

static struct client *client_new(const char *name)
{
	struct client *c = NEW(struct client);

	if (c)
		c->name = mem_strdup(name);
	if (c && c->name)
		return c;
	client_free(c);
	return NULL;
}

static void client_link(struct lane *l, struct client *c)
{
	c->next = l->clients;
	c->prev = NULL;
	if (l->clients)
		l->clients->prev = c;
	l->clients = c;
}

static void client_drop_if_idle(struct lane *l, struct client *c)
{
	if (c->running > 0 || c->waiting > 0)
		return;
	if (c->prev)
		c->prev->next = c->next;
	else
		l->clients = c->next;
	if (c->next)
		c->next->prev = c->prev;
	client_free(c);
}

static void ring_add(struct lane *l, struct client *c)
{
	c->ring_prev = l->ring_last;
	c->ring_next = NULL;
	if (l->ring_last)
		l->ring_last->ring_next = c;
	else
		l->ring_first = c;
	l->ring_last = c;
	c->is_in_ring = true;
}

static void ring_del(struct lane *l, struct client *c)
{
	if (c->ring_prev)
		c->ring_prev->ring_next = c->ring_next;
	else
		l->ring_first = c->ring_next;
	if (c->ring_next)
		c->ring_next->ring_prev = c->ring_prev;
	else
		l->ring_last = c->ring_prev;
	c->is_in_ring = false;
}

/* ---- queue ---- */

static void enqueue(struct admission *a, struct ticket *t)
{
	struct lane *l = &a->lanes[t->class];
	struct client *c = t->client;

	t->state = TICKET_QUEUED;
	t->prev = c->last;
	t->next = NULL;
	if (c->last)
		c->last->next = t;
	else
		c->first = t;
	c->last = t;
	c->waiting++;
	l->queued++;
	a->queued++;
	if (!c->is_in_ring)
		ring_add(l, c);
}

static void dequeue(struct admission *a, struct ticket *t)
{
	struct lane *l = &a->lanes[t->class];
	struct client *c = t->client;

	if (t->prev)
		t->prev->next = t->next;
	else
		c->first = t->next;
	if (t->next)
		t->next->prev = t->prev;
	else
		c->last = t->prev;
	t->next = t->prev = NULL;
	c->waiting--;
	l->queued--;
	a->queued--;
	if (c->waiting == 0)
		ring_del(l, c);
}

/* ---- choosing ---- */

static bool has_room(const struct upstream *u)
{
	return atomic_load_explicit(&u->running, memory_order_relaxed) < u->max_concurrent;
}

/* True when a is the less loaded, by share of its bound. */
static bool is_freer(const struct upstream *a, const struct upstream *b)
{
	return atomic_load(&a->running) * b->max_concurrent < atomic_load(&b->running) * a->max_concurrent;
}

/* The least loaded candidate with room, out of those in the mask; -1 when there is none. Among equals the first. */
static int pick(const struct ticket *t, uint32_t mask)
{
	int best = -1;

	for (size_t i = 0; i < t->candidate_count; i++) {
		const struct upstream *u = t->candidates[i]->up;

		if (!(mask >> i & 1) || !has_room(u))
			continue;
		if (best < 0 || is_freer(u, t->candidates[best]->up))
			best = (int)i;
	}
	return best;
}

/* Candidates whose breaker lets a request through; *ret_wait_ms (may be NULL): until the first of the others does. */
static uint32_t sound_mask(const struct ticket *t, int64_t now_mono_ms, int64_t *ret_wait_ms)
{
	uint32_t mask = 0;
	int64_t least = INT64_MAX;

	for (size_t i = 0; i < t->candidate_count; i++) {
		int64_t wait_ms;

		if (breaker_would(&t->candidates[i]->up->breaker, now_mono_ms, &wait_ms))
			mask |= UINT32_C(1) << i;
		else if (wait_ms < least)
			least = wait_ms;
	}
	if (ret_wait_ms)
		*ret_wait_ms = least;
	return mask;
}

/* For one that waits already. When by now every breaker is open it is let through all the same: nothing would wake it
 * later, and its call finds out at once (breaker_try). */
static int pick_waiting(const struct ticket *t, int64_t now_mono_ms)
{
	if (pick(t, UINT32_MAX) < 0)
		return -1;
	uint32_t mask = sound_mask(t, now_mono_ms, NULL);

	return pick(t, mask ? mask : UINT32_MAX);
}

static void occupy(struct admission *a, struct ticket *t, int chosen, int64_t now_mono_ms)
{
	t->chosen = (unsigned)chosen;
	t->since_mono_ms = now_mono_ms;
	a->lanes[t->class].running++;
	t->client->running++;
	atomic_fetch_add(&t->candidates[chosen]->up->running, 1);
}

static void vacate(struct admission *a, struct ticket *t)
{
	a->lanes[t->class].running--;
	t->client->running--;
	atomic_fetch_sub(&t->candidates[t->chosen]->up->running, 1);
}

/* Grant to the first client round the ring that has a ticket which can run; that client goes to the end. */
static struct ticket *grant_one(struct admission *a, struct lane *l, int64_t now_mono_ms)
{
	for (struct client *c = l->ring_first; c; c = c->ring_next) {
		for (struct ticket *t = c->first; t; t = t->next) {
			int chosen = pick_waiting(t, now_mono_ms);

			if (chosen < 0)
				continue;
			dequeue(a, t);
			if (c->is_in_ring) {
				ring_del(l, c);
				ring_add(l, c);
			}
			occupy(a, t, chosen, now_mono_ms);
			t->state = TICKET_LETTER;
			return t;
		}
	}
	return NULL;
}

/* Fill what is free. Gives the granted tickets as a chain, for post_grants once the mutex is given back. */
static struct ticket *dispatch(struct admission *a)
{
	struct ticket *chain = NULL, **end = &chain;
	int64_t now_mono_ms = a->queued ? clock_mono_ms() : 0;

	mutex_must_hold(&a->mu);
	for (unsigned k = 0; k < ADMIT__COUNT && !a->is_closed; k++) {
		struct lane *l = &a->lanes[k];
		struct ticket *t;

		while (l->running < l->bound && l->queued > 0 && (t = grant_one(a, l, now_mono_ms)) != NULL) {
			*end = t;
			end = &t->next;
		}
	}
	return chain;
}

static void post_grants(struct ticket *t)
{
	while (t) {
		struct ticket *next = t->next; /* once posted, its loop may free it */

		loop_post(t->loop, &t->msg);
		t = next;
	}
}

static void on_letter(struct loop_msg *m)
{
	struct ticket *t = CONTAINER_OF(m, struct ticket, msg);

	/* the state of a granted ticket is touched on its loop only: this one */
	if (t->state == TICKET_LEFT) {
		mem_free(t);
		return;
	}
	t->state = TICKET_RUNNING;
	t->granted(t->ctx, t->candidates[t->chosen]);
}

/* ---- asking ---- */

static int64_t clamp_retry_s(int64_t us)
{
	int64_t s = us / 1000000 + (us % 1000000 != 0);

	return s < 1 ? 1 : s > RETRY_MAX_S ? RETRY_MAX_S : s;
}

/* How long until the class has worked off what stands before a newcomer. */
static int64_t retry_of(const struct admission *a, const struct lane *l)
{
	return clamp_retry_s(a->service_us * (l->queued + 1) / l->bound);
}

/* E_OK when one more of this client may wait. */
static enum errc check_queue(const struct admission *a, const struct client *c, enum errc code, struct err *e)
{
	int64_t reserve = a->max_queued / RESERVE_SHARE;
	int64_t half = a->max_queued / 2 > 0 ? a->max_queued / 2 : 1;

	if (a->queued >= a->max_queued || (c->waiting > 0 && a->queued >= a->max_queued - reserve))
		return err_set(e, code, "all slots are taken and %lld requests wait", (long long)a->queued);
	if (c->waiting >= half && a->queued > c->waiting)
		return err_set(e, code, "this client has %lld requests waiting while others wait too", (long long)c->waiting);
	return E_OK;
}

/* Decide on a new ticket under the mutex: run (*ret_chosen >= 0), queue, or refuse. */
static enum errc decide(struct admission *a, struct ticket *t, int64_t client_max, int *ret_chosen,
		int64_t *ret_retry_s, struct err *e)
{
	struct lane *l = &a->lanes[t->class];
	enum errc full = t->class == ADMIT_LOCAL ? E_RATE_LIMITED : E_AT_CAPACITY, rc;
	int64_t now_mono_ms = clock_mono_ms(), wait_ms;
	uint32_t mask = sound_mask(t, now_mono_ms, &wait_ms);
	struct client *c = t->client;
	int chosen = pick(t, mask);

	if (client_max > 0 && c->running + c->waiting >= client_max) {
		*ret_retry_s = clamp_retry_s(a->service_us);
		return err_set(e, full, "this key may have %lld requests at a time", (long long)client_max);
	}
	if (!mask) {
		*ret_retry_s = clamp_retry_s(wait_ms * 1000);
		return err_set(e, E_UNHEALTHY, "%s failed several times in a row and is left alone for now", t->candidates[0]->up->name);
	}
	if (l->running < l->bound && chosen >= 0) {
		occupy(a, t, chosen, now_mono_ms);
		t->state = TICKET_RUNNING;
		*ret_chosen = chosen;
		return E_OK;
	}
	rc = check_queue(a, c, full, e);
	if (rc) {
		*ret_retry_s = retry_of(a, l);
		return rc;
	}
	enqueue(a, t);
	*ret_chosen = -1;
	return E_OK;
}

static struct ticket *ticket_new(const struct admission_ask *q)
{
	struct ticket *t = NEW(struct ticket);

	if (!t)
		return NULL;
	t->class = q->class;
	t->candidates = q->candidates;
	t->candidate_count = q->candidate_count;
	t->loop = q->loop;
	t->granted = q->granted;
	t->ctx = q->ctx;
	t->msg.fn = on_letter;
	return t;
}

enum errc admission_ask(struct admission *a, const struct admission_ask *q, struct ticket **ret,
		const struct agent **ret_chosen, int64_t *ret_retry_s, struct err *e)
{
	struct ticket *t = ticket_new(q);
	struct client *spare = client_new(q->client); /* made before the mutex is taken, in case the client is new */
	int64_t retry_s = 0;
	int chosen = -1;
	enum errc rc;

	must(q->candidate_count > 0 && q->candidate_count <= AGENT_CANDIDATES_MAX);
	if (!t || !spare) {
		mem_free(t);
		client_free(spare);
		return err_set(e, E_NO_MEMORY, "no memory for a request");
	}
	mutex_lock(&a->mu);
	struct lane *l = &a->lanes[q->class];

	t->client = find_client(l, q->client);
	if (!t->client) {
		t->client = TAKE(spare);
		client_link(l, t->client);
	}
	rc = decide(a, t, q->client_max, &chosen, &retry_s, e);
	if (rc) {
		a->refused++;
		client_drop_if_idle(l, t->client);
	}
	/* from here on a queued ticket may be granted by another thread: what is returned was decided under the mutex */
	mutex_unlock(&a->mu);
	client_free(spare);
	if (rc) {
		mem_free(t);
		*ret_retry_s = retry_s;
		return rc;
	}
	*ret = t;
	*ret_chosen = chosen < 0 ? NULL : q->candidates[chosen];
	return E_OK;
}

const struct agent *admission_next(struct admission *a, struct ticket *t, uint32_t tried_mask)
{
	struct ticket *chain = NULL;
	int chosen;

	mutex_lock(&a->mu);
	must(t->state == TICKET_RUNNING);
	chosen = pick(t, sound_mask(t, clock_mono_ms(), NULL) & ~tried_mask);
	if (chosen >= 0) {
		atomic_fetch_sub(&t->candidates[t->chosen]->up->running, 1);
		atomic_fetch_add(&t->candidates[chosen]->up->running, 1);
		t->chosen = (unsigned)chosen;
		chain = dispatch(a); /* the upstream that was left has room now */
	}
	mutex_unlock(&a->mu);
	post_grants(chain);
	return chosen < 0 ? NULL : t->candidates[chosen];
}

unsigned ticket_candidate(const struct ticket *t)
{
	return t->chosen;
}

static void count_served(struct admission *a, const struct ticket *t)
{
	int64_t held_us = (clock_mono_ms() - t->since_mono_ms) * 1000;

	a->served++;
	a->service_us = a->service_us ? a->service_us + (held_us - a->service_us) / 8 : held_us;
}

void admission_leave(struct admission *a, struct ticket *t)
{
	struct ticket *chain = NULL;
	bool has_letter;

	if (!t)
		return;
	mutex_lock(&a->mu);
	must(t->state != TICKET_LEFT);
	has_letter = t->state == TICKET_LETTER;
	if (t->state == TICKET_QUEUED) {
		dequeue(a, t);
	} else {
		vacate(a, t);
		if (!has_letter)
			count_served(a, t);
	}
	client_drop_if_idle(&a->lanes[t->class], t->client);
	t->client = NULL;
	if (has_letter)
		t->state = TICKET_LEFT;
	chain = dispatch(a);
	mutex_unlock(&a->mu);
	if (!has_letter)
		mem_free(t);
	post_grants(chain);
}

/* ---- life ---- */

enum errc admission_new(const struct admission_opts *o, struct admission **ret, struct err *e)
{
	struct admission *a = NEW(struct admission);

	if (!a)
		return err_set(e, E_NO_MEMORY, "no memory for admission");
	mutex_init(&a->mu);
	for (unsigned k = 0; k < ADMIT__COUNT; k++)
		a->lanes[k].bound = o->bound[k] > 0 ? o->bound[k] : 1;
	a->max_queued = o->max_queued;
	*ret = a;
	return E_OK;
}

void admission_free(struct admission *a)
{
	if (!a)
		return;
	for (unsigned k = 0; k < ADMIT__COUNT; k++)
		must(!a->lanes[k].clients); /* every ticket has left */
	mutex_done(&a->mu);
	mem_free(a);
}

void admission_close(struct admission *a)
{
	MUTEX_SCOPE(&a->mu);
	a->is_closed = true;
}

void admission_stats(struct admission *a, struct admission_stats *ret)
{
	MUTEX_SCOPE(&a->mu);
	for (unsigned k = 0; k < ADMIT__COUNT; k++) {
		ret->running[k] = a->lanes[k].running;
		ret->queued[k] = a->lanes[k].queued;
		ret->bound[k] = a->lanes[k].bound;
	}
	ret->refused = a->refused;
	ret->served = a->served;
	ret->service_ms = a->service_us / 1000;
}
