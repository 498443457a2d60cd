/*
 * A bed for tests of the inventory: one loop, an HTTP client, small HTTP servers on that loop (127.0.0.1, any port), a
 * temporary folder with config.json. One thread.
 */
#ifndef MSWARM_TESTS_INVENTORY_BED_H
#define MSWARM_TESTS_INVENTORY_BED_H

#include "base/config.h"
#include "llm/inventory.h"

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
void bed_write(struct bed *b, const char *name, const char *text, mode_t mode);
const char *bed_path(struct bed *b, const char *name);
void bed_open(struct bed *b);
void bed_load(struct bed *b, const char *json);
void bed_new(struct bed *b);
void bed_wait(struct bed *b, bool (*is_done)(struct bed *b));
bool bed_is_woken(struct bed *b);
void bed_start(struct bed *b);
void bed_close(struct bed *b);
bool bed_has_hits(struct bed *b);
bool bed_is_published(struct bed *b);
int64_t bed_revision(struct bed *b);
void bed_next(struct bed *b);
void bed_assert_list(struct bed *b, const char *want);
const struct agent *bed_agent(struct agents *l, const char *slug);
void bed_load_port(struct bed *b, const char *fmt, int port);
void bed_on_woken(struct loop_msg *m);

#endif
