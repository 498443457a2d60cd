/*
 * Bodies of artifacts through a real store, and the files beside it: what each leaves, sums against a recount, and a failing
 * write anywhere leaves what was acknowledged.
 */
#include "jobs/job.h"
#include "tests/support/store_bed.h"
#include "tests/support/vfs_fault.h"

#include "base/clock.h"
#include "base/mem.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SHA "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

static int64_t next_key = 1;

static enum errc save(struct bed *b, const char *job_id, const char *path, int64_t size, bool is_whole, char *ret_label, struct artifact_keys *ret_gone)
{
	struct artifact_save s;
	struct err e = { 0 };
	enum errc rc;

	artifact_save_init(&s);
	s.job_id = mem_strdup(job_id);
	s.row.key = next_key++;
	s.row.path = mem_strdup(path);
	s.row.name = mem_strdup("n");
	s.row.content_type = mem_strdup("");
	s.row.id = mem_strdup("upload_2cf24dba5fb0a30e");
	s.row.size_bytes = size;
	if (is_whole)
		memcpy(s.row.sha256, SHA, sizeof(s.row.sha256));
	rc = store_run(b->s, &s.job, &e);
	if (!rc && ret_label)
		snprintf(ret_label, 64, "%s", buf_cstr(&s.label));
	if (!rc && ret_gone)
		*ret_gone = s.gone;
	artifact_save_done(&s);
	return rc;
}

static enum errc drop(struct bed *b, const char *job_id, const char *path)
{
	struct artifact_drop d;
	struct err e = { 0 };
	enum errc rc;

	artifact_drop_init(&d);
	d.job_id = mem_strdup(job_id);
	d.path = mem_strdup(path);
	rc = store_run(b->s, &d.job, &e);
	artifact_drop_done(&d);
	return rc;
}

static int64_t number(struct store_reader *r, const char *sql)
{
	AUTO_QUERY q = query_open(&r->db, sql);
	bool has_row = false;

	assert_int_equal(query_row(&q, &has_row, NULL), E_OK);
	return has_row ? query_i64(&q, 0) : 0;
}

static void recount(struct bed *b)
{
	struct store_reader *r = NULL;
	int64_t t[TOTAL__COUNT];
	struct err e = { 0 };

	assert_int_equal(store_reader_open(b->s, &r, &e), E_OK);
	assert_int_equal(job_totals_get(r, t, &e), E_OK);
	assert_int_equal(t[TOTAL_HELD_FILES], number(r, "SELECT count(*) FROM artifacts"));
	assert_int_equal(t[TOTAL_HELD_FILE_BYTES], number(r, "SELECT coalesce(sum(size_bytes), 0) FROM artifacts"));
	store_reader_close(r);
}

static enum errc resolve(struct bed *b, const char *label, const char *path, const char *tenant, int64_t *ret_key)
{
	struct store_reader *r = NULL;
	AUTO_ARTIFACT a = { 0 };
	struct err e = { 0 };
	enum errc rc;

	assert_int_equal(store_reader_open(b->s, &r, &e), E_OK);
	rc = artifacts_resolve(r, slice_str(label), slice_str(path), slice_str(tenant), &a, &e);
	store_reader_close(r);
	*ret_key = a.key;
	return rc;
}

