/*
 * A SQLite VFS named "fault" that stands before the system's and can make the Nth operation fail. A write that fails
 * leaves half of its bytes behind, as a real one may.
 *
 * Threads: any; the plan is one for the process, under a lock. Errors: none, it aborts when it cannot be registered.
 */
#ifndef MSWARM_TESTS_VFS_FAULT_H
#define MSWARM_TESTS_VFS_FAULT_H

#include <stdbool.h>
#include <stdint.h>

enum {
	VFS_FAULT_WRITE = 1,
	VFS_FAULT_SYNC = 2,
	VFS_FAULT_TRUNCATE = 4,
	VFS_FAULT_SHM = 8,         /* mapping the index of the log in shared memory */
};

/* Call after db_init() (SQLite's allocator is set before its first use). */
void vfs_fault_register(void);

/* From now on the nth operation among ops (1 = the next) answers code, and every later one as well when sticky.
 * nth 0 switches off; ops are counted all the same. */
void vfs_fault_set(unsigned ops, uint64_t nth, int code, bool sticky);
/* Operations among ops since vfs_fault_set; and how many of them failed by plan. */
uint64_t vfs_fault_count(void);
uint64_t vfs_fault_hits(void);
/* The nth operation from now among ops waits until vfs_fault_release: a disk that hangs. */
void vfs_fault_hold(unsigned ops, uint64_t nth);
void vfs_fault_wait_held(void);
void vfs_fault_release(void);

#endif
