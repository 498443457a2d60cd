/*
 * The store in a failing world: full disk, I/O errors and lack of memory at each write in turn, failed syncs, and
 * SIGKILL. What was acknowledged stands after a reopen; what was refused does not; nothing stands twice.
 */
#include "tests/support/store_bed.h"
#include "tests/support/vfs_fault.h"

#include "store/wal_vfs.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

enum { BODIES = 3, ROW_BYTES = 200000 };

/* ---- a failing write, at every place ---- */

struct write_fault {
	int code;
	enum errc in_body;         /* the outcome of the body that met it */
	enum errc in_commit;       /* the outcome of all when the commit met it: E_OK where running again is right */
	bool is_sticky;
	enum errc in_both_commits; /* sticky only */
};

static const struct write_fault write_faults[] = {
	{ SQLITE_FULL, E_READ_ONLY, E_READ_ONLY, false, E_OK },
	{ SQLITE_IOERR_WRITE, E_IO, E_OK, false, E_OK },
	{ SQLITE_IOERR_NOMEM, E_NO_MEMORY, E_OK, false, E_OK },
	{ SQLITE_FULL, E_READ_ONLY, E_READ_ONLY, true, E_READ_ONLY },
	{ SQLITE_IOERR_WRITE, E_IO, E_IO, true, E_IO },
};

/* The outcomes that design.md 5.16 asks for, given which bodies saw the failure themselves. */
static void check_outcomes(struct bed *b, const struct write_fault *f, bool was_hit, struct put p[BODIES])
{
	bool any_saw = false;

	for (int i = 0; i < BODIES; i++)
		any_saw = any_saw || p[i].saw_failure;
	for (int i = 0; i < BODIES; i++) {
		enum errc want = E_OK;

		if (p[i].saw_failure)
			want = f->in_body;
		else if (was_hit && !any_saw)
			want = f->in_commit;
		/* A disk that stays broken also stops the others' new run; none of them may then stand. */
		if (f->is_sticky && any_saw && !p[i].saw_failure)
			want = p[i].job.rc ? f->in_both_commits : E_OK;
		assert_int_equal(p[i].job.rc, want);
		assert_int_equal(bed_has(b, p[i].id), want == E_OK);
	}
}

static bool run_write_fault(struct bed *b, const struct write_fault *f, uint64_t nth, int64_t first_id)
{
	struct put p[BODIES];
	struct err e;
	bool was_hit;

	bed_open(b);
	/* A cache of next to nothing: bodies write to the log themselves, before the commit. */
	assert_int_equal(bed_sql(b, "PRAGMA cache_size = 1", &e), E_OK);
	bed_hold(b);
	for (int i = 0; i < BODIES; i++) {
		put_init(&p[i], b, first_id + i, ROW_BYTES);
		put_submit(&p[i]);
	}
	vfs_fault_set(VFS_FAULT_WRITE | VFS_FAULT_TRUNCATE, nth, f->code, f->is_sticky);
	bed_go(b);
	bed_collect(b);
	was_hit = vfs_fault_hits() > 0;
	vfs_fault_set(0, 0, 0, false);
	check_outcomes(b, f, was_hit, p);
	assert_int_not_equal(store_state(b->s), STORE_BROKEN);
	bed_close(b);
	bed_open(b);                               /* and the same after a reopen */
	for (int i = 0; i < BODIES; i++)
		assert_int_equal(bed_has(b, p[i].id), p[i].job.rc == E_OK);
	assert_int_equal(put_run(b, first_id + BODIES, 10, &e), E_OK);
	bed_close(b);
	return was_hit;
}

static void test_write_faults(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(write_faults); i++) {
		struct bed b;
		uint64_t nth = 1;

		bed_init(&b, "fault");
		while (run_write_fault(&b, &write_faults[i], nth, (int64_t)nth * 10))
			nth++;
		assert_true(nth > BODIES * ROW_BYTES / WAL_PIECE_BYTES);      /* it was more than the commit's writes */
		bed_done(&b);
	}
}

/* A body that does not look at its results does not get away with it. */
static void test_careless_body(void **state)
{
	struct bed b;
	struct put p[2];
	struct err e;
	bool was_hit = true;
	uint64_t nth = 1, gone = 0;

	(void)state;
	bed_init(&b, "fault");
	bed_open(&b);
	assert_int_equal(bed_sql(&b, "PRAGMA cache_size = 1", &e), E_OK);
	for (; was_hit; nth++) {
		bed_hold(&b);
		for (int i = 0; i < 2; i++) {
			put_init(&p[i], &b, (int64_t)nth * 2 + i, ROW_BYTES);
			p[i].is_careless = true;
			put_submit(&p[i]);
		}
		vfs_fault_set(VFS_FAULT_WRITE, nth, SQLITE_IOERR_WRITE, false);
		bed_go(&b);
		bed_collect(&b);
		was_hit = vfs_fault_hits() > 0;
		vfs_fault_set(0, 0, 0, false);
		for (int i = 0; i < 2; i++) {
			assert_int_equal(bed_has(&b, p[i].id), p[i].job.rc == E_OK);
			gone += p[i].job.rc == E_IO;
		}
	}
	assert_true(gone > 0);
	bed_done(&b);
}

