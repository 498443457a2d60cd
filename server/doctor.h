/*
 * The checks of node doctor: each says what it found, and when that is wrong, how to mend it. Threads: main, blocking.
 * Source: cli-config-service.md 1.7 for the first five; the others are ours.
 */
#ifndef MSWARM_SERVER_DOCTOR_H
#define MSWARM_SERVER_DOCTOR_H

#include "server/account.h"

#define DOCTOR_CHECKS_MAX 32

struct check {
	const char *name;                  /* static */
	bool is_ok, has_message;
	char message[300];
	char mend[300];                    /* a command or a deed; empty: nothing to do */
};

struct doctor {
	struct cli *c;
	const struct config *cfg;
	struct json *running;              /* status of the node that runs, or NULL */
	struct check v[DOCTOR_CHECKS_MAX];
	size_t n;
};

/* Add one check; message NULL: none. */
struct check *doctor_add(struct doctor *d, const char *name, bool is_ok, const char *fmt, ...) PRINTF_LIKE(4, 5);
void doctor_mend(struct check *k, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* doctor.c: what this machine itself shows, without the gateway. */
void doctor_files(struct doctor *d);
void doctor_machine(struct doctor *d);
void doctor_service(struct doctor *d);
/* An HTTP date (RFC 9110, 5.6.7, the fixed form) in milliseconds since 1970; false: none. */
bool doctor_parse_date(const char *text, int64_t *ret_wall_ms);

#endif
