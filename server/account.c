/* What commands do with the gateway; see account.h. Called by cmd_account.c, cmd_setup.c, cmd_doctor.c, cmd_service.c. */
#include "server/account.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/thread.h"
#include "gateway/member.h"
#include "gateway/url.h"
#include "jobs/capability_probe.h"

#define ANSWER_MAX EXCHANGE_ANSWER_MAX
#define ONCE_MS 3600000                /* longer than any command looks */
#define BODY_MAX (32u << 20)
#define LOOK_MS 20                     /* how often a look at the sources asks whether all have answered */

/* ---- one request ---- */

struct waiting {
	struct account *a;
	enum exchange_kind kind;
	struct err err;
};

static void on_answered(void *ctx, const struct exchange_answer *x)
{
	struct waiting *w = ctx;

	w->kind = x->kind;
	w->err = x->err;
	w->a->status = x->status;
	memcpy(w->a->date, x->date, sizeof(w->a->date));
	if (x->kind == EXCHANGE_OK && buf_add_slice(&w->a->answer, x->body, &w->err))
		w->kind = EXCHANGE_LOST;
	loop_stop(w->a->loop);
}

enum errc account_call(struct account *a, const char *path, struct slice token, struct slice api_key, struct buf *take_body, struct err *e)
{
	struct waiting w = { .a = a };
	struct exchange *x = NULL;
	AUTO_BUF url = BUF_MAX(8192);
	struct exchange_req q = { .client = a->http, .method = take_body ? "POST" : "GET", .token = token, .api_key = api_key, .take_body = take_body,
				  .timeout_ms = a->cfg->request_timeout_ms, .done = on_answered, .ctx = &w };
	enum errc rc = gateway_url(a->cfg, a->base ? a->base : a->cfg->gateway_base_url, path, &url, e);

	a->status = 0;
	buf_clear(&a->answer);
	if (!rc && !(q.url = buf_cstr(&url)))
		rc = err_set(e, E_NO_MEMORY, "no memory");
	if (!rc)
		rc = exchange_start(&q, &x, e);
	if (rc)
		return rc;
	loop_run(a->loop);
	if (w.kind == EXCHANGE_OK)
		return E_OK;
	*e = w.err;
	return e->code ? e->code : E_UPSTREAM;
}

enum errc account_open(const struct config *cfg, struct account *ret, struct err *e)
{
	const struct httpc_opts o = { .user_agent = "mswarm/" MSWARM_VERSION, .ca_file = *cfg->gateway_ca_file ? cfg->gateway_ca_file : NULL };
	enum errc rc = crypto_init(e);

	*ret = (struct account){ .cfg = cfg };
	buf_init(&ret->answer, ANSWER_MAX);
	if (!rc)
		rc = httpc_global_init(e);
	if (!rc)
		rc = loop_new("command", &ret->loop, e);
	if (!rc)
		rc = httpc_new(ret->loop, &o, &ret->http, e);
	if (rc)
		account_close(ret);
	return rc;
}

void account_close(struct account *a)
{
	httpc_free(a->http);
	loop_free(a->loop);
	secret_done(&a->token);
	if (a->answer.p)
		mem_wipe(a->answer.p, a->answer.n);
	buf_done(&a->answer);
	a->http = NULL;
	a->loop = NULL;
}

/* ---- the token ---- */

static enum errc enroll(struct account *a, struct err *e)
{
	AUTO_BUF body = BUF_MAX(16 * 1024);
	struct member m = { 0 };
	enum errc rc = member_write_enroll(a->cfg->node_id, a->cfg->enrollment_token, &body, e);

	if (!rc)
		rc = account_call(a, MEMBER_ENROLL_PATH, slice_of("", 0), slice_of("", 0), &body, e);
	if (!rc)
		rc = member_parse(buf_slice(&a->answer), MEMBER_ENROLLED, &m, e);
	if (!rc)
		rc = member_keep_enrolled(a->cfg, &m, e);
	if (!rc)
		rc = secret_set(&a->token, secret_slice(&m.token), e);
	a->is_enrolled_now = !rc;
	member_done(&m);
	return rc;
}

