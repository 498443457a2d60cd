/* Unit tests of llm/agent.c and llm/agent_vec.c: lists, names, who is meant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "llm/source.h"

struct row {
	enum agent_source source;
	const char *slug, *model, *upstream;   /* upstream NULL: an adapter that cannot run */
	enum agent_health health;
	const char *flags;                     /* x exposed, s shared, e embedding */
};

static void add(struct agent_vec *v, const struct row *r)
{
	struct upstream_spec s = { .name = r->upstream, .base_url = "http://h/v1", .kind = UPSTREAM_OPENAI, .max_concurrent = 1 };
	struct agent a = { .slug = mem_strdup(r->slug), .model = mem_strdup(r->model), .adapter = mem_strdup("x"), .provider = mem_strdup("y"),
		.source = r->source, .health = r->health, .is_exposed = strchr(r->flags, 'x') != NULL,
		.is_shared = strchr(r->flags, 's') != NULL, .is_embedding = strchr(r->flags, 'e') != NULL };
	struct err e = { 0 };

	if (r->upstream)
		assert_int_equal(upstream_new(&s, &a.up, &e), E_OK);
	assert_int_equal(agent_vec_add(v, &a, &e), E_OK);
}

static struct agents *make(const struct row *rows, size_t n)
{
	struct agent_vec v = { 0 };
	struct agents *l = NULL;
	struct err e = { 0 };

	for (size_t i = 0; i < n; i++)
		add(&v, &rows[i]);
	assert_int_equal(agent_vec_seal(&v, 7, &l, &e), E_OK);
	assert_null(v.v);
	return l;
}

static const struct row rows[] = {
	{ AGENT_FROM_DISCOVERED, "both", "both", "127.0.0.1:8080", HEALTH_HEALTHY, "x" },
	{ AGENT_FROM_CONFIG, "both", "both", "lab", HEALTH_UNKNOWN, "x" },
	{ AGENT_FROM_OLLAMA, "both", "both", "ollama", HEALTH_UNREACHABLE, "x" },
	{ AGENT_FROM_MCODA, "coder", "qwen", "coder", HEALTH_HEALTHY, "xs" },
	{ AGENT_FROM_CONFIG, "coder", "coder", "lab", HEALTH_HEALTHY, "x" },
	{ AGENT_FROM_MCODA, "sick", "sick-model", "sick", HEALTH_UNREACHABLE, "xs" },
	{ AGENT_FROM_CONFIG, "sick", "sick", "lab", HEALTH_HEALTHY, "x" },
	{ AGENT_FROM_MCODA, "worn", "worn-model", "worn", HEALTH_DEGRADED, "xs" },
	{ AGENT_FROM_CONFIG, "odd", "odd", "lab", HEALTH_DEGRADED, "xs" },
	{ AGENT_FROM_MCODA, "hidden", "hidden-model", "hidden", HEALTH_HEALTHY, "s" },
	{ AGENT_FROM_MCODA, "codex", "gpt", NULL, HEALTH_HEALTHY, "s" },
	{ AGENT_FROM_CONFIG, "nomic-embed", "nomic-embed", "lab", HEALTH_HEALTHY, "xes" },
	{ AGENT_FROM_CONFIG, "a/b", "a/b", "lab", HEALTH_HEALTHY, "x" },
	{ AGENT_FROM_MCODA, "twin1", "twin", "twin1", HEALTH_UNKNOWN, "xs" },
	{ AGENT_FROM_MCODA, "twin2", "twin", "twin2", HEALTH_HEALTHY, "xs" },
};

