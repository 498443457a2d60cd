/*
 * Files: whole reads with a ceiling, atomic writes, private folders, locks. Called at boot, by commands, by the pool and
 * by the supervisor; everything here may block, so never on a loop once it runs.
 */
#include "base/file.h"

#include "base/crypto.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READ_STEP ((size_t)64 * 1024)
#define TEMP_TAG_LEN 8
#define LOCK_CHILD_MS 2000
#define LOCK_STEP_MS 10

void fd_auto_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* A failed open: absence is told apart from trouble. */
static enum errc open_error(const char *path, struct err *e)
{
	int err = errno;

	if (err == ENOENT || err == ENOTDIR)
		return err_set_os(e, E_NOT_FOUND, err, "%s", path);
	return err_set_os(e, E_IO, err, "%s: cannot open", path);
}

static enum errc check_private(const char *path, const struct stat *st, struct err *e)
{
	if (st->st_uid != geteuid())
		return err_set(e, E_FORBIDDEN, "%s: belongs to user %u, not to user %u", path, (unsigned)st->st_uid,
			(unsigned)geteuid());
	if (st->st_mode & 077)
		return err_set(e, E_FORBIDDEN, "%s: mode %03o lets others in; it must be 600", path,
			(unsigned)(st->st_mode & 0777));
	return E_OK;
}

/* Append what fd still holds. One byte beyond the ceiling is asked for, so that "exactly full" and "too large" differ. */
static enum errc read_all(int fd, const char *path, struct buf *out, struct err *e)
{
	for (;;) {
		size_t room = out->max - out->n;
		size_t want = room < READ_STEP ? room : READ_STEP;
		char beyond, *to = &beyond;

		if (want > 0) {
			enum errc rc = buf_reserve(out, want, &to, e);

			if (rc)
				return rc;
		}
		ssize_t got = read(fd, to, want > 0 ? want : 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set_os(e, E_IO, errno, "%s: cannot read", path);
		if (got == 0)
			return E_OK;
		if (want == 0)
			return err_set(e, E_TOO_LARGE, "%s: more than %zu bytes", path, out->max);
		buf_wrote(out, (size_t)got);
	}
}

static enum errc read_file(const char *path, bool is_private, struct buf *out, struct err *e)
{
	/* O_NONBLOCK: a FIFO put in place of the file must not hang the caller; it is refused below. */
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	size_t before = out->n;

	if (fd < 0)
		return open_error(path, e);
	if (fstat(fd, &st) != 0)
		return err_set_os(e, E_IO, errno, "%s: cannot look at it", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, E_IO, "%s: is no regular file", path);
	enum errc rc = is_private ? check_private(path, &st, e) : E_OK;

	if (rc == E_OK)
		rc = read_all(fd, path, out, e);
	if (rc)
		buf_truncate(out, before);
	return rc;
}

enum errc file_read(const char *path, struct buf *out, struct err *e)
{
	return read_file(path, false, out, e);
}

enum errc file_read_private(const char *path, struct buf *out, struct err *e)
{
	return read_file(path, true, out, e);
}

static enum errc write_all(int fd, const char *path, struct slice content, struct err *e)
{
	while (content.n > 0) {
		ssize_t put = write(fd, content.p, content.n);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return err_set_os(e, E_IO, errno, "%s: cannot write", path);
		content = slice_from(content, (size_t)put);
	}
	return E_OK;
}

/* A rename or a new name is only safe on disk once its folder is. */
static enum errc sync_folder_of(const char *path, struct err *e)
{
	AUTO_FREE char *folder = file_dirname(path);

