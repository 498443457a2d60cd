/* The log: form of a line, redaction, quoting, and that a reader who does not read blocks nobody. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* Standard error goes into a pipe while a test looks. */
static int saved_stderr, reader;

static void capture(void)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	saved_stderr = dup(STDERR_FILENO);
	assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
	close(fds[1]);
	reader = fds[0];
}

static void release(void)
{
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
}

/* After release: everything that was written. */
static size_t drain(char *out, size_t cap)
{
	size_t n = 0;
	ssize_t got;

	while ((got = read(reader, out + n, cap - 1 - n)) > 0)
		n += (size_t)got;
	out[n] = '\0';
	close(reader);
	return n;
}

static void test_line(void **state)
{
	char text[4096];
	struct err e;

	(void)state;
	clock_test_set_wall_ms(1764000000123);
	capture();
	log_event(LOG_INFO, "node.started", "addr=%s port=%d", "127.0.0.1", 18083); /* no thread yet: written directly */
	assert_int_equal(log_start(&e), E_OK);
	assert_int_equal(log_start(&e), E_OK);
	log_context("r-1");
	log_event(LOG_WARN, "job.lost", "text=%s", "two\nlines\x1b[0m");
	log_context(NULL);
	log_event(LOG_DEBUG, "not.shown", "x=1");
	log_set_level(LOG_DEBUG);
	log_event(LOG_DEBUG, "is.shown", "x=1");
	log_set_level(LOG_OFF);
	log_event(LOG_ERROR, "not.shown", "x=2");
	log_set_level(LOG_INFO);
	log_stop();
	log_stop();
	log_event(LOG_ERROR, "at.end", "x=%d", 3);
	release();
	drain(text, sizeof(text));
	clock_test_set_wall_ms(-1);
	assert_string_equal(text,
		"2025-11-24T16:00:00.123Z info node.started addr=127.0.0.1 port=18083\n"
		"2025-11-24T16:00:00.123Z warn job.lost text=two lines [0m req=r-1\n"
		"2025-11-24T16:00:00.123Z debug is.shown x=1\n"
		"2025-11-24T16:00:00.123Z error at.end x=3\n");
}

static void test_level(void **state)
{
	static const struct {
		const char *text;
		bool is_good;
		enum log_level lvl;
	} rows[] = {
		{ "debug", true, LOG_DEBUG }, { "info", true, LOG_INFO }, { "warn", true, LOG_WARN }, { "error", true, LOG_ERROR },
		{ "off", true, LOG_OFF }, { "INFO", false, LOG_OFF }, { "", false, LOG_OFF }, { "infos", false, LOG_OFF },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum log_level lvl = LOG_OFF;

		assert_int_equal(log_level_parse(slice_str(rows[i].text), &lvl), rows[i].is_good);
		assert_int_equal(lvl, rows[i].lvl);
	}
	assert_true(log_is_on(LOG_WARN));
	assert_false(log_is_on(LOG_DEBUG));
	assert_false(log_is_on(LOG_OFF));
}

static void test_redact(void **state)
{
	static const char *const rows[][2] = {
		{ "nothing here", "nothing here" },
		{ "key is sk-canary-1 ok", "key is [redacted] ok" },
		{ "sk-canary-1sk-canary-1", "[redacted][redacted]" },
		{ "long sk-canary-1-and-more", "long [redacted]" },      /* the longer of two secrets wins */
		{ "sk-canary-", "sk-canary-" },
		{ "abc is too short to be one", "abc is too short to be one" },
		{ "Authorization: Bearer xyz123, next", "Authorization: Bearer [redacted], next" },
		{ "authorization:xyz;a=b", "authorization:[redacted];a=b" },
		{ "AUTHORIZATION = xyz}", "AUTHORIZATION = [redacted]}" },
		{ "x-api-key: 1 2", "x-api-key: [redacted] 2" },
		{ "api_key=a,api-key=b apikey:c", "api_key=[redacted],api-key=[redacted] apikey:[redacted]" },
		{ "my_token=abc token: def", "my_token=[redacted] token: [redacted]" },
		{ "client_secret=abc", "client_secret=[redacted]" },
		{ "{\"token\":\"a b\",\"n\":1}", "{\"token\":\"[redacted]\",\"n\":1}" },
		{ "{\\\"api_key\\\": \\\"a\\\"}", "{\\\"api_key\\\": \\\"[redacted]\\\"}" },
		{ "max_tokens=5 tokens: 7", "max_tokens=5 tokens: 7" },
		{ "token", "token" },
		{ "token=", "token=" },
		{ "token = ", "token = " },
		{ "the token is", "the token is" },
	};

	(void)state;
	log_secret_add(SLICE("sk-canary-1"));
	log_secret_add(SLICE("sk-canary-1-and-more"));
	log_secret_add(SLICE("sk-canary-1"));
	log_secret_add(SLICE("abc"));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF b = BUF_MAX(4096);
		struct err e;
		const char *want = rows[i][1];

		assert_int_equal(buf_add_str(&b, rows[i][0], &e), E_OK);
		log_redact(&b);
		assert_string_equal(buf_cstr(&b), want);
		log_redact(&b); /* again: nothing changes */
		assert_string_equal(buf_cstr(&b), want);
	}
	log_secrets_clear();
	AUTO_BUF b = BUF_MAX(64);
	struct err e;

	assert_int_equal(buf_add_str(&b, "sk-canary-1", &e), E_OK);
	log_redact(&b);
	assert_string_equal(buf_cstr(&b), "sk-canary-1");
}

