/*
 * Changes to config.json that keep what they do not know: members are replaced where they stand, new ones come at the end.
 * Written atomically (temp, fsync, rename), mode 0600, under a lock beside it, so that two commands lose nothing of each other.
 *
 * Threads: its owner's only; config_edit_save blocks (main or the pool). A broken config.json is an error, never overwritten.
 */
#ifndef MSWARM_BASE_CONFIG_EDIT_H
#define MSWARM_BASE_CONFIG_EDIT_H

#include "base/jw.h"

struct config_edit {
	struct buf sets;           /* JSON members with commas between, the last of a key counts */
	struct buf drops;          /* keys, each with a NUL */
	struct err err;            /* the first failure, told by config_edit_save */
};

void config_edit_begin(struct config_edit *c);
void config_edit_done(struct config_edit *c);
void config_edit_str(struct config_edit *c, const char *key, const char *value);    /* NULL: null */
void config_edit_i64(struct config_edit *c, const char *key, int64_t value);
void config_edit_bool(struct config_edit *c, const char *key, bool value);
void config_edit_raw(struct config_edit *c, const char *key, struct slice json);
void config_edit_drop(struct config_edit *c, const char *key);
/* Only when it is not there yet: config_edit_* with this key has no effect on what stands. */
void config_edit_keep(struct config_edit *c, const char *key);

struct config;
/* Every setting that a flag or the environment gave, but secrets: for what must hold without them, in a service. */
void config_edit_given(struct config_edit *c, const struct config *cfg);

/* The new text, without writing it: old is the file's content, empty when there is none. path is for messages. */
MUST_CHECK enum errc config_edit_text(const struct config_edit *c, const char *path, struct slice old, struct buf *out, struct err *e);
/* E_BAD_JSON, E_TOO_LARGE, E_IO, E_CONFLICT (another command holds the lock for longer than 5 s). */
MUST_CHECK enum errc config_edit_save(const struct config_edit *c, const char *path, struct err *e);

#endif
