/* Looking at a model runner: see probe.h. Used by the sources of the inventory, on the supervisor's loop. */
#include "llm/probe.h"

#include "base/jw.h"
#include "base/mem.h"
#include "llm/place.h"

#define PROBE_REPLY_MAX (4u << 20)
#define PROBE_URLS_MAX 3

enum probe_step { STEP_HEALTH, STEP_LIST, STEP_CHAT };

struct probe {
	struct httpc *client;
	struct httpc_xfer *xfer;
	char *base_url, *model, *chat_url;
	char *health_url;
	char *list_urls[PROBE_URLS_MAX];
	size_t list_count, list_at;
	char **headers;
	enum probe_step step;
	int64_t limit_ms;
	bool is_fresh, is_answered;
	int status;
	struct buf reply, body;
	struct err e;
	void (*done)(void *ctx, const struct probe_result *r);
	void *ctx;
};

static void probe_free(struct probe *p)
{
	for (char **h = p->headers; h && *h; h++) {
		mem_wipe(*h, strlen(*h));
		mem_free(*h);
	}
	mem_free(p->headers);
	for (size_t i = 0; i < PROBE_URLS_MAX; i++)
		mem_free(p->list_urls[i]);
	mem_free(p->base_url);
	mem_free(p->model);
	mem_free(p->chat_url);
	mem_free(p->health_url);
	buf_done(&p->reply);
	buf_done(&p->body);
	mem_free(p);
}

/* ---- reading a list ---- */

const struct json *probe_models(const struct json *reply)
{
	const struct json *list = json_get(reply, "data");

	if (!json_is_array(list))
		list = json_get(reply, "models");
	return json_is_array(list) ? list : NULL;
}

struct slice probe_model_id(const struct json *item)
{
	if (json_is_string(item))
		return json_slice(item);
	if (!json_is_object(item))
		return SLICE("");
	struct slice id = json_slice(json_get(item, "id"));

	return id.n ? id : json_slice(json_get(item, "name"));
}

bool probe_lists(const struct json *models, struct slice id)
{
	for (const struct json *m = json_first(models); m; m = json_next(m))
		if (slice_eq(probe_model_id(m), id))
			return true;
	return false;
}

/* ---- URLs ---- */

/* 2.7: absolute as it is; a leading slash against the origin; else relative to the base and a slash. */
static char *path_url(const struct place *at, const char *base_url, const char *path)
{
	AUTO_BUF b = BUF_MAX(8192);
	struct slice p = slice_str(path);
	enum errc rc;

	if (slice_starts_with_nocase(p, SLICE("http://")) || slice_starts_with_nocase(p, SLICE("https://")))
		return mem_strdup(path);
	if (p.n > 0 && p.p[0] == '/')
		rc = buf_add_slice(&b, at->origin, NULL);
	else
		rc = buf_addf(&b, NULL, "%s/", base_url);
	return rc || buf_add_slice(&b, p, NULL) ? NULL : buf_take(&b, NULL);
}

static bool add_list_url(struct probe *p, char *take_url)
{
	for (size_t i = 0; take_url && i < p->list_count; i++) {
		if (strcmp(p->list_urls[i], take_url) == 0) {
			mem_free(take_url);
			return true;
		}
	}
	if (take_url)
		p->list_urls[p->list_count++] = take_url;
	return take_url != NULL;
}

static bool fill_list_urls(struct probe *p, const struct place *at, const char *models_path)
{
	if (models_path)
		return add_list_url(p, path_url(at, p->base_url, models_path));
	if (!slice_ends_with(at->path, SLICE("/v1")) && !add_list_url(p, path_url(at, p->base_url, "/v1/models")))
		return false;
	return add_list_url(p, path_url(at, p->base_url, "models")) && add_list_url(p, path_url(at, p->base_url, "/models"));
}

/* ---- steps ---- */

