/*
 * node start, stop, restart, logs, uninstall: the service's control (cli-config-service.md 1.5, 1.8, 1.9). Main thread.
 */
#include "server/account.h"
#include "server/log_tail.h"
#include "server/service.h"

#include "base/file.h"
#include "base/mem.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static const struct { const char *word; } ops[] = { [SERVICE_START] = { "start" }, [SERVICE_STOP] = { "stop" }, [SERVICE_RESTART] = { "restart" },
						     [SERVICE_STATUS] = { "status" } };

/* The system's service when that is the one that is there, or asked for. */
static bool is_system_service(bool is_asked)
{
	return is_asked || (geteuid() == 0 && file_exists(SERVICE_SYSTEM_UNIT));
}

static void answer_json(struct jw *w, const struct service *s, const char *action, const struct service_answer *a)
{
	service_json_head(s, w, action);
	jw_bool(w, "ok", a->is_ok);
	jw_slice(w, "stdout", buf_slice(&a->out));
	jw_slice(w, "stderr", buf_slice(&a->err));
	if (!a->is_ok)
		jw_str(w, "message", a->message);
}

static int run_op(struct cli *c, enum service_op op)
{
	bool is_system = false;
	const struct cli_option options[] = { { .flag = "--system", .is_set = &is_system }, { 0 } };
	struct service s = { 0 };
	struct service_answer a = { 0 };
	AUTO_BUF out = BUF_MAX(64u << 20);
	struct jw w = JW(&out);
	struct err e = { 0 };
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);

	if (!rc)
		rc = service_open(c->cfg, SERVICE_SYSTEMD, is_system_service(is_system), &s, &e);
	if (!rc)
		rc = service_do(&s, op, &a, &e);
	jw_obj(&w, NULL);
	if (!rc)
		answer_json(&w, &s, ops[op].word, &a);
	jw_end(&w);
	if (!rc)
		rc = jw_done(&w, &e);
	service_answer_done(&a);
	service_close(&s);
	return rc ? cli_fail(&e) : account_print(buf_slice(&out));
}

int cmd_service_start(struct cli *c)
{
	return run_op(c, SERVICE_START);
}

int cmd_service_stop(struct cli *c)
{
	return run_op(c, SERVICE_STOP);
}

int cmd_service_restart(struct cli *c)
{
	return run_op(c, SERVICE_RESTART);
}

/* For node status: what the manager says, also when that is "inactive". */
void service_status_json(struct cli *c, struct jw *w)
{
	struct service s = { 0 };
	struct service_answer a = { 0 };
	struct err e = { 0 };

	if (service_open(c->cfg, SERVICE_SYSTEMD, is_system_service(false), &s, &e)) {
		jw_null(w, "service");
		return;
	}
	if (service_do(&s, SERVICE_STATUS, &a, &e) && !a.message[0])
		snprintf(a.message, sizeof(a.message), "%s", e.what);
	jw_obj(w, "service");
	answer_json(w, &s, "status", &a);
	jw_end(w);
	service_answer_done(&a);
	service_close(&s);
}

/* ---- logs ---- */

int cmd_logs(struct cli *c)
{
	bool is_error = false, follows = false, follows_short = false;
	const char *lines = NULL;
	const struct cli_option options[] = { { .flag = "--error", .is_set = &is_error }, { .flag = "--lines", .value = &lines },
					      { .flag = "--follow", .is_set = &follows }, { .flag = "-f", .is_set = &follows_short }, { 0 } };
	struct service s = { 0 };
	struct err e = { 0 };
	int64_t n = 200;
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);

	if (!rc && lines && !slice_to_i64(slice_trim(slice_str(lines)), 1, 10000000, &n))
		n = 200;               /* as in the reference: what is no number is the default */
	if (!rc)
		rc = service_open(c->cfg, SERVICE_SYSTEMD, is_system_service(false), &s, &e);
	if (!rc)
		rc = log_tail(is_error ? s.error_log : s.log, n, follows || follows_short, &e);
	service_close(&s);
	return rc ? cli_fail(&e) : cli_print(SLICE(""));
}

