/*
 * One model runner: where it listens, how it is spoken to, and how it fares. Shared by all agents that it serves and by
 * all loops; lives over refreshes of the inventory, because its breaker and its count of running requests do.
 *
 * Owns: reference counted; the inventory holds one, each running call one. Threads: the members above "live" are const
 * after upstream_new; those below are atomic, or guarded as they say.
 */
#ifndef MSWARM_LLM_UPSTREAM_H
#define MSWARM_LLM_UPSTREAM_H

#include "base/buf.h"
#include "base/thread.h"
#include "llm/breaker.h"

#include <stdatomic.h>

enum upstream_kind {
#define UPSTREAM_KIND(id, name, aliases, keeps_idle, joins_streams, help) UPSTREAM_##id,
#include "llm/upstreams.def"
#undef UPSTREAM_KIND
	UPSTREAM__COUNT
};

struct upstream_ops {                      /* one row of upstreams.def */
	const char *name, *aliases, *help;
	bool keeps_idle, joins_streams;
};
const struct upstream_ops *upstream_ops(enum upstream_kind kind);
/* By name or alias, any case, blanks trimmed. */
bool upstream_kind_parse(struct slice name, enum upstream_kind *ret) MUST_CHECK;

struct upstream {
	atomic_uint refs;
	char *name;                        /* "lab", "ollama", "127.0.0.1:8080", or the agent's slug (mcoda) */
	enum upstream_kind kind;
	char *base_url;                    /* as configured, no slash at its end: "http://127.0.0.1:8080/v1" */
	char *chat_url;                    /* full URL of chat/completions */
	char *ollama_chat_url;             /* <base>/api/chat, only for kind OLLAMA, else NULL */
	char **headers;                    /* "name: value" lines sent with every request, authorization included; NULL-terminated */
	int64_t max_concurrent;            /* 1.. */
	int64_t connect_ms, first_byte_ms, idle_ms; /* resolved limits */
	int64_t total_ms;                  /* 0: none */
	/* live */
	struct breaker breaker;            /* guards itself */
	atomic_int running;                /* calls that hold a slot; changed under admission's mutex */
	atomic_bool refuses_tool_streams;  /* learned: "Cannot use tools with stream" (corpus, llama.cpp b4748) */
};

struct upstream_spec {                     /* all borrowed, copied */
	const char *name, *base_url;
	enum upstream_kind kind;
	const char *const *headers;        /* may be NULL */
	int64_t max_concurrent, connect_ms, first_byte_ms, idle_ms, total_ms;
};
/* E_INVALID_VALUE when base_url is no http(s) URL. chat_url by llm-execution.md 3.1 (relative reference to base + "/"). */
MUST_CHECK enum errc upstream_new(const struct upstream_spec *s, struct upstream **ret, struct err *e);
struct upstream *upstream_ref(struct upstream *u);
void upstream_unref(struct upstream *u);   /* NULL is fine; wipes the headers of the last reference */

#endif
