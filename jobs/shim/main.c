/* mswarm-shim ATTEMPT-DIR. Exit code 0: there is an exit record, whatever became of the job; 3: the attempt is another's; 4: no room. */
#include "jobs/shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum taken { TAKEN, TAKEN_NOT, TAKEN_BY_OTHER };

void fail(struct shim *s, const char *fmt, ...)
{
	va_list ap;

	if (s->error[0])
		return;                    /* the first one is the cause */
	va_start(ap, fmt);
	vsnprintf(s->error, sizeof(s->error), fmt, ap);
	va_end(ap);
}

void fail_file(struct shim *s, const char *name)
{
	s->has_no_room |= errno == ENOSPC || errno == EDQUOT;
	fail(s, "%s: %s", name, strerror(errno));
}

/*
 * "PID STARTTIME\n", the start in ticks since boot: what tells us from a later process with the same number. Whoever
 * makes this file has the attempt: a second shim, or one that the node has given up by making it itself, finds it there.
 * It is not synced: nobody believes it after a restart of the machine.
 */
static enum taken take_attempt(struct shim *s)
{
	char text[1024], line[64], temp[32], *at;
	enum taken taken = TAKEN;
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strrchr(text, ')');
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	n = snprintf(line, sizeof(line), "%d %.*s\n", (int)getpid(), at ? (int)strcspn(at + 1, " ") : 1, at ? at + 1 : "0");
	snprintf(temp, sizeof(temp), "pid.%d", (int)getpid());
	fd = openat(s->dir, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)n) != n || linkat(s->dir, temp, s->dir, "pid", 0)) {
		taken = errno == EEXIST ? TAKEN_BY_OTHER : TAKEN_NOT;
		fail_file(s, "pid");
	}
	unlinkat(s->dir, temp, 0);
	if (fd >= 0)
		close(fd);
	return taken;
}

static bool start(struct shim *s)
{
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGCHLD);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	sigaddset(&ours, SIGPIPE);
	sigprocmask(SIG_BLOCK, &ours, NULL);
	setsid();
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_NAME, "mswarm-shim");
	if (!journal_open(s) || !spec_read(s))
		return false;
	cgroup_make(s);
	return start_job(s);
}

int main(int argc, char **argv)
{
	static struct shim s;                  /* megabytes of room in it stay untouched */
	enum taken taken;

	if (argc != 2) {
		fputs("usage: mswarm-shim ATTEMPT-DIR\n", stderr);
		return 2;
	}
	syscall(SYS_close_range, 3u, ~0u, 0u);             /* what the node forgot to close is not the job's either */
	s.out = (struct stream){ .fd = -1, .kind = FRAME_OUT };
	s.err = (struct stream){ .fd = -1, .kind = FRAME_ERR };
	s.dir = open(argv[1], O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (s.dir < 0) {
		fprintf(stderr, "mswarm-shim: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	taken = take_attempt(&s);
	if (taken == TAKEN_BY_OTHER) {
		fprintf(stderr, "mswarm-shim: %s: this attempt is another's\n", argv[1]);
		return 3;
	}
	s.record = -1;
	if (!record_prepare(&s) || taken == TAKEN_NOT || !start(&s))
		s.reason = REASON_NOT_STARTED;
	if (s.has_no_room)
		_exit(SHIM_NO_ROOM);           /* not the job's fault: the node lets it begin later */
	run(&s);
	s.ended_ms = wall_ms();
	journal_sync(&s.journal);
	bool is_written = s.record >= 0 && record_write(&s);

	cgroup_remove(&s.cgroup);
	_exit(is_written ? 0 : 1);             /* nothing is left to flush */
}
