/* Shared by loop.c and loop_timer.c only: a loop on the inside. All members belong to the loop's thread but for those
 * marked. */
#ifndef MSWARM_BASE_LOOP_PRIV_H
#define MSWARM_BASE_LOOP_PRIV_H

#include "base/loop.h"
#include "base/mem.h"

#define NO_SLOT UINT32_MAX

struct loop_watch {
	int fd;                              /* -1: the slot is free */
	uint32_t gen;                        /* one more for each use of the slot */
	uint32_t next_free;
	loop_watch_fn *fn;
	void *arg;
};

struct loop_heap_item {                      /* the key is kept beside the pointer: comparing touches no timer */
	int64_t at_mono_ms;                  /* never before the time of arming */
	uint64_t seq;                        /* first armed, first run */
	struct loop_timer *timer;
};

struct loop {
	char name[16];                       /* copied, cut */
	int epoll_fd, mail_fd, sched_fd;
	int64_t now_ms;
	bool is_running;
	atomic_bool is_stopping;             /* any thread */

	_Atomic(struct loop_msg *) mail;     /* any thread: the newest letter first */
	struct loop_msg *inbox;              /* taken from mail, the oldest first */

	struct loop_watch *watches;
	uint32_t watch_count, free_slot;

	struct loop_heap_item *heap;         /* a binary heap in 1..heap_count */
	size_t heap_count, heap_cap;
	uint64_t timer_seq;                  /* of the timer armed last */

	struct loop_source sources[8];
	size_t source_count;

	struct loop_reading {                /* of what the kernel knows of this thread */
		int64_t at_us;
		int64_t delay_ns;            /* waited for a processor */
		int64_t cpu_ns;              /* had one */
		long sleeps;                 /* gave it up */
	} reading;
	int64_t turn_end_us;
	long waits;                          /* since the reading, that were long enough to be a sleep */
	struct loop_stats stats;             /* any thread reads */
};

/* loop_timer.c */
bool loop_timers_run(struct loop *l);            /* those that are due; true when there was one */
int64_t loop_timers_wait_ms(const struct loop *l); /* until the first; -1: none is armed */

#endif
