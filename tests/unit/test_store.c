/* The store in a healthy world: group commit, bodies undone alone, queue, readers, refusals at open, checkpoints. */
#include "tests/support/store_bed.h"
#include "tests/support/vfs_fault.h"

#include "store/wal_vfs.h"

#include "base/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_batch_is_one_commit(void **state)
{
	struct bed b;
	struct put p[4];

	(void)state;
	bed_init(&b, "fault");
	bed_open(&b);
	bed_hold(&b);
	for (int i = 0; i < 4; i++)
		put_init(&p[i], &b, 1 + i, 100);
	p[1].fail_with = E_CONFLICT;
	p[3].id = 1;                           /* meets the first one's row in the same transaction */
	for (int i = 0; i < 4; i++)
		put_submit(&p[i]);
	vfs_fault_set(VFS_FAULT_SYNC, 0, 0, false);
	bed_go(&b);
	bed_collect(&b);
	assert_int_equal(p[0].job.rc, E_OK);
	assert_int_equal(p[1].job.rc, E_CONFLICT);
	assert_string_equal(p[1].job.e.what, "asked to fail");
	assert_int_equal(p[2].job.rc, E_OK);
	assert_int_equal(p[3].job.rc, E_CONFLICT);
	assert_int_equal(p[3].job.e.code, E_CONFLICT);
	assert_int_equal(vfs_fault_count(), 1);    /* four bodies, one sync: neither none (NORMAL) nor one each */
	assert_true(bed_has(&b, 1) && bed_has(&b, 3));
	assert_int_equal(bed_count(&b), 2);
	bed_done(&b);
}

/* Nothing is answered before the sync that it waits for has returned. */
static void test_answer_follows_sync(void **state)
{
	struct bed b;
	struct put p;

	(void)state;
	bed_init(&b, "fault");
	bed_open(&b);
	vfs_fault_hold(VFS_FAULT_SYNC, 1);
	put_init(&p, &b, 1, 10);
	p.job.rc = E_INTERNAL;
	put_submit(&p);
	vfs_fault_wait_held();
	assert_false(bed_has(&b, 1));
	assert_int_equal(b.pending, 1);
	clock_test_advance_ms(5000);
	assert_true(store_stuck_ms(b.s) >= 5000);
	vfs_fault_release();
	bed_collect(&b);
	assert_int_equal(p.job.rc, E_OK);
	assert_true(bed_has(&b, 1));
	bed_done(&b);
}

static bool is_not_stuck(struct bed *b)
{
	return store_stuck_ms(b->s) == 0;
}

static void test_queue_full(void **state)
{
	struct bed b;
	struct put p[3];
	struct err e;

	(void)state;
	bed_init(&b, NULL);
	b.max_queued = 2;
	bed_open(&b);
	bed_hold(&b);
	for (int i = 0; i < 3; i++)
		put_init(&p[i], &b, i + 1, 10);
	put_submit(&p[0]);
	put_submit(&p[1]);
	assert_int_equal(store_submit(b.s, &p[2].job, &e), E_BUSY);
	assert_string_equal(e.what, "store: 2 writes are queued already");
	clock_test_advance_ms(700);
	assert_true(store_stuck_ms(b.s) >= 700);
	bed_go(&b);
	bed_collect(&b);
	assert_int_equal(bed_count(&b), 2);
	assert_true(bed_wait_until(is_not_stuck, &b, 5000));
	put_submit(&p[2]);                         /* a refused job was not taken: it may come again */
	bed_collect(&b);
	assert_int_equal(bed_count(&b), 3);
	bed_done(&b);
}

static void free_put(struct store_job *j)
{
	*(int *)j->done.next += 1;
}

static void test_close_finishes_queue(void **state)
{
	struct bed b;
	struct put p[5];
	int freed = 0;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	bed_hold(&b);
	for (int i = 0; i < 5; i++) {
		struct err e;

		put_init(&p[i], &b, i + 1, 10);
		if (i == 4)
			p[i].fail_with = E_CONFLICT;
		p[i].job.loop = NULL;              /* nobody waits: freed by free_fn, failed or not */
		p[i].job.free_fn = free_put;
		p[i].job.done.next = (struct loop_msg *)(void *)&freed;
		assert_int_equal(store_submit(b.s, &p[i].job, &e), E_OK);
	}
	bed_go(&b);
	bed_close(&b);
	assert_int_equal(freed, 5);
	assert_int_equal(bed_file_size(&b, "-wal"), -1);
	bed_open(&b);
	assert_int_equal(bed_count(&b), 4);
	bed_done(&b);
}

static void test_reader_cannot_write(void **state)
{
	struct bed b;
	struct store_reader *r;
	struct err e;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	assert_int_equal(store_reader_open(b.s, &r, &e), E_OK);
	assert_int_equal(db_exec(&r->db, "INSERT INTO t (id) VALUES (1)", &e), E_READ_ONLY);
	store_reader_close(r);
	assert_int_equal(bed_count(&b), 0);
	bed_done(&b);
}

