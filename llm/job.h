/*
 * An invocation job (R3 and, later, relayed jobs): read from its JSON, turned into a chat request, its result written.
 * llm-execution.md 1 (all), 3.3, 4.1-4.3, 1.7-1.8; design.md 6 "jobs that ask for tools".
 *
 * Pure functions; any thread. Owns: job_done.
 */
#ifndef MSWARM_LLM_JOB_H
#define MSWARM_LLM_JOB_H

#include "llm/chat.h"

struct invocation {
	struct json *tree;                 /* the whole job; all slices but text borrow from it */
	struct slice text;                 /* the body as given: borrowed from the caller, who keeps it as long as the invocation */
	struct slice job_id, request_id, node_id, request_model;   /* empty when absent or no string; untrimmed */
	struct slice agent_slug, source_agent_slug, model;         /* the same, trimmed */
	bool is_ollama;                    /* provider is exactly "ollama": the raw path */
	bool is_stream;                    /* openai_request.stream === true */
	bool wants_tools;                  /* design.md 6: workspace.root, docdex object, or non-empty allowed_tools, and allow_tools not false */
	bool allows_tools;                 /* policy.allow_tools is not literal false: for metadata.mode */
	bool docdex_required;
	int64_t max_runtime_ms;            /* policy.max_runtime_ms as floor of a finite number >= 0; -1 absent */
	int64_t max_output_tokens;         /* policy, then openai_request.max_tokens; -1 absent */
};

/* What the router must know before the token's claims are compared. E_BAD_REQUEST when body is no object. */
MUST_CHECK enum errc invocation_parse(struct slice body, struct invocation *ret, struct err *e);
void invocation_done(struct invocation *j);

/* Failure of a job in its own vocabulary (1.8). */
struct job_error { char code[48]; char message[2048]; bool is_pre_start; };
/* Order of 1.6 without agent lookup: node id (is_wrong_node: result without timing), empty prompt. E_OK or filled *je. */
bool invocation_check(const struct invocation *j, struct slice node_id, struct job_error *je, bool *ret_is_wrong_node);
/* 1.5 and tools policy, after the agent is resolved. has_attached_key: the header was there. */
bool invocation_check_agent(const struct invocation *j, const struct agent *a, bool has_attached_key, struct job_error *je);
void job_error_from_err(const struct err *e, struct job_error *je);              /* agents_resolve_job's and transport errors */
void job_error_from_chat(const struct chat_error *ce, struct job_error *je);     /* a runner's refusal: upstream_error, timeout */

/* The smaller of the job's own limit and the node's; 0 or absent: the node's. */
int64_t invocation_limit_ms(const struct invocation *j, int64_t job_timeout_ms);
/* The OpenAI chat body that chat_parse takes (messages as they are, roles and parameters kept; stream as asked). */
MUST_CHECK enum errc invocation_chat_body(const struct invocation *j, struct buf *out, struct err *e);
/* Raw Ollama request of 3.3 (stream: false). */
MUST_CHECK enum errc invocation_ollama_body(const struct invocation *j, struct buf *out, struct err *e);

struct job_result {
	const struct invocation *job;
	const struct agent *agent;         /* NULL before it was resolved, and on the raw path */
	const struct job_error *error;     /* NULL: success */
	struct slice completion;           /* success: the joined or fixed completion (completion_finish), or Ollama's raw reply */
	const struct chat_usage *usage;
	bool is_started, is_wrong_node;
	int64_t latency_ms;
	int64_t now_wall_ms;
	struct slice node_id;              /* relayed jobs; empty: not written */
	struct slice stream_events;        /* JSON array of the chunks that could not be posted; empty: not written */
};
/* Is this a reply of Ollama's /api/chat? Everything below that takes one relies on it. */
bool job_is_ollama_reply(struct slice reply);
/* 1.7: the whole result object; openai_response by 4.3 with true finish_reason, metadata, progress_events (4.4). */
MUST_CHECK enum errc job_result_json(const struct job_result *r, struct buf *out, struct err *e);
/* SSE frames of the direct stream (4.2): the error frame, and for the raw path content and stop chunks. */
MUST_CHECK enum errc job_error_frame(const struct job_error *je, struct buf *out, struct err *e);
MUST_CHECK enum errc job_ollama_chunks(const struct invocation *j, struct slice reply, int64_t now_wall_ms, struct buf *out, struct err *e);

#endif
