/*
 * What must not be seen in a log line or in a text for a client. See redact.h and log.h; any thread.
 */
#include "base/redact.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"

#include <ctype.h>
#include <stdatomic.h>

#define SECRETS_MAX	64
#define SECRET_MIN	4
#define STAND_IN	SLICE("[redacted]")

/* Process-wide, as the log is. Slots below count never change until the end. */
static struct {
	struct mutex mu;                    /* between those who add */
	atomic_size_t count;
	struct slice slots[SECRETS_MAX];    /* heap bytes, owned */
} redact_g = { .mu = { .m = PTHREAD_MUTEX_INITIALIZER } };

void log_secret_add(struct slice secret)
{
	char *copy;

	if (secret.n < SECRET_MIN)
		return;
	MUTEX_SCOPE(&redact_g.mu);
	size_t n = atomic_load(&redact_g.count);

	for (size_t i = 0; i < n; i++) {
		if (slice_eq(redact_g.slots[i], secret))
			return;
	}
	if (n == SECRETS_MAX || !(copy = slice_dup(secret)))
		return;
	redact_g.slots[n] = slice_of(copy, secret.n);
	atomic_store_explicit(&redact_g.count, n + 1, memory_order_release);
}

void log_secrets_clear(void)
{
	MUTEX_SCOPE(&redact_g.mu);
	size_t n = atomic_exchange(&redact_g.count, 0);

	for (size_t i = 0; i < n; i++) {
		char *p = (char *)(uintptr_t)redact_g.slots[i].p; /* made by slice_dup above */

		mem_wipe(p, redact_g.slots[i].n);
		mem_free(p);
	}
}

size_t redact_secret_at(struct slice text)
{
	size_t count = atomic_load_explicit(&redact_g.count, memory_order_acquire), best = 0;

	for (size_t i = 0; i < count; i++) {
		struct slice s = redact_g.slots[i];

		if (s.n > best && text.n && s.p[0] == text.p[0] && slice_starts_with(text, s))
			best = s.n;
	}
	return best;
}

/* Bytes at the end of text that are the beginning of a secret. */
static size_t secret_tail(struct slice text)
{
	size_t count = atomic_load_explicit(&redact_g.count, memory_order_acquire), best = 0;

	for (size_t i = 0; i < count; i++) {
		struct slice s = redact_g.slots[i];

		for (size_t k = s.n - 1 < text.n ? s.n - 1 : text.n; k > best && k >= SECRET_MIN; k--) {
			if (memcmp(text.p + text.n - k, s.p, k) == 0) {
				best = k;
				break;
			}
		}
	}
	return best;
}

/* ---- words ---- */

static size_t skip_blanks(struct slice s, size_t at)
{
	while (at < s.n && isspace((unsigned char)s.p[at]))
		at++;
	return at;
}

/* A quote, or an escaped one: the text may be JSON, or JSON inside a quoted value. */
static size_t skip_quote(struct slice s, size_t at, bool *ret_is_quoted)
{
	size_t i = at;

	while (i < s.n && s.p[i] == '\\')
		i++;
	*ret_is_quoted = i < s.n && (s.p[i] == '"' || s.p[i] == '\'');
	return *ret_is_quoted ? i + 1 : at;
}

static size_t word_at(struct slice s)
{
	static const char *const words[] = { "x-api-key", "authorization", "api_key", "api-key", "apikey", "token", "secret" };
	char c = (char)(s.p[0] | 0x20);

	if (c != 'x' && c != 'a' && c != 't' && c != 's')
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (words[i][0] == c && slice_starts_with_nocase(s, slice_str(words[i])))
			return strlen(words[i]);
	}
	return 0;
}

static size_t run_end(struct slice s, size_t at, bool is_quoted)
{
	for (; at < s.n; at++) {
		char c = s.p[at];

		if (is_quoted ? c == '"' || c == '\'' || c == '\\' : isspace((unsigned char)c) || strchr(",;}", c) != NULL)
			break;
	}
	return at;
}

