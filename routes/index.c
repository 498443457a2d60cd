/*
 * GET /: a small page for people who open the node's URL in a browser. The template is web-assets/index.html; {{names}}
 * in it are filled in here, always HTML-escaped. No script, nothing from elsewhere: the policy header allows one style,
 * by its hash. On the loop of the connection.
 */
#include "routes/route.h"

#include "base/jw.h"
#include "llm/inventory.h"
#include "routes/auth.h"
#include "routes/model_json.h"
#include "web-assets/assets.h"

#define MODELS_SHOWN 200u
#define PART_MAX 4096u             /* of a value that is put together before it is escaped */

struct page {
	struct req *q;
	struct svc *svc;
	const struct agents *agents;       /* borrowed */
	struct buf base_url;
	const char *model;                 /* of the curl line; NULL: none there */
};

/* ---- escaping ---- */

static enum errc add_html(struct buf *out, struct slice s, struct err *e)
{
	for (size_t i = 0, from = 0; i <= s.n; i++) {
		char c = i < s.n ? s.p[i] : '\0';
		const char *entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&quot;" : c == '\'' ? "&#39;" : NULL;
		enum errc rc;

		if (!entity && i < s.n)
			continue;
		rc = buf_add_slice(out, slice_of(s.p + from, i - from), e);
		if (!rc && entity)
			rc = buf_add_str(out, entity, e);
		if (rc)
			return rc;
		from = i + 1;
	}
	return E_OK;
}

/* Inside '...' of a shell. */
static enum errc add_shell(struct buf *out, struct slice s, struct err *e)
{
	struct slice rest = s, piece;
	bool is_first = true;
	enum errc rc = E_OK;

	while (!rc && slice_next(&rest, '\'', &piece)) {
		if (!is_first)
			rc = buf_add_str(out, "'\\''", e);
		is_first = false;
		if (!rc)
			rc = buf_add_slice(out, piece, e);
	}
	return rc;
}

/* ---- values ---- */

static enum errc put_node_id(struct page *p, struct buf *out, struct err *e)
{
	return add_html(out, slice_str(p->svc->node_id), e);
}

static enum errc put_version(struct page *p, struct buf *out, struct err *e)
{
	(void)p;
	return add_html(out, SLICE(MSWARM_VERSION), e);
}

static enum errc put_access(struct page *p, struct buf *out, struct err *e)
{
	return add_html(out, auth_is_keyed(p->svc->auth) ? SLICE("API key needed") : SLICE("open to this machine, no key needed"), e);
}

static enum errc put_base_url(struct page *p, struct buf *out, struct err *e)
{
	return add_html(out, buf_slice(&p->base_url), e);
}

static enum errc put_key_hint(struct page *p, struct buf *out, struct err *e)
{
	return add_html(out, auth_is_keyed(p->svc->auth) ? SLICE(" and its key to yours") : SLICE(" and its key to any word"), e);
}

static enum errc add_model_row(struct buf *out, const struct agent *a, struct err *e)
{
	enum errc rc = buf_add_str(out, "<tr><td><code>", e);

	if (!rc)
		rc = add_html(out, slice_str(a->slug), e);
	if (!rc)
		rc = buf_add_str(out, "</code></td><td>", e);
	if (!rc)
		rc = add_html(out, slice_str(agent_source_name(a->source)), e);
	if (!rc)
		rc = buf_add_str(out, "</td><td>", e);
	if (!rc)
		rc = add_html(out, slice_str(agent_health_name(a->health)), e);
	return rc ? rc : buf_add_str(out, "</td></tr>\n", e);
}

static bool is_shown(const struct page *p, size_t i)
{
	return agent_is_listed(p->agents, i) && auth_allows_model(p->svc->auth, p->q->key_id, slice_str(p->agents->v[i].slug));
}

static enum errc put_models(struct page *p, struct buf *out, struct err *e)
{
	size_t shown = 0;
	enum errc rc;

	if (!p->model)
		return buf_add_str(out, "<p>No model was found. Start a runner on this machine (Ollama, llama.cpp, vLLM, LM Studio), name one "
				   "under <code>upstreams</code> in <code>config.json</code>, or start the node with <code>--demo</code>.</p>", e);
	rc = buf_add_str(out, "<table>\n<thead><tr><th scope=\"col\">Model</th><th scope=\"col\">Source</th>"
			      "<th scope=\"col\">Health</th></tr></thead>\n<tbody>\n", e);
	for (size_t i = 0; !rc && i < p->agents->n && shown < MODELS_SHOWN; i++) {
		if (!is_shown(p, i))
			continue;
		shown++;
		rc = add_model_row(out, &p->agents->v[i], e);
	}
	return rc ? rc : buf_add_str(out, "</tbody>\n</table>", e);
}

static enum errc write_chat(struct buf *out, const char *model, struct err *e)
{
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "model", model);
	jw_bool(&w, "stream", true);
	jw_arr(&w, "messages");
	jw_obj(&w, NULL);
	jw_str(&w, "role", "user");
	jw_str(&w, "content", "Hello!");
	jw_end(&w);
	jw_end(&w);
	jw_end(&w);
	return jw_done(&w, e);
}

static enum errc put_curl(struct page *p, struct buf *out, struct err *e)
{
	AUTO_BUF body = BUF_MAX(PART_MAX);
	AUTO_BUF line = BUF_MAX(2 * PART_MAX);
	enum errc rc = write_chat(&body, p->model ? p->model : "MODEL", e);

