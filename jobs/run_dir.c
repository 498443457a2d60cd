/*
 * Files and processes of an attempt: its directory, its shim, how both are found again, what is left of them. These may
 * block for a moment: on the pool, or at the start before anything runs.
 */
#include "jobs/run.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MARK "MSWARM_ATTEMPT="
#define LEFT_ROUNDS 200

static void file_in(const struct run *r, const char *name, char out[600])
{
	snprintf(out, 600, "%s/%s", r->dir, name);
}

static bool no_room(int error)
{
	return error == ENOSPC || error == EDQUOT;
}

static bool has_dir(const char *path)
{
	return mkdir(path, 0700) == 0 || errno == EEXIST;
}

/* Twice: the attempt before this one may just be removing the directory that it was in. */
static enum errc make_dirs(const char *of_job, const char *of_attempt, struct err *e)
{
	for (int i = 0; i < 2; i++)
		if (has_dir(of_job) && has_dir(of_attempt))
			return E_OK;
	return err_set_os(e, no_room(errno) ? E_READ_ONLY : E_IO, errno, "jobs: a directory for the attempt");
}

/* ---- begin ---- */

static enum errc write_spec(struct run *r, struct err *e)
{
	char path[600];
	AUTO_FD fd = -1;

	file_in(r, "spec", path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		errno = ENOSPC;                /* what less than all written means */
	if (fd < 0 || write(fd, r->plan.spec.p, r->plan.spec.n) != (ssize_t)r->plan.spec.n)
		return err_set_os(e, no_room(errno) ? E_READ_ONLY : E_IO, errno, "jobs: the plan of the attempt");
	return E_OK;
}

/* The shim belongs to nobody but itself: it makes its own session, and its output goes nowhere. The job inherits its signals. */
static enum errc start_shim(struct run *r, struct err *e)
{
	const char *argv[] = { "mswarm-shim", r->dir, NULL };
	char *const env[] = { "PATH=/usr/bin:/bin", NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int rc;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&files, 0, 1);
	posix_spawn_file_actions_adddup2(&files, 0, 2);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	rc = posix_spawn(&r->pid, r->s->o.shim, &files, &attr, (char *const *)argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return rc ? err_set_os(e, E_IO, rc, "jobs: %s", r->s->o.shim) : E_OK;
}

enum errc run_dir_start(struct run *r, struct err *e)
{
	AUTO_FREE char *of_job = file_dirname(r->dir);
	enum errc rc;

	if (!of_job)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = make_dirs(of_job, r->dir, e);
	if (!rc)
		rc = write_spec(r, e);
	return rc ? rc : start_shim(r, e);
}

void run_dir_stop(struct run *r)
{
	char path[600];
	int fd;

	file_in(r, "stop", path);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	else
		log_event(LOG_ERROR, "job.stop_failed", "job=%s errno=%d", r->job_id, errno);
}

int64_t run_dir_free(const struct supervisor *s)
{
	struct statvfs v;

	return statvfs(s->o.folder, &v) ? INT64_MAX : (int64_t)v.f_bavail * (int64_t)v.f_frsize;
}

/* ---- found again ---- */

enum errc run_dir_exit(struct run *r, struct buf *text, struct err *e)
{
	char path[600];
	enum errc rc;

	file_in(r, "exit", path);
	rc = file_read(path, text, e);
	if (!rc && !slice_ends_with(buf_slice(text), SLICE("\n")))      /* not yet, or torn by a power cut */
		rc = err_set(e, E_NOT_FOUND, "jobs: %s has no record", path);
	return rc;
}

/* The start of a process in ticks since boot, 0 when there is none. */
static int64_t start_of(int64_t pid)
{
	AUTO_BUF text = BUF_MAX(4096);
	char path[64];
	struct slice rest, field;
	ptrdiff_t at;
	int64_t start = 0;

	snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
	if (file_read(path, &text, NULL))
		return 0;
	rest = buf_slice(&text);
	for (at = (ptrdiff_t)rest.n - 1; at >= 0 && rest.p[at] != ')'; at--)
		;
	rest = slice_from(rest, (size_t)(at + 2));
	for (int i = 3; rest.p && i <= 22; i++)
		if (!slice_next(&rest, ' ', &field))
			return 0;
	return slice_to_i64(field, 1, INT64_MAX, &start) ? start : 0;
}

/* The first 32 bits of boot_id, which is random. */
int64_t run_dir_boot(void)
{
	AUTO_BUF text = BUF_MAX(64);
	const char *id;

	if (file_read("/proc/sys/kernel/random/boot_id", &text, NULL))
		return 0;
	id = buf_cstr(&text);
	return id ? strtoll(id, NULL, 16) : 0;
}

static bool is_alive(struct slice pid_text, pid_t *ret_pid)
{
	struct slice rest = slice_trim(pid_text), first;
	int64_t pid = 0, start = 0;

	if (!slice_next(&rest, ' ', &first) || !slice_to_i64(first, 1, INT32_MAX, &pid) || !rest.p || !slice_to_i64(rest, 1, INT64_MAX, &start))
		return false;
	*ret_pid = (pid_t)pid;
	return start_of(pid) == start;
}

enum run_found run_dir_find(struct run *r, pid_t *ret_pid)
{
	AUTO_BUF text = BUF_MAX(64u << 10);
	char path[600];