static void test_resolve(void **state)
{
	/* want: "source:slug ..." in order; "" with code */
	static const struct { const char *name, *want; enum errc rc; } cases[] = {
		{ "both", "discovered:both config:both", E_OK },          /* unreachable left out, healthy before unknown */
		{ "coder", "mcoda:coder", E_OK },                         /* mcoda alone */
		{ "lab/both", "config:both", E_OK },
		{ "127.0.0.1:8080/both", "discovered:both", E_OK },
		{ "lab/a/b", "config:a/b", E_OK },
		{ "a/b", "config:a/b", E_OK },
		{ "qwen", "mcoda:coder", E_OK },                          /* a model that one agent has */
		{ "coder/qwen", "mcoda:coder", E_OK },
		{ "odd", "config:odd", E_OK },
		{ "sick", "", E_UNHEALTHY },                              /* no other source stands in for an mcoda agent */
		{ "worn", "", E_UNHEALTHY }, { "ollama/both", "", E_UNHEALTHY },
		{ "twin", "", E_MODEL_NOT_FOUND },                        /* two have it */
		{ "nope", "", E_MODEL_NOT_FOUND }, { "Coder", "", E_MODEL_NOT_FOUND }, { "", "", E_MODEL_NOT_FOUND },
		{ "hidden", "", E_MODEL_NOT_FOUND }, { "hidden-model", "", E_MODEL_NOT_FOUND }, { "codex", "", E_MODEL_NOT_FOUND },
		{ "nomic-embed", "", E_MODEL_NOT_FOUND }, { "lab/", "", E_MODEL_NOT_FOUND }, { "lab", "", E_MODEL_NOT_FOUND },
	};
	struct agents *l = make(rows, ARRAY_LEN(rows));

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct agent *found[AGENT_CANDIDATES_MAX];
		struct err e = { 0 };
		AUTO_BUF got = BUF_MAX(1000);
		size_t n = 0;
		enum errc rc = agents_resolve(l, slice_str(cases[i].name), found, &n, &e);

		if (rc != cases[i].rc)
			print_error("case %s\n", cases[i].name);
		assert_int_equal(rc, cases[i].rc);
		for (size_t k = 0; k < n; k++)
			assert_int_equal(buf_addf(&got, &e, "%s%s:%s", k ? " " : "", agent_source_name(found[k]->source), found[k]->slug), E_OK);
		assert_int_equal(buf_add(&got, "", 1, &e), E_OK);
		assert_string_equal(got.p, cases[i].want);
		if (rc)
			assert_string_equal(e.param, "model");
	}
	agents_unref(l);
}

static void test_not_found_text(void **state)
{
	struct agents *l = make(rows, 1);
	const struct agent *found[AGENT_CANDIDATES_MAX];
	struct err e = { 0 };
	char longer[400];
	size_t n;

	(void)state;
	assert_int_equal(agents_resolve(l, SLICE("x"), found, &n, &e), E_MODEL_NOT_FOUND);
	assert_string_equal(e.what, "The model `x` does not exist or you do not have access to it.");
	/* a long name is cut between characters, the sentence stays whole */
	for (size_t i = 0; i < sizeof(longer); i++)
		longer[i] = (char)(i % 2 ? 0xa9 : 0xc3);
	for (size_t from = 0; from < 2; from++) {
		assert_int_equal(agents_resolve(l, slice_of(longer + from * 2, 398 - from * 2), found, &n, &e), E_MODEL_NOT_FOUND);
		assert_true(slice_ends_with(slice_str(e.what), SLICE("` does not exist or you do not have access to it.")));
		assert_true(slice_is_utf8(slice_str(e.what)));
	}
	agents_unref(l);
}

static void test_pool_is_bounded(void **state)
{
	struct agent_vec v = { 0 };
	struct agents *l = NULL;
	const struct agent *found[AGENT_CANDIDATES_MAX];
	struct err e = { 0 };
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 40; i++) {
		char name[8] = { 'u', (char)('0' + i / 10), (char)('0' + i % 10) };

		add(&v, &(struct row){ AGENT_FROM_CONFIG, "m", "m", name, HEALTH_HEALTHY, "x" });
	}
	assert_int_equal(agent_vec_seal(&v, 1, &l, &e), E_OK);
	assert_int_equal(agents_resolve(l, SLICE("m"), found, &n, &e), E_OK);
	assert_int_equal(n, AGENT_CANDIDATES_MAX);
	agents_unref(l);
}

