/*
 * Settings from anywhere. Input beginning with "-": flags, one a line. With "$": the value of a few variables. Anything
 * else: a config.json, read through a file in memory.
 */
#include "base/config.h"
#include "base/config_priv.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARGS_MAX 32

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const variables[] = {
	"MSWARM_SELF_HOSTED_LISTEN_PORT", "MSWARM_SELF_HOSTED_RELAY_MODE", "MSWARM_SELF_HOSTED_DRAIN_MODE", "OLLAMA_HOST",
	"MSWARM_SELF_HOSTED_MODEL_ALLOWLIST", "MSWARM_SELF_HOSTED_EXPOSURE_POLICY", "MSWARM_SELF_HOSTED_JOB_TIMEOUT_MS",
	"MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET",
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	clearenv();
	setenv("HOME", "/nonexistent", 1);
	return 0;
}

static void look(void *ctx, const struct config_row_view *v)
{
	size_t *n = ctx;

	*n += strlen(v->value);
	must(!(v->flags & CFG_SECRET) || v->value[0] == '\0' || strcmp(v->value, "(set)") == 0);
}

static void load(const struct config_load *in)
{
	struct config *c = NULL;
	struct err e = { 0 };
	size_t n = 0;
	enum errc rc = config_load(in, &c, &e);

	must((rc == E_OK) == (c != NULL));
	if (rc) {
		must(e.what[0] != '\0');
		return;
	}
	config_each(c, look, &n);
	for (size_t i = 0; i < c->upstream_count; i++)
		must(c->upstreams[i].name[0] && strstr(c->upstreams[i].base_url, "://"));
	for (size_t i = 0; i < ROW__COUNT; i++)
		if (config_rows[i].type == ROW_INT)
			must(*config_int(c, &config_rows[i]) >= config_rows[i].lo && *config_int(c, &config_rows[i]) <= config_rows[i].hi);
	config_free(c);
}

static void load_file(const uint8_t *data, size_t size)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	char path[64];

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	load(&(struct config_load){ .file_override = path });
	close(fd);
}

static void load_flags(char *text)
{
	CLEANUP(str_list_done) struct str_list rest = { 0 };
	char *args[ARGS_MAX + 1] = { 0 };
	size_t n = 0;

	for (char *line = text; line && n < ARGS_MAX; n++) {
		char *end = strchr(line, '\n');

		args[n] = line;
		if (end)
			*end++ = '\0';
		line = end;
	}
	load(&(struct config_load){ .args = args });
	load(&(struct config_load){ .args = args, .allow_rest = true, .ret_rest = &rest });
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = mem_strndup((const char *)data, size);

	if (!text)
		return 0;
	if (size > 0 && data[0] == '-') {
		load_flags(text);
	} else if (size > 0 && data[0] == '$') {
		for (size_t i = 0; i < ARRAY_LEN(variables); i++)
			setenv(variables[i], text + 1, 1);
		load(&(struct config_load){ 0 });
		for (size_t i = 0; i < ARRAY_LEN(variables); i++)
			unsetenv(variables[i]);
	} else {
		load_file(data, size);
	}
	return 0;
}
