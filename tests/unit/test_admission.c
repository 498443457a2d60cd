/* Unit tests of llm/admission.c: bounds, fairness, leaving in every state, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "llm/admission.h"

#define ASKS_MAX 64

struct bed;

struct asker {
	struct bed *bed;
	struct ticket *ticket;
	const struct agent *candidates[AGENT_CANDIDATES_MAX];
	const struct agent *chosen;        /* NULL while it waits */
	int grants;
	char name;                         /* what the grant log shows */
};

struct bed {
	struct loop *loop;
	struct admission *adm;
	struct upstream *up[3];
	struct agent agent[3];
	struct asker asker[ASKS_MAX];
	size_t asked;
	char grants[ASKS_MAX + 1];         /* names in the order that their letters came */
	size_t granted;
};

static void bed_open(struct bed *b, int64_t local, int64_t job, int64_t queued, const int64_t up_max[3])
{
	struct admission_opts o = { .bound = { [ADMIT_LOCAL] = local, [ADMIT_JOB] = job }, .max_queued = queued };
	struct err e = { 0 };

	*b = (struct bed){ 0 };
	assert_int_equal(loop_new("test", &b->loop, &e), E_OK);
	assert_int_equal(admission_new(&o, &b->adm, &e), E_OK);
	for (int i = 0; i < 3; i++) {
		struct upstream_spec s = { .name = "u", .base_url = "http://h/v1", .kind = UPSTREAM_OPENAI, .max_concurrent = up_max[i] };

		assert_int_equal(upstream_new(&s, &b->up[i], &e), E_OK);
		b->agent[i] = (struct agent){ .up = b->up[i] };
	}
}

static const int64_t roomy[3] = { 100, 100, 100 };

static void on_quit(struct loop_msg *m);

struct quit {
	struct loop_msg msg;
	struct loop *loop;
};

static void on_quit(struct loop_msg *m)
{
	loop_stop(CONTAINER_OF(m, struct quit, msg)->loop);
}

/* Deliver every letter that was posted so far. */
static void deliver(struct bed *b)
{
	struct quit q = { .msg.fn = on_quit, .loop = b->loop };

	loop_post(b->loop, &q.msg);
	loop_run(b->loop);
}

static void bed_close(struct bed *b)
{
	struct admission_stats st;

	deliver(b);
	admission_stats(b->adm, &st);
	assert_int_equal(st.running[0] + st.running[1] + st.queued[0] + st.queued[1], 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(atomic_load(&b->up[i]->running), 0);
		upstream_unref(b->up[i]);
	}
	admission_free(b->adm);
	loop_free(b->loop);
}

static void on_granted(void *ctx, const struct agent *chosen)
{
	struct asker *a = ctx;

	a->chosen = chosen;
	a->grants++;
	a->bed->grants[a->bed->granted++] = a->name;
}

/* ups: candidates as digits, "01". Returns the outcome; *ret is the asker. */
static enum errc ask_as(struct bed *b, enum admission_class class, const char *client, int64_t client_max, const char *ups, char name, struct asker **ret, int64_t *ret_retry_s)
{
	struct asker *a = &b->asker[b->asked++];
	struct admission_ask q = { .class = class, .client = client, .client_max = client_max, .candidates = a->candidates,
		.candidate_count = strlen(ups), .loop = b->loop, .granted = on_granted, .ctx = a };
	struct err e = { 0 };
	enum errc rc;

	assert_true(b->asked <= ASKS_MAX);
	*a = (struct asker){ .bed = b, .name = name };
	for (size_t i = 0; ups[i]; i++)
		a->candidates[i] = &b->agent[ups[i] - '0'];
	rc = admission_ask(b->adm, &q, &a->ticket, &a->chosen, ret_retry_s, &e);
	if (rc)
		assert_null(a->ticket);
	*ret = a;
	return rc;
}

