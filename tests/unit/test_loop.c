/* The event loop: timers, watches, letters, sources, and what the stall meter says. */
#include "base/clock.h"
#include "base/loop.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *new_loop(void)
{
	struct loop *l;
	struct err e;

	assert_int_equal(loop_new("test", &l, &e), E_OK);
	assert_string_equal(loop_name(l), "test");
	return l;
}

/* ---- timers ---- */

struct tick {
	struct loop_timer t;
	struct loop *l;
	int64_t at;
	int *order, *next, id;
	int again, stop_after, stop_at_end;
};

static void on_tick(struct loop_timer *t)
{
	struct tick *k = CONTAINER_OF(t, struct tick, t);

	assert_true(loop_now_ms(k->l) >= t->at_mono_ms);
	assert_int_equal(t->heap_pos, 0);
	if (k->order)
		k->order[(*k->next)++] = k->id;
	if (k->again-- > 0)
		loop_timer_set(k->l, t, loop_now_ms(k->l));
	if (k->stop_after || (k->stop_at_end && k->again < 0))
		loop_stop(k->l);
}

static void test_timer_order(void **state)
{
	enum { N = 500 };
	static struct tick k[N];
	static int order[N];
	struct loop *l = new_loop();
	int64_t now = clock_mono_ms();
	int next = 0;
	unsigned seed = 7;

	(void)state;
	for (int i = 0; i < N; i++) {
		seed = seed * 1103515245u + 12345u;
		k[i] = (struct tick){ .t.fn = on_tick, .l = l, .order = order, .next = &next, .id = i };
		loop_timer_set(l, &k[i].t, now - (int64_t)(seed >> 16) % 1000 - 1);
	}
	/* moved, cancelled, cancelled twice, set to the same time again */
	for (int i = 0; i < N; i += 5)
		loop_timer_set(l, &k[i].t, now - 2000 + i);
	for (int i = 1; i < N; i += 5) {
		loop_timer_cancel(l, &k[i].t);
		loop_timer_cancel(l, &k[i].t);
	}
	loop_timer_set(l, &k[2].t, k[2].t.at_mono_ms);
	struct tick last = { .t.fn = on_tick, .l = l, .stop_after = 1 };

	loop_timer_set(l, &last.t, now + 20);
	loop_run(l);
	assert_int_equal(next, N - N / 5);
	for (int i = 1; i < next; i++)
		assert_true(k[order[i - 1]].t.at_mono_ms <= k[order[i]].t.at_mono_ms);
	assert_true(clock_mono_ms() >= now + 20);
	loop_free(l);
}

static void test_timer_clock_by_hand(void **state)
{
	struct loop *l = new_loop();
	struct tick k = { .t.fn = on_tick, .l = l, .stop_after = 1 };

	(void)state;
	loop_timer_set(l, &k.t, clock_mono_ms() + 3600 * 1000);
	clock_test_advance_ms(3600 * 1000);
	loop_run(l);
	clock_test_advance_ms(-3600 * 1000);
	loop_free(l);
}

/* A timer that always sets itself for now does not starve the sockets. */
static void on_pipe_stop(void *arg, uint32_t events)
{
	assert_true(events & EPOLLIN);
	loop_stop(arg);
}

