/*
 * The log: a ring of bytes that any thread fills and the log thread empties to standard error. Redaction is in
 * redact.c. Called by the edges (dispatch, workers, link, main); any thread.
 */
#include "base/log.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/redact.h"
#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define RING_BYTES	(256u << 10)
#define PIECE_BYTES	4096u     /* a pipe that polls writable takes this much without blocking */
#define POLL_MS		100
#define GATHER_MS	10        /* lines that come within this time are written together: a wake-up a line costs more than the line */
#define AWAKE_ROUNDS	50        /* of GATHER_MS: so long the thread looks for lines by itself, and nobody has to wake it */
#define STOP_WAIT_MS	1000      /* a reader that takes nothing for this long is given up at the end */
#define LINE_MAX_BYTES	(LOG_MSG_MAX + 512) /* with time, level, event, request id */

static const char *const level_names[] = { [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn",
	[LOG_ERROR] = "error", [LOG_OFF] = "off" };

/* Process-wide: the log is one, and everybody writes to it. */
static struct {
	struct mutex mu;
	pthread_cond_t has_work;
	char *ring;                 /* GUARDED_BY(mu); RING_BYTES while the thread runs, else NULL */
	size_t head, n;             /* GUARDED_BY(mu): first byte, bytes held */
	uint64_t dropped;           /* GUARDED_BY(mu): lines that did not fit since the last report */
	bool is_stopping;           /* GUARDED_BY(mu) */
	bool is_awake;              /* GUARDED_BY(mu): the thread looks again within GATHER_MS */
	struct thread thread;       /* of the thread that starts and stops the log */
	atomic_int level;
} log_g = { .mu = { .m = PTHREAD_MUTEX_INITIALIZER }, .has_work = PTHREAD_COND_INITIALIZER, .level = LOG_INFO };

static _Thread_local const char *log_request_id; /* borrowed by log_context */

void log_set_level(enum log_level lvl)
{
	atomic_store_explicit(&log_g.level, (int)lvl, memory_order_relaxed);
}

bool log_is_on(enum log_level lvl)
{
	return lvl != LOG_OFF && (int)lvl >= atomic_load_explicit(&log_g.level, memory_order_relaxed);
}

bool log_level_parse(struct slice s, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
		if (slice_eq(s, slice_str(level_names[i]))) {
			*ret = (enum log_level)i;
			return true;
		}
	}
	return false;
}

void log_context(const char *request_id)
{
	log_request_id = request_id;
}

/* ---- the way out ---- */

static bool is_stopping_now(void)
{
	MUTEX_SCOPE(&log_g.mu);
	return log_g.is_stopping || !log_g.ring;
}

/* Write to standard error; false when it is broken, or when nobody has read it for a while and the log is to end (or
 * has no thread: then it is the caller who would wait). */
