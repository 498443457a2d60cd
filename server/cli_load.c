/*
 * What the handlers of commands use: configuration and options, answers, errors, the running node. Main thread only.
 */
#include "server/cli.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/control.h"
#include "server/service.h"

#include <stdio.h>
#include <unistd.h>

#define CLI_ANSWER_MAX (4 * 1024 * 1024)

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

/* Root on a machine that has a node of its own, and none of root's: that node is meant. */
static bool is_machines_node(const struct config *cfg)
{
	return geteuid() == 0 && file_exists(SERVICE_SYSTEM_UNIT) && !file_exists(cfg->config_path) &&
	       strcmp(cfg->state_path, "~/.mswarm/self-hosted-node/config.json") == 0;
}

static enum errc load(struct cli *c, struct str_list *rest, struct err *e)
{
	const struct config_load in = { .args = c->args, .allow_rest = true, .ret_rest = rest };
	enum errc rc = config_load(&in, &c->cfg, e);

	if (rc || !is_machines_node(c->cfg))
		return rc;
	AUTO_FREE char **args = mem_calloc(c->arg_count + 3, sizeof(*args));

	if (!args)
		return err_set(e, E_NO_MEMORY, "no memory");
	args[0] = "--state-path";
	args[1] = SERVICE_SYSTEM_HOME "/.mswarm/self-hosted-node/config.json";
	for (size_t i = 0; i < c->arg_count; i++)
		args[i + 2] = c->args[i];
	const struct config_load again = { .args = args, .allow_rest = true, .ret_rest = rest };

	str_list_done(rest);
	*rest = (struct str_list){ 0 };
	config_free(c->cfg);
	c->cfg = NULL;
	return config_load(&again, &c->cfg, e);
}

enum errc cli_load(struct cli *c, const struct cli_option *options, const char **words, size_t max_words, size_t *ret_n,
	struct err *e)
{
	struct str_list rest = { 0 };
	enum errc rc = load(c, &rest, e);
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

bool cli_has_flag(const struct cli *c, const char *flag)
{
	for (size_t i = 0; i < c->arg_count; i++)
		if (strcmp(c->args[i], flag) == 0)
			return true;
	return false;
}
