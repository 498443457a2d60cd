/*
 * Lists of agents and who is meant by a name: see agent.h. Called by the routes of /v1, by R3 and the relay, on any
 * thread; a published list is const.
 */
#include "llm/agent.h"

#include "base/mem.h"
#include "llm/source.h"

void agents_ref(struct agents *l)
{
	atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
}

void agents_unref(struct agents *l)
{
	if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
		return;
	struct agent_vec v = { .v = l->v, .n = l->n, .cap = l->n };

	agent_vec_done(&v);
	mem_free(l);
}

const char *agent_source_name(enum agent_source s)
{
	static const char *const names[] = {
#define X(id, name) [AGENT_FROM_##id] = name,
		AGENT_SOURCES(X)
#undef X
	};

	return names[s];
}

const char *agent_health_name(enum agent_health h)
{
	static const char *const names[] = {
#define X(id, name) [HEALTH_##id] = name,
		AGENT_HEALTHS(X)
#undef X
	};

	return names[h];
}

static bool contains_any(struct slice s, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (slice_contains_nocase(s, slice_str(words[i])))
			return true;
	return false;
}

bool agent_is_embedding_name(struct slice best_usage, struct slice slug, struct slice model)
{
	static const char *const usages[] = { "embedding", "embed", "vector" };
	static const char *const names[] = { "embed", "nomic-bert", "bert" };

	return contains_any(best_usage, usages, ARRAY_LEN(usages)) || contains_any(slug, names, ARRAY_LEN(names)) ||
	       contains_any(model, names, ARRAY_LEN(names));
}

/* Whom /v1 offers. */
static bool is_offered(const struct agent *a)
{
	return a->is_exposed && !a->is_embedding && a->up;
}

bool agent_is_listed(const struct agents *l, size_t i)
{
	if (!is_offered(&l->v[i]))
		return false;
	for (size_t k = 0; k < i; k++)
		if (is_offered(&l->v[k]) && strcmp(l->v[k].slug, l->v[i].slug) == 0)
			return false;
	return true;
}

/* ---- /v1 ---- */

/* Healthy or unknown, the rule of jobs. "Degraded" means for a model that the owner wrote into config.json himself only
 * that its runner does not list it, which many runners never do right. */
static bool is_usable(const struct agent *a)
{
	return a->health == HEALTH_HEALTHY || a->health == HEALTH_UNKNOWN ||
	       (a->health == HEALTH_DEGRADED && a->source == AGENT_FROM_CONFIG);
}

struct found {
	const struct agent *v[AGENT_CANDIDATES_MAX];
	size_t n;
	size_t seen;                       /* also the ones that did not fit, or are no good */
	const struct agent *sick;          /* one of those that are no good */
};

static void found_add(struct found *f, const struct agent *a)
{
	f->seen++;
	if (!is_usable(a))
		f->sick = a;
	else if (f->n < AGENT_CANDIDATES_MAX)
		f->v[f->n++] = a;
}

static void find_slug(const struct agents *l, struct slice name, struct found *f)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct agent *a = &l->v[i];

		if (!is_offered(a) || !slice_eq(slice_str(a->slug), name))
			continue;
		found_add(f, a);
		if (a->source == AGENT_FROM_MCODA) /* sorted by source: it comes first, and stands alone */
			return;
	}
}

static bool is_qualified_name(const struct agent *a, struct slice name)
{
	size_t n = strlen(a->up->name);

	return name.n > n + 1 && memcmp(name.p, a->up->name, n) == 0 && name.p[n] == '/' &&
	       slice_eq(slice_from(name, n + 1), slice_str(a->model));
}

static void find_qualified(const struct agents *l, struct slice name, struct found *f)
{
	for (size_t i = 0; i < l->n; i++)
		if (is_offered(&l->v[i]) && is_qualified_name(&l->v[i], name))
			found_add(f, &l->v[i]);
}