/* ---- lack of memory, at every allocation ---- */

static void write_without_memory(int is_sticky)
{
	struct bed b;
	bool was_hit = true;
	int64_t id = 1;
	int refused = 0;

	bed_init(&b, NULL);
	bed_open(&b);
	for (uint64_t nth = 1; was_hit; nth++, id++) {
		struct err e = { 0 };
		enum errc rc;

		mem_test_fail_at(nth, is_sticky);
		rc = put_run(&b, id, 30000, &e);
		was_hit = mem_test_count() >= nth;
		mem_test_fail_at(0, 0);
		refused += rc != E_OK;
		if (rc == E_OUTCOME_UNKNOWN && is_sticky) {    /* the commit failed twice: only a reopen can say */
			assert_int_equal(store_state(b.s), STORE_BROKEN);
			bed_close(&b);
			bed_open(&b);
			continue;
		}
		if (rc)
			assert_int_equal(rc, E_NO_MEMORY);
		assert_int_equal(bed_has(&b, id), rc == E_OK);
		assert_int_equal(store_state(b.s), STORE_OK);
	}
	assert_true(refused > 0);
	bed_done(&b);
}

static void test_no_memory_writing(void **state)
{
	(void)state;
	write_without_memory(0);
	write_without_memory(1);
}

static void test_no_memory_opening(void **state)
{
	struct bed b;
	bool was_hit = true;

	(void)state;
	bed_init(&b, NULL);
	for (uint64_t nth = 1; was_hit; nth++) {
		struct err e = { 0 };
		enum errc rc;

		mem_test_fail_at(nth, 0);
		rc = bed_try_open(&b, &e);
		was_hit = mem_test_count() >= nth;
		mem_test_fail_at(0, 0);
		if (rc)
			assert_int_equal(rc, E_NO_MEMORY);
		bed_close(&b);
	}
	bed_open(&b);
	bed_done(&b);
}

/* ---- failed syncs ---- */

static void test_sync_failure(void **state)
{
	struct bed b;
	struct put p[3], late;
	struct err e;

	(void)state;
	bed_init(&b, "fault");
	bed_open(&b);
	assert_int_equal(put_run(&b, 1, 100, &e), E_OK);
	bed_hold(&b);
	for (int i = 0; i < 3; i++) {
		put_init(&p[i], &b, 10 + i, 100);
		put_submit(&p[i]);
	}
	vfs_fault_set(VFS_FAULT_SYNC, 1, SQLITE_IOERR_FSYNC, false);
	vfs_fault_hold(VFS_FAULT_SYNC, 1);
	bed_go(&b);
	vfs_fault_wait_held();
	put_init(&late, &b, 20, 100);              /* queued while the commit is under way: refused, not unknown */
	put_submit(&late);
	vfs_fault_release();
	bed_collect(&b);
	for (int i = 0; i < 3; i++)
		assert_int_equal(p[i].job.rc, E_OUTCOME_UNKNOWN);
	assert_int_equal(late.job.rc, E_READ_ONLY);
	assert_int_equal(store_state(b.s), STORE_BROKEN);
	assert_int_equal(atomic_load(&b.broken_calls), 1);
	assert_int_equal(put_run(&b, 30, 100, &e), E_READ_ONLY);       /* for good, though the next sync would work */
	assert_true(bed_has(&b, 1));                                   /* reading goes on */
	assert_int_equal(bed_count(&b), 1);
	bed_close(&b);
	bed_open(&b);
	assert_int_equal(store_state(b.s), STORE_OK);
	assert_true(bed_has(&b, 1));
	assert_false(bed_has(&b, 20) || bed_has(&b, 30));
	bed_done(&b);
}

