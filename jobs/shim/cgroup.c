/*
 * A group of its own for the job, beside ours: v2 where the unified hierarchy has its controllers, else the memory and
 * pids hierarchies of v1, else none. It names the whole tree, holds the memory limit, and tells why memory ended it.
 */
#include "jobs/shim/shim.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool put(const char *dir, const char *file, const char *text)
{
	char path[600];
	int fd, n = snprintf(path, sizeof(path), "%s/%s", dir, file);

	if (!dir[0] || n < 0 || (size_t)n >= sizeof(path))
		return false;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

static bool get(const char *dir, const char *file, char *out, size_t cap)
{
	char path[600];
	int fd, n = snprintf(path, sizeof(path), "%s/%s", dir, file);
	ssize_t got;

	if (!dir[0] || n < 0 || (size_t)n >= sizeof(path))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, out, cap - 1);
	close(fd);
	out[got > 0 ? got : 0] = '\0';
	return got > 0;
}

/* Our own place in a hierarchy: the line of /proc/self/cgroup that begins with this ("0:") or names this controller. */
static bool own_path(const char *controller, char *out, size_t cap)
{
	char text[4096];

	if (!get("/proc/self", "cgroup", text, sizeof(text)))
		return false;
	for (char *line = text, *end; line && *line; line = end ? end + 1 : NULL) {
		char *names, *path;

		end = strchr(line, '\n');
		if (end)
			*end = '\0';
		names = strchr(line, ':');
		path = names ? strchr(names + 1, ':') : NULL;
		if (!path)
			continue;
		*path++ = '\0';
		if (strcmp(names + 1, controller) == 0)
			return (size_t)snprintf(out, cap, "%s", strcmp(path, "/") == 0 ? "" : path) < cap;
	}
	return false;
}

static bool make_in(const char *root, const char *controller, const char *name, char *out, size_t cap)
{
	char own[300];

	if (!own_path(controller, own, sizeof(own)) || (size_t)snprintf(out, cap, "%s%s/%s", root, own, name) >= cap || mkdir(out, 0755)) {
		out[0] = '\0';
		return false;
	}
	return true;
}

static bool make_v2(struct cgroup *g, const char *name)
{
	char text[256];

	if (!make_in("/sys/fs/cgroup", "", name, g->memory, sizeof(g->memory)))
		return false;
	if (!get(g->memory, "cgroup.procs", text, 1) && access(g->memory, W_OK)) {
		rmdir(g->memory);
		return false;
	}
	memcpy(g->pids, g->memory, sizeof(g->pids));
	g->kind = CGROUP_V2;
	return true;
}

static bool make_v1(struct cgroup *g, const char *name)
{
	bool has_memory = make_in("/sys/fs/cgroup/memory", "memory", name, g->memory, sizeof(g->memory));
	bool has_pids = make_in("/sys/fs/cgroup/pids", "pids", name, g->pids, sizeof(g->pids));

	if (has_memory || has_pids)
		g->kind = CGROUP_V1;
	return has_memory || has_pids;
}

static bool is_v2(void)
{
	return access("/sys/fs/cgroup/cgroup.controllers", R_OK) == 0;
}

void cgroup_make(struct shim *s)
{
	struct cgroup *g = &s->cgroup;
	char text[32];

	if (!s->spec.cgroup || !(is_v2() ? make_v2(g, s->spec.cgroup) : make_v1(g, s->spec.cgroup)))
		return;
	if (!s->spec.memory_max)
		return;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)s->spec.memory_max);
	if (!put(g->memory, g->kind == CGROUP_V2 ? "memory.max" : "memory.limit_in_bytes", text))
		note(s, "memory limit of %s bytes: not possible here", text);
}

void cgroup_enter(const struct cgroup *g)
{
	(void)put(g->memory, "cgroup.procs", "0");
	if (g->kind == CGROUP_V1)
		(void)put(g->pids, "cgroup.procs", "0");
}

bool cgroup_kill(const struct cgroup *g)
{
	return g->kind == CGROUP_V2 && put(g->memory, "cgroup.kill", "1");
}

bool cgroup_had_oom(const struct cgroup *g)
{
	char text[512], *at;

	if (!get(g->memory, g->kind == CGROUP_V2 ? "memory.events" : "memory.oom_control", text, sizeof(text)))
		return false;
	at = strstr(text, "oom_kill ");
	return at && strtoul(at + 9, NULL, 10) > 0;
}

int64_t cgroup_peak(const struct cgroup *g)
{
	char text[64];

	return get(g->memory, g->kind == CGROUP_V2 ? "memory.peak" : "memory.max_usage_in_bytes", text, sizeof(text)) ?
		strtoll(text, NULL, 10) : -1;
}

void cgroup_remove(const struct cgroup *g)
{
	if (g->memory[0])
		rmdir(g->memory);
	if (g->kind == CGROUP_V1 && g->pids[0])
		rmdir(g->pids);
}

const char *cgroup_name(const struct cgroup *g)
{
	static const char *const names[] = { [CGROUP_NONE] = "none", [CGROUP_V1] = "v1", [CGROUP_V2] = "v2" };

	return names[g->kind];
}
