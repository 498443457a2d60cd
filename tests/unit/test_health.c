/* routes/healthz.c, routes/readyz.c: the truth about the store, the loops, draining. */
#include "routes/route.h"
#include "tests/support/store_bed.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct world {
	struct bed b;
	struct svc svc;
	struct loop_ctx ctx[2];
	struct req q;
};

static bool is_idle(struct bed *b)
{
	return atomic_load(&b->s->busy_since_mono_ms) == 0;
}

static void open_world(struct world *w)
{
	struct err e;

	*w = (struct world){ 0 };
	bed_init(&w->b, NULL);
	bed_open(&w->b);
	assert_true(bed_wait_until(is_idle, &w->b, 5000));     /* or turning the clock would make it look stuck */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(loop_new("loop", &w->ctx[i].loop, &e), E_OK);
	w->ctx[0].svc = w->ctx[1].svc = &w->svc;
	w->svc.store = w->b.s;
	w->svc.node_id = "n\"1";
	w->svc.loops = w->ctx;
	w->svc.loop_count = 2;
	w->q.ctx = &w->ctx[0];
}

static void close_world(struct world *w)
{
	for (unsigned i = 0; i < 2; i++)
		loop_free(w->ctx[i].loop);
	bed_done(&w->b);
}

static void expect(struct world *w, enum errc (*handle)(struct req *, struct reply *, struct err *), int status, const char *body)
{
	struct reply rep = { .body = BUF_MAX(4096) };
	struct err e;

	assert_int_equal(handle(&w->q, &rep, &e), E_OK);
	assert_int_equal(rep.status, status);
	assert_string_equal(buf_cstr(&rep.body), body);
	buf_done(&rep.body);
}

#define BODY(rest) "{\"service\":\"mswarm-self-hosted-node\",\"status\":" rest "}"

static void beat(struct world *w, unsigned i)
{
	struct loop_stats *st = (struct loop_stats *)loop_stats(w->ctx[i].loop);

	atomic_store(&st->beat_mono_ms, clock_mono_ms());
}

static void test_loops(void **state)
{
	struct world w;

	(void)state;
	open_world(&w);
	expect(&w, route_healthz, 200, BODY("\"ok\",\"node_id\":\"n\\\"1\""));
	clock_test_advance_ms(4900);
	expect(&w, route_healthz, 200, BODY("\"ok\",\"node_id\":\"n\\\"1\""));
	clock_test_advance_ms(2200);
	beat(&w, 0);
	expect(&w, route_healthz, 503, BODY("\"degraded\",\"node_id\":\"n\\\"1\",\"reason\":\"loop 1: no turn for 7 s\""));
	beat(&w, 1);
	expect(&w, route_healthz, 200, BODY("\"ok\",\"node_id\":\"n\\\"1\""));
	close_world(&w);
}

static void test_store(void **state)
{
	struct world w;

	(void)state;
	open_world(&w);
	bed_hold(&w.b);                        /* the writer is busy with one body and does not come on */
	clock_test_advance_ms(6100);
	beat(&w, 0);
	beat(&w, 1);
	expect(&w, route_healthz, 503, BODY("\"degraded\",\"node_id\":\"n\\\"1\",\"reason\":\"store: no progress for 6 s\""));
	bed_go(&w.b);
	bed_collect(&w.b);
	atomic_store(&w.b.s->state, STORE_FULL);
	expect(&w, route_healthz, 503, BODY("\"degraded\",\"node_id\":\"n\\\"1\",\"reason\":\"store: disk_full\""));
	expect(&w, route_readyz, 200, "{\"status\":\"ready\"}");
	atomic_store(&w.b.s->state, STORE_BROKEN);
	expect(&w, route_healthz, 503, BODY("\"degraded\",\"node_id\":\"n\\\"1\",\"reason\":\"store: sync_failed\""));
	expect(&w, route_readyz, 503, "{\"status\":\"not_ready\",\"reason\":\"store_read_only\"}");
	atomic_store(&w.b.s->state, STORE_OK);
	close_world(&w);
}

static void test_ready(void **state)
{
	struct world w;

	(void)state;
	open_world(&w);
	expect(&w, route_readyz, 200, "{\"status\":\"ready\"}");
	atomic_store(&w.svc.state.drain, DRAIN_ON);
	expect(&w, route_readyz, 200, "{\"status\":\"ready\"}");
	atomic_store(&w.svc.state.drain, DRAIN_ALL);
	expect(&w, route_readyz, 503, "{\"status\":\"not_ready\",\"reason\":\"node_draining\"}");
	atomic_store(&w.svc.state.is_stopping, true);
	expect(&w, route_readyz, 503, "{\"status\":\"not_ready\",\"reason\":\"node_stopping\"}");
	expect(&w, route_healthz, 200, BODY("\"ok\",\"node_id\":\"n\\\"1\""));
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_loops), cmocka_unit_test(test_store), cmocka_unit_test(test_ready) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
