/*
 * Timers of a loop: a binary heap of pointers into the objects that own the timers. Called by loop.c and by whoever
 * has a timer; the loop's thread. Arming cannot fail but for memory, which aborts: the heap is a few bytes a request
 * that was accepted already.
 */
#include "base/loop_priv.h"

#define TIMERS_A_ROUND 64
#define HEAP_SHRUNK_MIN 512

static bool is_before(const struct loop_heap_item *a, const struct loop_heap_item *b)
{
	return a->at_mono_ms < b->at_mono_ms || (a->at_mono_ms == b->at_mono_ms && a->seq < b->seq);
}

static void put(struct loop *l, size_t pos, struct loop_heap_item it)
{
	l->heap[pos] = it;
	it.timer->heap_pos = pos;
}

static void sift_up(struct loop *l, size_t pos, struct loop_heap_item it)
{
	while (pos > 1 && is_before(&it, &l->heap[pos / 2])) {
		put(l, pos, l->heap[pos / 2]);
		pos /= 2;
	}
	put(l, pos, it);
}

static void sift_down(struct loop *l, size_t pos, struct loop_heap_item it)
{
	size_t child;

	while ((child = pos * 2) <= l->heap_count) {
		if (child < l->heap_count && is_before(&l->heap[child + 1], &l->heap[child]))
			child++;
		if (!is_before(&l->heap[child], &it))
			break;
		put(l, pos, l->heap[child]);
		pos = child;
	}
	put(l, pos, it);
}

static void place(struct loop *l, size_t pos, struct loop_heap_item it)
{
	if (pos > 1 && is_before(&it, &l->heap[pos / 2]))
		sift_up(l, pos, it);
	else
		sift_down(l, pos, it);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_mono_ms)
{
	if (t->heap_pos && t->at_mono_ms == at_mono_ms)
		return;
	t->at_mono_ms = at_mono_ms;
	if (!t->heap_pos) {
		if (l->heap_count + 1 >= l->heap_cap) {
			size_t cap = l->heap_cap ? l->heap_cap * 2 : 64;
			struct loop_heap_item *h = mem_realloc(l->heap, cap * sizeof(*h));

			must(h != NULL);
			l->heap = h;
			l->heap_cap = cap;
		}
		t->heap_pos = ++l->heap_count;
	}
	/* A time long past must not pass by timers that have been due for longer. */
	if (l->is_running && at_mono_ms < l->now_ms)
		at_mono_ms = l->now_ms;
	place(l, t->heap_pos, (struct loop_heap_item){ .at_mono_ms = at_mono_ms, .seq = ++l->timer_seq, .timer = t });
}

/* After a load: a quarter of the room, and an eighth of it in use, so that the border is not walked to and fro. */
static void shrink(struct loop *l)
{
	size_t cap = l->heap_cap / 4;
	struct loop_heap_item *h;

	if (l->heap_cap < HEAP_SHRUNK_MIN || l->heap_count + 1 > cap / 2)
		return;
	h = mem_realloc(l->heap, cap * sizeof(*h));
	if (!h)
		return;
	l->heap = h;
	l->heap_cap = cap;
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	size_t pos = t->heap_pos;

	if (!pos)
		return;
	must(pos <= l->heap_count && l->heap[pos].timer == t);
	t->heap_pos = 0;
	struct loop_heap_item last = l->heap[l->heap_count--];

	if (last.timer != t)
		place(l, pos, last);
	shrink(l);
}

bool loop_timers_run(struct loop *l)
{
	const uint64_t last = l->timer_seq;
	unsigned n = 0;

	for (; n < TIMERS_A_ROUND && l->heap_count && l->heap[1].at_mono_ms <= l->now_ms; n++) {
		/* What is armed for now by a timer of this round waits for the next, after letters and sources. */
		if (l->heap[1].seq > last)
			break;
		struct loop_timer *t = l->heap[1].timer;

		loop_timer_cancel(l, t);
		t->fn(t);
	}
	return n > 0;
}

int64_t loop_timers_wait_ms(const struct loop *l)
{
	if (!l->heap_count)
		return -1;
	return l->heap[1].at_mono_ms <= l->now_ms ? 0 : l->heap[1].at_mono_ms - l->now_ms;
}
