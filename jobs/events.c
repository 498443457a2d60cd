/* See events.h. */
#include "jobs/events.h"

#include "base/mem.h"

/* Well-formed UTF-8 as it is, anything else as U+FFFD: what is stored can be sent. A NUL byte goes the same way. */
static enum errc add_text(struct buf *b, struct slice s, struct err *e)
{
	enum errc rc = E_OK;

	if (slice_is_utf8(s) && !memchr(s.p, '\0', s.n))
		return buf_add_slice(b, s, e);
	while (!rc && s.n) {
		int step = slice_utf8_step(s);
		size_t n = (size_t)(step > 0 ? step : -step);

		rc = step > 0 && s.p[0] ? buf_add(b, s.p, n, e) : buf_add(b, "\xef\xbf\xbd", 3, e);
		s = slice_from(s, n);
	}
	return rc;
}

enum errc events_add(struct events *l, enum event_type type, int64_t pos, int64_t wall_ms, struct slice message, struct slice data,
		     struct err *e)
{
	struct event_item item = { .type = type, .pos = pos, .wall_ms = wall_ms, .message_at = l->text.n, .has_message = message.p != NULL };
	enum errc rc = E_OK;

	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 16;
		struct event_item *v = mem_realloc(l->v, cap * sizeof(*v));

		if (!v)
			return err_set(e, E_NO_MEMORY, "events: no memory for %zu", cap);
		l->v = v;
		l->cap = cap;
	}
	if (message.p && message.n)
		rc = add_text(&l->text, message, e);
	item.message_n = l->text.n - item.message_at;
	item.data_at = l->text.n;
	if (!rc)
		rc = buf_add_slice(&l->text, data, e);
	item.data_n = l->text.n - item.data_at;
	if (rc) {
		buf_truncate(&l->text, item.message_at);
		return rc;
	}
	l->v[l->n++] = item;
	return E_OK;
}

struct event_row events_row(const struct events *l, size_t i)
{
	const struct event_item *v = &l->v[i];
	const char *text = l->text.p ? l->text.p : "";

	return (struct event_row){ .pos = v->pos, .wall_ms = v->wall_ms, .type = v->type,
		.message = v->has_message ? slice_of(text + v->message_at, v->message_n) : slice_of(NULL, 0),
		.data = slice_of(text + v->data_at, v->data_n) };
}

void events_clear(struct events *l)
{
	l->n = 0;
	buf_clear(&l->text);
}

void events_done(struct events *l)
{
	mem_free(l->v);
	buf_done(&l->text);
	l->v = NULL;
	l->n = l->cap = 0;
}
