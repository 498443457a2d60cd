/* help and version. The text comes from the rows of commands.def and config_keys.def. Main thread. */
#include "server/cli.h"

#include <stdio.h>

static void print_command(const struct command *row, const char *before)
{
	printf("%s%s%s%s\n      %s\n", before, row->words, *row->args ? " " : "", row->args, row->help);
}

static void print_commands(enum command_state state)
{
	for (size_t i = 0; i < command_count; i++)
		if (command_table[i].state == state)
			print_command(&command_table[i], "  ");
}

int cli_help_about(const char *words)
{
	size_t n = strlen(words);

	for (size_t i = 0; i < command_count; i++) {
		const struct command *row = &command_table[i];
		bool is_meant = strncmp(row->words, words, n) == 0 && (row->words[n] == '\0' || row->words[n] == ' ');

		if (is_meant && row->state == COMMAND_ALIAS && !row->words[n])
			return cli_help_about(row->help);      /* the name of the command itself */
		if (is_meant && row->state == COMMAND_READY)
			print_command(row, "Usage: mswarm ");
	}
	return cli_print(SLICE("\n\"mswarm help\" has all commands, and the flags that all of them take.\n"));
}

static void print_short(enum command_state state)
{
	for (size_t i = 0; i < command_count; i++) {
		const struct command *row = &command_table[i];

		if (row->state == state)
			printf("  %-16s %s%s\n", row->words, state == COMMAND_ALIAS ? "= " : "", row->help);
	}
}

struct setting {
	const char *env, *flag, *help;
};
static const struct setting settings[] = {
#define CFG_INT(name, def, lo, hi, flags, unit, json, env_, flag_, help_) { .env = env_, .flag = flag_, .help = help_ },
#define CFG_BOOL(name, def, flags, json, env_, flag_, help_) { .env = env_, .flag = flag_, .help = help_ },
#define CFG_STR(name, def, flags, json, env_, flag_, help_) { .env = env_, .flag = flag_, .help = help_ },
#define CFG_LIST(name, def, flags, json, env_, flag_, help_) { .env = env_, .flag = flag_, .help = help_ },
#include "base/config_keys.def"
};

static void print_settings(void)
{
	fputs("\nEnvironment (a flag on the command line comes first, then the environment, then config.json):\n", stdout);
	fputs("  MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET\n      Secret that signs tokens; else signing.key, made when absent\n", stdout);
	for (size_t i = 0; i < ARRAY_LEN(settings); i++)
		if (*settings[i].env)
			printf("  %s\n      %s\n", settings[i].env, settings[i].help);
	fputs("\nFlags of serve and node run (setup options):\n", stdout);
	for (size_t i = 0; i < ARRAY_LEN(settings); i++)
		if (*settings[i].flag)
			printf("  %.*s\n      %s%s\n", (int)strcspn(settings[i].flag, "!"), settings[i].flag, strchr(settings[i].flag, '!') ? "Off: " : "",
			       settings[i].help);
	fputs("  --verbose\n      What the node found and how to call it, also when standard output is no terminal\n", stdout);
}

int cmd_help(struct cli *c)
{
	(void)c;
	/* The first line is the reference's. */
	fputs("Usage: mswarm <node|install|setup|start|doctor|once|daemon|serve|enroll|models|agents|status>\n"
			  "       mswarm <token|keys|access|config|drain|version|help>\n\nCommands:\n", stdout);
	print_commands(COMMAND_READY);
	fputs("\nCompatibility aliases:\n", stdout);
	print_short(COMMAND_ALIAS);
	print_settings();
	fputs("\nSetup options:\n  the flags above, and the owner's key in one of these ways:\n"
	      "  --api-key-stdin, --api-key-file FILE, MSWARM_API_KEY, --api-key KEY, or as the first word of install\n"
	      "  --handle HANDLE (MSWARM_HANDLE)\n      No key: the owner of that handle approves this machine\n"
	      "  --clients LIST\n      Clients that the gateway lets through: IP addresses, UUIDs, domains\n"
	      "  --signing-secret-stdin\n      Keep the secret that the gateway signs direct jobs with\n"
	      "  --expose-all, --no-expose-all\n      What is exposed beyond --allow\n", stdout);
	fputs("\nLog options:\n  --log-level debug|info|warn|error|off, --no-access-log\n", stdout);
	return cli_print(SLICE(""));
}

int cmd_version(struct cli *c)
{
	(void)c;
	return cli_print(SLICE("mswarm " MSWARM_VERSION "\n"));
}
