/*
 * The command line: words to a row of commands.def, options of a command, the form of answers and errors.
 * Threads: main only, before or instead of a node.
 */
#ifndef MSWARM_SERVER_CLI_H
#define MSWARM_SERVER_CLI_H

#include "base/config.h"
#include "base/jw.h"

enum command_state { COMMAND_READY, COMMAND_ALIAS };

struct cli;

struct command {
	const char *words;                 /* "serve", "keys add" */
	int (*run)(struct cli *c);         /* exit code */
	enum command_state state;
	const char *args, *help;
};
extern const struct command command_table[];
extern const size_t command_count;

struct cli {
	const struct command *command;
	char **args;                       /* after the words of the command; own copies, NULL-terminated */
	size_t arg_count;
	struct config *cfg;                /* set by cli_load */
	char *program;                     /* as it was called: "mswarm", "build/mswarm" */
	char *title;                       /* argv's own memory, for the process title */
	size_t title_bytes;
	bool wants_json;                   /* --json, or standard output is no terminal */
	bool has_scrubbed;                 /* a key was found among the arguments and wiped from argv */
};

/* Find the command, run it, give the exit code. Wipes keys from argv at once (cli-config-service.md, weakness 20). */
int cli_main(int argc, char **argv);

/* An option of one command, beside those of config_keys.def and --json. */
struct cli_option {
	const char *flag;                  /* "--models" */
	const char **value;                /* one of the two: "--models a" and "--models=a" ... */
	bool *is_set;                      /* ... or a bare flag */
};
/*
 * Load the configuration into c->cfg (flags of config_keys.def may stand among the arguments) and take the command's own
 * options (NULL: none; ends with a row whose flag is NULL) and at most max_words other words. An unknown option is
 * E_BAD_REQUEST, with a suggestion. words: borrowed from c; *ret_n may be NULL when max_words is 0.
 */
MUST_CHECK enum errc cli_load(struct cli *c, const struct cli_option *options, const char **words, size_t max_words, size_t *ret_n,
	struct err *e);

/* What help says of one command ("job run"), or of all that begin with a word ("job"); exit code. */
int cli_help_about(const char *words);
/* Given as a word of its own: for commands whose text does not depend on where it goes. Before cli_load. */
bool cli_has_flag(const struct cli *c, const char *flag);

/* The message alone, on one line of standard error; gives 1. */
int cli_fail(const struct err *e);
/* Write text to standard output, whole; exit code 0, or 1 when it cannot be written. */
int cli_print(struct slice text);
/* The control socket and the database of the configured state folder (mem_free); NULL when no memory. */
char *cli_state_path(const struct cli *c, const char *name) MUST_CHECK;
/* Nearest of n names to a word, by edits; NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *names, size_t n);
/* Append text in single quotes for a POSIX shell. */
MUST_CHECK enum errc cli_quote(struct buf *out, struct slice text, struct err *e);
/*
 * One request to the running node of the configured state folder; *ret is its answer (json_free). E_NOT_FOUND: no node
 * runs; a refusal of the node comes as E_BAD_REQUEST with its message.
 */
MUST_CHECK enum errc cli_control(const struct cli *c, struct slice request, struct json **ret, struct err *e);
void cli_set_title(struct cli *c, const char *title);

/* setup --start: the node in the foreground, with the files as they stand. */
int cmd_run_stored(struct cli *c);
/* For node status: a member "service". */
void service_status_json(struct cli *c, struct jw *w);

#define COMMAND(words, name, state, args, help) int cmd_##name(struct cli *c);
#include "server/commands.def"

#endif
