/*
 * The mcoda command as a source: run, fallback without its health refresh, and a look of our own at runners that it has
 * no word on. THREAD(supervisor). What an entry means is in source_mcoda_entry.c.
 *
 * mcoda's own verdict on health stands where there is one: jobs are accepted by it (llm-execution.md 2.4).
 */
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "llm/probe.h"
#include "llm/source_mcoda.h"

#define OUTPUT_MAX (16u << 20)
#define ENV_MAX 16
#define LOOKS_MAX 16                       /* runners looked at in one refresh; the others stay "unknown" */

static const char refresh_flag[] = "--refresh-health";

struct mcoda;

struct look {
	struct mcoda *owner;
	struct probe *probe;
	size_t at;                         /* index in fresh */
};

struct mcoda {
	struct source_part part;
	struct proc *proc;
	bool is_fallback;                  /* the run without the flag */
	bool is_missing_told;
	struct agent_vec fresh;            /* the answer in the making */
	struct look looks[LOOKS_MAX];
	size_t pending;
};

static struct mcoda *mcoda_of(struct source_part *p)
{
	return CONTAINER_OF(p, struct mcoda, part);
}

/* ---- looking at runners ---- */

static void report(struct mcoda *m)
{
	struct agent_vec v = m->fresh;

	m->fresh = (struct agent_vec){ 0 };
	source_said(&m->part, &v, NULL);
	agent_vec_done(&v);
}

/* A model that is not listed, or no list at all, is no proof that jobs fail: such an agent stays unknown. */
static void on_looked(void *ctx, const struct probe_result *r)
{
	struct look *l = ctx;
	struct mcoda *m = l->owner;
	struct agent *a = &m->fresh.v[l->at];

	l->probe = NULL;
	if (r->health == HEALTH_HEALTHY)
		a->health = HEALTH_HEALTHY;
	else if (!r->is_answered && !(r->is_timeout && atomic_load(&a->up->running) > 0))
		a->health = HEALTH_UNREACHABLE;
	if (--m->pending == 0)
		report(m);
}

static void look_at(struct mcoda *m, const struct mcoda_hint *h)
{
	struct look *l = &m->looks[m->pending];
	const struct agent *a = &m->fresh.v[h->at];
	struct err e = { 0 };
	struct probe_req q = {
		.client = m->part.client, .base_url = a->up->base_url, .headers = (const char *const *)a->up->headers,
		.health_path = h->health_path, .models_path = h->models_path, .model = a->model,
		.limit_ms = m->part.cfg->probe_timeout_ms, .is_fresh = !upstream_ops(a->up->kind)->keeps_idle,
		.done = on_looked, .ctx = l,
	};

	*l = (struct look){ .owner = m, .at = h->at };
	if (probe_start(&q, &l->probe, &e) == E_OK)
		m->pending++;
}

static void take_output(struct mcoda *m, struct slice out)
{
	struct mcoda_hints hints = { 0 };
	struct err e = { 0 };
	enum errc rc = mcoda_read(&m->part, out, &m->fresh, &hints, &e);

	for (size_t i = 0; rc == E_OK && i < hints.n && m->pending < LOOKS_MAX; i++)
		look_at(m, &hints.v[i]);
	mcoda_hints_done(&hints);
	if (rc) {
		agent_vec_done(&m->fresh);
		source_failed(&m->part, &e, false);
	} else if (m->pending == 0) {
		report(m);
	}
}

/* ---- the command ---- */

static enum errc run(struct mcoda *m, const char *const *args, size_t n, struct err *e);

static bool has_refresh_flag(const struct str_list *args)
{
	return str_list_has(args, slice_str(refresh_flag));
}

static void on_ran(void *ctx, const struct proc_result *r)
{
	static const char *const plain[] = { "agent", "list", "--json" };
	struct mcoda *m = ctx;
	struct err e = r->e;

	m->proc = NULL;
	m->part.is_quiet = r->rc == E_NOT_FOUND;
	if (r->rc == E_OK) {
		take_output(m, r->out);
		return;
	}
	if (r->rc != E_NOT_FOUND && !m->is_fallback && has_refresh_flag(&m->part.cfg->mcoda_list_args)) {
		m->is_fallback = true;
		if (run(m, plain, ARRAY_LEN(plain), &e) == E_OK)
			return;
	}
	if (r->rc == E_NOT_FOUND && !m->is_missing_told) {
		m->is_missing_told = true;
		log_event(LOG_DEBUG, "inventory.mcoda_missed", "bin=%s", m->part.cfg->mcoda_bin);
	}
	source_failed(&m->part, &e, false);
}

/* What the command needs of our environment: no secret of ours is among it. */
static enum errc make_env(char *env[ENV_MAX], struct err *e)
{
	static const char *const names[] = { "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TMPDIR",
		"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "NODE_EXTRA_CA_CERTS" };
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const char *value = config_env(names[i]);
		AUTO_BUF line = BUF_MAX(32768);

		if (!value)
			continue;
		enum errc rc = buf_addf(&line, e, "%s=%s", names[i], value);

		if (rc == E_OK && !(env[n++] = buf_take(&line, NULL)))
			rc = err_set(e, E_NO_MEMORY, "no memory");
		if (rc == E_TOO_LARGE)
			continue;
		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc run(struct mcoda *m, const char *const *args, size_t n, struct err *e)
{
	const char **argv = mem_calloc(n + 2, sizeof(*argv));
	char *env[ENV_MAX] = { 0 };
	enum errc rc = argv ? make_env(env, e) : err_set(e, E_NO_MEMORY, "no memory");
	struct proc_req q = { .argv = argv, .env = (const char *const *)env, .limit_ms = m->part.cfg->request_timeout_ms,
		.max_out_bytes = OUTPUT_MAX, .done = on_ran, .ctx = m };

	if (rc == E_OK) {
		argv[0] = m->part.cfg->mcoda_bin;
		for (size_t i = 0; i < n; i++)
			argv[i + 1] = args[i];
		rc = proc_start(m->part.loop, &q, &m->proc, e);
	}
	for (size_t i = 0; i < ENV_MAX; i++)
		mem_free(env[i]);
	mem_free(argv);
	return rc;
}

static enum errc mcoda_ask(struct source_part *p, struct err *e)
{
	struct mcoda *m = mcoda_of(p);
	const struct str_list *args = &p->cfg->mcoda_list_args;

	m->is_fallback = false;
	return run(m, (const char *const *)args->v, args->n, e);
}

static void mcoda_cancel(struct source_part *p)
{
	struct mcoda *m = mcoda_of(p);

	if (m->proc)
		proc_cancel(TAKE(m->proc));
	for (size_t i = 0; i < LOOKS_MAX; i++)
		probe_cancel(TAKE(m->looks[i].probe));
	m->pending = 0;
	agent_vec_done(&m->fresh);
}

static void mcoda_free(struct source_part *p)
{
	source_part_done(p);
	mem_free(mcoda_of(p));
}

static const struct source_ops mcoda_ops = { .ask = mcoda_ask, .cancel = mcoda_cancel, .free = mcoda_free };

enum errc source_mcoda_new(const struct source_base *b, struct source_part **ret, struct err *e)
{
	struct mcoda *m = NEW(struct mcoda);

	if (!m)
		return err_set(e, E_NO_MEMORY, "no memory for a source");
	enum errc rc = source_part_init(&m->part, b, &mcoda_ops, AGENT_FROM_MCODA, "mcoda", e);

	if (rc) {
		mcoda_free(&m->part);
		return rc;
	}
	*ret = &m->part;
	return E_OK;
}
