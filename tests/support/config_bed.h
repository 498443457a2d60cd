/*
 * A home folder of its own for each test of base/config*.c, and short words for loading and looking. Static on purpose: each
 * test program has its own.
 */
#ifndef MSWARM_TESTS_CONFIG_BED_H
#define MSWARM_TESTS_CONFIG_BED_H

#include "base/config.h"

#include "base/config_priv.h"
#include "base/file.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define P "MSWARM_SELF_HOSTED_"

static char home[PATH_MAX];

static int rm_home(void **state)
{
	static const char *const names[] = { "config.json", "node.key", "machine.id", "other.json" };
	char path[PATH_MAX + 64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/.mswarm/self-hosted-node/%s", home, names[i]);
		unlink(path);
		snprintf(path, sizeof(path), "%s/%s", home, names[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/.mswarm/self-hosted-node", home);
	rmdir(path);
	snprintf(path, sizeof(path), "%s/.mswarm", home);
	rmdir(path);
	return rmdir(home);
}

static int make_home(void **state)
{
	const char *base = getenv("TMPDIR");
	char path[PATH_MAX + 64];

	(void)state;
	snprintf(home, sizeof(home), "%.3000s/mswarm-config-XXXXXX", base && *base ? base : "/tmp");
	clearenv();
	if (!mkdtemp(home) || setenv("HOME", home, 1) != 0)
		return -1;
	if (base)
		setenv("TMPDIR", base, 1);
	snprintf(path, sizeof(path), "%s/.mswarm/self-hosted-node", home);
	return file_make_private_dir(path, NULL) == E_OK ? 0 : -1;
}

static const char *state_file(const char *name)
{
	static char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/.mswarm/self-hosted-node/%s", home, name);
	return path;
}

static inline void write_config(const char *text)
{
	assert_int_equal(file_write_atomic(state_file("config.json"), slice_str(text), 0644, NULL), E_OK);
}

static inline void auto_config(struct config **c)
{
	config_free(*c);
}
#define AUTO_CONFIG CLEANUP(auto_config) struct config *

/* Load with these flags (NULL-ended); the test fails when the load does. */
static inline struct config *load_args(char *const *args)
{
	struct config *c = NULL;
	struct err e = { 0 };

	if (config_load(&(struct config_load){ .args = args }, &c, &e) != E_OK)
		fail_msg("config_load: %s", e.what);
	return c;
}

static inline struct config *load(void)
{
	return load_args(NULL);
}

static inline void assert_refused(char *const *args, enum errc code, const char *text)
{
	struct config *c = NULL;
	struct err e = { 0 };
	enum errc rc = config_load(&(struct config_load){ .args = args }, &c, &e);

	config_free(c);
	if (rc != code || !strstr(e.what, text))
		fail_msg("wanted %s with \"%s\", got %s \"%s\"", err_symbol(code), text, err_symbol(rc), e.what);
}

static inline bool has_warning(const struct config *c, const char *text)
{
	for (size_t i = 0; i < c->warnings.n; i++)
		if (strstr(c->warnings.v[i], text))
			return true;
	return false;
}

static inline void assert_warned(const struct config *c, const char *text)
{
	if (!has_warning(c, text))
		fail_msg("no warning with \"%s\" among %zu, first: %s", text, c->warnings.n, c->warnings.n ? c->warnings.v[0] : "-");
}

struct shown {
	const char *name;
	char value[256], origin[16];
};

static inline void show_one(void *ctx, const struct config_row_view *v)
{
	struct shown *s = ctx;

	if (strcmp(v->name, s->name) != 0)
		return;
	snprintf(s->value, sizeof(s->value), "%s", v->value);
	snprintf(s->origin, sizeof(s->origin), "%s", config_origin_name(v->origin));
}

static inline void assert_shown(const struct config *c, const char *name, const char *value, const char *origin)
{
	struct shown s = { .name = name };

	config_each(c, show_one, &s);
	if (strcmp(s.value, value) != 0 || strcmp(s.origin, origin) != 0)
		fail_msg("%s is %s (%s), wanted %s (%s)", name, s.value, s.origin, value, origin);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, make_home, rm_home)

#endif
