/*
 * An event loop: one epoll set, timers, a mailbox, and sources that have their own event interface (libmicrohttpd,
 * curl). One thread runs it; only loop_post and loop_stop may be called by others.
 *
 * Before it sleeps, a loop runs its mailbox, its due timers and every source until none has work (design.md 5.4).
 * Messages are embedded in the objects that send them, so posting allocates nothing and cannot fail.
 */
#ifndef MSWARM_BASE_LOOP_H
#define MSWARM_BASE_LOOP_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdint.h>

struct loop;

/* A letter to a loop. The sender owns the memory until fn runs; it may be posted again from then on, never twice at once. */
struct loop_msg {
	struct loop_msg *next;
	void (*fn)(struct loop_msg *m);      /* THREAD(the receiving loop) */
};

/* A timer lives in the object that it is about. */
struct loop_timer {
	void (*fn)(struct loop_timer *t);
	int64_t at_mono_ms;
	size_t heap_pos;                     /* 0 = not armed */
};

/* A watch is known by slot and generation, never by pointer: a late event for a deleted watch finds nobody. 0 is none. */
typedef uint64_t loop_watch_id;
typedef void loop_watch_fn(void *arg, uint32_t epoll_events);

struct loop_source {
	const char *name;
	bool (*run)(void *arg);              /* do what is due; true when anything was done */
	int64_t (*timeout_ms)(void *arg);    /* ms until run is due by time: 0 = now, -1 = no time limit */
	void *arg;
};

#define LOOP_STALLS_KEPT 8

struct loop_stats {                          /* written by the loop, read by anybody */
	atomic_int_fast64_t beat_mono_ms;    /* last time the loop went to sleep or woke */
	atomic_int_fast64_t stall_max_us;    /* longest turn since start, less the time in which this thread had no processor, though it wanted one */
	atomic_int_fast64_t stall_max_wall_ms; /* when that one ended */
	atomic_int_fast64_t stall_5ms_count; /* turns above 5 ms by the same measure */
	struct {
		atomic_int_fast64_t wall_ms, own_us;         /* when it ended, how long it was */
	} stalls[LOOP_STALLS_KEPT];          /* the last of them: the nth at n % LOOP_STALLS_KEPT */
	atomic_int_fast64_t turn_max_us;     /* the same on the wall clock, waiting for a processor included */
	atomic_int_fast64_t turns;
};

MUST_CHECK enum errc loop_new(const char *name, struct loop **ret, struct err *e);
void loop_free(struct loop *l);                                  /* not while it runs; NULL is fine */
void loop_run(struct loop *l);                                   /* returns after loop_stop */
void loop_stop(struct loop *l);                                  /* any thread */
void loop_post(struct loop *l, struct loop_msg *m);              /* any thread; wakes the loop once */
/* Several at once, chained by next from the newest to the oldest: they are all there when the loop wakes. */
void loop_post_all(struct loop *l, struct loop_msg *newest, struct loop_msg *oldest);
const struct loop_stats *loop_stats(const struct loop *l);       /* any thread */
const char *loop_name(const struct loop *l);

/* THREAD(the loop), or before loop_run: */
MUST_CHECK enum errc loop_watch_add(struct loop *l, int fd, uint32_t epoll_events, loop_watch_fn *fn, void *arg, loop_watch_id *ret, struct err *e);
MUST_CHECK enum errc loop_watch_mod(struct loop *l, loop_watch_id id, uint32_t epoll_events, struct err *e);
void loop_watch_del(struct loop *l, loop_watch_id id);           /* before the fd is closed; 0 and stale ids are fine */
void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_mono_ms); /* arms or moves; allocation failure aborts */
void loop_timer_cancel(struct loop *l, struct loop_timer *t);
MUST_CHECK enum errc loop_source_add(struct loop *l, struct loop_source src, struct err *e); /* at most 8 */
int64_t loop_now_ms(const struct loop *l);                       /* the turn's monotonic time, no system call */

#endif
