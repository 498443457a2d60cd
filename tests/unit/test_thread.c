/* Threads with a role, checked mutexes. */
#include "base/thread.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct seen {
	enum thread_role role;
	unsigned index;
	char name[32];
	bool is_term_blocked, is_segv_blocked;
};

static void look(void *arg)
{
	struct seen *s = arg;
	sigset_t set;

	s->role = thread_role_self();
	s->index = thread_index_self();
	pthread_getname_np(pthread_self(), s->name, sizeof(s->name));
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	s->is_term_blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGPIPE) && sigismember(&set, SIGCHLD);
	s->is_segv_blocked = sigismember(&set, SIGSEGV);
}

static void test_start(void **state)
{
	static const struct {
		enum thread_role role;
		unsigned index;
		const char *name;
	} rows[] = {
		{ THREAD_LOOP, 0, "mswarm-loop0" },
		{ THREAD_LOOP, 3, "mswarm-loop3" },
		{ THREAD_STORE, 0, "mswarm-store0" },
		{ THREAD_SUPER, 0, "mswarm-supervis" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct thread t = { 0 };
		struct seen s = { 0 };
		struct err e;
		sigset_t before, after;

		pthread_sigmask(SIG_SETMASK, NULL, &before);
		assert_int_equal(thread_start(&t, rows[i].role, rows[i].index, look, &s, &e), E_OK);
		pthread_sigmask(SIG_SETMASK, NULL, &after);
		thread_join(&t);
		thread_join(&t); /* does nothing */
		assert_int_equal(s.role, rows[i].role);
		assert_int_equal(s.index, rows[i].index);
		assert_string_equal(s.name, rows[i].name);
		assert_true(s.is_term_blocked);
		assert_false(s.is_segv_blocked);
		assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
	}
	assert_int_equal(thread_role_self(), THREAD_ANY);
	thread_join(&(struct thread){ 0 });
}

/* Run fn in a child process: true when it aborts. */
static bool aborts(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
}

static void wrong_role(void)
{
	thread_set_role_self(THREAD_LOOP);
	thread_must_be(THREAD_STORE);
}

static void right_role(void)
{
	thread_must_be(THREAD_STORE); /* no role yet: passes */
	thread_set_role_self(THREAD_STORE);
	thread_must_be(THREAD_STORE);
}

static void lock_in_scope(struct mutex *m)
{
	MUTEX_SCOPE(m);
	mutex_must_hold(m);
}

static void not_held(void)
{
	struct mutex m;

	mutex_init(&m);
	lock_in_scope(&m);
	mutex_must_hold(&m);
}

static void unlock_twice(void)
{
	struct mutex m;

	mutex_init(&m);
	mutex_lock(&m);
	mutex_unlock(&m);
	mutex_unlock(&m);
}

static void test_checks(void **state)
{
	(void)state;
	assert_false(aborts(right_role));
	assert_true(aborts(wrong_role));
	assert_true(aborts(not_held));
	assert_true(aborts(unlock_twice));
}

struct shared {
	struct mutex mu;
	pthread_cond_t changed;
	int count;
	bool is_open;
};

static void add_many(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 2000; i++) {
		MUTEX_SCOPE(&s->mu);
		s->count++;
	}
	MUTEX_SCOPE(&s->mu);
	while (!s->is_open)
		mutex_wait(&s->mu, &s->changed);
	mutex_must_hold(&s->mu);
}

static void test_mutex(void **state)
{
	struct shared s = { .changed = PTHREAD_COND_INITIALIZER };
	struct thread t[4] = { 0 };
	struct err e;

	(void)state;
	mutex_init(&s.mu);
	for (unsigned i = 0; i < ARRAY_LEN(t); i++)
		assert_int_equal(thread_start(&t[i], THREAD_POOL, i, add_many, &s, &e), E_OK);
	mutex_lock(&s.mu);
	s.is_open = true;
	pthread_cond_broadcast(&s.changed);
	mutex_unlock(&s.mu);
	for (unsigned i = 0; i < ARRAY_LEN(t); i++)
		thread_join(&t[i]);
	assert_int_equal(s.count, 8000);
	mutex_done(&s.mu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_checks),
		cmocka_unit_test(test_mutex),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
