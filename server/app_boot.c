/*
 * The boot, in order: state folder, lock, store, secret, auth, inventory, admission, socket, loops, supervisor. Nothing
 * here waits for a network or a process: the node answers /healthz a few milliseconds after it was started.
 * Called by app_new on main.
 */
#include "server/app_priv.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/artifact_files.h"
#include "jobs/subs.h"
#include "server/dispatch.h"
#include "server/nodeid.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define POOL_THREADS 2
#define POOL_QUEUE 1024
#define TLS_FILE_MAX (256 * 1024)
#define PROBE_EVERY_MS 300000
#define NOFILE_MAX (1 << 20)
#define NOFILE_RESERVE 256     /* files, readers, probes: what is no client and no runner */

/* nohup and background shells ignore signals for us; once blocked, they would arrive all the same. */
static void add_unless_ignored(sigset_t *set, int number)
{
	struct sigaction now;

	if (sigaction(number, NULL, &now) == 0 && now.sa_handler != SIG_IGN)
		sigaddset(set, number);
}

static uint64_t files_wanted(const struct config *cfg)
{
	return 2 * (uint64_t)cfg->max_connections + NOFILE_RESERVE;
}

/*
 * The kernel doubles a process's table of descriptors when it is full, and once there are threads, whoever opens the next one sleeps
 * for that until every processor has been seen idle: 10 to 30 ms. Now there is one thread, and the table never shrinks.
 */
static void size_file_table(int any_fd, uint64_t count)
{
	struct rlimit now;
	int last;

	if (getrlimit(RLIMIT_NOFILE, &now))
		return;
	if (count > now.rlim_cur)
		count = now.rlim_cur;
	last = fcntl(any_fd, F_DUPFD_CLOEXEC, (int)count - 1);
	if (last >= 0)
		(void)close(last);
}

static enum errc open_process(struct app *a, struct err *e)
{
	const struct sigaction ignore = { .sa_handler = SIG_IGN };
	sigset_t ours;
	enum errc rc;

	umask(077);
	sigaction(SIGPIPE, &ignore, NULL);
	if (getrlimit(RLIMIT_NOFILE, &a->nofile_before) == 0) {
		struct rlimit more = a->nofile_before;

		more.rlim_cur = more.rlim_max < NOFILE_MAX ? more.rlim_max : NOFILE_MAX;
		if (more.rlim_cur > a->nofile_before.rlim_cur)
			(void)setrlimit(RLIMIT_NOFILE, &more);
	}
	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	add_unless_ignored(&ours, SIGINT);
	add_unless_ignored(&ours, SIGHUP);
	if (pthread_sigmask(SIG_BLOCK, &ours, NULL) != 0)
		return err_set(e, E_INTERNAL, "cannot block signals");
	a->signal_fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
	a->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (a->signal_fd < 0 || a->wake_fd < 0)
		return err_set_os(e, E_IO, errno, "cannot watch signals");
	size_file_table(a->wake_fd, files_wanted(a->cfg));
	rc = crypto_init(e);
	if (rc == E_OK)
		rc = httpc_global_init(e);
	a->has_httpc = rc == E_OK;
	return rc;
}

static void tell_warnings(const struct config *cfg)
{
	char quoted[LOG_MSG_MAX / 2];

	for (size_t i = 0; i < cfg->warnings.n; i++)
		log_event(LOG_WARN, "config.warned", "what=%s", log_quote(slice_str(cfg->warnings.v[i]), quoted, sizeof(quoted)));
}

static enum errc open_log(struct app *a, struct err *e)
{
	enum log_level level;

	if (!log_level_parse(slice_str(a->cfg->log_level), &level))
		return err_set(e, E_INVALID_VALUE, "log_level: debug, info, warn, error or off, not \"%.32s\"", a->cfg->log_level);
	log_set_level(level);
	enum errc rc = log_start(e);

	a->has_log = rc == E_OK;
	if (rc == E_OK)
		tell_warnings(a->cfg);
	return rc;
}

/* The node's folder becomes 0700: never do that to a folder that is everybody's, such as /tmp. */
static enum errc open_state_dir(struct app *a, struct err *e)
{
	const char *dir = a->cfg->state_dir;
	struct stat st;

	if (stat(dir, &st) == 0 && (st.st_mode & (S_ISVTX | S_IWOTH)))
		return err_set(e, E_FORBIDDEN, "%s: others may write here; the node needs a state folder of its own", dir);
	enum errc rc = file_make_private_dir(dir, e);

	if (rc)
		return rc;
	AUTO_FREE char *lock = file_join(dir, "lock");

	if (!lock)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = file_lock(lock, &a->lock_fd, e);
	return rc == E_CONFLICT ? err_prefix(e, "another node runs on this state folder") : rc;
}

