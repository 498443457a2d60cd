/*
 * Server-sent events in. Called by the relay for every read of a runner's stream, on its loop. Every byte is copied once
 * (into held) and scanned once, however the input is cut. Source: WHATWG HTML, "Parsing an event stream".
 *
 * A block is what ends by a blank line, that line included. Looking at a byte and the one before it tells whether a
 * blank line ends there, so a scan can stop and go on anywhere. Only a blank line that ends by \r is not known whole
 * until the next byte is there: it may be \n.
 */
#include "base/sse.h"

#define FEED_MAX (1u << 20) /* room for complete events that were not fetched yet: see the header */

void sse_init(struct sse *s, size_t max_event_bytes)
{
	*s = (struct sse){ 0 };
	buf_init(&s->held, max_event_bytes < SIZE_MAX - FEED_MAX ? max_event_bytes + FEED_MAX : SIZE_MAX);
	buf_init(&s->joined, max_event_bytes);
}

void sse_done(struct sse *s)
{
	buf_done(&s->held);
	buf_done(&s->joined);
	s->scanned = s->consumed = 0;
}

/* A line end at i of the block b: where the block ends when that line is blank, 0 when it is not, b.n + 1 when the next
 * byte must be seen first. */
static size_t blank_line_end(struct slice b, size_t i, bool is_end_of_input)
{
	char before = i ? b.p[i - 1] : '\n';

	if (b.p[i] == '\n')
		return before == '\n' ? i + 1 : 0; /* after \r it is the second half of \r\n */
	if (before != '\n' && before != '\r')
		return 0;
	if (i + 1 == b.n)
		return is_end_of_input ? i + 1 : b.n + 1;
	return b.p[i + 1] == '\n' ? i + 2 : i + 1;
}

/* How many bytes stand in front of the next \n or \r, or n. One look for both: two of memchr would each run far past what
 * the other finds, again for every line. */
static size_t line_run(const char *p, size_t n)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
	size_t i = 0;

	for (; i + 8 <= n; i += 8) {
		uint64_t w;

		memcpy(&w, p + i, sizeof(w));
		uint64_t newline = w ^ (ones * '\n'), cr = w ^ (ones * '\r');

		if ((((newline - ones) & ~newline) | ((cr - ones) & ~cr)) & tops)
			break;
	}
	while (i < n && p[i] != '\n' && p[i] != '\r')
		i++;
	return i;
}

/* Length of the block at the start of b, or 0; *scanned bytes need no second look. */
static size_t find_block(struct slice b, size_t *scanned, bool is_end_of_input)
{
	size_t i = *scanned;

	for (;; i++) {
		i += line_run(b.p + i, b.n - i);
		if (i == b.n)
			break;
		size_t end = blank_line_end(b, i, is_end_of_input);

		if (end > b.n)
			break;
		if (end)
			return end;
	}
	*scanned = i;
	return 0;
}

static void drop_consumed(struct sse *s)
{
	buf_consume(&s->held, s->consumed);
	s->consumed = 0;
}

/* Only called when all that is held passes the limit of one event, which is rare. */
static enum errc check_events(const struct sse *s, struct err *e)
{
	struct slice rest = buf_slice(&s->held);
	size_t max = s->joined.max, scanned = s->scanned;

	while (rest.n > max) {
		size_t n = find_block(rest, &scanned, false);

		if (n == 0 || n > max)
			return err_set(e, E_TOO_LARGE, "an event of more than %zu bytes", max);
		rest = slice_from(rest, n);
		scanned = 0;
	}
	return E_OK;
}

enum errc sse_feed(struct sse *s, struct slice bytes, struct err *e)
{
	if (s->is_out_of_memory)
		return err_set(e, E_NO_MEMORY, "no memory for the data of an event");
	drop_consumed(s);
	enum errc rc = buf_add_slice(&s->held, bytes, e);

	if (rc)
		return rc;
	return s->held.n > s->joined.max ? check_events(s, e) : E_OK;
}

