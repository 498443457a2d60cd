/*
 * One request to the gateway and its whole answer. Bounded in time and size, no redirects, no proxy (base/httpc).
 *
 * Threads: the loop's of the client; done never from inside exchange_start. Owns: the body, until done or cancel.
 * Source: gateway.md 1 (headers, success, failure texts).
 */
#ifndef MSWARM_GATEWAY_EXCHANGE_H
#define MSWARM_GATEWAY_EXCHANGE_H

#include "base/httpc.h"
#include "base/json.h"

#define EXCHANGE_ANSWER_MAX (1u << 20)

struct exchange;

enum exchange_kind {
	EXCHANGE_OK,                       /* 2xx; the body may be empty or no JSON: taken is taken */
	EXCHANGE_STATUS,                   /* an answer that says no */
	EXCHANGE_LOST,                     /* none; the request may have been taken */
	EXCHANGE_UNSENT,                   /* none, and no byte of the request left */
};

struct exchange_answer {
	enum exchange_kind kind;
	int status;                        /* 0 without an answer */
	struct slice body;                 /* borrowed for the call */
	char date[40];                     /* the Date header, or empty */
	int64_t retry_after_ms;            /* what the gateway asked for, 0: nothing; at most an hour */
	struct err err;                    /* not EXCHANGE_OK: "request_failed:<status>:<200 characters>", "fetch failed: ...", ... */
};

struct exchange_req {
	struct httpc *client;
	const char *method;
	const char *url;
	struct slice token;                /* bearer; empty: none */
	struct slice api_key;              /* x-api-key; empty: none */
	struct buf *take_body;             /* JSON; empty afterwards; NULL: none */
	int64_t timeout_ms;                /* the whole exchange */
	size_t max_answer;                 /* 0: EXCHANGE_ANSWER_MAX */
	void (*done)(void *ctx, const struct exchange_answer *a);
	void *ctx;
};

MUST_CHECK enum errc exchange_start(const struct exchange_req *r, struct exchange **ret, struct err *e);
void exchange_cancel(struct exchange *x);              /* no callback follows; NULL is fine */
/* Is it worth another try later? Timeouts, too many, server errors, redirects (some proxy's), no answer. */
bool exchange_is_transient(const struct exchange_answer *a);

#endif
