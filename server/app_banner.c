/*
 * Words for people: the ready line (exact, read by machines too) and the banner below it, on standard output.
 * Called by app_run on main.
 */
#include "server/app_priv.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/cli.h"
#include "server/nodeid.h"
#include "server/users.h"

#include <stdio.h>

#define BANNER_MAX (256 * 1024)
#define MODELS_SHOWN 12

/* Source: cli-config-service.md 1.10. */
void app_print_ready(struct app *a)
{
	const struct config *cfg = a->cfg;
	const char *host = cfg->listen_host;
	bool has_brackets = strchr(host, ':') && host[0] != '[';

	if (a->o.kind == APP_SERVE || cfg->mode == MODE_DIRECT)
		printf("mswarm self-hosted node serving direct jobs for %s on %s%s%s:%d\n", a->node_id, has_brackets ? "[" : "",
		       host, has_brackets ? "]" : "", a->svc.port);
	else
		printf("mswarm self-hosted node %s active for %s\n", a->o.kind == APP_DAEMON ? "daemon" : "foreground run", a->node_id);
	fflush(stdout);
	log_event(LOG_INFO, "node.started", "addr=%s%s%s:%d mode=%s node=%s loops=%u version=%s", has_brackets ? "[" : "", host,
		  has_brackets ? "]" : "", a->svc.port, config_mode_name(cfg->mode), a->node_id, a->loop_count, MSWARM_VERSION);
}

/* A command as the reader can type it: this program, and the state folder when it is not the usual one. */
static enum errc add_command(struct app *a, struct buf *out, const char *words, struct err *e)
{
	AUTO_FREE char *usual = file_expand_home("~/.mswarm/self-hosted-node/config.json", a->cfg->home);
	enum errc rc = buf_addf(out, e, "%s %s", a->o.program, words);

	if (rc || (usual && strcmp(usual, a->cfg->config_path) == 0))
		return rc;
	rc = buf_add_str(out, " --state-path ", e);
	return rc ? rc : cli_quote(out, slice_str(a->cfg->config_path), e);
}

static enum errc add_access(struct app *a, struct buf *out, struct err *e)
{
	enum errc rc;

	unsigned others = users_who_can_log_in();

	if (auth_is_keyed(a->svc.auth))
		return buf_add_str(out, "  access    with an API key\n", e);
	if (others == 0)
		return buf_add_str(out, "  access    without a key, from this machine only; it has no other login users\n", e);
	rc = buf_addf(out, e, "  access    without a key, from this machine only: its %u other login user%s can call this node too.\n"
		      "            To let in only those who have a key: ", others, others == 1 ? "" : "s");
	if (rc == E_OK)
		rc = add_command(a, out, "keys add NAME", e);
	return rc ? rc : buf_add_str(out, "\n", e);
}

/* One line a runner that answered or should have; what is simply not there is left out. */
static enum errc add_runners(struct app *a, struct buf *out, struct err *e)
{
	AUTO_BUF text = BUF_MAX(BANNER_MAX);
	AUTO_JSON tree = NULL;
	struct jw w = JW(&text);
	const char *label = "runners";

	jw_obj(&w, NULL);
	inventory_json(a->svc.inventory, &w, "sources");
	jw_end(&w);
	enum errc rc = jw_done(&w, e);

	if (rc == E_OK)
		rc = json_parse(buf_slice(&text), JSON_LIMITS_DEFAULT, &tree, e);
	for (const struct json *s = json_first(json_get(tree, "sources")); s && rc == E_OK; s = json_next(s)) {
		const char *name = json_str(json_get(s, "name")), *state = json_str(json_get(s, "state"));
		const char *error = json_str(json_get(s, "error"));

		if (!name || !state || strcmp(state, "absent") == 0)
			continue;
		double n = json_num(json_get(s, "agents"), 0);

		rc = buf_addf(out, e, "  %-9s %s: %s, %.0f model%s%s%s\n", label, name, state, n, n > 0 && n < 2 ? "" : "s",
			      error ? "; " : "", error ? error : "");
		label = "";
	}
	if (rc == E_OK && *label)
		rc = buf_add_str(out, "  runners   none found: start Ollama, llama.cpp, vLLM or LM Studio, and it appears by itself\n", e);
	return rc;
}

