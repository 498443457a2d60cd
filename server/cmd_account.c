/* once, enroll, models, agents: single exchanges with the gateway (cli-config-service.md 1.1, 1.11). Main thread. */
#include "server/account.h"

#include "base/mem.h"
#include "gateway/member.h"

#define BODY_MAX (32u << 20)

static int finish(struct account *a, enum errc rc, const struct err *e, struct slice json)
{
	int code = rc ? cli_fail(e) : account_print(json);

	account_close(a);
	return code;
}

/* Of a node that runs: it alone knows its load. */
static enum errc ask_node(struct cli *c, struct buf *out, struct err *e)
{
	AUTO_JSON answer = NULL;
	struct jw w = JW(out);
	enum errc rc = cli_control(c, SLICE("{\"op\":\"heartbeat\"}"), &answer, e);

	if (rc)
		return rc;
	jw_tree(&w, NULL, json_get(answer, "heartbeat"));
	return jw_done(&w, e);
}

int cmd_once(struct cli *c)
{
	struct account a = { 0 };
	struct account_found found = { 0 };
	struct account_beat beat = { 0 };
	AUTO_BUF told = BUF_MAX(16u << 20);
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (!rc)
		rc = account_need_node(c->cfg, &e);
	if (rc)
		return cli_fail(&e);
	rc = ask_node(c, &told, &e);
	if (rc != E_NOT_FOUND)
		return rc ? cli_fail(&e) : account_print(buf_slice(&told));
	rc = account_open(c->cfg, &a, &e);
	if (rc)
		return cli_fail(&e);
	rc = account_join(&a, &e);
	if (!rc)
		rc = account_discover(c->cfg, &found, &e);
	if (!rc)
		rc = account_beat(&a, &found, c->cfg->node_id, &beat, &e);
	agents_unref(found.agents);
	int code = finish(&a, rc, &e, buf_slice(&beat.told));

	buf_done(&beat.told);
	return code;
}

int cmd_enroll(struct cli *c)
{
	struct account a = { 0 };
	AUTO_BUF out = BUF_MAX(16 * 1024);
	struct jw w = JW(&out);
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (!rc)
		rc = account_open(c->cfg, &a, &e);
	if (rc)
		return cli_fail(&e);
	rc = account_join(&a, &e);
	jw_obj(&w, NULL);
	jw_bool(&w, "enrolled", a.is_enrolled_now);
	jw_str(&w, "state_path", c->cfg->config_path);
	jw_end(&w);
	if (!rc)
		rc = jw_done(&w, &e);
	return finish(&a, rc, &e, buf_slice(&out));
}

/* ---- the inventory ---- */

static enum errc write_inventory(const char *node_id, const struct agents *agents, struct buf *out, struct err *e)
{
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "node_id", node_id);
	catalog_write(&w, "models", agents);
	jw_end(&w);
	return jw_done(&w, e);
}

static enum errc push(struct account *a, const char *count_key, struct buf *out, struct err *e)
{
	struct account_found found = { 0 };
	struct catalog catalog = { 0 };
	AUTO_BUF body = BUF_MAX(BODY_MAX);
	struct jw w = JW(out);
	enum errc rc = account_discover(a->cfg, &found, e);

	if (!rc && !found.discovery.is_ok)
		rc = err_set(e, E_UPSTREAM, "local discovery failed: the source \"%s\" does not answer", a->cfg->discovery_mode);
	if (!rc)
		rc = catalog_read(found.agents, &catalog, e);
	if (!rc)
		rc = write_inventory(a->cfg->node_id, found.agents, &body, e);
	if (!rc)
		rc = account_call(a, MEMBER_MODELS_PATH, secret_slice(&a->token), slice_of("", 0), &body, e);
	agents_unref(found.agents);
	if (rc)
		return rc;
	jw_obj(&w, NULL);
	jw_i64(&w, count_key, (int64_t)catalog.exposed_count);
	jw_raw(&w, "response", json_check(buf_slice(&a->answer), JSON_LIMITS_DEFAULT, NULL) ? SLICE("null") : buf_slice(&a->answer));
	jw_end(&w);
	return jw_done(&w, e);
}

static int run_push(struct cli *c, const char *count_key)
{
	struct account a = { 0 };
	AUTO_BUF out = BUF_MAX(16u << 20);
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (!rc)
		rc = account_open(c->cfg, &a, &e);
	if (rc)
		return cli_fail(&e);
	rc = account_join(&a, &e);
	if (!rc)
		rc = push(&a, count_key, &out, &e);
	return finish(&a, rc, &e, buf_slice(&out));
}

int cmd_models(struct cli *c)
{
	return run_push(c, "count");
}

int cmd_agents(struct cli *c)
{
	return run_push(c, "pushed");
}