static void test_connection_settings(void **state)
{
	static const struct { const char *sql; int64_t want; } rows[] = {
		{ "PRAGMA synchronous", 2 }, { "PRAGMA foreign_keys", 1 }, { "PRAGMA wal_autocheckpoint", 0 },
		{ "PRAGMA user_version", 6 }, { "PRAGMA temp_store", 2 },
		{ "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict = 0 AND name NOT LIKE 'sqlite_%'", 0 },
	};
	struct bed b;
	struct stat st;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	assert_int_equal(stat(b.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	bed_hold(&b);                              /* the writer stands still: its connection may be looked at */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_QUERY q = query_open(&b.s->db, rows[i].sql);
		bool has_row = false;
		struct err e;

		assert_int_equal(query_row(&q, &has_row, &e), E_OK);
		assert_true(has_row);
		assert_int_equal(query_i64(&q, 0), rows[i].want);
	}
	bed_go(&b);
	bed_done(&b);
}

/* ---- what is refused at open ---- */

static void run_raw(const char *path, const char *sql)
{
	sqlite3 *h;

	assert_int_equal(sqlite3_open(path, &h), SQLITE_OK);
	assert_int_equal(sqlite3_exec(h, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(h), SQLITE_OK);
}

/* A database of every release before this one: brought to the newest schema, with what it held. */
static void test_upgrade(void **state)
{
	(void)state;
	for (unsigned version = 1; version < migrations_count; version++) {
		struct bed b;
		char then[120];

		bed_init(&b, NULL);
		for (unsigned i = 0; i < version; i++)
			run_raw(b.path, migrations[i].sql);
		snprintf(then, sizeof(then), "PRAGMA journal_mode = WAL; PRAGMA user_version = %u", version);
		run_raw(b.path, then);
		run_raw(b.path, "INSERT INTO meta (name, value) VALUES ('access.keyed', 1)");
		bed_open(&b);
		bed_hold(&b);
		{
			AUTO_QUERY kept = query_open(&b.s->db, "SELECT value FROM meta WHERE name = 'access.keyed'");
			AUTO_QUERY added = query_open(&b.s->db, "SELECT count(*) FROM jobs");
			bool has_row = false;
			struct err e;

			assert_int_equal(query_row(&kept, &has_row, &e), E_OK);
			assert_true(has_row);
			assert_int_equal(query_i64(&kept, 0), 1);
			assert_int_equal(query_row(&added, &has_row, &e), E_OK);
			assert_int_equal(query_i64(&added, 0), 0);
		}
		bed_go(&b);
		bed_done(&b);
	}
}

static void test_refused_versions(void **state)
{
	static const struct { bool is_ours; const char *sql; enum errc rc; const char *word; } rows[] = {
		{ true, "PRAGMA user_version = 999", E_CONFLICT, "newer mswarm" },
		{ true, "PRAGMA user_version = -1", E_IO, "damaged" },
		{ true, "PRAGMA application_id = 7", E_CONFLICT, "another program" },
		{ false, "CREATE TABLE diary (day TEXT)", E_CONFLICT, "another program" },
		{ false, "PRAGMA user_version = 1", E_CONFLICT, "another program" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct bed b;
		struct err e = { 0 };

		bed_init(&b, NULL);
		if (rows[i].is_ours) {
			bed_open(&b);
			bed_close(&b);
		}
		run_raw(b.path, rows[i].sql);
		assert_int_equal(bed_try_open(&b, &e), rows[i].rc);
		assert_non_null(strstr(e.what, rows[i].word));
		assert_non_null(strstr(e.what, b.path));
		bed_done(&b);
	}
}

static void overwrite(const char *path, off_t at, const char *text, off_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, strlen(text), at), strlen(text));
	if (length >= 0)
		assert_int_equal(ftruncate(fd, length), 0);
	assert_int_equal(close(fd), 0);
}

static void test_damaged_files(void **state)
{
	static const struct { off_t at; const char *text; off_t length; } rows[] = {
		{ 0, "this is a text of some length, and no database at all, whatever its name may promise to a reader of it...", -1 },
		{ 0, "SQLite format 4", -1 },          /* the magic */
		{ 100, "\x42\x42\x42\x42\x42\x42", -1 }, /* the root page of the schema */
		{ 0, "SQLite format 3", 700 },         /* cut within the first page */
		{ 0, "SQLite format 3", 8192 },        /* cut behind the second */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct bed b;
		struct err e = { 0 };

		bed_init(&b, NULL);
		bed_open(&b);
		bed_close(&b);
		overwrite(b.path, rows[i].at, rows[i].text, rows[i].length);
		if (bed_try_open(&b, &e) == E_OK)  /* found later, by who reads it */
			assert_int_equal(put_run(&b, 1, 10, &e), E_IO);
		else
			assert_non_null(strstr(e.what, b.path));
		assert_int_equal(e.code, E_IO);
		assert_non_null(strstr(e.what, "damaged"));
		bed_done(&b);
	}
}

static void test_no_folder(void **state)
{
	struct bed b;
	struct err e = { 0 };

	(void)state;
	bed_init(&b, NULL);
	(void)snprintf(b.path, sizeof(b.path), "%.90s/missing/node.db", b.folder);
	assert_int_equal(bed_try_open(&b, &e), E_IO);
	assert_non_null(strstr(e.what, "missing/node.db"));
	bed_done(&b);
}

/* ---- the log's pieces ---- */

/* A commit of 400 pages is a dozen writes, and its own connection reads back what is not in the file yet. */
static void test_frames_are_written_together(void **state)
{
	struct bed b;
	struct err e;

	(void)state;
	bed_init(&b, "fault");
	bed_open(&b);
	vfs_fault_set(VFS_FAULT_WRITE, 0, 0, false);
	assert_int_equal(put_run(&b, 1, 400 * 4096, &e), E_OK);
	assert_in_range(vfs_fault_count(), 400 * 4096 / WAL_PIECE_BYTES, 400 * 4096 / WAL_PIECE_BYTES + 6);
	assert_true(bed_has(&b, 1));               /* another connection sees it all the same */
	assert_int_equal(bed_sql(&b, "PRAGMA cache_size = 1", &e), E_OK);
	assert_int_equal(bed_sql(&b, "UPDATE t SET pad = zeroblob(50000); INSERT INTO t SELECT id + 1, pad FROM t;"
		"UPDATE t SET pad = CAST('again' AS BLOB) WHERE id = 2; DELETE FROM t WHERE pad <> zeroblob(50000)", &e), E_OK);
	assert_true(bed_has(&b, 1) && !bed_has(&b, 2));
	assert_int_equal(bed_sql(&b, "PRAGMA integrity_check", &e), E_OK);
	bed_done(&b);
}

/* ---- checkpoints ---- */

static bool is_copied(struct bed *b)
{
	return bed_file_size(b, "") > 8 << 20;
}

static bool is_log_empty(struct bed *b)
{
	return bed_file_size(b, "-wal") == 0;
}

static void test_checkpoint_under_load(void **state)
{
	struct bed b;
	struct err e;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	for (int i = 0; i < 40; i++)
		assert_int_equal(put_run(&b, i + 1, 500000, &e), E_OK);
	assert_true(is_copied(&b));                /* 20 MB were written: not all of them still lie in the log */
	assert_true(bed_file_size(&b, "-wal") < 15 << 20);
	bed_done(&b);
}

/* One who writes without a pause: the log begins anew all the same, and its file stays small. */
static void test_checkpoint_beside_the_writer(void **state)
{
	struct bed b;
	struct err e;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(put_run(&b, i + 1, 60000, &e), E_OK);
	assert_true(b.s->ahead.is_made);
	assert_true(bed_file_size(&b, "-wal") < 24 << 20);
	bed_close(&b);
	assert_true(bed_file_size(&b, "-wal") <= 0);
	bed_open(&b);
	assert_int_equal(bed_count(&b), 1000);
	bed_done(&b);
}

static void test_checkpoint_truncates(void **state)
{
	struct bed b;
	struct err e;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	assert_int_equal(bed_sql(&b, "INSERT INTO t (id, pad) VALUES (1, zeroblob(68000000))", &e), E_OK);
	assert_true(bed_wait_until(is_log_empty, &b, 20000));
	assert_true(bed_has(&b, 1));
	bed_done(&b);
}

static bool is_small_copied(struct bed *b)
{
	return bed_file_size(b, "") > 300000;
}

static void test_checkpoint_when_idle(void **state)
{
	struct bed b;
	struct err e;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	assert_int_equal(put_run(&b, 1, 400000, &e), E_OK);
	assert_true(bed_wait_until(is_small_copied, &b, 10000));   /* without hands */
	bed_done(&b);
}

static int set_up(void **state)
{
	struct err e;

	(void)state;
	thread_set_role_self(THREAD_MAIN);
	if (db_init(&e))
		return -1;
	vfs_fault_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batch_is_one_commit),
		cmocka_unit_test(test_answer_follows_sync),
		cmocka_unit_test(test_queue_full),
		cmocka_unit_test(test_close_finishes_queue),
		cmocka_unit_test(test_reader_cannot_write),
		cmocka_unit_test(test_connection_settings),
		cmocka_unit_test(test_upgrade), cmocka_unit_test(test_refused_versions),
		cmocka_unit_test(test_damaged_files),
		cmocka_unit_test(test_no_folder),
		cmocka_unit_test(test_frames_are_written_together),
		cmocka_unit_test(test_checkpoint_under_load),
		cmocka_unit_test(test_checkpoint_beside_the_writer),
		cmocka_unit_test(test_checkpoint_truncates),
		cmocka_unit_test(test_checkpoint_when_idle),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
