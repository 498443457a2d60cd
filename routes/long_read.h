/*
 * Answers that may be long, the ops summary and the lists of a job: read and written down on a thread of their own, with a
 * connection of its own, at one moment of the store. No loop is held by them.
 *
 * Threads: read_start and what follows it on the connection's loop; run on the reading thread (svc->reads).
 */
#ifndef MSWARM_ROUTES_LONG_READ_H
#define MSWARM_ROUTES_LONG_READ_H

#include "base/pool.h"
#include "jobs/show.h"
#include "routes/route.h"

struct long_read {
	struct svc *svc;
	struct store_reader *reader;
	/* Fills reply, or fails. May look at everything here, and at nothing of the request. */
	enum errc (*run)(struct long_read *r, struct err *e);
	char *job_id;                   /* heap; NULL: row is there, or none is wanted */
	struct job_row row;
	int status;
	const char *list;               /* static; name of the list that is asked for */
	size_t max;
	struct show_place after;
	size_t audit_max, audit_offset;
	struct reply reply;

	/* private to long_read.c */
	struct req *q;                  /* NULL: the client has left */
	struct pool_job job;
	struct err err;
	enum errc rc;
};

MUST_CHECK enum errc long_read_new(struct req *q, enum errc (*run)(struct long_read *, struct err *), struct long_read **ret, struct err *e);
void long_read_free(struct long_read *r);
/* From a handler: answers later. r is taken, also when this fails. */
MUST_CHECK enum errc long_read_reply(struct long_read *r, struct err *e);
/* Likewise, when reply_later was said before. Failures are answered. */
void long_read_go_on(struct long_read *r);

#endif
