/*
 * Short commands on a loop: inventory, probes. Called on the supervisor's loop; done runs there too.
 *
 * A command ends in one place, finish(), whatever came first: its exit (pidfd), the limit, too much output. When it
 * has exited, what is left of its group is killed while the unreaped leader still keeps the group's number from being
 * given to others.
 */
#include "base/proc.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE_MS	1000    /* between TERM and KILL */
#define STUCK_MS	2000    /* after KILL: a process in the kernel's hands may not end; the answer does not wait for it */
#define READ_BYTES	(16 * 1024)
#define OPEN_FILES	1024    /* the node raises its own limit; programs that use select() break above this */
#define DEFAULT_PATH	"/usr/local/bin:/usr/bin:/bin"

struct pipe_end {
	struct proc *p;
	const char *name;
	struct buf text;
	int fd;
	loop_watch_id watch;
};

struct proc {
	struct loop *loop;
	struct loop_timer timer;
	void (*done)(void *ctx, const struct proc_result *r);  /* NULL: cancelled or told, only to be reaped */
	void *ctx;
	char *bin, *line;              /* argv[0]; all of argv joined by blanks, for the texts */
	int64_t limit_ms;
	pid_t pid;                     /* 0: never started */
	int pidfd;
	loop_watch_id watch;
	struct pipe_end out, err;
	enum errc why;                 /* E_OK while it may run on; else what it is being killed for */
	struct err e;
	int kills;                     /* 0 none, 1 TERM sent, 2 KILL sent */
};

static void pipe_close(struct pipe_end *end)
{
	loop_watch_del(end->p->loop, end->watch);
	end->watch = 0;
	if (end->fd >= 0)
		close(end->fd);
	end->fd = -1;
}

static void proc_free(struct proc *p)
{
	if (!p)
		return;
	loop_timer_cancel(p->loop, &p->timer);
	loop_watch_del(p->loop, p->watch);
	if (p->pidfd >= 0)
		close(p->pidfd);
	pipe_close(&p->out);
	pipe_close(&p->err);
	buf_done(&p->out.text);
	buf_done(&p->err.text);
	mem_free(p->bin);
	mem_free(p->line);
	mem_free(p);
}

static void kill_group(struct proc *p, int sig)
{
	/* ESRCH: nobody is left. The leader is not reaped yet, so the number is still ours. */
	kill(-p->pid, sig);
}

static void tell(struct proc *p, const struct proc_result *r)
{
	void (*done)(void *ctx, const struct proc_result *r) = p->done;

	p->done = NULL;
	if (done)
		done(p->ctx, r);
}

/* ---- the end ---- */

static void judge(struct proc *p, const siginfo_t *si, struct proc_result *r)
{
	struct slice text = slice_trim(r->err);

	r->exit_code = si->si_code == CLD_EXITED ? si->si_status : -1;
	r->signal = si->si_code == CLD_EXITED ? 0 : si->si_status;
	r->e = p->e;
	r->rc = p->why;
	if (r->rc || r->exit_code == 0)
		return;
	if (r->exit_code > 0)
		r->rc = err_set(&r->e, E_UPSTREAM, "command failed (%d): %s%s" SLICE_FMT, r->exit_code, p->line, text.n ? " " : "",
				SLICE_ARG(text));
	else
		r->rc = err_set(&r->e, E_UPSTREAM, "command failed (signal %d): %s%s" SLICE_FMT, r->signal, p->line,
				text.n ? " " : "", SLICE_ARG(text));
}

static void read_rest(struct pipe_end *end);

static void on_exit_seen(void *arg, uint32_t events)
{
	struct proc *p = arg;
	struct proc_result r = { .rc = E_OK };
	siginfo_t si = { 0 };

	(void)events;
	kill_group(p, SIGKILL);
	/* What it wrote is in the pipes already. Read before it is reaped: too much output makes for another kill. */
	read_rest(&p->out);
	read_rest(&p->err);
	if (waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED) && errno == EINTR)
		return; /* level-triggered: comes again */
	if (p->done) {
		r.out = buf_slice(&p->out.text);
		r.err = buf_slice(&p->err.text);
		judge(p, &si, &r);
		tell(p, &r);
	}
	proc_free(p);
}

/* ---- killing ---- */

static void start_kill(struct proc *p, enum errc why)
{
	p->why = why;
	p->kills = 1;
	kill_group(p, SIGTERM);
	loop_timer_set(p->loop, &p->timer, loop_now_ms(p->loop) + GRACE_MS);
}