static bool write_out(const char *p, size_t n)
{
	int waited_ms = 0;

	while (n) {
		struct pollfd fd = { .fd = STDERR_FILENO, .events = POLLOUT };
		int ready = poll(&fd, 1, POLL_MS);

		if (ready == 0)
			waited_ms = is_stopping_now() ? waited_ms + POLL_MS : 0;
		if (waited_ms >= STOP_WAIT_MS || (ready < 0 && errno != EINTR))
			return false;
		if (ready <= 0)
			continue;
		ssize_t done = write(STDERR_FILENO, p, n < PIECE_BYTES ? n : PIECE_BYTES);

		if (done < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		if (done > 0) {
			p += done;
			n -= (size_t)done;
			waited_ms = 0;
		}
	}
	return true;
}

static void ring_add(const char *p, size_t n)
{
	size_t at = (log_g.head + log_g.n) % RING_BYTES, first = RING_BYTES - at < n ? RING_BYTES - at : n;

	memcpy(log_g.ring + at, p, first);
	memcpy(log_g.ring, p + first, n - first);
	log_g.n += n;
}

/* Hand a line to the log thread. False when there is none: the caller writes it. */
static bool enqueue(const char *line, size_t n)
{
	MUTEX_SCOPE(&log_g.mu);
	if (!log_g.ring)
		return false;
	if (log_g.n + n > RING_BYTES) {
		log_g.dropped++;
		return true;
	}
	ring_add(line, n);
	if ((log_g.n == n && !log_g.is_awake) || (log_g.n >= PIECE_BYTES && log_g.n - n < PIECE_BYTES))
		pthread_cond_signal(&log_g.has_work);
	return true;
}

/* Wait for bytes, and long enough for those that come together. Under log_g.mu. */
static void gather(unsigned *quiet_rounds)
{
	bool has_gathered = false;

	while (!log_g.n && !log_g.is_stopping && !log_g.dropped) {
		log_g.is_awake = has_gathered = *quiet_rounds < AWAKE_ROUNDS;
		if (has_gathered) {
			++*quiet_rounds;
			mutex_wait_ms(&log_g.mu, &log_g.has_work, GATHER_MS);
		} else {
			mutex_wait(&log_g.mu, &log_g.has_work);
		}
	}
	log_g.is_awake = true;
	*quiet_rounds = 0;
	if (!has_gathered && log_g.n < PIECE_BYTES && !log_g.is_stopping)
		mutex_wait_ms(&log_g.mu, &log_g.has_work, GATHER_MS);
}

/* Wait for bytes; copy up to a piece out. 0: stopped and empty. *ret_dropped is set when lines were lost. */
static size_t take_piece(char *out, unsigned *quiet_rounds, uint64_t *ret_dropped, bool *ret_is_stopping)
{
	MUTEX_SCOPE(&log_g.mu);
	gather(quiet_rounds);
	size_t n = log_g.n < PIECE_BYTES ? log_g.n : PIECE_BYTES;
	size_t first = RING_BYTES - log_g.head < n ? RING_BYTES - log_g.head : n;

	memcpy(out, log_g.ring + log_g.head, first);
	memcpy(out + first, log_g.ring, n - first);
	log_g.head = (log_g.head + n) % RING_BYTES;
	log_g.n -= n;
	*ret_is_stopping = log_g.is_stopping;
	/* Told when the ring is empty, so that the line stands between whole lines. */
	*ret_dropped = log_g.n ? 0 : log_g.dropped;
	if (!log_g.n)
		log_g.dropped = 0;
	return n;
}

static void log_main(void *arg) /* THREAD(log) */
{
	char piece[PIECE_BYTES], line[128], time[CLOCK_ISO_LEN];
	bool is_stopping = false, is_read = true;
	unsigned quiet_rounds = 0;

	(void)arg;
	for (;;) {
		uint64_t dropped;
		size_t n = take_piece(piece, &quiet_rounds, &dropped, &is_stopping);

		if (is_read || !is_stopping)
			is_read = write_out(piece, n);
		if (dropped && is_read) {
			clock_iso(clock_wall_ms(), time);
			int len = snprintf(line, sizeof(line), "%s warn log.dropped lines=%llu\n", time, (unsigned long long)dropped);

			is_read = write_out(line, (size_t)len);
		}
		if (!n && !dropped && is_stopping)
			return;
	}
}

static void set_ring(char *ring, bool is_stopping)
{
	MUTEX_SCOPE(&log_g.mu);
	log_g.ring = ring;
	log_g.head = log_g.n = 0;
	log_g.is_awake = false;
	log_g.is_stopping = is_stopping;
}

enum errc log_start(struct err *e)
{
	char *ring;
	enum errc rc;

	if (log_g.thread.is_started)
		return E_OK;
	ring = mem_alloc(RING_BYTES);
	if (!ring)
		return err_set(e, E_NO_MEMORY, "log: no memory for %u bytes", RING_BYTES);
	set_ring(ring, false);
	rc = thread_start(&log_g.thread, THREAD_LOG, 0, log_main, NULL, e);
	if (rc) {
		set_ring(NULL, false);
		mem_free(ring);
	}
	return rc;
}

static void ask_to_stop(void)
{
	MUTEX_SCOPE(&log_g.mu);
	log_g.is_stopping = true;
	pthread_cond_signal(&log_g.has_work);
}

void log_stop(void)
{
	char *ring;

	if (!log_g.thread.is_started)
		return;
	ask_to_stop();
	thread_join(&log_g.thread);
	ring = log_g.ring;
	set_ring(NULL, false);
	mem_free(ring);
}

/* ---- lines ---- */

/* Append at *n, cut at cap. True when it was cut. */
static bool PRINTF_LIKE(4, 0) add_va(char *line, size_t cap, size_t *n, const char *fmt, va_list ap)
{
	int len = vsnprintf(line + *n, cap - *n, fmt, ap);

	if (len < 0)
		return false;
	if ((size_t)len < cap - *n) {
		*n += (size_t)len;
		return false;
	}
	*n = cap - 1;
	return true;
}

static bool PRINTF_LIKE(4, 5) add(char *line, size_t cap, size_t *n, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	bool is_cut = add_va(line, cap, n, fmt, ap);

	va_end(ap);
	return is_cut;
}

void log_event(enum log_level lvl, const char *event, const char *fmt, ...)
{
	char msg[LOG_MSG_MAX], safe[LOG_MSG_MAX], line[LINE_MAX_BYTES], time[CLOCK_ISO_LEN];
	size_t n = 0, len = 0;
	va_list ap;

	if (!log_is_on(lvl))
		return;
	va_start(ap, fmt);
	bool is_cut = add_va(msg, sizeof(msg), &n, fmt, ap);

	va_end(ap);
	len = redact_into(slice_of(msg, n), is_cut, safe, sizeof(safe));
	/* one event, one line, whatever the values hold */
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)safe[i] < 0x20 || safe[i] == 0x7f)
			safe[i] = ' ';
	}
	clock_iso(clock_wall_ms(), time);
	n = 0;
	add(line, sizeof(line), &n, "%s %s %.96s", time, level_names[lvl], event);
	if (len)
		add(line, sizeof(line), &n, " %.*s", (int)len, safe);
	if (log_request_id)
		add(line, sizeof(line), &n, " req=%.128s", log_request_id);
	line[n++] = '\n'; /* in place of the NUL: LINE_MAX_BYTES has room for all parts */
	if (!enqueue(line, n))
		(void)write_out(line, n);
}