static void test_uploads(void **state)
{
	struct bed b;
	struct artifact_keys gone;
	char one[64], two[64];
	int64_t key, begun;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	assert_int_equal(save(&b, "a_b", "x", 5, true, one, NULL), E_OK);
	assert_int_equal(save(&b, "a/b", "x", 5, true, two, NULL), E_OK);
	assert_string_equal(one, "a_b");
	assert_true(strncmp(two, "a_b~", 4) == 0);
	assert_int_equal(save(&b, "a_b", "x", 5, true, NULL, NULL), E_CONFLICT);
	begun = next_key;
	assert_int_equal(save(&b, "a_b", "p", 7, false, NULL, NULL), E_OK);
	assert_int_equal(resolve(&b, "a_b", "p", "t", &key), E_ARTIFACT_NOT_FOUND);  /* not whole: no input */
	assert_int_equal(save(&b, "a_b", "p", 9, true, NULL, &gone), E_OK);          /* anew: the beginning gives way */
	assert_int_equal(gone.n, 1);
	assert_int_equal(gone.v[0], begun);
	recount(&b);
	assert_int_equal(save(&b, "a_b", "outputs/y", 1, true, NULL, NULL), E_OK);
	for (int i = 0; i < 2; i++)            /* both uri forms */
		assert_int_equal(resolve(&b, "a_b", i ? "y" : "outputs/y", "t", &key), E_OK);
	assert_int_equal(resolve(&b, two, "x", "t", &key), E_OK);
	assert_int_equal(key, 2);
	assert_int_equal(drop(&b, "a_b", "x"), E_OK);
	assert_int_equal(drop(&b, "a_b", "x"), E_ARTIFACT_NOT_FOUND);
	assert_int_equal(drop(&b, "a_b", "upload_2cf24dba5fb0a30e"), E_OK);          /* by id: the oldest */
	assert_int_equal(drop(&b, "none", "x"), E_ARTIFACT_NOT_FOUND);
	recount(&b);
	bed_done(&b);
}

/* ---- a write fails ---- */

static bool run_fault(int code, bool is_sticky, uint64_t nth)
{
	struct bed b;
	struct err e;
	int64_t key;
	enum errc first, second, dropped;
	bool was_hit;

	bed_init(&b, "fault");
	bed_open(&b);
	assert_int_equal(bed_sql(&b, "PRAGMA cache_size = 1", &e), E_OK);
	vfs_fault_set(VFS_FAULT_WRITE | VFS_FAULT_TRUNCATE, nth, code, is_sticky);
	first = save(&b, "j", "a", 5, true, NULL, NULL);
	second = save(&b, "j", "b", 6, false, NULL, NULL);
	dropped = first ? E_IO : drop(&b, "j", "a");
	was_hit = vfs_fault_hits() > 0;
	vfs_fault_set(0, 0, 0, false);
	bed_close(&b);
	bed_open(&b);
	assert_int_equal(resolve(&b, "j", "a", "t", &key) == E_OK, !first && dropped);
	if (!second)
		assert_int_equal(drop(&b, "j", "b"), E_OK);
	recount(&b);
	bed_done(&b);
	return was_hit;
}

static void test_a_write_fails(void **state)
{
	static const struct {
		int code;
		bool is_sticky;
	} faults[] = { { SQLITE_FULL, false }, { SQLITE_IOERR_WRITE, false }, { SQLITE_IOERR_NOMEM, false }, { SQLITE_IOERR_WRITE, true } };

	(void)state;
	for (size_t f = 0; f < ARRAY_LEN(faults); f++) {
		uint64_t nth = 1;

		while (run_fault(faults[f].code, faults[f].is_sticky, nth))
			nth++;
		assert_true(nth > 3);                  /* each of the commits has a write to fail */
	}
}

/* ---- files ---- */

static bool is_gone(void *ctx, int64_t key)
{
	return key != *(int64_t *)ctx;
}