static void on_store_broken(void *ctx)
{
	app_wake(ctx, APP_BROKEN);
}

static enum errc open_store(struct app *a, struct err *e)
{
	AUTO_FREE char *path = file_join(a->cfg->state_dir, "node.db");

	if (!path)
		return err_set(e, E_NO_MEMORY, "no memory");
	const struct store_opts o = { .path = path, .max_queued = (size_t)a->cfg->store_queue_max,
				      .on_broken = on_store_broken, .ctx = a };

	return store_open(&o, &a->svc.store, e);
}

static enum errc open_identity(struct app *a, struct err *e)
{
	const struct config *cfg = a->cfg;
	enum errc rc = nodeid_get(cfg, &a->node_id, e);

	if (rc == E_OK)
		rc = nodeid_secret(cfg, &a->secret, e);
	if (rc)
		return rc;
	log_secret_add(secret_slice(&a->secret));
	log_secret_add(slice_str(cfg->runtime_token));
	log_secret_add(slice_str(cfg->enrollment_token));
	a->svc.node_id = a->node_id;
	a->svc.signing_secret = secret_slice(&a->secret);
	a->svc.is_secret_shared = cfg->is_signing_secret_shared;
	if (cfg->mode == MODE_DIRECT && *cfg->direct_base_url && !cfg->is_signing_secret_shared)
		log_event(LOG_WARN, "secret.unshared", "what=\"direct jobs from a gateway are refused: set "
			  "MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET to the secret that the gateway signs with\"");
	return E_OK;
}

static enum errc open_auth(struct app *a, struct err *e)
{
	struct store_reader *reader = NULL;
	enum errc rc = store_reader_open(a->svc.store, &reader, e);

	if (rc == E_OK)
		rc = auth_new(a->cfg, reader, &a->svc.auth, e);
	store_reader_close(reader);
	return rc;
}

/* Kept-alive connections to one runner, for each loop. */
#define IDLE_PER_RUNNER 32

static struct httpc_opts client_opts(void)
{
	return (struct httpc_opts){ .user_agent = "mswarm/" MSWARM_VERSION, .max_idle_per_host = IDLE_PER_RUNNER };
}

/* The supervisor's loop with what lives on it; it does not run yet. */
static enum errc open_supervisor(struct app *a, struct err *e)
{
	const struct httpc_opts client = client_opts();
	enum errc rc = loop_new("supervisor", &a->super, e);

	if (rc == E_OK)
		rc = httpc_new(a->super, &client, &a->super_client, e);
	if (rc)
		return rc;
	const struct inventory_opts o = { .cfg = a->cfg, .loop = a->super, .client = a->super_client };

	return inventory_new(&o, &a->svc.inventory, e);
}

static enum errc open_work(struct app *a, struct err *e)
{
	const struct config *cfg = a->cfg;
	const struct admission_opts o = {
		.bound = { [ADMIT_LOCAL] = cfg->max_local_requests, [ADMIT_JOB] = cfg->max_concurrent_llm_jobs + cfg->reserved_llm_jobs },
		.max_queued = cfg->max_queued_requests,
	};
	enum errc rc = E_OK;

	if (cfg->reserved_llm_jobs && cfg->max_concurrent_jobs < cfg->max_concurrent_llm_jobs + cfg->reserved_llm_jobs)
		return err_set(e, E_INVALID_VALUE, "max_concurrent_jobs: %lld, below max_concurrent_llm_jobs and reserved_llm_jobs together (%lld + %lld)",
			       (long long)cfg->max_concurrent_jobs, (long long)cfg->max_concurrent_llm_jobs, (long long)cfg->reserved_llm_jobs);
	rc = admission_new(&o, &a->svc.admission, e);
	if (!rc)
		rc = outcomes_new(&a->svc.outcomes, e);
	if (!rc)
		rc = pool_new(POOL_THREADS, 0, POOL_QUEUE, &a->svc.pool, e);
	return rc ? rc : pool_new(1, POOL_THREADS, POOL_QUEUE, &a->svc.reads, e);
}

/* The shim is installed beside the program. */
static char *shim_path(void)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return NULL;
	self[n] = '\0';
	AUTO_FREE char *folder = file_dirname(self);

	return folder ? file_join(folder, "mswarm-shim") : NULL;
}

static enum errc open_files(struct app *a, struct err *e)
{
	const struct config *cfg = a->cfg;
	const struct artifact_limits limits = { .max = cfg->artifact_max_mb << 20, .quota = cfg->artifact_quota_mb << 20,
						.keep_free = cfg->artifact_free_mb << 20 };

	return artifact_files_open(cfg->artifact_path, &limits, &a->svc.files, e);
}

static void on_job_end(void *ctx, int64_t took_ms, const char *code)
{
	outcomes_add(((struct app *)ctx)->svc.outcomes, OUTCOME_GENERIC, took_ms, code);
}

