/*
 * The event loop: epoll, watches by slot and generation, mailbox, sources, stall meter. Timers are in loop_timer.c.
 * Run by each loop thread, the gateway and the supervisor; loop_post and loop_stop by anybody.
 *
 * A turn is what lies between two sleeps: socket events, then rounds of mailbox, timers and sources until none has
 * work. A turn that has gone on for TURN_BUDGET_US ends early and the next one follows without a sleep: what is left of
 * the events first, or a look at the sockets. So a burst in one place cannot starve the others.
 */
#include "base/loop_priv.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_A_TURN	64           /* 64 relayed chunks are about 1 ms of work */
#define EVENTS_A_LOOK	8            /* events between two looks at the clock */
#define LETTERS_A_ROUND	16
#define TURN_BUDGET_US	500          /* and the round that it is in: less than a millisecond */
#define READ_EVERY_US	300          /* the stall meter */
#define LONG_US		900          /* a turn that is looked at; so is each that would be the longest */
#define SLEEP_US	5            /* a wait that is shorter found its events there */
#define STALL_US	5000         /* design.md 7: no request holds a loop longer */
#define WATCHES_MAX	(1u << 20)
#define MAIL_EVENT	UINT64_C(0)  /* no watch has this id */

/* The loop that this thread runs, so that a letter to oneself needs no wake-up. */
static _Thread_local const struct loop *loop_self;

enum errc loop_new(const char *name, struct loop **ret, struct err *e)
{
	struct loop *l = NEW(struct loop);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = MAIL_EVENT };

	if (!l)
		return err_set(e, E_NO_MEMORY, "loop %s: no memory", name);
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->sched_fd = l->mail_fd = l->epoll_fd = -1;
	l->free_slot = NO_SLOT;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* Edge-triggered: every write is an edge, so the counter never has to be read. */
	if (l->epoll_fd < 0 || l->mail_fd < 0 || epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->mail_fd, &ev)) {
		int os_errno = errno;

		loop_free(l);
		return err_set_os(e, E_IO, os_errno, "loop %s", name);
	}
	atomic_store(&l->stats.beat_mono_ms, clock_mono_ms());
	*ret = l;
	return E_OK;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	must(!l->is_running);
	if (l->mail_fd >= 0)
		close(l->mail_fd);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	if (l->sched_fd >= 0)
		close(l->sched_fd);
	mem_free(l->heap);
	mem_free(l->watches);
	mem_free(l);
}

const struct loop_stats *loop_stats(const struct loop *l)
{
	return &l->stats;
}

const char *loop_name(const struct loop *l)
{
	return l->name;
}

int64_t loop_now_ms(const struct loop *l)
{
	return l->is_running ? l->now_ms : clock_mono_ms();
}

/* ---- mailbox: a stack that many push and one takes whole, then turned round ---- */

static void wake(struct loop *l)
{
	uint64_t one = 1;

	/* fails only when the counter is full: then the loop is awake anyway */
	(void)!write(l->mail_fd, &one, sizeof(one));
}

void loop_post_all(struct loop *l, struct loop_msg *newest, struct loop_msg *oldest)
{
	struct loop_msg *head = atomic_load_explicit(&l->mail, memory_order_relaxed);

	do
		oldest->next = head;
	while (!atomic_compare_exchange_weak_explicit(&l->mail, &head, newest, memory_order_release, memory_order_relaxed));
	/* Who finds the box empty wakes the loop; the letters may be gone already when this line is reached, l may not. */
	if (!head && loop_self != l)
		wake(l);
}

void loop_post(struct loop *l, struct loop_msg *m)
{
	loop_post_all(l, m, m);
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->is_stopping, true);
	wake(l);
}

static bool run_mail(struct loop *l)
{
	struct loop_msg *m;
	unsigned n = 0;

	if (!l->inbox && atomic_load_explicit(&l->mail, memory_order_relaxed)) {
		m = atomic_exchange_explicit(&l->mail, NULL, memory_order_acquire);
		while (m) {
			struct loop_msg *next = m->next;

			m->next = l->inbox;
			l->inbox = m;
			m = next;
		}
	}
	for (; (m = l->inbox) && n < LETTERS_A_ROUND; n++) {
		l->inbox = m->next; /* before fn, which may free or post m */
		m->fn(m);
	}
	return n > 0;
}

/* ---- watches ---- */

static struct loop_watch *find_watch(struct loop *l, loop_watch_id id)
{
	uint32_t slot = (uint32_t)id;

	if (slot >= l->watch_count || l->watches[slot].gen != (uint32_t)(id >> 32) || l->watches[slot].fd < 0)
		return NULL;
	return &l->watches[slot];
}

static enum errc grow_watches(struct loop *l, struct err *e)
{
	uint32_t count = l->watch_count ? l->watch_count * 2 : 32;
	struct loop_watch *w;

