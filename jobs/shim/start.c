/*
 * The job's process: its own process group, its cgroup, its two pipes, nothing else of ours. Until exec it has our memory
 * (vfork: no page is copied), so what fails there is written where we read it.
 */
#include "jobs/shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

struct failure {
	int error;                      /* 0: none */
	const char *step;
};

static void report(volatile struct failure *f, const char *step)
{
	f->error = errno ? errno : ESRCH;
	f->step = step;
	_exit(127);
}

/* The node raised its own; a program that closes all that it might have would take long with that. */
static void limit_files(uint64_t soft)
{
	struct rlimit l;

	if (!soft || getrlimit(RLIMIT_NOFILE, &l))
		return;
	l.rlim_cur = soft < l.rlim_max ? soft : l.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &l);
}

/* In the child: system calls, and nothing of ours is changed but *failed. */
static void become(const struct shim *s, int out, int err, volatile struct failure *failed, pid_t parent)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	sigemptyset(&none);
	setpgid(0, 0);
	limit_files(s->spec.nofile);
	cgroup_enter(&s->cgroup);
	sigprocmask(SIG_SETMASK, &none, NULL);         /* what is done on them was set to the default for us */
	/* The tree must not outlive who answers for it; an early death is seen by comparing. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		report(failed, "parent");
	if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		report(failed, "streams");
	if (s->spec.cwd && chdir(s->spec.cwd))
		report(failed, "cwd");
	execvpe(s->spec.argv[0], s->spec.argv, s->spec.envp);
	report(failed, "exec");
}

bool start_job(struct shim *s)
{
	volatile struct failure failed = { 0 };
	int out[2], err[2];
	pid_t self = getpid();

	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) {
		fail(s, "pipes: %s", strerror(errno));
		return false;
	}
	s->started_ms = wall_ms();
	s->child = vfork();
	if (s->child == 0)
		become(s, out[1], err[1], &failed, self);
	if (s->child < 0)
		fail(s, "fork: %s", strerror(errno));
	else if (failed.error)
		fail(s, "%s: %s: %s", failed.step, strcmp(failed.step, "cwd") == 0 ? s->spec.cwd : s->spec.argv[0], strerror(failed.error));
	close(out[1]);
	close(err[1]);
	s->out.fd = out[0];
	s->err.fd = err[0];
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	return s->child > 0 && !failed.error;
}
