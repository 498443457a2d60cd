/* A job's events or logs as they happen. Called by routes/generic_job_get.c on the connection's loop. */
#ifndef MSWARM_ROUTES_FOLLOW_H
#define MSWARM_ROUTES_FOLLOW_H

#include "routes/generic.h"

bool follow_is_asked(struct req *q);    /* ?follow=1 */
MUST_CHECK enum errc follow_start(struct req *q, struct reply *rep, const struct job_row *row, bool is_logs, struct err *e);

#endif
