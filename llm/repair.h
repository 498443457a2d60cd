/*
 * What the events of a runner mean, with its quirks repaired: one reader under two writers. chunk.c writes a stream for
 * the client, completion.c joins one reply. Private to those two. Rules: llm-execution.md 8.5.1, 8.5.2, corpus/README.md.
 *
 * An event is taken apart into steps (a role, text, a tool call, arguments, an end), each told to the sink in an order
 * that the API allows. An event that equals the last pure text event in everything but its text is recognised by its
 * bytes (the skeleton) and told to the sink as bare text.
 *
 * Owns: its buffers. Threads: its owner's only. Nothing is allocated per event once the buffers have grown.
 */
#ifndef MSWARM_LLM_REPAIR_H
#define MSWARM_LLM_REPAIR_H

#include "base/sse.h"
#include "llm/chat.h"
#include "llm/raw.h"

#define REPAIR_MEMBERS 32              /* members beyond what we know, kept per object; more are dropped */
#define REPAIR_CALLS 256               /* tool calls of one choice */
#define REPAIR_SKELETON_MAX (16u * 1024)

struct repair_members {
	struct json_member v[REPAIR_MEMBERS];
	size_t n;
};

/* One choice of one event. */
struct repair_choice_in {
	unsigned index;
	struct repair_members fields;  /* of the delta, without role, nulls and tool_calls */
	struct repair_members extra;   /* of the choice, beside index, delta, finish_reason, logprobs */
	struct slice logprobs;         /* raw, empty when absent */
	struct slice tool_calls;       /* raw array, empty when absent */
	struct slice finish;           /* raw, empty when absent or null */
};

/* The top of one event. */
struct repair_event {
	struct slice id, created, choices, usage, object, error;
	struct repair_members extra;
	bool has_newline;              /* blanks of it hold line ends: they must not reach an SSE line */
};

struct repair_call {
	int64_t runner_index;          /* where none was sent: our own */
	uint64_t id_hash;              /* 0: no id was sent */
	uint64_t event_no;             /* the event that began it, or gave it a name */
	bool is_announced, has_args, is_custom;
	bool is_filled;                /* the arguments are ours: {} */
	char id[80];                   /* our id, a raw string token with its quotes */
};

struct repair_choice {
	bool has_role, is_finished;
	struct repair_call *call;      /* owned */
	size_t calls, calls_cap;
};

struct repair;

struct repair_ops {
	/* an event was read: its members beside ours are in r->ev.extra. usage_only: no step follows */
	enum errc (*top)(void *sink, bool usage_only, struct err *e);
	/* bare says that the event brought nothing else: its other members belong to this step */
	enum errc (*role)(void *sink, unsigned choice, bool bare, struct err *e);
	/* in->fields, in->logprobs; the extras too when has_extra (else they come with the end) */
	enum errc (*delta)(void *sink, const struct repair_choice_in *in, bool has_extra, struct err *e);
	/* id, name: raw string tokens; extra: other members of the call */
	enum errc (*call)(void *sink, unsigned choice, size_t call, struct slice id, struct slice name,
			  const struct repair_members *extra, struct err *e);
	/* a call that is no function, as it came but for its index */
	enum errc (*custom)(void *sink, unsigned choice, size_t call, const struct repair_members *m, struct err *e);
	enum errc (*args)(void *sink, unsigned choice, size_t call, struct slice token, struct err *e);
	/* with_logprobs: no delta step has taken them */
	enum errc (*finish)(void *sink, const struct repair_choice_in *in, const char *reason, bool with_logprobs, struct err *e);
	/* the last delta step was pure text: remember what is needed to repeat it */
	enum errc (*learn)(void *sink, const struct repair_choice_in *in, struct err *e);
	/* the same step again with another text (the inside of a string token) */
	enum errc (*text)(void *sink, struct slice body, struct err *e);
	enum errc (*done)(void *sink, struct err *e);
};

struct repair {
	const struct repair_ops *ops;
	void *sink;                    /* borrowed */
	struct repair_choice choice[CHAT_N_MAX];
	struct repair_event *ev;       /* of the running call only, on its stack */
	struct buf id, created;        /* raw tokens, set by the first event */
	struct buf fingerprint;        /* raw system_fingerprint, empty when none */
	struct buf usage_raw;          /* the last usage object, compact, integers checked; empty while unknown */
	struct buf scratch;
	struct buf prefix, suffix;     /* the skeleton; prefix empty: none learned */
	struct chat_usage usage;
	uint64_t event_no, fast_count;
	int64_t created_s;
	bool is_done, has_output;
	bool is_reply;                 /* the event is a plain reply: an end that is missing is "stop" */
	bool is_careful;               /* tests: never use the skeleton */
};

/* id may be empty. */
MUST_CHECK enum errc repair_init(struct repair *r, const struct repair_ops *ops, void *sink, struct slice id, int64_t created_s,
				 struct err *e);
void repair_done(struct repair *r);
MUST_CHECK enum errc repair_take(struct repair *r, const struct sse_event *ev, struct chat_error *ce, struct err *e);
/* A plain reply, as one event, then the end. */
MUST_CHECK enum errc repair_take_reply(struct repair *r, struct slice reply, struct chat_error *ce, struct err *e);
/* The end of the runner's stream, with or without [DONE]. Calls ops->done once. */
MUST_CHECK enum errc repair_finish(struct repair *r, struct chat_error *ce, struct err *e);

/* repair_calls.c */
MUST_CHECK enum errc repair_calls(struct repair *r, unsigned choice, struct slice array, struct chat_error *ce, struct err *e);
MUST_CHECK enum errc repair_calls_close(struct repair *r, unsigned choice, struct err *e);

/* Fill *ce (upstream_error) and *e, return E_UPSTREAM. */
enum errc repair_fail(struct chat_error *ce, struct err *e, const char *text);
void repair_keep(struct repair_members *to, struct json_member m);

#endif
