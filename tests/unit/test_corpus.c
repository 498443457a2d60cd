/*
 * Recorded bytes of a real runner (tests/data/corpus) through sse, chunk and completion: as they came apart, joined, byte
 * by byte, and cut in two everywhere. The output is the same each time, and what it should be.
 */
#include "llm/chunk.h"
#include "llm/completion.h"

#include "base/crypto.h"
#include "base/json.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define FOLDER TEST_DATA_DIR "/corpus/llama.cpp"
#define READS_MAX 256

struct recorded {
	char name[256];
	struct json *tree;
	struct buf bytes;                  /* all reads */
	size_t ends[READS_MAX], reads;     /* where each read ended */
	size_t body_at;                    /* behind the head */
	int status;
	bool is_chat, is_stream;
};

static void case_done(struct recorded *c)
{
	json_free(c->tree);
	buf_done(&c->bytes);
}

static void read_file(const char *path, struct buf *out)
{
	FILE *f = fopen(path, "rb");
	char block[4096];
	size_t n;

	assert_non_null(f);
	while ((n = fread(block, 1, sizeof block, f)) > 0)
		assert_int_equal(buf_add(out, block, n, NULL), E_OK);
	fclose(f);
}

static void case_load(const char *file, struct recorded *c)
{
	AUTO_BUF text = BUF_MAX(16 << 20);
	char path[1024];
	const struct json *response, *read;
	struct slice head;

	*c = (struct recorded){ .bytes = BUF_MAX(16 << 20) };
	snprintf(c->name, sizeof c->name, "%s", file);
	snprintf(path, sizeof path, FOLDER "/%s", file);
	read_file(path, &text);
	assert_int_equal(json_parse(buf_slice(&text), JSON_LIMITS_DEFAULT, &c->tree, NULL), E_OK);
	response = json_get(c->tree, "response");
	for (read = json_first(json_get(response, "reads")); read; read = json_next(read)) {
		assert_true(c->reads < READS_MAX);
		assert_int_equal(crypto_base64_decode(json_slice(json_get(read, "base64")), &c->bytes, NULL), E_OK);
		c->ends[c->reads++] = c->bytes.n;
	}
	ptrdiff_t blank = slice_find(buf_slice(&c->bytes), SLICE("\r\n\r\n"));

	c->body_at = blank < 0 ? c->bytes.n : (size_t)blank + 4;
	head = slice_cut(buf_slice(&c->bytes), c->body_at);
	c->status = head.n > 12 ? atoi(head.p + 9) : 0;
	c->is_stream = slice_find(head, SLICE("text/event-stream")) >= 0;
	c->is_chat = slice_starts_with(json_slice(json_get(json_get(c->tree, "request"), "head")), SLICE("POST /v1/chat/completions"));
}

/* ---- the chunked transfer coding, a byte at a time ---- */

struct dechunk { size_t left; unsigned state; size_t size; };