static void test_files(void **state)
{
	struct artifact_limits limits = { .max = 100, .quota = 1000, .keep_free = 0 };
	char folder[] = "/tmp/mswarm-files-XXXXXX", path[128];
	struct artifact_files *f = NULL;
	int64_t key[3];
	struct err e = { 0 };
	int fd = -1, work = -1;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/store", folder);
	assert_int_equal(artifact_files_open(path, &limits, &f, &e), E_OK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(artifact_files_create(f, &key[i], &fd, &e), E_OK);
		assert_int_equal(artifact_write(fd, "hello", 5, 0, &e), E_OK);
		assert_int_equal(artifact_files_sync(f, key[i], fd, &e), E_OK);
		close(fd);
		assert_true(i == 0 || key[i] > key[i - 1]);
	}
	artifact_files_remove(f, &key[0], 1);
	assert_int_equal(artifact_files_get(f, key[0], false, &fd, &e), E_ARTIFACT_NOT_FOUND);
	/* room: what is reserved counts */
	assert_int_equal(artifact_files_reserve(f, 400, 500, &e), E_OK);
	assert_int_equal(artifact_files_reserve(f, 400, 101, &e), E_NO_SPACE);
	assert_non_null(strstr(e.what, "1000"));
	artifact_files_give_back(f, 500);
	assert_int_equal(artifact_files_reserve(f, 400, 600, &e), E_OK);
	artifact_files_give_back(f, 600);
	/* a work directory: what was there is gone, whatever it was, and nothing is followed out of it */
	assert_int_equal(artifact_work_make(f, 7, 1, &work, &e), E_OK);
	assert_int_equal(mkdirat(work, "outputs/deep", 0700), 0);
	assert_int_equal(symlinkat("/etc", work, "outputs/deep/link"), 0);
	assert_int_equal(mkdirat(work, "outputs/closed", 0), 0);
	assert_int_equal(open_beneath(work, "outputs/deep/link/hostname", O_RDONLY, 0, &fd, &e), E_FORBIDDEN);
	assert_int_equal(open_beneath(work, "../7-1", O_RDONLY, 0, &fd, &e), E_FORBIDDEN);
	assert_int_equal(open_beneath(work, "/etc/hostname", O_RDONLY, 0, &fd, &e), E_FORBIDDEN);
	assert_int_equal(open_beneath(work, "none/x", O_RDONLY, 0, &fd, &e), E_NOT_FOUND);
	close(work);
	assert_int_equal(artifact_work_make(f, 7, 1, &work, &e), E_OK);
	assert_int_equal(faccessat(work, "outputs/deep", F_OK, 0), -1);
	/* a file of it becomes an artifact, by its descriptor */
	assert_int_equal(open_beneath(work, "outputs/x", O_RDWR | O_CREAT, 0600, &fd, &e), E_OK);
	assert_int_equal(artifact_files_adopt(f, fd, &key[0], &e), E_OK);
	close(fd);
	close(work);
	artifact_work_remove(f, 7, 1);
	assert_int_equal(artifact_work_open(f, 7, 1, &work, &e), E_NOT_FOUND);
	assert_int_equal(artifact_files_get(f, key[0], true, &fd, &e), E_OK);
	close(fd);
	artifact_files_free(f);
	/* after a restart: what no row knows is swept, what came since is left alone */
	clock_test_set_wall_ms(clock_wall_ms() + 10000);
	assert_int_equal(artifact_files_open(path, &limits, &f, &e), E_OK);
	clock_test_set_wall_ms(-1);
	for (unsigned i = 0; i < ARTIFACT_SHARDS; i++)
		artifact_files_sweep(f, i, is_gone, &key[1]);
	assert_int_equal(artifact_files_get(f, key[1], false, &fd, &e), E_OK);
	close(fd);
	assert_int_equal(artifact_files_get(f, key[2], false, &fd, &e), E_ARTIFACT_NOT_FOUND);
	artifact_files_remove(f, &key[1], 1);
	artifact_files_free(f);
	for (unsigned i = 0; i < ARTIFACT_SHARDS; i++) {
		snprintf(path, sizeof(path), "%s/store/@files/%02x", folder, i);
		assert_int_equal(rmdir(path), 0);
	}
	for (int i = 0; i < 4; i++) {
		static const char *const rest[] = { "/store/@files", "/store/@work", "/store", "" };

		snprintf(path, sizeof(path), "%s%s", folder, rest[i]);
		assert_int_equal(rmdir(path), 0);
	}
}

static int set_up(void **state)
{
	struct err e;

	(void)state;
	if (db_init(&e))
		return -1;
	vfs_fault_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_uploads), cmocka_unit_test(test_a_write_fails), cmocka_unit_test(test_files) };

	return cmocka_run_group_tests(tests, set_up, NULL);
}
