/*
 * Preloaded into a node under test: ends it with SIGKILL right before or after a call that changes the world outside.
 *
 *   MSWARM_KILL_AT=POINT:before|after:N    the Nth time that this point is passed
 *
 * Points: see point_of_fd() and the calls below. A call is known by the file that it is about.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static char wanted_point[32], wanted_side[8];
static int wanted_n;
static atomic_int passed;

__attribute__((constructor)) static void read_wish(void)
{
	const char *text = getenv("MSWARM_KILL_AT");
	const char *side = text ? strchr(text, ':') : NULL, *n = side ? strchr(side + 1, ':') : NULL;

	if (!n)
		return;
	snprintf(wanted_point, sizeof(wanted_point), "%.*s", (int)(side - text), text);
	snprintf(wanted_side, sizeof(wanted_side), "%.*s", (int)(n - side - 1), side + 1);
	wanted_n = (int)strtol(n + 1, NULL, 10);
}

static void pass(const char *point, const char *side)
{
	if (!point || strcmp(point, wanted_point) != 0 || strcmp(side, wanted_side) != 0 || atomic_fetch_add(&passed, 1) + 1 != wanted_n)
		return;
	kill(getpid(), SIGKILL);
	pause();
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static const char *path_of(int fd, char out[512])
{
	char link[40];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, out, 511);
	out[n > 0 ? n : 0] = '\0';
	return out;
}

/* What a sync is about. */
static const char *point_of_sync(int fd)
{
	char path[512];

	path_of(fd, path);
	return ends_with(path, "node.db-wal") ? "commit" : ends_with(path, "node.db") ? "checkpoint" : strstr(path, "/@files") ? "file" : NULL;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fdatasync(int fd)
{
	const char *point = point_of_sync(fd);

	pass(point, "before");
	int rc = REAL(fdatasync)(fd);

	pass(point, "after");
	return rc;
}

int fsync(int fd)
{
	const char *point = point_of_sync(fd);

	pass(point, "before");
	int rc = REAL(fsync)(fd);

	pass(point, "after");
	return rc;
}

/* Of an attempt's directory: its plan, the wish to stop, its end as it is read. */
static const char *point_of_open(const char *path)
{
	if (!strstr(path, "/jobs/"))
		return NULL;
	return ends_with(path, "/spec") ? "spec" : ends_with(path, "/stop") ? "stop" : ends_with(path, "/exit") ? "exit" : NULL;
}

static int open_any(const char *name, const char *path, int flags, mode_t mode)
{
	const char *point = point_of_open(path);
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);

	pass(point, "before");
	int fd = real(path, flags, mode);

	pass(point, "after");
	return fd;
}

#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		va_list ap; \
		va_start(ap, flags); \
		mode_t mode = va_arg(ap, mode_t); \
		va_end(ap); \
		return open_any(#name, path, flags, mode); \
	}
OPEN(open)
OPEN(open64)

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *files, const posix_spawnattr_t *attr, char *const argv[], char *const env[])
{
	const char *point = ends_with(path, "mswarm-shim") ? "spawn" : NULL;

	pass(point, "before");
	int rc = REAL(posix_spawn)(pid, path, files, attr, argv, env);

	pass(point, "after");
	return rc;
}

/* The directory of an attempt that has ended, file by file; a file of artifacts that is not wanted any more. */
int unlinkat(int dir, const char *name, int flags)
{
	char path[512];
	const char *point = strstr(path_of(dir, path), "/jobs/") ? "remove" : strstr(path, "@files") ? "unlink" : NULL;

	pass(point, "before");
	int rc = REAL(unlinkat)(dir, name, flags);

	pass(point, "after");
	return rc;
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	pass("link", "before");
	int rc = REAL(linkat)(from_dir, from, to_dir, to, flags);

	pass("link", "after");
	return rc;
}

/* Answers of the job plane that acknowledge something. */
static const char *point_of_answer(const char *p, size_t n)
{
	return n > 12 && (memcmp(p, "HTTP/1.1 202", 12) == 0 || memcmp(p, "HTTP/1.1 201", 12) == 0) ? "answer" : NULL;
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
	const char *point = point_of_answer(p, n);

	pass(point, "before");
	ssize_t rc = REAL(send)(fd, p, n, flags);

	pass(point, "after");
	return rc;
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	const char *point = m->msg_iovlen ? point_of_answer(m->msg_iov[0].iov_base, m->msg_iov[0].iov_len) : NULL;

	pass(point, "before");
	ssize_t rc = REAL(sendmsg)(fd, m, flags);

	pass(point, "after");
	return rc;
}