/* Each sync in turn, of commits and checkpoints: acknowledged rows stand, and after a failure nothing is acknowledged. */
static void test_each_sync(void **state)
{
	bool was_hit = true;
	int in_commits = 0, in_checkpoints = 0;

	(void)state;
	for (uint64_t nth = 1; was_hit; nth++) {
		struct bed b;
		int acknowledged = 0;
		struct err e;

		bed_init(&b, "fault");
		bed_open(&b);
		vfs_fault_set(VFS_FAULT_SYNC, nth, SQLITE_IOERR_FSYNC, false);
		for (int i = 0; i < 2; i++) {
			if (put_run(&b, i + 1, 4150000, &e))       /* a checkpoint comes after the second, and one at the end */
				break;
			acknowledged++;
		}
		if (acknowledged < 2)
			assert_true(bed_wait_state(&b, STORE_BROKEN, 5000));
		was_hit = vfs_fault_hits() > 0;
		bed_close(&b);
		was_hit = was_hit || vfs_fault_hits() > 0;     /* the last checkpoint */
		vfs_fault_set(0, 0, 0, false);
		assert_int_equal(atomic_load(&b.broken_calls), was_hit);
		in_commits += acknowledged < 2;
		in_checkpoints += was_hit && acknowledged == 2;
		bed_open(&b);
		for (int i = 0; i < acknowledged; i++)
			assert_true(bed_has(&b, i + 1));
		bed_done(&b);
	}
	assert_true(in_commits >= 2 && in_checkpoints >= 2);
}

/*
 * The index of the log cannot grow after the log was synced: the rows lie durable on disk and are invisible. Running
 * the bodies again settles that once; when it fails again, nobody can say.
 */
static void check_index_fault(bool is_sticky)
{
	struct bed b;
	struct err e;
	enum errc rc;

	bed_init(&b, "fault");
	bed_open(&b);
	assert_int_equal(bed_sql(&b, "PRAGMA cache_size = -65536", &e), E_OK);     /* all writes fall into the commit */
	vfs_fault_set(VFS_FAULT_SHM, 1, SQLITE_IOERR_SHMSIZE, is_sticky);
	rc = put_run(&b, 1, 18000000, &e);                                         /* more pages than one part of the index holds */
	assert_true(vfs_fault_hits() > 0);
	vfs_fault_set(0, 0, 0, false);
	assert_int_equal(rc, is_sticky ? E_OUTCOME_UNKNOWN : E_OK);
	assert_int_equal(store_state(b.s), is_sticky ? STORE_BROKEN : STORE_OK);
	bed_close(&b);
	bed_open(&b);
	assert_true(bed_has(&b, 1));               /* sticky, too: which is why the answer may not be "failed" */
	bed_done(&b);
}

static void test_index_fault(void **state)
{
	(void)state;
	check_index_fault(false);
	check_index_fault(true);
}

/* ---- a full disk ---- */

static bool is_not_stuck(struct bed *b)
{
	return store_stuck_ms(b->s) == 0;
}

static void test_disk_full_and_back(void **state)
{
	struct bed b;
	struct err e = { 0 };

	(void)state;
	bed_init(&b, "fault");
	bed_open(&b);
	assert_int_equal(put_run(&b, 1, 100, &e), E_OK);
	vfs_fault_set(VFS_FAULT_WRITE, 1, SQLITE_FULL, true);
	assert_int_equal(put_run(&b, 2, 100, &e), E_READ_ONLY);
	assert_string_equal(e.what, "store: disk full");
	assert_int_equal(store_state(b.s), STORE_FULL);
	assert_string_equal(store_state_name(store_state(b.s)), "disk_full");
	for (int i = 0; i < 50; i++)
		assert_int_equal(put_run(&b, 3 + i, 100, &e), E_READ_ONLY);
	assert_true(vfs_fault_hits() < 25);        /* refused without trying the disk each time */
	assert_true(bed_has(&b, 1));
	assert_true(bed_wait_until(is_not_stuck, &b, 5000));
	vfs_fault_set(0, 0, 0, false);
	assert_true(bed_wait_state(&b, STORE_OK, 10000));      /* by timer, without hands */
	assert_int_equal(put_run(&b, 100, 100, &e), E_OK);
	assert_int_equal(bed_count(&b), 2);
	assert_int_equal(atomic_load(&b.broken_calls), 0);
	bed_close(&b);
	bed_open(&b);
	assert_true(bed_has(&b, 1) && bed_has(&b, 100));
	assert_int_equal(bed_count(&b), 2);
	bed_done(&b);
}

/* A stream of refused submissions does not keep a full store from its retry. */
static void test_full_retried_under_load(void **state)
{
	struct bed b;
	struct err e;
	enum errc rc = E_READ_ONLY;

	(void)state;
	bed_init(&b, "fault");
	bed_open(&b);
	vfs_fault_set(VFS_FAULT_WRITE, 1, SQLITE_FULL, true);
	assert_int_equal(put_run(&b, 1, 100, &e), E_READ_ONLY);
	clock_test_advance_ms(6000);               /* a retry that still fails */
	assert_int_equal(put_run(&b, 1, 100, &e), E_READ_ONLY);
	assert_int_equal(store_state(b.s), STORE_FULL);
	vfs_fault_set(0, 0, 0, false);
	clock_test_advance_ms(6000);               /* and one that does not, with the next submission */
	rc = put_run(&b, 1, 100, &e);
	assert_int_equal(rc, E_OK);
	bed_done(&b);
}

