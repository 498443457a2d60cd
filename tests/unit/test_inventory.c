/* Unit tests of llm/inventory.c with the runners of config.json: rounds, publishing, waiting, failing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/clock.h"
#include "base/jw.h"
#include "base/log.h"
#include "base/mem.h"
#include "tests/support/inventory_bed.h"

static const struct answer llama[] = {
	{ "/v1/models", 200, "{\"object\":\"list\",\"data\":[{\"id\":\"tiny\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"llamacpp\"},"
		"{\"id\":\"nomic-embed\",\"created\":1.5}]}" },
	{ 0 },
};
static const struct answer llama_later[] = {
	{ "/v1/models", 200, "{\"data\":[{\"id\":\"tiny\",\"created\":1800000000,\"owned_by\":\"llamacpp\"},{\"id\":\"other\"}]}" },
	{ 0 },
};
static const struct answer nothing[] = { { 0 } };

static void test_config_entry(void **state)
{
	struct bed b;
	struct agents *l, *later;
	const struct agent *a;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama);
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%\",\"max_concurrent\":2,"
		"\"idle_ms\":7,\"headers\":{\"x-lab\":\"one\"}}]", b.fake[0].port);
	bed_new(&b);
	bed_assert_list(&b, "");
	bed_start(&b);
	bed_assert_list(&b, "config:nomic-embed/healthy xe\nconfig:tiny/healthy xl");
	assert_non_null(strstr(b.fake[0].last, "x-lab: one"));
	l = inventory_get(b.inv);
	a = bed_agent(l, "tiny");
	assert_int_equal(a->created_s, 1700000000);
	assert_true(a->supports_tools && !a->is_supports_tools_known && a->sends_model);
	assert_int_equal(a->up->kind, UPSTREAM_LLAMA_CPP);
	assert_string_equal(a->adapter, "llama-cpp");
	assert_string_equal(a->provider, "openai-compatible");
	assert_string_equal(a->up->name, "lab");
	assert_true(slice_ends_with(slice_str(a->up->chat_url), SLICE("/v1/chat/completions")));
	assert_int_equal(a->up->max_concurrent, 2);
	assert_int_equal(a->up->idle_ms, 7);
	assert_int_equal(a->up->first_byte_ms, 600000);
	assert_int_equal(a->up->total_ms, 0);
	assert_in_range(bed_agent(l, "nomic-embed")->created_s, clock_wall_ms() / 1000 - 60, clock_wall_ms() / 1000);
	/* the next round: dates and upstreams stay, breakers with them */
	breaker_fail(&a->up->breaker, clock_mono_ms());
	b.fake[0].answers = llama_later;
	bed_next(&b);
	bed_assert_list(&b, "config:other/healthy xl\nconfig:tiny/healthy xl");
	later = inventory_get(b.inv);
	assert_int_equal(bed_agent(later, "tiny")->created_s, 1700000000);
	assert_ptr_equal(bed_agent(later, "tiny")->up, a->up);
	assert_int_equal(a->up->breaker.failures, 1);
	agents_unref(later);
	agents_unref(l);
	bed_close(&b);
}

static void test_same_answer_is_no_revision(void **state)
{
	struct bed b;
	int64_t before;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama);
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%/v1\"}]", b.fake[0].port);
	bed_new(&b);
	bed_start(&b);
	before = bed_revision(&b);
	clock_test_advance_ms(1100);
	b.want = b.fake[0].hits + 1;
	inventory_refresh(b.inv);
	bed_wait(&b, bed_has_hits);
	assert_int_equal(bed_revision(&b), before);
	bed_close(&b);
}

/* So many turns of the loop. */
static bool is_countdown_over(struct bed *b)
{
	return b->want <= 0 || --b->want <= 0;
}

static void test_refresh_at_most_once_a_second(void **state)
{
	struct bed b;
	int hits;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama);
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%/v1\"}]", b.fake[0].port);
	bed_new(&b);
	bed_start(&b);
	hits = b.fake[0].hits;
	for (int i = 0; i < 50; i++)
		inventory_refresh(b.inv);
	clock_test_advance_ms(1100);
	b.want = hits + 1;
	bed_wait(&b, bed_has_hits);
	for (int i = 0; i < 50; i++)
		inventory_refresh(b.inv);
	b.want = 20;
	bed_wait(&b, is_countdown_over);
	assert_int_equal(b.fake[0].hits, hits + 1);
	bed_close(&b);
}