	if (run_dir_exit(r, &text, NULL) == E_OK)
		return FOUND_ENDED;
	file_in(r, "pid", path);
	for (int i = 0; i < 2; i++) {
		buf_clear(&text);
		if (file_read(path, &text, NULL) == E_OK)
			break;
		if (!file_exists(r->dir))
			return FOUND_NEVER_BEGUN;
		/* Whoever makes this file has the attempt: from here on no late shim can begin it. */
		if (file_create(path, SLICE("0 0\n"), 0600, NULL) == E_OK)
			return FOUND_NEVER_BEGUN;
	}
	if (slice_eq(slice_trim(buf_slice(&text)), SLICE("0 0")))
		return FOUND_NEVER_BEGUN;      /* given up before, by a node that died then */
	if (is_alive(buf_slice(&text), ret_pid))
		return FOUND_ALIVE;
	buf_clear(&text);
	return run_dir_exit(r, &text, NULL) == E_OK ? FOUND_ENDED : FOUND_LOST;
}

/* ---- what is left ---- */

static bool has_mark(const char *pid, const char *mark, size_t mark_n)
{
	AUTO_BUF text = BUF_MAX(1u << 20);
	char path[64];
	struct slice rest, entry;

	snprintf(path, sizeof(path), "/proc/%.20s/environ", pid);
	if (file_read(path, &text, NULL))
		return false;
	for (rest = buf_slice(&text); rest.p && slice_next(&rest, '\0', &entry);)
		if (entry.n == mark_n && memcmp(entry.p, mark, mark_n) == 0)
			return true;
	return false;
}

/* Kill what carries the attempt's mark in its environment: children of a shim that was killed itself. How many there were. */
static size_t kill_marked(struct run *r)
{
	char mark[600];
	int n = snprintf(mark, sizeof(mark), MARK "%s", r->dir);
	DIR *d = opendir("/proc");
	size_t found = 0;
	int64_t pid;

	for (struct dirent *entry; d && (entry = readdir(d));) {
		if (!slice_to_i64(slice_str(entry->d_name), 2, INT32_MAX, &pid) || !has_mark(entry->d_name, mark, (size_t)n))
			continue;
		kill((pid_t)pid, SIGKILL);
		found++;
	}
	if (d)
		closedir(d);
	return found;
}

static void remove_files(const char *dir)
{
	DIR *d = opendir(dir);

	for (struct dirent *entry; d && (entry = readdir(d));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			(void)unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
	(void)rmdir(dir);
}

void run_dir_remove(struct run *r)
{
	AUTO_FREE char *of_job = file_dirname(r->dir);

	for (int i = 0; r->is_lost && i < LEFT_ROUNDS && kill_marked(r); i++)
		;
	remove_files(r->dir);
	if (of_job)
		(void)rmdir(of_job);           /* stays while another attempt is in it */
}

static bool is_running(const struct supervisor *s, const char *name)
{
	char key[24];

	for (const struct run *r = s->runs; r; r = r->next) {
		snprintf(key, sizeof(key), "%016llx", (unsigned long long)r->key);
		if (strcmp(key, name) == 0)
			return true;
	}
	return false;
}

/* A job that has ended, or was never begun: the node died before it could tidy up. */
void run_dir_sweep(struct supervisor *s)
{
	DIR *d = opendir(s->o.folder);

	for (struct dirent *entry; d && (entry = readdir(d));) {
		char path[600], inner[900];
		DIR *attempts;

		if (entry->d_name[0] == '.' || is_running(s, entry->d_name))
			continue;
		snprintf(path, sizeof(path), "%.300s/%.200s", s->o.folder, entry->d_name);
		attempts = opendir(path);
		for (struct dirent *a; attempts && (a = readdir(attempts));) {
			if (a->d_name[0] == '.')
				continue;
			snprintf(inner, sizeof(inner), "%s/%.200s", path, a->d_name);
			remove_files(inner);
		}
		if (attempts)
			closedir(attempts);
		(void)rmdir(path);
	}
	if (d)
		closedir(d);
}