static void find_model(const struct agents *l, struct slice name, struct found *f)
{
	struct found all = { .n = 0 };

	for (size_t i = 0; i < l->n; i++)
		if (is_offered(&l->v[i]) && slice_eq(slice_str(l->v[i].model), name))
			found_add(&all, &l->v[i]);
	if (all.seen == 1)
		*f = all;
}

/* Healthy ones before those nobody knows about, and these before degraded ones; otherwise the order of sources. */
static void put_best_first(struct found *f)
{
	for (size_t i = 1; i < f->n; i++) {
		const struct agent *a = f->v[i];
		size_t k = i;

		for (; k > 0 && f->v[k - 1]->health > a->health; k--)
			f->v[k] = f->v[k - 1];
		f->v[k] = a;
	}
}

/* The name as it may stand in a message: at most 120 bytes, cut between characters. */
static struct slice shown(struct slice name)
{
	if (name.n <= 120)
		return name;
	size_t n = 120;

	while (n > 0 && ((unsigned char)name.p[n] & 0xc0) == 0x80)
		n--;
	return slice_cut(name, n);
}

enum errc agents_resolve(const struct agents *l, struct slice name, const struct agent *ret[AGENT_CANDIDATES_MAX],
		size_t *ret_n, struct err *e)
{
	struct found f = { .n = 0 };
	struct slice x = shown(name);

	find_slug(l, name, &f);
	if (f.seen == 0)
		find_qualified(l, name, &f);
	if (f.seen == 0)
		find_model(l, name, &f);
	if (f.seen == 0)
		return err_set_param(e, E_MODEL_NOT_FOUND, "model",
			"The model `" SLICE_FMT "` does not exist or you do not have access to it.", SLICE_ARG(x));
	if (f.n == 0)
		return err_set_param(e, E_UNHEALTHY, "model", "The model `" SLICE_FMT "` is %s at the moment.", SLICE_ARG(x),
			agent_health_name(f.sick->health));
	put_best_first(&f);
	memcpy(ret, f.v, f.n * sizeof(f.v[0]));
	*ret_n = f.n;
	return E_OK;
}

/* ---- R3 and relay ---- */

static const struct agent *find_shared(const struct agents *l, struct slice name, bool is_strict)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct agent *a = &l->v[i];

		if (a->is_shared && (slice_eq(slice_str(a->slug), name) || (!is_strict && slice_eq(slice_str(a->model), name))))
			return a;
	}
	return NULL;
}

enum errc agents_resolve_job(const struct agents *l, const struct agent_selector *s, const struct agent **ret, struct err *e)
{
	const struct slice names[] = { s->source_agent_slug, s->agent_slug, s->model, s->request_model };
	struct slice selected = { .p = "", .n = 0 };
	size_t i = 0;

	for (; i < ARRAY_LEN(names) && selected.n == 0; i++)
		selected = names[i].p ? slice_trim_js(names[i]) : selected;
	if (selected.n == 0)
		return err_set(e, E_MODEL_NOT_FOUND, "mcoda source agent slug is required");
	/* i stands behind the one taken: the first two are slugs, for which no model name stands in */
	const struct agent *a = find_shared(l, selected, i <= 2);
	struct slice x = shown(selected);

	if (!a)
		return err_set(e, E_MODEL_NOT_FOUND, "selected local mcoda agent " SLICE_FMT " is not available on this node",
			SLICE_ARG(x));
	if (!is_offered(a))
		return err_set(e, E_MODEL_NOT_FOUND, "selected local mcoda agent " SLICE_FMT " is not exposed by this node", SLICE_ARG(x));
	if (a->health != HEALTH_HEALTHY && a->health != HEALTH_UNKNOWN)
		return err_set(e, E_UNHEALTHY, "selected local mcoda agent " SLICE_FMT " is %s", SLICE_ARG(x),
			agent_health_name(a->health));
	*ret = a;
	return E_OK;
}
