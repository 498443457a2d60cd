/* The public projection of what this node can do (direct-api.md 2.6): no names, versions, sizes, ids. Any thread. */
#ifndef MSWARM_ROUTES_CAPABILITIES_H
#define MSWARM_ROUTES_CAPABILITIES_H

#include "base/jw.h"
#include "routes/route.h"

MUST_CHECK enum errc capabilities_json(struct jw *w, const char *key, const struct svc *svc, struct err *e);

#endif