static void on_head(void *ctx, const struct httpc_head *h);
static enum httpc_take on_data(void *ctx, struct slice bytes);
static void on_done(void *ctx, enum errc rc, enum httpc_phase phase, const struct err *e);

static const struct httpc_ops probe_ops = { .on_head = on_head, .on_data = on_data, .on_done = on_done };

static const char *step_url(const struct probe *p)
{
	switch (p->step) {
	case STEP_HEALTH:
		return p->health_url;
	case STEP_LIST:
		return p->list_urls[p->list_at];
	case STEP_CHAT:
		break;
	}
	return p->chat_url;
}

static enum errc chat_body(struct probe *p, struct err *e)
{
	struct jw w = JW(&p->body);

	buf_clear(&p->body);
	jw_obj(&w, NULL);
	if (p->model)
		jw_str(&w, "model", p->model);
	jw_arr(&w, "messages");
	jw_obj(&w, NULL);
	jw_str(&w, "role", "user");
	jw_str(&w, "content", "healthcheck");
	jw_end(&w);
	jw_end(&w);
	jw_i64(&w, "max_tokens", 1);
	jw_i64(&w, "temperature", 0);
	jw_end(&w);
	return jw_done(&w, e);
}

static enum errc ask(struct probe *p, struct err *e)
{
	bool is_chat = p->step == STEP_CHAT;
	struct httpc_req q = {
		.method = is_chat ? "POST" : "GET", .url = step_url(p), .headers = (const char *const *)p->headers,
		.connect_ms = p->limit_ms, .first_byte_ms = p->limit_ms, .total_ms = p->limit_ms, .max_body = PROBE_REPLY_MAX,
		.is_fresh = p->is_fresh, .ops = &probe_ops, .ctx = p,
	};
	enum errc rc = is_chat ? chat_body(p, e) : E_OK;

	if (rc)
		return rc;
	q.body = is_chat ? buf_slice(&p->body) : SLICE("");
	buf_clear(&p->reply);
	p->status = 0;
	return httpc_start(p->client, &q, &p->xfer, e);
}

static void finish(struct probe *p, enum agent_health health, const char *reason, const struct json *list)
{
	struct probe_result r = { .health = health, .reason = reason, .list = list, .is_answered = p->is_answered,
		.is_timeout = p->e.code == E_TIMEOUT, .e = &p->e };

	p->done(p->ctx, &r);
	probe_free(p);
}

static void ask_next(struct probe *p)
{
	if (ask(p, &p->e))
		finish(p, HEALTH_UNREACHABLE, "probe_failed", NULL);
}

/* False when the reply is no list of models: some other server, or one that answers everything with a page. */
static bool judge_list(struct probe *p)
{
	AUTO_JSON reply = NULL;
	struct json_limits lim = { .max_bytes = PROBE_REPLY_MAX, .max_depth = 32 };

	if (json_parse(buf_slice(&p->reply), lim, &reply, &p->e))
		return false;
	const struct json *models = probe_models(reply);

	if (!models) {
		err_set(&p->e, E_UPSTREAM, "no list of models in the reply");
		return false;
	}
	p->e = (struct err){ 0 };
	if (!p->model || json_count(models) == 0 || probe_lists(models, slice_str(p->model)))
		finish(p, HEALTH_HEALTHY, "", models);
	else
		finish(p, HEALTH_DEGRADED, "model_not_listed", models);
	return true;
}

static void after_list(struct probe *p, bool is_ok)
{
	if (is_ok && judge_list(p))
		return;
	if (++p->list_at < p->list_count) {
		ask_next(p);
	} else if (p->chat_url) {
		p->step = STEP_CHAT;
		ask_next(p);
	} else {
		finish(p, HEALTH_UNREACHABLE, "model_listing_failed", NULL);
	}
}

static void on_head(void *ctx, const struct httpc_head *h)
{
	struct probe *p = ctx;

	p->status = h->status;
	p->is_answered = true;
}