/* ---- SIGKILL ---- */

enum { IN_FLIGHT = 8, ROUNDS = 4 };

struct endless {
	struct put puts[IN_FLIGHT];
	int64_t next_id;
	int fd;
};

static struct endless *endless_of;         /* the child's only; its own process */

static void on_endless_done(struct loop_msg *m)
{
	struct put *p = CONTAINER_OF(m, struct put, job.done);
	struct err e;

	if (p->job.rc || write(endless_of->fd, &p->id, sizeof(p->id)) != sizeof(p->id))
		_exit(3);
	put_init(p, p->bed, endless_of->next_id++, 600);
	p->job.done.fn = on_endless_done;
	if (store_submit(p->bed->s, &p->job, &e))
		_exit(4);
}

/* The child: writes rows with eight in flight, says each acknowledged id on fd, until it is killed. */
static int write_endless(const char *path, const char *first_id, const char *fd)
{
	struct bed b;
	struct endless w = { .next_id = strtoll(first_id, NULL, 10), .fd = (int)strtol(fd, NULL, 10) };

	thread_set_role_self(THREAD_MAIN);
	bed_init(&b, NULL);
	(void)rmdir(b.folder);
	(void)snprintf(b.path, sizeof(b.path), "%.120s", path);
	bed_open(&b);
	endless_of = &w;
	for (int i = 0; i < IN_FLIGHT; i++) {
		put_init(&w.puts[i], &b, w.next_id++, 600);
		w.puts[i].job.done.fn = on_endless_done;
		put_submit(&w.puts[i]);
	}
	loop_run(b.loop);
	return 5;
}

/* Start the child, kill it after so many acknowledgements, and give all that it acknowledged. */
static int64_t *run_and_kill(struct bed *b, int64_t first_id, size_t kill_after, size_t *ret_n)
{
	char id[24], fd[12];
	char *argv[] = { (char[]){ "writer" }, b->path, id, fd, NULL };
	int64_t *ids = NULL, v;
	size_t n = 0;
	int ends[2], status;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	(void)snprintf(id, sizeof(id), "%lld", (long long)first_id);
	(void)snprintf(fd, sizeof(fd), "%d", ends[1]);
	assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ), 0);
	assert_int_equal(close(ends[1]), 0);
	while (read(ends[0], &v, sizeof(v)) == sizeof(v)) {
		ids = mem_realloc(ids, (n + 1) * sizeof(*ids));
		assert_non_null(ids);
		ids[n++] = v;
		if (n == kill_after)
			assert_int_equal(kill(pid, SIGKILL), 0);
	}
	assert_int_equal(close(ends[0]), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	*ret_n = n;
	return ids;
}

static void test_kill(void **state)
{
	static const size_t kill_after[ROUNDS] = { 1, 40, 300, 777 };
	struct bed b;
	int64_t first_id = 1, total = 0;

	(void)state;
	bed_init(&b, NULL);
	for (int round = 0; round < ROUNDS; round++) {
		size_t n = 0;
		int64_t *ids = run_and_kill(&b, first_id, kill_after[round], &n);

		assert_true(n >= kill_after[round]);
		bed_open(&b);
		for (size_t i = 0; i < n; i++) {
			assert_true(bed_has(&b, ids[i]));
			if (ids[i] >= first_id)
				first_id = ids[i] + 1;
		}
		total += (int64_t)n;
		/* Rows that were never acknowledged may stand: what was in flight, no more. */
		assert_in_range(bed_count(&b), total, total + IN_FLIGHT * (round + 1));
		assert_int_equal(bed_sql(&b, "PRAGMA integrity_check", &(struct err){ 0 }), E_OK);
		first_id += IN_FLIGHT + 1;
		bed_close(&b);
		mem_free(ids);
	}
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_faults),
		cmocka_unit_test(test_careless_body),
		cmocka_unit_test(test_no_memory_writing),
		cmocka_unit_test(test_no_memory_opening),
		cmocka_unit_test(test_sync_failure),
		cmocka_unit_test(test_each_sync),
		cmocka_unit_test(test_index_fault),
		cmocka_unit_test(test_disk_full_and_back),
		cmocka_unit_test(test_full_retried_under_load),
		cmocka_unit_test(test_kill),
	};

	if (argc == 4)
		return write_endless(argv[1], argv[2], argv[3]);
	return cmocka_run_group_tests(tests, set_up, NULL);
}
