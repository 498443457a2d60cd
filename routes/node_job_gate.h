/*
 * What stands before a direct LLM job (R3): secret, token, media type, claims. direct-api.md 2.2, 2.4, 2.7.
 * Used by routes/node_job_create.c. Threads: the connection's loop; node_job_claims any.
 */
#ifndef MSWARM_ROUTES_NODE_JOB_GATE_H
#define MSWARM_ROUTES_NODE_JOB_GATE_H

#include "llm/job.h"
#include "routes/route.h"

/* G3, G4, G5, then drain. The caller owns *ret (token_claims_done) on success. */
MUST_CHECK enum errc node_job_gate(struct req *q, struct token_claims *ret, struct err *e);
/* Is the body one that can be read as JSON? False: rep is filled (or, with *ret_rc, an error of the row's shape). */
bool node_job_media(struct req *q, struct reply *rep, enum errc *ret_rc, struct err *e);
/* The reference's framework body for a body that is no JSON. */
void node_job_bad_json(struct reply *rep);
/* The four checks of 2.7, E_BAD_REQUEST with the text of the first that fails. */
MUST_CHECK enum errc node_job_claims(const struct token_claims *c, const struct invocation *j, struct err *e);
/* The owner's key that came along, or empty (llm-execution.md 1.4). */
struct slice node_job_attached_key(struct req *q);

#endif