/* A text that grows past its ceiling is cut; one for which there is no memory goes whole. */
static void test_redact_limits(void **state)
{
	AUTO_BUF b = BUF_MAX(16);
	struct err e;

	(void)state;
	assert_int_equal(buf_add_str(&b, "token=a token=b", &e), E_OK);
	log_redact(&b);
	assert_string_equal(buf_cstr(&b), "token=[redacted]");
	assert_int_equal(b.n, 16);
	buf_clear(&b);
	assert_int_equal(buf_add_str(&b, "token=abc", &e), E_OK);
	mem_test_fail_at(1, 0);
	log_redact(&b);
	mem_test_fail_at(0, 0);
	assert_int_equal(b.n, 0);
}

static void test_many_secrets(void **state)
{
	char secret[32];

	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(secret, sizeof(secret), "canary-%03d", i);
		log_secret_add(slice_str(secret));
	}
	AUTO_BUF b = BUF_MAX(256);
	struct err e;

	assert_int_equal(buf_add_str(&b, "canary-000 canary-063 canary-064", &e), E_OK);
	log_redact(&b);
	assert_string_equal(buf_cstr(&b), "[redacted] [redacted] canary-064"); /* 64 is the promise */
	log_secrets_clear();
}

static void test_quote(void **state)
{
	static const struct {
		const char *in, *out;
		size_t cap;
	} rows[] = {
		{ "", "\"\"", 64 },
		{ "plain text", "\"plain text\"", 64 },
		{ "a\"b\\c\nd\te\rf", "\"a\\\"b\\\\c\\nd\\te\\rf\"", 64 },
		{ "\x01\x7f", "\"  \"", 64 },
		{ "abcdef", "\"abcd\"", 7 },
		{ "abc\"", "\"abc\"", 7 },               /* no half escape */
		{ "ab\xe2\x82\xac", "\"ab\"", 7 },       /* no half character */
		{ "ab\xe2\x82\xac", "\"ab\xe2\x82\xac\"", 8 },
		{ "x ca\"nary1 y", "\"x [redacted] y\"", 64 },
		{ "0123456789ca\"nary1", "\"0123456789\"", 20 }, /* the stand-in does not fit: nothing of it */
	};
	char out[64];

	(void)state;
	log_secret_add(SLICE("ca\"nary1"));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_string_equal(log_quote(slice_str(rows[i].in), out, rows[i].cap), rows[i].out);
	log_secrets_clear();
}

static void test_err(void **state)
{
	struct err e;
	char out[600];

	(void)state;
	err_set(&e, E_TOO_LARGE, "body \"x\": %d bytes", 9);
	assert_string_equal(log_err(&e, out, sizeof(out)), "code=E_TOO_LARGE what=\"body \\\"x\\\": 9 bytes\"");
}

/* A line too long is cut, and no piece of a secret stays at the cut. */
static void test_long_line(void **state)
{
	static char text[16384], filler[LOG_MSG_MAX];
	size_t n;

	(void)state;
	log_secret_add(SLICE("canary-in-the-coal-mine"));
	for (size_t fill = LOG_MSG_MAX - 30; fill < LOG_MSG_MAX; fill += 5) {
		memset(filler, 'x', fill);
		filler[fill] = '\0';
		capture();
		log_event(LOG_INFO, "long.line", "%scanary-in-the-coal-mine", filler);
		release();
		n = drain(text, sizeof(text));
		assert_true(n < LOG_MSG_MAX + 64);
		assert_int_equal(text[n - 1], '\n');
		assert_null(strstr(text, "cana"));
	}
	log_secrets_clear();
}