static void on_timer(struct loop_timer *t)
{
	struct proc *p = CONTAINER_OF(t, struct proc, timer);
	struct proc_result r = { .rc = p->why, .exit_code = -1, .e = p->e };

	if (!p->pid) {
		/* it could not be started */
		tell(p, &r);
		proc_free(p);
	} else if (p->kills == 0) {
		start_kill(p, err_set(&p->e, E_TIMEOUT, "command timed out after %lldms: %s", (long long)p->limit_ms, p->bin));
	} else if (p->kills == 1) {
		p->kills = 2;
		kill_group(p, SIGKILL);
		loop_timer_set(p->loop, t, loop_now_ms(p->loop) + STUCK_MS);
	} else {
		tell(p, &r); /* stays for its pidfd alone */
		pipe_close(&p->out);
		pipe_close(&p->err);
	}
}

void proc_cancel(struct proc *p)
{
	if (!p->done)
		return; /* from inside done */
	p->done = NULL;
	pipe_close(&p->out);
	pipe_close(&p->err);
	if (!p->pid) {
		proc_free(p);
		return;
	}
	loop_timer_cancel(p->loop, &p->timer);
	kill_group(p, SIGKILL); /* on_exit_seen reaps and frees */
}

/* ---- output ---- */

/* Read once; false when there is no more now. */
static bool read_some(struct pipe_end *end)
{
	char bytes[READ_BYTES];
	ssize_t n = read(end->fd, bytes, sizeof(bytes));
	struct proc *p = end->p;
	struct err e;

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			pipe_close(end);
		return false;
	}
	if (p->kills || !buf_add(&end->text, bytes, (size_t)n, &e))
		return true;
	if (e.code == E_TOO_LARGE) {
		err_set(&p->e, E_TOO_LARGE, "command %s exceeded %zu bytes: %s", end->name, end->text.max, p->bin);
		start_kill(p, E_TOO_LARGE);
	} else {
		p->e = e;
		start_kill(p, e.code);
	}
	return true;
}

/* Bounded: grandchildren may write for ever. */
static void read_rest(struct pipe_end *end)
{
	for (size_t i = 0; end->fd >= 0 && i < end->text.max / READ_BYTES + 8; i++) {
		if (!read_some(end))
			break;
	}
}

static void on_output(void *arg, uint32_t events)
{
	(void)events;
	read_some(arg);
}

/* ---- the start ---- */

static const char *env_get(const char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++) {
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	}
	return NULL;
}

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* Path of a program by the child's own PATH; false when there is none. */
static bool find_program(const char *name, const char *const *env, char *out, size_t cap)
{
	const char *path = env_get(env, "PATH");
	struct slice rest = slice_str(path && *path ? path : DEFAULT_PATH), dir;

	if (strchr(name, '/')) {
		int len = snprintf(out, cap, "%s", name);

		return len > 0 && (size_t)len < cap && is_program(out);
	}
	while (*name && slice_next(&rest, ':', &dir)) {
		int len = snprintf(out, cap, SLICE_FMT "/%s", SLICE_ARG(dir), name);

		/* an empty or relative entry would mean the working folder: not ours to search */
		if (dir.n && dir.p[0] == '/' && (size_t)len < cap && is_program(out))
			return true;
	}
	return false;
}

static enum errc join_argv(struct proc *p, const char *const *argv, struct err *e)
{
	AUTO_BUF b = BUF_MAX(sizeof(e->what));
	enum errc rc = E_OK;

	/* past the ceiling the text is cut anyway */
	for (size_t i = 0; argv[i] && rc == E_OK; i++)
		rc = buf_addf(&b, e, "%s%s", i ? " " : "", argv[i]);
	if (rc && rc != E_TOO_LARGE)
		return rc;
	p->line = buf_take(&b, &(size_t){ 0 });
	p->bin = mem_strdup(argv[0]);
	return p->line && p->bin ? E_OK : err_set(e, E_NO_MEMORY, "command %s: no memory", argv[0]);
}

static void close_pair(int (*fds)[2])
{
	for (int i = 0; i < 2; i++) {
		if ((*fds)[i] >= 0)
			close((*fds)[i]);
	}
}
#define AUTO_PAIR CLEANUP(close_pair) int

