/* Shared by llm/invoke*.c only: invoke.c up to the run and the result, invoke_run.c the run. */
#ifndef MSWARM_LLM_INVOKE_PRIV_H
#define MSWARM_LLM_INVOKE_PRIV_H

#include "llm/invoke.h"

void invoke_release(struct invoke *v);             /* frees when nobody holds it any more */
void invoke_finish(struct invoke *v, enum invoke_how how, const struct err *e, int64_t retry_after_s);
void invoke_fail(struct invoke *v);                /* failure is filled */
void invoke_fail_err(struct invoke *v, const struct err *e);
void invoke_redact(struct invoke *v);
void invoke_on_linger(struct loop_timer *t);

#endif