/* When text begins with a secret-looking word and a value: where the value begins and ends. */
static bool find_value(struct slice s, size_t *ret_begin, size_t *ret_end)
{
	bool is_quoted;
	size_t at = word_at(s);

	if (!at)
		return false;
	at = skip_blanks(s, skip_quote(s, at, &is_quoted));
	if (at >= s.n || (s.p[at] != ':' && s.p[at] != '='))
		return false;
	at = skip_quote(s, skip_blanks(s, at + 1), &is_quoted);
	if (slice_starts_with_nocase(slice_from(s, at), SLICE("bearer ")))
		at = skip_blanks(s, at + 7);
	*ret_begin = at;
	*ret_end = run_end(s, at, is_quoted);
	return *ret_end > at;
}

/* ---- copying with replacements ---- */

struct sink {
	char *p;
	size_t n, cap; /* cap leaves room for a NUL */
};

static void sink_add(struct sink *k, struct slice s)
{
	size_t n = s.n < k->cap - k->n ? s.n : k->cap - k->n;

	memcpy(k->p + k->n, s.p, n);
	k->n += n;
}

/* Bytes that something to replace may begin with: most of a text is passed over by this table alone. */
static void mark_first_bytes(bool may[256])
{
	size_t count = atomic_load_explicit(&redact_g.count, memory_order_acquire);

	memset(may, 0, 256 * sizeof(*may));
	for (const char *c = "xXaAtTsS"; *c; c++) /* the words' */
		may[(unsigned char)*c] = true;
	for (size_t i = 0; i < count; i++)
		may[(unsigned char)redact_g.slots[i].p[0]] = true;
}

/* Where the next thing to replace begins, or the end of text: *ret_begin..*ret_end is to be replaced. */
static bool find_next(struct slice s, const bool may[256], size_t from, size_t *ret_begin, size_t *ret_end)
{
	for (size_t i = from; i < s.n; i++) {
		size_t n, begin, end;

		if (!may[(unsigned char)s.p[i]])
			continue;
		n = redact_secret_at(slice_from(s, i));
		if (n) {
			*ret_begin = i;
			*ret_end = i + n;
			return true;
		}
		if (find_value(slice_from(s, i), &begin, &end)) {
			*ret_begin = i + begin;
			*ret_end = i + end;
			return true;
		}
	}
	return false;
}

static void redact_copy(struct slice s, struct sink *k)
{
	size_t at = 0, begin, end;
	bool may[256];

	mark_first_bytes(may);
	while (find_next(s, may, at, &begin, &end)) {
		sink_add(k, slice_of(s.p + at, begin - at));
		sink_add(k, STAND_IN);
		at = end;
	}
	sink_add(k, slice_from(s, at));
}

size_t redact_into(struct slice text, bool is_cut, char *out, size_t cap)
{
	struct sink k = { .p = out, .cap = cap - 1 };
	size_t tail = is_cut ? secret_tail(text) : 0;

	redact_copy(slice_cut(text, text.n - tail), &k);
	if (tail)
		sink_add(&k, STAND_IN);
	out[k.n] = '\0';
	return k.n;
}

/* True when there is nothing to replace: the usual case, and then nothing is copied. */
static bool is_clean(struct slice s)
{
	size_t begin, end;
	bool may[256];

	mark_first_bytes(may);
	return !find_next(s, may, 0, &begin, &end);
}

void log_redact(struct buf *text)
{
	struct slice s = buf_slice(text);
	struct err ignored;
	size_t cap;
	AUTO_FREE char *copy = NULL;

	if (is_clean(s))
		return;
	/* The shortest thing replaced is one byte behind a word of five and a colon: 7 bytes become 16 at most. */
	cap = s.n * 3 + STAND_IN.n + 1;
	copy = mem_alloc(cap);
	size_t n = copy ? redact_into(s, false, copy, cap) : 0;

	buf_clear(text);
	if (n > text->max)
		n = text->max;
	/* Without memory the text goes whole: silence is better than a secret. */
	if (copy && buf_add(text, copy, n, &ignored))
		buf_clear(text);
}