	if (!folder)
		return err_set(e, E_NO_MEMORY, "no memory");
	AUTO_FD fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_set_os(e, E_IO, errno, "%s: cannot open", folder);
	/* EINVAL: a file system without sync of folders; then there is nothing more to be had. */
	if (fsync(fd) != 0 && errno != EINVAL)
		return err_set_os(e, E_IO, errno, "%s: cannot sync", folder);
	return E_OK;
}

/* Fill a file that was just created: content, mode (whatever the umask is), sync. */
static enum errc fill_new(int fd, const char *path, struct slice content, mode_t mode, struct err *e)
{
	if (fchmod(fd, mode) != 0)
		return err_set_os(e, E_IO, errno, "%s: cannot set mode", path);
	enum errc rc = write_all(fd, path, content, e);

	if (rc)
		return rc;
	if (fsync(fd) != 0)
		return err_set_os(e, E_IO, errno, "%s: cannot sync", path);
	return E_OK;
}

/* Write content into a new file beside path and give its name; nothing is left behind on failure. */
static enum errc write_temp(const char *path, struct slice content, mode_t mode, char **ret_temp, struct err *e)
{
	AUTO_BUF name = BUF_MAX(PATH_MAX);
	char tag[TEMP_TAG_LEN + 1];

	crypto_random_id(tag, TEMP_TAG_LEN);
	enum errc rc = buf_addf(&name, e, "%s.tmp-%s", path, tag);

	if (rc)
		return rc;
	AUTO_FREE char *temp = buf_take(&name, NULL);

	if (!temp)
		return err_set(e, E_NO_MEMORY, "no memory");
	AUTO_FD fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_set_os(e, E_IO, errno, "%s: cannot create", temp);
	rc = fill_new(fd, temp, content, mode, e);
	if (rc) {
		unlink(temp);
		return rc;
	}
	*ret_temp = TAKE(temp);
	return E_OK;
}

enum errc file_write_atomic(const char *path, struct slice content, mode_t mode, struct err *e)
{
	AUTO_FREE char *temp = NULL;
	char real[PATH_MAX];
	struct stat st;

	/* A link stays a link: its target is what gets replaced. */
	if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && realpath(path, real))
		path = real;
	enum errc rc = write_temp(path, content, mode, &temp, e);

	if (rc)
		return rc;
	if (rename(temp, path) != 0) {
		rc = err_set_os(e, E_IO, errno, "%s: cannot put in place", path);
		unlink(temp);
		return rc;
	}
	return sync_folder_of(path, e);
}

/* For file systems without hard links: not atomic, so a half-written file is taken away again. */
static enum errc create_plain(const char *path, struct slice content, mode_t mode, struct err *e)
{
	AUTO_FD fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 && errno == EEXIST)
		return err_set(e, E_CONFLICT, "%s: exists already", path);
	if (fd < 0)
		return err_set_os(e, E_IO, errno, "%s: cannot create", path);
	enum errc rc = fill_new(fd, path, content, mode, e);

	if (rc)
		unlink(path);
	return rc;
}

enum errc file_create(const char *path, struct slice content, mode_t mode, struct err *e)
{
	AUTO_FREE char *temp = NULL;
	enum errc rc = write_temp(path, content, mode, &temp, e);

	if (rc)
		return rc;
	/* link() refuses an existing name and shows the file only once it is whole: a kill leaves all or nothing. */
	int err = link(temp, path) == 0 ? 0 : errno;

	unlink(temp);
	if (err == EEXIST)
		return err_set(e, E_CONFLICT, "%s: exists already", path);
	if (err == EPERM || err == EOPNOTSUPP || err == ENOSYS)
		rc = create_plain(path, content, mode, e);
	else if (err)
		rc = err_set_os(e, E_IO, err, "%s: cannot create", path);
	return rc ? rc : sync_folder_of(path, e);
}

static enum errc make_one_dir(const char *path, mode_t mode, struct err *e)
{
	if (mkdir(path, mode) == 0)
		return sync_folder_of(path, e);
	if (errno == EEXIST)
		return E_OK;
	return err_set_os(e, E_IO, errno, "%s: cannot make the folder", path);
}

enum errc file_make_private_dir(const char *path, struct err *e)
{
	AUTO_FREE char *copy = mem_strdup(path);
	struct stat st;

