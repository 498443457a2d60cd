/*
 * Settings: one row of config_keys.def each. Order: default, config.json, environment, flag. Const from boot to stop.
 *
 * A state folder of the reference node works unchanged: the rows carry the reference's environment names, aliases and
 * config.json keys, and its parsing rules (cli-config-service.md 2.2). Unknown keys in config.json are a warning and
 * survive rewrites; unknown flags are errors with a suggestion. getenv() is called only in config.c.
 *
 * What cannot be used: a flag is an error; a variable is a warning and the next lower layer counts; in config.json a value
 * of the wrong type is an error, a boolean that is none a warning. Durations and sizes above their maximum are cut to it with
 * a warning. Not exact on purpose: 0.5 for a positive integer is no value (the reference made it 0).
 *
 * Shape: struct config has one member per row, plus lists and resolved paths. Strings are never NULL.
 * Owns: config_free. Threads: loaded on main before the others start, then read-only by all.
 */
#ifndef MSWARM_BASE_CONFIG_H
#define MSWARM_BASE_CONFIG_H

#include "base/crypto.h"
#include "base/json.h"

#define MSWARM_COMPAT_VERSION "0.1.81"
#define CONFIG_SHARED_SECRET_FILE "signing.shared.key"  /* beside config.json, 0600: the secret that a gateway shares */

enum config_origin { CFG_FROM_DEFAULT, CFG_FROM_FILE, CFG_FROM_ENV, CFG_FROM_FLAG };

enum config_mode { MODE_LOCAL, MODE_OUTBOUND, MODE_DIRECT };

struct str_list {
	char **v;      /* heap strings */
	size_t n;
};
bool str_list_has(const struct str_list *l, struct slice s);

/* One entry of "upstreams" in config.json. */
struct config_upstream {
	char *name;                                    /* 1..64 bytes, unique; host:port when the entry gives none */
	char *base_url;                                /* http(s), no trailing slash; ends in /v1 unless it had a path */
	char *kind, *api_key_file;                     /* may be empty; the file's path is absolute */
	struct str_list models;                        /* empty: ask the runner */
	struct str_list headers;                       /* "name: value" */
	int64_t max_concurrent;                        /* 0: the default bound */
	int64_t connect_ms, first_byte_ms, idle_ms, total_ms; /* 0: the global setting */
	bool share;
};

struct config {
#define CFG_INT(name, def, lo, hi, flags, unit, json, env, flag, help) int64_t name;
#define CFG_BOOL(name, def, flags, json, env, flag, help) bool name;
#define CFG_STR(name, def, flags, json, env, flag, help) char *name;
#define CFG_LIST(name, def, flags, json, env, flag, help) struct str_list name;
#include "base/config_keys.def"
	struct config_upstream *upstreams;
	size_t upstream_count;
	enum config_mode mode;           /* resolved: local when nothing is enrolled */
	bool expose_all;                 /* resolved by cli-config-service.md 2.3 */
	bool is_generic_jobs_on;         /* resolved: configured, or on in local mode unless configured off */
	char *config_path;               /* resolved absolute paths */
	char *state_dir;
	char *key_path;                  /* node.key */
	char *machine_id_path;
	char *artifact_path;
	struct secret signing_secret;    /* from the environment; empty when none (then signing.key, made at boot) */
	bool is_signing_secret_shared;   /* from the environment or stored by install: a gateway may share it */
	char *home;
	struct str_list warnings;        /* "config.json: unknown key x" and the like, for the log at boot */
	uint8_t origins[512];            /* enum config_origin by row number */
};

/* Flags of a row. CFG_POSITIVE: 0 is "derived" and can only be the default; elsewhere it counts as not set. CFG_URL: trailing
 * slashes go. CFG_PATH: "~" is expanded. */
enum { CFG_SECRET = 1, CFG_HIDDEN = 2, CFG_POSITIVE = 4, CFG_URL = 8, CFG_PATH = 16 };

/*
 * Load. args: flags as given ("--listen-port", "0", "--k=v"); the ones that belong to no row are left to the caller
 * through *ret_rest (copies, in order) when allow_rest, else refused with a suggestion (E_INVALID_VALUE). A switch
 * takes the next argument only when it is one of 1 true yes 0 false no. After "--" everything is rest.
 * Errors of config.json name file, line, column or key: E_BAD_JSON, E_INVALID_VALUE, E_TOO_LARGE (1 MiB). A missing
 * file is an empty one, a missing file_override E_NOT_FOUND. Reads config.json and node.key, writes nothing.
 */
struct config_load {
	char *const *args;               /* NULL-terminated; may be NULL */
	const char *file_override;       /* path of config.json to check instead; NULL normally */
	bool allow_rest;
	struct str_list *ret_rest;       /* owned by the caller: str_list_done */
};
MUST_CHECK enum errc config_load(const struct config_load *in, struct config **ret, struct err *e);
void config_free(struct config *c);
/* The flag of a row that is closest to what was typed, for callers with flags of their own; empty when none is near. */
struct slice config_nearest_flag(const char *given);
void str_list_done(struct str_list *l);
MUST_CHECK enum errc str_list_add(struct str_list *l, struct slice s, struct err *e);

/* What base needs of the environment outside the rows (HOME, PATH, NOTIFY_SOCKET, SUDO_USER); NULL when unset. */
const char *config_env(const char *name);

/* For "config show" and the reference page: walks the rows. value is the rendered value ("(set)" for secrets). */
struct config_row_view {
	const char *name, *json_key, *env, *flag, *unit, *help, *default_text;
	const char *value;               /* valid for the call */
	enum config_origin origin;
	unsigned flags;
};
void config_each(const struct config *c, void (*fn)(void *ctx, const struct config_row_view *v), void *ctx);
const char *config_origin_name(enum config_origin o);
const char *config_mode_name(enum config_mode m);

#endif
