/* Short commands: what comes back, the texts of llm-execution.md 2.1, and that nothing of a command is left behind. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define SH(script) (const char *const[]){ "sh", "-c", script, NULL }

struct ended {
	struct loop *l;
	int calls;
	enum errc rc;
	int exit_code, signal;
	char out[4096], err[4096], what[sizeof(((struct err *)0)->what)];
	size_t out_n;
	struct proc *p;
};

static void on_done(void *ctx, const struct proc_result *r)
{
	struct ended *d = ctx;

	d->calls++;
	d->rc = r->rc;
	d->exit_code = r->exit_code;
	d->signal = r->signal;
	d->out_n = r->out.n;
	assert_true(slice_copy(slice_cut(r->out, sizeof(d->out) - 1), d->out, sizeof(d->out)) || memchr(r->out.p, 0, r->out.n));
	assert_true(slice_copy(slice_cut(r->err, sizeof(d->err) - 1), d->err, sizeof(d->err)));
	snprintf(d->what, sizeof(d->what), "%s", r->rc ? r->e.what : "");
	if (d->p)
		proc_cancel(d->p); /* from inside done: nothing happens */
	loop_stop(d->l);
}

static const char *const plain_env[] = { "PATH=/usr/bin:/bin", "A=1", NULL };

static struct ended run(const char *const *argv, const char *const *env, int64_t limit_ms, size_t cap)
{
	struct ended d = { .calls = 0 };
	struct proc_req r = { .argv = argv, .env = env, .limit_ms = limit_ms, .max_out_bytes = cap, .done = on_done, .ctx = &d };
	struct err e;

	assert_int_equal(loop_new("test", &d.l, &e), E_OK);
	assert_int_equal(proc_start(d.l, &r, &d.p, &e), E_OK);
	assert_int_equal(d.calls, 0); /* never from inside proc_start */
	loop_run(d.l);
	assert_int_equal(d.calls, 1);
	loop_free(d.l);
	return d;
}

static void test_results(void **state)
{
	static const struct {
		const char *script;
		enum errc rc;
		int exit_code, signal;
		const char *out, *err, *what;
	} rows[] = {
		{ "echo hello", E_OK, 0, 0, "hello\n", "", "" },
		{ "echo out; echo err >&2", E_OK, 0, 0, "out\n", "err\n", "" },
		{ "cat; echo $A$B", E_OK, 0, 0, "1\n", "", "" },
		{ "echo some; echo 'no good' >&2; exit 3", E_UPSTREAM, 3, 0, "some\n", "no good\n",
		  "command failed (3): sh -c echo some; echo 'no good' >&2; exit 3 no good" },
		{ "exit 1", E_UPSTREAM, 1, 0, "", "", "command failed (1): sh -c exit 1" },
		{ "kill -9 $$", E_UPSTREAM, -1, SIGKILL, "", "", "command failed (signal 9): sh -c kill -9 $$" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct ended d = run(SH(rows[i].script), plain_env, 20000, 4096);

		assert_int_equal(d.rc, rows[i].rc);
		assert_int_equal(d.exit_code, rows[i].exit_code);
		assert_int_equal(d.signal, rows[i].signal);
		assert_string_equal(d.out, rows[i].out);
		assert_string_equal(d.err, rows[i].err);
		assert_string_equal(d.what, rows[i].what);
	}
}

static void test_not_found(void **state)
{
	static const char *const names[] = { "no-such-program-here", "/usr/bin/no-such-program", "/etc/passwd", "/usr/bin", "" };
	char want[80];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct ended d = run((const char *const[]){ names[i], "x", NULL }, plain_env, 20000, 4096);

		snprintf(want, sizeof(want), "spawn %s ENOENT", names[i]);
		assert_int_equal(d.rc, E_NOT_FOUND);
		assert_string_equal(d.what, want);
		assert_int_equal(d.exit_code, -1);
	}
}