static struct asker *ask(struct bed *b, const char *client, const char *ups, char name)
{
	struct asker *a;
	int64_t retry_s;

	assert_int_equal(ask_as(b, ADMIT_LOCAL, client, 0, ups, name, &a, &retry_s), E_OK);
	return a;
}

static void leave(struct bed *b, struct asker *a)
{
	admission_leave(b->adm, TAKE(a->ticket));
}

static void leave_all(struct bed *b)
{
	for (size_t i = 0; i < b->asked; i++)
		leave(b, &b->asker[i]);
}

/* ---- tests ---- */

static void test_bounds_of_classes(void **state)
{
	struct bed b;
	struct asker *a;
	struct admission_stats st;
	int64_t retry_s = 0;

	(void)state;
	bed_open(&b, 2, 1, 10, roomy);
	assert_non_null(ask(&b, "k", "0", 'a')->chosen);
	assert_non_null(ask(&b, "k", "0", 'b')->chosen);
	assert_null(ask(&b, "k", "0", 'c')->chosen);
	/* the other class has a bound of its own */
	assert_int_equal(ask_as(&b, ADMIT_JOB, "direct", 0, "0", 'd', &a, &retry_s), E_OK);
	assert_non_null(a->chosen);
	assert_int_equal(ask_as(&b, ADMIT_JOB, "direct", 0, "0", 'e', &a, &retry_s), E_OK);
	assert_null(a->chosen);
	admission_stats(b.adm, &st);
	assert_int_equal(st.running[ADMIT_LOCAL], 2);
	assert_int_equal(st.queued[ADMIT_LOCAL], 1);
	assert_int_equal(st.running[ADMIT_JOB], 1);
	assert_int_equal(st.queued[ADMIT_JOB], 1);
	assert_int_equal(st.bound[ADMIT_LOCAL], 2);
	/* a local slot that comes free goes to the local one */
	leave(&b, &b.asker[0]);
	deliver(&b);
	assert_string_equal(b.grants, "c");
	leave(&b, &b.asker[3]);
	deliver(&b);
	assert_string_equal(b.grants, "ce");
	leave_all(&b);
	bed_close(&b);
}

