/*
 * The job's process: its own process group, its cgroup, its two pipes, nothing else of ours. What fails before exec comes
 * back through a pipe that exec closes.
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
	int error;
	char step[16];
};

static void report(int to, const char *step)
{
	struct failure f = { .error = errno };

	memcpy(f.step, step, strlen(step) + 1);
	(void)!write(to, &f, sizeof(f));
	_exit(127);
}

static void reset_signals(void)
{
	struct sigaction by_default = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int n = 1; n < NSIG; n++)
		sigaction(n, &by_default, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child. */
static void become(const struct shim *s, int out, int err, int failed, pid_t parent)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	setpgid(0, 0);
	cgroup_enter(&s->cgroup);
	reset_signals();
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

/* True: exec went well. */
static bool hear(struct shim *s, int from)
{
	struct failure f;
	ssize_t n;

	do {
		n = read(from, &f, sizeof(f));
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(f))
		return true;
	fail(s, "%s: %s: %s", f.step, strcmp(f.step, "cwd") == 0 ? s->spec.cwd : s->spec.argv[0], strerrordesc_np(f.error));
	return false;
}

bool start_job(struct shim *s)
{
	int out[2], err[2], failed[2];
	pid_t self = getpid();

	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || pipe2(failed, O_CLOEXEC)) {
		fail(s, "pipes: %s", strerrordesc_np(errno));
		return false;
	}
	s->started_ms = wall_ms();
	s->child = fork();
	if (s->child == 0)
		become(s, out[1], err[1], failed[1], self);
	close(out[1]);
	close(err[1]);
	close(failed[1]);
	s->out.fd = out[0];
	s->err.fd = err[0];
	if (s->child < 0)
		fail(s, "fork: %s", strerrordesc_np(errno));
	bool is_started = s->child > 0 && hear(s, failed[0]);

	close(failed[0]);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	return is_started;
}
