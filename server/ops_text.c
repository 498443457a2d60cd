/* See ops_text.h. Called by cmd_gpu.c. */
#include "server/ops_text.h"

#include "base/clock.h"

#include <stdio.h>

#define SHOWN 10                        /* rows of the text */
#define LINES_ABOVE 6                   /* of the table: four of sums, an empty one, the heads */
#define LINE_END "\033[K\n"             /* what stood there before goes */

static long long number(const struct json *obj, const char *key)
{
	int64_t v = 0;

	(void)!json_i64(json_get(obj, key), &v);
	return v;
}

static const char *string(const struct json *obj, const char *key)
{
	const char *s = json_str(json_get(obj, key));

	return s ? s : "";
}

/* ---- the text ---- */

enum errc ops_job_text(const struct json *j, struct buf *out, struct err *e)
{
	return buf_addf(out, e, "%s %s %s priority=%lld tenant=%s\n", string(j, "job_id"), string(j, "state"), string(j, "job_type"),
			number(j, "priority"), string(j, "tenant_id"));
}

/* Priority as in the client's later revision. */
enum errc ops_text(const struct json *o, struct buf *out, struct err *e)
{
	const struct json *node = json_get(o, "node"), *queue = json_get(o, "queue"), *quota = json_get(o, "quota"), *usage = json_get(o, "usage");
	const struct json *audit = json_get(o, "audit"), *jobs = json_get(queue, "jobs"), *events = json_get(audit, "events");
	int n = 0;
	enum errc rc = buf_addf(out, e, "%s %s\nqueue active=%lld queued=%lld terminal=%lld\nquota available=%lld/%lld production_enforced=%s\n",
		string(node, "node_id"), json_is_true(json_get(node, "generic_jobs_enabled")) ? "generic-jobs-enabled" : "generic-jobs-disabled",
		number(queue, "active_jobs"), number(queue, "queued_jobs"), number(queue, "terminal_jobs"), number(quota, "available_slots"),
		number(quota, "max_concurrent_jobs"), json_is_true(json_get(quota, "production_enforced")) ? "true" : "false");

	if (!rc)
		rc = buf_addf(out, e, "usage total=%lld succeeded=%lld failed=%lld cancelled=%lld blocked=%lld gpu_seconds=%.15g\n",
			number(usage, "total_jobs"), number(usage, "succeeded_jobs"), number(usage, "failed_jobs"), number(usage, "cancelled_jobs"),
			number(usage, "blocked_jobs"), json_num(json_get(usage, "gpu_seconds"), 0));
	if (!rc && json_count(jobs))
		rc = buf_add_str(out, "jobs:\n", e);
	for (const struct json *j = json_first(jobs); !rc && j && n < SHOWN; j = json_next(j), n++) {
		rc = buf_add_str(out, "  ", e);
		if (!rc)
			rc = ops_job_text(j, out, e);
	}
	if (!rc && json_count(events))
		rc = buf_addf(out, e, "audit offset=%lld limit=%lld total=%lld:\n", number(audit, "offset"), number(audit, "limit"), number(audit, "total"));
	n = 0;
	for (const struct json *a = json_first(events); !rc && a && n < SHOWN; a = json_next(a), n++)
		rc = buf_addf(out, e, "  %s %s %s\n", string(a, "timestamp"), string(a, "action"), string(a, "job_id"));
	return rc;
}

/* ---- cells ---- */

/* A character that moves the cursor, or what follows it: C0, C1, and those that turn the direction of writing. */
static bool is_harmful(struct slice c)
{
	static const char *const turns[] = { "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069" };

	if (c.n == 1)
		return (unsigned char)c.p[0] < 0x20 || c.p[0] == 0x7f;
	if (c.n == 2 && (unsigned char)c.p[0] == 0xc2)
		return (unsigned char)c.p[1] < 0xa0;
	for (size_t i = 0; i < ARRAY_LEN(turns); i++)
		if (slice_eq(c, slice_str(turns[i])))
			return true;
	return false;
}

