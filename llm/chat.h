/*
 * A chat request of the OpenAI API: read, checked, and written anew for a runner. Forwarding is structural: members are
 * copied as raw text (a seed beyond 2^53, key order inside messages, spelling of a float stay as they were); only what
 * the table of llm-execution.md 8.5 says is replaced. Unknown members are forwarded.
 *
 * Pure functions, any thread; bodies above CHAT_POOL_BYTES are handled on the pool by the caller.
 */
#ifndef MSWARM_LLM_CHAT_H
#define MSWARM_LLM_CHAT_H

#include "llm/agent.h"

#define CHAT_POOL_BYTES (256u * 1024)
#define CHAT_N_MAX 16

struct chat_req {
	struct slice text;                 /* the request, borrowed (BOM skipped); every slice below points into it */
	char *model;                       /* decoded, heap */
	struct slice last_user;            /* raw content token of the last user message, for the demo; empty when none */
	bool is_stream;
	bool wants_usage;                  /* stream_options.include_usage */
	bool has_tools;
	bool has_custom_tools;             /* one of them is of type "custom" */
	bool has_developer;                /* a message has the role developer */
	int64_t max_tokens;                /* max_completion_tokens, else max_tokens; -1: absent */
	int64_t n;                         /* 1 unless asked otherwise */
};

/* Checks all of 8.5 that does not depend on the agent. Errors name the path (param "messages[0].role"). E_BAD_JSON,
 * E_INVALID_VALUE, E_MISSING_PARAMETER, E_UNSUPPORTED_VALUE. */
MUST_CHECK enum errc chat_parse(struct slice body, struct chat_req *ret, struct err *e);
void chat_req_done(struct chat_req *r);

struct chat_build {
	const struct agent *agent;
	bool as_stream;                    /* ask the runner for a stream (with stream_options.include_usage) */
	int64_t owner_max_tokens;          /* 0: no cap */
};
/* The runner's request body. E_UNSUPPORTED_VALUE param tools / n where the agent cannot. */
MUST_CHECK enum errc chat_build(const struct chat_req *r, const struct chat_build *b, struct buf *out, struct err *e);

struct chat_usage {
	bool is_known;
	int64_t prompt_tokens, completion_tokens, total_tokens;
};

/* What a runner's refusal becomes for the client (llm-execution.md 8.3): status mapped, error normalised, text redacted
 * (log_redact) and cut at 2,000 characters. body may be JSON of any shape, HTML or nothing. */
struct chat_error {
	int status;                        /* of the reply, if its head is still to come; in a stream: by the runner's code, else 502 */
	char type[64], code[64], param[64]; /* empty code or param: null */
	char message[2048];                /* valid UTF-8 */
};
void chat_error_from_runner(int status, struct slice body, struct chat_error *ret);
void chat_error_from_err(const struct err *e, struct chat_error *ret);
/* {"error":{"message","type","param","code"}} */
MUST_CHECK enum errc chat_error_json(const struct chat_error *ce, struct buf *out, struct err *e);

#endif
