/*
 * A change of keys or access, as one store body: made from a control request, run in the store, applied to auth. Used by
 * the control socket (supervisor) and by the commands when no node runs (main).
 */
#ifndef MSWARM_SERVER_KEYOP_H
#define MSWARM_SERVER_KEYOP_H

#include "base/json.h"
#include "base/jw.h"
#include "routes/auth.h"

enum key_op_kind { KEY_OP_ADD, KEY_OP_REVOKE, KEY_OP_OPEN };

struct key_op {
	struct store_job job;              /* body set by key_op_parse; the rest by who submits it */
	enum key_op_kind kind;
	struct key_row row;                /* add */
	char text[64];                     /* add: the key itself; wiped by key_op_done */
	char target[65];                   /* revoke: id or name */
	char revoked_id[20];               /* revoke: filled by the body */
	int64_t now_wall_ms;
	void *owner;                       /* of the control socket: the connection that waits, or NULL */
	struct key_op *next;               /* of the control socket: all in flight */
};

/* From {"op":"keys.add"|"keys.revoke"|"access.open",...} (control.h). E_INVALID_VALUE, E_MISSING_PARAMETER. op is zeroed before. */
MUST_CHECK enum errc key_op_parse(const struct json *request, const char *op_name, struct key_op *op, struct err *e);
/* After the commit: bring auth to the new state. E_NO_MEMORY. */
MUST_CHECK enum errc key_op_apply(const struct key_op *op, struct auth *auth, struct err *e);
/* The members of the answer; add: with the key, the one time that it is shown. */
void key_op_answer(const struct key_op *op, struct jw *w);
void key_op_done(struct key_op *op);
bool key_op_is_name(const char *op_name);      /* one of the three */
/* "keys": [...], without hashes, and "is_keyed". */
MUST_CHECK enum errc key_op_list(struct store_reader *r, struct jw *w, struct err *e);

#endif
