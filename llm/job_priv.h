/* Shared by llm/job*.c only. */
#ifndef MSWARM_LLM_JOB_PRIV_H
#define MSWARM_LLM_JOB_PRIV_H

#include "base/jw.h"
#include "llm/job.h"

/* text(x) of llm-execution.md: a string that is not blank, trimmed; else empty. */
struct slice job_text(const struct json *j);
/* Content of a message as text (1.2), appended; what is no text is left out. */
MUST_CHECK enum errc job_content_text(const struct json *content, struct buf *out, struct err *e);
const struct json *job_request(const struct invocation *j);      /* openai_request, NULL when absent */

/* Fill je from literals; returns false, so that a check can end with it. */
bool job_fail(struct job_error *je, const char *code, bool is_pre_start, const char *fmt, ...) PRINTF_LIKE(4, 5);

#endif