static void test_fairness(void **state)
{
	/* queue: client letters in the order of asking, one digit each for which of the client's it is; grants expected */
	static const struct { const char *queue, *grants; } cases[] = {
		{ "AAAA", "A0 A1 A2 A3 " },
		{ "AAAAB", "A0 B0 A1 A2 A3 " },                       /* one that comes late waits for one turn, not four */
		{ "AAABBBC", "A0 B0 C0 A1 B1 A2 B2 " },
		{ "ABCABC", "A0 B0 C0 A1 B1 C1 " },
		{ "BAAA", "B0 A0 A1 A2 " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bed b;
		struct asker *running;
		char got[200] = "", names[ASKS_MAX][3];
		int count[3] = { 0 };
		size_t n = strlen(cases[i].queue), at = 0;

		bed_open(&b, 1, 1, 50, roomy);
		running = ask(&b, "Z", "0", '-');
		for (size_t k = 0; k < n; k++) {
			char client[2] = { cases[i].queue[k], '\0' };

			names[k][0] = client[0];
			names[k][1] = (char)('0' + count[client[0] - 'A']++);
			assert_null(ask(&b, client, "0", (char)k)->chosen);
		}
		for (size_t k = 0; k < n; k++) {
			leave(&b, running);
			deliver(&b);
			assert_int_equal(b.granted, k + 1);
			size_t who = (size_t)b.grants[k];

			running = &b.asker[who + 1];
			got[at++] = names[who][0];
			got[at++] = names[who][1];
			got[at++] = ' ';
		}
		assert_string_equal(got, cases[i].grants);
		leave_all(&b);
		bed_close(&b);
	}
}

static void test_full_upstream_holds_up_nobody_else(void **state)
{
	struct bed b;
	struct asker *a;

	(void)state;
	bed_open(&b, 10, 1, 50, (const int64_t[3]){ 1, 1, 2 });
	assert_ptr_equal(ask(&b, "k", "0", 'a')->chosen, &b.agent[0]);
	assert_null(ask(&b, "k", "0", 'b')->chosen);
	/* the same client, another upstream: runs at once */
	assert_ptr_equal(ask(&b, "k", "1", 'c')->chosen, &b.agent[1]);
	assert_null(ask(&b, "k", "1", 'd')->chosen);
	/* what waits behind one that cannot run is granted when its own upstream is free */
	leave(&b, &b.asker[2]);
	deliver(&b);
	assert_string_equal(b.grants, "d");
	assert_int_equal(atomic_load(&b.up[1]->running), 1);
	/* of two candidates the one with room */
	a = ask(&b, "k", "02", 'e');
	assert_ptr_equal(a->chosen, &b.agent[2]);
	assert_int_equal(ticket_candidate(a->ticket), 1);
	leave_all(&b);
	bed_close(&b);
}

static void test_least_loaded_candidate(void **state)
{
	struct bed b;
	const struct agent *first, *second;

	(void)state;
	bed_open(&b, 100, 1, 0, (const int64_t[3]){ 4, 2, 100 });
	first = ask(&b, "k", "01", 'a')->chosen;    /* among equals the first */
	second = ask(&b, "k", "01", 'b')->chosen;   /* 1/4 against 0/2 */
	assert_ptr_equal(first, &b.agent[0]);
	assert_ptr_equal(second, &b.agent[1]);
	assert_ptr_equal(ask(&b, "k", "01", 'c')->chosen, &b.agent[0]); /* 1/4 against 1/2 */
	leave_all(&b);
	bed_close(&b);
}

static void test_limits_and_codes(void **state)
{
	struct bed b;
	struct asker *a;
	int64_t retry_s = 0;
	struct admission_stats st;

	(void)state;
	bed_open(&b, 1, 1, 4, roomy);
	/* a client's own limit counts running and waiting */
	assert_int_equal(ask_as(&b, ADMIT_LOCAL, "k", 2, "0", 'a', &a, &retry_s), E_OK);
	assert_int_equal(ask_as(&b, ADMIT_LOCAL, "k", 2, "0", 'b', &a, &retry_s), E_OK);
	assert_int_equal(ask_as(&b, ADMIT_LOCAL, "k", 2, "0", 'c', &a, &retry_s), E_RATE_LIMITED);
	assert_int_equal(retry_s, 1);
	/* half of the queue while others wait: k has one, l two, then no more of l */
	ask(&b, "l", "0", 'd');
	ask(&b, "l", "0", 'e');
	assert_int_equal(ask_as(&b, ADMIT_LOCAL, "l", 0, "0", 'f', &a, &retry_s), E_RATE_LIMITED);
	ask(&b, "m", "0", 'g');
	/* full for everybody, in both classes; the job class says so in its own words */
	assert_int_equal(ask_as(&b, ADMIT_LOCAL, "n", 0, "0", 'h', &a, &retry_s), E_RATE_LIMITED);
	assert_int_equal(ask_as(&b, ADMIT_JOB, "direct", 0, "0", 'i', &a, &retry_s), E_OK);
	assert_int_equal(ask_as(&b, ADMIT_JOB, "direct", 0, "0", 'j', &a, &retry_s), E_AT_CAPACITY);
	admission_stats(b.adm, &st);
	assert_int_equal(st.queued[ADMIT_LOCAL], 4);
	assert_int_equal(st.refused, 4);
	leave_all(&b);
	bed_close(&b);
	/* no queue at all */
	bed_open(&b, 1, 1, 0, roomy);
	ask(&b, "k", "0", 'a');
	assert_int_equal(ask_as(&b, ADMIT_LOCAL, "k", 0, "0", 'b', &a, &retry_s), E_RATE_LIMITED);
	leave_all(&b);
	bed_close(&b);
}

static void test_flood_leaves_places_for_others(void **state)
{
	struct bed b;
	struct asker *a;
	int64_t retry_s;
	int waiting = 0;

	(void)state;
	bed_open(&b, 1, 1, 32, roomy);
	ask(&b, "flood", "0", 'r');
	while (ask_as(&b, ADMIT_LOCAL, "flood", 0, "0", 'f', &a, &retry_s) == E_OK)
		waiting++;
	assert_int_equal(waiting, 31);
	assert_int_equal(ask_as(&b, ADMIT_LOCAL, "other", 0, "0", 'o', &a, &retry_s), E_OK);
	leave(&b, &b.asker[0]);
	deliver(&b);
	leave(&b, &b.asker[1]);
	deliver(&b);
	assert_string_equal(b.grants, "fo");
	leave_all(&b);
	bed_close(&b);
}

static void test_retry_after_follows_the_service_rate(void **state)
{
	static const struct { int64_t held_ms; int waiting; int64_t retry_s; } cases[] = {
		{ 0, 0, 1 }, { 4000, 0, 2 }, { 4000, 1, 4 }, { 4000, 3, 8 }, { 4001, 0, 3 }, { 3600000, 3, 60 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bed b;
		struct asker *a;
		struct admission_stats st;
		int64_t retry_s = 0;

		bed_open(&b, 2, 1, cases[i].waiting, roomy);
		ask(&b, "k", "0", 'a');
		clock_test_advance_ms(cases[i].held_ms);
		leave(&b, &b.asker[0]);
		admission_stats(b.adm, &st);
		assert_int_equal(st.served, 1);
		assert_in_range(st.service_ms, cases[i].held_ms, cases[i].held_ms + 500);
		ask(&b, "k", "0", 'b');
		ask(&b, "k", "0", 'c');
		for (int k = 0; k < cases[i].waiting; k++)
			ask(&b, "k", "0", 'w');
		assert_int_equal(ask_as(&b, ADMIT_LOCAL, "k", 0, "0", 'x', &a, &retry_s), E_RATE_LIMITED);
		assert_in_range(retry_s, cases[i].retry_s, cases[i].retry_s < 60 ? cases[i].retry_s + 1 : 60);
		leave_all(&b);
		bed_close(&b);
	}
}

static void trip(struct upstream *u)
{
	for (int i = 0; i < BREAKER_FAILURES; i++)
		breaker_fail(&u->breaker, clock_mono_ms());
}

static void test_breakers(void **state)
{
	struct bed b;
	struct asker *a;
	int64_t retry_s = 0;

	(void)state;
	bed_open(&b, 10, 1, 10, (const int64_t[3]){ 1, 1, 1 });
	trip(b.up[0]);
	assert_int_equal(ask_as(&b, ADMIT_LOCAL, "k", 0, "0", 'a', &a, &retry_s), E_UNHEALTHY);
	assert_int_equal(retry_s, 1);
	/* the sound one, though it stands second; and when it is full one waits for it */
	assert_ptr_equal(ask(&b, "k", "01", 'b')->chosen, &b.agent[1]);
	assert_null(ask(&b, "k", "01", 'c')->chosen);
	leave(&b, &b.asker[1]);
	deliver(&b);
	assert_ptr_equal(b.asker[2].chosen, &b.agent[1]);
	/* the last sound one breaks while a request waits: it is let through, to find out */
	assert_null(ask(&b, "k", "1", 'd')->chosen);
	trip(b.up[1]);
	leave(&b, &b.asker[2]);
	deliver(&b);
	assert_string_equal(b.grants, "cd");
	leave_all(&b);
	/* looking at a breaker took no trial */
	clock_test_advance_ms(BREAKER_BASE_MS);
	a = ask(&b, "k", "0", 'e');
	assert_non_null(a->chosen);
	assert_true(breaker_try(&b.up[0]->breaker, clock_mono_ms()));
	leave_all(&b);
	bed_close(&b);
}

static void test_next_candidate(void **state)
{
	struct bed b;
	struct asker *a;

	(void)state;
	bed_open(&b, 10, 1, 10, (const int64_t[3]){ 1, 1, 1 });
	a = ask(&b, "k", "012", 'a');
	assert_ptr_equal(a->chosen, &b.agent[0]);
	assert_null(ask(&b, "k", "0", 'w')->chosen);      /* waits for upstream 0 */
	trip(b.up[1]);
	assert_ptr_equal(admission_next(b.adm, a->ticket, 1), &b.agent[2]);
	assert_int_equal(ticket_candidate(a->ticket), 2);
	assert_int_equal(atomic_load(&b.up[2]->running), 1);
	deliver(&b);
	assert_string_equal(b.grants, "w");                /* what was left is free for the next */
	assert_null(admission_next(b.adm, a->ticket, 5));  /* 1 is open, 0 full besides */
	assert_int_equal(ticket_candidate(a->ticket), 2);
	assert_int_equal(atomic_load(&b.up[2]->running), 1);
	leave_all(&b);
	bed_close(&b);
}

static void test_leaving_in_every_state(void **state)
{
	struct bed b;
	struct asker *first, *second, *third;

	(void)state;
	bed_open(&b, 1, 1, 10, roomy);
	admission_leave(b.adm, NULL);
	first = ask(&b, "k", "0", '1');
	second = ask(&b, "k", "0", '2');
	third = ask(&b, "l", "0", '3');
	/* queued */
	leave(&b, second);
	second = ask(&b, "k", "0", '2');
	/* the letter is on its way to third (the ring: l stands first): it leaves, the slot goes on to second */
	leave(&b, first);
	leave(&b, third);
	assert_int_equal(atomic_load(&b.up[0]->running), 1);
	deliver(&b);
	assert_int_equal(third->grants, 0);
	assert_int_equal(second->grants, 1);
	assert_string_equal(b.grants, "2");
	/* running */
	leave(&b, second);
	assert_int_equal(atomic_load(&b.up[0]->running), 0);
	/* the letter in flight, nobody behind it */
	first = ask(&b, "k", "0", '1');
	second = ask(&b, "k", "0", '2');
	leave(&b, first);
	leave(&b, second);
	assert_int_equal(atomic_load(&b.up[0]->running), 0);
	deliver(&b);
	assert_int_equal(second->grants, 0);
	bed_close(&b);
}

static void test_closed_grants_nothing(void **state)
{
	struct bed b;
	struct asker *first, *second;

	(void)state;
	bed_open(&b, 1, 1, 10, roomy);
	first = ask(&b, "k", "0", '1');
	second = ask(&b, "k", "0", '2');
	admission_close(b.adm);
	leave(&b, first);
	deliver(&b);
	assert_int_equal(second->grants, 0);
	assert_int_equal(atomic_load(&b.up[0]->running), 0);
	leave(&b, second);
	bed_close(&b);
}

static void test_no_memory(void **state)
{
	struct bed b;
	struct asker *a;
	int64_t retry_s;
	enum errc rc = E_NO_MEMORY;

	(void)state;
	bed_open(&b, 1, 1, 10, roomy);
	for (uint64_t n = 1; rc == E_NO_MEMORY && n < 20; n++) {
		mem_test_fail_at(n, 0);
		rc = ask_as(&b, ADMIT_LOCAL, "k", 0, "0", 'a', &a, &retry_s);
		mem_test_fail_at(0, 0);
	}
	assert_int_equal(rc, E_OK);
	assert_true(b.asked > 2);
	leave_all(&b);
	bed_close(&b);
}

/* ---- threads ---- */

#define WORKERS 3
#define ROUNDS 400

struct worker {
	struct bed *bed;
	struct thread thread;
	struct loop *loop;
	struct loop_msg step;
	struct ticket *ticket;
	const struct agent *candidates[2];
	char client[2];
	unsigned seed;
	int rounds, grants, served;
};

static unsigned worker_random(struct worker *w)
{
	w->seed = w->seed * 1103515245u + 12345u;
	return w->seed >> 16;
}

static void worker_end_round(struct worker *w)
{
	admission_leave(w->bed->adm, TAKE(w->ticket));
	if (++w->rounds < ROUNDS)
		loop_post(w->loop, &w->step);
	else
		loop_stop(w->loop);
}

static void worker_granted(void *ctx, const struct agent *chosen)
{
	struct worker *w = ctx;

	must(chosen == w->candidates[ticket_candidate(w->ticket)]);
	w->grants++;
	if (worker_random(w) % 2)
		(void)!admission_next(w->bed->adm, w->ticket, 1u << ticket_candidate(w->ticket));
	worker_end_round(w);
}

static void worker_step(struct loop_msg *m)
{
	struct worker *w = CONTAINER_OF(m, struct worker, step);
	const struct agent *chosen = NULL;
	struct admission_ask q = { .class = worker_random(w) % 2 ? ADMIT_JOB : ADMIT_LOCAL, .client = w->client, .candidates = w->candidates,
		.candidate_count = 2, .loop = w->loop, .granted = worker_granted, .ctx = w };
	int64_t retry_s;
	struct err e = { 0 };

	must(admission_ask(w->bed->adm, &q, &w->ticket, &chosen, &retry_s, &e) == E_OK);
	w->served += chosen != NULL;
	/* some leave while they wait, whether their letter is on its way by now or not */
	if (chosen || worker_random(w) % 3 == 0)
		worker_end_round(w);
}

static void worker_run(void *arg)
{
	struct worker *w = arg;

	loop_run(w->loop);
}

static void test_threads(void **state)
{
	struct worker w[WORKERS];
	struct bed b;
	struct err e = { 0 };
	int done = 0;

	(void)state;
	bed_open(&b, 1, 1, 100, (const int64_t[3]){ 1, 1, 1 });
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){ .bed = &b, .step.fn = worker_step, .candidates = { &b.agent[0], &b.agent[1] },
			.client = { (char)('a' + i), '\0' }, .seed = i + 1 };
		assert_int_equal(loop_new("w", &w[i].loop, &e), E_OK);
		loop_post(w[i].loop, &w[i].step);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(thread_start(&w[i].thread, THREAD_LOOP, i, worker_run, &w[i], &e), E_OK);
	/* all are joined before a loop goes: another worker may be posting a grant to it even now */
	for (unsigned i = 0; i < WORKERS; i++)
		thread_join(&w[i].thread);
	for (unsigned i = 0; i < WORKERS; i++) {
		struct quit q = { .msg.fn = on_quit, .loop = w[i].loop };

		assert_int_equal(w[i].rounds, ROUNDS);
		done += w[i].grants + w[i].served;
		/* letters of tickets that have left are still to come */
		loop_post(w[i].loop, &q.msg);
		loop_run(w[i].loop);
		loop_free(w[i].loop);
	}
	assert_true(done > ROUNDS / 2);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds_of_classes), cmocka_unit_test(test_fairness),
		cmocka_unit_test(test_full_upstream_holds_up_nobody_else), cmocka_unit_test(test_least_loaded_candidate),
		cmocka_unit_test(test_limits_and_codes), cmocka_unit_test(test_flood_leaves_places_for_others),
		cmocka_unit_test(test_retry_after_follows_the_service_rate), cmocka_unit_test(test_breakers),
		cmocka_unit_test(test_next_candidate), cmocka_unit_test(test_leaving_in_every_state),
		cmocka_unit_test(test_closed_grants_nothing),
		cmocka_unit_test(test_no_memory), cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
