/*
 * setup, install, node install: register this machine, and make it a service (cli-config-service.md 1.1 to 1.4). Main thread.
 */
#include "server/account.h"
#include "server/app.h"
#include "server/clients.h"
#include "server/service.h"
#include "server/setup.h"
#include "server/system_user.h"

#include "base/clock.h"
#include "base/mem.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define UP_MS 1500                     /* the manager says "started" when the node has said "ready" */

/* ---- setup ---- */

static void print_registered(const struct config *cfg, const struct setup *s, bool has_secret)
{
	printf("Registered %s as %s\nDiscovered %zu local mcoda agents.\n", s->server_name, s->node_id, s->exposed_count);
	if (strcmp(s->relay_mode, "direct") == 0 && !cfg->is_signing_secret_shared && !has_secret)
		fputs("warning: no shared signing secret: the gateway's jobs will be refused until it and this node have the same one;\n"
		      "store it with: mswarm node install --signing-secret-stdin, or set MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET\n", stderr);
	if (*cfg->direct_base_url && strncmp(cfg->direct_base_url, "https://", 8) != 0 && strncmp(cfg->direct_base_url, "http://127.", 11) != 0 &&
	    strncmp(cfg->direct_base_url, "http://localhost", 16) != 0)
		fprintf(stderr, "warning: %s is neither https nor on this machine: tokens and prompts go there in the clear\n", cfg->direct_base_url);
}

int cmd_setup(struct cli *c)
{
	struct setup_options o = { 0 };
	const struct cli_option options[] = { SETUP_OPTIONS(o), { 0 } };
	struct setup s = { 0 };
	struct err e = { 0 };
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);
	bool starts;

	if (!rc)
		rc = setup_run(c, &o, NULL, &s, &e);
	if (rc)
		return cli_fail(&e);
	print_registered(c->cfg, &s, o.has_secret_on_stdin);
	starts = o.starts;
	if (!s.is_online)
		puts("Node registered, but local discovery is degraded. Run: mswarm node doctor");
	else if (!starts)
		puts("Node is online. Keep it running with: mswarm node run");
	fflush(stdout);
	setup_done(&s);
	return starts ? cmd_run_stored(c) : 0;
}

/* ---- definitions on paper ---- */

static int print_definitions(struct cli *c, const char *system, bool is_system)
{
	enum service_kind kind;
	struct service s = { 0 };
	AUTO_BUF out = BUF_MAX(1u << 20);
	struct err e = { 0 };
	enum errc rc;

	if (!service_kind_parse(slice_str(system), &kind)) {
		fprintf(stderr, "--print-service: linux, macos or windows, not \"%.32s\"\n", system);
		return 1;
	}
	rc = service_open(c->cfg, kind, is_system && kind == SERVICE_SYSTEMD, &s, &e);
	if (!rc)
		rc = buf_addf(&out, &e, "# %s\n", s.wrapper);
	if (!rc)
		rc = service_wrapper_text(&s, &out, &e);
	if (!rc)
		rc = buf_addf(&out, &e, "\n# %s\n", kind == SERVICE_WINDOWS ? s.name : s.file);
	if (!rc)
		rc = service_file_text(&s, &out, &e);
	if (!rc)
		rc = buf_addf(&out, &e, "\n# %s\n", service_load_text(&s));
	service_close(&s);
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}

/* ---- install ---- */

/* Does the node that the manager started answer? */
static bool is_up(struct cli *c)
{
	int64_t end_ms = clock_mono_ms() + UP_MS;

	while (clock_mono_ms() < end_ms) {
		AUTO_JSON running = NULL;

		if (cli_control(c, SLICE("{\"op\":\"status\"}"), &running, NULL) == E_OK)
			return true;
		(void)poll(NULL, 0, 100);
	}
	return false;
}

static void print_unmanaged(struct cli *c)
{
	fputs("No service manager was found on this machine, so nothing keeps the node running by itself.\nRun it with:\n  ", stdout);
	printf("%s node run\nor let the manager that you use run that command; mswarm node install --print-service linux shows a definition.\n", c->program);
}

static int install_service(struct cli *c, struct setup *s, bool is_system)
{
	struct service service = { 0 };
	struct service_install done = { 0 };
	struct err e = { 0 };
	enum errc rc = service_open(c->cfg, SERVICE_SYSTEMD, is_system, &service, &e);

	if (!rc)
		rc = service_install(&service, is_system ? system_user_own : NULL, &done, &e);
	if (rc == E_NOT_FOUND) {
		print_unmanaged(c);
		service_close(&service);
		return cli_print(SLICE(""));
	}
	if (rc) {
		fprintf(stderr, "%s\nThe service could not be installed; the registration is taken back.\n", e.what);
		setup_undo(c, s);
		service_close(&service);
		return 1;
	}
	printf("Installed %s service %s\nService file: %s\nLogs: %s\n", service_manager(&service), service.name, service.file, service.log);
	if (done.linger_warning[0])
		fprintf(stderr, "warning: %s\n", done.linger_warning);
	if (is_up(c))
		puts("Node daemon is running in the background.");
	else
		printf("The service was started, but the node does not answer yet: see mswarm node logs --error\n");
	service_close(&service);
	return cli_print(SLICE(""));
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1] == '-';
}

int cmd_install(struct cli *c)
{
	struct setup_options o = { 0 };
	const struct cli_option options[] = { SETUP_OPTIONS(o), { 0 } };
	bool has_positional = c->arg_count > 0 && !is_option(c->args[0]);
	const char *words[1] = { NULL };
	struct setup s = { 0 };
	struct err e = { 0 };
	size_t n = 0;
	enum errc rc = cli_load(c, options, words, 1, &n, &e);

	if (!rc && n && !has_positional)
		rc = err_set(&e, E_BAD_REQUEST, "Unexpected argument: the key comes first, or with --api-key");
	if (!rc && o.starts)
		rc = err_set(&e, E_BAD_REQUEST, "--start belongs to setup: install starts the service");
	if (rc)
		return cli_fail(&e);
	if (o.print_service)
		return print_definitions(c, o.print_service, o.is_system);
	if (o.is_system && geteuid() != 0)
		return cli_fail((err_set(&e, E_FORBIDDEN, "--system needs root"), &e));
	if (o.is_system)
		rc = system_user_make(c, &e);
	if (!rc)
		rc = setup_run(c, &o, n ? words[0] : NULL, &s, &e);
	if (rc)
		return cli_fail(&e);
	print_registered(c->cfg, &s, o.has_secret_on_stdin);
	fflush(stdout);
	int code = install_service(c, &s, o.is_system);

	setup_done(&s);
	return code;
}
