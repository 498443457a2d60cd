/* See client.h. Called by cmd_gpu.c and cmd_job.c. */
#include "server/client.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/nodeid.h"

#include <stdio.h>

#define TTL_S 3600
#define TIMEOUT_MS 15000
#define ANSWER_MAX (256u << 20)
#define EVENT_MAX (16u << 20)
#define SCHEMA_VERSION "2026-06-14"

static const char *first(const char *a, const char *b)
{
	return a && *a ? a : b && *b ? b : NULL;
}

static enum errc numbers(struct client *c, const struct client_options *o, struct err *e)
{
	const char *timeout = first(o->timeout_ms, config_env("MCODA_MSWARM_TIMEOUT_MS"));

	c->ttl_s = TTL_S;
	c->timeout_ms = TIMEOUT_MS;
	if (o->ttl_s && !slice_to_i64(slice_str(o->ttl_s), 1, INT32_MAX, &c->ttl_s))
		return err_set(e, E_BAD_REQUEST, "--token-ttl-seconds: a number of seconds");
	if (timeout && !slice_to_i64(slice_str(timeout), 1, INT32_MAX, &c->timeout_ms))
		return err_set(e, E_BAD_REQUEST, "--timeout-ms: a number of milliseconds");
	return E_OK;
}

static enum errc set_copy(char **at, const char *value, struct err *e)
{
	mem_free(*at);
	*at = mem_strdup(value);
	return *at ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
}

/* Given, else as the environment says, else those of the node that runs here, else as a node started here would have them. */
static enum errc identity(struct cli *cli, const struct client_options *o, struct client *c, struct err *e)
{
	const char *url = first(o->url, config_env("MCODA_MSWARM_NODE_BASE_URL")), *id = first(NULL, config_env("MCODA_MSWARM_NODE_ID"));
	const char *secret = first(o->secret, config_env("MCODA_MSWARM_NODE_SIGNING_SECRET"));
	AUTO_JSON running = NULL;
	AUTO_BUF own = BUF_MAX(1024);
	enum errc rc = E_OK;

	(void)!cli_control(cli, SLICE("{\"op\":\"status\"}"), &running, NULL);
	if (!id && *cli->cfg->node_id)
		id = cli->cfg->node_id;
	if (!id)
		id = json_str(json_get(running, "node_id"));
	if (!url)
		url = json_str(json_get(running, "url"));
	rc = id ? set_copy(&c->node_id, id, e) : nodeid_get(cli->cfg, &c->node_id, e);
	if (!rc && !url) {
		rc = nodeid_url(cli->cfg, (int)cli->cfg->listen_port, &own, e);
		url = rc ? NULL : buf_cstr(&own);
	}
	if (!rc)
		rc = set_copy(&c->url, url, e);
	for (size_t n = rc ? 0 : strlen(c->url); n && c->url[n - 1] == '/'; n--)
		c->url[n - 1] = '\0';
	c->token = first(o->token, NULL);
	if (!rc)
		rc = secret ? secret_set(&c->secret, slice_str(secret), e) : nodeid_secret(cli->cfg, &c->secret, e);
	return rc;
}

enum errc client_open(struct cli *cli, const struct client_options *o, struct client *ret, struct err *e)
{
	struct client *c = ret;
	enum errc rc = numbers(c, o, e);

	buf_init(&c->body, ANSWER_MAX);
	if (!rc)
		rc = crypto_init(e);
	if (!rc)
		rc = identity(cli, o, c, e);
	if (!rc)
		rc = httpc_global_init(e);
	if (!rc)
		rc = loop_new("client", &c->loop, e);
	if (!rc)
		rc = httpc_new(c->loop, &(struct httpc_opts){ .user_agent = "mswarm/" MSWARM_VERSION }, &c->http, e);
	return rc;
}

void client_close(struct client *c)
{
	httpc_free(c->http);
	loop_free(c->loop);
	buf_done(&c->body);
	secret_done(&c->secret);
	mem_free(c->url);
	mem_free(c->node_id);
}

enum errc client_token(struct client *c, enum token_kind kind, const char *job_id, const char *request_id, const char *job_type,
		       struct buf *out, struct err *e)
{
	const struct token_mint m = { .kind = kind, .node_id = c->node_id, .job_id = job_id, .request_id = request_id, .job_type = job_type,
				      .schema_version = SCHEMA_VERSION, .ttl_s = c->ttl_s };
	const char *ready = first(c->token, config_env(kind == TOKEN_OPS ? "MCODA_MSWARM_NODE_OPS_TOKEN" : "MCODA_MSWARM_NODE_TOKEN"));

	buf_clear(out);
	return ready ? buf_add_str(out, ready, e) : token_mint(&m, secret_slice(&c->secret), clock_wall_ms(), out, e);
}

/* ---- one request ---- */

static void on_head(void *ctx, const struct httpc_head *h)
{
	struct client *c = ctx;

	c->status = h->status;
	if (!slice_copy(h->wanted, c->header, sizeof(c->header)))
		c->header[0] = '\0';
}

static void tell_events(struct client *c)
{
	struct sse_event v;

	while (c->on_event && sse_next(&c->sse, &v)) {
		if (c->on_event(c->ctx, &v))
			continue;
		c->on_event = NULL;
		c->is_cut = false;
		loop_stop(c->loop);
	}
}