/* ---- uninstall ---- */

/* Everything that the node is known by; jobs, artifacts and the database go too. */
static void purge(const struct config *cfg, const struct service *s)
{
	static const char *const names[] = { "signing.key", CONFIG_SHARED_SECRET_FILE, "node.db", "node.db-wal", "node.db-shm", "lock", "config.lock",
					     "control.sock" };

	(void)unlink(cfg->key_path);
	(void)unlink(cfg->machine_id_path);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		AUTO_FREE char *path = file_join(cfg->state_dir, names[i]);

		if (path)
			(void)unlink(path);
	}
	log_files_remove(s->log);
	log_files_remove(s->error_log);
	file_remove_tree(cfg->artifact_path);
	AUTO_FREE char *jobs = file_join(cfg->state_dir, "jobs");

	if (jobs)
		file_remove_tree(jobs);
	(void)unlink(cfg->config_path);
	(void)rmdir(cfg->state_dir);
}

static void tell_gateway(struct cli *c, const struct service *s, struct jw *w)
{
	struct account a = { 0 };
	struct err e = { 0 };
	enum errc rc = account_need_node(c->cfg, &e);

	if (!rc)
		rc = account_open(c->cfg, &a, &e);
	if (!rc) {
		rc = account_goodbye(&a, service_manager(s), &e);
		jw_obj(w, "gateway_notification");
		jw_bool(w, "notified", rc == E_OK);
		if (rc)
			jw_str(w, "error", e.what);
		else
			jw_raw(w, "response", json_check(buf_slice(&a.answer), JSON_LIMITS_DEFAULT, NULL) ? SLICE("null") : buf_slice(&a.answer));
		jw_end(w);
		account_close(&a);
		return;
	}
	jw_obj(w, "gateway_notification");
	jw_bool(w, "notified", false);
	jw_str(w, "error", e.what);
	jw_end(w);
}

/* Somebody started it by hand; or the manager's stop takes its time. */
static bool is_running(struct cli *c)
{
	for (int i = 0; i < 50; i++) {
		AUTO_JSON running = NULL;

		if (cli_control(c, SLICE("{\"op\":\"status\"}"), &running, NULL) != E_OK)
			return false;
		(void)poll(NULL, 0, 100);
	}
	return true;
}

int cmd_uninstall(struct cli *c)
{
	bool is_system = false, is_purge = false;
	const struct cli_option options[] = { { .flag = "--system", .is_set = &is_system }, { .flag = "--purge", .is_set = &is_purge }, { 0 } };
	struct service s = { 0 };
	struct service_answer a = { 0 };
	AUTO_BUF out = BUF_MAX(64u << 20);
	struct jw w = JW(&out);
	struct err e = { 0 };
	enum errc rc = cli_load(c, options, NULL, 0, NULL, &e);

	if (!rc)
		rc = service_open(c->cfg, SERVICE_SYSTEMD, is_system_service(is_system), &s, &e);
	if (rc)
		return cli_fail(&e);
	service_uninstall(&s, &a);
	if (is_purge && is_running(c)) {
		service_answer_done(&a);
		service_close(&s);
		return cli_fail((err_set(&e, E_CONFLICT, "a node still runs on %s: stop it first, then uninstall with --purge", c->cfg->state_dir), &e));
	}
	jw_obj(&w, NULL);
	answer_json(&w, &s, "uninstall", &a);
	tell_gateway(c, &s, &w);
	jw_end(&w);
	if (is_purge)
		purge(c->cfg, &s);
	rc = jw_done(&w, &e);
	service_answer_done(&a);
	service_close(&s);
	return rc ? cli_fail(&e) : account_print(buf_slice(&out));
}
