/*
 * What is common to all routes: match, guard, access, preflight, error shape, access log. The http_ops of server/http.c.
 * Threads: the connection's loop.
 */
#ifndef MSWARM_SERVER_DISPATCH_H
#define MSWARM_SERVER_DISPATCH_H

#include "server/http.h"

extern const struct http_ops dispatch_ops;

#endif
