/* See vfs_fault.h. Used by test_store and the fault tests. */
#include "tests/support/vfs_fault.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

struct fault_file {
	sqlite3_file base;
	sqlite3_file *real;        /* lies behind this struct */
};

static struct {
	pthread_mutex_t mu;
	pthread_cond_t changed;
	unsigned ops, hold_ops;
	uint64_t nth, count, hits, hold_nth, hold_count;
	int code;
	bool is_sticky, is_held;
} plan = { .mu = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static sqlite3_vfs *real_vfs(void)
{
	return sqlite3_vfs_find("unix");
}

static sqlite3_file *real_file(sqlite3_file *f)
{
	return ((struct fault_file *)f)->real;
}

/* What the plan says to one operation: SQLITE_OK, or the code to fail with. */
static int step(unsigned op)
{
	int rc = SQLITE_OK;

	pthread_mutex_lock(&plan.mu);
	if ((plan.hold_ops & op) && ++plan.hold_count == plan.hold_nth) {
		plan.is_held = true;
		pthread_cond_broadcast(&plan.changed);
		while (plan.is_held)
			pthread_cond_wait(&plan.changed, &plan.mu);
	}
	if (plan.ops & op) {
		plan.count++;
		if (plan.nth && (plan.count == plan.nth || (plan.is_sticky && plan.count > plan.nth))) {
			rc = plan.code;
			plan.hits++;
		}
	}
	pthread_mutex_unlock(&plan.mu);
	return rc;
}

void vfs_fault_set(unsigned ops, uint64_t nth, int code, bool sticky)
{
	pthread_mutex_lock(&plan.mu);
	plan.ops = ops;
	plan.nth = nth;
	plan.code = code;
	plan.is_sticky = sticky;
	plan.count = plan.hits = 0;
	pthread_mutex_unlock(&plan.mu);
}

static uint64_t get(const uint64_t *what)
{
	uint64_t v;

	pthread_mutex_lock(&plan.mu);
	v = *what;
	pthread_mutex_unlock(&plan.mu);
	return v;
}

uint64_t vfs_fault_count(void)
{
	return get(&plan.count);
}

uint64_t vfs_fault_hits(void)
{
	return get(&plan.hits);
}

void vfs_fault_hold(unsigned ops, uint64_t nth)
{
	pthread_mutex_lock(&plan.mu);
	plan.hold_ops = ops;
	plan.hold_nth = nth;
	plan.hold_count = 0;
	pthread_mutex_unlock(&plan.mu);
}

void vfs_fault_wait_held(void)
{
	pthread_mutex_lock(&plan.mu);
	while (!plan.is_held)
		pthread_cond_wait(&plan.changed, &plan.mu);
	pthread_mutex_unlock(&plan.mu);
}

void vfs_fault_release(void)
{
	pthread_mutex_lock(&plan.mu);
	plan.is_held = false;
	plan.hold_ops = 0;
	pthread_cond_broadcast(&plan.changed);
	pthread_mutex_unlock(&plan.mu);
}

/* ---- the methods of a file ---- */

static int f_close(sqlite3_file *f)
{
	return real_file(f)->pMethods->xClose(real_file(f));
}

static int f_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
	return real_file(f)->pMethods->xRead(real_file(f), p, n, at);
}

static int f_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
	int rc = step(VFS_FAULT_WRITE);

	if (rc == SQLITE_OK)
		return real_file(f)->pMethods->xWrite(real_file(f), p, n, at);
	if (n > 1)
		(void)real_file(f)->pMethods->xWrite(real_file(f), p, n / 2, at);
	return rc;
}

static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	int rc = step(VFS_FAULT_TRUNCATE);

	return rc ? rc : real_file(f)->pMethods->xTruncate(real_file(f), size);
}

static int f_sync(sqlite3_file *f, int flags)
{
	int rc = step(VFS_FAULT_SYNC);

	return rc ? rc : real_file(f)->pMethods->xSync(real_file(f), flags);
}

static int f_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	return real_file(f)->pMethods->xFileSize(real_file(f), ret);
}

static int f_lock(sqlite3_file *f, int how)
{
	return real_file(f)->pMethods->xLock(real_file(f), how);
}

static int f_unlock(sqlite3_file *f, int how)
{
	return real_file(f)->pMethods->xUnlock(real_file(f), how);
}

static int f_check_reserved(sqlite3_file *f, int *ret)
{
	return real_file(f)->pMethods->xCheckReservedLock(real_file(f), ret);
}

static int f_control(sqlite3_file *f, int op, void *arg)
{
	return real_file(f)->pMethods->xFileControl(real_file(f), op, arg);
}

static int f_sector(sqlite3_file *f)
{
	return real_file(f)->pMethods->xSectorSize(real_file(f));
}

static int f_traits(sqlite3_file *f)
{
	return real_file(f)->pMethods->xDeviceCharacteristics(real_file(f));
}

static int f_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **ret)
{
	int rc = step(VFS_FAULT_SHM);

	return rc ? rc : real_file(f)->pMethods->xShmMap(real_file(f), region, size, extend, ret);
}

static int f_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
	return real_file(f)->pMethods->xShmLock(real_file(f), at, n, flags);
}

static void f_shm_barrier(sqlite3_file *f)
{
	real_file(f)->pMethods->xShmBarrier(real_file(f));
}

static int f_shm_unmap(sqlite3_file *f, int is_delete)
{
	return real_file(f)->pMethods->xShmUnmap(real_file(f), is_delete);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2,
	.xClose = f_close, .xRead = f_read, .xWrite = f_write, .xTruncate = f_truncate, .xSync = f_sync,
	.xFileSize = f_size, .xLock = f_lock, .xUnlock = f_unlock, .xCheckReservedLock = f_check_reserved,
	.xFileControl = f_control, .xSectorSize = f_sector, .xDeviceCharacteristics = f_traits,
	.xShmMap = f_shm_map, .xShmLock = f_shm_lock, .xShmBarrier = f_shm_barrier, .xShmUnmap = f_shm_unmap,
};

/* ---- the file system: all but opening is the system's ---- */

static int v_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
	struct fault_file *ff = (struct fault_file *)f;
	int rc;

	(void)v;
	ff->real = (sqlite3_file *)(ff + 1);
	ff->base.pMethods = NULL;
	rc = real_vfs()->xOpen(real_vfs(), name, ff->real, flags, ret_flags);
	if (ff->real->pMethods)
		ff->base.pMethods = &methods;
	return rc;
}

void vfs_fault_register(void)
{
	static sqlite3_vfs vfs;

	if (sqlite3_vfs_find("fault"))
		return;
	if (!real_vfs())
		abort();
	memcpy(&vfs, real_vfs(), sizeof(vfs));
	vfs.zName = "fault";
	vfs.pNext = NULL;
	vfs.szOsFile = (int)sizeof(struct fault_file) + real_vfs()->szOsFile;
	vfs.xOpen = v_open;
	if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK)
		abort();
}
