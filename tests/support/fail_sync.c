/* Preloaded into a node under test: every sync fails with EIO from when the file named by FAIL_SYNC_WHEN exists. */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_failing(void)
{
	const char *path = getenv("FAIL_SYNC_WHEN");

	return path && access(path, F_OK) == 0;
}

int fsync(int fd)
{
	if (is_failing()) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	if (is_failing()) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}