static int spawn(struct proc *p, const char *path, const struct proc_req *r, int out, int err)
{
	static const char *const no_env[] = { NULL };
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none, all;
	int rc;

	sigemptyset(&none);
	sigfillset(&all);
	if (posix_spawn_file_actions_init(&fa))
		return ENOMEM;
	if (posix_spawnattr_init(&at)) {
		posix_spawn_file_actions_destroy(&fa);
		return ENOMEM;
	}
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&at, 0);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setsigdefault(&at, &all);
	rc = posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	rc = rc ? rc : posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
	rc = rc ? rc : posix_spawn_file_actions_adddup2(&fa, err, STDERR_FILENO);
	/* libraries open descriptors of their own, not all of them with O_CLOEXEC */
	rc = rc ? rc : posix_spawn_file_actions_addclosefrom_np(&fa, STDERR_FILENO + 1);
	rc = rc ? rc : posix_spawn(&p->pid, path, &fa, &at, (char *const *)(uintptr_t)r->argv,
				   (char *const *)(uintptr_t)(r->env ? r->env : no_env));
	if (rc)
		p->pid = 0;
	posix_spawnattr_destroy(&at);
	posix_spawn_file_actions_destroy(&fa);
	return rc;
}

static void lower_file_limit(pid_t pid)
{
	struct rlimit lim;

	if (prlimit(pid, RLIMIT_NOFILE, NULL, &lim) || lim.rlim_cur <= OPEN_FILES)
		return;
	lim.rlim_cur = OPEN_FILES;
	prlimit(pid, RLIMIT_NOFILE, &lim, NULL);
}

static enum errc watch_output(struct pipe_end *end, int *take_fd, struct err *e)
{
	end->fd = *take_fd;
	*take_fd = -1;
	if (fcntl(end->fd, F_SETFL, O_NONBLOCK))
		return err_set_os(e, E_IO, errno, "pipe of %s", end->name);
	return loop_watch_add(end->p->loop, end->fd, EPOLLIN, on_output, end, &end->watch, e);
}

/* The child runs: watch it, or kill and reap it at once. */
static enum errc watch_child(struct proc *p, int *take_out, int *take_err, struct err *e)
{
	enum errc rc = E_OK;

	p->pidfd = pidfd_open(p->pid, 0);
	if (p->pidfd < 0)
		rc = err_set_os(e, E_IO, errno, "pidfd of %s", p->bin);
	rc = rc ? rc : watch_output(&p->out, take_out, e);
	rc = rc ? rc : watch_output(&p->err, take_err, e);
	rc = rc ? rc : loop_watch_add(p->loop, p->pidfd, EPOLLIN, on_exit_seen, p, &p->watch, e);
	if (rc) {
		kill_group(p, SIGKILL);
		while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
			;
		return rc;
	}
	lower_file_limit(p->pid);
	loop_timer_set(p->loop, &p->timer, loop_now_ms(p->loop) + p->limit_ms);
	return E_OK;
}

/* A failure that the caller learns from done, as all others of the command. */
static enum errc fail_later(struct proc *p, enum errc why)
{
	p->why = why;
	loop_timer_set(p->loop, &p->timer, loop_now_ms(p->loop));
	return E_OK;
}

static enum errc start(struct proc *p, const struct proc_req *r, struct err *e)
{
	AUTO_PAIR out[2] = { -1, -1 };
	AUTO_PAIR err[2] = { -1, -1 };
	char path[4096];
	int rc;

	if (!find_program(r->argv[0], r->env, path, sizeof(path)))
		return fail_later(p, err_set(&p->e, E_NOT_FOUND, "spawn %s ENOENT", p->bin));
	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		return err_set_os(e, E_IO, errno, "pipes of %s", p->bin);
	rc = spawn(p, path, r, out[1], err[1]);
	if (rc == ENOENT)
		return fail_later(p, err_set(&p->e, E_NOT_FOUND, "spawn %s ENOENT", p->bin));
	if (rc)
		return fail_later(p, err_set_os(&p->e, E_UPSTREAM, rc, "spawn %s", p->bin));
	return watch_child(p, &out[0], &err[0], e);
}

enum errc proc_start(struct loop *l, const struct proc_req *r, struct proc **ret, struct err *e)
{
	struct proc *p = NEW(struct proc);
	enum errc rc;

	if (!p)
		return err_set(e, E_NO_MEMORY, "command %s: no memory", r->argv[0]);
	p->loop = l;
	p->done = r->done;
	p->ctx = r->ctx;
	p->limit_ms = r->limit_ms;
	p->pidfd = -1;
	p->timer.fn = on_timer;
	p->out = (struct pipe_end){ .p = p, .name = "stdout", .fd = -1, .text = BUF_MAX(r->max_out_bytes) };
	p->err = (struct pipe_end){ .p = p, .name = "stderr", .fd = -1, .text = BUF_MAX(r->max_out_bytes) };
	rc = join_argv(p, r->argv, e);
	rc = rc ? rc : start(p, r, e);
	if (rc) {
		proc_free(p);
		return rc;
	}
	*ret = p;
	return E_OK;
}
