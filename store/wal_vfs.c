/*
 * See wal_vfs.h. Called by SQLite on the writer's connection: xOpen gives a file of our own for the log only, the others are the
 * system's, unwrapped. Thread: the connection's.
 */
#include "store/wal_vfs.h"

#include "base/mem.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

struct wal_file {
	sqlite3_file base;
	sqlite3_file *real;        /* lies behind this struct */
	char *piece;               /* NULL before the first write */
	sqlite3_int64 start;       /* where its first byte belongs */
	size_t n;                  /* bytes in it that are not in the file yet */
};

struct named_vfs {
	sqlite3_vfs vfs;
	char name[64];
};

static struct wal_file *wal_of(sqlite3_file *f)
{
	return (struct wal_file *)(void *)f;
}

/* What failed is not tried again: its transaction is over, and the next one writes the same place. */
static int flush(struct wal_file *w)
{
	size_t n = w->n;

	w->n = 0;
	return n ? w->real->pMethods->xWrite(w->real, w->piece, (int)n, w->start) : SQLITE_OK;
}

static bool is_pending(const struct wal_file *w, sqlite3_int64 at, int n)
{
	return w->n && at < w->start + (sqlite3_int64)w->n && at + n > w->start;
}

static int f_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
	struct wal_file *w = wal_of(f);
	const char *from = data;
	size_t left = (size_t)n;

	if (!w->piece)
		w->piece = mem_alloc(WAL_PIECE_BYTES);
	if (!w->piece)                 /* then as it was without us */
		return w->real->pMethods->xWrite(w->real, data, n, at);
	while (left) {
		/* Behind what is there, or over it (a page that changed again, a checksum); anything else begins anew. */
		sqlite3_int64 ahead = at - w->start;
		bool is_joined = w->n && ahead >= 0 && ahead <= (sqlite3_int64)w->n && ahead < WAL_PIECE_BYTES;
		size_t offset = is_joined ? (size_t)ahead : 0, k = WAL_PIECE_BYTES - offset;
		int rc = is_joined ? SQLITE_OK : flush(w);

		if (rc)
			return rc;
		if (!is_joined)
			w->start = at;
		if (k > left)
			k = left;
		memcpy(w->piece + offset, from, k);
		if (offset + k > w->n)
			w->n = offset + k;
		from += k;
		left -= k;
		at += (sqlite3_int64)k;
	}
	return SQLITE_OK;
}

static int f_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
	struct wal_file *w = wal_of(f);
	int rc = is_pending(w, at, n) ? flush(w) : SQLITE_OK;

	return rc ? rc : w->real->pMethods->xRead(w->real, p, n, at);
}

static int f_sync(sqlite3_file *f, int flags)
{
	struct wal_file *w = wal_of(f);
	int rc = flush(w);

	return rc ? rc : w->real->pMethods->xSync(w->real, flags);
}

/* What lies behind the new end is forgotten, not written: this is how a full disk gets room again. */
static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct wal_file *w = wal_of(f);
	int rc;

	if (w->start >= size)
		w->n = 0;
	rc = flush(w);
	return rc ? rc : w->real->pMethods->xTruncate(w->real, size);
}

static int f_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	struct wal_file *w = wal_of(f);
	int rc = flush(w);

	return rc ? rc : w->real->pMethods->xFileSize(w->real, ret);
}

/* Only what belongs to no commit can be left here. */
static int f_close(sqlite3_file *f)
{
	struct wal_file *w = wal_of(f);

	mem_free(w->piece);
	w->piece = NULL;
	return w->real->pMethods->xClose(w->real);
}

static int f_lock(sqlite3_file *f, int how)
{
	return wal_of(f)->real->pMethods->xLock(wal_of(f)->real, how);
}

static int f_unlock(sqlite3_file *f, int how)
{
	return wal_of(f)->real->pMethods->xUnlock(wal_of(f)->real, how);
}

static int f_check_reserved(sqlite3_file *f, int *ret)
{
	return wal_of(f)->real->pMethods->xCheckReservedLock(wal_of(f)->real, ret);
}

static int f_control(sqlite3_file *f, int op, void *arg)
{
	return wal_of(f)->real->pMethods->xFileControl(wal_of(f)->real, op, arg);
}

static int f_sector(sqlite3_file *f)
{
	return wal_of(f)->real->pMethods->xSectorSize(wal_of(f)->real);
}

static int f_traits(sqlite3_file *f)
{
	return wal_of(f)->real->pMethods->xDeviceCharacteristics(wal_of(f)->real);
}

/* Version 1: a log has no index in shared memory of its own, and is not mapped. */
static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = f_close, .xRead = f_read, .xWrite = f_write, .xTruncate = f_truncate, .xSync = f_sync,
	.xFileSize = f_size, .xLock = f_lock, .xUnlock = f_unlock, .xCheckReservedLock = f_check_reserved,
	.xFileControl = f_control, .xSectorSize = f_sector, .xDeviceCharacteristics = f_traits,
};

static int v_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
	sqlite3_vfs *base = v->pAppData;
	struct wal_file *w = wal_of(f);
	int rc;

	if (!(flags & SQLITE_OPEN_WAL))
		return base->xOpen(base, name, f, flags, ret_flags);
	*w = (struct wal_file){ .real = (sqlite3_file *)(void *)(w + 1) };
	rc = base->xOpen(base, name, w->real, flags, ret_flags);
	if (w->real->pMethods)
		w->base.pMethods = &methods;
	return rc;
}

enum errc wal_vfs(const char *base, const char **ret_name, struct err *e)
{
	sqlite3_vfs *under = sqlite3_vfs_find(base), *known;
	struct named_vfs *v;
	char name[sizeof(v->name)];

	if (!under)
		return err_set(e, E_INTERNAL, "store: no VFS %s", base ? base : "of the system");
	(void)snprintf(name, sizeof(name), "mswarm-wal-%.40s", under->zName);
	known = sqlite3_vfs_find(name);
	if (known) {
		*ret_name = known->zName;
		return E_OK;
	}
	v = NEW(struct named_vfs);
	if (!v)
		return err_set(e, E_NO_MEMORY, "store: no memory");
	v->vfs = *under;
	memcpy(v->name, name, sizeof(name));
	v->vfs.zName = v->name;
	v->vfs.pNext = NULL;
	v->vfs.pAppData = under;
	v->vfs.szOsFile = (int)sizeof(struct wal_file) + under->szOsFile;
	v->vfs.xOpen = v_open;
	if (sqlite3_vfs_register(&v->vfs, 0) != SQLITE_OK) {
		mem_free(v);
		return err_set(e, E_NO_MEMORY, "store: the log's VFS is not taken");
	}
	*ret_name = v->name;
	return E_OK;
}
