/*
 * The supervisor's own work beside inventory and control socket: it watches the load and gives memory back when that has
 * fallen, and tells of loops that stalled. THREAD(supervisor).
 */
#include "server/app_priv.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <unistd.h>

#define TICK_BUSY_MS 1000
#define TICK_IDLE_MS 2500
#define TRIM_AFTER_MS 4000     /* design.md 5.20: with the two ticks of a trim, five to six seconds */
#define LOAD_QUIET 8           /* connections and requests that count as none */
#define GROWN_BYTES (2 << 20)  /* less than that is not worth the walk through the heaps */
#define STALLS_EVERY_MS 60000

void app_super_run(void *arg)
{
	struct app *a = arg;

	loop_run(a->super);
}

/* ---- memory ---- */

/* Pages of this process that are in memory, in bytes; 0 when that cannot be told. */
static int64_t resident_bytes(void)
{
	AUTO_BUF text = BUF_MAX(256);
	struct slice rest, all, resident;
	int64_t pages = 0;

	if (file_read("/proc/self/statm", &text, NULL) != E_OK)
		return 0;
	rest = buf_slice(&text);
	if (!slice_next(&rest, ' ', &all) || !rest.p || !slice_next(&rest, ' ', &resident) ||
	    !slice_to_i64(resident, 0, INT64_MAX / 65536, &pages))
		return 0;
	return pages * sysconf(_SC_PAGESIZE);
}

static void trim_work(struct pool_job *j)
{
	(void)j;
	mem_trim();                /* walks the heaps: some milliseconds, so not on a loop */
}

static int64_t load_now(struct app *a)
{
	struct admission_stats st = { 0 };
	int64_t load = atomic_load(&a->shared.connections);

	admission_stats(a->svc.admission, &st);
	for (size_t i = 0; i < ADMIT__COUNT; i++)
		load += st.running[i] + st.queued[i];
	return load;
}

static void on_trimmed(struct loop_msg *m)
{
	struct pool_job *j = CONTAINER_OF(m, struct pool_job, done);
	struct app *a = CONTAINER_OF(j, struct app, trim_job);

	int64_t resident = resident_bytes();

	a->is_trimming = false;
	/* Trimmed under load, it is to be tried again when that is gone. */
	if (resident < a->resident_floor || load_now(a) <= LOAD_QUIET)
		a->resident_floor = resident;
	log_event(LOG_DEBUG, "memory.trimmed", "resident=%lld", (long long)resident);
}

/* First the loops let go of what they keep for the next request; a tick later the heaps give the pages back. */
static void trim_loops(struct app *a)
{
	mem_trim_begin();
	for (unsigned i = 0; i < a->svc.loop_count; i++)
		if (!atomic_exchange(&a->loops[i].is_trim_posted, true))
			loop_post(a->ctxs[i].loop, &a->loops[i].trim_msg);
	httpc_trim(a->super_client);
	mem_trim_thread();
	a->is_trim_due = true;
}

static void trim_heap(struct app *a)
{
	a->is_trim_due = false;
	a->trim_job = (struct pool_job){ .work = trim_work, .loop = a->super, .done = { .fn = on_trimmed } };
	a->is_trimming = pool_submit(a->svc.pool, &a->trim_job, NULL) == E_OK;
}

/*
 * Load at half its peak or less for five seconds, and memory grown since the last time: it is not needed any more. A
 * burst between two ticks has no peak here, but its memory is seen.
 */
static void watch_load(struct app *a, int64_t load, int64_t now_ms)
{
	int64_t resident = resident_bytes();

	if (a->is_trim_due)
		trim_heap(a);
	if (load >= a->load_peak)
		a->load_peak = load;
	if (!a->resident_floor)
		a->resident_floor = resident;
	if ((load > a->load_peak / 2 && load > LOAD_QUIET) || resident < a->resident_floor + GROWN_BYTES) {
		a->fell_mono_ms = 0;
		return;
	}
	if (!a->fell_mono_ms)
		a->fell_mono_ms = now_ms;
	if (now_ms - a->fell_mono_ms < TRIM_AFTER_MS || a->is_trimming || atomic_load(&a->svc.state.is_stopping))
		return;
	log_event(LOG_DEBUG, "memory.trimming", "peak=%lld load=%lld resident=%lld", (long long)a->load_peak, (long long)load,
		  (long long)resident);
	trim_loops(a);
	a->load_peak = load;
	a->fell_mono_ms = 0;
}

/* ---- stalls ---- */

void app_tell_stalls(struct app *a)
{
	for (unsigned i = 0; i < a->svc.loop_count; i++) {
		const struct loop_stats *st = loop_stats(a->ctxs[i].loop);
		int64_t count = atomic_load(&st->stall_5ms_count);

		if (count == a->loops[i].stalls_seen)
			continue;
		log_event(LOG_WARN, "loop.stalled", "loop=%s count=%lld max_us=%lld", loop_name(a->ctxs[i].loop),
			  (long long)(count - a->loops[i].stalls_seen), (long long)atomic_load(&st->stall_max_us));
		a->loops[i].stalls_seen = count;
	}
}

static void on_tick(struct loop_timer *t)
{
	struct app *a = CONTAINER_OF(t, struct app, tick);
	int64_t now_ms = loop_now_ms(a->super), load = load_now(a);

	watch_load(a, load, now_ms);
	if (now_ms - a->stalls_told_mono_ms >= STALLS_EVERY_MS) {
		a->stalls_told_mono_ms = now_ms;
		app_tell_stalls(a);
	}
	loop_timer_set(a->super, t, now_ms + (load || a->fell_mono_ms || a->is_trim_due ? TICK_BUSY_MS : TICK_IDLE_MS));
}

/* ---- start and stop ---- */

static void on_first_inventory(struct loop_msg *m)
{
	struct inventory_waiter *w = CONTAINER_OF(m, struct inventory_waiter, msg);

	app_wake(CONTAINER_OF(w, struct app, first_inventory), APP_INVENTORY);
}

void app_on_super_start(struct loop_msg *m)
{
	struct app *a = CONTAINER_OF(m, struct app, super_start_msg);

	thread_must_be(THREAD_SUPER);
	inventory_start(a->svc.inventory);
	capability_probe_start(a->svc.probe);
	supervisor_start(a->svc.supervisor);
	a->first_inventory.msg.fn = on_first_inventory;
	a->first_inventory.loop = a->super;
	if (!inventory_wait_first(a->svc.inventory, &a->first_inventory))
		app_wake(a, APP_INVENTORY);
	a->tick.fn = on_tick;
	on_tick(&a->tick);
}

void app_on_super_stop(struct loop_msg *m)
{
	struct app *a = CONTAINER_OF(m, struct app, super_stop_msg);

	thread_must_be(THREAD_SUPER);
	(void)inventory_wait_cancel(a->svc.inventory, &a->first_inventory);
	inventory_stop(a->svc.inventory);
	capability_probe_stop(a->svc.probe);
	supervisor_stop(a->svc.supervisor);
	loop_timer_cancel(a->super, &a->tick);
	loop_stop(a->super);
}
