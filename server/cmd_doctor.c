/* node doctor: what a node needs, checked one by one (cli-config-service.md 1.7). Main thread. */
#include "server/doctor.h"

#include "base/clock.h"
#include "base/mem.h"
#include "gateway/member.h"
#include "llm/place.h"

#include <netdb.h>
#include <stdio.h>

#define SKEW_MS (5 * 60 * 1000)        /* tokens live for minutes */

/* ---- the five of the reference ---- */

static void check_token(struct doctor *d)
{
	bool has_token = *d->cfg->runtime_token != '\0';
	struct check *k;

	doctor_add(d, "config", true, "%s", d->cfg->node_id);
	k = doctor_add(d, "runtime_token", has_token, has_token ? "present" : "missing");
	if (!has_token)
		doctor_mend(k, "mswarm node install --api-key-stdin");
}

static void mend_gateway(struct check *k, const struct account *a)
{
	if (a->status == 401 || a->status == 403)
		doctor_mend(k, "the account does not know this token any more: mswarm node install --api-key-stdin");
	else if (a->status == 410)
		doctor_mend(k, "the node was removed from its account: restore it there, or mswarm node install --api-key-stdin");
	else if (!a->status)
		doctor_mend(k, "see the checks of dns and tls; the gateway's address is gateway_base_url in config.json");
}

static void check_health(struct doctor *d, struct account *a)
{
	struct err e = { 0 };
	enum errc rc = account_call(a, "/healthz", slice_of("", 0), slice_of("", 0), NULL, &e);
	struct check *k = rc ? doctor_add(d, "gateway_health", false, "%.280s", e.what) : doctor_add(d, "gateway_health", true, NULL);

	if (rc)
		mend_gateway(k, a);
}

static void check_beat(struct doctor *d, struct account *a)
{
	AUTO_JSON answer = NULL;
	struct account_found found = { 0 };
	struct account_beat beat = { 0 };
	struct err e = { 0 };
	double exposed = 0;
	bool is_online = false;
	struct check *k;
	enum errc rc;

	if (d->running) {                  /* it alone knows its load */
		rc = cli_control(d->c, SLICE("{\"op\":\"heartbeat\"}"), &answer, &e);
		const struct json *told = json_get(answer, "heartbeat");
		const char *status = json_str(json_get(told, "status"));

		is_online = status && strcmp(status, "online") == 0;
		exposed = json_num(json_get(told, "model_count"), 0);
	} else {
		rc = account_join(a, &e);
		if (!rc)
			rc = account_discover(d->cfg, &found, &e);
		if (!rc)
			rc = account_beat(a, &found, d->cfg->node_id, &beat, &e);
		is_online = beat.is_online;
		exposed = (double)beat.exposed_count;
		agents_unref(found.agents);
		buf_done(&beat.told);
	}
	if (rc) {
		k = doctor_add(d, "heartbeat", false, "%.280s", e.what);
		mend_gateway(k, a);
		return;
	}
	k = doctor_add(d, "heartbeat", is_online, is_online ? "online" : "degraded");
	if (!is_online)
		doctor_mend(k, "the source of models does not answer: %s", strcmp(d->cfg->discovery_mode, "ollama") == 0 ? "start Ollama" : "mcoda agent list --json");
	k = doctor_add(d, "local_agents", exposed > 0, "%.0f exposed local agent(s)", exposed);
	if (exposed <= 0)
		doctor_mend(k, "add an agent with mcoda, or share one of \"upstreams\" in %s with \"share\": true", d->cfg->config_path);
}

/* ---- the way to the gateway ---- */

static void check_way(struct doctor *d, const struct account *a)
{
	struct place at;
	char host[256];
	struct addrinfo *found = NULL;
	struct check *k;
	int64_t theirs;

	if (!place_parse(slice_str(d->cfg->gateway_base_url), &at) || !slice_copy(at.host, host, sizeof(host))) {
		k = doctor_add(d, "gateway_url", false, "%.200s is no URL", d->cfg->gateway_base_url);
		doctor_mend(k, "set gateway_base_url in %s", d->cfg->config_path);
		return;
	}
	int failed = getaddrinfo(host, NULL, NULL, &found);

	k = doctor_add(d, "dns", !failed, "%s%s%s", host, failed ? ": " : "", failed ? gai_strerror(failed) : "");
	if (failed)
		doctor_mend(k, "check the name server, or gateway_base_url in %s", d->cfg->config_path);
	else
		freeaddrinfo(found);
	if (at.is_tls && !failed) {
		k = doctor_add(d, "tls", a->status > 0, a->status > 0 ? "the gateway's certificate is good" : "no TLS connection came about");
		if (a->status <= 0)
			doctor_mend(k, "see gateway_health for why; an authority of your own goes into gateway_ca_file");
	}
	if (a->date[0] && doctor_parse_date(a->date, &theirs)) {
		int64_t off_ms = clock_wall_ms() - theirs;
		bool is_ok = off_ms < SKEW_MS && off_ms > -SKEW_MS;

		k = doctor_add(d, "clock", is_ok, "%lld s %s the gateway's", (long long)((off_ms < 0 ? -off_ms : off_ms) / 1000), off_ms < 0 ? "behind" : "ahead of");
		if (!is_ok)
			doctor_mend(k, "timedatectl set-ntp true");
	}
}

