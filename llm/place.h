/*
 * Where a URL points: enough of it to tell whether two URLs name one server, and whether it is this machine or a
 * private network. Slices point into the URL given. Threads: any.
 */
#ifndef MSWARM_LLM_PLACE_H
#define MSWARM_LLM_PLACE_H

#include "base/slice.h"

struct place {
	bool is_tls;
	struct slice host;                 /* brackets of an IPv6 literal taken off */
	int64_t port;                      /* the scheme's when none is written */
	struct slice origin;               /* "http://host:port" as written */
	struct slice path;                 /* from its first slash, no query, no fragment; may be empty */
	bool has_tail;                     /* a query or a fragment follows the path */
};

/* False when url is no http(s) URL that the node would call (httpc_url_check). */
bool place_parse(struct slice url, struct place *ret) MUST_CHECK;
/* This machine by its literal name: localhost, 127/8, ::1, and the wildcard addresses, which reach it too. */
bool place_is_loopback(const struct place *p);
/* Loopback, RFC 1918, 100.64/10, link-local, ULA, a single label, or a name that only local networks use. */
bool place_is_private(const struct place *p);

#endif
