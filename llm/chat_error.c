/*
 * What goes wrong at a runner, in the words of the API: status mapped, four members, text redacted and cut
 * (llm-execution.md 8.3). Called by the relay and by the chunk and completion files, any thread.
 */
#include "llm/chat_priv.h"

#include "base/jw.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#define TEXT_MAX 2000           /* of the text sent on */
#define TEXT_READ_MAX (64 * 1024) /* of the text looked at */

static void set_text(char *out, size_t cap, struct slice s)
{
	size_t n = 0;

	while (n < s.n && n < cap) {
		int step = slice_utf8_step(slice_from(s, n));

		if (step <= 0 || n + (size_t)step >= cap)
			break;
		n += (size_t)step;
	}
	memcpy(out, s.p, n);
	out[n] = '\0';
}

/* Valid UTF-8, redacted, cut. */
static void set_message(struct chat_error *ce, struct slice text)
{
	AUTO_BUF b = BUF_MAX(4 * TEXT_READ_MAX);
	struct err e;
	enum errc rc = E_OK;

	text = slice_cut(slice_trim(text), TEXT_READ_MAX);
	for (size_t i = 0; i < text.n && !rc;) {
		int step = slice_utf8_step(slice_from(text, i));

		rc = step > 0 ? buf_add(&b, text.p + i, (size_t)step, &e) : buf_add(&b, "\xef\xbf\xbd", 3, &e);
		i += (size_t)(step > 0 ? step : -step);
	}
	if (rc) {
		set_text(ce->message, sizeof ce->message, SLICE("the model runner reported an error"));
		return;
	}
	log_redact(&b);
	set_text(ce->message, TEXT_MAX + 1, buf_slice(&b));
}

/* A string member into a small array; false when it is no string, empty, or too long. */
static bool set_word(char *out, size_t cap, struct slice token)
{
	AUTO_BUF b = BUF_MAX(cap - 1);
	struct err e;

	if (!raw_is_string(token) || raw_is_empty_string(token) || json_unquote(token, &b, &e) || memchr(b.p, '\0', b.n))
		return false;
	log_redact(&b);
	set_text(out, cap, buf_slice(&b));
	return true;
}

void chat_error_upstream(struct chat_error *ret, const char *fmt, ...)
{
	struct chat_error ce = { .status = 502, .type = "server_error", .code = "upstream_error" };
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	set_message(&ce, slice_str(text));
	*ret = ce;
}

/* ---- finding the parts ---- */

struct parts { struct slice message, type, code, param; };

/* The members of an error object; message may hide under other names. */
static void read_object(struct slice object, struct parts *p)
{
	static const char *const texts[] = { "message", "detail", "error", "msg", "reason" };

	for (size_t i = 0; i < ARRAY_LEN(texts) && !raw_is_string(p->message); i++)
		(void)json_find_member(object, texts[i], &p->message);
	(void)json_find_member(object, "type", &p->type);
	(void)json_find_member(object, "code", &p->code);
	(void)json_find_member(object, "param", &p->param);
}

/* {"error":{…}}, {"error":"text"}, {"message":…}, "text" */
static void read_value(struct slice value, struct parts *p)
{
	struct slice inner = { 0 };

	if (raw_is_object(value) && json_find_member(value, "error", &inner) && raw_is_object(inner))
		read_object(inner, p);
	else if (raw_is_object(value))
		read_object(value, p);
	else
		p->message = value;
}

static void take_message(struct chat_error *ce, struct slice token)
{
	AUTO_BUF b = BUF_MAX(token.n + 16);
	struct err e;

	if (raw_is_string(token) && !json_unquote(token, &b, &e))
		set_message(ce, buf_slice(&b));
	else if (!raw_is_absent(token))
		set_message(ce, token); /* an object or an array: its JSON */
}

/* ---- mapping ---- */

static int map_status(int status)
{
	if (status == 503)
		return 503;
	if (status < 400 || status >= 500 || status == 401 || status == 403 || status == 404)
		return 502; /* 401, 403, 404 speak of the node's configuration, not of the client */
	return status;
}

/* Runners say in different words that the prompt is too long; clients look for one code. */
static bool is_context_error(const struct chat_error *ce)
{
	static const char *const words[] = { "context size", "context length", "context window", "maximum context" };

	if (strstr(ce->type, "context") || strstr(ce->code, "context"))
		return true;
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (slice_contains_nocase(slice_str(ce->message), slice_str(words[i])))
			return true;
	}
	return false;
}

