/*
 * Members of JSON records that have several spellings, and of records that overlay each other. Borrowed from the tree.
 * Used by llm/source_mcoda*.c. Threads: any.
 */
#ifndef MSWARM_LLM_PICK_H
#define MSWARM_LLM_PICK_H

#include "base/json.h"

/* A record that is overlaid by another, key by key: config.localRunner by config. Either may be NULL. */
struct record {
	const struct json *top, *below;
};
#define KEYS(...) ((const char *const[]){ __VA_ARGS__, NULL })

const struct json *pick_any(struct record r, const char *key);
struct slice pick_text(struct record r, const char *const *keys);                 /* the first that is not blank, trimmed */
bool pick_bool(struct record r, const char *const *keys, bool *ret);              /* the first boolean; false: none */
bool pick_number(struct record r, const char *const *keys, double *ret);          /* the first number; false: none */
int64_t pick_count(struct record r, const char *const *keys);                     /* the first number from 1 on, cut; 0: none */

#endif
