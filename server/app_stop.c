/*
 * The graceful stop: no new connections, running requests finish within the grace, what is left gets its last event,
 * the loops end, the supervisor ends. Main leads; the loops do their part by letters.
 * Rule: design.md 5.10 (libmicrohttpd aborts when a daemon is stopped with a suspended connection).
 */
#include "server/app_priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "llm/admission.h"

#include <unistd.h>

#define CHECK_MS 20
#define LAST_EVENTS_MS 2000    /* for clients to take what http_stop_all left for them */
#define CUT_MS 200             /* for the connections that were cut after that to end */
#define FORCE_MS 2000          /* then the process ends without the loops */

/* ---- THREAD(loop) ---- */

static void on_check(struct loop_timer *t)
{
	struct app_loop *l = CONTAINER_OF(t, struct app_loop, check);
	struct loop *loop = l->ctx->loop;
	int64_t now_ms = loop_now_ms(loop), over_ms = now_ms - l->deadline_mono_ms;

	/* Twice in a row: a request whose bytes were already here when we stopped accepting is still seen. */
	l->idle_checks = http_requests_open(l->http) ? 0 : l->idle_checks + 1;
	if (l->idle_checks >= 2 || over_ms >= LAST_EVENTS_MS + CUT_MS) {
		http_end_all(l->http);     /* idle connections: nobody would read what they still send */
		loop_stop(loop);
		return;
	}
	if (over_ms >= 0 && !l->is_told) {
		l->is_told = true;
		admission_close(l->a->svc.admission);
		http_stop_all(l->http);
	}
	if (over_ms >= LAST_EVENTS_MS && !l->is_cut) {
		l->is_cut = true;
		http_end_all(l->http);
	}
	loop_timer_set(loop, t, now_ms + CHECK_MS);
}

void app_on_stop(struct loop_msg *m)
{
	struct app_loop *l = CONTAINER_OF(m, struct app_loop, stop_msg);

	thread_must_be(THREAD_LOOP);
	http_quiesce(l->http);
	if (atomic_fetch_add(&l->a->loops_quiesced, 1) + 1 == l->a->loop_count)
		app_wake(l->a, APP_QUIESCED);
	l->deadline_mono_ms = loop_now_ms(l->ctx->loop) + l->grace_ms;
	l->check.fn = on_check;
	on_check(&l->check);
}

/* Posted after stop_msg, so the loop has begun to stop. */
void app_on_end(struct loop_msg *m)
{
	struct app_loop *l = CONTAINER_OF(m, struct app_loop, end_msg);

	l->deadline_mono_ms = loop_now_ms(l->ctx->loop);
	on_check(&l->check);
}

void app_on_trim(struct loop_msg *m)
{
	struct app_loop *l = CONTAINER_OF(m, struct app_loop, trim_msg);

	atomic_store(&l->is_trim_posted, false);
	httpc_trim(l->ctx->client);
	mem_trim_thread();
}

/* ---- main ---- */

static void post_stop(struct app *a, int64_t grace_ms)
{
	atomic_store(&a->svc.state.is_stopping, true);
	atomic_store(&a->shared.is_stopping, true);
	for (unsigned i = 0; i < a->loop_count; i++) {
		a->loops[i].grace_ms = grace_ms;
		loop_post(a->loops[i].ctx->loop, &a->loops[i].stop_msg);
	}
}

static void post_end(struct app *a)
{
	for (unsigned i = 0; i < a->loop_count; i++)
		loop_post(a->loops[i].ctx->loop, &a->loops[i].end_msg);
}

/* A loop that does not end would keep the process for ever: leave without it. What was acknowledged is on disk. */
static void leave_by_force(void)
{
	log_event(LOG_ERROR, "node.forced", "what=\"a loop did not end; leaving without it\"");
	log_stop();
	_exit(1);
}

static void wait_for_loops(struct app *a, int64_t grace_ms, unsigned signals)
{
	int64_t force_mono_ms = clock_mono_ms() + grace_ms + LAST_EVENTS_MS + CUT_MS + FORCE_MS;
	unsigned ended = a->svc.gateway ? 0 : APP_GATEWAY_ENDED;
	bool is_urgent = false;

	while (true) {
		int64_t left_ms = force_mono_ms - clock_mono_ms();
		unsigned events = app_wait(a, left_ms > 0 ? left_ms : 0, &signals);

		/* Now nobody accepts any more: refuse new connections instead of leaving them in the queue. */
		if ((events & APP_QUIESCED) && a->listen_fd >= 0) {
			(void)close(a->listen_fd);
			a->listen_fd = -1;
		}
		ended |= events & (APP_LOOPS_ENDED | APP_GATEWAY_ENDED);
		if (ended == (APP_LOOPS_ENDED | APP_GATEWAY_ENDED))
			return;
		if (signals >= 2 && !is_urgent) {
			is_urgent = true;
			force_mono_ms = clock_mono_ms() + LAST_EVENTS_MS + FORCE_MS;
			log_event(LOG_INFO, "node.hurried", "signals=%u", signals);
			if (a->svc.gateway)
				gateway_stop(a->svc.gateway, 0);
			post_end(a);
		}
		if (signals >= 3 || clock_mono_ms() >= force_mono_ms)
			leave_by_force();
	}
}

void app_stop(struct app *a, int64_t grace_ms, unsigned signals)
{
	thread_must_be(THREAD_MAIN);
	if (a->svc.gateway)
		gateway_stop(a->svc.gateway, grace_ms);
	post_stop(a, grace_ms);
	wait_for_loops(a, grace_ms, signals);
	for (unsigned i = 0; i < a->loop_count; i++)
		thread_join(&a->loops[i].thread);
	loop_post(a->super, &a->super_stop_msg);
	thread_join(&a->super_thread);
	app_tell_stalls(a);
}
