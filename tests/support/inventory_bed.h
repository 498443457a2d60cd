/*
 * A bed for tests of the inventory: one loop, an HTTP client, small HTTP servers on that loop (127.0.0.1, any port), a
 * temporary folder with config.json. One thread.
 */
#ifndef MSWARM_TESTS_INVENTORY_BED_H
#define MSWARM_TESTS_INVENTORY_BED_H

#include "base/config.h"
#include "llm/inventory.h"

#include <sys/types.h>

/* A server answers by a table of paths (404 for others); a stalled one takes requests and says nothing. */
struct answer {
	const char *path;
	int status;
	const char *body;
};

struct conn {
	struct fake *fake;
	int fd;
	loop_watch_id watch;
	struct buf in;
};

#define CONNS_MAX 64

struct fake {
	struct loop *loop;
	int fd;
	int port;
	loop_watch_id watch;
	const struct answer *answers;      /* ends at a NULL path */
	bool is_stalled;
	int hits;
	char last[2048];                   /* the last request's head */
	struct conn conns[CONNS_MAX];
};

struct bed {
	char dir[64];
	struct loop *loop;
	struct httpc *client;
	struct config *cfg;
	struct inventory *inv;
	struct fake fake[3];
	struct loop_timer tick;
	bool (*is_done)(struct bed *b);
	int64_t deadline_mono_ms, want;
	struct inventory_waiter waiter;
	int woken;
};

void fake_open(struct fake *f, struct loop *loop, const struct answer *answers);
void fake_close(struct fake *f);

void bed_open(struct bed *b);                                    /* folder, loop, client; no server, no inventory */
void bed_close(struct bed *b);                                   /* stops, frees, removes all */
const char *bed_path(struct bed *b, const char *name);           /* in the folder; valid until the next call */
void bed_write(struct bed *b, const char *name, const char *text, mode_t mode);
/* Make the config of these members of config.json (text without the braces). Sources that it does not mention are off,
 * refreshes by timer too. In bed_load_port each % is the port. */
void bed_load(struct bed *b, const char *json);
void bed_load_port(struct bed *b, const char *fmt, int port);
void bed_new(struct bed *b);                                     /* the inventory */
void bed_start(struct bed *b);                                   /* starts it and waits for the end of its first round */
void bed_next(struct bed *b);                                    /* asks for a round and waits for a new list */
void bed_round(struct bed *b);                                   /* asks for a round and waits for the next request at fake[0] and its end */
int64_t bed_revision(struct bed *b);
/* The list as lines "source:slug/health flags"; flags: x exposed, s shared, e embedding, l listed. */
void bed_assert_list(struct bed *b, const char *want);
const struct agent *bed_agent(struct agents *l, const char *slug); /* fails the test when there is none */

/* Run the loop until is_done; fails the test after ten seconds. The others are what one may wait for. */
void bed_wait(struct bed *b, bool (*is_done)(struct bed *b));
bool bed_is_woken(struct bed *b);                                /* b->waiter's letter came */
bool bed_has_hits(struct bed *b);                                /* fake[0] was asked want times, and nothing is on the way */
bool bed_is_published(struct bed *b);                            /* a list of revision want or later is out */
void bed_on_woken(struct loop_msg *m);                           /* for b->waiter */

#endif