static const struct answer only_chat[] = { { "/v1/chat/completions", 200, "{}" }, { 0 } };

static void test_configured_models(void **state)
{
	static const struct { const struct answer *answers; const char *want, *again; int hits; } cases[] = {
		{ llama, "config:mine/degraded xsl\nconfig:tiny/healthy xsl", NULL, 1 },
		{ only_chat, "config:mine/degraded xsl\nconfig:tiny/degraded xsl", NULL, 3 },   /* two lists, then the chat */
		{ nothing, "config:mine/unreachable xsl\nconfig:tiny/unreachable xsl", NULL, 3 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bed b;

		bed_open(&b);
		fake_open(&b.fake[0], b.loop, cases[i].answers);
		bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%/v1\","
			"\"models\":[\"tiny\",\"mine\"],\"share\":true,\"kind\":\"vllm\"}]", b.fake[0].port);
		bed_new(&b);
		bed_start(&b);
		bed_assert_list(&b, cases[i].want);
		assert_int_equal(b.fake[0].hits, cases[i].hits);
		struct agents *l = inventory_get(b.inv);

		assert_int_equal(l->v[0].up->kind, UPSTREAM_VLLM);
		agents_unref(l);
		bed_close(&b);
	}
}

static void test_chat_check_is_not_repeated(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, only_chat);
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%/v1\","
		"\"models\":[\"mine\"]}]", b.fake[0].port);
	bed_new(&b);
	bed_start(&b);
	assert_non_null(strstr(b.fake[0].last, "POST /v1/chat/completions"));
	bed_round(&b);
	assert_non_null(strstr(b.fake[0].last, "GET /models"));
	bed_assert_list(&b, "config:mine/degraded xl");
	bed_close(&b);
}

static void test_bad_entries_are_skipped(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama);
	bed_write(&b, "key", "sk-canary-1234\n", 0600);
	bed_write(&b, "key2", "sk-open-to-all\n", 0644);
	AUTO_BUF json = BUF_MAX(4096);
	struct err e;

	assert_int_equal(buf_addf(&json, &e, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"a\"},7,"
		"{\"name\":\"b\",\"base_url\":\"http://127.0.0.1:%d\",\"kind\":\"nonsense\"},"
		"{\"name\":\"c\",\"base_url\":\"http://127.0.0.1:%d\",\"api_key_file\":\"%s/none\"},"
		"{\"name\":\"d\",\"base_url\":\"http://127.0.0.1:%d\",\"api_key_file\":\"%s/key2\"},"
		"{\"name\":\"e\",\"base_url\":\"http://localhost:18083/v1\",\"models\":[\"self\"]},"
		"{\"name\":\"good\",\"base_url\":\"http://127.0.0.1:%d\",\"api_key_file\":\"%s/key\"}]", b.fake[0].port, b.fake[0].port, b.dir,
		b.fake[0].port, b.dir, b.fake[0].port, b.dir), E_OK);
	assert_int_equal(buf_add(&json, "", 1, &e), E_OK);
	bed_load(&b, json.p);
	bed_new(&b);
	bed_start(&b);
	bed_assert_list(&b, "config:nomic-embed/healthy xe\nconfig:tiny/healthy xl");
	assert_int_equal(b.fake[0].hits, 1);
	assert_non_null(strstr(b.fake[0].last, "authorization: Bearer sk-canary-1234\r\n"));
	/* the key is known to the redactor */
	AUTO_BUF text = BUF_MAX(1000);

	assert_int_equal(buf_add_str(&text, "said sk-canary-1234 twice", &e), E_OK);
	log_redact(&text);
	assert_int_equal(slice_find(buf_slice(&text), SLICE("canary")), -1);
	bed_close(&b);
}

/* ---- failing sources ---- */