/* The job plane: with the feature off what runs is still followed to its end, and nothing begins. */
static enum errc open_jobs(struct app *a, struct err *e)
{
	const struct config *cfg = a->cfg;
	enum errc rc = store_reader_open(a->svc.store, &a->super_reader, e);
	AUTO_FREE char *folder = file_join(cfg->state_dir, "jobs");
	AUTO_FREE char *shim = shim_path();

	if (!rc)
		rc = store_reader_open(a->svc.store, &a->svc.reads_reader, e);
	if (rc)
		return rc;
	if (!folder || !shim)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = open_files(a, e);
	if (!rc)
		rc = subs_new(&a->svc.subs, e);
	if (rc)
		return rc;
	const struct capability_probe_opts probe = { .loop = a->super, .limit_ms = cfg->capability_probe_timeout_ms, .every_ms = PROBE_EVERY_MS,
						     .is_off = !cfg->capability_probes };

	rc = capability_probe_new(&probe, &a->svc.probe, e);
	if (rc)
		return rc;
	const struct supervisor_opts o = {
		.loop = a->super, .store = a->svc.store, .reader = a->super_reader, .pool = a->svc.pool, .subs = a->svc.subs, .files = a->svc.files, .folder = folder, .shim = shim,
		.probe = a->svc.probe, .drain = &a->svc.state.drain, .is_off = !cfg->is_generic_jobs_on,
		.keep = { .age_ms = cfg->job_keep_days * 86400000, .count = cfg->job_keep_max, .bytes = cfg->job_keep_mb << 20 },
		.on_end = on_job_end, .ctx = a, .max_active = cfg->generic_job_max_concurrency, .grace_ms = cfg->job_grace_ms, .nofile = (int64_t)a->nofile_before.rlim_cur,
		.timeout_ms = cfg->generic_job_timeout_ms ? cfg->generic_job_timeout_ms : cfg->job_timeout_ms,
	};

	return supervisor_new(&o, &a->svc.supervisor, e);
}

static enum errc read_tls(const char *path, bool is_private, char **ret, struct err *e)
{
	AUTO_BUF text = BUF_MAX(TLS_FILE_MAX);
	enum errc rc = is_private ? file_read_private(path, &text, e) : file_read(path, &text, e);

	if (rc)
		return rc;
	*ret = buf_take(&text, NULL);
	return *ret ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
}

static enum errc open_socket(struct app *a, struct err *e)
{
	const struct config *cfg = a->cfg;
	struct rlimit now = { .rlim_cur = 1024 };
	enum errc rc = E_OK;

	if (!*cfg->tls_cert != !*cfg->tls_key)
		return err_set(e, E_INVALID_VALUE, "tls_cert and tls_key: both or none");
	if (*cfg->tls_cert)
		rc = read_tls(cfg->tls_cert, false, &a->shared.tls_cert_pem, e);
	if (rc == E_OK && *cfg->tls_key)
		rc = read_tls(cfg->tls_key, true, &a->shared.tls_key_pem, e);
	if (rc)
		return rc;
	/* A streaming client needs a descriptor here and one at the runner. */
	(void)getrlimit(RLIMIT_NOFILE, &now);
	uint64_t room = now.rlim_cur > 2 * NOFILE_RESERVE ? (now.rlim_cur - NOFILE_RESERVE) / 2 : NOFILE_RESERVE / 2;

	a->shared.max_connections = (uint64_t)cfg->max_connections < room ? (uint64_t)cfg->max_connections : room;
	if (a->shared.max_connections < (uint64_t)cfg->max_connections)
		log_event(LOG_INFO, "limit.lowered", "max_connections=%llu files=%llu",
			  (unsigned long long)a->shared.max_connections, (unsigned long long)now.rlim_cur);
	rc = http_peers_new(&a->shared.peers, e);
	if (rc)
		return rc;
	return http_listen(cfg->listen_host, (int)cfg->listen_port, &a->listen_fd, &a->svc.port, e);
}

static unsigned wanted_loops(const struct config *cfg)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (cfg->loops > 0)
		return cfg->loops < APP_LOOPS_MAX ? (unsigned)cfg->loops : APP_LOOPS_MAX;
	return cores < 1 ? 1 : cores < 4 ? (unsigned)cores : 4;
}

static enum errc open_loop(struct app *a, unsigned i, struct err *e)
{
	const struct httpc_opts client = client_opts();
	struct loop_ctx *ctx = &a->ctxs[i];
	struct app_loop *l = &a->loops[i];

	snprintf(l->name, sizeof(l->name), "loop%u", i);
	*ctx = (struct loop_ctx){ .svc = &a->svc, .index = i };
	l->a = a;
	l->ctx = ctx;
	l->stop_msg.fn = app_on_stop;
	l->end_msg.fn = app_on_end;
	l->trim_msg.fn = app_on_trim;
	enum errc rc = loop_new(l->name, &ctx->loop, e);