/* Take one line with its end off the front; without an end it is the rest. */
static struct slice take_line(struct slice *rest)
{
	struct slice line = slice_cut(*rest, line_run(rest->p, rest->n));

	*rest = slice_from(*rest, line.n);
	*rest = slice_from(*rest, slice_starts_with(*rest, SLICE("\r\n")) ? 2 : 1);
	return line;
}

/* Add a data line to those that were there: from the second on they are joined. */
static bool add_data(struct sse *s, struct sse_event *ev, struct slice value)
{
	if (!ev->has_data) {
		ev->has_data = true;
		ev->data = value;
		return true;
	}
	if (s->joined.n == 0 && buf_add_slice(&s->joined, ev->data, NULL))
		return false;
	if (buf_add(&s->joined, "\n", 1, NULL) || buf_add_slice(&s->joined, value, NULL))
		return false;
	ev->data = buf_slice(&s->joined);
	return true;
}

static bool read_line(struct sse *s, struct sse_event *ev, struct slice line, bool *has_field)
{
	ptrdiff_t colon = slice_find_char(line, ':');

	if (colon == 0 || line.n == 0)
		return true; /* a comment, or the blank line */
	*has_field = true;
	struct slice name = colon < 0 ? line : slice_cut(line, (size_t)colon);
	struct slice value = colon < 0 ? slice_from(line, line.n) : slice_from(line, (size_t)colon + 1);

	if (value.n && value.p[0] == ' ')
		value = slice_from(value, 1);
	if (slice_eq(name, SLICE("data")))
		return add_data(s, ev, value);
	if (slice_eq(name, SLICE("event")))
		ev->event = value;
	else if (slice_eq(name, SLICE("error")))
		ev->error = value;
	return true;
}

/* Exactly one line "data: ...", ended by \n, and the blank line: by far the most usual block. */
static bool is_plain_block(struct slice raw)
{
	return slice_starts_with(raw, SLICE("data: ")) && raw.n >= 8 && slice_find_char(raw, '\n') == (ptrdiff_t)raw.n - 2 &&
		raw.p[raw.n - 1] == '\n' && slice_find_char(raw, '\r') < 0;
}

/* False when the block holds nothing to hand out (comments alone, a blank line), or there was no memory. */
static bool read_block(struct sse *s, struct slice raw, struct sse_event *ret)
{
	struct sse_event ev = { .raw = raw, .data = SLICE(""), .event = SLICE(""), .error = SLICE("") };
	bool has_field = false;

	if (is_plain_block(raw)) {
		ev.data = slice_of(raw.p + 6, raw.n - 8);
		ev.has_data = ev.is_plain = true;
		*ret = ev;
		return true;
	}
	buf_clear(&s->joined);
	for (struct slice rest = raw; rest.n;)
		if (!read_line(s, &ev, take_line(&rest), &has_field)) {
			s->is_out_of_memory = true;
			return false;
		}
	if (has_field)
		*ret = ev;
	return has_field;
}

static bool next_event(struct sse *s, struct sse_event *ret, bool is_end_of_input)
{
	while (!s->is_out_of_memory) {
		drop_consumed(s);
		struct slice held = buf_slice(&s->held);
		size_t n = find_block(held, &s->scanned, is_end_of_input);

		if (n == 0)
			return false;
		s->consumed = n;
		s->scanned = 0;
		if (read_block(s, slice_cut(held, n), ret))
			return true;
	}
	return false;
}

bool sse_next(struct sse *s, struct sse_event *ret)
{
	return next_event(s, ret, false);
}

bool sse_finish(struct sse *s, struct sse_event *ret)
{
	if (next_event(s, ret, true))
		return true;
	drop_consumed(s);
	struct slice held = buf_slice(&s->held);

	/* a line that was cut off is nobody's */
	while (held.n && held.p[held.n - 1] != '\n' && held.p[held.n - 1] != '\r')
		held.n--;
	s->consumed = s->held.n;
	s->scanned = 0;
	return !s->is_out_of_memory && read_block(s, held, ret);
}
