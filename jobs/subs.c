/* See subs.h. Called by the supervisor and the routes that change a job, and by followers. */
#include "jobs/subs.h"

#include "base/mem.h"
#include "base/thread.h"

#define BUCKETS 64
#define TOLD_AT_ONCE 64                 /* letters written while the lock is not held */

struct subs {
	struct mutex mu;
	struct sub *buckets[BUCKETS];   /* GUARDED_BY(mu) */
};

static struct sub **bucket_of(struct subs *s, int64_t key)
{
	uint64_t x = (uint64_t)key * 0x9e3779b97f4a7c15u;

	return &s->buckets[x >> 58];
}

enum errc subs_new(struct subs **ret, struct err *e)
{
	struct subs *s = NEW(struct subs);

	if (!s)
		return err_set(e, E_NO_MEMORY, "jobs: no memory");
	mutex_init(&s->mu);
	*ret = s;
	return E_OK;
}

void subs_free(struct subs *s)
{
	if (!s)
		return;
	mutex_done(&s->mu);
	mem_free(s);
}

void subs_add(struct subs *s, struct sub *v)
{
	MUTEX_SCOPE(&s->mu);
	struct sub **at = bucket_of(s, v->job_key);

	atomic_store(&v->is_posted, false);
	v->next = *at;
	*at = v;
}

/* An exchange, as in mark(): who found a letter on its way has changed what it tells of before, and that is seen from here on. */
void subs_taken(struct sub *v)
{
	(void)atomic_exchange(&v->is_posted, false);
}

bool subs_remove(struct subs *s, struct sub *v)
{
	MUTEX_SCOPE(&s->mu);
	for (struct sub **at = bucket_of(s, v->job_key); *at; at = &(*at)->next) {
		if (*at != v)
			continue;
		*at = v->next;
		break;
	}
	return atomic_load(&v->is_posted);
}

/* Marks the next ones of this job that have no letter on its way; how many. Once marked they live until it arrives. */
static size_t mark(struct subs *s, int64_t key, struct sub *told[TOLD_AT_ONCE])
{
	MUTEX_SCOPE(&s->mu);
	size_t n = 0;

	for (size_t i = 0; i < BUCKETS && n < TOLD_AT_ONCE; i++) {
		if (key != SUBS_ALL && &s->buckets[i] != bucket_of(s, key))
			continue;
		for (struct sub *v = s->buckets[i]; v && n < TOLD_AT_ONCE; v = v->next) {
			if ((key == SUBS_ALL || v->job_key == key) && !atomic_exchange(&v->is_posted, true))
				told[n++] = v;
		}
	}
	return n;
}

void subs_publish(struct subs *s, int64_t key)
{
	struct sub *told[TOLD_AT_ONCE];
	size_t n;

	do {
		n = mark(s, key, told);
		for (size_t i = 0; i < n; i++)
			loop_post(told[i]->loop, &told[i]->msg);
	} while (n == TOLD_AT_ONCE);
}