static void test_timer_does_not_starve(void **state)
{
	struct loop *l = new_loop();
	struct tick k = { .t.fn = on_tick, .l = l, .again = INT32_MAX };
	loop_watch_id id;
	struct err e;
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(loop_watch_add(l, fds[0], EPOLLIN, on_pipe_stop, l, &id, &e), E_OK);
	loop_timer_set(l, &k.t, 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	loop_run(l);
	loop_timer_cancel(l, &k.t);
	loop_watch_del(l, id);
	close(fds[0]);
	close(fds[1]);
	loop_free(l);
}

/* ---- watches ---- */

struct pair {
	struct loop *l;
	int fds[2][2];
	loop_watch_id id[2], reused;
	int calls, late;
};

static void must_not_come(void *arg, uint32_t events)
{
	struct pair *p = arg;

	(void)events;
	p->late++;
}

/* The first of two ready watches deletes the other and gives its slot to a third that is not ready. */
static void on_either(void *arg, uint32_t events)
{
	struct pair *p = arg;
	struct err e;
	char c;
	int me = read(p->fds[0][0], &c, 1) == 1 ? 0 : 1;

	(void)events;
	p->calls++;
	loop_watch_del(p->l, p->id[!me]);
	loop_watch_del(p->l, p->id[!me]); /* stale: nothing happens */
	assert_int_equal(loop_watch_add(p->l, p->fds[!me][1], 0, must_not_come, p, &p->reused, &e), E_OK);
	assert_true(p->reused != p->id[!me]);
	assert_int_equal((uint32_t)p->reused, (uint32_t)p->id[!me]);
	assert_int_equal(loop_watch_mod(p->l, p->id[!me], EPOLLIN, &e), E_NOT_FOUND);
	loop_stop(p->l);
}

static void test_watch_generation(void **state)
{
	struct pair p = { .l = new_loop() };
	struct err e;

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe2(p.fds[i], O_NONBLOCK), 0);
		assert_int_equal(loop_watch_add(p.l, p.fds[i][0], EPOLLIN, on_either, &p, &p.id[i], &e), E_OK);
		assert_true(p.id[i] != 0);
		assert_int_equal(write(p.fds[i][1], "x", 1), 1);
	}
	assert_int_equal(loop_watch_add(p.l, p.fds[0][0], EPOLLIN, on_either, &p, &p.reused, &e), E_IO);
	assert_int_equal(e.os_errno, EEXIST);
	loop_run(p.l);
	assert_int_equal(p.calls, 1);
	assert_int_equal(p.late, 0);
	loop_watch_del(p.l, 0);
	loop_watch_del(p.l, UINT64_C(0xffffffffffff));
	loop_watch_del(p.l, p.reused);
	for (int i = 0; i < 4; i++)
		close(p.fds[i / 2][i % 2]);
	loop_free(p.l);
}