const char *log_err(const struct err *e, char *out, size_t cap)
{
	char quoted[sizeof(e->what) * 2 + 3];

	snprintf(out, cap, "code=%s what=%s", err_symbol(e->code), log_quote(slice_str(e->what), quoted, sizeof(quoted)));
	return out;
}

const char *log_quote(struct slice s, char *out, size_t cap)
{
	static const char stand_in[] = "[redacted]";
	size_t n = 0, i = 0;

	must(cap >= 3);
	out[n++] = '"';
	while (i < s.n) {
		/* Here and not only in the line: a quoted secret may be spelled otherwise, or be cut in two. */
		size_t secret = redact_secret_at(slice_from(s, i));
		unsigned char c = (unsigned char)s.p[i];
		const char *escape = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t" : NULL;
		size_t len = secret ? sizeof(stand_in) - 1 : escape ? 2 : 1;

		if (n + len + 2 > cap)
			break;
		if (secret)
			memcpy(out + n, stand_in, len);
		else if (escape)
			memcpy(out + n, escape, len);
		else
			out[n] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
		n += len;
		i += secret ? secret : 1;
	}
	/* cut between characters, not inside one */
	if (i < s.n) {
		while (n > 1 && ((unsigned char)s.p[i] & 0xc0) == 0x80 && i > 0) {
			n--;
			i--;
		}
	}
	out[n++] = '"';
	out[n] = '\0';
	return out;
}
