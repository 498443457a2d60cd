/* See journal.h. Called by run.c and, on their loops, by followers. */
#include "jobs/journal.h"

#include "jobs/frame.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define EVENTS_ENOUGH 1000              /* of one record: the writer has others to serve */
#define POS_PER_BYTE 8                  /* a runner may make some events of one line */

static void add_line(struct journal *j, enum event_type stream, struct slice text, int64_t pos, int64_t wall_ms, struct events *out)
{
	int64_t *count = stream == EVENT_STDOUT ? &j->out_lines : &j->err_lines;
	const struct output_line l = { .stream = stream, .index = (*count)++, .pos = pos * POS_PER_BYTE, .wall_ms = wall_ms, .text = text };
	struct err e = { 0 };
	char quoted[200];

	if (j->runner->line(j->request, &l, out, &e) && j->name)
		log_event(LOG_ERROR, "job.line_dropped", "job=%s pos=%lld what=%s", j->name, (long long)pos,
			  log_quote(slice_str(e.what), quoted, sizeof(quoted)));
}

/* Output, cut into lines; what has no end yet is kept. at: the place in the journal of the first byte. */
static void take_output(struct journal *j, const struct frame *f, int64_t at, struct events *out)
{
	enum event_type stream = f->kind == FRAME_OUT ? EVENT_STDOUT : EVENT_STDERR;
	struct buf *held = f->kind == FRAME_OUT ? &j->out_line : &j->err_line;
	size_t from = 0;
	struct err ignored;

	for (size_t i = 0; i < f->bytes.n; i++) {
		bool is_end = f->bytes.p[i] == '\n', is_long = held->n + (i + 1 - from) >= LINE_MAX_BYTES;

		if (!is_end && !is_long)
			continue;
		if (buf_add(held, f->bytes.p + from, i - from + !is_end, &ignored))
			buf_clear(held);       /* cannot be: the ceiling is that of a line */
		add_line(j, stream, buf_slice(held), at + (int64_t)i + 1, f->wall_ms, out);
		buf_clear(held);
		from = i + 1;
	}
	if (from < f->bytes.n && buf_add(held, f->bytes.p + from, f->bytes.n - from, &ignored))
		buf_clear(held);
}

/* What the shim itself has to say. */
static void take_note(struct journal *j, const struct frame *f, int64_t at, struct events *out)
{
	struct slice rest = f->bytes, word, stream, max;
	char data[120];

	if (!slice_next(&rest, ' ', &word) || !slice_eq(word, SLICE("log_truncated")) || !rest.p || !slice_next(&rest, ' ', &stream) ||
	    !rest.p || !slice_next(&rest, ' ', &max)) {
		if (j->name)
			log_event(LOG_INFO, "job.noted", "job=%s note=%.*s", j->name, (int)(f->bytes.n < 100 ? f->bytes.n : 100), f->bytes.p);
		return;
	}
	snprintf(data, sizeof(data), "{\"stream\":\"%.*s\",\"max_bytes\":%.*s}", (int)stream.n, stream.p, (int)max.n, max.p);
	(void)!events_add(out, EVENT_LOG_TRUNCATED, (at + (int64_t)f->bytes.n) * POS_PER_BYTE, f->wall_ms,
			  SLICE("output limit reached; the rest is not kept"), slice_str(data), NULL);
}

static bool open_in(struct journal *j, const char *dir)
{
	char path[600];

	if (j->fd >= 0)
		return true;
	snprintf(path, sizeof(path), "%s/journal", dir);
	j->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return j->fd >= 0;
}

void journal_init(struct journal *j, const struct json *request, const struct runner_ops *runner, const char *name)
{
	*j = (struct journal){ .request = request, .runner = runner, .name = name, .fd = -1, .out_line = BUF_MAX(LINE_MAX_BYTES),
			       .err_line = BUF_MAX(LINE_MAX_BYTES) };
}

void journal_close(struct journal *j)
{
	if (j->fd >= 0)
		close(j->fd);
	j->fd = -1;
}

void journal_done(struct journal *j)
{
	journal_close(j);
	buf_done(&j->out_line);
	buf_done(&j->err_line);
}

bool journal_read(struct journal *j, const char *dir, size_t size, struct events *out)
{
	AUTO_FREE char *block = mem_alloc(size);
	struct slice rest;
	struct frame f;
	int64_t before = j->read_at;
	enum frame_got got = FRAME_SHORT;
	ssize_t n;

	if (!block || !j->runner || !open_in(j, dir))
		return false;
	n = pread(j->fd, block, size, (off_t)j->read_at);
	rest = slice_of(block, n > 0 ? (size_t)n : 0);
	while (out->n < EVENTS_ENOUGH && (got = frame_next(&rest, &f)) == FRAME_GOT) {
		int64_t at = j->read_at + FRAME_HEAD;

		if (f.kind == FRAME_NOTE)
			take_note(j, &f, at, out);
		else
			take_output(j, &f, at, out);
		j->read_at += FRAME_HEAD + (int64_t)f.bytes.n;
	}
	if (got == FRAME_BROKEN && j->name)
		log_event(LOG_ERROR, "job.journal_broken", "job=%s at=%lld", j->name, (long long)j->read_at);
	return j->read_at != before;
}

void journal_last(struct journal *j, struct events *out)
{
	struct buf *const held[] = { &j->out_line, &j->err_line };
	const enum event_type streams[] = { EVENT_STDOUT, EVENT_STDERR };

	for (size_t i = 0; i < ARRAY_LEN(held); i++) {
		if (!held[i]->n || !j->runner)
			continue;
		j->read_at++;                  /* two lines without an end must not share a place */
		add_line(j, streams[i], buf_slice(held[i]), j->read_at, clock_wall_ms(), out);
		buf_clear(held[i]);
	}
}