/* The models that clients may ask for; *ret_first is borrowed from the list. */
static enum errc add_models(const struct agents *list, struct buf *out, const char **ret_first, struct err *e)
{
	size_t shown = 0, more = 0;
	enum errc rc = buf_add_str(out, "  models    ", e);

	for (size_t i = 0; i < list->n && rc == E_OK; i++) {
		if (!agent_is_listed(list, i))
			continue;
		if (shown == 0)
			*ret_first = list->v[i].slug;
		if (shown < MODELS_SHOWN)
			rc = buf_addf(out, e, "%s%s", shown ? ", " : "", list->v[i].slug);
		else
			more++;
		shown++;
	}
	if (rc == E_OK && more)
		rc = buf_addf(out, e, " and %zu more", more);
	if (rc == E_OK && !shown)
		rc = buf_add_str(out, "none", e);
	return rc ? rc : buf_add_str(out, "\n", e);
}

static enum errc add_curl(struct app *a, struct buf *out, struct slice url, const char *model, struct err *e)
{
	AUTO_BUF body = BUF_MAX(4096);
	struct jw w = JW(&body);

	jw_obj(&w, NULL);
	jw_str(&w, "model", model);
	jw_bool(&w, "stream", true);
	jw_arr(&w, "messages");
	jw_obj(&w, NULL);
	jw_str(&w, "role", "user");
	jw_str(&w, "content", "Say hello");
	jw_end(&w);
	jw_end(&w);
	jw_end(&w);
	enum errc rc = jw_done(&w, e);

	if (rc == E_OK)
		rc = buf_addf(out, e, "  try       curl -N " SLICE_FMT "/v1/chat/completions -H 'content-type: application/json'%s -d ",
			      SLICE_ARG(url), auth_is_keyed(a->svc.auth) ? " -H 'authorization: Bearer YOUR_KEY'" : "");
	if (rc == E_OK)
		rc = cli_quote(out, buf_slice(&body), e);
	return rc ? rc : buf_add_str(out, "\n", e);
}

static enum errc render(struct app *a, const struct agents *list, struct buf *out, struct err *e)
{
	AUTO_BUF url = BUF_MAX(1024);
	const char *first = NULL;
	enum errc rc = nodeid_url(a->cfg, a->svc.port, &url, e);

	if (rc == E_OK)
		rc = buf_addf(out, e, "\n  API       " SLICE_FMT "/v1  (OpenAI clients: base URL; any API key while none is needed)\n",
			      SLICE_ARG(buf_slice(&url)));
	if (rc == E_OK)
		rc = add_access(a, out, e);
	if (rc == E_OK)
		rc = buf_addf(out, e, "  state     %s\n", a->cfg->state_dir);
	if (rc == E_OK)
		rc = add_runners(a, out, e);
	if (rc == E_OK)
		rc = add_models(list, out, &first, e);
	if (rc == E_OK && first)
		rc = add_curl(a, out, buf_slice(&url), first, e);
	if (rc == E_OK)
		rc = buf_add_str(out, "  mcoda     eval \"$(", e);
	if (rc == E_OK)
		rc = add_command(a, out, "node env", e);
	return rc ? rc : buf_add_str(out, ")\" && mcoda gpu ops\n\n", e);
}

void app_print_banner(struct app *a)
{
	AUTO_BUF out = BUF_MAX(BANNER_MAX);
	struct agents *list = inventory_get(a->svc.inventory);
	struct err e = { 0 };

	if (render(a, list, &out, &e) == E_OK)
		(void)cli_print(buf_slice(&out));
	else
		log_event(LOG_WARN, "banner.failed", "code=%s", err_name(e.code));
	agents_unref(list);
}
