/*
 * Threads for work that may block: one FIFO. Submitted to by loops, without a lock, so that a loop never waits for a thread of
 * the pool that was taken off its processor; work runs here, done is a letter to the loop that asked.
 */
#include "base/pool.h"

#include "base/mem.h"
#include "base/thread.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>

#define POOL_THREADS_MAX 8

struct pool {
	_Atomic(struct pool_job *) inbox;    /* submitted, the newest first; owned by the submitters until done */
	atomic_size_t queued;
	atomic_bool is_stopping;
	size_t max_queued;
	sem_t work;                          /* one for each job, and one for each thread at the end */
	struct mutex mu;                     /* between the threads of the pool only */
	struct pool_job *first;              /* GUARDED_BY(mu): taken out of the inbox, the oldest first */
	unsigned thread_count;
	struct thread threads[POOL_THREADS_MAX];
};

/* The inbox, turned round, behind what is taken already (which is nothing: it is empty when this is called). */
static void take_inbox(struct pool *p)
{
	struct pool_job *newest = atomic_exchange_explicit(&p->inbox, NULL, memory_order_acquire);

	while (newest) {
		struct pool_job *older = newest->next;

		newest->next = p->first;
		p->first = newest;
		newest = older;
	}
}

/* The next job, or NULL when the pool stops and nothing is queued. */
static struct pool_job *take_job(struct pool *p)
{
	while (sem_wait(&p->work) < 0)
		must(errno == EINTR);
	MUTEX_SCOPE(&p->mu);
	if (!p->first)
		take_inbox(p);
	struct pool_job *j = p->first;

	if (j) {
		p->first = j->next;
		atomic_fetch_sub(&p->queued, 1);
	}
	return j;
}

static void pool_main(void *arg) /* THREAD(pool) */
{
	struct pool *p = arg;
	struct pool_job *j;

	while ((j = take_job(p))) {
		struct loop *loop = j->loop;

		j->work(j);
		loop_post(loop, &j->done); /* j belongs to its loop again */
	}
}

enum errc pool_new(unsigned threads, unsigned first_index, size_t max_queued, struct pool **ret, struct err *e)
{
	struct pool *p = NEW(struct pool);

	if (!p)
		return err_set(e, E_NO_MEMORY, "pool: no memory");
	must(threads >= 1 && threads <= POOL_THREADS_MAX);
	mutex_init(&p->mu);
	must(sem_init(&p->work, 0, 0) == 0);
	p->max_queued = max_queued;
	for (; p->thread_count < threads; p->thread_count++) {
		enum errc rc = thread_start(&p->threads[p->thread_count], THREAD_POOL, first_index + p->thread_count, pool_main, p, e);

		if (rc) {
			pool_free(p);
			return rc;
		}
	}
	*ret = p;
	return E_OK;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	atomic_store(&p->is_stopping, true);
	for (unsigned i = 0; i < p->thread_count; i++)
		must(sem_post(&p->work) == 0);
	for (unsigned i = 0; i < p->thread_count; i++)
		thread_join(&p->threads[i]);
	(void)sem_destroy(&p->work);
	mutex_done(&p->mu);
	mem_free(p);
}

enum errc pool_submit(struct pool *p, struct pool_job *j, struct err *e)
{
	struct pool_job *head = atomic_load_explicit(&p->inbox, memory_order_relaxed);
	size_t queued = atomic_fetch_add(&p->queued, 1);

	if (queued >= p->max_queued || atomic_load(&p->is_stopping)) {
		atomic_fetch_sub(&p->queued, 1);
		return err_set(e, E_BUSY, "pool: %zu jobs are waiting, %zu at most", queued, p->max_queued);
	}
	do
		j->next = head;
	while (!atomic_compare_exchange_weak_explicit(&p->inbox, &head, j, memory_order_release, memory_order_relaxed));
	must(sem_post(&p->work) == 0);         /* j may be gone already */
	return E_OK;
}
