/*
 * The files of artifacts and the work directories of attempts. See artifact_files.h. Paths inside work directories are the
 * job's to arrange as it likes, so nothing here follows a link in them.
 */
#include "jobs/artifact_files.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/slice.h"
#include "base/thread.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES "@files"
#define WORK "@work"
#define CREATE_TRIES 1000
#define DEPTH_MAX 64                    /* of directories that are removed; a deeper tree stays for the next start */

struct artifact_files {
	struct artifact_limits limits;
	char *root;
	int files_fd, work_fd;
	int64_t begun_key;              /* keys from here on are of this process */
	struct mutex mu;
	int64_t last_key;               /* GUARDED_BY(mu) */
	int64_t reserved;               /* GUARDED_BY(mu) */
	unsigned users;                 /* GUARDED_BY(mu) */
};

static enum errc fail_io(struct err *e, int os_errno, const char *what)
{
	bool is_full = os_errno == ENOSPC || os_errno == EDQUOT || os_errno == EFBIG;

	return err_set_os(e, is_full ? E_NO_SPACE : E_IO, os_errno, "artifacts: %s", what);
}

/* ---- open ---- */

static enum errc make_dir(int at, const char *name, int *ret_fd, struct err *e)
{
	if (mkdirat(at, name, 0700) && errno != EEXIST)
		return fail_io(e, errno, name);
	*ret_fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return *ret_fd < 0 ? fail_io(e, errno, name) : E_OK;
}

static enum errc make_shards(struct artifact_files *f, struct err *e)
{
	char name[8];

	if (faccessat(f->files_fd, "ff", F_OK, 0) == 0)
		return E_OK;                   /* the last one is there: made before */
	for (unsigned i = 0; i < ARTIFACT_SHARDS; i++) {
		snprintf(name, sizeof(name), "%02x", i);
		if (mkdirat(f->files_fd, name, 0700) && errno != EEXIST)
			return fail_io(e, errno, "a directory");
	}
	return E_OK;
}

enum errc artifact_files_open(const char *root, const struct artifact_limits *limits, struct artifact_files **ret, struct err *e)
{
	struct artifact_files *f = NEW(struct artifact_files);
	AUTO_FD root_fd = -1;
	enum errc rc;

	if (!f)
		return err_set(e, E_NO_MEMORY, "artifacts: no memory");
	f->limits = *limits;
	f->files_fd = f->work_fd = -1;
	f->last_key = f->begun_key = clock_wall_ms() << 20;
	mutex_init(&f->mu);
	f->root = mem_strdup(root);
	rc = f->root ? file_make_private_dir(root, e) : err_set(e, E_NO_MEMORY, "artifacts: no memory");
	if (!rc) {
		root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = root_fd < 0 ? err_set_os(e, E_IO, errno, "artifacts: %s", root) : make_dir(root_fd, FILES, &f->files_fd, e);
	}
	if (!rc)
		rc = make_dir(root_fd, WORK, &f->work_fd, e);
	if (!rc)
		rc = make_shards(f, e);
	if (rc) {
		artifact_files_free(f);
		return rc;
	}
	*ret = f;
	return E_OK;
}

void artifact_files_free(struct artifact_files *f)
{
	if (!f)
		return;
	if (f->files_fd >= 0)
		close(f->files_fd);
	if (f->work_fd >= 0)
		close(f->work_fd);
	mutex_done(&f->mu);
	mem_free(f->root);
	mem_free(f);
}

const struct artifact_limits *artifact_files_limits(const struct artifact_files *f)
{
	return &f->limits;
}

/* ---- room ---- */

enum errc artifact_files_reserve(struct artifact_files *f, int64_t held, int64_t more, struct err *e)
{
	struct statvfs st;
	int64_t unused = INT64_MAX;

	if (fstatvfs(f->files_fd, &st) == 0)
		unused = (int64_t)st.f_bavail * (int64_t)st.f_frsize;
	MUTEX_SCOPE(&f->mu);
	if (f->limits.quota && held + f->reserved + more > f->limits.quota)
		return err_set(e, E_NO_SPACE, "artifacts: %lld bytes more than the %lld that are allowed in all (%lld are there)",
			       (long long)(held + f->reserved + more - f->limits.quota), (long long)f->limits.quota, (long long)held);
	if (unused - f->reserved - more < f->limits.keep_free)
		return err_set(e, E_NO_SPACE, "artifacts: the disk has %lld bytes left, %lld are kept free, %lld are needed",
			       (long long)unused, (long long)f->limits.keep_free, (long long)(f->reserved + more));
	f->reserved += more;
	return E_OK;
}

