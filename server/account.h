/*
 * What commands do with the account's gateway: one request and its answer, the token, a look at the models, a heartbeat. Beside a
 * running node they ask that node instead (cli_control), which knows what it does.
 *
 * Threads: main, blocking; account_discover runs a thread of its own for as long as it looks.
 */
#ifndef MSWARM_SERVER_ACCOUNT_H
#define MSWARM_SERVER_ACCOUNT_H

#include "gateway/exchange.h"
#include "gateway/heartbeat.h"
#include "server/cli.h"

struct account {
	const struct config *cfg;          /* borrowed */
	const char *base;                  /* borrowed; NULL: the configured gateway */
	struct loop *loop;
	struct httpc *http;
	struct secret token;
	bool is_enrolled_now;
	/* of the last request */
	struct buf answer;
	int status;                        /* 0: no answer */
	char date[40];                     /* its Date header, or empty */
};

MUST_CHECK enum errc account_open(const struct config *cfg, struct account *ret, struct err *e);
void account_close(struct account *a);
/* The gateway's base, then path; api_key or token may be empty. E_OK: a 2xx, its body is in answer. take_body may be NULL (GET). */
MUST_CHECK enum errc account_call(struct account *a, const char *path, struct slice token, struct slice api_key, struct buf *take_body, struct err *e);
/* The token: configured, or of node.key, or by enrolment, which is kept. Texts of cli-config-service.md 1.12. */
MUST_CHECK enum errc account_join(struct account *a, struct err *e);

/* What there is on this machine; waits for every source, at most twice the request timeout. */
struct account_found {
	struct agents *agents;             /* agents_unref */
	struct inventory_discovery discovery;
	struct capabilities caps;
};
MUST_CHECK enum errc account_discover(const struct config *cfg, struct account_found *ret, struct err *e);

/* One heartbeat of a node that does not run. told: as 1.11 has it. */
struct account_beat {
	bool is_online;
	size_t exposed_count;
	struct buf told;                   /* buf_done */
};
MUST_CHECK enum errc account_beat(struct account *a, const struct account_found *f, const char *node_id, struct account_beat *ret, struct err *e);

/* Tell the gateway that the node is taken away; the token is the configured one. manager: "systemd", NULL: none. */
MUST_CHECK enum errc account_goodbye(struct account *a, const char *manager, struct err *e);
/* The node id, or the reference's refusal. */
MUST_CHECK enum errc account_need_node(const struct config *cfg, struct err *e);
/* Print a JSON text with two blanks a level. Exit code. */
int account_print(struct slice json);

#endif
