/*
 * Signals to all descendants. As everything orphaned comes back to us (child subreaper), a process that detached itself
 * by setsid and a second fork is still below us in /proc. One that forks while we look is found in the next round.
 */
#include "jobs/shim/shim.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESSES_MAX 32768u
#define PID_MAX (1 << 22)               /* the kernel's own limit */

struct process {
	pid_t pid, parent;
	bool is_ours;
};

/* "pid (name) S ppid ...": the name may hold anything, so from its last parenthesis on. */
static pid_t parent_of(int proc, const char *pid)
{
	char path[64], text[512], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%.20s/stat", pid);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strrchr(text, ')');
	if (!at || strlen(at) < 5 || at[2] == 'Z')
		return -1;
	return (pid_t)strtol(at + 4, NULL, 10);
}

static size_t list(struct process *p, size_t max)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;
	size_t n = 0;

	while (dir && n < max && (d = readdir(dir))) {
		pid_t parent = d->d_name[0] >= '1' && d->d_name[0] <= '9' ? parent_of(dirfd(dir), d->d_name) : -1;

		if (parent > 0)
			p[n++] = (struct process){ .pid = (pid_t)strtol(d->d_name, NULL, 10), .parent = parent };
	}
	if (dir)
		closedir(dir);
	return n;
}

static bool is_below(const struct process *p, size_t n, pid_t parent, pid_t self)
{
	if (parent == self)
		return true;
	for (size_t i = 0; i < n; i++)
		if (p[i].pid == parent)
			return p[i].is_ours;
	return false;
}

/* All descendants, marked in the list that is given back. */
static struct process *find_tree(size_t *ret_n, size_t *ret_count)
{
	static struct process p[PROCESSES_MAX]; /* zero pages until used; one thread */
	size_t n = list(p, PROCESSES_MAX), count = 0, before;
	pid_t self = getpid();

	do {
		before = count;
		for (size_t i = 0; i < n; i++) {
			if (p[i].is_ours || !is_below(p, n, p[i].parent, self))
				continue;
			p[i].is_ours = true;
			count++;
		}
	} while (count > before);
	*ret_n = n;
	*ret_count = count;
	return p;
}

size_t tree_signal(int signal_number)
{
	size_t n, count;
	const struct process *p = find_tree(&n, &count);

	for (size_t i = 0; i < n; i++)
		if (p[i].is_ours)
			kill(p[i].pid, signal_number);
	return count;
}

void tree_terminate(bool is_first)
{
	static uint8_t is_told[PID_MAX / 8];    /* zero pages until used; a number that is given anew meets the KILL */
	size_t n, count;
	const struct process *p = find_tree(&n, &count);
	pid_t self = getpid();

	for (size_t i = 0; i < n; i++) {
		pid_t pid = p[i].pid;

		if (!p[i].is_ours || pid >= PID_MAX || is_told[pid / 8] & 1 << pid % 8 || !(is_first || p[i].parent == self))
			continue;
		is_told[pid / 8] |= (uint8_t)(1 << pid % 8);
		kill(pid, SIGTERM);
		kill(pid, SIGCONT);
	}
}
