/*
 * One SQLite connection: opening with its pragmas, migrations, and the translation of result codes.
 * Called by store.c (open, close), writer.c and query.c. Threads: whoever owns the connection at the time.
 */
#include "store/store_priv.h"
#include "store/wal_vfs.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* SQLite's settings are the process's, so is the fact that they were made. */
static pthread_once_t db_once = PTHREAD_ONCE_INIT;
static int db_init_rc;

static void init_once(void)
{
	db_init_rc = sqlite3_config(SQLITE_CONFIG_MALLOC, &db_mem_hooks);
	/* The statistics would take one lock of the whole process for each allocation. */
	if (db_init_rc == SQLITE_OK)
		db_init_rc = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	if (db_init_rc == SQLITE_OK)
		db_init_rc = sqlite3_initialize();
}

enum errc db_init(struct err *e)
{
	pthread_once(&db_once, init_once);
	if (db_init_rc == SQLITE_MISUSE)
		return err_set(e, E_INTERNAL, "sqlite was started before its allocator was set");
	if (db_init_rc != SQLITE_OK)
		return err_set(e, E_NO_MEMORY, "sqlite does not start (%d)", db_init_rc);
	return E_OK;
}

/* ---- result codes ---- */

static enum errc err_of_io(int rc)
{
	switch (rc) {
	case SQLITE_IOERR_NOMEM:
		return E_NO_MEMORY;
	case SQLITE_IOERR_BLOCKED:
		return E_BUSY;
	default:
		return E_IO;
	}
}

static enum errc err_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_NOMEM:
		return E_NO_MEMORY;
	case SQLITE_FULL:
	case SQLITE_READONLY:
		return E_READ_ONLY;
	case SQLITE_CONSTRAINT:
		return E_CONFLICT;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return E_BUSY;
	case SQLITE_TOOBIG:
		return E_TOO_LARGE;
	case SQLITE_IOERR:
		return err_of_io(rc);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_CANTOPEN:
	case SQLITE_PROTOCOL:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return E_IO;
	default:
		return E_INTERNAL;
	}
}

enum errc db_err(struct db *db, int rc, struct err *e)
{
	int primary = rc & 0xff;

	db->last_rc = rc;
	if (primary == SQLITE_FULL)
		db->is_full_seen = true;
	if (rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC)
		db->is_sync_failed = true;
	if (primary == SQLITE_FULL)
		return err_set(e, E_READ_ONLY, "store: disk full");
	if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
		return err_set(e, E_IO, "store: the database file is damaged or not a database (sqlite %d)", rc);
	if (primary == SQLITE_NOMEM || rc == SQLITE_IOERR_NOMEM)
		return err_set(e, E_NO_MEMORY, "store: no memory");
	/* The connection's own text is that of its last failure: say it only when it is about this one. */
	if (db->h && sqlite3_extended_errcode(db->h) == rc)
		return err_set(e, err_of(rc), "store: %s (sqlite %d)", sqlite3_errmsg(db->h), rc);
	return err_set(e, err_of(rc), "store: %s (sqlite %d)", sqlite3_errstr(rc), rc);
}

/* ---- opening ---- */

enum errc db_exec(struct db *db, const char *sql, struct err *e)
{
	int rc = sqlite3_exec(db->h, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? E_OK : db_err(db, rc, e);
}

/* One value of a pragma; not kept, as it runs once. */
static enum errc pragma_text(struct db *db, const char *sql, char *ret, size_t cap, struct err *e)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db->h, sql, -1, &st, NULL);
	const char *text = NULL;

	ret[0] = '\0';
	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		text = (const char *)sqlite3_column_text(st, 0);
		if (text && !slice_copy(slice_str(text), ret, cap))
			text = NULL;
	}
	sqlite3_finalize(st);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		return db_err(db, rc, e);
	return text ? E_OK : err_set(e, E_NO_MEMORY, "store: %s gives no value", sql);
}

static enum errc pragma_i64(struct db *db, const char *sql, int64_t *ret, struct err *e)
{
	char text[24];
	enum errc rc = pragma_text(db, sql, text, sizeof(text), e);

	if (rc)
		return rc;
	if (!slice_to_i64(slice_str(text), INT64_MIN, INT64_MAX, ret))
		return err_set(e, E_IO, "store: %s gives no number", sql);
	return E_OK;
}

/* SQLite would create the file for everybody to read, less the umask. The new name is made durable here, too. */
static enum errc make_file(const char *path, struct err *e)
{
	AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	AUTO_FREE char *folder = NULL;
	AUTO_FD folder_fd = -1;

	if (fd < 0)
		return errno == EEXIST ? E_OK : err_set_os(e, E_IO, errno, "%s", path);
	folder = file_dirname(path);
	if (!folder)
		return err_set(e, E_NO_MEMORY, "store: no memory");
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd < 0 || fsync(folder_fd) < 0)
		return err_set_os(e, E_IO, errno, "%s", folder);
	return E_OK;
}

