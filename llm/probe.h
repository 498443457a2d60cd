/*
 * One look at a model runner, by llm-execution.md 2.7: its health path if it has one, else its model list, else one
 * token of chat. Each request is limited; a runner that cannot even be connected to is not asked again in other ways.
 *
 * Threads: the loop of the client; done is called from that loop, never from inside probe_start.
 */
#ifndef MSWARM_LLM_PROBE_H
#define MSWARM_LLM_PROBE_H

#include "base/httpc.h"
#include "base/json.h"
#include "llm/agent.h"

struct probe;

struct probe_result {
	enum agent_health health;          /* HEALTHY, DEGRADED or UNREACHABLE */
	const char *reason;                /* static text, "" when healthy */
	const struct json *list;           /* array of models as the runner gave it, borrowed for the call; NULL: none */
	bool is_answered;                  /* some HTTP answer came, whatever its status */
	bool is_timeout;                   /* the last request ran into its limit */
	const struct err *e;               /* of the last request that failed; what is "" otherwise */
};

struct probe_req {
	struct httpc *client;
	const char *base_url;              /* no slash at its end; copied as all strings here */
	const char *const *headers;        /* may be NULL */
	const char *health_path, *models_path; /* NULL: not set */
	const char *model;                 /* must be listed, else degraded; NULL: any list will do */
	const char *chat_url;              /* NULL: no chat as a last resort */
	int64_t limit_ms;                  /* of each request */
	bool is_fresh;                     /* connection of its own (runners that serve a connection per thread) */
	void (*done)(void *ctx, const struct probe_result *r);
	void *ctx;
};

MUST_CHECK enum errc probe_start(const struct probe_req *q, struct probe **ret, struct err *e);
void probe_cancel(struct probe *p);        /* NULL is fine; no callback follows */

/* The models of a list reply: data[] or models[]; NULL when it is none. */
const struct json *probe_models(const struct json *reply);
struct slice probe_model_id(const struct json *item); /* the string itself, or its id or name; else empty */
bool probe_lists(const struct json *models, struct slice id);

#endif
