/*
 * The loop of an attempt: what the job says goes into the journal; the limit, the wish to stop and the end of the job's
 * process lead to the end of everything that it started.
 *
 * Nothing is left when wait says ECHILD: as child subreaper every orphan below us becomes our child.
 */
#include "jobs/shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MAX_MS	1000
#define TICK_MS		20               /* between two rounds of killing, and tries of a full disk */
#define SYNC_MS		1000
#define LEFT_GRACE_MS	1000             /* for what a job leaves behind when its own process has ended well */
#define FULL_DISK_MS	5000             /* how long the last output waits for room */

static int64_t boot_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void arm(int timer, int64_t ms)
{
	struct itimerspec t = { .it_value = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 } };

	timerfd_settime(timer, 0, &t, NULL);
}

static void watch(struct shim *s, int fd)
{
	struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };

	if (fd >= 0)
		epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e);
}

/* ---- output ---- */

static void end_stream(struct stream *st)
{
	if (st->fd >= 0)
		close(st->fd);             /* and out of epoll: nobody else has it */
	st->fd = -1;
}

/* Put what is held into the journal. False: there is no room; it stays held, and the job must wait. */
static bool flush(struct shim *s, struct stream *st)
{
	if (st->held_n && !journal_add(&s->journal, st->kind, st->held, st->held_n))
		return false;
	st->held_n = 0;
	return true;
}

/* Of n new bytes those that may still be kept. */
static size_t within_max(struct shim *s, struct stream *st, size_t n)
{
	uint64_t max = st->kind == FRAME_OUT ? s->spec.out_max : s->spec.err_max, before = st->seen;

	st->seen += n;
	if (!max || st->seen <= max)
		return n;
	if (!st->is_cut)
		note(s, "log_truncated %s %llu", st->kind == FRAME_OUT ? "stdout" : "stderr", (unsigned long long)max);
	st->is_cut = true;
	return before < max ? (size_t)(max - before) : 0;
}

static void take_output(struct shim *s, struct stream *st)
{
	ssize_t n;

	if (st->held_n)
		return;
	n = read(st->fd, st->held, sizeof(st->held));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_stream(st);
		return;
	}
	st->held_n = within_max(s, st, (size_t)n);
	if (!flush(s, st)) {                   /* read no more of it until there is room */
		epoll_ctl(s->epoll, EPOLL_CTL_DEL, st->fd, NULL);
		arm(s->step, TICK_MS);
	}
}

/* False: still no room. */
static bool try_again(struct shim *s, struct stream *st)
{
	if (!st->held_n)
		return true;
	if (!flush(s, st))
		return false;
	watch(s, st->fd);
	return true;
}

/* The disk stays full and nobody is left to wait for it: count what cannot be kept, and what is still in the pipe. */
static void drop(struct shim *s, struct stream *st)
{
	ssize_t n;

	s->lost += st->held_n;
	while (st->fd >= 0 && (n = read(st->fd, st->held, sizeof(st->held))) > 0) {
		st->seen += (uint64_t)n;
		s->lost += (uint64_t)n;
	}
	st->held_n = 0;
	end_stream(st);
}

/* ---- the end ---- */

static void begin_stop(struct shim *s, int64_t grace_ms)
{
	s->stage = STEP_TERM;
	s->kill_at_ms = boot_ms() + grace_ms;
	s->look_ms = TICK_MS;
	s->look_at_ms = boot_ms() + s->look_ms;
	tree_terminate(true);
	arm(s->step, TICK_MS);
}

/* Less and less often: it reads all of /proc. */
static void look_again(struct shim *s)
{
	tree_terminate(false);
	s->look_ms = s->look_ms < LOOK_MAX_MS / 2 ? 2 * s->look_ms : LOOK_MAX_MS;
	s->look_at_ms = boot_ms() + s->look_ms;
}

static void stop(struct shim *s, enum reason reason)
{
	if (s->stage != STEP_RUN)
		return;
	if (!s->has_child_ended)
		s->reason = reason;
	begin_stop(s, s->spec.grace_ms);
}