enum errc account_need_node(const struct config *cfg, struct err *e)
{
	return *cfg->node_id ? E_OK : err_set(e, E_MISSING_CONFIG, "MSWARM_SELF_HOSTED_NODE_ID is required");
}

enum errc account_join(struct account *a, struct err *e)
{
	enum errc rc = account_need_node(a->cfg, e);

	if (rc)
		return rc;
	if (*a->cfg->runtime_token)
		return secret_set(&a->token, slice_str(a->cfg->runtime_token), e);
	if (!*a->cfg->enrollment_token)
		return err_set(e, E_UNAUTHORIZED, "No runtime token is stored and MSWARM_SELF_HOSTED_ENROLLMENT_TOKEN is missing");
	return enroll(a, e);
}

/* ---- what there is ---- */

/* The inventory of a node, for one round. */
struct look {
	struct loop *loop;
	struct httpc *http;
	struct inventory *inventory;
	struct capability_probe *probe;
	struct thread thread;
	struct loop_msg begin;
	struct loop_timer timer;
	int64_t end_ms;
};

static void on_look(struct loop_timer *t)
{
	struct look *l = CONTAINER_OF(t, struct look, timer);
	struct capabilities caps;
	bool is_known;

	capability_read(l->probe, &caps, &is_known);
	if (!(inventory_is_complete(l->inventory) && is_known) && clock_mono_ms() < l->end_ms) {
		loop_timer_set(l->loop, t, loop_now_ms(l->loop) + LOOK_MS);
		return;
	}
	inventory_stop(l->inventory);
	capability_probe_stop(l->probe);
	loop_stop(l->loop);
}

static void on_begin(struct loop_msg *m)
{
	struct look *l = CONTAINER_OF(m, struct look, begin);

	inventory_start(l->inventory);
	capability_probe_start(l->probe);
	l->timer.fn = on_look;
	loop_timer_set(l->loop, &l->timer, loop_now_ms(l->loop) + 1);
}

static void run_look(void *arg)
{
	struct look *l = arg;

	loop_run(l->loop);
}

static enum errc look(const struct config *cfg, struct look *l, struct err *e)
{
	const struct httpc_opts client = { .user_agent = "mswarm/" MSWARM_VERSION };
	enum errc rc = loop_new("look", &l->loop, e);

	if (!rc)
		rc = httpc_new(l->loop, &client, &l->http, e);
	if (rc)
		return rc;
	const struct inventory_opts o = { .cfg = cfg, .loop = l->loop, .client = l->http };
	const struct capability_probe_opts p = { .loop = l->loop, .limit_ms = cfg->capability_probe_timeout_ms, .every_ms = ONCE_MS,
						 .is_off = !cfg->capability_probes };

	rc = inventory_new(&o, &l->inventory, e);
	if (!rc)
		rc = capability_probe_new(&p, &l->probe, e);
	if (rc)
		return rc;
	l->end_ms = clock_mono_ms() + 2 * cfg->request_timeout_ms;
	l->begin.fn = on_begin;
	loop_post(l->loop, &l->begin);
	rc = thread_start(&l->thread, THREAD_SUPER, 0, run_look, l, e);
	thread_join(&l->thread);
	return rc;
}

enum errc account_discover(const struct config *cfg, struct account_found *ret, struct err *e)
{
	struct look l = { 0 };
	enum errc rc = look(cfg, &l, e);

	if (!rc) {
		capability_read(l.probe, &ret->caps, NULL);
		ret->agents = inventory_get(l.inventory);
		inventory_discovery(l.inventory, strcmp(cfg->discovery_mode, "ollama") == 0 ? AGENT_FROM_OLLAMA : AGENT_FROM_MCODA, &ret->discovery);
		if (!ret->discovery.is_there)
			ret->discovery.is_ok = true;
	}
	inventory_free(l.inventory);
	capability_probe_free(l.probe);
	httpc_free(l.http);
	loop_free(l.loop);
	return rc;
}

/* ---- a heartbeat ---- */

