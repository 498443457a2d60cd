/* What the requests of the control socket do. THREAD(supervisor). The shapes stand in control.h. */
#include "server/control_priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "gateway/gateway.h"
#include "jobs/supervisor.h"
#include "llm/admission.h"
#include "llm/inventory.h"
#include "server/nodeid.h"
#include "store/job_totals.h"
#include "store/usage.h"

#include <unistd.h>

#define USAGE_SHOWN 200                /* rows of usage in one answer */

static const char *const drain_names[] = { [DRAIN_OFF] = "off", [DRAIN_ON] = "on", [DRAIN_ALL] = "all" };

/* ---- status ---- */

static void admission_json(struct svc *svc, struct jw *w)
{
	static const char *const names[] = { [ADMIT_LOCAL] = "local", [ADMIT_JOB] = "job" };
	struct admission_stats st = { 0 };

	admission_stats(svc->admission, &st);
	jw_obj(w, "requests");
	for (size_t i = 0; i < ADMIT__COUNT; i++) {
		jw_obj(w, names[i]);
		jw_i64(w, "running", st.running[i]);
		jw_i64(w, "queued", st.queued[i]);
		jw_i64(w, "bound", st.bound[i]);
		jw_end(w);
	}
	jw_i64(w, "served", st.served);
	jw_i64(w, "refused", st.refused);
	jw_end(w);
}

static void turn_json(struct jw *w, const char *name, int64_t wall_ms, int64_t us)
{
	char iso[CLOCK_ISO_LEN];

	clock_iso(wall_ms, iso);
	jw_obj(w, name);
	jw_str(w, "ended_at", iso);
	jw_i64(w, "us", us);
	jw_end(w);
}

/* The longest turn and the last that were too long, the oldest first: for comparing with what else happened on the machine. */
static void stalls_json(const struct loop_stats *st, struct jw *w)
{
	int64_t count = atomic_load(&st->stall_5ms_count), first = count > LOOP_STALLS_KEPT ? count - LOOP_STALLS_KEPT : 0;

	turn_json(w, "longest_turn", atomic_load(&st->stall_max_wall_ms), atomic_load(&st->stall_max_us));
	jw_arr(w, "recent_stalls");
	for (int64_t n = first; n < count; n++)
		turn_json(w, NULL, atomic_load(&st->stalls[n % LOOP_STALLS_KEPT].wall_ms), atomic_load(&st->stalls[n % LOOP_STALLS_KEPT].own_us));
	jw_end(w);
}

static void loops_json(struct svc *svc, struct jw *w)
{
	jw_arr(w, "loops");
	for (unsigned i = 0; i < svc->loop_count; i++) {
		const struct loop_stats *st = loop_stats(svc->loops[i].loop);

		jw_obj(w, NULL);
		jw_str(w, "name", loop_name(svc->loops[i].loop));
		jw_i64(w, "connections", atomic_load(&svc->loops[i].connections));
		jw_i64(w, "turns", atomic_load(&st->turns));
		jw_i64(w, "stall_max_us", atomic_load(&st->stall_max_us));
		jw_i64(w, "stall_5ms_count", atomic_load(&st->stall_5ms_count));
		jw_i64(w, "turn_max_us", atomic_load(&st->turn_max_us));
		stalls_json(st, w);
		jw_end(w);
	}
	jw_end(w);
}

static void agents_json(struct svc *svc, struct jw *w)
{
	struct agents *list = inventory_get(svc->inventory);

	jw_arr(w, "agents");
	for (size_t i = 0; i < list->n; i++) {
		const struct agent *a = &list->v[i];

		jw_obj(w, NULL);
		jw_str(w, "id", a->slug);
		jw_str(w, "model", a->model);
		jw_str(w, "source", agent_source_name(a->source));
		jw_str(w, "health", agent_health_name(a->health));
		jw_bool(w, "is_exposed", a->is_exposed);
		jw_bool(w, "is_listed", agent_is_listed(list, i));
		jw_bool(w, "is_shared", a->is_shared);
		jw_end(w);
	}
	jw_end(w);
	agents_unref(list);
}

/* Totals since the node's first day, as far as they have been written (once a second). */
static enum errc usage_json(struct store_reader *r, struct jw *w, struct err *e)
{
	struct usage_row *rows = NULL;
	size_t n = 0;
	enum errc rc = usage_list(r, &rows, &n, e);

