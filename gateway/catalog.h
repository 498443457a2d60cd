/*
 * The catalogue that the gateway sees: model entries and their fingerprint, from one snapshot of the agents. Shared agents
 * only (design.md 6). Pure; any thread. Source: gateway.md 6, 7.
 */
#ifndef MSWARM_GATEWAY_CATALOG_H
#define MSWARM_GATEWAY_CATALOG_H

#include "base/jw.h"
#include "llm/agent.h"

#define FINGERPRINT_LEN 72                 /* "sha256:", 64 digits, NUL */

struct catalog {
	size_t count, exposed_count;
	char fingerprint[FINGERPRINT_LEN];
};

/* Would a job for it be accepted: that is what "exposed" says. */
bool catalog_is_exposed(const struct agent *a);
MUST_CHECK enum errc catalog_read(const struct agents *l, struct catalog *ret, struct err *e);
/* The array "models". */
void catalog_write(struct jw *w, const char *key, const struct agents *l);
/* The fingerprint itself, over what it looks at of each entry. Sorts the rows. Texts are borrowed; NULL: none. */
struct catalog_row {
	const char *name, *provider, *adapter, *slug, *model_id;
	const char *capabilities;          /* sorted JSON array; NULL: [] */
	const char *health;
	bool is_exposed;
	size_t at;                         /* place before sorting */
};
MUST_CHECK enum errc catalog_fingerprint(struct catalog_row *rows, size_t n, char out[FINGERPRINT_LEN], struct err *e);
/* Order of two key strings as the reference sorts them: <0, 0, >0. */
int catalog_collate(struct slice a, struct slice b);

#endif
