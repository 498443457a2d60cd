/* What completion.c (joining) and completion_write.c (the reply) share. Threads: the owner's only. */
#ifndef MSWARM_LLM_COMPLETION_PRIV_H
#define MSWARM_LLM_COMPLETION_PRIV_H

#include "llm/completion.h"
#include "llm/repair.h"

/* Members that were seen, by key: text is strung together, anything else is replaced by what came last. */
struct join_field {
	struct buf key;
	struct buf value;              /* raw; of a text field without its closing quote */
	bool is_text;
};
struct join_bag {
	struct join_field v[REPAIR_MEMBERS];
	size_t n;
};

struct join_call {
	struct buf id, name;           /* raw tokens */
	struct buf args;               /* raw, without the closing quote */
	struct buf extra;              /* raw ,"key":value … */
	bool is_custom;                /* extra is all of it */
};

struct join_choice {
	struct join_bag message, extra;
	struct buf logprobs;           /* raw elements of logprobs.content, with commas */
	struct buf logprobs_raw;       /* the last whole object */
	struct join_call *call;        /* owned */
	size_t calls, calls_cap;
	const char *finish;            /* static text, NULL while none */
};

struct completion {
	struct repair r;
	struct buf model;              /* raw token */
	struct join_choice *choice[CHAT_N_MAX]; /* owned; NULL until seen */
	struct join_bag *extra;        /* owned: of the top */
	struct buf *plain;             /* owned: the decoded text of choice 0, made when asked for */
	struct join_field *last;       /* field that the last delta ended with, or NULL */
	struct join_field *learned;    /* field of the skeleton, or NULL */
	size_t max, total;             /* bytes of text and arguments held */
};

/* The field with this key, or NULL. */
struct join_field *join_find(struct join_bag *bag, struct slice key);
MUST_CHECK enum errc completion_write(struct completion *j, struct buf *out, struct err *e);

#endif