	if (rc)
		return rc;
	jw_arr(w, "usage");
	for (size_t i = 0; i < n && i < USAGE_SHOWN; i++) {
		jw_obj(w, NULL);
		jw_str(w, "agent", rows[i].agent);
		jw_str(w, "key_id", rows[i].key_id);
		jw_i64(w, "requests", rows[i].requests);
		jw_i64(w, "errors", rows[i].errors);
		jw_i64(w, "prompt_tokens", rows[i].prompt_tokens);
		jw_i64(w, "completion_tokens", rows[i].completion_tokens);
		jw_i64(w, "latency_sum_ms", rows[i].latency_sum_ms);
		jw_arr(w, "latency");              /* requests of at most 4, 8, 16 ... ms; the last: all above */
		for (size_t k = 0; k < USAGE_BUCKETS; k++)
			jw_i64(w, NULL, rows[i].latency[k]);
		jw_end(w);
		jw_end(w);
	}
	jw_end(w);
	jw_i64(w, "usage_rows", (int64_t)n);
	mem_free(rows);
	return E_OK;
}

static enum errc op_status(struct svc *svc, struct store_reader *reader, struct jw *w, struct err *e)
{
	AUTO_BUF url = BUF_MAX(1024);
	int64_t totals[TOTAL__COUNT] = { 0 };
	char mark[9];
	enum errc rc = nodeid_url(svc->cfg, svc->port, &url, e);

	if (rc)
		return rc;
	nodeid_secret_mark(svc->signing_secret, mark);
	jw_i64(w, "pid", getpid());
	jw_str(w, "version", MSWARM_VERSION);
	jw_str(w, "node_id", svc->node_id);
	jw_str(w, "mode", config_mode_name(svc->cfg->mode));
	if (svc->gateway) {
		jw_obj(w, "gateway");
		jw_str(w, "base_url", svc->cfg->gateway_base_url);
		gateway_status(svc->gateway, w);
		jw_end(w);
	} else {
		jw_null(w, "gateway");
	}
	jw_slice(w, "url", buf_slice(&url));
	jw_str(w, "state_dir", svc->cfg->state_dir);
	jw_i64(w, "uptime_s", (clock_mono_ms() - svc->started_mono_ms) / 1000);
	jw_str(w, "drain", drain_names[atomic_load(&svc->state.drain)]);
	jw_bool(w, "is_stopping", atomic_load(&svc->state.is_stopping));
	jw_bool(w, "is_keyed", auth_is_keyed(svc->auth));
	jw_bool(w, "is_secret_shared", svc->is_secret_shared);
	jw_str(w, "secret_mark", mark);
	jw_str(w, "store", store_state_name(store_state(svc->store)));
	if (job_totals_get(reader, totals, e))
		return e->code;
	jw_i64(w, "generic_running", totals[TOTAL_HELD_SCHEDULED] + totals[TOTAL_HELD_RUNNING]);
	jw_i64(w, "generic_queued", totals[TOTAL_HELD_QUEUED] + totals[TOTAL_HELD_RETRYING]);
	admission_json(svc, w);
	loops_json(svc, w);
	inventory_json(svc->inventory, w, "sources");
	agents_json(svc, w);
	return usage_json(reader, w, e);
}

/* ---- drain ---- */

static enum errc op_drain(struct svc *svc, const struct json *request, struct jw *w, struct err *e)
{
	struct slice mode = json_slice(json_get(request, "mode"));
	int found = -1;

	for (size_t i = 0; i < ARRAY_LEN(drain_names); i++)
		if (slice_eq(mode, slice_str(drain_names[i])))
			found = (int)i;
	if (found < 0 && mode.n && !slice_eq(mode, SLICE("status")))
		return err_set_param(e, E_INVALID_VALUE, "mode", "mode: on, off, all or status");
	if (found >= 0 && atomic_exchange(&svc->state.drain, found) != found)
		log_event(LOG_INFO, "drain.changed", "mode=%s", drain_names[found]);
	if (found == DRAIN_OFF)
		supervisor_kick(svc->supervisor);
	if (found >= 0 && svc->gateway)
		gateway_kick(svc->gateway);
	jw_str(w, "drain", drain_names[atomic_load(&svc->state.drain)]);
	return E_OK;
}

/* ---- keys: through the store, then into auth, then answered ---- */

static void forget(struct control *c, struct key_op *op)
{
	for (struct key_op **at = &c->in_flight; *at; at = &(*at)->next)
		if (*at == op) {
			*at = op->next;
			return;
		}
}

struct control_key_op {
	struct key_op op;              /* first: what the store and keyop know */
	struct control *c;
};