/*
 * FULL: with WAL, NORMAL would not sync at commit, and a row that was acknowledged could go with the power.
 * No automatic checkpoint: it would run inside somebody's commit. Temporary things stay in memory: a full disk must
 * not be met in a place that we do not see.
 */
static const char writer_pragmas[] =
	"PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 0;"
	"PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -4000;";
static const char reader_pragmas[] =
	"PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;";

static enum errc set_up(struct db *db, bool is_reader, struct err *e)
{
	char mode[16];
	enum errc rc;

	sqlite3_busy_timeout(db->h, is_reader ? DB_READER_BUSY_MS : DB_BUSY_MS);
	if (is_reader)
		return db_exec(db, reader_pragmas, e);
	rc = pragma_text(db, "PRAGMA journal_mode = WAL", mode, sizeof(mode), e);
	if (rc)
		return rc;
	if (!slice_eq(slice_str(mode), SLICE("wal")))
		return err_set(e, E_IO, "store: this file system cannot hold a write-ahead log (got \"%s\")", mode);
	return db_exec(db, writer_pragmas, e);
}

enum errc db_open(struct db *db, const char *path, const char *vfs, bool is_reader, struct err *e)
{
	int flags = SQLITE_OPEN_NOMUTEX | (is_reader ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
	enum errc rc = db_init(e);
	int src;

	*db = (struct db){ 0 };
	if (!rc && !is_reader)
		rc = make_file(path, e);
	if (!rc && !is_reader)
		rc = wal_vfs(vfs, &vfs, e);
	if (rc)
		return rc;
	src = sqlite3_open_v2(path, &db->h, flags, vfs);
	if (db->h)
		sqlite3_extended_result_codes(db->h, 1);
	if (src == SQLITE_OK)
		rc = set_up(db, is_reader, e);
	else
		rc = db_err(db, src, e);
	if (rc) {
		err_prefix(e, "%s", path);
		db_close(db);
	}
	return rc;
}

void db_close(struct db *db)
{
	for (size_t i = 0; i < db->kept_count; i++)
		sqlite3_finalize(db->kept[i].st);
	db->kept_count = 0;
	if (db->h)
		must(sqlite3_close(db->h) == SQLITE_OK);
	db->h = NULL;
}

/* ---- migrations ---- */

enum { APPLICATION_ID = 0x6d737731 };      /* "msw1", written by 0001 */

/* The file's schema version; refuses a file that we do not know. */
static enum errc check_version(struct db *db, const char *path, int64_t *ret, struct err *e)
{
	int64_t version = 0, id = 0, tables = 0;
	enum errc rc = pragma_i64(db, "PRAGMA user_version", &version, e);

	if (!rc)
		rc = pragma_i64(db, "PRAGMA application_id", &id, e);
	if (!rc)
		rc = pragma_i64(db, "SELECT count(*) FROM sqlite_schema", &tables, e);
	if (rc)
		return err_prefix(e, "%s", path);
	if (version != 0 ? id != APPLICATION_ID : tables != 0 || id != 0)
		return err_set(e, E_CONFLICT, "%s: is the database of another program", path);
	if (version > (int64_t)migrations_count)
		return err_set(e, E_CONFLICT, "%s: schema %lld was written by a newer mswarm; this one knows up to %u: "
			"install the newer one, or move the file away", path, (long long)version, migrations_count);
	if (version < 0)
		return err_set(e, E_IO, "%s: schema %lld makes no sense: the file is damaged", path, (long long)version);
	*ret = version;
	return E_OK;
}

static enum errc migrate_one(struct db *db, const struct migration *m, struct err *e)
{
	char set_version[48];
	enum errc rc;

	(void)snprintf(set_version, sizeof(set_version), "PRAGMA user_version = %u", m->version);
	rc = db_exec(db, "BEGIN IMMEDIATE", e);
	if (!rc)
		rc = db_exec(db, m->sql, e);
	if (!rc)
		rc = db_exec(db, set_version, e);
	if (!rc)
		rc = db_exec(db, "COMMIT", e);
	if (rc && !sqlite3_get_autocommit(db->h))
		(void)sqlite3_exec(db->h, "ROLLBACK", NULL, NULL, NULL);
	return rc ? err_prefix(e, "migration %s", m->name) : E_OK;
}

enum errc db_migrate(struct db *db, const char *path, struct err *e)
{
	int64_t version = 0;
	enum errc rc = check_version(db, path, &version, e);

	for (unsigned i = 0; !rc && i < migrations_count; i++) {
		if ((int64_t)migrations[i].version <= version)
			continue;
		rc = migrate_one(db, &migrations[i], e);
		if (rc)
			err_prefix(e, "%s", path);
	}
	return rc;
}