	if (!rc)
		rc = buf_addf(&line, e, "curl -N " SLICE_FMT "/chat/completions \\\n  -H 'content-type: application/json' \\\n",
			      SLICE_ARG(buf_slice(&p->base_url)));
	if (!rc && auth_is_keyed(p->svc->auth))
		rc = buf_add_str(&line, "  -H \"authorization: Bearer $MSWARM_KEY\" \\\n", e);
	if (!rc)
		rc = buf_add_str(&line, "  -d '", e);
	if (!rc)
		rc = add_shell(&line, buf_slice(&body), e);
	if (!rc)
		rc = buf_add_str(&line, "'", e);
	return rc ? rc : add_html(out, buf_slice(&line), e);
}

static const struct {
	struct slice name;
	enum errc (*put)(struct page *p, struct buf *out, struct err *e);
} values[] = {
	{ SLICE("node_id"), put_node_id },
	{ SLICE("version"), put_version },
	{ SLICE("access"), put_access },
	{ SLICE("base_url"), put_base_url },
	{ SLICE("models"), put_models },
	{ SLICE("curl"), put_curl },
	{ SLICE("key_hint"), put_key_hint },
};

/* ---- the page ---- */

static enum errc put_value(struct page *p, struct slice name, struct buf *out, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(values); i++)
		if (slice_eq(name, values[i].name))
			return values[i].put(p, out, e);
	return err_set(e, E_INTERNAL, "index.html: no value named " SLICE_FMT, SLICE_ARG(slice_cut(name, 40)));
}

static enum errc fill(struct page *p, struct slice template, struct buf *out, struct err *e)
{
	while (template.n) {
		ptrdiff_t open = slice_find(template, SLICE("{{")), shut;
		enum errc rc;

		if (open < 0)
			return buf_add_slice(out, template, e);
		rc = buf_add_slice(out, slice_cut(template, (size_t)open), e);
		if (rc)
			return rc;
		template = slice_from(template, (size_t)open + 2);
		shut = slice_find(template, SLICE("}}"));
		if (shut < 0)
			return err_set(e, E_INTERNAL, "index.html: a {{ is not closed");
		rc = put_value(p, slice_cut(template, (size_t)shut), out, e);
		if (rc)
			return rc;
		template = slice_from(template, (size_t)shut + 2);
	}
	return E_OK;
}

/* The one style of the template, named by its hash; all else is forbidden. */
static enum errc add_policy(struct reply *rep, struct slice template, struct err *e)
{
	ptrdiff_t from = slice_find(template, SLICE("<style>")), to = slice_find(template, SLICE("</style>"));
	AUTO_BUF b64 = BUF_MAX(64);
	AUTO_BUF policy = BUF_MAX(180);
	uint8_t hash[SHA256_LEN];
	enum errc rc;

	must(from >= 0 && to > from);
	crypto_sha256(slice_of(template.p + from + 7, (size_t)(to - from) - 7), hash);
	rc = crypto_base64url(slice_of((const char *)hash, sizeof(hash)), &b64, e);
	for (size_t i = 0; i < b64.n; i++)         /* the policy is compared in the standard alphabet */
		b64.p[i] = b64.p[i] == '-' ? '+' : b64.p[i] == '_' ? '/' : b64.p[i];
	if (!rc)
		rc = buf_addf(&policy, e, "default-src 'none'; style-src 'sha256-" SLICE_FMT "='; base-uri 'none'; form-action 'none'; "
			      "frame-ancestors 'none'", SLICE_ARG(buf_slice(&b64)));
	if (rc)
		return rc;
	if (!buf_cstr(&policy))
		return err_set(e, E_NO_MEMORY, "no memory for a header");
	return reply_header(rep, "content-security-policy", policy.p, e);
}

/* The address as the client wrote it: Host has passed the guard. */
static enum errc make_base_url(struct page *p, struct err *e)
{
	const struct config *cfg = p->svc->cfg;
	struct slice host = req_header(p->q, "host");
	const char *scheme = cfg->tls_cert[0] ? "https" : "http";

	if (!host.n)
		return buf_addf(&p->base_url, e, "%s://127.0.0.1:%d/v1", scheme, p->svc->port);
	return buf_addf(&p->base_url, e, "%s://" SLICE_FMT "/v1", scheme, SLICE_ARG(host));
}

static enum errc make_page(struct page *p, struct reply *rep, struct err *e)
{
	const struct asset *t = asset_find("index.html");
	struct slice template = slice_of(t->bytes, t->n);
	enum errc rc = make_base_url(p, e);

	for (size_t i = 0; !p->model && i < p->agents->n; i++)
		if (is_shown(p, i))
			p->model = p->agents->v[i].slug;
	if (!rc)
		rc = fill(p, template, &rep->body, e);
	if (!rc)
		rc = add_policy(rep, template, e);
	if (!rc)
		rc = reply_header(rep, "x-content-type-options", "nosniff", e);
	if (!rc)
		rc = reply_header(rep, "referrer-policy", "no-referrer", e);
	if (!rc)
		rc = reply_header(rep, "cache-control", "no-store", e);
	rep->content_type = t->type;
	return rc;
}

enum errc route_index(struct req *q, struct reply *rep, struct err *e)
{
	struct agents *l = inventory_get(q->ctx->svc->inventory);
	struct page p = { .q = q, .svc = q->ctx->svc, .agents = l, .base_url = BUF_MAX(1024) };
	enum errc rc = make_page(&p, rep, e);

	buf_done(&p.base_url);
	agents_unref(l);
	if (rc) {
		buf_clear(&rep->body);
		rep->content_type = NULL;
		rep->header_count = 0;
	}
	return rc;
}
