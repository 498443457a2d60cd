/*
 * Files: read whole with a limit, write atomically (temp, fsync, rename, fsync of the folder), private folders,
 * exclusive locks. Blocking: never on a loop once it runs.
 */
#ifndef MSWARM_BASE_FILE_H
#define MSWARM_BASE_FILE_H

#include "base/buf.h"

#include <sys/types.h>

/* E_NOT_FOUND when absent; E_TOO_LARGE past out->max; E_IO. Appends to out. */
MUST_CHECK enum errc file_read(const char *path, struct buf *out, struct err *e);
/* As file_read; E_FORBIDDEN when group or others may read or write it, or another user owns it. */
MUST_CHECK enum errc file_read_private(const char *path, struct buf *out, struct err *e);
MUST_CHECK enum errc file_write_atomic(const char *path, struct slice content, mode_t mode, struct err *e);
/* Create with O_EXCL and fsync; E_CONFLICT when it exists. */
MUST_CHECK enum errc file_create(const char *path, struct slice content, mode_t mode, struct err *e);
/* mkdir -p; the last folder gets 0700, and is refused (E_FORBIDDEN) when another user owns it. */
MUST_CHECK enum errc file_make_private_dir(const char *path, struct err *e);
/* Lock path (made 0600 when absent) for this process until the fd is closed; holder's pid is written into it.
 * E_CONFLICT names the pid that holds it. May wait two seconds for a child that a killed holder left. */
MUST_CHECK enum errc file_lock(const char *path, int *ret_fd, struct err *e);
bool file_exists(const char *path);
/* A folder and all below it, links not followed, on one filesystem; what cannot be removed stays. */
void file_remove_tree(const char *path);
/* "~/x" and "~" with HOME, else a copy (mem_free). */
char *file_expand_home(const char *path, const char *home) MUST_CHECK;
/* folder + "/" + name (mem_free). */
char *file_join(const char *folder, const char *name) MUST_CHECK;
char *file_dirname(const char *path) MUST_CHECK;
void fd_auto_close(int *fd);
#define AUTO_FD CLEANUP(fd_auto_close) int

#endif