static void test_resolve_job(void **state)
{
	static const struct { const char *source, *agent, *model, *request, *want; enum errc rc; const char *text; } cases[] = {
		{ "coder", "x", "y", "z", "coder", E_OK, "" }, { "  ", "coder", "", "", "coder", E_OK, "" },
		{ "", "", " qwen ", "", "coder", E_OK, "" }, { "", "", "", "qwen", "coder", E_OK, "" },
		{ "", "", "", "coder", "coder", E_OK, "" }, { "", "", "twin", "", "twin1", E_OK, "" },
		{ "twin2", "", "", "", "twin2", E_OK, "" },
		{ "", "", " ", "", "", E_MODEL_NOT_FOUND, "mcoda source agent slug is required" },
		{ "qwen", "", "", "", "", E_MODEL_NOT_FOUND, "selected local mcoda agent qwen is not available on this node" },
		{ "", "qwen", "", "", "", E_MODEL_NOT_FOUND, "selected local mcoda agent qwen is not available on this node" },
		{ "both", "", "", "", "", E_MODEL_NOT_FOUND, "selected local mcoda agent both is not available on this node" },
		{ "hidden", "", "", "", "", E_MODEL_NOT_FOUND, "selected local mcoda agent hidden is not exposed by this node" },
		{ "codex", "", "", "", "", E_MODEL_NOT_FOUND, "selected local mcoda agent codex is not exposed by this node" },
		{ "nomic-embed", "", "", "", "", E_MODEL_NOT_FOUND, "selected local mcoda agent nomic-embed is not exposed by this node" },
		{ "worn", "", "", "", "", E_UNHEALTHY, "selected local mcoda agent worn is degraded" },
		{ "odd", "", "", "", "", E_UNHEALTHY, "selected local mcoda agent odd is degraded" },
		{ "", "", "sick", "", "", E_UNHEALTHY, "selected local mcoda agent sick is unreachable" },
	};
	struct agents *l = make(rows, ARRAY_LEN(rows));

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct agent_selector s = { slice_str(cases[i].source), slice_str(cases[i].agent), slice_str(cases[i].model), slice_str(cases[i].request) };
		const struct agent *a = NULL;
		struct err e = { 0 };

		assert_int_equal(agents_resolve_job(l, &s, &a, &e), cases[i].rc);
		assert_string_equal(e.what, cases[i].text);
		assert_string_equal(a ? a->slug : "", cases[i].want);
	}
	agents_unref(l);
}

static void test_order_and_listing(void **state)
{
	struct agents *l = make(rows, ARRAY_LEN(rows));
	AUTO_BUF got = BUF_MAX(1000);
	struct err e = { 0 };

	(void)state;
	assert_int_equal(l->revision, 7);
	for (size_t i = 1; i < l->n; i++)
		assert_true(l->v[i - 1].source < l->v[i].source ||
			    (l->v[i - 1].source == l->v[i].source && strcmp(l->v[i - 1].slug, l->v[i].slug) <= 0));
	for (size_t i = 0; i < l->n; i++)
		if (agent_is_listed(l, i))
			assert_int_equal(buf_addf(&got, &e, "%s ", l->v[i].slug), E_OK);
	assert_int_equal(buf_add(&got, "", 1, &e), E_OK);
	assert_string_equal(got.p, "coder sick twin1 twin2 worn both a/b odd ");
	agents_ref(l);
	agents_unref(l);
	assert_int_equal(l->n, ARRAY_LEN(rows));
	agents_unref(l);
	agents_unref(NULL);
}

static void test_embedding_names(void **state)
{
	static const struct { const char *usage, *slug, *model; bool is_embedding; } cases[] = {
		{ "", "qwen", "qwen2.5:7b", false }, { "Text-Embedding", "a", "b", true }, { "vector search", "a", "b", true },
		{ "", "Nomic-EMBED-text", "", true }, { "", "x", "bge-bert", true }, { "embed", "", "", true }, { "code", "x", "y", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(agent_is_embedding_name(slice_str(cases[i].usage), slice_str(cases[i].slug), slice_str(cases[i].model)),
			cases[i].is_embedding);
	assert_string_equal(agent_health_name(HEALTH_UNREACHABLE), "unreachable");
	assert_string_equal(agent_source_name(AGENT_FROM_DEMO), "demo");
}

static void test_copy_and_compare(void **state)
{
	struct agent_vec a = { 0 }, b = { 0 };
	struct err e = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		add(&a, &rows[i]);
	assert_int_equal(agent_vec_copy(&b, a.v, a.n, &e), E_OK);
	assert_true(agent_vec_is_same(a.v, a.n, b.v, b.n));
	assert_false(agent_vec_is_same(a.v, a.n, b.v, b.n - 1));
	b.v[3].health = HEALTH_DEGRADED;
	assert_false(agent_vec_is_same(a.v, a.n, b.v, b.n));
	assert_ptr_equal(agent_vec_find(&a, SLICE("odd")), &a.v[8]);
	assert_null(agent_vec_find(&a, SLICE("od")));
	agent_vec_done(&b);
	/* every allocation of a copy may fail */
	enum errc rc = E_NO_MEMORY;

	for (uint64_t n = 1; rc == E_NO_MEMORY && n < 200; n++) {
		mem_test_fail_at(n, 0);
		rc = agent_vec_copy(&b, a.v, a.n, &e);
		mem_test_fail_at(0, 0);
		agent_vec_done(&b);
	}
	assert_int_equal(rc, E_OK);
	agent_vec_done(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resolve), cmocka_unit_test(test_not_found_text), cmocka_unit_test(test_pool_is_bounded),
		cmocka_unit_test(test_resolve_job), cmocka_unit_test(test_order_and_listing), cmocka_unit_test(test_embedding_names),
		cmocka_unit_test(test_copy_and_compare),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
