/*
 * The command line. main calls cli_main, which finds the row and calls its handler; handlers load the configuration and
 * take their options through cli_load. Main thread only.
 */
#include "server/cli.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/control.h"

#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CLI_ANSWER_MAX (4 * 1024 * 1024)

#define COMMAND(words_, name_, state_, args_, help_) \
	{ .words = words_, .run = cmd_##name_, .state = COMMAND_##state_, .args = args_, .help = help_ },
const struct command command_table[] = {
#include "server/commands.def"
};
const size_t command_count = ARRAY_LEN(command_table);

/* Every flag of the settings, for suggestions. */
static const char *const config_flags[] = {
#define CFG_INT(name, def, lo, hi, flags, unit, json, env, flag, help) flag,
#define CFG_BOOL(name, def, flags, json, env, flag, help) flag,
#define CFG_STR(name, def, flags, json, env, flag, help) flag,
#define CFG_LIST(name, def, flags, json, env, flag, help) flag,
#include "base/config_keys.def"
	"--json",
};

int cli_fail(const struct err *e)
{
	fprintf(stderr, "%s\n", e->what);
	return 1;
}

int cli_print(struct slice text)
{
	if (fwrite(text.p, 1, text.n, stdout) != text.n || fflush(stdout) != 0) {
		fputs("cannot write to standard output\n", stderr);
		return 1;
	}
	return 0;
}

char *cli_state_path(const struct cli *c, const char *name)
{
	return file_join(c->cfg->state_dir, name);
}

enum errc cli_quote(struct buf *out, struct slice text, struct err *e)
{
	struct slice piece;
	const char *between = "'";
	enum errc rc = E_OK;

	while (rc == E_OK && text.p && slice_next(&text, '\'', &piece)) {
		rc = buf_add_str(out, between, e);
		if (rc == E_OK)
			rc = buf_add_slice(out, piece, e);
		between = "'\\''";
	}
	return rc ? rc : buf_add_str(out, "'", e);
}

enum errc cli_control(const struct cli *c, struct slice request, struct json **ret, struct err *e)
{
	const struct json_limits limits = { .max_bytes = CLI_ANSWER_MAX, .max_depth = 16 };
	AUTO_FREE char *path = cli_state_path(c, "control.sock");
	AUTO_BUF answer = BUF_MAX(CLI_ANSWER_MAX);
	AUTO_JSON tree = NULL;

	if (!path)
		return err_set(e, E_NO_MEMORY, "no memory");
	enum errc rc = control_call(path, request, &answer, e);

	if (rc == E_OK)
		rc = json_parse(buf_slice(&answer), limits, &tree, e);
	if (answer.n) /* it may hold a new key */
		mem_wipe(answer.p, answer.n);
	if (rc)
		return rc;
	if (!json_is_true(json_get(tree, "ok"))) {
		const char *message = json_str(json_get(json_get(tree, "error"), "message"));

		return err_set(e, E_BAD_REQUEST, "%s", message ? message : "the node refused");
	}
	*ret = TAKE(tree);
	return E_OK;
}

/* ---- suggestions ---- */

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Insertions, deletions and replacements between two words; a great number for words that are too long to be slips. */
static unsigned edits_between(const char *a, const char *b)
{
	enum { LONGEST = 63 };
	size_t na = strlen(a), nb = strlen(b);
	unsigned row[LONGEST + 1];

	if (na > LONGEST || nb > LONGEST)
		return 1000;
	for (size_t j = 0; j <= nb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned above = row[j];

			row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[nb];
}

const char *cli_nearest(const char *word, const char *const *names, size_t n)
{
	size_t len = strlen(word);
	unsigned best = len <= 4 ? 2 : len <= 8 ? 3 : 4; /* first number of edits that is too many */
	const char *ret = NULL;

	for (size_t i = 0; i < n; i++) {
		unsigned d = names[i] && *names[i] ? edits_between(word, names[i]) : 1000;

		if (d < best) {
			best = d;
			ret = names[i];
		}
	}
	return ret;
}

/* ---- options of a command ---- */

static enum errc unknown_option(const char *word, const struct cli_option *options, struct err *e)
{
	const char *names[ARRAY_LEN(config_flags) + 16];
	AUTO_FREE char *flag = mem_strndup(word, strcspn(word, "="));
	size_t n = 0;

	for (const struct cli_option *o = options; o && o->flag && n < 16; o++)
		names[n++] = o->flag;
	for (size_t i = 0; i < ARRAY_LEN(config_flags); i++)
		names[n++] = config_flags[i];
	const char *near = flag ? cli_nearest(flag, names, n) : NULL;

	if (near)
		return err_set(e, E_BAD_REQUEST, "Unknown option: %s. Did you mean %.*s?", flag, (int)strcspn(near, "!"), near);
	return err_set(e, E_BAD_REQUEST, "Unknown option: %s", flag ? flag : word);
}

/* Take args[*i] if it is one of the options; *i moves over its value. */
static enum errc take_option(struct cli *c, const struct cli_option *options, char **args, size_t n, size_t *i, struct err *e)
{
	const char *word = args[*i];
	size_t flag_len = strcspn(word, "=");

	if (strcmp(word, "--json") == 0) {
		c->wants_json = true;
		return E_OK;
	}
	for (const struct cli_option *o = options; o && o->flag; o++) {
		if (strlen(o->flag) != flag_len || strncmp(o->flag, word, flag_len) != 0)
			continue;
		if (o->is_set) {
			if (word[flag_len])
				return err_set(e, E_BAD_REQUEST, "%s takes no value", o->flag);
			*o->is_set = true;
		} else if (word[flag_len]) {
			*o->value = word + flag_len + 1;
		} else if (*i + 1 < n && strncmp(args[*i + 1], "--", 2) != 0) {
			*o->value = args[++*i];
		} else {
			return err_set(e, E_BAD_REQUEST, "%s needs a value", o->flag);
		}
		return E_OK;
	}
	return unknown_option(word, options, e);
}

/* Keep what config_load left over as the command's arguments: words and option values are borrowed from there. */
static void replace_args(struct cli *c, struct str_list *take_rest)
{
	struct str_list old = { .v = c->args, .n = c->arg_count };

	str_list_done(&old);
	c->args = take_rest->v;
	c->arg_count = take_rest->n;
	*take_rest = (struct str_list){ 0 };
}

enum errc cli_load(struct cli *c, const struct cli_option *options, const char **words, size_t max_words, size_t *ret_n, struct err *e)
{
	struct str_list rest = { 0 };
	const struct config_load in = { .args = c->args, .allow_rest = true, .ret_rest = &rest };
	enum errc rc = config_load(&in, &c->cfg, e);
	size_t found = 0;

	if (rc) {
		str_list_done(&rest);
		return rc;
	}
	replace_args(c, &rest);
	c->wants_json = isatty(STDOUT_FILENO) == 0;
	for (size_t i = 0; i < c->arg_count; i++) {
		if (strncmp(c->args[i], "-", 1) == 0 && c->args[i][1]) {
			rc = take_option(c, options, c->args, c->arg_count, &i, e);
			if (rc)
				return rc;
		} else if (found < max_words) {
			words[found++] = c->args[i];
		} else {
			return err_set(e, E_BAD_REQUEST, "Unexpected argument: %s", c->args[i]);
		}
	}
	if (ret_n)
		*ret_n = found;
	return E_OK;
}

/* ---- argv ---- */

void cli_set_title(struct cli *c, const char *title)
{
	prctl(PR_SET_NAME, title);
	if (c->title_bytes < 2)
		return;
	memset(c->title, 0, c->title_bytes);
	memcpy(c->title, title, strlen(title) < c->title_bytes ? strlen(title) : c->title_bytes - 1);
}

static bool is_key(const char *s)
{
	return strncmp(s, "msk_", 4) == 0 || strncmp(s, "msw_", 4) == 0 || strncmp(s, "msw-", 4) == 0;
}

/* Overwrite keys among the arguments: they can be read by everybody in the process list. */
static bool scrub(int argc, char **argv)
{
	static const char *const flags[] = { "--api-key", "--token", "--enrollment-token", "--signing-secret" };
	bool has_scrubbed = false;

	for (int i = 1; i < argc; i++) {
		char *secret = is_key(argv[i]) ? argv[i] : NULL;

		for (size_t f = 0; f < ARRAY_LEN(flags) && !secret; f++) {
			size_t n = strlen(flags[f]);

			if (strncmp(argv[i], flags[f], n) == 0 && argv[i][n] == '=')
				secret = argv[i] + n + 1;
			else if (i > 1 && strcmp(argv[i - 1], flags[f]) == 0)
				secret = argv[i];
		}
		/* The positional key of "install KEY". */
		if (!secret && i > 1 && strcmp(argv[i - 1], "install") == 0 && argv[i][0] != '-')
			secret = argv[i];
		if (!secret || !*secret)
			continue;
		memset(secret, '*', strlen(secret));
		has_scrubbed = true;
	}
	return has_scrubbed;
}

/* ---- finding the command ---- */

static void print_unknown(const char *group, const char *word, const char *full)
{
	const char *names[64];
	size_t n = 0;
	struct cli help = { 0 };

	for (size_t i = 0; i < command_count && n < ARRAY_LEN(names); i++)
		if (command_table[i].words[0] != '-')
			names[n++] = command_table[i].words;
	const char *near = cli_nearest(full, names, n);

	cmd_help(&help);
	fprintf(stderr, "Unknown %s%scommand: %s\n", group, *group ? " " : "", word);
	if (near)
		fprintf(stderr, "Did you mean: mswarm %s\n", near);
}

/* Words of the row that the arguments begin with; 0 when they do not. */
static int words_matching(const struct command *row, int argc, char **argv)
{
	const char *blank = strchr(row->words, ' ');
	size_t first = blank ? (size_t)(blank - row->words) : strlen(row->words);

	if (argc < 2 || strlen(argv[1]) != first || strncmp(argv[1], row->words, first) != 0)
		return 0;
	if (!blank)
		return 1;
	return argc > 2 && strcmp(argv[2], blank + 1) == 0 ? 2 : 0;
}

static bool is_group(const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i < command_count; i++)
		if (strncmp(command_table[i].words, word, n) == 0 && command_table[i].words[n] == ' ')
			return true;
	return false;
}

static const struct command *find(int argc, char **argv, int *ret_words)
{
	for (size_t i = 0; i < command_count; i++) {
		*ret_words = words_matching(&command_table[i], argc, argv);
		if (*ret_words)
			return &command_table[i];
	}
	return NULL;
}

static int run_unknown(int argc, char **argv)
{
	char full[128];

	if (!is_group(argv[1])) {
		print_unknown("", argv[1], argv[1]);
		return 1;
	}
	if (argc == 2) { /* "node" alone is help, as in the reference */
		struct cli help = { 0 };

		cmd_help(&help);
		if (strcmp(argv[1], "node") == 0)
			return 0;
		fprintf(stderr, "%s needs a second word\n", argv[1]);
		return 1;
	}
	snprintf(full, sizeof(full), "%s %s", argv[1], argv[2]);
	print_unknown(argv[1], argv[2], full);
	return 1;
}

static bool copy_args(struct cli *c, int from, int argc, char **argv)
{
	struct str_list copies = { 0 };

	for (int i = from; i < argc; i++)
		if (str_list_add(&copies, slice_str(argv[i]), NULL) != E_OK) {
			str_list_done(&copies);
			return false;
		}
	/* NULL-terminated, as argv is. */
	char **v = mem_calloc(copies.n + 1, sizeof(*v));

	if (v && copies.n)
		memcpy(v, copies.v, copies.n * sizeof(*v));
	c->args = v;
	c->arg_count = v ? copies.n : 0;
	if (!v)
		str_list_done(&copies);
	mem_free(copies.v);
	return v != NULL;
}

int cli_main(int argc, char **argv)
{
	static char once[] = "once";
	char *fallback[] = { argc ? argv[0] : once, once, NULL };
	struct cli c = { 0 };
	int words = 0, code = 1;

	if (argc < 2) {
		argc = 2;
		argv = fallback;
	} else {
		c.title = argv[0];
		c.title_bytes = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) - argv[0]);
	}
	c.command = find(argc, argv, &words);
	if (!c.command)
		return run_unknown(argc, argv);
	c.program = mem_strdup(argv[0]);
	if (!c.program || !copy_args(&c, 1 + words, argc, argv)) {
		mem_free(c.program);
		fputs("no memory\n", stderr);
		return 1;
	}
	c.has_scrubbed = scrub(argc, argv);
	if (c.has_scrubbed)
		fputs("warning: a key among the arguments can be seen by every user of this machine, and stays in the shell's history;\n"
		      "hand it over in MSWARM_API_KEY or on standard input\n", stderr);
	code = c.command->run(&c);
	struct str_list args = { .v = c.args, .n = c.arg_count };

	str_list_done(&args);
	config_free(c.cfg);
	mem_free(c.program);
	return code;
}

int cmd_later(struct cli *c)
{
	fprintf(stderr, "mswarm %s: not built yet\n", c->command->words);
	return 1;
}
