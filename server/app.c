/*
 * The node as a whole: made, ready line, waiting for signals, freed in reverse order. Called by cmd_serve on main.
 */
#include "server/app_priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/artifact_files.h"
#include "jobs/subs.h"
#include "server/log_tail.h"
#include "server/notify.h"

#include <errno.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define BROKEN_DRAIN_MS 25000  /* with the stop behind it below the 30 s of design.md 5.17 */
#define BROKEN_GRACE_MS 1000

void app_wake(struct app *a, enum app_event what)
{
	const uint64_t one = 1;

	atomic_fetch_or(&a->events, (unsigned)what);
	if (write(a->wake_fd, &one, sizeof(one)) < 0)
		must(errno == EAGAIN); /* the counter is full: main is awake */
}

enum errc app_new(const struct app_opts *o, struct app **ret, struct err *e)
{
	struct app *a = NEW(struct app);

	thread_must_be(THREAD_MAIN);
	if (!a)
		return err_set(e, E_NO_MEMORY, "no memory");
	a->o = *o;
	a->cfg = o->cfg;
	a->lock_fd = a->listen_fd = a->wake_fd = a->signal_fd = -1;
	enum errc rc = app_boot(a, e);

	if (rc) {
		app_free(a);
		return rc;
	}
	*ret = a;
	return E_OK;
}

struct svc *app_svc(struct app *a)
{
	return &a->svc;
}

