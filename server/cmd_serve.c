/* serve, node run, daemon: the node in the foreground. Main thread. */
#include "server/app.h"
#include "server/cli.h"

static int run_loaded(struct cli *c, enum app_kind kind, bool is_verbose)
{
	struct app *a = NULL;
	struct err e = { 0 };
	int exit_code = 0;

	cli_set_title(c, c->cfg->process_title);
	const struct app_opts o = { .cfg = c->cfg, .program = c->program, .kind = kind, .is_verbose = is_verbose };

	if (app_new(&o, &a, &e) != E_OK)
		return cli_fail(&e);
	if (app_run(a, &exit_code, &e) != E_OK)
		exit_code = cli_fail(&e);
	app_free(a);
	return exit_code;
}

static int run_node(struct cli *c, enum app_kind kind)
{
	bool is_verbose = false;
	const struct cli_option options[] = { { .flag = "--verbose", .is_set = &is_verbose }, { 0 } };
	struct err e = { 0 };

	if (cli_load(c, options, NULL, 0, NULL, &e) != E_OK)
		return cli_fail(&e);
	return run_loaded(c, kind, is_verbose);
}

/* After setup: with what it has written. */
int cmd_run_stored(struct cli *c)
{
	char *const args[] = { "--state-path", c->cfg->config_path, NULL };
	const struct config_load in = { .args = args };
	struct config *cfg = NULL;
	struct err e = { 0 };

	if (config_load(&in, &cfg, &e) != E_OK)
		return cli_fail(&e);
	config_free(c->cfg);
	c->cfg = cfg;
	return run_loaded(c, APP_RUN, false);
}

int cmd_serve(struct cli *c)
{
	return run_node(c, APP_SERVE);
}

int cmd_run(struct cli *c)
{
	return run_node(c, APP_RUN);
}

int cmd_daemon(struct cli *c)
{
	return run_node(c, APP_DAEMON);
}