/* The child's own PATH counts; relative entries do not. */
static void test_path(void **state)
{
	char dir[] = "/tmp/test-proc-XXXXXX", file[64], path[96];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/tool", dir);
	fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "#!/bin/sh\necho $0\n", 18), 18);
	close(fd);
	snprintf(path, sizeof(path), "PATH=.:/nowhere:%s", dir);
	struct ended d = run((const char *const[]){ "tool", NULL }, (const char *const[]){ path, NULL }, 20000, 4096);

	assert_int_equal(d.rc, E_OK);
	assert_int_equal(strncmp(d.out, file, strlen(file)), 0);
	d = run((const char *const[]){ "tool", NULL }, plain_env, 20000, 4096);
	assert_int_equal(d.rc, E_NOT_FOUND);
	d = run((const char *const[]){ "env", NULL }, NULL, 20000, 4096); /* no environment at all */
	assert_int_equal(d.rc, E_OK);
	assert_string_equal(d.out, "");
	unlink(file);
	rmdir(dir);
}

/* Nothing is inherited: descriptors, environment, signal mask, process group. */
static void test_clean_child(void **state)
{
	int leak = dup2(STDIN_FILENO, 57); /* without O_CLOEXEC */
	sigset_t set;
	char want[64];

	(void)state;
	assert_int_equal(leak, 57);
	setenv("CANARY", "secret", 1);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	struct ended d = run(SH("for f in /proc/$$/fd/*; do echo ${f##*/}; done; env; grep SigBlk /proc/self/status"), plain_env, 20000, 4096);

	sigprocmask(SIG_UNBLOCK, &set, NULL);
	unsetenv("CANARY");
	assert_int_equal(d.rc, E_OK);
	snprintf(want, sizeof(want), "\n%d\n", leak);
	assert_null(strstr(d.out, want));
	assert_null(strstr(d.out, "CANARY"));
	assert_non_null(strstr(d.out, "SigBlk:\t0000000000000000"));
	close(leak);
}

static bool is_gone(pid_t pid)
{
	char path[64], text[256];
	int fd;
	ssize_t n;

	if (kill(pid, 0))
		return errno == ESRCH;
	/* killed, but its new parent has not reaped it yet */
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n <= 0 || strstr(text, ") Z ") || strstr(text, ") X ");
}

/* SIGKILL was sent to it; the kernel may need a moment. */
static void assert_gone(const char *pid_text)
{
	pid_t pid = (pid_t)strtol(pid_text, NULL, 10);
	int64_t limit = clock_mono_ms() + 5000;

	assert_true(pid > 1);
	while (!is_gone(pid))
		assert_true(clock_mono_ms() < limit);
}

static void test_time_limit(void **state)
{
	(void)state;
	/* it goes on TERM, and so does its child */
	int64_t begin = clock_mono_ms();
	struct ended d = run(SH("sleep 60 & echo $!; wait"), plain_env, 100, 4096);

	assert_int_equal(d.rc, E_TIMEOUT);
	assert_string_equal(d.what, "command timed out after 100ms: sh");
	assert_int_equal(d.signal, SIGTERM);
	assert_true(clock_mono_ms() - begin < 900);
	assert_gone(d.out);
	/* it does not care for TERM: KILL, after a grace */
	begin = clock_mono_ms();
	d = run(SH("trap '' TERM; sleep 60 & echo $!; wait; wait; while :; do sleep 1; done"), plain_env, 100, 4096);
	assert_int_equal(d.rc, E_TIMEOUT);
	assert_int_equal(d.signal, SIGKILL);
	assert_in_range(clock_mono_ms() - begin, 1000, 3500);
	assert_gone(d.out);
}

/* A child left behind that holds the pipes does not hold the answer, and does not live on. */
static void test_left_behind(void **state)
{
	(void)state;
	int64_t begin = clock_mono_ms();
	struct ended d = run(SH("sleep 60 & echo $!"), plain_env, 20000, 4096);

	assert_int_equal(d.rc, E_OK);
	assert_true(clock_mono_ms() - begin < 5000);
	assert_gone(d.out);
}

static void test_caps(void **state)
{
	(void)state;
	struct ended d = run(SH("yes"), plain_env, 20000, 10000);

	assert_int_equal(d.rc, E_TOO_LARGE);
	assert_string_equal(d.what, "command stdout exceeded 10000 bytes: sh");
	d = run(SH("yes >&2"), plain_env, 20000, 10000);
	assert_int_equal(d.rc, E_TOO_LARGE);
	assert_string_equal(d.what, "command stderr exceeded 10000 bytes: sh");
	/* exactly the cap, written at the very end */
	d = run(SH("head -c 10000 /dev/zero"), plain_env, 20000, 10000);
	assert_int_equal(d.rc, E_OK);
	assert_int_equal(d.out_n, 10000);
	d = run(SH("head -c 10001 /dev/zero"), plain_env, 20000, 10000);
	assert_int_equal(d.rc, E_TOO_LARGE);
	d = run(SH("head -c 3000000 /dev/zero"), plain_env, 20000, 3000000);
	assert_int_equal(d.rc, E_OK);
	assert_int_equal(d.out_n, 3000000);
}