static void dechunk(struct dechunk *d, struct slice bytes, struct buf *out)
{
	for (size_t i = 0; i < bytes.n; i++) {
		char c = bytes.p[i];

		switch (d->state) {
		case 0: /* size */
			if (c == '\n')
				d->state = d->size ? 1 : 3;
			else if (c != '\r')
				d->size = d->size * 16 + (size_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
			d->left = d->size;
			break;
		case 1: /* data */
			assert_int_equal(buf_add(out, &c, 1, NULL), E_OK);
			if (--d->left == 0)
				d->state = 2;
			break;
		case 2: /* its line end */
			if (c == '\n')
				*d = (struct dechunk){ .left = 0 };
			break;
		default: /* behind the last */
			break;
		}
	}
}

/* ---- one pass ---- */

struct pass {
	struct sse sse;
	struct dechunk dechunk;
	struct chunk *chunk;
	struct completion *join;
	struct buf out;
	struct chat_error ce;
	enum errc rc;
};

static void pass_start(struct pass *p, bool wants_usage, bool is_careful, bool is_join)
{
	struct chunk_opts o = { .model = SLICE("mine"), .wants_usage = wants_usage };
	struct completion_opts jo = { .model = SLICE("mine") };

	*p = (struct pass){ .out = BUF_MAX(16 << 20) };
	sse_init(&p->sse, 1 << 20);
	if (is_join)
		assert_int_equal(completion_new(&jo, 1 << 20, &p->join, NULL), E_OK);
	else
		assert_int_equal(chunk_new(&o, &p->chunk, NULL), E_OK);
	if (is_careful)
		chunk_be_careful(p->chunk);
}

static void pass_event(struct pass *p, const struct sse_event *ev)
{
	if (p->rc)
		return;
	p->rc = p->join ? completion_event(p->join, ev, &p->ce, NULL) : chunk_event(p->chunk, ev, &p->out, &p->ce, NULL);
}

static void pass_feed(struct pass *p, struct slice bytes)
{
	AUTO_BUF plain = BUF_MAX(16 << 20);
	struct sse_event ev;

	dechunk(&p->dechunk, bytes, &plain);
	assert_int_equal(sse_feed(&p->sse, buf_slice(&plain), NULL), E_OK);
	while (sse_next(&p->sse, &ev))
		pass_event(p, &ev);
}

static void pass_end(struct pass *p, struct chat_usage *ret_usage)
{
	struct sse_event ev;

	while (sse_finish(&p->sse, &ev))
		pass_event(p, &ev);
	if (!p->rc && p->join)
		p->rc = completion_finish(p->join, &p->out, ret_usage, &p->ce, NULL);
	else if (!p->rc)
		p->rc = chunk_finish(p->chunk, &p->out, &p->ce, NULL);
	if (p->chunk)
		*ret_usage = *chunk_usage(p->chunk);
	sse_done(&p->sse);
	chunk_free(p->chunk);
	completion_free(p->join);
}

/* ---- what the stream says, read naively ---- */

struct said {
	struct buf text;
	char finish_text[32];
	int64_t usage[3];
	bool has_usage, has_error;
	size_t events, dones, roles, ends;
};

static void said_event(struct said *s, const struct json *j)
{
	const struct json *choice = json_at(json_get(j, "choices"), 0), *usage = json_get(j, "usage"), *delta = json_get(choice, "delta");
	static const char *const keys[] = { "prompt_tokens", "completion_tokens", "total_tokens" };

	assert_int_equal(buf_add_slice(&s->text, json_slice(json_get(delta, "content")), NULL), E_OK);
	s->roles += json_str(json_get(delta, "role")) != NULL;
	if (json_str(json_get(choice, "finish_reason"))) {
		snprintf(s->finish_text, sizeof s->finish_text, "%s", json_str(json_get(choice, "finish_reason")));
		s->ends++;
	}
	if (!json_is_object(usage))
		return;
	s->has_usage = true;
	for (size_t i = 0; i < 3; i++)
		assert_true(json_i64(json_get(usage, keys[i]), &s->usage[i]));
}

/* is_ours: the output, held to every promise of chunk.h. */
static void said_read(struct said *s, struct slice text, bool is_ours, bool wants_usage)
{
	CLEANUP(sse_done) struct sse sse;
	struct sse_event ev;
	char id[128] = "";

	*s = (struct said){ .text = BUF_MAX(1 << 20) };
	sse_init(&sse, 1 << 20);
	assert_int_equal(sse_feed(&sse, text, NULL), E_OK);
	while (sse_next(&sse, &ev)) {
		AUTO_JSON j = NULL;

		s->has_error = s->has_error || ev.error.n;
		if (!ev.has_data)
			continue;
		assert_true(!is_ours || (ev.is_plain && s->dones == 0));
		if (slice_eq(ev.data, SLICE("[DONE]"))) {
			s->dones++;
			continue;
		}
		assert_int_equal(json_parse(ev.data, JSON_LIMITS_DEFAULT, &j, NULL), E_OK);
		said_event(s, j);
		if (is_ours) {
			bool is_usage = json_count(json_get(j, "choices")) == 0;

			if (s->events == 0) {
				assert_string_equal(json_str(json_get(json_get(json_at(json_get(j, "choices"), 0), "delta"), "role")), "assistant");
				snprintf(id, sizeof id, "%s", json_str(json_get(j, "id")));
			}
			assert_string_equal(json_str(json_get(j, "id")), id);
			assert_string_equal(json_str(json_get(j, "model")), "mine");
			assert_string_equal(json_str(json_get(j, "object")), "chat.completion.chunk");
			assert_true(wants_usage ? json_get(j, "usage") && json_is_object(json_get(j, "usage")) == is_usage : !json_get(j, "usage") && !is_usage);
			assert_true(!is_usage || s->ends == 1);
		}
		s->events++;
	}
}

static void said_done(struct said *s) { buf_done(&s->text); }

/* ---- the tests ---- */

/* Every cut; the sanitizers' builds take each seventh, or it is minutes there. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define CUT_STEP 7
#else
#define CUT_STEP 1
#endif

/* kind: SIZE_MAX as recorded, SIZE_MAX - 1 a byte at a time, else cut in two there. */
#define AS_RECORDED SIZE_MAX
#define BY_BYTE (SIZE_MAX - 1)
static enum errc pass_run(const struct recorded *c, size_t kind, bool wants_usage, bool is_careful, bool is_join, struct buf *out,
			  struct chat_usage *usage, struct chat_error *ce)
{
	struct slice all = slice_from(buf_slice(&c->bytes), c->body_at);
	struct pass p;

	pass_start(&p, wants_usage, is_careful, is_join);
	if (kind == AS_RECORDED) {
		for (size_t i = 0, at = c->body_at; i < c->reads; i++) {
			if (c->ends[i] > at)
				pass_feed(&p, slice_of(c->bytes.p + at, c->ends[i] - at));
			at = c->ends[i] > at ? c->ends[i] : at;
		}
	} else if (kind == BY_BYTE) {
		for (size_t i = 0; i < all.n; i++)
			pass_feed(&p, slice_of(all.p + i, 1));
	} else {
		pass_feed(&p, slice_cut(all, kind));
		pass_feed(&p, slice_from(all, kind));
	}
	pass_end(&p, usage);
	buf_done(out);
	*out = p.out;
	*ce = p.ce;
	return p.rc;
}

static void check_same(const struct recorded *c, bool wants_usage, struct buf *ret_out, enum errc *ret_rc)
{
	AUTO_BUF out = BUF_MAX(0);
	struct chat_usage usage;
	struct chat_error ce, first;
	size_t n = c->bytes.n - c->body_at;

	*ret_rc = pass_run(c, AS_RECORDED, wants_usage, false, false, ret_out, &usage, &first);
	for (size_t kind = 0; kind <= n + 2; kind += kind + CUT_STEP <= n ? CUT_STEP : 1) {
		bool is_careful = kind == n + 2;
		enum errc rc = pass_run(c, kind <= n ? kind : BY_BYTE, wants_usage, is_careful, false, &out, &usage, &ce);

		if (rc != *ret_rc || !slice_eq(buf_slice(&out), buf_slice(ret_out)) || strcmp(ce.message, first.message) != 0)
			fail_msg("%s cut at %zu: %s\n%s\nnot\n%s", c->name, kind, err_symbol(rc), buf_cstr(&out), buf_cstr(ret_out));
		if (wants_usage && kind == 0)
			kind = n; /* the cuts once are enough */
	}
}

static void check_join(const struct recorded *c, const struct said *runner, bool is_ok)
{
	AUTO_BUF out = BUF_MAX(0);
	AUTO_JSON j = NULL;
	struct chat_usage usage;
	struct chat_error ce;
	enum errc rc = pass_run(c, AS_RECORDED, false, false, true, &out, &usage, &ce);
	const struct json *choice;

	assert_int_equal(rc, is_ok ? E_OK : E_UPSTREAM);
	if (rc)
		return;
	assert_int_equal(json_parse(buf_slice(&out), JSON_LIMITS_DEFAULT, &j, NULL), E_OK);
	choice = json_at(json_get(j, "choices"), 0);
	assert_true(slice_eq(json_slice(json_get(json_get(choice, "message"), "content")), buf_slice(&runner->text)));
	assert_string_equal(json_str(json_get(choice, "finish_reason")), runner->finish_text);
	assert_string_equal(json_str(json_get(j, "model")), "mine");
	assert_string_equal(json_str(json_get(j, "object")), "chat.completion");
	assert_true(usage.is_known && usage.total_tokens == runner->usage[2]);
	assert_true(usage.prompt_tokens == runner->usage[0] && usage.completion_tokens == runner->usage[1]);
	assert_true(json_is_object(json_get(j, "timings")));
}

static void check_stream(const struct recorded *c)
{
	AUTO_BUF sse_text = BUF_MAX(16 << 20), without = BUF_MAX(0), with = BUF_MAX(0);
	CLEANUP(said_done) struct said runner, plain, full;
	struct dechunk d = { .left = 0 };
	enum errc rc, rc2;

	dechunk(&d, slice_from(buf_slice(&c->bytes), c->body_at), &sse_text);
	said_read(&runner, buf_slice(&sse_text), false, false);
	check_same(c, false, &without, &rc);
	check_same(c, true, &with, &rc2);
	bool is_ok = !runner.has_error && runner.ends == 1;

	if (rc != (is_ok ? E_OK : E_UPSTREAM) || rc2 != rc)
		fail_msg("%s: %s", c->name, err_symbol(rc));
	said_read(&plain, buf_slice(&without), true, false);
	said_read(&full, buf_slice(&with), true, true);
	assert_true(slice_eq(buf_slice(&plain.text), buf_slice(&runner.text)));
	assert_true(slice_eq(buf_slice(&full.text), buf_slice(&runner.text)));
	assert_int_equal(plain.dones, is_ok);
	assert_int_equal(full.dones, is_ok);
	assert_int_equal(full.ends, is_ok);
	assert_int_equal(plain.roles, runner.events ? 1 : 0);
	assert_false(plain.has_usage);
	if (is_ok) {
		assert_string_equal(plain.finish_text, runner.finish_text);
		assert_true(runner.has_usage && full.has_usage && memcmp(full.usage, runner.usage, sizeof full.usage) == 0);
	}
	check_join(c, &runner, is_ok);
}

/* Plain answers of chat: mended, or refused in words. */
static void check_plain(const struct recorded *c)
{
	struct slice body = slice_from(buf_slice(&c->bytes), c->body_at);
	struct completion_opts o = { .model = SLICE("mine") };
	AUTO_BUF out = BUF_MAX(16 << 20);
	AUTO_JSON was = NULL;
	AUTO_JSON is = NULL;
	struct chat_usage usage;
	struct chat_error ce;
	const struct json *a, *b;

	if (c->status != 200) {
		chat_error_from_runner(c->status, body, &ce);
		assert_true(ce.message[0] && ce.type[0] && ce.status >= 400 && ce.status != 401 && ce.status != 404 && ce.status != 500);
		return;
	}
	assert_int_equal(completion_fix(body, &o, &out, &usage, &ce, NULL), E_OK);
	assert_int_equal(json_parse(body, JSON_LIMITS_DEFAULT, &was, NULL), E_OK);
	assert_int_equal(json_parse(buf_slice(&out), JSON_LIMITS_DEFAULT, &is, NULL), E_OK);
	assert_string_equal(json_str(json_get(is, "model")), "mine");
	assert_string_equal(json_str(json_get(is, "id")), json_str(json_get(was, "id")));
	assert_true(usage.is_known);
	a = json_at(json_get(was, "choices"), 0);
	b = json_at(json_get(is, "choices"), 0);
	assert_string_equal(json_str(json_get(b, "finish_reason")), json_str(json_get(a, "finish_reason")));
	assert_true(slice_eq(json_slice(json_get(json_get(b, "message"), "content")), json_slice(json_get(json_get(a, "message"), "content"))));
	a = json_get(json_get(a, "message"), "tool_calls");
	b = json_get(json_get(b, "message"), "tool_calls");
	assert_int_equal(json_count(b), json_count(a));
	for (size_t i = 0; i < json_count(a); i++) {
		assert_true(slice_starts_with(json_slice(json_get(json_at(b, i), "id")), SLICE("call_")));
		assert_string_equal(json_str(json_get(json_get(json_at(b, i), "function"), "arguments")),
				    json_str(json_get(json_get(json_at(a, i), "function"), "arguments")));
	}
}

/* The other way: a recorded request is taken, unless the API says no. */
static void check_request(const struct recorded *c)
{
	struct slice body = json_slice(json_get(json_get(c->tree, "request"), "body"));
	struct chat_req r;
	struct err e = { .what = "" };

	if (chat_parse(body, &r, &e)) {
		assert_true(e.what[0]);
		return;
	}
	struct agent a = { .model = r.model, .sends_model = true, .supports_tools = true };
	struct chat_build b = { .agent = &a };
	AUTO_BUF out = BUF_MAX(16 << 20);

	assert_int_equal(chat_build(&r, &b, &out, &e), E_OK);
	assert_int_equal(json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e), E_OK);
	chat_req_done(&r);
}

static void test_corpus(void **state)
{
	struct dirent **names;
	int n = scandir(FOLDER, &names, NULL, alphasort);
	size_t streams = 0, plains = 0;

	(void)state;
	assert_true(n > 100);
	for (int i = 0; i < n; i++) {
		CLEANUP(case_done) struct recorded c = { .reads = 0 };

		if (slice_ends_with(slice_str(names[i]->d_name), SLICE(".json"))) {
			case_load(names[i]->d_name, &c);
			if (c.is_chat)
				check_request(&c);
			if (c.is_chat && c.is_stream && c.bytes.n > c.body_at) {
				check_stream(&c);
				streams++;
			} else if (c.is_chat && c.status && !c.is_stream) {
				check_plain(&c);
				plains++;
			}
		}
		free(names[i]); /* scandir's, not ours */
	}
	free(names);
	print_message("%zu streams, %zu plain answers\n", streams, plains);
	assert_true(streams >= 20 && plains >= 40);
}

static int set_up(void **state)
{
	struct err e;

	(void)state;
	return (int)crypto_init(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_corpus) };

	return cmocka_run_group_tests(tests, set_up, NULL);
}
