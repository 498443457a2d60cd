/*
 * Threads with a role, and mutexes that are leaves. A function marked THREAD(x) begins with thread_must_be(THREAD_X).
 * pthread's create and mutex calls appear nowhere else.
 */
#ifndef MSWARM_BASE_THREAD_H
#define MSWARM_BASE_THREAD_H

#include "base/err.h"

#include <pthread.h>
#include <stdint.h>

#define THREAD_ROLES(X) X(MAIN, "main") X(LOOP, "loop") X(STORE, "store") X(SUPER, "supervisor") X(GATEWAY, "gateway") \
	X(POOL, "pool") X(LOG, "log")

enum thread_role {
	THREAD_ANY,
#define X(id, name) THREAD_##id,
	THREAD_ROLES(X)
#undef X
	THREAD__COUNT
};

struct thread {
	pthread_t id;
	enum thread_role role;
	unsigned index;             /* 0.. within the role: loop 0, loop 1 */
	void (*fn)(void *arg);
	void *arg;                  /* borrowed */
	bool is_started;
};

/* Start with all signals blocked and the name "mswarm-<role><index>". t must stay put until thread_join. */
MUST_CHECK enum errc thread_start(struct thread *t, enum thread_role role, unsigned index, void (*fn)(void *), void *arg, struct err *e);
void thread_join(struct thread *t);               /* does nothing when never started */
enum thread_role thread_role_self(void);          /* THREAD_ANY in a thread that has no role (unit tests) */
unsigned thread_index_self(void);
void thread_set_role_self(enum thread_role role); /* main, and tests */
/* Aborts when this thread has another role; a thread without a role passes (unit tests). */
void thread_must_be(enum thread_role role);

struct mutex {
	pthread_mutex_t m;
	pthread_t holder;           /* valid while is_held; for mutex_must_hold only */
	bool is_held;
};
void mutex_init(struct mutex *m);
void mutex_done(struct mutex *m);
void mutex_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);
void mutex_must_hold(const struct mutex *m);
/* Wait on c with m held; m is given up while asleep. Wakes may come without a cause: look again in a loop. */
void mutex_wait(struct mutex *m, pthread_cond_t *c);
void mutex_wait_ms(struct mutex *m, pthread_cond_t *c, int64_t ms);  /* at most so long */
void mutex_auto_unlock(struct mutex **m);
#define MUTEX_SCOPE(mu) CLEANUP(mutex_auto_unlock) __attribute__((unused)) struct mutex *mutex_scope_ = (mutex_lock(mu), (mu))

#endif