struct cancel {
	struct loop_timer t;
	struct ended d;
	char dir[32];
	char pid[32];
	int phase;
};

/* Cancel when the command has told its pid in a file; stop when it has been reaped. */
static void on_look(struct loop_timer *t)
{
	struct cancel *c = CONTAINER_OF(t, struct cancel, t);
	char path[64];
	int fd;

	if (c->phase == 0) {
		snprintf(path, sizeof(path), "%s/pid", c->dir);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, c->pid, sizeof(c->pid) - 1) > 1 && strchr(c->pid, '\n')) {
			proc_cancel(c->d.p);
			c->phase = 1;
		}
		if (fd >= 0)
			close(fd);
	} else if (kill((pid_t)strtol(c->pid, NULL, 10), 0) && errno == ESRCH) {
		loop_stop(c->d.l); /* the leader is gone, not only a zombie */
		return;
	}
	loop_timer_set(c->d.l, t, loop_now_ms(c->d.l) + 1);
}

static void test_cancel(void **state)
{
	struct cancel c = { .t.fn = on_look, .dir = "/tmp/test-proc-XXXXXX" };
	char script[128];
	struct proc_req r = { .env = plain_env, .limit_ms = 20000, .max_out_bytes = 100, .done = on_done, .ctx = &c.d };
	struct err e;

	(void)state;
	assert_non_null(mkdtemp(c.dir));
	snprintf(script, sizeof(script), "trap '' TERM; echo $$ > %s/pid; while :; do sleep 60; done", c.dir);
	r.argv = SH(script);
	assert_int_equal(loop_new("test", &c.d.l, &e), E_OK);
	assert_int_equal(proc_start(c.d.l, &r, &c.d.p, &e), E_OK);
	loop_timer_set(c.d.l, &c.t, 0);
	loop_run(c.d.l);
	assert_int_equal(c.d.calls, 0);
	loop_timer_cancel(c.d.l, &c.t);
	/* one that was never started */
	r.argv = (const char *const[]){ "no-such-program-here", NULL };
	assert_int_equal(proc_start(c.d.l, &r, &c.d.p, &e), E_OK);
	proc_cancel(c.d.p);
	loop_stop(c.d.l);
	loop_run(c.d.l);
	assert_int_equal(c.d.calls, 0);
	loop_free(c.d.l);
	snprintf(script, sizeof(script), "%s/pid", c.dir);
	unlink(script);
	rmdir(c.dir);
}

/* Every allocation fails once: a clean error or a result, and nothing is left. */
static void test_no_memory(void **state)
{
	int good = 0;

	(void)state;
	for (uint64_t n = 1; n < 200 && good < 2; n++) {
		struct ended d = { .calls = 0 };
		struct proc_req r = { .argv = SH("echo hello"), .env = plain_env, .limit_ms = 20000, .max_out_bytes = 100,
			.done = on_done, .ctx = &d };
		struct loop_timer grow = { .fn = NULL };
		struct err e;

		assert_int_equal(loop_new("test", &d.l, &e), E_OK);
		loop_timer_set(d.l, &grow, INT64_MAX); /* arming aborts without memory: let the heap have its first block */
		loop_timer_cancel(d.l, &grow);
		mem_test_fail_at(n, 0);
		if (proc_start(d.l, &r, &d.p, &e) == E_OK) {
			loop_run(d.l);
			assert_true(d.rc == E_OK || d.rc == E_NO_MEMORY);
			good += d.rc == E_OK;
		} else {
			assert_int_equal(e.code, E_NO_MEMORY);
			assert_int_equal(d.calls, 0);
		}
		mem_test_fail_at(0, 0);
		loop_free(d.l);
	}
	assert_int_equal(good, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_results),
		cmocka_unit_test(test_not_found),
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_clean_child),
		cmocka_unit_test(test_time_limit),
		cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
