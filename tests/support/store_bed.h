/*
 * What the tests of the store share: a store in a temp folder, a test table "t", jobs that write one row of it, a
 * gate that holds the writer so that what is submitted meanwhile becomes one batch, and a loop that collects answers.
 * Threads: the test's, which is THREAD(main) and runs the loop; bodies on the store's.
 */
#ifndef MSWARM_TESTS_STORE_BED_H
#define MSWARM_TESTS_STORE_BED_H

#include "store/store_priv.h"

struct bed {
	char folder[96];
	char path[128];
	const char *vfs;
	size_t max_queued;
	struct store *s;
	struct loop *loop;
	int pending;               /* answers to come */
	atomic_int broken_calls;
	struct store_job gate;
	sem_t gate_entered, gate_open;
};

struct put {
	struct store_job job;
	struct bed *bed;
	int64_t id;
	int64_t bytes;             /* size of the row */
	enum errc fail_with;       /* what the body returns after it has written */
	bool is_careless;          /* the body returns E_OK whatever happened */
	bool saw_failure;          /* a statement of the body failed, in some run */
	int runs;
};

void bed_init(struct bed *b, const char *vfs);               /* makes the folder and the loop; the store is not open */
void bed_open(struct bed *b);                                /* the store and table t */
void bed_close(struct bed *b);                               /* the store only */
void bed_done(struct bed *b);                                /* closes, removes the folder */
enum errc bed_try_open(struct bed *b, struct err *e);        /* the store only, may fail */
void bed_path(const struct bed *b, const char *suffix, char out[160]);
int64_t bed_file_size(const struct bed *b, const char *suffix);  /* -1: absent */

void bed_hold(struct bed *b);                                /* returns once the writer is inside the gate's body */
void bed_go(struct bed *b);
void put_init(struct put *p, struct bed *b, int64_t id, int64_t bytes);
void put_submit(struct put *p);                              /* must be taken */
enum errc put_run(struct bed *b, int64_t id, int64_t bytes, struct err *e);
void bed_collect(struct bed *b);                             /* run the loop until all answers are there */
enum errc bed_sql(struct bed *b, const char *sql, struct err *e); /* on the writer's connection, in a body; sql is a literal */

bool bed_has(struct bed *b, int64_t id);                     /* seen by a fresh reader */
int64_t bed_count(struct bed *b);
bool bed_wait_state(struct bed *b, enum store_state st, int64_t limit_ms);
bool bed_wait_until(bool (*is_so)(struct bed *b), struct bed *b, int64_t limit_ms);

#endif
