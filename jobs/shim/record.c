/*
 * The exit record: one line of JSON, in a file whose room was taken at the start, so that a disk that is full by then
 * cannot hide how the job ended. The file is empty until then; a record whose line has no end is none. Written after the
 * journal is on disk.
 */
#include "jobs/shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RECORD_ROOM 4096

bool record_prepare(struct shim *s)
{
	s->record = openat(s->dir, "exit", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->record >= 0 && (fallocate(s->record, FALLOC_FL_KEEP_SIZE, 0, RECORD_ROOM) == 0 || errno == EOPNOTSUPP))
		return true;
	fail_file(s, "exit record");
	return false;
}

/* Only our own words and a path or two come in here: what JSON must escape, and nothing else. */
static void quote(char *out, size_t cap, const char *text)
{
	size_t n = 0;

	for (; *text && n + 8 < cap; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			out[n++] = '\\';
		if (c < 0x20)
			n += (size_t)snprintf(out + n, 7, "\\u%04x", c);
		else
			out[n++] = (char)c;
	}
	out[n] = '\0';
}

static int64_t micros(struct timeval t)
{
	return (int64_t)t.tv_sec * 1000000 + t.tv_usec;
}

bool record_write(struct shim *s)
{
	static const char *const reasons[] = { [REASON_EXITED] = "exited", [REASON_STOPPED] = "stopped",
		[REASON_TIMEOUT] = "timeout", [REASON_NOT_STARTED] = "not_started" };
	bool has_code = s->has_child_ended && WIFEXITED(s->wait_status), has_signal = s->has_child_ended && WIFSIGNALED(s->wait_status);
	char text[RECORD_ROOM], error[600];
	int n;

	quote(error, sizeof(error), s->error);
	n = snprintf(text, sizeof(text), "{\"reason\":\"%s\",\"code\":%d,\"signal\":%d,\"started_ms\":%lld,\"ended_ms\":%lld,"
		     "\"cpu_us\":%lld,\"max_rss_bytes\":%lld,\"peak_memory_bytes\":%lld,\"is_oom\":%s,\"cgroup\":\"%s\","
		     "\"out_bytes\":%llu,\"err_bytes\":%llu,\"lost_bytes\":%llu,\"journal_bytes\":%llu,\"error\":\"%s\"}\n",
		     reasons[s->reason], has_code ? WEXITSTATUS(s->wait_status) : -1, has_signal ? WTERMSIG(s->wait_status) : 0,
		     (long long)s->started_ms, (long long)s->ended_ms,
		     (long long)(micros(s->usage.ru_utime) + micros(s->usage.ru_stime)), (long long)s->usage.ru_maxrss * 1024,
		     (long long)cgroup_peak(&s->cgroup), cgroup_had_oom(&s->cgroup) ? "true" : "false", cgroup_name(&s->cgroup),
		     (unsigned long long)s->out.seen, (unsigned long long)s->err.seen, (unsigned long long)s->lost,
		     (unsigned long long)s->journal.size, error);
	return n > 0 && pwrite(s->record, text, (size_t)n, 0) == n && fdatasync(s->record) == 0;
}
