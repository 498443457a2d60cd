/* The service's log files: their last lines, following, rotation by size. Threads: main; log_rotate on the supervisor's. */
#ifndef MSWARM_SERVER_LOG_TAIL_H
#define MSWARM_SERVER_LOG_TAIL_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The last n lines to standard output; follows: go on until interrupted, over rotations too. E_NOT_FOUND with the reference's text. */
MUST_CHECK enum errc log_tail(const char *path, int64_t n, bool follows, struct err *e);
/* The file and its rotated ones. */
void log_files_remove(const char *path);
/* If fd writes to this file and it is above max_bytes: path becomes path.1 (path.1 path.2, ... three of them), and fd a new one. */
void log_rotate(int fd, const char *path, int64_t max_bytes);

#endif