/* A member of config.json as it stands there; NULL: none. */
static char *read_member(const struct config *cfg, const char *key)
{
	AUTO_BUF text = BUF_MAX(1u << 20);
	struct slice value;

	if (file_read(cfg->config_path, &text, NULL) || json_check(buf_slice(&text), JSON_LIMITS_DEFAULT, NULL) ||
	    !json_find_member(buf_slice(&text), key, &value))
		return NULL;
	return slice_dup(value);
}

enum errc account_beat(struct account *a, const struct account_found *f, const char *node_id, struct account_beat *ret, struct err *e)
{
	AUTO_FREE char *version = read_member(a->cfg, "config_version");
	AUTO_FREE char *clients = read_member(a->cfg, "client_allowlist");
	struct capability_runner runners[CAPABILITY_RUNNERS_MAX];
	size_t n = capability_offered(runners, ARRAY_LEN(runners));
	AUTO_BUF body = BUF_MAX(BODY_MAX);
	int64_t now = clock_wall_ms();

	struct heartbeat h = {
		.cfg = a->cfg, .node_id = node_id, .config_version = version, .clients = clients, .agents = f->agents, .discovery = f->discovery, .outcomes = { .average_ms = -1 },
		.now_wall_ms = now,
		.capability = { .caps = &f->caps, .runners = runners, .runner_count = n, .node_id = node_id, .is_generic_on = a->cfg->is_generic_jobs_on,
				.shows_details = a->cfg->hardware_details_enabled, .captured_wall_ms = now, .signed_wall_ms = now, .key = secret_slice(&a->token) },
	};
	enum errc rc = catalog_read(f->agents, &h.catalog, e);

	heartbeat_load_limits(a->cfg, &h.load);
	buf_init(&ret->told, ANSWER_MAX * 2);
	if (!rc)
		rc = heartbeat_write(&h, &body, e);
	if (!rc)
		rc = account_call(a, MEMBER_HEARTBEAT_PATH, secret_slice(&a->token), slice_of("", 0), &body, e);
	if (!rc)
		rc = heartbeat_write_told(&h, a->is_enrolled_now, &ret->told, e);
	if (!rc)
		rc = buf_add_str(&ret->told, ",\"heartbeat_response\":", e);
	if (!rc)
		rc = buf_add_slice(&ret->told, json_check(buf_slice(&a->answer), JSON_LIMITS_DEFAULT, NULL) ? SLICE("null") : buf_slice(&a->answer), e);
	if (!rc)
		rc = buf_add_str(&ret->told, "}", e);
	ret->is_online = heartbeat_is_online(&h);
	ret->exposed_count = h.catalog.exposed_count;
	if (rc)
		buf_done(&ret->told);
	return rc;
}

enum errc account_goodbye(struct account *a, const char *manager, struct err *e)
{
	AUTO_BUF body = BUF_MAX(16 * 1024);
	struct jw w = JW(&body);
	enum errc rc;

	if (!*a->cfg->runtime_token)
		return err_set(e, E_UNAUTHORIZED, "missing runtime token");
	jw_obj(&w, NULL);
	jw_str(&w, "node_id", a->cfg->node_id);
	jw_str(&w, "reason", "node_uninstall");
	jw_str(&w, "source", "mswarm_node_uninstall");
	jw_str(&w, "node_version", a->cfg->node_version);
	jw_str(&w, "service_manager", manager);
	jw_end(&w);
	rc = jw_done(&w, e);
	return rc ? rc : account_call(a, MEMBER_UNINSTALL_PATH, slice_str(a->cfg->runtime_token), slice_of("", 0), &body, e);
}

int account_print(struct slice json)
{
	AUTO_JSON tree = NULL;
	AUTO_BUF out = BUF_MAX(16u << 20);
	struct jw w = JW_PRETTY(&out);
	struct err e = { 0 };
	enum errc rc = json_parse(json, JSON_LIMITS_DEFAULT, &tree, &e);

	if (rc)
		return cli_fail(&e);
	jw_tree(&w, NULL, tree);
	rc = jw_done(&w, &e);
	if (!rc)
		rc = buf_add_str(&out, "\n", &e);
	return rc ? cli_fail(&e) : cli_print(buf_slice(&out));
}