static void kill_all(struct shim *s)
{
	s->stage = STEP_KILL;
	if (cgroup_kill(&s->cgroup))
		return;
	tree_signal(SIGSTOP);                  /* what stands still does not fork */
	tree_signal(SIGKILL);
}

static void reap(struct shim *s)
{
	struct rusage usage;
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		if (pid != s->child)
			continue;
		s->has_child_ended = true;
		s->wait_status = status;
		s->usage = usage;
	}
	s->has_none_left = pid < 0 && errno == ECHILD;
	if (s->has_none_left && !s->none_left_ms)
		s->none_left_ms = boot_ms();
	if (s->has_child_ended && !s->has_none_left && s->stage == STEP_RUN) {
		note(s, "left_behind");
		begin_stop(s, s->spec.grace_ms < LEFT_GRACE_MS ? s->spec.grace_ms : LEFT_GRACE_MS);
	}
}

static void take_signals(struct shim *s)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			stop(s, REASON_STOPPED);
	}
	reap(s);
}

static void look_for_stop(struct shim *s)
{
	char events[4096];

	while (read(s->watch, events, sizeof(events)) > 0)
		;
	if (faccessat(s->dir, "stop", F_OK, 0) == 0)
		stop(s, REASON_STOPPED);
}

/* ---- time ---- */

static void on_step(struct shim *s)
{
	bool has_room = try_again(s, &s->out);

	has_room = try_again(s, &s->err) && has_room;

	if (s->stage == STEP_KILL || (s->stage == STEP_TERM && boot_ms() >= s->kill_at_ms))
		kill_all(s);
	else if (s->stage == STEP_TERM && boot_ms() >= s->look_at_ms)
		look_again(s);
	reap(s);
	if (s->has_none_left && !has_room && boot_ms() - s->none_left_ms > FULL_DISK_MS) {
		drop(s, &s->out);
		drop(s, &s->err);
	}
	journal_sync(&s->journal);
	if (s->stage != STEP_RUN || !has_room)
		arm(s->step, TICK_MS);
	else if (s->out.fd >= 0 || s->err.fd >= 0)
		arm(s->step, SYNC_MS);
}

static bool is_over(const struct shim *s)
{
	return s->has_none_left && s->out.fd < 0 && s->err.fd < 0 && !s->out.held_n && !s->err.held_n;
}

static void expire(int timer)
{
	uint64_t times;

	(void)!read(timer, &times, sizeof(times));
}

static void dispatch(struct shim *s, int fd)
{
	if (fd == s->out.fd)
		take_output(s, &s->out);
	else if (fd == s->err.fd)
		take_output(s, &s->err);
	else if (fd == s->signals)
		take_signals(s);
	else if (fd == s->watch)
		look_for_stop(s);
	else if (fd == s->limit) {
		expire(fd);
		stop(s, REASON_TIMEOUT);
	} else if (fd == s->step) {
		expire(fd);
		on_step(s);
	}
}

static void set_up(struct shim *s)
{
	char path[64];
	sigset_t ours;

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	sigemptyset(&ours);
	sigaddset(&ours, SIGCHLD);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	s->signals = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
	s->limit = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	s->step = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	s->watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->dir);
	inotify_add_watch(s->watch, path, IN_CREATE | IN_MOVED_TO);
	watch(s, s->signals);
	watch(s, s->limit);
	watch(s, s->step);
	watch(s, s->watch);
	watch(s, s->out.fd);
	watch(s, s->err.fd);
}

void run(struct shim *s)
{
	if (s->child <= 0)
		return;
	set_up(s);
	if (s->spec.limit_ms)
		arm(s->limit, s->spec.limit_ms);
	arm(s->step, SYNC_MS);
	look_for_stop(s);
	reap(s);
	while (!is_over(s)) {
		struct epoll_event ready[8];
		int n = epoll_wait(s->epoll, ready, 8, -1);

		for (int i = 0; i < n; i++)
			dispatch(s, ready[i].data.fd);
	}
}
