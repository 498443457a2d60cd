/*
 * What to run: "key=value" strings, each ended by a NUL. Keys: arg (in order), env (NAME=VALUE), cwd, cgroup, limit_ms,
 * grace_ms, out_max, err_max, memory_max, nofile. The node writes it before it starts us; it is trusted, but not to be whole.
 */
#include "jobs/shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool number(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *ret <= INT64_MAX;
}

static bool take_number(struct shim *s, const char *key, const char *value)
{
	const struct {
		const char *key;
		void *at;
	} numbers[] = {
		{ "limit_ms", &s->spec.limit_ms }, { "grace_ms", &s->spec.grace_ms },
		{ "out_max", &s->spec.out_max }, { "err_max", &s->spec.err_max }, { "memory_max", &s->spec.memory_max },
		{ "nofile", &s->spec.nofile },
	};
	uint64_t v;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (strcmp(numbers[i].key, key) != 0)
			continue;
		if (!number(value, &v)) {
			fail(s, "spec: %s is no number", key);
			return false;
		}
		memcpy(numbers[i].at, &v, sizeof(v));
		return true;
	}
	fail(s, "spec: unknown key %.60s", key);
	return false;
}

static bool add(struct shim *s, char **list, size_t *n, size_t max, char *value, const char *what)
{
	if (*n == max) {
		fail(s, "spec: more than %zu of %s", max, what);
		return false;
	}
	list[(*n)++] = value;
	return true;
}

static bool take(struct shim *s, char *entry, size_t *args, size_t *envs)
{
	char *value = strchr(entry, '=');

	if (!value) {
		fail(s, "spec: an entry without =");
		return false;
	}
	*value++ = '\0';
	if (strcmp(entry, "arg") == 0)
		return add(s, s->spec.argv, args, SPEC_ARGS_MAX, value, "arg");
	if (strcmp(entry, "env") == 0)
		return add(s, s->spec.envp, envs, SPEC_ENV_MAX, value, "env");
	if (strcmp(entry, "cwd") == 0)
		s->spec.cwd = value;
	else if (strcmp(entry, "cgroup") == 0)
		s->spec.cgroup = value;
	else
		return take_number(s, entry, value);
	return true;
}

bool spec_read(struct shim *s)
{
	int fd = openat(s->dir, "spec", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t args = 0, envs = 0;
	struct stat st;
	char *text;

	s->spec.grace_ms = 5000;
	if (fd < 0 || fstat(fd, &st)) {
		fail(s, "spec: %s", strerror(errno));
		return false;
	}
	if (st.st_size <= 0 || st.st_size > SPEC_BYTES_MAX) {
		fail(s, "spec: %lld bytes, at most %u", (long long)st.st_size, SPEC_BYTES_MAX);
		return false;
	}
	text = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	if (text == MAP_FAILED || text[st.st_size - 1]) {
		fail(s, "spec: not whole");
		return false;
	}
	for (char *p = text; p < text + st.st_size;) {
		char *next = p + strlen(p) + 1;

		if (!take(s, p, &args, &envs))
			return false;
		p = next;
	}
	if (!args)
		fail(s, "spec: nothing to run");
	return args > 0;
}
