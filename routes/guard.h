/*
 * Checked before everything, on every route: Host, Origin, Sec-Fetch-Site (design.md 6). Keeps web pages and DNS
 * rebinding away from a node that listens on loopback. Pure: the caller brings the headers. Threads: any.
 */
#ifndef MSWARM_ROUTES_GUARD_H
#define MSWARM_ROUTES_GUARD_H

#include "base/config.h"

struct guard_in {
	const struct config *cfg;
	struct slice host, origin, sec_fetch_site;  /* header values, empty when absent */
	bool has_origin;
	struct slice local_address;                 /* literal of the connection's own address, "127.0.0.1" */
	int port;
	bool is_tls;
};
/* E_HOST_DENIED, E_ORIGIN_DENIED. *ret_cors: the origin is on the allow-list and answers carry CORS headers. */
MUST_CHECK enum errc guard_check(const struct guard_in *in, bool *ret_cors, struct err *e);
/* Any of Forwarded, X-Forwarded-*, Via, X-Real-IP, CF-*: a tunnel or proxy stands in front. */
bool guard_is_forwarding_header(struct slice name);
/* True when host (of a URL or a bind address) is a loopback name or literal (direct-api.md 2.2). */
bool guard_is_local_host(struct slice host);
/* The same of the host in an http(s) URL; false when it cannot be parsed. */
bool guard_is_local_url(struct slice url);
/* A direct URL is set and it is not a loopback one: what comes in may come from anywhere (design.md 6). */
bool guard_is_public(const struct config *cfg);

#endif
