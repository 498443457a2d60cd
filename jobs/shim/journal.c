/*
 * The journal: appended frames. A frame that was not wholly written is cut off again, so that a full disk leaves whole
 * frames; one that a power cut left torn is found by its CRC and cut at the next open.
 */
#include "jobs/shim/crc32.h"
#include "jobs/shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool journal_open(struct shim *s)
{
	s->journal.fd = openat(s->dir, "journal", O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
	if (s->journal.fd < 0)
		fail_file(s, "journal");
	return s->journal.fd >= 0;
}

bool journal_add(struct journal *j, enum frame_kind kind, const char *p, size_t n)
{
	uint32_t crc, length = (uint32_t)n;
	int64_t now_ms = wall_ms();
	char head[FRAME_HEAD] = { 0 };
	struct iovec io[2] = { { head, FRAME_HEAD }, { (void *)(uintptr_t)p, n } };
	ssize_t done;
	int error;

	memcpy(head + 4, &length, 4);
	memcpy(head + 8, &now_ms, 8);
	head[16] = (char)kind;
	crc = crc32_add(crc32_add(0, head + 4, FRAME_HEAD - 4), p, n);
	memcpy(head, &crc, 4);
	done = writev(j->fd, io, 2);
	if (done == (ssize_t)(FRAME_HEAD + n)) {
		j->size += FRAME_HEAD + n;
		j->is_dirty = true;
		return true;
	}
	error = done < 0 ? errno : ENOSPC;
	if (done > 0 && ftruncate(j->fd, (off_t)j->size))
		error = errno;
	errno = error;
	return false;
}

void journal_sync(struct journal *j)
{
	if (j->is_dirty && fdatasync(j->fd) == 0)
		j->is_dirty = false;
}

void note(struct shim *s, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n > 0)
		(void)journal_add(&s->journal, FRAME_NOTE, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}
