/*
 * The files of artifacts: "<root>/@files/<2 hex>/<16 hex>", named by the key of their row and by nothing that a caller said, and the
 * work directories of attempts, "<root>/@work/<job key>-<attempt>". A file without a row is none: it is swept away.
 *
 * The names begin with a sign that no directory of the reference node has, so both may share a folder.
 *
 * Threads: open and free on main; room and the sums from any; the rest may block: on the pool, or before the loops run.
 */
#ifndef MSWARM_JOBS_ARTIFACT_FILES_H
#define MSWARM_JOBS_ARTIFACT_FILES_H

#include "base/err.h"

#include <stdint.h>

struct artifact_files;

#define ARTIFACT_SHARDS 256

struct artifact_limits {                /* bytes */
	int64_t max;                    /* of one file */
	int64_t quota;                  /* of all; 0: none */
	int64_t keep_free;              /* on the disk */
};

/* root is made when absent (0700). E_FORBIDDEN, E_IO, E_READ_ONLY. */
MUST_CHECK enum errc artifact_files_open(const char *root, const struct artifact_limits *limits, struct artifact_files **ret, struct err *e);
void artifact_files_free(struct artifact_files *f);     /* NULL is fine */
const struct artifact_limits *artifact_files_limits(const struct artifact_files *f);

/*
 * Whether more bytes may come to what is held (by the rows) and being written: E_NO_SPACE names the limit. Then they are
 * reserved until artifact_files_give_back. A system call: not for each block.
 */
MUST_CHECK enum errc artifact_files_reserve(struct artifact_files *f, int64_t held, int64_t more, struct err *e);
void artifact_files_give_back(struct artifact_files *f, int64_t bytes);

/* One more of at most max uses; false: too many. Each true is given back by leave. */
bool artifact_files_enter(struct artifact_files *f, unsigned max);
void artifact_files_leave(struct artifact_files *f);

/* A new file (0600, exclusive), open for writing and reading; its key is after all that were given. */
MUST_CHECK enum errc artifact_files_create(struct artifact_files *f, int64_t *ret_key, int *ret_fd, struct err *e);
/* An open regular file of a work directory becomes one too, under a new key, without a copy. */
MUST_CHECK enum errc artifact_files_adopt(struct artifact_files *f, int fd, int64_t *ret_key, struct err *e);
/* Open for reading, or for writing too. E_ARTIFACT_NOT_FOUND. */
MUST_CHECK enum errc artifact_files_get(struct artifact_files *f, int64_t key, bool is_writable, int *ret_fd, struct err *e);
/* Write all, at a place. E_NO_SPACE, E_IO. */
MUST_CHECK enum errc artifact_write(int fd, const char *p, size_t n, int64_t at, struct err *e);
/* The file, and its name in the directory, are on the disk. */
MUST_CHECK enum errc artifact_files_sync(struct artifact_files *f, int64_t key, int fd, struct err *e);
void artifact_files_remove(struct artifact_files *f, const int64_t *keys, size_t n);    /* those that are there */

/* Calls fn with each key in one shard that was made before this process; true: remove it. For the sweep after a crash. */
void artifact_files_sweep(struct artifact_files *f, unsigned shard, bool (*is_gone)(void *ctx, int64_t key), void *ctx);

/* ---- work directories ---- */
/* The directory of an attempt, made with "inputs" and "outputs" in it; *ret_fd is of itself. What was there is removed. */
MUST_CHECK enum errc artifact_work_make(struct artifact_files *f, int64_t job_key, int64_t attempt, int *ret_fd, struct err *e);
MUST_CHECK enum errc artifact_work_open(struct artifact_files *f, int64_t job_key, int64_t attempt, int *ret_fd, struct err *e);  /* E_NOT_FOUND */
void artifact_work_path(const struct artifact_files *f, int64_t job_key, int64_t attempt, char *out, size_t cap);
void artifact_work_remove(struct artifact_files *f, int64_t job_key, int64_t attempt);
/* Remove all but those that is_wanted says are in use. */
void artifact_work_sweep(struct artifact_files *f, bool (*is_wanted)(void *ctx, int64_t job_key, int64_t attempt), void *ctx);

/* Open beneath a directory and never through a symbolic link (openat2). E_NOT_FOUND; E_FORBIDDEN: it leads through a link or out. */
MUST_CHECK enum errc open_beneath(int dir_fd, const char *path, int flags, unsigned mode, int *ret_fd, struct err *e);

#endif
