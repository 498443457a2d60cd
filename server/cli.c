/*
 * The command line: main calls cli_main, which wipes keys from argv, finds the row and calls its handler. What handlers
 * use is in cli_load.c. Main thread only.
 */
#include "server/cli.h"

#include "base/mem.h"

#include <stdio.h>
#include <sys/prctl.h>

#define COMMAND(words_, name_, state_, args_, help_) \
	{ .words = words_, .run = cmd_##name_, .state = COMMAND_##state_, .args = args_, .help = help_ },
const struct command command_table[] = {
#include "server/commands.def"
};
const size_t command_count = ARRAY_LEN(command_table);

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
	struct slice rest = slice_str(row->words), word;
	int n = 0;

	while (rest.p && slice_next(&rest, ' ', &word))
		if (++n >= argc || !slice_eq(slice_str(argv[n]), word))
			return 0;
	return n;
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

static bool is_asking_for_help(const char *word)
{
	return word && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0);
}

static int run_unknown(int argc, char **argv)
{
	char full[128];

	if (!is_group(argv[1])) {
		print_unknown("", argv[1], argv[1]);
		return 1;
	}
	if (is_asking_for_help(argv[2]))
		return cli_help_about(argv[1]);
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
	char once[] = "once";
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
	code = cli_has_flag(&c, "--help") || cli_has_flag(&c, "-h") ? cli_help_about(c.command->words) : c.command->run(&c);
	struct str_list args = { .v = c.args, .n = c.arg_count };

	str_list_done(&args);
	config_free(c.cfg);
	mem_free(c.program);
	return code;
}
