/* Lists of agents in the making: growing, copying, comparing, sealing. Called by the inventory and its sources. */
#include "base/mem.h"
#include "llm/source.h"

#include <stdlib.h>

void agent_done(struct agent *a)
{
	mem_free(a->slug);
	mem_free(a->model);
	mem_free(a->adapter);
	mem_free(a->provider);
	mem_free(a->source_id);
	mem_free(a->extra_body);
	mem_free(a->entry_head);
	mem_free(a->entry_tail);
	mem_free(a->entry_caps);
	upstream_unref(a->up);
	*a = (struct agent){ 0 };
}

void agent_vec_done(struct agent_vec *v)
{
	for (size_t i = 0; i < v->n; i++)
		agent_done(&v->v[i]);
	mem_free(v->v);
	*v = (struct agent_vec){ 0 };
}

static bool grow(struct agent_vec *v, size_t want)
{
	size_t cap = v->cap ? v->cap : 8;

	while (cap < want)
		cap *= 2;
	if (cap == v->cap)
		return true;
	struct agent *p = mem_realloc(v->v, cap * sizeof(*p));

	if (!p)
		return false;
	v->v = p;
	v->cap = cap;
	return true;
}

enum errc agent_vec_add(struct agent_vec *v, struct agent *take, struct err *e)
{
	if (!grow(v, v->n + 1)) {
		agent_done(take);
		return err_set(e, E_NO_MEMORY, "no memory");
	}
	v->v[v->n++] = *take;
	*take = (struct agent){ 0 };
	return E_OK;
}

static bool copy_str(char **to, const char *from)
{
	*to = from ? mem_strdup(from) : NULL;
	return !from || *to;
}

static bool copy_agent(struct agent *to, const struct agent *from)
{
	*to = *from;
	to->up = from->up ? upstream_ref(from->up) : NULL;
	/* each is set before the next can fail, so that agent_done on the half-made copy frees only what is its own */
	to->slug = to->model = to->adapter = to->provider = to->source_id = to->extra_body = NULL;
	to->entry_head = to->entry_tail = to->entry_caps = NULL;
	return copy_str(&to->slug, from->slug) && copy_str(&to->model, from->model) &&
	       copy_str(&to->adapter, from->adapter) && copy_str(&to->provider, from->provider) &&
	       copy_str(&to->source_id, from->source_id) && copy_str(&to->extra_body, from->extra_body) &&
	       copy_str(&to->entry_head, from->entry_head) && copy_str(&to->entry_tail, from->entry_tail) &&
	       copy_str(&to->entry_caps, from->entry_caps);
}

enum errc agent_vec_copy(struct agent_vec *v, const struct agent *from, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		struct agent a;

		if (!copy_agent(&a, &from[i])) {
			agent_done(&a);
			return err_set(e, E_NO_MEMORY, "no memory");
		}
		enum errc rc = agent_vec_add(v, &a, e);

		if (rc)
			return rc;
	}
	return E_OK;
}

const struct agent *agent_vec_find(const struct agent_vec *v, struct slice slug)
{
	for (size_t i = 0; i < v->n; i++)
		if (slice_eq(slice_str(v->v[i].slug), slug))
			return &v->v[i];
	return NULL;
}

static bool is_same_str(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool is_same_agent(const struct agent *a, const struct agent *b)
{
	return is_same_str(a->slug, b->slug) && is_same_str(a->model, b->model) && is_same_str(a->adapter, b->adapter) &&
	       is_same_str(a->provider, b->provider) && is_same_str(a->source_id, b->source_id) &&
	       is_same_str(a->extra_body, b->extra_body) && is_same_str(a->entry_head, b->entry_head) &&
	       is_same_str(a->entry_tail, b->entry_tail) && is_same_str(a->entry_caps, b->entry_caps) && a->source == b->source && a->health == b->health &&
	       a->format == b->format && a->supports_tools == b->supports_tools &&
	       a->is_supports_tools_known == b->is_supports_tools_known && a->is_embedding == b->is_embedding &&
	       a->is_exposed == b->is_exposed && a->is_shared == b->is_shared && a->sends_model == b->sends_model &&
	       a->max_output_tokens == b->max_output_tokens && a->context_window == b->context_window &&
	       a->created_s == b->created_s && a->up == b->up;
}

bool agent_vec_is_same(const struct agent *a, size_t a_n, const struct agent *b, size_t b_n)
{
	if (a_n != b_n)
		return false;
	for (size_t i = 0; i < a_n; i++)
		if (!is_same_agent(&a[i], &b[i]))
			return false;
	return true;
}

/* Source, then slug; among equal slugs by upstream and model, so that the order never depends on who answered first. */
static int compare_agents(const void *left, const void *right)
{
	const struct agent *a = left, *b = right;

	if (a->source != b->source)
		return a->source < b->source ? -1 : 1;
	int order = strcmp(a->slug, b->slug);

	if (order == 0)
		order = strcmp(a->up ? a->up->name : "", b->up ? b->up->name : "");
	return order ? order : strcmp(a->model, b->model);
}

enum errc agent_vec_seal(struct agent_vec *take, uint64_t revision, struct agents **ret, struct err *e)
{
	struct agents *l = NEW(struct agents);

	if (!l) {
		agent_vec_done(take);
		return err_set(e, E_NO_MEMORY, "no memory");
	}
	if (take->n > 1)
		qsort(take->v, take->n, sizeof(*take->v), compare_agents);
	atomic_init(&l->refs, 1);
	l->v = take->v;
	l->n = take->n;
	l->revision = revision;
	*take = (struct agent_vec){ 0 };
	*ret = l;
	return E_OK;
}