static void on_stored(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct key_op *op = CONTAINER_OF(job, struct key_op, job);
	struct control *c = CONTAINER_OF(op, struct control_key_op, op)->c;
	struct err e = job->e;
	enum errc rc = job->rc;

	thread_must_be(THREAD_SUPER);
	if (rc == E_OK)
		rc = key_op_apply(op, c->svc->auth, &e);
	if (rc == E_OK)
		log_event(LOG_INFO, "access.changed", "change=%s key=%s",
			  op->kind == KEY_OP_ADD ? "key_added" : op->kind == KEY_OP_REVOKE ? "key_revoked" : "opened",
			  op->kind == KEY_OP_ADD ? op->row.id : op->kind == KEY_OP_REVOKE ? op->revoked_id : "-");
	if (op->owner)
		control_answer(op->owner, op, rc ? &e : NULL);
	forget(c, op);
	key_op_done(op);
	mem_free(op);
}

static enum errc op_key(struct control_conn *k, const struct json *request, const char *name, bool *ret_later, struct err *e)
{
	struct control_key_op *ck = NEW(struct control_key_op);
	enum errc rc;

	if (!ck)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = key_op_parse(request, name, &ck->op, e);
	ck->c = k->c;
	ck->op.owner = k;
	ck->op.job.loop = k->c->loop;
	ck->op.job.done.fn = on_stored;
	if (rc == E_OK)
		rc = store_submit(k->c->svc->store, &ck->op.job, e);
	if (rc) {
		key_op_done(&ck->op);
		mem_free(ck);
		return rc;
	}
	ck->op.next = k->c->in_flight;
	k->c->in_flight = &ck->op;
	k->pending = &ck->op;
	*ret_later = true;
	return E_OK;
}

/* ---- a heartbeat now ---- */

static void on_beat(struct loop_msg *m)
{
	struct control_beat *b = CONTAINER_OF(m, struct control_beat, ask.answer);
	AUTO_BUF text = BUF_MAX(CONTROL_ANSWER_MAX);
	enum errc rc = b->ask.rc;
	struct err e = b->ask.err;

	if (!rc)
		rc = buf_addf(&text, &e, "{\"ok\":true,\"heartbeat\":" SLICE_FMT "}", SLICE_ARG(buf_slice(&b->ask.text)));
	if (b->owner)
		control_answer_text(b->owner, buf_slice(&text), rc ? &e : NULL);
	for (struct control_beat **at = &b->c->beats; *at; at = &(*at)->next)
		if (*at == b) {
			*at = b->next;
			break;
		}
	buf_done(&b->ask.text);
	mem_free(b->ask.clients);
	mem_free(b);
}

/* list: a new client_allowlist, or NULL. */
static enum errc op_heartbeat(struct control_conn *k, const struct json *list, bool *ret_later, struct err *e)
{
	struct control_beat *b;

	if (!k->c->svc->gateway)
		return err_set(e, E_MISSING_CONFIG, "this node has no account: it runs in local mode");
	b = NEW(struct control_beat);
	if (!b)
		return err_set(e, E_NO_MEMORY, "no memory");
	if (list) {
		AUTO_BUF text = BUF_MAX(CONTROL_LINE_MAX);
		struct jw w = JW(&text);

		jw_tree(&w, NULL, list);
		if (jw_done(&w, e) || !(b->ask.clients = buf_take(&text, NULL))) {
			mem_free(b);
			return err_set(e, E_NO_MEMORY, "no memory");
		}
	}
	b->c = k->c;
	b->owner = k;
	b->next = k->c->beats;
	b->ask.loop = k->c->loop;
	b->ask.answer.fn = on_beat;
	buf_init(&b->ask.text, CONTROL_ANSWER_MAX / 2);
	k->c->beats = k->beat = b;
	*ret_later = true;
	gateway_ask(k->c->svc->gateway, &b->ask);
	return E_OK;
}

/* ---- all ---- */

enum errc control_request(struct control_conn *k, const struct json *request, struct jw *w, bool *ret_later, struct err *e)
{
	const char *op = json_str(json_get(request, "op"));
	struct svc *svc = k->c->svc;

	if (!op)
		return err_set_param(e, E_MISSING_PARAMETER, "op", "op: required");
	if (strcmp(op, "status") == 0)
		return op_status(svc, k->c->reader, w, e);
	if (strcmp(op, "drain") == 0)
		return op_drain(svc, request, w, e);
	if (strcmp(op, "keys.list") == 0)
		return key_op_list(k->c->reader, w, e);
	if (strcmp(op, "heartbeat") == 0)
		return op_heartbeat(k, NULL, ret_later, e);
	if (strcmp(op, "clients") == 0)
		return json_is_array(json_get(request, "list")) ? op_heartbeat(k, json_get(request, "list"), ret_later, e) :
		       err_set_param(e, E_INVALID_VALUE, "list", "list: must be an array");
	if (strcmp(op, "refresh") == 0) {
		inventory_refresh(svc->inventory);
		return E_OK;
	}
	if (key_op_is_name(op))
		return op_key(k, request, op, ret_later, e);
	return err_set_param(e, E_INVALID_VALUE, "op", "op: unknown");
}
