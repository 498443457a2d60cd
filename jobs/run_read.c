/*
 * A journal into events: frames into lines, lines into what the runner makes of them. The same bytes give the same events
 * at the same places, so what was read before a crash is read again without doubt. On the supervisor's loop, from
 * memory that the shim has just written; a block at a time.
 */
#include "jobs/frame.h"
#include "jobs/run.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define BLOCK (256u << 10)
#define EVENTS_ENOUGH 1000              /* of one record: the writer has others to serve */
#define POS_PER_BYTE 8                  /* a runner may make some events of one line */

static void add_line(struct run *r, enum event_type stream, struct slice text, int64_t pos, int64_t wall_ms)
{
	int64_t *count = stream == EVENT_STDOUT ? &r->out_lines : &r->err_lines;
	const struct output_line l = { .stream = stream, .index = (*count)++, .pos = pos * POS_PER_BYTE, .wall_ms = wall_ms, .text = text };
	struct err e = { 0 };
	char quoted[200];

	if (r->runner->line(r->request, &l, &r->record.events, &e))
		log_event(LOG_ERROR, "job.line_dropped", "job=%s pos=%lld what=%s", r->job_id, (long long)pos,
			  log_quote(slice_str(e.what), quoted, sizeof(quoted)));
}

/* Output, cut into lines; what has no end yet is kept. at: the place in the journal of the first byte. */
static void take_output(struct run *r, const struct frame *f, int64_t at)
{
	enum event_type stream = f->kind == FRAME_OUT ? EVENT_STDOUT : EVENT_STDERR;
	struct buf *held = f->kind == FRAME_OUT ? &r->out_line : &r->err_line;
	size_t from = 0;
	struct err ignored;

	for (size_t i = 0; i < f->bytes.n; i++) {
		bool is_end = f->bytes.p[i] == '\n', is_long = held->n + (i + 1 - from) >= LINE_MAX_BYTES;

		if (!is_end && !is_long)
			continue;
		if (buf_add(held, f->bytes.p + from, i - from + !is_end, &ignored))
			buf_clear(held);       /* cannot be: the ceiling is that of a line */
		add_line(r, stream, buf_slice(held), at + (int64_t)i + 1, f->wall_ms);
		buf_clear(held);
		from = i + 1;
	}
	if (from < f->bytes.n && buf_add(held, f->bytes.p + from, f->bytes.n - from, &ignored))
		buf_clear(held);
}

/* What the shim itself has to say. */
static void take_note(struct run *r, const struct frame *f, int64_t at)
{
	struct slice rest = f->bytes, word, stream, max;
	char data[120];

	if (!slice_next(&rest, ' ', &word) || !slice_eq(word, SLICE("log_truncated")) || !rest.p || !slice_next(&rest, ' ', &stream) ||
	    !rest.p || !slice_next(&rest, ' ', &max)) {
		log_event(LOG_INFO, "job.noted", "job=%s note=%.*s", r->job_id, (int)(f->bytes.n < 100 ? f->bytes.n : 100), f->bytes.p);
		return;
	}
	snprintf(data, sizeof(data), "{\"stream\":\"%.*s\",\"max_bytes\":%.*s}", (int)stream.n, stream.p, (int)max.n, max.p);
	(void)!events_add(&r->record.events, EVENT_LOG_TRUNCATED, (at + (int64_t)f->bytes.n) * POS_PER_BYTE, f->wall_ms,
			  SLICE("output limit reached; the rest is not kept"), slice_str(data), NULL);
}

/* How far it is read goes into the same record as what was read. */
void run_note_place(struct run *r)
{
	struct job_record *rec = &r->record;
	struct err ignored;

	rec->at = (struct attempt_row){ .job_key = r->key, .attempt = r->attempt, .journal_bytes = r->read_at,
					.out_lines = r->out_lines, .err_lines = r->err_lines };
	buf_clear(&rec->out_carry);
	buf_clear(&rec->err_carry);
	(void)!buf_add_slice(&rec->out_carry, buf_slice(&r->out_line), &ignored);
	(void)!buf_add_slice(&rec->err_carry, buf_slice(&r->err_line), &ignored);
}

static bool open_journal(struct run *r)
{
	char path[600];

	if (r->journal_fd >= 0)
		return true;
	snprintf(path, sizeof(path), "%s/journal", r->dir);
	r->journal_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return r->journal_fd >= 0;
}

bool run_read(struct run *r)
{
	AUTO_FREE char *block = mem_alloc(BLOCK);
	struct slice rest;
	struct frame f;
	int64_t before = r->read_at;
	enum frame_got got = FRAME_SHORT;
	ssize_t n;

	if (!block || !r->runner || !open_journal(r))
		return false;
	n = pread(r->journal_fd, block, BLOCK, (off_t)r->read_at);
	rest = slice_of(block, n > 0 ? (size_t)n : 0);
	while (r->record.events.n < EVENTS_ENOUGH && (got = frame_next(&rest, &f)) == FRAME_GOT) {
		int64_t at = r->read_at + FRAME_HEAD;

		if (f.kind == FRAME_NOTE)
			take_note(r, &f, at);
		else
			take_output(r, &f, at);
		r->read_at += FRAME_HEAD + (int64_t)f.bytes.n;
	}
	if (got == FRAME_BROKEN)
		log_event(LOG_ERROR, "job.journal_broken", "job=%s attempt=%lld at=%lld", r->job_id, (long long)r->attempt, (long long)r->read_at);
	if (r->read_at == before)
		return false;
	run_note_place(r);
	return true;
}

void run_read_last(struct run *r)
{
	struct buf *const held[] = { &r->out_line, &r->err_line };
	const enum event_type streams[] = { EVENT_STDOUT, EVENT_STDERR };

	for (size_t i = 0; i < ARRAY_LEN(held); i++) {
		if (!held[i]->n || !r->runner)
			continue;
		r->read_at++;                  /* two lines without an end must not share a place */
		add_line(r, streams[i], buf_slice(held[i]), r->read_at, clock_wall_ms());
		buf_clear(held[i]);
	}
	if (r->runner)
		run_note_place(r);
}
