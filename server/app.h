/*
 * The composition root: everything that a node is, made in order, stopped in reverse. Wires, holds no logic.
 * Threads: main. The loops, the supervisor's loop, the pool, the store and the log have their own.
 */
#ifndef MSWARM_SERVER_APP_H
#define MSWARM_SERVER_APP_H

#include "routes/route.h"
#include "server/http.h"

struct app;

enum app_kind { APP_SERVE, APP_RUN, APP_DAEMON };      /* which ready line (cli-config-service.md 1.10) */

struct app_opts {
	const struct config *cfg;          /* borrowed; outlives the app */
	const char *program;               /* as it was called, for the commands that the banner shows; borrowed */
	enum app_kind kind;
	bool is_verbose;                   /* --verbose: the banner also when standard output is no terminal */
};

/* State folder, lock, store, secret, sockets, threads; listens on return. Errors name what failed. */
MUST_CHECK enum errc app_new(const struct app_opts *o, struct app **ret, struct err *e);
/* Ready line, sd_notify; then waits for SIGTERM or SIGINT; graceful stop. *ret_exit: 0, or 1 when the store broke. */
MUST_CHECK enum errc app_run(struct app *a, int *ret_exit, struct err *e);
void app_free(struct app *a);              /* NULL is fine */
struct svc *app_svc(struct app *a);

#endif