static void test_failing_source_fades(void **state)
{
	struct bed b;
	struct agents *l;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama_later);
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%\"}]", b.fake[0].port);
	bed_new(&b);
	bed_start(&b);
	bed_assert_list(&b, "config:other/healthy xl\nconfig:tiny/healthy xl");
	b.fake[0].answers = nothing;
	bed_next(&b);
	bed_assert_list(&b, "config:other/unreachable xl\nconfig:tiny/unreachable xl");
	for (int i = 0; i < 2; i++) { /* kept for three rounds */
		bed_round(&b);
		bed_assert_list(&b, "config:other/unreachable xl\nconfig:tiny/unreachable xl");
	}
	bed_next(&b);
	bed_assert_list(&b, "demo:demo/healthy xl"); /* nothing else is left */
	l = inventory_get(b.inv);
	assert_int_equal(l->v[0].up->kind, UPSTREAM_DEMO);
	assert_false(l->v[0].is_shared);
	agents_unref(l);
	b.fake[0].answers = llama;
	bed_next(&b);
	bed_assert_list(&b, "config:nomic-embed/healthy xe\nconfig:tiny/healthy xl");
	bed_close(&b);
}

static void test_busy_runner_is_not_called_dead(void **state)
{
	struct bed b;
	struct agents *l;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama_later);
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%\"}]", b.fake[0].port);
	b.cfg->probe_timeout_ms = 50;
	b.cfg->inventory_refresh_ms = 100;
	bed_new(&b);
	bed_start(&b);
	b.fake[0].is_stalled = true;
	l = inventory_get(b.inv);
	atomic_store(&l->v[0].up->running, 1);
	b.want = b.fake[0].hits + 4;
	bed_wait(&b, bed_has_hits);
	bed_assert_list(&b, "config:other/healthy xl\nconfig:tiny/healthy xl");
	/* with nothing of ours running there, silence means what it seems to mean */
	atomic_store(&l->v[0].up->running, 0);
	b.want = bed_revision(&b) + 1;
	bed_wait(&b, bed_is_published);
	bed_assert_list(&b, "config:other/unreachable xl\nconfig:tiny/unreachable xl");
	agents_unref(l);
	bed_close(&b);
}

static bool is_woken_in_time(struct bed *b)
{
	clock_test_advance_ms(100);
	return b->woken > 0;
}

static void test_stalled_source_holds_nobody_up(void **state)
{
	struct bed b;
	int64_t began;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama);
	b.fake[0].is_stalled = true;
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%\"}]", b.fake[0].port);
	b.cfg->probe_timeout_ms = 60000;
	bed_new(&b);
	b.waiter = (struct inventory_waiter){ .msg.fn = bed_on_woken, .loop = b.loop };
	assert_true(inventory_wait_first(b.inv, &b.waiter));
	assert_true(inventory_wait_cancel(b.inv, &b.waiter));
	assert_true(inventory_wait_first(b.inv, &b.waiter));
	inventory_start(b.inv);
	began = clock_mono_ms();
	bed_wait(&b, is_woken_in_time);
	assert_in_range(clock_mono_ms() - began, 2500, 5000);
	bed_assert_list(&b, "demo:demo/healthy xl");
	bed_close(&b);
}

static void test_stop_wakes_who_waits(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama);
	b.fake[0].is_stalled = true;
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%\"}]", b.fake[0].port);
	bed_new(&b);
	b.waiter = (struct inventory_waiter){ .msg.fn = bed_on_woken, .loop = b.loop };
	assert_true(inventory_wait_first(b.inv, &b.waiter));
	inventory_start(b.inv);
	inventory_stop(b.inv);
	bed_wait(&b, bed_is_woken);
	bed_close(&b);
}

static void test_status(void **state)
{
	struct bed b;
	AUTO_BUF text = BUF_MAX(4096);
	struct jw w = JW(&text);
	struct err e;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama);
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%\"},"
		"{\"name\":\"down\",\"base_url\":\"http://127.0.0.1:%/none\"}]", b.fake[0].port);
	bed_new(&b);
	bed_start(&b);
	jw_obj(&w, NULL);
	inventory_json(b.inv, &w, "sources");
	jw_end(&w);
	assert_int_equal(jw_done(&w, &e), E_OK);
	assert_int_equal(buf_add(&text, "", 1, &e), E_OK);
	/* the second finds the list at the origin's /v1/models */
	assert_string_equal(text.p, "{\"sources\":[{\"source\":\"config\",\"name\":\"lab\",\"state\":\"ok\",\"agents\":2,\"error\":null},"
		"{\"source\":\"config\",\"name\":\"down\",\"state\":\"ok\",\"agents\":2,\"error\":null}]}");
	b.fake[0].answers = nothing;
	bed_next(&b);
	buf_clear(&text);
	w = JW(&text);
	inventory_json(b.inv, &w, NULL);
	assert_int_equal(jw_done(&w, &e), E_OK);
	assert_true(slice_contains_nocase(buf_slice(&text), SLICE("\"state\":\"stale\",\"agents\":2,\"error\":\"status 404\"")));
	bed_close(&b);
}