/* ---- models, direct mode ---- */

static void check_sources(struct doctor *d)
{
	if (!d->running)
		return;
	for (const struct json *s = json_first(json_get(d->running, "sources")); s; s = json_next(s)) {
		const char *name = json_str(json_get(s, "name")), *state = json_str(json_get(s, "state")), *error = json_str(json_get(s, "error"));
		bool is_quiet = state && strcmp(state, "absent") == 0;

		doctor_add(d, "runner", is_quiet || (state && strcmp(state, "stale") != 0), "%s: %s, %.0f agents%s%s", name ? name : "?", state ? state : "?",
			   json_num(json_get(s, "agents"), 0), error ? "; " : "", error ? error : "");
	}
}

static void check_direct(struct doctor *d, struct account *a)
{
	const char *url = d->cfg->direct_base_url;
	struct err e = { 0 };
	struct check *k;
	enum errc rc;

	if (d->cfg->mode != MODE_DIRECT)
		return;
	k = doctor_add(d, "signing_secret", d->cfg->is_signing_secret_shared, d->cfg->is_signing_secret_shared ? "shared" : "self-made: the gateway does not have it");
	if (!k->is_ok)
		doctor_mend(k, "mswarm node install --signing-secret-stdin, or MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET");
	if (!*url)
		return;
	a->base = url;
	rc = account_call(a, "/healthz", slice_of("", 0), slice_of("", 0), NULL, &e);
	a->base = NULL;
	bool is_ours = !rc && slice_find(buf_slice(&a->answer), slice_str(d->cfg->node_id)) >= 0;

	k = rc ? doctor_add(d, "direct_url", false, "%s: %.200s", url, e.what) :
		 doctor_add(d, "direct_url", is_ours, is_ours ? "%s leads to this node" : "%s leads to something that is not this node", url);
	if (!k->is_ok)
		doctor_mend(k, "start the node and its tunnel, or correct direct_base_url");
}

/* ---- output ---- */

static int print_json(const struct doctor *d, bool is_ok)
{
	AUTO_BUF out = BUF_MAX(256 * 1024);
	struct jw w = JW(&out);
	struct err e = { 0 };

	jw_obj(&w, NULL);
	jw_bool(&w, "ok", is_ok);
	jw_arr(&w, "checks");
	for (size_t i = 0; i < d->n; i++) {
		jw_obj(&w, NULL);
		jw_str(&w, "name", d->v[i].name);
		jw_bool(&w, "ok", d->v[i].is_ok);
		if (d->v[i].has_message)
			jw_str(&w, "message", d->v[i].message);
		jw_end(&w);
	}
	jw_end(&w);
	jw_end(&w);
	if (jw_done(&w, &e))
		return cli_fail(&e);
	return account_print(buf_slice(&out)) || !is_ok;
}

static int print_text(const struct doctor *d, bool is_ok)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct check *k = &d->v[i];

		printf("%-5s %-15s %s\n", k->is_ok ? "ok" : "FAIL", k->name, k->message);
		if (!k->is_ok && k->mend[0])
			printf("      %-15s -> %s\n", "", k->mend);
	}
	puts(is_ok ? "All is well." : "Something is wrong: see the arrows.");
	return cli_print(SLICE("")) || !is_ok;
}

int cmd_doctor(struct cli *c)
{
	struct doctor d = { .c = c };
	struct account a = { 0 };
	struct err e = { 0 };
	bool is_ok = true;
	enum errc rc = cli_load(c, NULL, NULL, 0, NULL, &e);

	if (!rc)
		rc = account_need_node(c->cfg, &e);
	if (!rc)
		rc = account_open(c->cfg, &a, &e);
	if (rc)
		return cli_fail(&e);
	d.cfg = c->cfg;
	(void)!cli_control(c, SLICE("{\"op\":\"status\"}"), &d.running, NULL);
	check_token(&d);
	check_health(&d, &a);
	struct account health = { .status = a.status };

	memcpy(health.date, a.date, sizeof(health.date));
	check_beat(&d, &a);
	check_way(&d, &health);
	doctor_files(&d);
	doctor_machine(&d);
	check_sources(&d);
	check_direct(&d, &a);
	doctor_service(&d);
	for (size_t i = 0; i < d.n; i++)
		is_ok = is_ok && d.v[i].is_ok;
	int code = c->wants_json ? print_json(&d, is_ok) : print_text(&d, is_ok);

	json_free(d.running);
	account_close(&a);
	return code;
}