/* Nobody reads: log_event returns at once, lines are counted as lost, log_stop gives up. */
static void test_stuck_reader(void **state)
{
	enum { LINES = 3000 };
	static char text[4u << 20], filler[1000];
	int64_t begin;
	struct err e;

	(void)state;
	memset(filler, '.', sizeof(filler) - 1);
	capture();
	assert_int_equal(log_start(&e), E_OK);
	begin = clock_mono_ms();
	for (int i = 0; i < LINES; i++)
		log_event(LOG_INFO, "many.lines", "i=%d f=%s", i, filler);
	int64_t took = clock_mono_ms() - begin;
	int read_end = dup(reader);

	log_stop();
	assert_true(clock_mono_ms() - begin - took < 2500);
	release();
	size_t n = drain(text, sizeof(text));

	close(read_end);
	assert_true(took < 10000); /* and not for ever */
	assert_true(n > 4096 && n < 256 * 1024); /* what the pipe took */
	assert_non_null(strstr(text, "i=0 "));
}

struct hose {
	int fd;
	char *text;
	size_t n, cap;
};

static void read_all(void *arg)
{
	struct hose *h = arg;
	ssize_t got;

	while ((got = read(h->fd, h->text + h->n, h->cap - 1 - h->n)) > 0)
		h->n += (size_t)got;
	h->text[h->n] = '\0';
}

/* The ring overflows, then somebody reads: whole lines, in order, and the count of the lost. */
static void test_dropped(void **state)
{
	enum { LINES = 3000 };
	static char text[4u << 20], filler[1000];
	struct hose h = { .text = text, .cap = sizeof(text) };
	struct thread t = { 0 };
	int got = 0, last = -1;
	long long lost = 0;
	struct err e;

	(void)state;
	memset(filler, '.', sizeof(filler) - 1);
	capture();
	h.fd = reader;
	assert_int_equal(log_start(&e), E_OK);
	for (int i = 0; i < LINES; i++)
		log_event(LOG_INFO, "many.lines", "i=%d f=%s", i, filler);
	assert_int_equal(thread_start(&t, THREAD_POOL, 0, read_all, &h, &e), E_OK);
	log_stop();
	release();
	thread_join(&t);
	close(reader);
	for (char *line = text; *line;) {
		char *end = strchr(line, '\n'), *at;

		assert_non_null(end);
		*end = '\0';
		if ((at = strstr(line, "log.dropped lines="))) {
			lost += strtoll(at + 18, NULL, 10);
		} else {
			at = strstr(line, "many.lines i=");
			assert_non_null(at);
			assert_true(strtol(at + 13, NULL, 10) > last);
			last = (int)strtol(at + 13, NULL, 10);
			got++;
		}
		line = end + 1;
	}
	assert_true(lost > 0);
	assert_int_equal(got + lost, LINES);
}

static void log_a_lot(void *arg)
{
	for (int i = 0; i < 200; i++)
		log_event(LOG_INFO, "from.thread", "who=%u i=%d secret=%s", *(unsigned *)arg, i, "x");
}

static void test_threads(void **state)
{
	static char text[1u << 20];
	struct hose h = { .text = text, .cap = sizeof(text) };
	struct thread t[4] = { 0 }, r = { 0 };
	unsigned who[4] = { 0, 1, 2, 3 };
	size_t lines = 0;
	struct err e;

	(void)state;
	capture();
	h.fd = reader;
	assert_int_equal(thread_start(&r, THREAD_POOL, 9, read_all, &h, &e), E_OK);
	assert_int_equal(log_start(&e), E_OK);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(thread_start(&t[i], THREAD_POOL, i, log_a_lot, &who[i], &e), E_OK);
	log_secret_add(SLICE("added while they log"));
	for (unsigned i = 0; i < 4; i++)
		thread_join(&t[i]);
	log_stop();
	release();
	thread_join(&r);
	close(reader);
	for (size_t i = 0; i < h.n; i++)
		lines += text[i] == '\n';
	assert_int_equal(lines, 800);
	log_secrets_clear();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_redact),
		cmocka_unit_test(test_redact_limits),
		cmocka_unit_test(test_many_secrets),
		cmocka_unit_test(test_quote),
		cmocka_unit_test(test_err),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_stuck_reader),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