static void test_no_memory(void **state)
{
	struct bed b;
	enum errc rc = E_NO_MEMORY;
	uint64_t n = 0;

	(void)state;
	bed_open(&b);
	bed_load(&b, "\"mcoda_source\":true,\"ollama_source\":true,\"discovery_source\":true,\"upstreams_source\":true,"
		"\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:9\",\"headers\":{\"x-a\":\"1\"}}]");
	struct inventory_opts o = { .cfg = b.cfg, .loop = b.loop, .client = b.client };

	while (rc == E_NO_MEMORY && n < 300) {
		struct err e;

		mem_test_fail_at(++n, 0);
		rc = inventory_new(&o, &b.inv, &e);
		mem_test_fail_at(0, 0);
		assert_int_equal(b.inv != NULL, rc == E_OK);
	}
	assert_int_equal(rc, E_OK);
	assert_true(n > 20);
	bed_close(&b);
}

struct reader {
	struct thread thread;
	struct bed *bed;
	atomic_bool is_over;
	int rounds;
};

/* What routes do on their loops, against a supervisor that publishes. */
static void reader_run(void *arg)
{
	struct reader *r = arg;

	while (!atomic_load(&r->is_over)) {
		struct agents *l = inventory_get(r->bed->inv);
		AUTO_BUF text = BUF_MAX(4096);
		struct jw w = JW(&text);
		struct inventory_waiter waiter = { .msg.fn = bed_on_woken, .loop = r->bed->loop };
		const struct agent *found[AGENT_CANDIDATES_MAX];
		struct err e;
		size_t n;

		(void)!agents_resolve(l, SLICE("tiny"), found, &n, &e);
		agents_unref(l);
		inventory_json(r->bed->inv, &w, NULL);
		must(jw_done(&w, &e) == E_OK);
		must(!inventory_wait_first(r->bed->inv, &waiter));
		inventory_refresh(r->bed->inv);
		r->rounds++;
	}
}

static void test_threads(void **state)
{
	struct bed b;
	struct reader r = { .bed = &b };
	struct err e;

	(void)state;
	bed_open(&b);
	fake_open(&b.fake[0], b.loop, llama);
	bed_load_port(&b, "\"upstreams_source\":true,\"upstreams\":[{\"name\":\"lab\",\"base_url\":\"http://127.0.0.1:%\"}]", b.fake[0].port);
	b.cfg->inventory_refresh_ms = 100;
	bed_new(&b);
	bed_start(&b);
	assert_int_equal(thread_start(&r.thread, THREAD_LOOP, 0, reader_run, &r, &e), E_OK);
	for (int i = 0; i < 4; i++) {
		b.fake[0].answers = i % 2 ? llama : llama_later;
		b.want = bed_revision(&b) + 1;
		bed_wait(&b, bed_is_published);
	}
	atomic_store(&r.is_over, true);
	thread_join(&r.thread);
	assert_true(r.rounds > 0);
	bed_close(&b);
}

int main(void)
{
	static const char *const names[] = { "OLLAMA_HOST", "MSWARM_SELF_HOSTED_OLLAMA_BASE_URL", "MSWARM_DEMO" };
	struct err e;

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		unsetenv(names[i]);
	log_set_level(LOG_OFF);
	if (httpc_global_init(&e))
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config_entry), cmocka_unit_test(test_same_answer_is_no_revision),
		cmocka_unit_test(test_refresh_at_most_once_a_second), cmocka_unit_test(test_configured_models),
		cmocka_unit_test(test_chat_check_is_not_repeated), cmocka_unit_test(test_bad_entries_are_skipped),
		cmocka_unit_test(test_failing_source_fades), cmocka_unit_test(test_busy_runner_is_not_called_dead),
		cmocka_unit_test(test_stalled_source_holds_nobody_up), cmocka_unit_test(test_stop_wakes_who_waits),
		cmocka_unit_test(test_status), cmocka_unit_test(test_no_memory), cmocka_unit_test(test_threads),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	httpc_global_done();
	return failed;
}