unsigned app_wait(struct app *a, int64_t timeout_ms, unsigned *signals)
{
	struct pollfd fds[2] = { { .fd = a->signal_fd, .events = POLLIN }, { .fd = a->wake_fd, .events = POLLIN } };
	struct signalfd_siginfo info;
	uint64_t count;

	(void)poll(fds, 2, timeout_ms < 0 ? -1 : timeout_ms > 60000 ? 60000 : (int)timeout_ms);
	if (read(a->wake_fd, &count, sizeof(count)) < 0)
		must(errno == EAGAIN);
	while (read(a->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		(*signals)++;
	return atomic_exchange(&a->events, 0);
}

/* The store will take nothing more: running chats may finish, new work is refused, then the node leaves to be restarted. */
static void drain_broken(struct app *a, unsigned *signals)
{
	int64_t end_ms = clock_mono_ms() + BROKEN_DRAIN_MS;

	log_event(LOG_ERROR, "store.broken", "what=\"a sync failed; draining, then leaving to be restarted\"");
	atomic_store(&a->svc.state.drain, DRAIN_ALL);
	while (clock_mono_ms() < end_ms && *signals == 0) {
		struct admission_stats st = { 0 };
		int64_t left = 0;

		admission_stats(a->svc.admission, &st);
		for (size_t i = 0; i < ADMIT__COUNT; i++)
			left += st.running[i] + st.queued[i];
		if (left == 0)
			return;
		(void)app_wait(a, 100, signals);
	}
}

/* ---- what main looks after while it waits ---- */

#define LOOK_MS 10000          /* log files; without a manager that wants to hear of us */
#define LOOP_DEAD_MS 20000     /* each loop has a timer of a second or two */
#define STORE_DEAD_MS 20000

static bool is_ticking(const struct loop *l)
{
	return clock_mono_ms() - atomic_load(&loop_stats(l)->beat_mono_ms) < LOOP_DEAD_MS;
}

/* Every loop turns and the store answers. A gateway that is away is no reason to be restarted. */
static bool is_alive(struct app *a)
{
	bool is_it = is_ticking(a->super) && store_stuck_ms(a->svc.store) < STORE_DEAD_MS;

	for (unsigned i = 0; i < a->loop_count; i++)
		is_it = is_it && is_ticking(a->ctxs[i].loop);
	return is_it && (!a->svc.gateway || is_ticking(gateway_loop(a->svc.gateway)));
}

static void turn_logs(struct app *a)
{
	static const char *const names[] = { "daemon.log", "daemon.err.log" };

	for (int fd = 1; fd <= 2; fd++) {
		AUTO_BUF path = BUF_MAX(4096);

		if (!buf_addf(&path, NULL, "%s/.mswarm/self-hosted-node/%s", a->cfg->home, names[fd - 1]))
			log_rotate(fd, buf_cstr(&path), a->cfg->log_max_mb << 20);
	}
}

static void look_after(struct app *a, int64_t watchdog_ms, int64_t *fed_mono_ms)
{
	int64_t now = clock_mono_ms();

	if (now - *fed_mono_ms < (watchdog_ms ? watchdog_ms / 3 : LOOK_MS))
		return;
	*fed_mono_ms = now;
	turn_logs(a);
	if (!watchdog_ms)
		return;
	if (is_alive(a))
		(void)notify_send("WATCHDOG=1");
	else
		log_event(LOG_ERROR, "watchdog.starved", "what=\"a loop or the store does not move; the service manager will restart the node\"");
}

enum errc app_run(struct app *a, int *ret_exit, struct err *e)
{
	int64_t watchdog_ms = notify_watchdog_ms(), fed_mono_ms = 0;
	unsigned signals = 0;
	bool is_broken = false, wants_banner = a->o.is_verbose || isatty(STDOUT_FILENO) == 1;

	(void)e;
	thread_must_be(THREAD_MAIN);
	app_print_ready(a);
	(void)notify_send("READY=1\nSTATUS=serving");
	while (signals == 0 && !is_broken) {
		look_after(a, watchdog_ms, &fed_mono_ms);
		unsigned events = app_wait(a, watchdog_ms ? watchdog_ms / 3 : LOOK_MS, &signals);

		is_broken = events & APP_BROKEN;
		if ((events & APP_INVENTORY) && wants_banner)
			app_print_banner(a);
	}
	(void)notify_send("STOPPING=1\nSTATUS=stopping");
	atomic_store(&a->svc.state.is_stopping, true);   /* before the word: who reads it may rely on it */
	log_event(LOG_INFO, "node.stopping", "reason=%s", is_broken ? "store_broken" : "signal");
	if (is_broken)
		drain_broken(a, &signals);
	app_stop(a, is_broken ? BROKEN_GRACE_MS : a->cfg->stop_grace_ms, is_broken ? 0 : signals);
	log_event(LOG_INFO, "node.stopped", "uptime_ms=%lld", (long long)(clock_mono_ms() - a->svc.started_mono_ms));
	*ret_exit = is_broken ? 1 : 0;
	return E_OK;
}

/* ---- freeing: the reverse of app_boot.c ---- */

/* Threads that still run: only after a boot that failed half-way; nothing is in progress yet. */
static void end_threads(struct app *a)
{
	for (unsigned i = 0; i < a->loop_count; i++) {
		if (a->loops[i].thread.is_started)
			loop_stop(a->ctxs[i].loop);
		thread_join(&a->loops[i].thread);
	}
	if (a->super_thread.is_started)
		loop_post(a->super, &a->super_stop_msg);
	thread_join(&a->super_thread);
}

static void free_loop(struct app_loop *l)
{
	struct loop_ctx *ctx = l->ctx;

	if (!ctx)
		return;
	/* With a request left open libmicrohttpd would abort: then its memory stays, the process ends anyway. */
	if (l->http && http_requests_open(l->http) == 0)
		http_free(l->http);
	else if (l->http)
		log_event(LOG_WARN, "http.abandoned", "requests=%zu", http_requests_open(l->http));
	httpc_free(ctx->client);
	if (ctx->accounting)
		accounting_flush_wait(ctx->accounting);
	accounting_free(ctx->accounting);
	models_cache_done(&ctx->models);
	store_reader_close(ctx->reader);
}

static void free_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static void free_pem(char *pem)
{
	if (pem)
		mem_wipe(pem, strlen(pem));
	mem_free(pem);
}

void app_free(struct app *a)
{
	if (!a)
		return;
	thread_must_be(THREAD_MAIN);
	end_threads(a);
	control_stop(a->control);
	if (a->svc.gateway) {
		gateway_stop(a->svc.gateway, 0);       /* ended already, but after a boot that failed half-way */
		gateway_join(a->svc.gateway);
	}
	if (a->gateway_books)
		accounting_flush_wait(a->gateway_books);
	accounting_free(a->gateway_books);
	for (unsigned i = 0; i < a->loop_count; i++)
		free_loop(&a->loops[i]);
	pool_free(a->svc.reads);
	pool_free(a->svc.pool);
	auth_free(a->svc.auth);
	store_reader_close(a->svc.reads_reader);
	store_reader_close(a->super_reader);
	store_close(a->svc.store);
	/* The store's last letters went to loops that do not run any more: their senders are freed with these two. */
	control_free(a->control);
	gateway_free(a->svc.gateway);
	admission_free(a->svc.admission);
	inventory_free(a->svc.inventory);
	httpc_free(a->super_client);
	outcomes_free(a->svc.outcomes);
	supervisor_free(a->svc.supervisor);
	capability_probe_free(a->svc.probe);
	subs_free(a->svc.subs);
	artifact_files_free(a->svc.files);
	for (unsigned i = 0; i < a->loop_count; i++)
		loop_free(a->ctxs[i].loop);
	loop_free(a->super);
	http_peers_free(a->shared.peers);
	free_fd(&a->listen_fd);
	free_fd(&a->lock_fd);
	if (a->has_httpc)
		httpc_global_done();
	if (a->has_log)
		log_stop();
	log_secrets_clear();
	free_fd(&a->signal_fd);
	free_fd(&a->wake_fd);
	free_pem(a->shared.tls_cert_pem);
	free_pem(a->shared.tls_key_pem);
	secret_done(&a->secret);
	mem_free(a->node_id);
	mem_free(a);
}
