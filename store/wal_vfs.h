/*
 * A VFS between a writing connection and the file system: writes to the log are gathered into pieces of WAL_PIECE_BYTES. SQLite
 * writes each page of a transaction with two system calls, one for 24 bytes of header; a batch has hundreds of them.
 *
 * What is gathered is in the file before a sync begins, so a commit (synchronous = FULL) stands in it as ever; nobody else looks at
 * frames that are not committed, and the connection itself gets back what it wrote. A write that fails later than it was asked for
 * is told by the write, read or sync that made it due, with its own code: before the commit in any case.
 *
 * Threads: wal_vfs on main; a file by the thread that has its connection.
 */
#ifndef MSWARM_STORE_WAL_VFS_H
#define MSWARM_STORE_WAL_VFS_H

#include "base/err.h"

#define WAL_PIECE_BYTES (64 << 10)

/* The name of such a VFS before the one named base (NULL: the system's), made at its first use and kept for good. E_NO_MEMORY. */
MUST_CHECK enum errc wal_vfs(const char *base, const char **ret_name, struct err *e);

#endif
