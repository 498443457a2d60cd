/*
 * What chat_parse.c, chat_check.c and chat_build.c share: the table of members, paths of members for errors.
 * Threads: any.
 */
#ifndef MSWARM_LLM_CHAT_PRIV_H
#define MSWARM_LLM_CHAT_PRIV_H

#include "llm/chat.h"
#include "llm/raw.h"

enum chat_member {
#define CHAT_MEMBER(id, key, check, lo, hi, fate) CHAT_M_##id,
#include "llm/chat_members.def"
#undef CHAT_MEMBER
	CHAT_M__COUNT,
	CHAT_M_UNKNOWN = CHAT_M__COUNT,
	CHAT_M_DROPPED /* of a family that is dropped by prefix: prompt_cache_* */
};
enum chat_fate { CHAT_FORWARD, CHAT_OURS, CHAT_DROP };

/* Where a value stands, linked up to the root; becomes text only when something is wrong. */
struct chat_at {
	const struct chat_at *up;  /* NULL at the root */
	const char *key;           /* NULL: an element of an array */
	size_t index;
};

struct chat_rule {
	struct slice key;
	enum errc (*check)(const struct chat_rule *rule, struct slice v, const struct chat_at *at, struct chat_req *r, struct err *e);
	double lo, hi;
	enum chat_fate fate;
};

enum chat_member chat_member_find(struct slice key);
enum chat_fate chat_member_fate(enum chat_member id);
struct slice chat_member_key(enum chat_member id);

/*
 * The last value of every known member; empty where absent or null. unknown (may be NULL) is called for every other one.
 */
struct chat_scan {
	struct slice m[CHAT_M__COUNT];
	enum errc (*unknown)(void *ctx, struct json_member m, struct err *e);
	void *ctx;
};
MUST_CHECK enum errc chat_scan(struct slice text, struct chat_scan *s, struct err *e);

/* "messages[2].role: <text>", param = the path. Returns code. */
enum errc chat_fail(const struct chat_at *at, enum errc code, struct err *e, const char *fmt, ...) PRINTF_LIKE(4, 5);

/*
 * chat_error.c: what an error object of a runner says, in any of the shapes that are met. status is that of the runner's
 * answer; 0 in a stream, where a numeric code of the object stands for it.
 */
void chat_error_from_value(int status, struct slice value, struct chat_error *ret);
/* An error of our own about the runner: upstream_error, status 502. */
void chat_error_upstream(struct chat_error *ret, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* chat_check.c: the members that have a structure of their own */
#define CHAT_CHECK(name) \
	enum errc check_##name(const struct chat_rule *rule, struct slice v, const struct chat_at *at, struct chat_req *r, struct err *e)
CHAT_CHECK(messages);
CHAT_CHECK(tools);
CHAT_CHECK(tool_choice);
CHAT_CHECK(response_format);
/* A string, bool or object that may be absent, at at->up's member at->key */
enum chat_want { CHAT_WANT_STRING, CHAT_WANT_BOOL, CHAT_WANT_OBJECT, CHAT_WANT_ARRAY };
MUST_CHECK enum errc chat_want(struct slice v, enum chat_want want, bool is_required, const struct chat_at *at, struct err *e);

#endif
