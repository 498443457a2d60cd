/* The service's log files; see log_tail.h. Called by cmd_service.c and app_super.c. */
#include "server/log_tail.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (64 * 1024)
#define LOOK_MS 200
#define KEPT 3

/* Where the last n lines begin: read backwards, a piece at a time. */
static enum errc find_start(int fd, off_t size, int64_t n, off_t *ret, struct err *e)
{
	char piece[PIECE];
	off_t at = size;
	int64_t seen = 0;

	*ret = 0;
	while (at > 0) {
		size_t want = at > PIECE ? PIECE : (size_t)at;
		ssize_t got = pread(fd, piece, want, at - (off_t)want);

		if (got != (ssize_t)want)
			return err_set_os(e, E_IO, got < 0 ? errno : EIO, "log");
		for (size_t i = want; i > 0; i--) {
			off_t pos = at - (off_t)want + (off_t)i;       /* just behind this byte */

			/* The end of the last line opens none. */
			if (piece[i - 1] == '\n' && pos < size && ++seen == n) {
				*ret = pos;
				return E_OK;
			}
		}
		at -= (off_t)want;
	}
	return E_OK;
}

static enum errc copy_from(int fd, off_t *at, struct err *e)
{
	char piece[PIECE];
	ssize_t n;

	while ((n = pread(fd, piece, sizeof(piece), *at)) > 0) {
		if (fwrite(piece, 1, (size_t)n, stdout) != (size_t)n)
			return err_set(e, E_IO, "cannot write to standard output");
		*at += n;
	}
	fflush(stdout);
	return n < 0 ? err_set_os(e, E_IO, errno, "log") : E_OK;
}

static bool is_other_file(int fd, const char *path)
{
	struct stat open_one, named;

	return fstat(fd, &open_one) == 0 && stat(path, &named) == 0 && (open_one.st_ino != named.st_ino || open_one.st_dev != named.st_dev);
}

enum errc log_tail(const char *path, int64_t n, bool follows, struct err *e)
{
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	off_t at = 0;
	enum errc rc;

	if (fd < 0 && errno == ENOENT)
		return err_set(e, E_NOT_FOUND, "ENOENT: no such file or directory, open '%s'", path);
	if (fd < 0 || fstat(fd, &st) != 0)
		return err_set_os(e, E_IO, errno, "%s", path);
	rc = find_start(fd, st.st_size, n, &at, e);
	if (!rc)
		rc = copy_from(fd, &at, e);
	while (!rc && follows && !ferror(stdout)) {
		(void)poll(NULL, 0, LOOK_MS);
		bool is_rotated = is_other_file(fd, path);

		rc = copy_from(fd, &at, e);        /* what was written before the turn */
		if (rc || !is_rotated)
			continue;
		int next = open(path, O_RDONLY | O_CLOEXEC);

		if (next < 0)
			continue;
		(void)close(fd);
		fd = next;
		at = 0;
	}
	return rc;
}

static bool numbered(const char *path, int i, char out[4096])
{
	int n = i ? snprintf(out, 4096, "%s.%d", path, i) : snprintf(out, 4096, "%s", path);

	return n > 0 && n < 4096;
}

void log_files_remove(const char *path)
{
	char name[4096];

	for (int i = 0; i <= KEPT; i++)
		if (numbered(path, i, name))
			(void)unlink(name);
}

void log_rotate(int fd, const char *path, int64_t max_bytes)
{
	char from[4096], to[4096];
	struct stat st;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= max_bytes || is_other_file(fd, path))
		return;
	for (int i = KEPT; i > 0; i--)
		if (numbered(path, i - 1, from) && numbered(path, i, to))
			(void)rename(from, to);
	int fresh = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fresh < 0)
		return;                        /* it goes on writing into path.1 */
	(void)dup2(fresh, fd);                 /* without O_CLOEXEC, as it was */
	(void)close(fresh);
}
