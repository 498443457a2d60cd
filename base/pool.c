/*
 * Threads for work that may block: one FIFO, one mutex, one condition. Submitted to by loops; work runs here, done is
 * a letter to the loop that asked.
 */
#include "base/pool.h"

#include "base/mem.h"
#include "base/thread.h"

#define POOL_THREADS_MAX 8

struct pool {
	struct mutex mu;
	pthread_cond_t has_work;
	struct pool_job *first, *last;       /* GUARDED_BY(mu); owned by the submitters until done */
	size_t queued, max_queued;           /* queued: GUARDED_BY(mu) */
	bool is_stopping;                    /* GUARDED_BY(mu) */
	unsigned thread_count;
	struct thread threads[POOL_THREADS_MAX];
};

/* The next job, or NULL when the pool stops and nothing is queued. */
static struct pool_job *take_job(struct pool *p)
{
	MUTEX_SCOPE(&p->mu);
	while (!p->first && !p->is_stopping)
		mutex_wait(&p->mu, &p->has_work);
	struct pool_job *j = p->first;

	if (j) {
		p->first = j->next;
		if (!p->first)
			p->last = NULL;
		p->queued--;
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

enum errc pool_new(unsigned threads, size_t max_queued, struct pool **ret, struct err *e)
{
	struct pool *p = NEW(struct pool);

	if (!p)
		return err_set(e, E_NO_MEMORY, "pool: no memory");
	must(threads >= 1 && threads <= POOL_THREADS_MAX);
	mutex_init(&p->mu);
	must(pthread_cond_init(&p->has_work, NULL) == 0);
	p->max_queued = max_queued;
	for (; p->thread_count < threads; p->thread_count++) {
		enum errc rc = thread_start(&p->threads[p->thread_count], THREAD_POOL, p->thread_count, pool_main, p, e);

		if (rc) {
			pool_free(p);
			return rc;
		}
	}
	*ret = p;
	return E_OK;
}

static void stop(struct pool *p)
{
	MUTEX_SCOPE(&p->mu);
	p->is_stopping = true;
	pthread_cond_broadcast(&p->has_work);
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	stop(p);
	for (unsigned i = 0; i < p->thread_count; i++)
		thread_join(&p->threads[i]);
	pthread_cond_destroy(&p->has_work);
	mutex_done(&p->mu);
	mem_free(p);
}

enum errc pool_submit(struct pool *p, struct pool_job *j, struct err *e)
{
	MUTEX_SCOPE(&p->mu);
	if (p->queued >= p->max_queued || p->is_stopping)
		return err_set(e, E_BUSY, "pool: %zu jobs are waiting, %zu at most", p->queued, p->max_queued);
	j->next = NULL;
	if (p->last)
		p->last->next = j;
	else
		p->first = j;
	p->last = j;
	p->queued++;
	pthread_cond_signal(&p->has_work);
	return E_OK;
}
