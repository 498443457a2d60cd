/* The pool: work on its threads, done on the loop that asked, a bounded queue, nothing lost at the end. */
#include "base/pool.h"
#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { JOBS = 200 };

struct fixture {
	struct loop *loop;
	struct pool *pool;
	int done;
	pthread_t loop_thread;
};

struct job {
	struct pool_job j;
	struct fixture *f;
	enum thread_role role;
	int value;
	struct mutex *gate;     /* locked by the test: the job waits */
};

static void square(struct pool_job *j)
{
	struct job *o = CONTAINER_OF(j, struct job, j);

	if (o->gate) {
		mutex_lock(o->gate);
		mutex_unlock(o->gate);
	}
	o->value *= o->value;
	o->role = thread_role_self();
}

static void on_done(struct loop_msg *m)
{
	struct job *o = CONTAINER_OF(m, struct job, j.done);

	assert_true(pthread_equal(o->f->loop_thread, pthread_self()));
	if (++o->f->done == JOBS)
		loop_stop(o->f->loop);
}

static void job_init(struct job *o, struct fixture *f, int value)
{
	*o = (struct job){ .f = f, .value = value, .j = { .work = square, .loop = f->loop, .done = { .fn = on_done } } };
}

static void test_work(void **state)
{
	struct fixture f = { .loop_thread = pthread_self() };
	static struct job jobs[JOBS];
	struct err e;

	(void)state;
	assert_int_equal(loop_new("test", &f.loop, &e), E_OK);
	assert_int_equal(pool_new(2, 0, JOBS, &f.pool, &e), E_OK);
	for (int i = 0; i < JOBS; i++) {
		job_init(&jobs[i], &f, i);
		assert_int_equal(pool_submit(f.pool, &jobs[i].j, &e), E_OK);
	}
	loop_run(f.loop);
	assert_int_equal(f.done, JOBS);
	for (int i = 0; i < JOBS; i++) {
		assert_int_equal(jobs[i].value, i * i);
		assert_int_equal(jobs[i].role, THREAD_POOL);
	}
	pool_free(f.pool);
	loop_free(f.loop);
}

static void test_full(void **state)
{
	struct fixture f = { .loop_thread = pthread_self() };
	struct job jobs[8];
	struct mutex gate;
	struct err e;
	int taken = 0;

	(void)state;
	mutex_init(&gate);
	assert_int_equal(loop_new("test", &f.loop, &e), E_OK);
	assert_int_equal(pool_new(1, 0, 3, &f.pool, &e), E_OK);
	mutex_lock(&gate);
	for (int i = 0; i < 8; i++) {
		job_init(&jobs[i], &f, i);
		jobs[i].gate = &gate;
		enum errc rc = pool_submit(f.pool, &jobs[i].j, &e);

		taken += rc == E_OK;
		assert_true(rc == E_OK || rc == E_BUSY);
	}
	/* three wait, and one more when the thread was quick to take its first */
	assert_in_range(taken, 3, 4);
	assert_int_equal(e.code, E_BUSY);
	mutex_unlock(&gate);
	pool_free(f.pool); /* runs what is queued */
	loop_stop(f.loop);
	loop_run(f.loop);
	assert_int_equal(f.done, taken);
	loop_free(f.loop);
	mutex_done(&gate);
	pool_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_work),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
