/*
 * Model runners and their kinds: see upstream.h. Made by the sources of the inventory (supervisor); referenced by
 * agents, calls and tests on any thread.
 */
#include "llm/upstream.h"

#include "base/mem.h"
#include "llm/place.h"

static const struct upstream_ops upstream_rows[UPSTREAM__COUNT] = {
#define UPSTREAM_KIND(id, name_, aliases_, keeps_idle_, joins_streams_, help_) \
	[UPSTREAM_##id] = { .name = name_, .aliases = aliases_, .help = help_, .keeps_idle = keeps_idle_, \
		.joins_streams = joins_streams_ },
#include "llm/upstreams.def"
#undef UPSTREAM_KIND
};

const struct upstream_ops *upstream_ops(enum upstream_kind kind)
{
	return &upstream_rows[kind];
}

bool upstream_kind_parse(struct slice name, enum upstream_kind *ret)
{
	name = slice_trim(name);
	for (unsigned k = 0; k < UPSTREAM__COUNT && name.n > 0; k++) {
		struct slice rest = slice_str(upstream_rows[k].aliases), alias;
		bool is_it = slice_eq_nocase(name, slice_str(upstream_rows[k].name));

		while (!is_it && slice_next(&rest, ' ', &alias))
			is_it = slice_eq_nocase(name, alias);
		if (is_it) {
			*ret = (enum upstream_kind)k;
			return true;
		}
	}
	return false;
}

/* llm-execution.md 3.1: the relative reference against base + "/". With a query or fragment in the base that slash
 * lands in the tail, so the last segment of the path goes. */
static char *join_url(const struct place *at, const char *relative)
{
	size_t n = at->path.n;
	AUTO_BUF b = BUF_MAX(8192);

	while (at->has_tail && n > 0 && at->path.p[n - 1] != '/')
		n--;
	if (buf_add_slice(&b, at->origin, NULL) || buf_add(&b, at->path.p, n, NULL) ||
	    ((n == 0 || at->path.p[n - 1] != '/') && buf_add_str(&b, "/", NULL)) || buf_add_str(&b, relative, NULL))
		return NULL;
	return buf_take(&b, NULL);
}

/* Ollama's own API stands beside its /v1. */
static char *ollama_url(const struct place *at)
{
	struct place bare = *at;

	if (slice_ends_with(bare.path, SLICE("/v1")))
		bare.path = slice_cut(bare.path, bare.path.n - 3);
	return join_url(&bare, "api/chat");
}

static bool copy_headers(struct upstream *u, const char *const *headers)
{
	size_t n = 0;

	while (headers && headers[n])
		n++;
	u->headers = mem_calloc(n + 1, sizeof(*u->headers));
	for (size_t i = 0; u->headers && i < n; i++) {
		u->headers[i] = mem_strdup(headers[i]);
		if (!u->headers[i])
			return false;
	}
	return u->headers != NULL;
}

static enum errc fill_urls(struct upstream *u, struct err *e)
{
	struct place at;

	if (u->kind == UPSTREAM_DEMO) {
		u->chat_url = mem_strdup("");
		return u->chat_url ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
	}
	if (!place_parse(slice_str(u->base_url), &at))
		return err_set_param(e, E_INVALID_VALUE, "base_url", "base_url: must be an http or https URL with a host and no user part");
	u->chat_url = join_url(&at, "chat/completions");
	if (u->kind == UPSTREAM_OLLAMA)
		u->ollama_chat_url = ollama_url(&at);
	if (!u->chat_url || (u->kind == UPSTREAM_OLLAMA && !u->ollama_chat_url))
		return err_set(e, E_NO_MEMORY, "no memory");
	return E_OK;
}

enum errc upstream_new(const struct upstream_spec *s, struct upstream **ret, struct err *e)
{
	struct slice base = slice_str(s->base_url);
	struct upstream *u = NEW(struct upstream);
	enum errc rc = E_OK;

	if (!u)
		return err_set(e, E_NO_MEMORY, "no memory");
	while (base.n > 0 && base.p[base.n - 1] == '/')
		base.n--;
	atomic_init(&u->refs, 1);
	breaker_init(&u->breaker);
	u->kind = s->kind;
	u->max_concurrent = s->max_concurrent > 0 ? s->max_concurrent : 1;
	u->connect_ms = s->connect_ms;
	u->first_byte_ms = s->first_byte_ms;
	u->idle_ms = s->idle_ms;
	u->total_ms = s->total_ms;
	u->name = mem_strdup(s->name);
	u->base_url = slice_dup(base);
	if (!u->name || !u->base_url || !copy_headers(u, s->headers))
		rc = err_set(e, E_NO_MEMORY, "no memory");
	else
		rc = fill_urls(u, e);
	if (rc) {
		upstream_unref(u);
		return rc;
	}
	*ret = u;
	return E_OK;
}

struct upstream *upstream_ref(struct upstream *u)
{
	atomic_fetch_add_explicit(&u->refs, 1, memory_order_relaxed);
	return u;
}

void upstream_unref(struct upstream *u)
{
	if (!u || atomic_fetch_sub_explicit(&u->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (char **h = u->headers; h && *h; h++) {
		mem_wipe(*h, strlen(*h));
		mem_free(*h);
	}
	mem_free(u->headers);
	mem_free(u->name);
	mem_free(u->base_url);
	mem_free(u->chat_url);
	mem_free(u->ollama_chat_url);
	breaker_done(&u->breaker);
	mem_free(u);
}