	if (count > WATCHES_MAX)
		return err_set(e, E_BUSY, "loop %s: %u watches at most", l->name, WATCHES_MAX);
	w = mem_realloc(l->watches, count * sizeof(*w));
	if (!w)
		return err_set(e, E_NO_MEMORY, "loop %s: no memory for a watch", l->name);
	l->watches = w;
	for (uint32_t i = count; i-- > l->watch_count;) {
		w[i] = (struct loop_watch){ .fd = -1, .gen = 1, .next_free = l->free_slot };
		l->free_slot = i;
	}
	l->watch_count = count;
	return E_OK;
}

enum errc loop_watch_add(struct loop *l, int fd, uint32_t epoll_events, loop_watch_fn *fn, void *arg, loop_watch_id *ret, struct err *e)
{
	struct epoll_event ev = { .events = epoll_events };
	struct loop_watch *w;

	if (l->free_slot == NO_SLOT) {
		enum errc rc = grow_watches(l, e);

		if (rc)
			return rc;
	}
	uint32_t slot = l->free_slot;

	w = &l->watches[slot];
	ev.data.u64 = (uint64_t)w->gen << 32 | slot;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev))
		return err_set_os(e, E_IO, errno, "loop %s: watch of fd %d", l->name, fd);
	l->free_slot = w->next_free;
	w->fd = fd;
	w->fn = fn;
	w->arg = arg;
	*ret = ev.data.u64;
	return E_OK;
}

enum errc loop_watch_mod(struct loop *l, loop_watch_id id, uint32_t epoll_events, struct err *e)
{
	struct epoll_event ev = { .events = epoll_events, .data.u64 = id };
	struct loop_watch *w = find_watch(l, id);

	if (!w)
		return err_set(e, E_NOT_FOUND, "loop %s: no such watch", l->name);
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev))
		return err_set_os(e, E_IO, errno, "loop %s: watch of fd %d", l->name, w->fd);
	return E_OK;
}

void loop_watch_del(struct loop *l, loop_watch_id id)
{
	struct loop_watch *w = find_watch(l, id);

	if (!w)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
	w->gen = w->gen == UINT32_MAX ? 1 : w->gen + 1; /* never 0, so no id is 0 */
	w->next_free = l->free_slot;
	l->free_slot = (uint32_t)id;
}

/* Handle events until the turn's time is used up; how many are left for the next turn. Those that are kept may be about
 * a watch that is deleted meanwhile: then find_watch finds nobody. */
static int run_events(struct loop *l, const struct epoll_event *ev, int n, int64_t begin_us)
{
	for (int i = 0; i < n; i++) {
		struct loop_watch *w = ev[i].data.u64 == MAIL_EVENT ? NULL : find_watch(l, ev[i].data.u64);

		if (w)
			w->fn(w->arg, ev[i].events);
		if (i % EVENTS_A_LOOK == EVENTS_A_LOOK - 1 && clock_mono_us() - begin_us >= TURN_BUDGET_US)
			return n - i - 1;
	}
	return 0;
}

/* ---- sources ---- */

enum errc loop_source_add(struct loop *l, struct loop_source src, struct err *e)
{
	if (l->source_count == ARRAY_LEN(l->sources))
		return err_set(e, E_BUSY, "loop %s: %zu sources at most", l->name, ARRAY_LEN(l->sources));
	l->sources[l->source_count++] = src;
	return E_OK;
}

static bool run_sources(struct loop *l)
{
	bool did = false;

	for (size_t i = 0; i < l->source_count; i++)
		did |= l->sources[i].run(l->sources[i].arg);
	return did;
}

