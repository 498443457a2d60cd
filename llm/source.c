/*
 * What all sources of the inventory do alike: keeping upstreams and dates over refreshes, the owner's policy, and
 * knowing ourselves. THREAD(supervisor), or before its loop runs.
 */
#include "llm/source.h"

#include "base/log.h"
#include "base/mem.h"
#include "llm/place.h"

enum errc source_part_init(struct source_part *p, const struct source_base *b, const struct source_ops *ops,
		enum agent_source source, const char *name, struct err *e)
{
	p->ops = ops;
	p->inv = b->inv;
	p->cfg = b->cfg;
	p->loop = b->loop;
	p->client = b->client;
	p->source = source;
	p->name = mem_strdup(name);
	return p->name ? E_OK : err_set(e, E_NO_MEMORY, "no memory for a source");
}

void source_part_done(struct source_part *p)
{
	agent_vec_done(&p->said);
	mem_free(p->name);
}

void source_settle(struct source_part *p, struct agent *a, int64_t created_s)
{
	const struct agent *old = agent_vec_find(&p->said, slice_str(a->slug));

	a->source = p->source;
	a->created_s = old ? old->created_s : created_s;
}

/* ---- upstreams ---- */

static bool is_same_headers(char *const *a, const char *const *b)
{
	size_t i = 0;

	for (; a[i] && b && b[i]; i++)
		if (strcmp(a[i], b[i]) != 0)
			return false;
	return !a[i] && (!b || !b[i]);
}

static bool is_of_spec(const struct upstream *u, const struct upstream_spec *s)
{
	struct slice base = slice_str(s->base_url);

	while (base.n > 0 && base.p[base.n - 1] == '/')
		base.n--;
	return u->kind == s->kind && strcmp(u->name, s->name) == 0 && slice_eq(slice_str(u->base_url), base) &&
	       is_same_headers(u->headers, s->headers);
}

static struct upstream *find_upstream(const struct agent_vec *v, const struct upstream_spec *s)
{
	for (size_t i = 0; v && i < v->n; i++)
		if (v->v[i].up && is_of_spec(v->v[i].up, s))
			return v->v[i].up;
	return NULL;
}

static bool is_secret_header(struct slice name)
{
	static const char *const names[] = { "authorization", "proxy-authorization", "x-api-key", "api-key" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (slice_eq_nocase(name, slice_str(names[i])))
			return true;
	return false;
}

static void register_secrets(const char *const *headers)
{
	for (; headers && *headers; headers++) {
		struct slice line = slice_str(*headers);
		ptrdiff_t colon = slice_find_char(line, ':');

		if (colon < 0 || !is_secret_header(slice_trim(slice_cut(line, (size_t)colon))))
			continue;
		struct slice value = slice_trim(slice_from(line, (size_t)colon + 1));

		if (slice_starts_with_nocase(value, SLICE("bearer ")))
			value = slice_trim(slice_from(value, 7));
		log_secret_add(value);
	}
}

enum errc source_upstream(const struct source_part *p, const struct agent_vec *fresh, const struct upstream_spec *s,
		struct upstream **ret, struct err *e)
{
	struct upstream *u = find_upstream(&p->said, s);

	if (!u)
		u = find_upstream(fresh, s);
	if (u) {
		*ret = upstream_ref(u);
		return E_OK;
	}
	register_secrets(s->headers);
	return upstream_new(s, ret, e);
}

void source_limits(const struct config *cfg, struct upstream_spec *s)
{
	s->max_concurrent = s->max_concurrent ? s->max_concurrent : cfg->max_upstream_requests;
	s->connect_ms = s->connect_ms ? s->connect_ms : cfg->llm_connect_ms;
	s->first_byte_ms = s->first_byte_ms ? s->first_byte_ms : cfg->llm_first_byte_ms;
	s->idle_ms = s->idle_ms ? s->idle_ms : cfg->llm_idle_ms;
}

void source_headers_free(char **headers)
{
	for (char **h = headers; h && *h; h++) {
		mem_wipe(*h, strlen(*h));
		mem_free(*h);
	}
	mem_free(headers);
}

/* ---- policy ---- */

static bool is_named(const struct str_list *l, const struct agent *a)
{
	return str_list_has(l, slice_str(a->slug)) || str_list_has(l, slice_str(a->model));
}

void source_expose(const struct config *cfg, struct agent *a, bool is_cloud)
{
	bool is_allowed = is_named(&cfg->model_allowlist, a);

	a->is_exposed = false;
	if (!a->up || a->health == HEALTH_BLOCKED || is_named(&cfg->model_blocklist, a))
		return;
	if (is_cloud || cfg->model_allowlist.n > 0)
		a->is_exposed = is_allowed;
	else
		a->is_exposed = cfg->expose_all;
}

bool source_is_self(const struct config *cfg, struct slice url)
{
	struct place at;

	if (cfg->listen_port == 0 || !place_parse(url, &at) || at.port != cfg->listen_port)
		return false;
	return place_is_loopback(&at) || slice_eq_nocase(at.host, slice_str(cfg->listen_host));
}

enum errc source_demo_agent(const struct config *cfg, struct upstream *up, int64_t created_s, struct agent *ret, struct err *e)
{
	struct agent a = {
		.slug = mem_strdup("demo"), .model = mem_strdup("demo"), .adapter = mem_strdup("demo"), .provider = mem_strdup("demo"),
		.source = AGENT_FROM_DEMO, .health = HEALTH_HEALTHY, .format = FORMAT_NONE, .is_supports_tools_known = true,
		.sends_model = true, .created_s = created_s, .up = upstream_ref(up),
	};

	if (!a.slug || !a.model || !a.adapter || !a.provider) {
		agent_done(&a);
		return err_set(e, E_NO_MEMORY, "no memory for the demo agent");
	}
	source_expose(cfg, &a, false);
	*ret = a;
	return E_OK;
}
