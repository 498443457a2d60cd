/* serve, node run, daemon: the node in the foreground. Main thread. */
#include "server/app.h"
#include "server/cli.h"

static int run_node(struct cli *c, enum app_kind kind)
{
	bool is_verbose = false;
	const struct cli_option options[] = { { .flag = "--verbose", .is_set = &is_verbose }, { 0 } };
	struct app *a = NULL;
	struct err e = { 0 };
	int exit_code = 0;

	if (cli_load(c, options, NULL, 0, NULL, &e) != E_OK)
		return cli_fail(&e);
	cli_set_title(c, c->cfg->process_title);
	const struct app_opts o = { .cfg = c->cfg, .program = c->program, .kind = kind, .is_verbose = is_verbose };

	if (app_new(&o, &a, &e) != E_OK)
		return cli_fail(&e);
	if (app_run(a, &exit_code, &e) != E_OK)
		exit_code = cli_fail(&e);
	app_free(a);
	return exit_code;
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
