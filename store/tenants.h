/*
 * Table "tenants": whose jobs wait, and whose turn it is. A row while jobs of the tenant wait, with their number and the
 * number of the claim that was its last.
 *
 * Creates of one batch are mostly of one tenant: how many more wait is kept in store_tx and written when something else is asked
 * of the table, at the latest before the commit.
 *
 * Threads: bodies of the writer.
 */
#ifndef MSWARM_STORE_TENANTS_H
#define MSWARM_STORE_TENANTS_H

#include "store/store.h"

/* A job of it waits. Who comes anew comes last: behind all that were served so far. */
MUST_CHECK enum errc tenants_more_tx(struct store_tx *t, const char *tenant_id, struct err *e);
/* One waits no longer. */
MUST_CHECK enum errc tenants_less_tx(struct store_tx *t, const char *tenant_id, struct err *e);
/* It goes to the end of the turn. */
MUST_CHECK enum errc tenants_served_tx(struct store_tx *t, const char *tenant_id, struct err *e);
/* What is kept is written: before the table is read, and by the writer before the commit. */
MUST_CHECK enum errc tenants_write_tx(struct store_tx *t, struct err *e);

#endif