void artifact_files_give_back(struct artifact_files *f, int64_t bytes)
{
	MUTEX_SCOPE(&f->mu);
	f->reserved -= bytes;
}

bool artifact_files_enter(struct artifact_files *f, unsigned max)
{
	MUTEX_SCOPE(&f->mu);
	if (f->users >= max)
		return false;
	f->users++;
	return true;
}

void artifact_files_leave(struct artifact_files *f)
{
	MUTEX_SCOPE(&f->mu);
	f->users--;
}

/* ---- files ---- */

static void name_of(int64_t key, char out[32])
{
	snprintf(out, 32, "%02llx/%016llx", (unsigned long long)key & 0xff, (unsigned long long)key);
}

static int64_t new_key(struct artifact_files *f)
{
	int64_t by_clock = clock_wall_ms() << 20;

	MUTEX_SCOPE(&f->mu);
	f->last_key = f->last_key >= by_clock ? f->last_key + 1 : by_clock;
	return f->last_key;
}

/* A key that is there already is of a time when the clock was ahead: the next one. */
enum errc artifact_files_create(struct artifact_files *f, int64_t *ret_key, int *ret_fd, struct err *e)
{
	char name[32];

	for (int i = 0; i < CREATE_TRIES; i++) {
		int64_t key = new_key(f);
		int fd;

		name_of(key, name);
		fd = openat(f->files_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0) {
			*ret_key = key;
			*ret_fd = fd;
			return E_OK;
		}
		if (errno != EEXIST)
			return fail_io(e, errno, "a new file");
	}
	return err_set(e, E_IO, "artifacts: the clock is behind the files that are there");
}

/* By its descriptor, so that it is the very file that was looked at. */
enum errc artifact_files_adopt(struct artifact_files *f, int fd, int64_t *ret_key, struct err *e)
{
	char from[48], to[32];

	snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	for (int i = 0; i < CREATE_TRIES; i++) {
		int64_t key = new_key(f);

		name_of(key, to);
		if (linkat(AT_FDCWD, from, f->files_fd, to, AT_SYMLINK_FOLLOW) == 0) {
			*ret_key = key;
			return E_OK;
		}
		if (errno != EEXIST)
			return fail_io(e, errno, "a file of a job");
	}
	return err_set(e, E_IO, "artifacts: the clock is behind the files that are there");
}

enum errc artifact_files_get(struct artifact_files *f, int64_t key, bool is_writable, int *ret_fd, struct err *e)
{
	char name[32];
	int fd;

