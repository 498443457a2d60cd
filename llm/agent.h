/*
 * Agents: names that clients may ask for, each with the upstream and the model behind it. A list is a snapshot: const
 * once published, reference counted; a request keeps the one that it was resolved in.
 *
 * Sources: the mcoda command, Ollama, "upstreams" of config.json, discovery of loopback ports, the built-in demo.
 * Rules of exposure and resolution: llm-execution.md 2.3, 2.4, 8.4; design.md 6.
 *
 * Threads: any, once published.
 */
#ifndef MSWARM_LLM_AGENT_H
#define MSWARM_LLM_AGENT_H

#include "base/json.h"
#include "llm/upstream.h"

#define AGENT_CANDIDATES_MAX 16

#define AGENT_SOURCES(X) X(MCODA, "mcoda") X(OLLAMA, "ollama") X(CONFIG, "config") X(DISCOVERED, "discovered") X(DEMO, "demo")
enum agent_source {
#define X(id, name) AGENT_FROM_##id,
	AGENT_SOURCES(X)
#undef X
	AGENT_SOURCE__COUNT
};
#define AGENT_HEALTHS(X) X(HEALTHY, "healthy") X(UNKNOWN, "unknown") X(DEGRADED, "degraded") X(UNREACHABLE, "unreachable") X(BLOCKED, "blocked")
enum agent_health {
#define X(id, name) HEALTH_##id,
	AGENT_HEALTHS(X)
#undef X
	HEALTH__COUNT
};
/* response_format strategies, llm-execution.md 2.5 and 3.1 */
enum agent_format { FORMAT_OPENAI, FORMAT_JSON_SCHEMA, FORMAT_JSON_OBJECT, FORMAT_GBNF, FORMAT_PROMPT_ONLY, FORMAT_NONE };

struct agent {
	char *slug;                        /* the id in /v1/models */
	char *model;                       /* what the runner is asked for */
	char *adapter;                     /* mcoda's, "ollama", or the kind's name */
	char *provider;                    /* provider name of metadata: "openai-compatible", "ollama-remote", ... */
	char *source_id;                   /* mcoda's id, or NULL */
	char *extra_body;                  /* JSON object text, or NULL */
	enum agent_source source;
	enum agent_health health;
	enum agent_format format;
	/* For the catalogue (gateway.md 7.1, 7.3), as the source gives it; NULL: nothing is known. Raw members without braces, before
	 * and behind "exposed", and the sorted JSON array of its capabilities. */
	char *entry_head, *entry_tail, *entry_caps;
	bool is_metadata_unknown;          /* metadata_quality "unknown" */
	bool supports_tools;               /* false only when the source says so */
	bool is_supports_tools_known;
	bool is_embedding;
	bool is_exposed;                   /* policy says yes (llm-execution.md 2.3), and not blocked */
	bool is_shared;                    /* feeds catalogue, R3 and relay (design.md 6 "what the gateway may see") */
	bool sends_model;
	int64_t max_output_tokens;         /* 0: unknown */
	int64_t context_window;            /* 0: unknown */
	int64_t created_s;
	struct upstream *up;               /* one reference; NULL: adapter that this node cannot run */
};

struct agents {
	atomic_uint refs;
	struct agent *v;                   /* sorted: source, then slug */
	size_t n;
	uint64_t revision;
};

void agents_ref(struct agents *l);
void agents_unref(struct agents *l);       /* NULL is fine */

/*
 * /v1: which agents may serve this name. The slug wins (an mcoda agent alone; else all sources with that slug, a pool);
 * then "<upstream name>/<model>"; then a model name that exactly one agent has. Listed agents only: exposed, not embedding.
 * E_MODEL_NOT_FOUND (text and param of llm-execution.md 8.3); E_UNHEALTHY when all that were found are unhealthy.
 */
MUST_CHECK enum errc agents_resolve(const struct agents *l, struct slice name, const struct agent *ret[AGENT_CANDIDATES_MAX], size_t *ret_n, struct err *e);

/* R3 and relay (llm-execution.md 2.4), exact codes and texts. E_MODEL_NOT_FOUND stands for selected_agent_unavailable,
 * E_UNHEALTHY for selected_agent_unhealthy. Any of the names may be empty. Shared agents only. */
struct agent_selector { struct slice source_agent_slug, agent_slug, model, request_model; };
MUST_CHECK enum errc agents_resolve_job(const struct agents *l, const struct agent_selector *s, const struct agent **ret, struct err *e);

/* One object of /v1/models. Lists: every exposed agent that is not an embedding one, each id once. */
bool agent_is_listed(const struct agents *l, size_t i);
const char *agent_source_name(enum agent_source s);
const char *agent_health_name(enum agent_health h);
bool agent_is_embedding_name(struct slice best_usage, struct slice slug, struct slice model); /* 2.3 */

#endif
