/*
 * Registering this machine: what setup and node install share. Source: cli-config-service.md 1.2 to 1.4, 2.3; gateway.md 2.
 * Threads: main, blocking.
 */
#ifndef MSWARM_SERVER_SETUP_H
#define MSWARM_SERVER_SETUP_H

#include "base/crypto.h"
#include "server/cli.h"

struct setup_options {                     /* as given; strings are borrowed from the cli */
	const char *api_key, *api_key_file, *handle, *clients, *client, *print_service;
	bool has_key_on_stdin, has_secret_on_stdin, exposes_all, exposes_none, starts, is_system, is_plain;
};
/* Rows for cli_option; o is the struct above. */
#define SETUP_OPTIONS(o) \
	{ .flag = "--api-key", .value = &(o).api_key }, { .flag = "--api-key-file", .value = &(o).api_key_file }, \
	{ .flag = "--api-key-stdin", .is_set = &(o).has_key_on_stdin }, { .flag = "--signing-secret-stdin", .is_set = &(o).has_secret_on_stdin }, \
	{ .flag = "--handle", .value = &(o).handle }, { .flag = "--clients", .value = &(o).clients }, { .flag = "--client", .value = &(o).client }, \
	{ .flag = "--expose-all", .is_set = &(o).exposes_all }, { .flag = "--no-expose-all", .is_set = &(o).exposes_none }, \
	{ .flag = "--start", .is_set = &(o).starts }, { .flag = "--system", .is_set = &(o).is_system }, \
	{ .flag = "--print-service", .value = &(o).print_service }

/* What the files held before, to be put back when a later step fails. */
struct setup_files {
	char *config, *key, *secret;       /* contents; NULL: there was none */
	size_t config_n, key_n, secret_n;
	bool is_taken;
};

struct setup {
	char *node_id, *server_name, *relay_mode;
	struct setup_files before;
	bool is_online;
	size_t exposed_count;
};

/*
 * Bootstrap (or the owner's approval of a handle), files, first heartbeat. When a step after the files fails they are put back.
 * positional: the owner key, or NULL. Prints what the user has to do meanwhile.
 */
MUST_CHECK enum errc setup_run(struct cli *c, const struct setup_options *o, const char *positional, struct setup *ret, struct err *e);
/* The files as they were; the gateway is told that the node goes. For a service that could not be installed. */
void setup_undo(struct cli *c, struct setup *s);
void setup_done(struct setup *s);
/* "[a-z0-9-]", at most 80; "local-node" when nothing is left. */
void setup_normalize_name(struct slice name, char out[81]);

#endif
