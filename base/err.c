/*
 * Filling struct err, and the lookups that are made from ERR_CODES. Also must_failed, the end of every broken
 * invariant. Called by everything, on any thread; no state.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err_row {
	int http;
	bool is_retryable;
	const char *flat, *type, *oai, *symbol;
};

static const struct err_row err_rows[ERR__COUNT] = {
#define X(code, http_, retry_, flat_, type_, oai_) \
	[code] = { .http = http_, .is_retryable = retry_, .flat = flat_, .type = type_, .oai = oai_, .symbol = #code },
	ERR_CODES(X)
#undef X
};

static const struct err_row *row_of(enum errc code)
{
	must((unsigned)code < ERR__COUNT);
	return &err_rows[code];
}

void must_failed(const char *cond, const char *file, int line)
{
	fprintf(stderr, "%s:%d: must(%s) failed\n", file, line, cond);
	abort();
}

/* vsnprintf may have cut inside a character: drop its first bytes, so that the text stays UTF-8. */
static void drop_half_character(char *text)
{
	size_t n = strlen(text), lead = n, want = 1;

	while (lead > 0 && n - lead < 3 && ((unsigned char)text[lead - 1] & 0xC0) == 0x80)
		lead--;
	if (lead == 0)
		return;
	unsigned char c = (unsigned char)text[--lead];

	if (c >= 0xF0)
		want = 4;
	else if (c >= 0xE0)
		want = 3;
	else if (c >= 0xC0)
		want = 2;
	if (n - lead < want)
		text[lead] = '\0';
}

/* Put text at dst[at..cap), cut on a character. */
static void PRINTF_LIKE(4, 0) put_text(char *dst, size_t cap, size_t at, const char *fmt, va_list ap)
{
	int n = vsnprintf(dst + at, cap - at, fmt, ap);

	if (n < 0)
		dst[at] = '\0';
	else if ((size_t)n >= cap - at)
		drop_half_character(dst);
}

static void PRINTF_LIKE(4, 5) put_textf(char *dst, size_t cap, size_t at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	put_text(dst, cap, at, fmt, ap);
	va_end(ap);
}

enum errc err_set(struct err *e, enum errc code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	e->code = code;
	e->os_errno = 0;
	e->param[0] = '\0';
	va_start(ap, fmt);
	put_text(e->what, sizeof(e->what), 0, fmt, ap);
	va_end(ap);
	return code;
}

enum errc err_set_param(struct err *e, enum errc code, const char *param, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	e->code = code;
	e->os_errno = 0;
	put_textf(e->param, sizeof(e->param), 0, "%s", param ? param : "");
	va_start(ap, fmt);
	put_text(e->what, sizeof(e->what), 0, fmt, ap);
	va_end(ap);
	return code;
}

enum errc err_set_os(struct err *e, enum errc code, int os_errno, const char *fmt, ...)
{
	char text[96];
	va_list ap;

	if (!e)
		return code;
	e->code = code;
	e->os_errno = os_errno;
	e->param[0] = '\0';
	va_start(ap, fmt);
	put_text(e->what, sizeof(e->what), 0, fmt, ap);
	va_end(ap);
	/* the GNU form: may give a constant text instead of filling the array */
	put_textf(e->what, sizeof(e->what), strlen(e->what), ": %s", strerror_r(os_errno, text, sizeof(text)));
	return code;
}

enum errc err_prefix(struct err *e, const char *fmt, ...)
{
	char old[sizeof(e->what)];
	va_list ap;

	if (!e)
		return E_INTERNAL; /* never E_OK: something did fail */
	memcpy(old, e->what, sizeof(old));
	va_start(ap, fmt);
	put_text(e->what, sizeof(e->what), 0, fmt, ap);
	va_end(ap);
	put_textf(e->what, sizeof(e->what), strlen(e->what), ": %s", old);
	return e->code;
}

int err_http_status(enum errc code) { return row_of(code)->http; }
bool err_is_retryable(enum errc code) { return row_of(code)->is_retryable; }
const char *err_name(enum errc code) { return row_of(code)->flat; }
const char *err_openai_type(enum errc code) { return row_of(code)->type; }
const char *err_symbol(enum errc code) { return row_of(code)->symbol; }

const char *err_openai_code(enum errc code)
{
	const char *s = row_of(code)->oai;

	return s[0] ? s : NULL;
}

const char *err_class(int http_status)
{
	static const struct {
		int http;
		const char *name;
	} rows[] = {
		{ 400, "bad_request" },       { 401, "unauthorized" },      { 403, "forbidden" },
		{ 404, "not_found" },         { 405, "method_not_allowed" }, { 408, "request_timeout" },
		{ 409, "conflict" },          { 413, "payload_too_large" }, { 415, "unsupported_media_type" }, { 416, "range_not_satisfiable" },
		{ 429, "too_many_requests" }, { 431, "headers_too_large" }, { 499, "cancelled" },
		{ 500, "internal_error" },    { 502, "bad_gateway" },       { 503, "service_unavailable" },
		{ 504, "gateway_timeout" },   { 507, "insufficient_storage" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].http == http_status)
			return rows[i].name;
	return http_status >= 500 ? "internal_error" : "bad_request";
}