/* One character a column; a text that is too long ends in "~". Appends width columns, or fewer when is_last. */
static enum errc add_cell(struct buf *out, const char *text, int width, bool is_last, struct err *e)
{
	struct slice rest = slice_str(text);
	enum errc rc = E_OK;
	int n = 0;

	for (; rest.n && n < width && !rc; n++) {
		int step = slice_utf8_step(rest);
		struct slice c = slice_of(rest.p, (size_t)(step < 0 ? -step : step));

		rest = slice_from(rest, c.n);
		if (n == width - 1 && rest.n)
			rc = buf_add_str(out, "~", e);
		else if (step < 0 || is_harmful(c))
			rc = buf_add_str(out, "?", e);
		else
			rc = buf_add_slice(out, c, e);
	}
	return rc || is_last ? rc : buf_addf(out, e, "%*s", width - n, "");
}

static int width_of(const char *text)
{
	struct slice rest = slice_str(text);
	int n = 0;

	for (; rest.n; n++) {
		int step = slice_utf8_step(rest);

		rest = slice_from(rest, (size_t)(step < 0 ? -step : step));
	}
	return n;
}

/* ---- the table ---- */

enum { COL_STATE, COL_PRIORITY, COL_AGE, COL_JOB, COL_TENANT, COL_TYPE, COL__COUNT };

static const struct column {
	const char *head;
	int min, max;
} columns[COL__COUNT] = {
	[COL_STATE] = { "STATE", 5, 10 }, [COL_PRIORITY] = { "PRIO", 4, 6 }, [COL_AGE] = { "SINCE", 5, 5 },
	[COL_JOB] = { "JOB", 3, 44 }, [COL_TENANT] = { "TENANT", 6, 24 }, [COL_TYPE] = { "TYPE", 4, 40 },
};

struct cells {
	char priority[24], age[24];
	const char *text[COL__COUNT];
};

/* How long it is in its state, in the largest unit. */
static void add_age(const struct json *j, int64_t now_wall_ms, char out[24])
{
	static const struct {
		int64_t s;
		char name;
	} units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
	int64_t at = 0, s;
	size_t i = 0;

	out[0] = '\0';
	if (!clock_parse_iso(slice_str(string(j, "updated_at")), &at))
		return;
	s = now_wall_ms > at ? (now_wall_ms - at) / 1000 : 0;
	while (i + 1 < ARRAY_LEN(units) && s < units[i].s)
		i++;
	snprintf(out, 24, "%lld%c", (long long)(s / units[i].s), units[i].name);
}

static void fill(struct cells *c, const struct json *j, int64_t now_wall_ms)
{
	snprintf(c->priority, sizeof(c->priority), "%lld", number(j, "priority"));
	add_age(j, now_wall_ms, c->age);
	c->text[COL_STATE] = string(j, "state");
	c->text[COL_PRIORITY] = c->priority;
	c->text[COL_AGE] = c->age;
	c->text[COL_JOB] = string(j, "job_id");
	c->text[COL_TENANT] = string(j, "tenant_id");
	c->text[COL_TYPE] = string(j, "job_type");
}

/* Cells side by side, as many columns as the terminal has. */
static enum errc add_row(struct buf *out, const char *const text[COL__COUNT], const int width[COL__COUNT], int room, struct err *e)
{
	enum errc rc = E_OK;

	for (int i = 0; i < COL__COUNT && room > 0 && !rc; i++) {
		int w = width[i] < room ? width[i] : room;

		rc = add_cell(out, text[i], w, i == COL__COUNT - 1, e);
		room -= w + 2;
		if (!rc && room > 0 && i < COL__COUNT - 1)
			rc = buf_add_str(out, "  ", e);
	}
	return rc ? rc : buf_add_str(out, LINE_END, e);
}