static enum httpc_take on_data(void *ctx, struct slice bytes)
{
	struct client *c = ctx;

	if (c->rc)
		return HTTPC_TAKEN;
	if (c->on_bytes && (c->status == 200 || c->status == 206)) {
		if (!c->on_bytes(c->ctx, bytes))
			c->rc = err_set(&c->err, E_IO, "the answer cannot be kept");
	} else if (!c->is_stream || c->status / 100 != 2) {
		c->rc = buf_add_slice(&c->body, bytes, &c->err);
	} else if (c->on_event) {
		c->rc = sse_feed(&c->sse, bytes, &c->err);
		tell_events(c);
	}
	return HTTPC_TAKEN;
}

static void on_done(void *ctx, enum errc rc, enum httpc_phase phase, const struct err *e)
{
	struct client *c = ctx;

	(void)phase;
	c->xfer = NULL;
	if (rc && !c->rc) {
		c->rc = rc;
		c->err = *e;
	}
	loop_stop(c->loop);
}

#define HEADERS_MAX 12

/* To its end, whatever that says. */
static enum errc exchange(struct client *c, const struct client_piece *p, struct err *e)
{
	static const struct httpc_ops ops = { .on_head = on_head, .on_data = on_data, .on_done = on_done };
	AUTO_BUF url = BUF_MAX(64u << 10);
	AUTO_BUF bearer = BUF_MAX(64u << 10);
	const char *headers[HEADERS_MAX + 3] = { "accept: application/json" };
	size_t n = 1;
	bool is_long = c->is_stream || p->on_bytes;
	enum errc rc = buf_addf(&url, e, "%s%s", c->url, p->path);

	if (!rc)
		rc = buf_addf(&bearer, e, "authorization: Bearer " SLICE_FMT, SLICE_ARG(p->token));
	if (rc)
		return rc;
	headers[n++] = buf_cstr(&bearer);
	for (size_t i = 0; p->headers && p->headers[i] && i < HEADERS_MAX; i++)
		headers[n++] = p->headers[i];
	const struct httpc_req r = { .method = p->method, .url = buf_cstr(&url), .headers = headers, .header_wanted = p->header_wanted,
				     .body = p->body, .connect_ms = c->timeout_ms, .total_ms = is_long ? 0 : c->timeout_ms,
				     .idle_ms = p->on_bytes ? c->timeout_ms : 0, .first_byte_ms = c->timeout_ms, .ops = &ops, .ctx = c };

	buf_clear(&c->body);
	c->status = 0;
	c->header[0] = '\0';
	c->on_bytes = p->on_bytes;
	if (p->on_bytes)
		c->ctx = p->ctx;
	c->rc = E_OK;
	rc = httpc_start(c->http, &r, &c->xfer, e);
	if (rc)
		return rc;
	loop_run(c->loop);
	if (c->xfer)
		httpc_cancel(TAKE(c->xfer));
	if (c->rc == E_TIMEOUT)
		return err_set(e, E_TIMEOUT, "mswarm request timed out after %lldms", (long long)c->timeout_ms);
	if (c->rc) {
		*e = c->err;
		return err_prefix(e, "%.120s", c->url);
	}
	return E_OK;
}

static enum errc run(struct client *c, const char *method, const char *path, struct slice token, struct slice body, const char *last_id, struct err *e)
{
	char last[80];
	const char *headers[3] = { NULL };
	size_t n = 0;
	enum errc rc;

	if (body.n)
		headers[n++] = "content-type: application/json";
	if (last_id) {
		snprintf(last, sizeof(last), "last-event-id: %.60s", last_id);
		headers[n++] = last;
	}
	rc = exchange(c, &(struct client_piece){ .method = method, .path = path, .token = token, .body = body, .headers = headers }, e);
	if (rc)
		return rc;
	if (c->status / 100 != 2)
		return err_set(e, E_BAD_REQUEST, "mswarm request failed (%d): %.180s", c->status, c->body.n ? buf_cstr(&c->body) : "");
	return E_OK;
}

enum errc client_call(struct client *c, const char *method, const char *path, struct slice token, struct slice body, struct err *e)
{
	c->is_stream = false;
	return run(c, method, path, token, body, NULL, e);
}

enum errc client_send(struct client *c, const struct client_piece *p, struct err *e)
{
	c->is_stream = false;
	return exchange(c, p, e);
}

enum errc client_follow(struct client *c, const char *path, struct slice token, const char *last_id,
			bool (*on_event)(void *ctx, const struct sse_event *v), void *ctx, struct err *e)
{
	enum errc rc;

	sse_init(&c->sse, EVENT_MAX);
	c->on_event = on_event;
	c->ctx = ctx;
	c->is_stream = c->is_cut = true;
	rc = run(c, "GET", path, token, slice_of("", 0), last_id, e);
	sse_done(&c->sse);
	if (!rc && c->is_cut)
		rc = err_set(e, E_UPSTREAM, "the stream ended before the job did");
	return rc;
}

struct pause {
	struct client *c;
	struct loop_timer timer;
};

static void on_pause(struct loop_timer *t)
{
	loop_stop(CONTAINER_OF(t, struct pause, timer)->c->loop);
}

void client_pause(struct client *c, int64_t ms)
{
	struct pause p = { .c = c, .timer = { .fn = on_pause } };

	loop_timer_set(c->loop, &p.timer, clock_mono_ms() + ms);
	loop_run(c->loop);
}
