/*
 * Who wants to know when a job changes: a letter to their loop, one at a time, after the commit. What changed they read
 * from the store themselves, so a letter carries nothing and none is ever missed by much.
 *
 * A subscription is embedded in its owner. Subscribe, then look; when the letter comes, subs_taken, then look again.
 *
 * Threads: subs_add, subs_taken, subs_remove on the owner's loop; subs_publish any. One leaf mutex, which a letter's arrival does
 * not need: a loop would wait for whoever holds it and has lost its processor.
 */
#ifndef MSWARM_JOBS_SUBS_H
#define MSWARM_JOBS_SUBS_H

#include "base/loop.h"

struct subs;

struct sub {
	struct loop *loop;              /* set by the owner, as msg.fn */
	struct loop_msg msg;
	int64_t job_key;
	atomic_bool is_posted;          /* a letter is on its way; set under the table's lock only */
	struct sub *next;               /* GUARDED_BY the table */
};

MUST_CHECK enum errc subs_new(struct subs **ret, struct err *e);
void subs_free(struct subs *s);                         /* NULL is fine */
void subs_add(struct subs *s, struct sub *v);
void subs_taken(struct sub *v);                         /* first thing when the letter is there */
bool subs_remove(struct subs *s, struct sub *v);        /* true: a letter is on its way, the owner lives until it is there */
void subs_publish(struct subs *s, int64_t job_key);     /* SUBS_ALL: everybody */

#define SUBS_ALL INT64_MIN

#endif
