/*
 * Private to llm/: what the sources of the inventory and the inventory itself share. A part is one place that is asked
 * as a whole (the mcoda command, Ollama, one entry of "upstreams", one loopback port); each keeps what it said last.
 *
 * All of it: THREAD(supervisor), or before its loop runs.
 */
#ifndef MSWARM_LLM_SOURCE_H
#define MSWARM_LLM_SOURCE_H

#include "llm/inventory.h"

#define SOURCE_AGENTS_MAX 1000             /* of one part; more are left out */
#define SOURCE_NAME_MAX 512                /* bytes of a model's or agent's name; longer ones are left out */
#define SOURCE_MISSES_MAX 3                /* refreshes that a part's last word is kept for when it fails */

/* ---- agents in the making (agent_vec.c) ---- */
struct agent_vec {
	struct agent *v;
	size_t n, cap;
};
#define AUTO_AGENTS CLEANUP(agent_vec_done) struct agent_vec

void agent_vec_done(struct agent_vec *v);
/* Moves *take into the vector; it is emptied also on failure. */
MUST_CHECK enum errc agent_vec_add(struct agent_vec *v, struct agent *take, struct err *e);
MUST_CHECK enum errc agent_vec_copy(struct agent_vec *v, const struct agent *from, size_t n, struct err *e);
const struct agent *agent_vec_find(const struct agent_vec *v, struct slice slug);
bool agent_vec_is_same(const struct agent *a, size_t a_n, const struct agent *b, size_t b_n);
/* Sorts and turns the vector into a list with one reference; the vector is empty afterwards. */
MUST_CHECK enum errc agent_vec_seal(struct agent_vec *take, uint64_t revision, struct agents **ret, struct err *e);
void agent_done(struct agent *a);

/* A finished object becomes a piece of a catalogue entry: its members without the braces (an array stays as it is). Empties b. */
struct jw;
MUST_CHECK enum errc source_entry_piece(struct jw *w, struct buf *b, char **ret, struct err *e);

/* ---- parts ---- */
struct source_part;

struct source_ops {
	/* Begin to ask. E_OK: exactly one of source_said, source_failed, source_unchanged follows, from the loop. */
	enum errc (*ask)(struct source_part *p, struct err *e);
	void (*cancel)(struct source_part *p);     /* stop asking, if it does; no report follows */
	void (*free)(struct source_part *p);       /* cancelled before */
};

enum source_state { SOURCE_NEW, SOURCE_OK, SOURCE_STALE, SOURCE_EMPTY };

struct source_part {
	const struct source_ops *ops;
	struct inventory *inv;             /* for reports only */
	const struct config *cfg;
	struct loop *loop;
	struct httpc *client;
	enum agent_source source;
	char *name;                        /* for the log and status: "mcoda", "lab", "127.0.0.1:8080" */
	bool is_quiet;                     /* being absent is normal: no warning */
	struct agent_vec said;             /* the last word */
	bool is_asking, has_answered;
	unsigned misses;                   /* refreshes in a row that failed */
	/* GUARDED_BY(the inventory's mutex): for status */
	enum source_state state;
	size_t count;
	char note[160];
	char version[40];                  /* of what answered, where it says so (Ollama); else empty */
};

/* Its new last word. trouble: something is wrong all the same (NULL: nothing), for log and status. */
void source_said(struct source_part *p, struct agent_vec *take, const struct err *trouble);
/* The same, with the version of who said it. */
void source_said_version(struct source_part *p, struct agent_vec *take, const char *version);
/* is_down: the runner itself did not answer, so what it had is unreachable for now. */
void source_failed(struct source_part *p, const struct err *e, bool is_down);
/* It could not be told (a busy runner): everything stays as it is. */
void source_unchanged(struct source_part *p);

/* Takes over from what the part said last what must be stable: created_s. For agents about to be reported. */
void source_settle(struct source_part *p, struct agent *a, int64_t created_s);
/* The upstream of this spec: one that the part had already (breaker and counts live on), else one of fresh (the answer
 * in the making), else a new one, whose secrets are registered with the log. */
MUST_CHECK enum errc source_upstream(const struct source_part *p, const struct agent_vec *fresh,
		const struct upstream_spec *s, struct upstream **ret, struct err *e);
/* Global limits of config as the spec's. */
void source_limits(const struct config *cfg, struct upstream_spec *s);
/* Allowlist, blocklist, expose-all (2.3); sets is_exposed. is_cloud: only when the allowlist names it. */
void source_expose(const struct config *cfg, struct agent *a, bool is_cloud);
/* True when the URL is this node's own listener: asking it would ask ourselves. */
bool source_is_self(const struct config *cfg, struct slice url);

/* ---- constructors; *ret is NULL with E_OK when there is nothing to ask ---- */
struct source_base {
	struct inventory *inv;
	const struct config *cfg;
	struct loop *loop;
	struct httpc *client;
};
MUST_CHECK enum errc source_part_init(struct source_part *p, const struct source_base *b,
		const struct source_ops *ops, enum agent_source source, const char *name, struct err *e);
void source_part_done(struct source_part *p);

MUST_CHECK enum errc source_mcoda_new(const struct source_base *b, struct source_part **ret, struct err *e);
MUST_CHECK enum errc source_ollama_new(const struct source_base *b, struct source_part **ret, struct err *e);
/* Entry i of "upstreams". E_INVALID_VALUE, E_FORBIDDEN, E_NOT_FOUND...: the entry is malformed, to be skipped. */
MUST_CHECK enum errc source_config_new(const struct source_base *b, size_t i, struct source_part **ret, struct err *e);
/* One loopback port; *ret is NULL when it is ours. */
MUST_CHECK enum errc source_discovery_new(const struct source_base *b, int64_t port, struct source_part **ret, struct err *e);
/* The ports to look at, each once, without our own and those that an entry of config or Ollama has; at most max. */
size_t source_discovery_ports(const struct config *cfg, int64_t *out, size_t max);
/* The agent that stands in when there is none. */
MUST_CHECK enum errc source_demo_agent(const struct config *cfg, struct upstream *up, int64_t created_s,
		struct agent *ret, struct err *e);

/* ---- a part that is one OpenAI-compatible runner (source_runner.c) ---- */
struct source_runner_spec {
	enum agent_source source;
	const char *name, *base_url;       /* copied */
	enum upstream_kind kind;
	bool is_kind_known;                /* else told by the runner's answer */
	const struct str_list *models;     /* borrowed from config; empty or NULL: ask the runner */
	char **headers;                    /* NULL-terminated heap lines, taken over also on failure; may be NULL */
	const char *models_path;           /* static, NULL: the usual places */
	bool is_shared, is_quiet;
	int64_t max_concurrent, connect_ms, first_byte_ms, idle_ms, total_ms; /* 0: the global setting */
};
MUST_CHECK enum errc source_runner_new(const struct source_base *b, const struct source_runner_spec *s,
		struct source_part **ret, struct err *e);
void source_headers_free(char **headers);  /* wipes; NULL is fine */

#endif