/* How long to sleep: until the first timer or the first source, forever when there is neither. */
static int sleep_ms(struct loop *l)
{
	int64_t ms = loop_timers_wait_ms(l);

	if (l->inbox || atomic_load_explicit(&l->mail, memory_order_relaxed))
		return 0;
	for (size_t i = 0; i < l->source_count; i++) {
		int64_t m = l->sources[i].timeout_ms(l->sources[i].arg);

		if (m >= 0 && (ms < 0 || m < ms))
			ms = m;
	}
	return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

/* ---- stall meter ---- */

/* Nanoseconds that this thread has waited for a processor: second number of schedstat. 0 when the kernel keeps none. */
static int64_t run_delay_ns(struct loop *l)
{
	char text[96];
	ssize_t n = l->sched_fd < 0 ? -1 : pread(l->sched_fd, text, sizeof(text) - 1, 0);
	char *second;

	if (n <= 0)
		return 0;
	text[n] = '\0';
	second = memchr(text, ' ', (size_t)n);
	return second ? strtoll(second + 1, NULL, 10) : 0;
}

static struct loop_reading read_meter(struct loop *l, int64_t now_us)
{
	struct timespec cpu = { 0 };
	struct rusage use = { 0 };

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	(void)getrusage(RUSAGE_THREAD, &use);
	return (struct loop_reading){ .at_us = now_us, .delay_ns = run_delay_ns(l), .sleeps = use.ru_nvcsw,
				      .cpu_ns = (int64_t)cpu.tv_sec * 1000000000 + cpu.tv_nsec };
}

/*
 * Begin of a turn. A reading costs up to 2 us, so it is not taken for each: what is subtracted from a turn, and what it is said to
 * have had of a processor, are too large by less than READ_EVERY_US.
 */
static void meter_begin(struct loop *l, int64_t now_us)
{
	l->waits += now_us - l->turn_end_us >= SLEEP_US;
	if (now_us - l->reading.at_us < READ_EVERY_US)
		return;
	l->reading = read_meter(l, now_us);
	l->waits = 0;
}

/*
 * A turn less what its thread waited for a processor. Where it never gave one up itself, it cannot have taken longer than it had one:
 * the rest is the hypervisor's, which no count of waiting holds.
 */
static int64_t own_time_us(const struct loop *l, int64_t turn_us, const struct loop_reading *now)
{
	const struct loop_reading *from = &l->reading;
	int64_t own_us = turn_us - (now->delay_ns - from->delay_ns) / 1000, had_us = (now->cpu_ns - from->cpu_ns) / 1000;
	bool has_slept = now->sleeps - from->sleeps > l->waits;

	return !has_slept && had_us < own_us ? had_us : own_us;
}

static bool set_if_more(atomic_int_fast64_t *max, int64_t v)
{
	bool is_more = v > atomic_load_explicit(max, memory_order_relaxed);

	if (is_more)
		atomic_store_explicit(max, v, memory_order_relaxed); /* one writer */
	return is_more;
}

static void count(atomic_int_fast64_t *n)
{
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void note_stall(struct loop *l, int64_t own_us)
{
	size_t at = (size_t)atomic_load_explicit(&l->stats.stall_5ms_count, memory_order_relaxed) % LOOP_STALLS_KEPT;

	atomic_store(&l->stats.stalls[at].wall_ms, clock_wall_ms());
	atomic_store(&l->stats.stalls[at].own_us, own_us);
	count(&l->stats.stall_5ms_count);
}

static void meter_end(struct loop *l, int64_t begin_us, int64_t now_us)
{
	int64_t turn_us = now_us - begin_us, own_us = turn_us;

	count(&l->stats.turns);
	(void)set_if_more(&l->stats.turn_max_us, turn_us);
	l->turn_end_us = now_us;
	if (turn_us > LONG_US || turn_us > atomic_load_explicit(&l->stats.stall_max_us, memory_order_relaxed)) {
		struct loop_reading now = read_meter(l, now_us);

		own_us = own_time_us(l, turn_us, &now);
		l->reading = now;
		l->waits = 0;
	}
	if (set_if_more(&l->stats.stall_max_us, own_us))
		atomic_store(&l->stats.stall_max_wall_ms, clock_wall_ms());
	if (own_us > STALL_US)
		note_stall(l, own_us);
}

static void beat(struct loop *l, int64_t now_us)
{
	l->now_ms = now_us / 1000;
	atomic_store_explicit(&l->stats.beat_mono_ms, l->now_ms, memory_order_relaxed);
}

/* ---- the loop ---- */

/* Rounds of mailbox, timers and sources; *ret_now_us is the time after the last. True when there may be more. */
static bool run_rounds(struct loop *l, int64_t begin_us, int64_t *ret_now_us)
{
	bool did;

	do {
		did = run_mail(l);
		did |= loop_timers_run(l);
		did |= run_sources(l);
		*ret_now_us = clock_mono_us();
		l->now_ms = *ret_now_us / 1000;
	} while (did && *ret_now_us - begin_us < TURN_BUDGET_US);
	return did;
}

void loop_run(struct loop *l)
{
	struct epoll_event events[EVENTS_A_TURN];
	const struct loop *outer = loop_self;
	bool is_last = false;
	int n = 0, left = 0;

	must(!l->is_running);
	l->is_running = true;
	loop_self = l;
	if (l->sched_fd >= 0)
		close(l->sched_fd); /* of the thread that ran it before, as the last reading is */
	l->reading.at_us = 0;
	l->sched_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	for (;;) {
		int64_t begin_us = clock_mono_us(), now_us;

		beat(l, begin_us);
		meter_begin(l, begin_us);
		left = run_events(l, events + n - left, left, begin_us);
		bool has_more = run_rounds(l, begin_us, &now_us);

		meter_end(l, begin_us, now_us);
		if (is_last && !l->inbox && !left)
			break;
		/* One more turn once the stop is seen: letters posted before it are delivered. */
		is_last = atomic_load(&l->is_stopping);
		beat(l, now_us);
		if (left)
			continue;
		left = n = epoll_wait(l->epoll_fd, events, EVENTS_A_TURN, has_more || is_last ? 0 : sleep_ms(l));
		must(n >= 0 || errno == EINTR);
		if (n < 0)
			left = n = 0;
	}
	atomic_store(&l->is_stopping, false);
	loop_self = outer;
	l->is_running = false;
}
