/* A job's events or logs as they happen. Called by routes/generic_job_get.c on the connection's loop. */
#ifndef MSWARM_ROUTES_FOLLOW_H
#define MSWARM_ROUTES_FOLLOW_H

#include "routes/generic.h"

enum follow_kind {
	FOLLOW_EVENTS, FOLLOW_LOGS,     /* of a lifecycle job: with ids, to be resumed; the last words are how it stands */
	FOLLOW_RUN,                     /* of a direct job (R4): without ids, ends with [DONE]; who leaves ends the job */
};

bool follow_is_asked(struct req *q);    /* ?follow=1 */
/* Begins the streamed answer, in a handler or after reply_later. */
MUST_CHECK enum errc follow_start(struct req *q, const struct job_row *row, enum follow_kind kind, struct err *e);

#endif
