/*
 * Shared by base/config*.c only: the table of rows, and the state of one load.
 *
 * config.c holds the table, the environment and what outlives a load; config_flags.c sorts the command line;
 * config_load.c goes through the layers and resolves; config_parse.c reads config.json; config_text.c turns text into
 * values and knows nothing of the rest.
 */
#ifndef MSWARM_BASE_CONFIG_PRIV_H
#define MSWARM_BASE_CONFIG_PRIV_H

#include "base/config.h"

enum {
#define CFG_INT(name, ...) ROW_##name,
#define CFG_BOOL(name, ...) ROW_##name,
#define CFG_STR(name, ...) ROW_##name,
#define CFG_LIST(name, ...) ROW_##name,
#include "base/config_keys.def"
	ROW__COUNT
};
_Static_assert(ROW__COUNT <= sizeof(((struct config *)0)->origins), "struct config keeps one origin a row");

enum row_type { ROW_INT, ROW_BOOL, ROW_STR, ROW_LIST };

struct config_row {
	enum row_type type;
	const char *name, *json_key, *env, *flag, *unit, *help, *default_text;
	size_t offset;      /* of the member in struct config */
	int64_t lo, hi;     /* ROW_INT */
	unsigned flags;
};
extern const struct config_row config_rows[ROW__COUNT];

/* One load. Everything is borrowed but c. */
struct config_build {
	struct config *c;
	const struct json *file;             /* the object of config.json, or NULL */
	char file_label[128];                /* its path, for texts */
	const char *flag_value[ROW__COUNT];  /* last occurrence; NULL: not given */
	int64_t file_job_timeout_ms;         /* config.json's own, whatever the environment says; 0: none */
	bool is_out_of_memory;               /* sticky, for warnings that could not be kept */
};

/* Members of *c by row. */
int64_t *config_int(struct config *c, const struct config_row *r);
bool *config_bool(struct config *c, const struct config_row *r);
char **config_str(struct config *c, const struct config_row *r);
struct str_list *config_list(struct config *c, const struct config_row *r);

void config_warn(struct config_build *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Take over text (heap) as the value of a string, wiping the old one when it is a secret. */
void config_put_str(struct config_build *b, size_t row, char *take_text, enum config_origin from);
/* Set one row from text. where names the source in texts ("--listen-port", "MSWARM_LOOPS"). */
MUST_CHECK enum errc config_set_text(struct config_build *b, size_t row, struct slice text, enum config_origin from,
	const char *where, struct err *e);
MUST_CHECK enum errc config_set_int(struct config_build *b, size_t row, int64_t v, enum config_origin from, const char *where,
	struct err *e);

/* config_flags.c. rest gets copies of what belongs to no row. */
MUST_CHECK enum errc config_flags(struct config_build *b, const struct config_load *in, struct str_list *rest, struct err *e);

/* config_parse.c */
MUST_CHECK enum errc config_parse_text(struct config_build *b, struct slice text, struct json **ret, struct err *e);
MUST_CHECK enum errc config_parse_row(struct config_build *b, size_t row, struct err *e);
void config_parse_unknown(struct config_build *b);
MUST_CHECK enum errc config_parse_upstreams(struct config_build *b, struct err *e);
void config_upstream_done(struct config_upstream *u);

/* config_text.c */
/* As JavaScript's Number(): blanks around, "1e2", "0x10", "5."; the fraction is cut off; saturates. False: no number. A
 * value below 0 never comes out as 0. */
bool config_text_int(struct slice s, int64_t *ret) MUST_CHECK;
bool config_text_bool(struct slice s, bool *ret) MUST_CHECK;
MUST_CHECK enum errc config_text_list(struct slice s, struct str_list *out, struct err *e);
/* Trimmed copy without trailing slashes; NULL: no memory. */
char *config_text_url(struct slice s) MUST_CHECK;
/* The spellings of OLLAMA_HOST ("0.0.0.0", ":11434", "box:80") as a URL that a client can use. */
MUST_CHECK enum errc config_text_ollama(struct slice s, char **ret, struct err *e);
/* Base URL of an OpenAI-compatible server; *ret_authority is borrowed from s. E_INVALID_VALUE says what is wrong. */
MUST_CHECK enum errc config_text_base_url(struct slice s, char **ret, struct slice *ret_authority, struct err *e);
/* ~ and relative paths (below folder) made absolute. */
MUST_CHECK enum errc config_text_path(const char *path, const char *home, const char *folder, char **ret, struct err *e);
/* "all", "none", or NULL (cli-config-service.md 2.3). */
const char *config_text_policy(struct slice s);
bool config_text_is_blank(const char *s);
/* Edits (insert, delete, replace, swap of neighbours) between two short texts; UINT_MAX when one is longer than 64. */
unsigned config_text_distance(struct slice a, struct slice b);
/* True when distance is small enough for a text of n bytes to be a slip of the other. */
bool config_text_is_near(unsigned distance, size_t n);

#endif
