/*
 * One object of GET /v1/models and GET /v1/models/{id}. Used by routes/models_*.c and routes/index.c.
 * Threads: any; pure.
 */
#ifndef MSWARM_ROUTES_MODEL_JSON_H
#define MSWARM_ROUTES_MODEL_JSON_H

#include "base/jw.h"
#include "llm/agent.h"

/* {"id","object":"model","created","owned_by":"local"}; id is what the client is to use. */
void model_json(struct jw *w, const struct agent *a, struct slice id);
/* The listed agent with this slug, or NULL. */
const struct agent *model_find(const struct agents *l, struct slice id);

#endif
