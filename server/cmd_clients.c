/* node add-client, remove-client: the list of clients that the gateway lets through (later revisions). Main thread. */
#include "server/account.h"
#include "server/clients.h"

#include "base/config_edit.h"

#define LIST_MAX (1u << 20)

/* Tell the gateway: by the running node's next word, which is said now, or by one of our own. */
static enum errc sync_list(struct cli *c, struct slice list, struct err *e)
{
	AUTO_BUF request = BUF_MAX(LIST_MAX);
	AUTO_JSON answer = NULL;
	struct account_found found = { 0 };
	struct account_beat beat = { 0 };
	struct account a = { 0 };
	enum errc rc = buf_addf(&request, e, "{\"op\":\"clients\",\"list\":" SLICE_FMT "}", SLICE_ARG(list));

	if (!rc)
		rc = cli_control(c, buf_slice(&request), &answer, e);
	if (rc != E_NOT_FOUND)
		return rc;
	rc = account_open(c->cfg, &a, e);
	if (rc)
		return rc;
	rc = account_join(&a, e);
	if (!rc)
		rc = account_discover(c->cfg, &found, e);
	if (!rc)
		rc = account_beat(&a, &found, c->cfg->node_id, &beat, e);
	agents_unref(found.agents);
	buf_done(&beat.told);
	account_close(&a);
	return rc;
}

static int change(struct cli *c, bool is_removal)
{
	bool is_silent = false;
	const struct cli_option options[] = { { .flag = "--no-sync", .is_set = &is_silent }, { 0 } };
	const char *list = NULL;
	AUTO_BUF clients = BUF_MAX(LIST_MAX);
	AUTO_BUF out = BUF_MAX(2 * LIST_MAX);
	struct jw w = JW(&out);
	struct config_edit edit;
	struct err e = { 0 }, why = { 0 };
	size_t n = 0, changed = 0;
	enum errc sync_rc = E_OK, rc = cli_load(c, options, &list, 1, &n, &e);

	if (!rc && !n)
		rc = err_set(&e, E_BAD_REQUEST, "which clients? A list such as example.org,10.0.0.1");
	if (!rc)
		rc = account_need_node(c->cfg, &e);
	if (!rc)
		rc = clients_change(c->cfg, list, is_removal, &clients, &changed, &e);
	if (rc)
		return cli_fail(&e);
	config_edit_begin(&edit);
	config_edit_raw(&edit, "client_allowlist", buf_slice(&clients));
	rc = config_edit_save(&edit, c->cfg->config_path, &e);
	config_edit_done(&edit);
	if (!rc && !is_silent)
		sync_rc = sync_list(c, buf_slice(&clients), &why);
	jw_obj(&w, NULL);
	jw_str(&w, "action", is_removal ? "remove" : "add");
	jw_str(&w, "clients", list);
	jw_i64(&w, "changed", (int64_t)changed);
	jw_raw(&w, "client_allowlist", buf_slice(&clients));
	jw_str(&w, "state_path", c->cfg->config_path);
	jw_obj(&w, "sync");
	jw_bool(&w, "ok", !sync_rc && !is_silent);
	if (is_silent)
		jw_bool(&w, "skipped", true);
	if (sync_rc)
		jw_str(&w, "error", why.what);
	jw_end(&w);
	jw_end(&w);
	if (!rc)
		rc = jw_done(&w, &e);
	return rc ? cli_fail(&e) : account_print(buf_slice(&out)) || sync_rc;
}

int cmd_add_client(struct cli *c)
{
	return change(c, false);
}

int cmd_remove_client(struct cli *c)
{
	return change(c, true);
}