static void test_many_watches(void **state)
{
	enum { N = 300 };
	struct loop *l = new_loop();
	static loop_watch_id id[N];
	static int fds[N][2];
	struct pair p = { .l = l };
	struct err e;

	(void)state;
	for (int i = 0; i < N; i++) {
		assert_int_equal(pipe(fds[i]), 0);
		assert_int_equal(loop_watch_add(l, fds[i][0], EPOLLIN, must_not_come, &p, &id[i], &e), E_OK);
		assert_int_equal(write(fds[i][1], "x", 1), 1);
	}
	for (int i = 0; i < N; i++)
		assert_int_equal(loop_watch_mod(l, id[i], EPOLLIN | EPOLLONESHOT, &e), E_OK);
	struct tick k = { .t.fn = on_tick, .l = l, .stop_after = 1 };

	loop_timer_set(l, &k.t, clock_mono_ms() + 30);
	loop_run(l);
	assert_int_equal(p.late, N); /* each once */
	for (int i = 0; i < N; i++) {
		loop_watch_del(l, id[i]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
	loop_free(l);
}

/* Many slow events at once: the turn ends early, the rest comes in the next ones, letters are not kept waiting. */
struct slow {
	struct loop_msg m;
	struct loop *l;
	int calls, calls_at_letter;
};

static void on_slow(void *arg, uint32_t events)
{
	struct slow *s = arg;
	int64_t begin = clock_mono_us();

	(void)events;
	while (clock_mono_us() - begin < 1000)
		;
	if (s->calls++ == 0)
		loop_post(s->l, &s->m);
	if (s->calls == 64)
		loop_stop(s->l);
}

static void on_slow_letter(struct loop_msg *m)
{
	struct slow *s = CONTAINER_OF(m, struct slow, m);

	s->calls_at_letter = s->calls;
}

static void test_turn_budget(void **state)
{
	struct slow s = { .m.fn = on_slow_letter, .l = new_loop() };
	loop_watch_id id[64];
	struct err e;
	int fds[64][2];

	(void)state;
	for (int i = 0; i < 64; i++) {
		assert_int_equal(pipe(fds[i]), 0);
		assert_int_equal(loop_watch_add(s.l, fds[i][0], EPOLLIN | EPOLLONESHOT, on_slow, &s, &id[i], &e), E_OK);
		assert_int_equal(write(fds[i][1], "x", 1), 1);
	}
	loop_run(s.l);
	assert_int_equal(s.calls, 64); /* each once, none lost */
	assert_int_equal(s.calls_at_letter, 8);
	assert_true(atomic_load(&loop_stats(s.l)->turns) >= 8);
	for (int i = 0; i < 64; i++) {
		loop_watch_del(s.l, id[i]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
	loop_free(s.l);
}

/* ---- letters ---- */

enum { SENDERS = 4, LETTERS = 5000 };

struct letter {
	struct loop_msg m;
	struct loop *l;
	int sender, seq;
};

static int letters_got, last_seq[SENDERS];
static struct letter letters[SENDERS][LETTERS];

static void on_letter(struct loop_msg *m)
{
	struct letter *o = CONTAINER_OF(m, struct letter, m);

	assert_int_equal(o->seq, last_seq[o->sender] + 1); /* in the order of each sender */
	last_seq[o->sender] = o->seq;
	if (++letters_got == SENDERS * LETTERS)
		loop_stop(o->l);
}

static void send_letters(void *arg)
{
	struct letter *o = arg;

	for (int i = 0; i < LETTERS; i++)
		loop_post(o[i].l, &o[i].m);
}

static void test_letters(void **state)
{
	struct loop *l = new_loop();
	struct thread t[SENDERS] = { 0 };
	struct err e;

	(void)state;
	letters_got = 0;
	for (int s = 0; s < SENDERS; s++) {
		last_seq[s] = -1;
		for (int i = 0; i < LETTERS; i++)
			letters[s][i] = (struct letter){ .m.fn = on_letter, .l = l, .sender = s, .seq = i };
		assert_int_equal(thread_start(&t[s], THREAD_POOL, (unsigned)s, send_letters, letters[s], &e), E_OK);
	}
	loop_run(l);
	assert_int_equal(letters_got, SENDERS * LETTERS);
	for (int s = 0; s < SENDERS; s++)
		thread_join(&t[s]);
	loop_free(l);
}

/* A letter that posts itself, from the loop's own thread. */
struct ball {
	struct loop_msg m;
	struct loop *from, *to;
	int left;
};

static void on_ball(struct loop_msg *m)
{
	struct ball *b = CONTAINER_OF(m, struct ball, m);
	struct loop *to = b->to;

	if (b->left-- == 0) {
		loop_stop(b->from);
		loop_stop(b->to);
		return;
	}
	b->to = b->from;
	b->from = to;
	loop_post(to, m);
}

static void run_loop(void *arg)
{
	loop_run(arg);
}

static void test_ping_pong(void **state)
{
	struct loop *a = new_loop(), *b = new_loop();
	struct ball ball = { .m.fn = on_ball, .from = a, .to = b, .left = 2000 };
	struct ball own = { .m.fn = on_ball, .from = a, .to = a, .left = 1000 };
	struct thread t = { 0 };
	struct err e;

	(void)state;
	loop_post(a, &own.m);
	loop_run(a);
	assert_int_equal(own.left, -1);
	assert_int_equal(thread_start(&t, THREAD_LOOP, 1, run_loop, b, &e), E_OK);
	loop_post(a, &ball.m);
	loop_run(a);
	thread_join(&t);
	assert_int_equal(ball.left, -1);
	loop_free(a);
	loop_free(b);
}

static void test_stop_first(void **state)
{
	struct loop *l = new_loop();
	struct letter o = { .m.fn = on_letter, .l = l };

	(void)state;
	letters_got = 0;
	last_seq[0] = -1;
	loop_post(l, &o.m);
	loop_stop(l);
	loop_run(l); /* returns, and the letter was delivered */
	assert_int_equal(letters_got, 1);
	loop_free(l);
	loop_free(NULL);
}

/* ---- sources ---- */

struct src {
	struct loop *l;
	int work, runs;
	int64_t due_ms;
};

/* The last act of a turn: post, stop, and say that there is nothing to do. The letter is delivered. */
static bool post_and_stop(void *arg)
{
	struct letter *o = arg;

	if (o->seq == 0) {
		o->seq = last_seq[0] + 1;
		loop_post(o->l, &o->m);
		loop_stop(o->l);
	}
	return false;
}

static int64_t no_timeout(void *arg)
{
	(void)arg;
	return -1;
}

static void test_stop_after_post(void **state)
{
	struct loop *l = new_loop();
	struct letter o = { .m.fn = on_letter, .l = l };
	struct err e;

	(void)state;
	letters_got = 0;
	last_seq[0] = 6;
	assert_int_equal(loop_source_add(l, (struct loop_source){ .name = "test", .run = post_and_stop, .timeout_ms = no_timeout,
			 .arg = &o }, &e), E_OK);
	loop_run(l);
	assert_int_equal(letters_got, 1);
	loop_free(l);
}

static bool src_run(void *arg)
{
	struct src *s = arg;

	s->runs++;
	if (s->due_ms && clock_mono_ms() >= s->due_ms) {
		s->due_ms = 0;
		loop_stop(s->l);
		return true;
	}
	if (s->work == 0)
		return false;
	s->work--;
	return true;
}

static int64_t src_timeout(void *arg)
{
	struct src *s = arg;
	int64_t ms;

	assert_int_equal(s->work, 0); /* asked only when nothing is left to do */
	if (!s->due_ms)
		return -1;
	ms = s->due_ms - clock_mono_ms();
	return ms > 0 ? ms : 0;
}

static void test_sources(void **state)
{
	struct src s = { .l = new_loop(), .work = 10, .due_ms = clock_mono_ms() + 30 };
	struct err e;

	(void)state;
	for (int i = 0; i < 8; i++)
		assert_int_equal(loop_source_add(s.l, (struct loop_source){ .name = "test", .run = src_run,
				.timeout_ms = src_timeout, .arg = &s }, &e), E_OK);
	assert_int_equal(loop_source_add(s.l, (struct loop_source){ .name = "ninth" }, &e), E_BUSY);
	loop_run(s.l);
	assert_int_equal(s.work, 0);
	assert_int_equal(s.due_ms, 0);
	loop_free(s.l);
}

/* Equal times: in the order of arming. One that arms itself for the past runs once a round, behind those that are due. */
static void test_timer_fairness(void **state)
{
	struct loop *l = new_loop();
	int order[128], next = 0;
	int64_t now = clock_mono_ms();
	struct tick again = { .t.fn = on_tick, .l = l, .order = order, .next = &next, .id = 0, .again = 50 };
	struct src rounds = { .l = l };
	struct err e;
	struct tick k[4], last = { .t.fn = on_tick, .l = l, .order = order, .next = &next, .id = 9, .stop_after = 1 };

	(void)state;
	loop_timer_set(l, &again.t, now - 10);
	for (int i = 0; i < 4; i++) {
		k[i] = (struct tick){ .t.fn = on_tick, .l = l, .order = order, .next = &next, .id = i + 1 };
		loop_timer_set(l, &k[i].t, now - 5);
	}
	loop_timer_set(l, &last.t, now - 4);
	assert_int_equal(loop_source_add(l, (struct loop_source){ .name = "test", .run = src_run, .timeout_ms = src_timeout,
			 .arg = &rounds }, &e), E_OK);
	last.stop_after = 0;
	again.stop_at_end = 1;
	loop_run(l);
	assert_true(rounds.runs >= 50);
	const int want[] = { 0, 1, 2, 3, 4, 9, 0 };

	assert_true(next >= (int)ARRAY_LEN(want));
	assert_memory_equal(order, want, sizeof(want));
	loop_timer_cancel(l, &again.t);
	loop_free(l);
}

/* ---- stall meter ---- */

static int64_t self_delay_ns(void)
{
	char text[96] = "";
	int fd = open("/proc/thread-self/schedstat", O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	char *second = n > 0 ? strchr(text, ' ') : NULL;

	if (fd >= 0)
		close(fd);
	return second ? strtoll(second, NULL, 10) : -1;
}

static void on_blocked_turn(struct loop_msg *m)
{
	(void)m;
	poll(NULL, 0, 8); /* what a blocking call looks like: this thread does nothing and wants nothing */
}

static void test_stall_is_seen(void **state)
{
	struct loop *l = new_loop();
	struct loop_msg m = { .fn = on_blocked_turn };
	const struct loop_stats *s = loop_stats(l);

	(void)state;
	loop_stop(l);
	loop_run(l);
	assert_int_equal(atomic_load(&s->stall_5ms_count), 0);
	loop_post(l, &m);
	loop_stop(l);
	loop_run(l);
	assert_true(atomic_load(&s->stall_max_us) >= 5000);
	assert_true(atomic_load(&s->turn_max_us) >= 8000);
	assert_int_equal(atomic_load(&s->stall_5ms_count), 1);
	assert_int_equal(atomic_load(&s->stalls[0].own_us), atomic_load(&s->stall_max_us));
	assert_in_range(atomic_load(&s->stalls[0].wall_ms), clock_wall_ms() - 1000, clock_wall_ms());
	assert_in_range(atomic_load(&s->stall_max_wall_ms), clock_wall_ms() - 1000, clock_wall_ms());
	assert_true(atomic_load(&s->turns) >= 2);
	assert_true(atomic_load(&s->beat_mono_ms) > 0);
	loop_free(l);
}

static int64_t self_cpu_us(void)
{
	struct timespec t;

	assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void on_working_turn(struct loop_msg *m)
{
	int64_t from = self_cpu_us();

	(void)m;
	while (self_cpu_us() - from < 8000)
		;
}

/* All that it had of a processor counts, whatever the machine did meanwhile. */
static void test_work_is_a_stall(void **state)
{
	struct loop *l = new_loop();
	struct loop_msg m = { .fn = on_working_turn };
	const struct loop_stats *s = loop_stats(l);

	(void)state;
	loop_post(l, &m);
	loop_stop(l);
	loop_run(l);
	assert_int_equal(atomic_load(&s->stall_5ms_count), 1);
	assert_in_range(atomic_load(&s->stall_max_us), 7000, atomic_load(&s->turn_max_us));
	loop_free(l);
}

static atomic_bool rival_may_end;

static void pin_to_first_cpu(void)
{
	cpu_set_t set;

	sched_getaffinity(0, sizeof(set), &set);
	for (size_t i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &set)) {
			CPU_ZERO(&set);
			CPU_SET(i, &set);
			break;
		}
	}
	sched_setaffinity(0, sizeof(set), &set);
}

static void rival(void *arg)
{
	(void)arg;
	pin_to_first_cpu();
	while (!atomic_load(&rival_may_end))
		;
}

/* Work on until this thread has waited 20 ms for its processor, which a rival wants too. */
static void on_shared_turn(struct loop_msg *m)
{
	int64_t from = self_delay_ns(), begin = clock_mono_ms();

	(void)m;
	while (self_delay_ns() - from < 20 * 1000 * 1000 && clock_mono_ms() - begin < 3000)
		;
}

static void run_shared_turn(void *arg)
{
	pin_to_first_cpu();
	loop_run(arg);
}

static void test_waiting_for_cpu_is_no_stall(void **state)
{
	struct loop *l = new_loop();
	struct loop_msg m = { .fn = on_shared_turn };
	const struct loop_stats *s = loop_stats(l);
	struct thread t = { 0 }, w = { 0 };
	struct err e;

	(void)state;
	if (self_delay_ns() < 0) {
		loop_free(l);
		skip();
	}
	atomic_store(&rival_may_end, false);
	assert_int_equal(thread_start(&t, THREAD_POOL, 0, rival, NULL, &e), E_OK);
	loop_post(l, &m);
	loop_stop(l);
	assert_int_equal(thread_start(&w, THREAD_LOOP, 0, run_shared_turn, l, &e), E_OK);
	thread_join(&w);
	atomic_store(&rival_may_end, true);
	thread_join(&t);
	assert_true(atomic_load(&s->turn_max_us) - atomic_load(&s->stall_max_us) >= 19 * 1000);
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timer_order),
		cmocka_unit_test(test_timer_clock_by_hand),
		cmocka_unit_test(test_timer_fairness),
		cmocka_unit_test(test_timer_does_not_starve),
		cmocka_unit_test(test_watch_generation),
		cmocka_unit_test(test_many_watches),
		cmocka_unit_test(test_turn_budget),
		cmocka_unit_test(test_letters),
		cmocka_unit_test(test_ping_pong),
		cmocka_unit_test(test_stop_first),
		cmocka_unit_test(test_stop_after_post),
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_stall_is_seen),
		cmocka_unit_test(test_work_is_a_stall),
		cmocka_unit_test(test_waiting_for_cpu_is_no_stall),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
