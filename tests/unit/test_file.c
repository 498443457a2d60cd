/* base/file.c: reading with limits, atomic writes, private folders, locks, path helpers. */
#include "base/file.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[PATH_MAX];

static const char *at(const char *name)
{
	static char path[4][PATH_MAX + 300];
	static unsigned turn;
	char *p = path[turn++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static int setup(void **state)
{
	const char *base = getenv("TMPDIR"); /* tests may look */

	(void)state;
	snprintf(dir, sizeof(dir), "%s/mswarm-file-XXXXXX", base && *base ? base : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static void remove_tree(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *item;

	while (d && (item = readdir(d))) {
		char child[PATH_MAX + 300];

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, item->d_name);
		if (unlink(child) != 0)
			remove_tree(child);
	}
	if (d)
		closedir(d);
	rmdir(path);
}

static int teardown(void **state)
{
	(void)state;
	remove_tree(dir);
	return 0;
}

static unsigned mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static size_t count_entries(void)
{
	DIR *d = opendir(dir);
	size_t n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void assert_content(const char *path, const char *want)
{
	AUTO_BUF b = BUF_MAX(1 << 20);
	struct err e = { 0 };

	assert_int_equal(file_read(path, &b, &e), E_OK);
	assert_int_equal(b.n, strlen(want));
	assert_memory_equal(b.p ? b.p : "", want, b.n);
}

static void test_write_and_read(void **state)
{
	struct err e = { 0 };
	AUTO_BUF b = BUF_MAX(100);

	(void)state;
	assert_int_equal(file_write_atomic(at("a"), SLICE("one"), 0640, &e), E_OK);
	assert_int_equal(mode_of(at("a")), 0640);
	assert_int_equal(file_write_atomic(at("a"), SLICE("second"), 0600, &e), E_OK);
	assert_int_equal(mode_of(at("a")), 0600);
	assert_content(at("a"), "second");
	assert_int_equal(count_entries(), 1); /* no temp file is left */
	assert_int_equal(buf_add_str(&b, "<", &e), E_OK);
	assert_int_equal(file_read(at("a"), &b, &e), E_OK);
	assert_true(slice_eq(buf_slice(&b), SLICE("<second")));
	assert_int_equal(file_write_atomic(at("none/a"), SLICE("x"), 0600, &e), E_IO);
}

static void test_read_limits(void **state)
{
	const struct { size_t max; enum errc want; } rows[] = { { 6, E_OK }, { 5, E_TOO_LARGE }, { 0, E_TOO_LARGE }, { 7, E_OK } };
	struct err e = { 0 };

	(void)state;
	assert_int_equal(file_write_atomic(at("six"), SLICE("123456"), 0600, &e), E_OK);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF b = BUF_MAX(rows[i].max);

		assert_int_equal(file_read(at("six"), &b, &e), rows[i].want);
		assert_int_equal(b.n, rows[i].want ? 0 : 6);
	}
	AUTO_BUF kept = BUF_MAX(8);

	assert_int_equal(buf_add_str(&kept, "abc", &e), E_OK);
	assert_int_equal(file_read(at("six"), &kept, &e), E_TOO_LARGE);
	assert_true(slice_eq(buf_slice(&kept), SLICE("abc")));
	assert_int_equal(file_write_atomic(at("empty"), SLICE(""), 0600, &e), E_OK);
	buf_clear(&kept);
	assert_int_equal(file_read(at("empty"), &kept, &e), E_OK);
	assert_int_equal(kept.n, 0);
}

static void test_read_large(void **state)
{
	AUTO_FREE char *big = mem_alloc(300000);
	AUTO_BUF b = BUF_MAX(300000);
	struct err e = { 0 };

	(void)state;
	for (size_t i = 0; i < 300000; i++)
		big[i] = (char)('a' + i % 23);
	assert_int_equal(file_write_atomic(at("big"), slice_of(big, 300000), 0600, &e), E_OK);
	assert_int_equal(file_read(at("big"), &b, &e), E_OK);
	assert_int_equal(b.n, 300000);
	assert_memory_equal(b.p, big, 300000);
}

static void test_read_refusals(void **state)
{
	AUTO_BUF b = BUF_MAX(100);
	struct err e = { 0 };

	(void)state;
	assert_int_equal(file_read(at("none"), &b, &e), E_NOT_FOUND);
	assert_non_null(strstr(e.what, "none"));
	assert_int_equal(file_read(dir, &b, &e), E_IO);
	assert_int_equal(mkfifo(at("fifo"), 0600), 0);
	assert_int_equal(file_read(at("fifo"), &b, &e), E_IO); /* must not wait for a writer */
}

static void test_private(void **state)
{
	const struct { mode_t mode; enum errc want; } rows[] = {
		{ 0600, E_OK }, { 0400, E_OK }, { 0640, E_FORBIDDEN }, { 0604, E_FORBIDDEN }, { 0620, E_FORBIDDEN },
	};
	struct err e = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF b = BUF_MAX(100);

		assert_int_equal(file_write_atomic(at("key"), SLICE("k"), rows[i].mode, &e), E_OK);
		assert_int_equal(file_read_private(at("key"), &b, &e), rows[i].want);
		assert_int_equal(b.n, rows[i].want ? 0 : 1);
	}
	if (geteuid() == 0) {
		AUTO_BUF b = BUF_MAX(100);

		assert_int_equal(chmod(at("key"), 0600), 0);
		assert_int_equal(chown(at("key"), 65534, 65534), 0);
		assert_int_equal(file_read_private(at("key"), &b, &e), E_FORBIDDEN);
	}
	AUTO_BUF b = BUF_MAX(100);

	assert_int_equal(file_read_private(at("none"), &b, &e), E_NOT_FOUND);
}

static void test_create(void **state)
{
	struct err e = { 0 };

	(void)state;
	mode_t old = umask(0377); /* the mode is the one that was asked for, whatever the umask is */

	assert_int_equal(file_create(at("new"), SLICE("1"), 0600, &e), E_OK);
	umask(old);
	assert_int_equal(mode_of(at("new")), 0600);
	assert_int_equal(file_create(at("new"), SLICE("2"), 0600, &e), E_CONFLICT);
	assert_content(at("new"), "1");
	assert_int_equal(symlink(at("nowhere"), at("link")), 0);
	assert_int_equal(file_create(at("link"), SLICE("2"), 0600, &e), E_CONFLICT);
	assert_false(file_exists(at("nowhere")));
	assert_int_equal(count_entries(), 2);
}

static void test_write_through_link(void **state)
{
	struct err e = { 0 };
	struct stat st;

	(void)state;
	assert_int_equal(file_write_atomic(at("target"), SLICE("1"), 0600, &e), E_OK);
	assert_int_equal(symlink(at("target"), at("alias")), 0);
	assert_int_equal(file_write_atomic(at("alias"), SLICE("2"), 0600, &e), E_OK);
	assert_int_equal(lstat(at("alias"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_content(at("target"), "2");
}

static void test_make_dir(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(file_make_private_dir(at("x//y/z"), &e), E_OK);
	assert_int_equal(mode_of(at("x/y/z")), 0700);
	assert_int_equal(chmod(at("x/y/z"), 0755), 0); /* as the reference node leaves it */
	assert_int_equal(file_make_private_dir(at("x/y/z/"), &e), E_OK);
	assert_int_equal(mode_of(at("x/y/z")), 0700);
	assert_true(mode_of(at("x")) & 0100);
	assert_int_equal(file_write_atomic(at("x/file"), SLICE(""), 0600, &e), E_OK);
	assert_int_equal(file_make_private_dir(at("x/file"), &e), E_IO);
	assert_int_equal(file_make_private_dir(at("x/file/y"), &e), E_IO);
	if (geteuid() == 0) {
		assert_int_equal(chown(at("x/y/z"), 65534, 65534), 0);
		assert_int_equal(file_make_private_dir(at("x/y/z"), &e), E_FORBIDDEN);
	}
}

static void test_lock(void **state)
{
	AUTO_FD first = -1;
	AUTO_FD second = -1;
	struct err e = { 0 };
	char pid[32];

	(void)state;
	assert_int_equal(file_write_atomic(at("lock"), SLICE("99999999999 leftover"), 0600, &e), E_OK);
	assert_int_equal(file_lock(at("lock"), &first, &e), E_OK);
	assert_true(fcntl(first, F_GETFD) & FD_CLOEXEC);
	snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	assert_content(at("lock"), pid);
	assert_int_equal(file_lock(at("lock"), &second, &e), E_CONFLICT);
	assert_int_equal(second, -1);
	snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
	assert_non_null(strstr(e.what, pid));
	fd_auto_close(&first);
	assert_int_equal(first, -1);
	assert_int_equal(file_lock(at("lock"), &second, &e), E_OK);
	assert_int_equal(mode_of(at("lock")), 0600);
}

/* The holder is killed while it starts a child: the child has the lock until its exec. A living holder's is refused at once. */
static void test_lock_left_to_a_child(void **state)
{
	AUTO_FD got = -1;
	struct err e = { 0 };
	int ready[2], status;
	char byte;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid_t holder = fork();

	if (holder == 0) {
		int fd = -1;

		if (file_lock(at("lock"), &fd, &e))
			_exit(1);
		if (fork() == 0) {
			(void)usleep(300000);
			_exit(0);
		}
		(void)!write(ready[1], "x", 1);
		(void)pause();
	}
	assert_true(holder > 0);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(file_lock(at("lock"), &got, &e), E_CONFLICT);
	assert_int_equal(kill(holder, SIGKILL), 0);
	assert_int_equal(waitpid(holder, &status, 0), holder);
	assert_int_equal(file_lock(at("lock"), &got, &e), E_OK);
	assert_int_equal(close(ready[0]) | close(ready[1]), 0);
}

static void test_paths(void **state)
{
	const struct { const char *path, *home, *want; } homes[] = {
		{ "~/x", "/h", "/h/x" }, { "~", "/h", "/h" }, { "~/", "/h", "/h" }, { "~user/x", "/h", "~user/x" },
		{ "/a/~/b", "/h", "/a/~/b" }, { "", "/h", "" }, { "~/x", NULL, "~/x" }, { "~/x", "", "~/x" }, { "~/x", "/", "/x" },
	};
	const struct { const char *folder, *name, *want; } joins[] = {
		{ "/a", "b", "/a/b" }, { "/a/", "b", "/a/b" }, { "/", "b", "/b" }, { "//", "b", "/b" }, { ".", "b", "./b" },
	};
	const struct { const char *path, *want; } dirs[] = {
		{ "/a/b", "/a" }, { "/a", "/" }, { "/", "/" }, { "a", "." }, { "a/b/", "a" }, { "a//b", "a" }, { "", "." }, { "//a", "/" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(homes); i++) {
		AUTO_FREE char *got = file_expand_home(homes[i].path, homes[i].home);

		assert_string_equal(got, homes[i].want);
	}
	for (size_t i = 0; i < ARRAY_LEN(joins); i++) {
		AUTO_FREE char *got = file_join(joins[i].folder, joins[i].name);

		assert_string_equal(got, joins[i].want);
	}
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		AUTO_FREE char *got = file_dirname(dirs[i].path);

		assert_string_equal(got, dirs[i].want);
	}
}

static void test_no_memory(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(file_write_atomic(at("a"), SLICE("old"), 0600, &e), E_OK);
	for (uint64_t nth = 1;; nth++) {
		AUTO_BUF b = BUF_MAX(100);

		mem_test_fail_at(nth, 0);
		enum errc rc = file_write_atomic(at("a"), SLICE("new"), 0600, &e);

		if (rc == E_OK)
			rc = file_read(at("a"), &b, &e);
		mem_test_fail_at(0, 0);
		assert_true(rc == E_OK || rc == E_NO_MEMORY);
		assert_int_equal(count_entries(), 1);
		if (rc == E_OK)
			break;
		assert_true(nth < 100);
	}
	assert_content(at("a"), "new");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_write_and_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_large, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_private, setup, teardown),
		cmocka_unit_test_setup_teardown(test_create, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_through_link, setup, teardown),
		cmocka_unit_test_setup_teardown(test_make_dir, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lock_left_to_a_child, setup, teardown),
		cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
