/* One request to the gateway; see exchange.h. Called by everything in gateway/ that talks, and by commands. */
#include "gateway/exchange.h"

#include "base/log.h"
#include "base/mem.h"

#define HEADER_MAX 8192
#define SHOWN_BYTES 200
#define RETRY_AFTER_MAX_S 3600

struct exchange {
	struct httpc_xfer *xfer;
	struct buf body, answer, bearer, key;
	int status;
	int64_t retry_after_ms, timeout_ms;
	char date[40];
	void (*done)(void *ctx, const struct exchange_answer *a);
	void *ctx;
};

static void wipe(struct buf *b)
{
	if (b->p)
		mem_wipe(b->p, b->n);
	buf_done(b);
}

static void exchange_free(struct exchange *x)
{
	wipe(&x->bearer);
	wipe(&x->key);
	buf_done(&x->body);
	buf_done(&x->answer);
	mem_free(x);
}

void exchange_cancel(struct exchange *x)
{
	if (!x)
		return;
	if (x->xfer)
		httpc_cancel(x->xfer);
	exchange_free(x);
}

static void on_head(void *ctx, const struct httpc_head *h)
{
	struct exchange *x = ctx;
	int64_t wait_s = 0;

	x->status = h->status;
	(void)!slice_copy(slice_trim(h->wanted), x->date, sizeof(x->date));
	if (slice_to_i64(slice_trim(h->retry_after), 0, INT64_MAX / 2000, &wait_s))
		x->retry_after_ms = 1000 * (wait_s < RETRY_AFTER_MAX_S ? wait_s : RETRY_AFTER_MAX_S);
}

static enum httpc_take on_data(void *ctx, struct slice bytes)
{
	struct exchange *x = ctx;

	/* What is above the limit ends the transfer (max_body); of an error only the beginning is told. */
	(void)!buf_add_slice(&x->answer, bytes, NULL);
	return HTTPC_TAKEN;
}

static void tell_refusal(const struct exchange *x, struct err *e)
{
	AUTO_BUF shown = BUF_MAX(8 * SHOWN_BYTES);

	if (!buf_add_slice(&shown, slice_cut_text(buf_slice(&x->answer), SHOWN_BYTES), NULL))
		log_redact(&shown);
	(void)err_set(e, E_UPSTREAM, "request_failed:%d:" SLICE_FMT, x->status, SLICE_ARG(buf_slice(&shown)));
}

static void on_done(void *ctx, enum errc rc, enum httpc_phase phase, const struct err *e)
{
	struct exchange *x = ctx;
	struct exchange_answer a = { .status = x->status, .retry_after_ms = x->retry_after_ms };

	x->xfer = NULL;
	memcpy(a.date, x->date, sizeof(a.date));
	if (!rc && x->status >= 200 && x->status < 300) {
		a.kind = EXCHANGE_OK;
		a.body = buf_slice(&x->answer);
	} else if (x->status >= 300 && (!rc || phase == HTTPC_BODY)) {
		a.kind = EXCHANGE_STATUS;          /* also when the rest of the error page did not come */
		tell_refusal(x, &a.err);
	} else {
		a.kind = phase == HTTPC_CONNECT && rc ? EXCHANGE_UNSENT : EXCHANGE_LOST;
		a.status = 0;
		if (rc == E_TIMEOUT)
			(void)err_set(&a.err, E_TIMEOUT, "This operation was aborted: no answer within %lld ms", (long long)x->timeout_ms);
		else if (rc == E_TOO_LARGE)
			(void)err_set(&a.err, E_UPSTREAM, "the gateway's answer is above its limit of %zu bytes", x->answer.max);
		else
			(void)err_set(&a.err, E_UPSTREAM, "fetch failed: %s", e ? e->what : "no answer");
	}
	x->done(x->ctx, &a);
	exchange_free(x);
}

static const struct httpc_ops ops = { .on_head = on_head, .on_data = on_data, .on_done = on_done };

/* A value that would be a second header in disguise makes none. */
static enum errc make_header(struct buf *out, const char *name, struct slice value, struct err *e)
{
	buf_init(out, HEADER_MAX);
	for (size_t i = 0; i < value.n; i++)
		if ((unsigned char)value.p[i] < 0x20 || value.p[i] == 0x7f)
			return err_set(e, E_INVALID_VALUE, "%s: a key with control characters", name);
	return value.n ? buf_addf(out, e, "%s" SLICE_FMT, name, SLICE_ARG(value)) : E_OK;
}

enum errc exchange_start(const struct exchange_req *r, struct exchange **ret, struct err *e)
{
	struct exchange *x = NEW(struct exchange);
	const char *headers[5];
	size_t n = 0, max = r->max_answer ? r->max_answer : EXCHANGE_ANSWER_MAX;
	enum errc rc;

	if (!x) {
		if (r->take_body)
			buf_done(r->take_body);
		return err_set(e, E_NO_MEMORY, "no memory");
	}
	x->done = r->done;
	x->ctx = r->ctx;
	x->timeout_ms = r->timeout_ms;
	buf_init(&x->answer, max);
	if (r->take_body) {
		x->body = *r->take_body;
		buf_init(r->take_body, 0);
	}
	rc = make_header(&x->bearer, "authorization: Bearer ", r->token, e);
	if (!rc)
		rc = make_header(&x->key, "x-api-key: ", r->api_key, e);
	headers[n++] = "accept: application/json";
	if (strcmp(r->method, "POST") == 0)
		headers[n++] = "content-type: application/json";
	if (!rc && r->token.n && !(headers[n++] = buf_cstr(&x->bearer)))
		rc = err_set(e, E_NO_MEMORY, "no memory");
	if (!rc && r->api_key.n && !(headers[n++] = buf_cstr(&x->key)))
		rc = err_set(e, E_NO_MEMORY, "no memory");
	headers[n] = NULL;
	const struct httpc_req q = { .method = r->method, .url = r->url, .headers = headers, .header_wanted = "date:", .body = buf_slice(&x->body),
				     .connect_ms = r->timeout_ms, .total_ms = r->timeout_ms, .max_body = max, .is_once = true, .ops = &ops, .ctx = x };

	if (!rc)
		rc = httpc_start(r->client, &q, &x->xfer, e);
	if (rc) {
		exchange_free(x);
		return rc;
	}
	*ret = x;
	return E_OK;
}

bool exchange_is_transient(const struct exchange_answer *a)
{
	if (a->kind != EXCHANGE_STATUS)
		return a->kind != EXCHANGE_OK;
	return a->status < 400 || a->status >= 500 || a->status == 408 || a->status == 425 || a->status == 429;
}
