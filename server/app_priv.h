/*
 * Shared by server/app*.c only: the running node.
 *   app_boot.c   made in order       app.c        ready line, waiting, freeing in reverse
 *   app_stop.c   the graceful stop   app_super.c  the supervisor's periodic work     app_banner.c  words for people
 */
#ifndef MSWARM_SERVER_APP_PRIV_H
#define MSWARM_SERVER_APP_PRIV_H

#include "base/httpc.h"
#include "base/pool.h"
#include "base/thread.h"
#include "gateway/gateway.h"
#include "jobs/supervisor.h"
#include "llm/admission.h"
#include "llm/inventory.h"
#include "routes/accounting.h"
#include "routes/auth.h"
#include "server/app.h"
#include "server/control.h"

#include <sys/resource.h>

#define APP_LOOPS_MAX HTTP_DAEMONS_MAX

/* What wakes main; bits of struct app.events. */
enum app_event { APP_BROKEN = 1, APP_QUIESCED = 2, APP_LOOPS_ENDED = 4, APP_INVENTORY = 8, APP_GATEWAY_ENDED = 16 };

struct app_loop {
	struct app *a;
	char name[16];                     /* of the loop, which borrows it */
	struct loop_ctx *ctx;
	struct http *http;
	struct thread thread;
	struct loop_msg stop_msg, end_msg, trim_msg;
	atomic_bool is_trim_posted;        /* trim_msg is on its way */
	struct loop_timer check;           /* THREAD(loop), while stopping */
	int64_t grace_ms;                  /* set by main before stop_msg is posted */
	int64_t deadline_mono_ms;
	unsigned idle_checks;
	bool is_told, is_cut;
	int64_t stalls_seen;               /* THREAD(supervisor), then main */
};

struct app {
	struct app_opts o;
	const struct config *cfg;
	struct svc svc;
	struct http_shared shared;
	int lock_fd, listen_fd, wake_fd, signal_fd;
	atomic_uint events;
	atomic_uint loops_quiesced, loops_ended;
	struct secret secret;
	char *node_id;
	struct rlimit nofile_before;       /* for long-running children, which get the limit that we were given */
	bool has_log, has_httpc;

	struct loop_ctx ctxs[APP_LOOPS_MAX];
	struct app_loop loops[APP_LOOPS_MAX];
	unsigned loop_count;

	struct loop *super;
	struct httpc *super_client;
	struct thread super_thread;
	struct store_reader *super_reader;
	struct accounting *gateway_books;  /* THREAD(gateway) */
	struct control *control;
	struct loop_msg super_start_msg, super_stop_msg;
	struct inventory_waiter first_inventory;
	/* THREAD(supervisor): app_super.c */
	struct loop_timer tick;
	int64_t load_peak, resident_floor, fell_mono_ms, stalls_told_mono_ms;
	struct pool_job trim_job;
	bool is_trimming, is_trim_due;
};

/* Tell main; any thread. */
void app_wake(struct app *a, enum app_event what);

/* app_boot.c: fills *a up to the running threads. On failure app_free copes with what is there. */
MUST_CHECK enum errc app_boot(struct app *a, struct err *e);
void app_loop_run(void *arg);              /* thread function: struct app_loop */

/* app.c: wait on main for events or a signal, at most timeout_ms (-1: no limit). Gives the event bits, adds to *signals. */
unsigned app_wait(struct app *a, int64_t timeout_ms, unsigned *signals);

/* app_stop.c, on main: ends with no thread of a running. grace_ms: how long requests may go on. signals: seen so far. */
void app_stop(struct app *a, int64_t grace_ms, unsigned signals);
void app_on_stop(struct loop_msg *m);      /* THREAD(loop): letters of struct app_loop */
void app_on_end(struct loop_msg *m);
void app_on_trim(struct loop_msg *m);

/* app_super.c */
void app_super_run(void *arg);             /* thread function: struct app */
void app_on_super_start(struct loop_msg *m);
void app_on_super_stop(struct loop_msg *m);
void app_tell_stalls(struct app *a);       /* THREAD(supervisor), or main when that has ended */

/* app_banner.c, on main */
void app_print_ready(struct app *a);
void app_print_banner(struct app *a);

#endif