static void map_names(struct chat_error *ce, const struct parts *p)
{
	if (ce->status >= 500) {
		set_text(ce->type, sizeof ce->type, SLICE("server_error"));
		set_text(ce->code, sizeof ce->code, SLICE("upstream_error"));
		return;
	}
	if (!set_word(ce->type, sizeof ce->type, p->type))
		set_text(ce->type, sizeof ce->type, ce->status == 429 ? SLICE("rate_limit_error") : SLICE("invalid_request_error"));
	(void)set_word(ce->code, sizeof ce->code, p->code); /* llama.cpp: a number, the status once more: null */
	(void)set_word(ce->param, sizeof ce->param, p->param);
	if (ce->status == 400 && is_context_error(ce)) {
		set_text(ce->type, sizeof ce->type, SLICE("invalid_request_error"));
		set_text(ce->code, sizeof ce->code, SLICE("context_length_exceeded"));
	}
}

/* Our words in front of the runner's, where the status alone would mislead. */
static void explain(struct chat_error *ce, int status)
{
	AUTO_BUF b = BUF_MAX(4 * TEXT_MAX);
	struct err e;

	if (ce->message[0] == '\0')
		snprintf(ce->message, sizeof ce->message, "the model runner answered %d without a message", status);
	else if (status != ce->status && status >= 400 && !buf_addf(&b, &e, "the model runner answered %d: %s", status, ce->message))
		set_text(ce->message, TEXT_MAX + 1, buf_slice(&b));
}

void chat_error_from_value(int status, struct slice value, struct chat_error *ret)
{
	struct chat_error ce = { .status = 0 };
	struct parts p = { { 0 }, { 0 }, { 0 }, { 0 } };
	bool is_in_stream = status == 0;
	int64_t code;

	read_value(value, &p);
	if (is_in_stream)
		status = raw_to_i64(p.code, 400, 599, &code) ? (int)code : 500;
	ce.status = map_status(status);
	take_message(&ce, p.message);
	map_names(&ce, &p);
	if (!is_in_stream)
		explain(&ce, status);
	else if (ce.message[0] == '\0')
		set_text(ce.message, sizeof ce.message, SLICE("the model runner reported an error"));
	*ret = ce;
}

void chat_error_from_runner(int status, struct slice body, struct chat_error *ret)
{
	struct json_limits lim = { .max_bytes = 4u << 20, .max_depth = 64 };
	struct slice text = slice_trim(body);
	struct chat_error ce = { .status = map_status(status) };
	struct parts none = { { 0 }, { 0 }, { 0 }, { 0 } };
	struct err e;

	if (slice_starts_with(text, SLICE("\xef\xbb\xbf")))
		text = slice_trim(slice_from(text, 3));
	if (text.n && !json_check(text, lim, &e)) {
		chat_error_from_value(status ? status : 502, text, ret);
		return;
	}
	if (text.n && text.p[0] == '<')
		set_message(&ce, SLICE("the model runner sent a page of HTML")); /* of a proxy in front of it; nobody wants to read that */
	else
		set_message(&ce, text);
	map_names(&ce, &none);
	explain(&ce, status);
	*ret = ce;
}

void chat_error_from_err(const struct err *e, struct chat_error *ret)
{
	struct chat_error ce = { .status = err_http_status(e->code) };
	const char *code = err_openai_code(e->code);

	set_text(ce.type, sizeof ce.type, slice_str(err_openai_type(e->code)));
	set_text(ce.code, sizeof ce.code, slice_str(code));
	set_text(ce.param, sizeof ce.param, slice_str(e->param));
	set_message(&ce, slice_str(e->what));
	*ret = ce;
}

enum errc chat_error_json(const struct chat_error *ce, struct buf *out, struct err *e)
{
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_obj(&w, "error");
	jw_str(&w, "message", ce->message);
	jw_str(&w, "type", ce->type);
	jw_str(&w, "param", ce->param[0] ? ce->param : NULL);
	jw_str(&w, "code", ce->code[0] ? ce->code : NULL);
	jw_end(&w);
	jw_end(&w);
	return jw_done(&w, e);
}