static enum errc add_jobs(struct buf *out, const struct json *jobs, const struct ops_screen *s, int rows, struct err *e)
{
	const char *heads[COL__COUNT];
	int width[COL__COUNT], n = 0;
	struct cells c;
	enum errc rc;

	for (int i = 0; i < COL__COUNT; i++) {
		heads[i] = columns[i].head;
		width[i] = columns[i].min;
	}
	for (const struct json *j = json_first(jobs); j && n < rows; j = json_next(j), n++) {
		fill(&c, j, s->now_wall_ms);
		for (int i = 0; i < COL__COUNT; i++) {
			int w = width_of(c.text[i]);

			w = w > columns[i].max ? columns[i].max : w;
			width[i] = w > width[i] ? w : width[i];
		}
	}
	rc = add_row(out, heads, width, s->columns, e);
	n = 0;
	for (const struct json *j = json_first(jobs); j && n < rows && !rc; j = json_next(j), n++) {
		fill(&c, j, s->now_wall_ms);
		rc = add_row(out, c.text, width, s->columns, e);
	}
	return rc;
}

/* A line of plain text, cut to the terminal. */
static enum errc add_line(struct buf *out, const struct ops_screen *s, struct buf *line, struct err *e)
{
	enum errc rc = add_cell(out, buf_cstr(line), s->columns, true, e);

	return rc ? rc : buf_add_str(out, LINE_END, e);
}

static enum errc add_sums(struct buf *out, const struct json *o, const struct ops_screen *s, struct err *e)
{
	const struct json *node = json_get(o, "node"), *queue = json_get(o, "queue"), *quota = json_get(o, "quota"), *usage = json_get(o, "usage");
	AUTO_BUF line = BUF_MAX(4096);
	char now[CLOCK_ISO_LEN];
	enum errc rc;

	clock_iso(s->now_wall_ms, now);
	rc = buf_addf(&line, e, "%.200s  %.19sZ  %s", string(node, "node_id"), now,
		      json_is_true(json_get(node, "generic_jobs_enabled")) ? "jobs on" : "jobs off");
	if (!rc)
		rc = add_line(out, s, &line, e);
	buf_clear(&line);
	if (!rc)
		rc = buf_addf(&line, e, "%lld of %lld at work, %lld waiting, %lld ended", number(queue, "active_jobs"), number(quota, "max_concurrent_jobs"),
			      number(queue, "queued_jobs"), number(queue, "terminal_jobs"));
	if (!rc)
		rc = add_line(out, s, &line, e);
	buf_clear(&line);
	if (!rc)
		rc = buf_addf(&line, e, "in all: %lld jobs, %lld succeeded, %lld failed, %lld cancelled, %lld blocked, %lld expired",
			      number(usage, "total_jobs"), number(usage, "succeeded_jobs"), number(usage, "failed_jobs"), number(usage, "cancelled_jobs"),
			      number(usage, "blocked_jobs"), number(usage, "expired_jobs"));
	return rc ? rc : add_line(out, s, &line, e);
}

enum errc ops_table(const struct json *ops, const struct ops_screen *s, struct buf *out, struct err *e)
{
	AUTO_BUF line = BUF_MAX(4096);
	int rows = s->rows - 1 - LINES_ABOVE;      /* the cursor stands in the last one */
	enum errc rc = buf_add_str(out, "\033[H", e);

	if (!rc && ops)
		rc = add_sums(out, ops, s, e);
	if (!rc && s->trouble)
		rc = buf_addf(&line, e, "asking again: %.400s", s->trouble);
	if (!rc && (ops || s->trouble))
		rc = add_line(out, s, &line, e);
	if (!rc && ops)
		rc = buf_add_str(out, LINE_END, e);
	if (!rc && ops)
		rc = add_jobs(out, json_get(json_get(ops, "queue"), "jobs"), s, rows > 0 ? rows : 0, e);
	return rc ? rc : buf_add_str(out, "\033[J", e);
}