static enum httpc_take on_data(void *ctx, struct slice bytes)
{
	struct probe *p = ctx;

	/* a reply that does not fit is no JSON in the end: judged as such */
	(void)!buf_add_slice(&p->reply, bytes, NULL);
	return HTTPC_TAKEN;
}

static void on_done(void *ctx, enum errc rc, enum httpc_phase phase, const struct err *e)
{
	struct probe *p = ctx;
	bool is_ok = rc == E_OK && p->status >= 200 && p->status <= 299;

	(void)phase;
	p->xfer = NULL;
	if (rc)
		p->e = *e;
	else if (!is_ok)
		err_set(&p->e, E_UPSTREAM, "status %d", p->status);
	/* nobody there, or too slow: the other ways would meet the same */
	if (rc && p->status == 0) {
		finish(p, HEALTH_UNREACHABLE, rc == E_TIMEOUT ? "timeout" : "unreachable", NULL);
		return;
	}
	switch (p->step) {
	case STEP_HEALTH:
		finish(p, is_ok ? HEALTH_HEALTHY : HEALTH_UNREACHABLE, is_ok ? "" : "health_path_failed", NULL);
		break;
	case STEP_LIST:
		after_list(p, is_ok);
		break;
	case STEP_CHAT:
		finish(p, is_ok ? HEALTH_DEGRADED : HEALTH_UNREACHABLE, "model_listing_failed", NULL);
		break;
	}
}

/* ---- start and end ---- */

static bool copy_headers(struct probe *p, const char *const *headers)
{
	size_t n = 0, at = 0;

	while (headers && headers[n])
		n++;
	p->headers = mem_calloc(n + 2, sizeof(*p->headers));
	for (; p->headers && at < n; at++) {
		p->headers[at] = mem_strdup(headers[at]);
		if (!p->headers[at])
			return false;
	}
	if (p->headers)
		p->headers[at] = mem_strdup("content-type: application/json");
	return p->headers && p->headers[at];
}

static enum errc fill(struct probe *p, const struct probe_req *q, struct err *e)
{
	struct place at;

	if (!place_parse(slice_str(q->base_url), &at))
		return err_set(e, E_INVALID_VALUE, "base_url: no http or https URL");
	p->base_url = mem_strdup(q->base_url);
	p->model = q->model ? mem_strdup(q->model) : NULL;
	p->chat_url = q->chat_url ? mem_strdup(q->chat_url) : NULL;
	p->health_url = q->health_path ? path_url(&at, q->base_url, q->health_path) : NULL;
	if (!p->base_url || (q->model && !p->model) || (q->chat_url && !p->chat_url) || (q->health_path && !p->health_url) ||
	    !copy_headers(p, q->headers) || !fill_list_urls(p, &at, q->models_path))
		return err_set(e, E_NO_MEMORY, "no memory for a probe");
	return E_OK;
}

enum errc probe_start(const struct probe_req *q, struct probe **ret, struct err *e)
{
	struct probe *p = NEW(struct probe);

	if (!p)
		return err_set(e, E_NO_MEMORY, "no memory for a probe");
	p->client = q->client;
	p->limit_ms = q->limit_ms;
	p->is_fresh = q->is_fresh;
	p->done = q->done;
	p->ctx = q->ctx;
	buf_init(&p->reply, PROBE_REPLY_MAX);
	buf_init(&p->body, 4096);
	p->step = q->health_path ? STEP_HEALTH : STEP_LIST;
	enum errc rc = fill(p, q, e);

	if (rc == E_OK)
		rc = ask(p, e);
	if (rc) {
		probe_free(p);
		return rc;
	}
	*ret = p;
	return E_OK;
}

void probe_cancel(struct probe *p)
{
	if (!p)
		return;
	if (p->xfer)
		httpc_cancel(p->xfer);
	probe_free(p);
}