	if (!copy)
		return err_set(e, E_NO_MEMORY, "no memory");
	for (char *cut = copy + 1; *copy && (cut = strchr(cut, '/')) != NULL; cut++) {
		*cut = '\0';
		enum errc rc = cut[-1] == '/' ? E_OK : make_one_dir(copy, 0755, e);

		*cut = '/';
		if (rc)
			return rc;
	}
	enum errc rc = make_one_dir(path, 0700, e);

	if (rc)
		return rc;
	AUTO_FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_set_os(e, E_IO, errno, "%s: cannot open the folder", path);
	if (st.st_uid != geteuid())
		return err_set(e, E_FORBIDDEN, "%s: belongs to user %u, not to user %u", path, (unsigned)st.st_uid,
			(unsigned)geteuid());
	if ((st.st_mode & 07777) != 0700 && fchmod(fd, 0700) != 0)
		return err_set_os(e, E_IO, errno, "%s: cannot set mode", path);
	return E_OK;
}

/* Who wrote the lock file last; 0 when that cannot be read. */
static int64_t lock_holder(int fd)
{
	char text[32];
	ssize_t got = pread(fd, text, sizeof(text), 0);
	int64_t pid = 0;

	if (got > 0 && !slice_to_i64(slice_trim(slice_of(text, (size_t)got)), 1, INT32_MAX, &pid))
		pid = 0;
	return pid;
}

static bool is_dead(int64_t pid)
{
	return pid && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/*
 * A lock is held by every process that has its descriptor. One that was just being started when its parent was killed has it until
 * its exec closes it: it is waited for, a moment only, as nobody that we know of holds the lock.
 */
static enum errc take_lock(int fd, const char *path, struct err *e)
{
	static const struct timespec step = { .tv_nsec = LOCK_STEP_MS * 1000000 };

	for (int waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited_ms += LOCK_STEP_MS) {
		int64_t holder;

		if (errno != EWOULDBLOCK)
			return err_set_os(e, E_IO, errno, "%s: cannot lock", path);
		holder = lock_holder(fd);
		if (waited_ms >= LOCK_CHILD_MS || !is_dead(holder))
			return err_set(e, E_CONFLICT, "%s: held by process %" PRId64, path, holder);
		(void)nanosleep(&step, NULL);
	}
	return E_OK;
}

enum errc file_lock(const char *path, int *ret_fd, struct err *e)
{
	AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	char text[32];

	if (fd < 0)
		return err_set_os(e, E_IO, errno, "%s: cannot open", path);
	enum errc rc = take_lock(fd, path, e);

	if (rc)
		return rc;
	int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
		return err_set_os(e, E_IO, errno, "%s: cannot write", path);
	*ret_fd = fd;
	fd = -1;
	return E_OK;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	(void)remove(path);
	return 0;
}

void file_remove_tree(const char *path)
{
	(void)nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

bool file_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

char *file_expand_home(const char *path, const char *home)
{
	if (!home || !*home || path[0] != '~' || (path[1] != '/' && path[1] != '\0'))
		return mem_strdup(path);
	return path[1] && path[2] ? file_join(home, path + 2) : mem_strdup(home);
}

char *file_join(const char *folder, const char *name)
{
	size_t a = strlen(folder), b = strlen(name);

	while (a > 1 && folder[a - 1] == '/')
		a--;
	if (a == 1 && folder[0] == '/')
		a = 0;
	char *path = mem_alloc(a + b + 2);

	if (!path)
		return NULL;
	memcpy(path, folder, a);
	path[a] = '/';
	memcpy(path + a + 1, name, b + 1);
	return path;
}

char *file_dirname(const char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n > 0 && path[n - 1] != '/')
		n--;
	if (n == 0)
		return mem_strdup(".");
	while (n > 1 && path[n - 1] == '/')
		n--;
	return mem_strndup(path, n);
}
