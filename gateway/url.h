/*
 * Where requests to the gateway go, and whether the node's token may go along. Pure; any thread.
 * Source: gateway.md 1.2; its weaknesses 17 (tokens for other hosts) and 18 (a job id of dots).
 */
#ifndef MSWARM_GATEWAY_URL_H
#define MSWARM_GATEWAY_URL_H

#include "base/config.h"

/* base + path, as it stands. E_INVALID_VALUE: the base is no URL that may be called (scheme, plain http to another machine). */
MUST_CHECK enum errc gateway_url(const struct config *cfg, const char *base, const char *path, struct buf *out, struct err *e);
/*
 * A lifecycle path or template with the job id put in (empty: the template has none), against the base or as an absolute URL.
 * E_INVALID_VALUE: the id makes no path, or the result is no URL that may be called. E_FORBIDDEN: another host, and not in
 * gateway_hosts. Appends to out.
 */
MUST_CHECK enum errc gateway_url_job(const struct config *cfg, const char *base, const char *template, struct slice job_id, struct buf *out, struct err *e);

#endif