	name_of(key, name);
	fd = openat(f->files_fd, name, (is_writable ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return err_set(e, E_ARTIFACT_NOT_FOUND, "Artifact was not found");
	if (fd < 0)
		return fail_io(e, errno, "a file");
	*ret_fd = fd;
	return E_OK;
}

enum errc artifact_write(int fd, const char *p, size_t n, int64_t at, struct err *e)
{
	while (n) {
		ssize_t got = pwrite(fd, p, n, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return fail_io(e, got ? errno : EIO, "a file");
		p += got;
		n -= (size_t)got;
		at += got;
	}
	return E_OK;
}

enum errc artifact_files_sync(struct artifact_files *f, int64_t key, int fd, struct err *e)
{
	char shard[8];
	AUTO_FD dir = -1;

	snprintf(shard, sizeof(shard), "%02llx", (unsigned long long)key & 0xff);
	if (fsync(fd))
		return fail_io(e, errno, "a file");
	dir = openat(f->files_fd, shard, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 || fsync(dir) ? fail_io(e, errno, "a directory") : E_OK;
}

void artifact_files_remove(struct artifact_files *f, const int64_t *keys, size_t n)
{
	char name[32];

	for (size_t i = 0; i < n; i++) {
		name_of(keys[i], name);
		(void)unlinkat(f->files_fd, name, 0);
	}
}

static bool parse_hex(const char *text, size_t n, int64_t *ret)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
		v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	*ret = (int64_t)v;
	return v <= INT64_MAX;
}

static DIR *open_list(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

	if (!d && fd >= 0)
		close(fd);
	return d;
}

void artifact_files_sweep(struct artifact_files *f, unsigned shard, bool (*is_gone)(void *ctx, int64_t key), void *ctx)
{
	char name[8];
	DIR *d;
	int64_t key;

	snprintf(name, sizeof(name), "%02x", shard);
	d = open_list(f->files_fd, name);
	for (struct dirent *entry; d && (entry = readdir(d));)
		if (strlen(entry->d_name) == 16 && parse_hex(entry->d_name, 16, &key) && key < f->begun_key && is_gone(ctx, key))
			(void)unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
}

/* ---- work directories ---- */

static void work_name(int64_t job_key, int64_t attempt, char out[48])
{
	snprintf(out, 48, "%016llx-%lld", (unsigned long long)job_key, (long long)attempt);
}

/* Whatever is in it, never through a link: a job may have made what it liked. */
static void remove_tree(int at, const char *name, int depth)
{
	DIR *d;

	if (unlinkat(at, name, 0) == 0 || errno == ENOENT || depth == 0)
		return;
	(void)!fchmodat(at, name, 0700, 0);    /* a directory that the job closed to itself */
	d = open_list(at, name);
	for (struct dirent *entry; d && (entry = readdir(d));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			remove_tree(dirfd(d), entry->d_name, depth - 1);
	if (d)
		closedir(d);
	(void)unlinkat(at, name, AT_REMOVEDIR);
}

enum errc artifact_work_make(struct artifact_files *f, int64_t job_key, int64_t attempt, int *ret_fd, struct err *e)
{
	AUTO_FD fd = -1;
	char name[48];
	enum errc rc;

	work_name(job_key, attempt, name);
	remove_tree(f->work_fd, name, DEPTH_MAX);
	rc = make_dir(f->work_fd, name, &fd, e);
	if (rc)
		return rc;
	if (mkdirat(fd, "inputs", 0700) || mkdirat(fd, "outputs", 0700))
		return fail_io(e, errno, "a work directory");
	*ret_fd = fd;
	fd = -1;
	return E_OK;
}

enum errc artifact_work_open(struct artifact_files *f, int64_t job_key, int64_t attempt, int *ret_fd, struct err *e)
{
	char name[48];

	work_name(job_key, attempt, name);
	*ret_fd = openat(f->work_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (*ret_fd >= 0)
		return E_OK;
	return errno == ENOENT ? err_set(e, E_NOT_FOUND, "artifacts: no work directory") : fail_io(e, errno, "a work directory");
}

void artifact_work_path(const struct artifact_files *f, int64_t job_key, int64_t attempt, char *out, size_t cap)
{
	char name[48];

	work_name(job_key, attempt, name);
	snprintf(out, cap, "%s/" WORK "/%s", f->root, name);
}

void artifact_work_remove(struct artifact_files *f, int64_t job_key, int64_t attempt)
{
	char name[48];

	work_name(job_key, attempt, name);
	remove_tree(f->work_fd, name, DEPTH_MAX);
}

void artifact_work_sweep(struct artifact_files *f, bool (*is_wanted)(void *ctx, int64_t job_key, int64_t attempt), void *ctx)
{
	DIR *d = open_list(f->work_fd, ".");

	for (struct dirent *entry; d && (entry = readdir(d));) {
		int64_t key = 0, attempt = 0;
		bool is_ours = strlen(entry->d_name) > 17 && entry->d_name[16] == '-' && parse_hex(entry->d_name, 16, &key) &&
			       slice_to_i64(slice_str(entry->d_name + 17), 0, INT64_MAX, &attempt);

		if (is_ours && !is_wanted(ctx, key, attempt))
			remove_tree(f->work_fd, entry->d_name, DEPTH_MAX);
	}
	if (d)
		closedir(d);
}

enum errc open_beneath(int dir_fd, const char *path, int flags, unsigned mode, int *ret_fd, struct err *e)
{
	struct open_how how = { .flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW), .mode = mode,
				.resolve = (unsigned)RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

	if (fd >= 0) {
		*ret_fd = (int)fd;
		return E_OK;
	}
	if (errno == ENOENT || errno == ENOTDIR)
		return err_set(e, E_NOT_FOUND, "artifacts: no such file");
	if (errno == ELOOP || errno == EXDEV)
		return err_set(e, E_FORBIDDEN, "artifacts: a link is in the way");
	return fail_io(e, errno, "a file of a job");
}
