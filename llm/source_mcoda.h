/*
 * Private to llm/source_mcoda*.c: reading what the mcoda command says. Pure but for the upstreams of the part that are
 * taken over. THREAD(supervisor).
 */
#ifndef MSWARM_LLM_SOURCE_MCODA_H
#define MSWARM_LLM_SOURCE_MCODA_H

#include "llm/pick.h"
#include "llm/source.h"

/* A runner that mcoda has no word on, and how it may be looked at. */
struct mcoda_hint {
	size_t at;                         /* index of its agent */
	char *health_path, *models_path;   /* NULL: not set */
};
struct mcoda_hints {
	struct mcoda_hint v[16];
	size_t n;
};
void mcoda_hints_done(struct mcoda_hints *h);

/* llm-execution.md 2.1-2.6. Entries that are no agents are left out. E_UPSTREAM, E_BAD_JSON, E_NO_MEMORY. */
MUST_CHECK enum errc mcoda_read(struct source_part *p, struct slice out, struct agent_vec *v,
		struct mcoda_hints *hints, struct err *e);

/* What the catalogue says of an entry (gateway.md 7.1, 7.2): fills a->entry_*. local: settings of a local runner, else NULL. */
MUST_CHECK enum errc mcoda_catalog(const struct json *entry, const struct record *local, struct agent *a, struct err *e);

#endif