	if (rc == E_OK)
		rc = httpc_new(ctx->loop, &client, &ctx->client, e);
	if (rc == E_OK)
		rc = store_reader_open(a->svc.store, &ctx->reader, e);
	if (rc == E_OK)
		rc = accounting_new(ctx->loop, a->svc.store, &ctx->accounting, e);
	if (rc)
		return rc;
	const struct http_opts o = { .ctx = ctx, .listen_fd = a->listen_fd, .shared = &a->shared, .ops = &dispatch_ops };

	return http_new(&o, &l->http, e);
}

void app_loop_run(void *arg)
{
	struct app_loop *l = arg;

	loop_run(l->ctx->loop);
	if (atomic_fetch_add(&l->a->loops_ended, 1) + 1 == l->a->loop_count)
		app_wake(l->a, APP_LOOPS_ENDED);
}

static enum errc open_loops(struct app *a, struct err *e)
{
	unsigned n = wanted_loops(a->cfg);
	enum errc rc = E_OK;

	a->svc.loops = a->ctxs;
	for (unsigned i = 0; i < n; i++) {
		a->loop_count = i + 1; /* app_free looks at this one too */
		rc = open_loop(a, i, e);
		if (rc)
			return rc;
	}
	a->svc.loop_count = n;
	for (unsigned i = 0; i < n; i++) {
		rc = thread_start(&a->loops[i].thread, THREAD_LOOP, i, app_loop_run, &a->loops[i], e);
		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc start_supervisor(struct app *a, struct err *e)
{
	AUTO_FREE char *path = file_join(a->cfg->state_dir, "control.sock");

	if (!path)
		return err_set(e, E_NO_MEMORY, "no memory");
	enum errc rc = control_new(&a->svc, a->super, path, &a->control, e);

	if (rc)
		return rc;
	a->super_start_msg.fn = app_on_super_start;
	a->super_stop_msg.fn = app_on_super_stop;
	loop_post(a->super, &a->super_start_msg);
	return thread_start(&a->super_thread, THREAD_SUPER, 0, app_super_run, a, e);
}

/* ---- the link to the account ---- */

static void on_gateway_start(void *ctx, struct loop *l)
{
	struct app *a = ctx;
	struct err e = { 0 };
	char text[400];

	if (accounting_new(l, a->svc.store, &a->gateway_books, &e))
		log_event(LOG_ERROR, "usage.uncounted", "what=\"relayed jobs\" %s", log_err(&e, text, sizeof(text)));
}

static void on_gateway_job(void *ctx, const struct gateway_use *u)
{
	struct app *a = ctx;
	struct accounting_entry n = { .agent = u->agent, .key_id = "gateway", .total_ms = u->took_ms, .is_error = u->is_error };

	if (u->usage && u->usage->is_known) {
		n.prompt_tokens = u->usage->prompt_tokens;
		n.completion_tokens = u->usage->completion_tokens;
	}
	if (a->gateway_books)
		accounting_add(a->gateway_books, &n);
}

static void on_gateway_end(void *ctx)
{
	app_wake(ctx, APP_GATEWAY_ENDED);
}

static enum errc open_gateway(struct app *a, struct err *e)
{
	const struct gateway_opts o = {
		.cfg = a->cfg, .store = a->svc.store, .inventory = a->svc.inventory, .admission = a->svc.admission, .pool = a->svc.pool,
		.outcomes = a->svc.outcomes, .probe = a->svc.probe, .drain = &a->svc.state.drain, .node_id = a->node_id,
		.on_start = on_gateway_start, .on_job = on_gateway_job, .on_end = on_gateway_end, .ctx = a,
	};

	return a->cfg->mode == MODE_LOCAL ? E_OK : gateway_new(&o, &a->svc.gateway, e);
}

static enum errc start_gateway(struct app *a, struct err *e)
{
	return a->svc.gateway ? gateway_start(a->svc.gateway, e) : E_OK;
}

enum errc app_boot(struct app *a, struct err *e)
{
	static enum errc (*const steps[])(struct app *a, struct err *e) = {
		open_process, open_log, open_state_dir, open_store, open_identity, open_auth,
		open_supervisor, open_work, open_jobs, open_gateway, open_socket, open_loops, start_supervisor,
		start_gateway,
	};

	a->svc.cfg = a->cfg;
	a->svc.started_mono_ms = clock_mono_ms();
	atomic_store(&a->svc.state.drain, a->cfg->drain_mode ? DRAIN_ON : DRAIN_OFF);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		enum errc rc = steps[i](a, e);

		if (rc)
			return rc;
	}
	return E_OK;
}
