/*
 * Threads with a role and checked leaf mutexes. Called by whoever starts a thread or guards a struct; any thread.
 * Role and index are thread-local, written by the thread itself only.
 */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

static _Thread_local enum thread_role thread_self_role;
static _Thread_local unsigned thread_self_index;

static const char *role_name(enum thread_role role)
{
	static const char *const names[] = {
		[THREAD_ANY] = "any",
#define X(id, name) [THREAD_##id] = name,
		THREAD_ROLES(X)
#undef X
	};

	return (size_t)role < ARRAY_LEN(names) ? names[role] : "any";
}

static void set_name_self(enum thread_role role, unsigned index)
{
	char name[64];

	snprintf(name, sizeof(name), "mswarm-%s%u", role_name(role), index);
	name[15] = '\0'; /* the kernel keeps 15 characters and refuses longer names */
	pthread_setname_np(pthread_self(), name);
}

static void *run_thread(void *arg)
{
	struct thread *t = arg;

	thread_self_role = t->role;
	thread_self_index = t->index;
	set_name_self(t->role, t->index);
	t->fn(t->arg);
	return NULL;
}

enum errc thread_start(struct thread *t, enum thread_role role, unsigned index, void (*fn)(void *), void *arg, struct err *e)
{
	/* These are raised by the thread's own faults; blocked they would end the process without a report. */
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
	sigset_t all, before;
	int rc;

	must(!t->is_started);
	t->role = role;
	t->index = index;
	t->fn = fn;
	t->arg = arg;
	sigfillset(&all);
	for (size_t i = 0; i < ARRAY_LEN(faults); i++)
		sigdelset(&all, faults[i]);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits the mask */
	rc = pthread_create(&t->id, NULL, run_thread, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return err_set_os(e, E_INTERNAL, rc, "thread %s%u", role_name(role), index);
	t->is_started = true;
	return E_OK;
}

void thread_join(struct thread *t)
{
	if (!t->is_started)
		return;
	must(pthread_join(t->id, NULL) == 0);
	t->is_started = false;
}

enum thread_role thread_role_self(void)
{
	return thread_self_role;
}

unsigned thread_index_self(void)
{
	return thread_self_index;
}

void thread_set_role_self(enum thread_role role)
{
	thread_self_role = role;
}

void thread_must_be(enum thread_role role)
{
	must(thread_self_role == THREAD_ANY || thread_self_role == role);
}

void mutex_init(struct mutex *m)
{
	must(pthread_mutex_init(&m->m, NULL) == 0);
	m->is_held = false;
}

void mutex_done(struct mutex *m)
{
	must(!m->is_held);
	must(pthread_mutex_destroy(&m->m) == 0);
}

static void note_held(struct mutex *m)
{
	m->holder = pthread_self();
	m->is_held = true;
}

void mutex_lock(struct mutex *m)
{
	must(pthread_mutex_lock(&m->m) == 0);
	note_held(m);
}

void mutex_unlock(struct mutex *m)
{
	mutex_must_hold(m);
	m->is_held = false;
	must(pthread_mutex_unlock(&m->m) == 0);
}

void mutex_must_hold(const struct mutex *m)
{
	must(m->is_held && pthread_equal(m->holder, pthread_self()));
}

void mutex_wait(struct mutex *m, pthread_cond_t *c)
{
	mutex_must_hold(m);
	m->is_held = false;
	must(pthread_cond_wait(c, &m->m) == 0);
	note_held(m);
}

void mutex_wait_ms(struct mutex *m, pthread_cond_t *c, int64_t ms)
{
	struct timespec until;
	int rc;

	mutex_must_hold(m);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	m->is_held = false;
	rc = pthread_cond_clockwait(c, &m->m, CLOCK_MONOTONIC, &until);
	must(rc == 0 || rc == ETIMEDOUT);
	note_held(m);
}

void mutex_auto_unlock(struct mutex **m)
{
	mutex_unlock(*m);
}
