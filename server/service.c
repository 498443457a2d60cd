/* The node as a service; see service.h. Called by cmd_service.c and cmd_setup.c. */
#include "server/service.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"

#include <ctype.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNIT "mswarm-self-hosted-node.service"
#define LIMIT_MS 60000
#define OUTPUT_MAX (16u << 20)
#define TEXT_MAX (256u * 1024)

static const struct { const char *system, *manager, *name; } kinds[] = {
	[SERVICE_SYSTEMD] = { "linux", "systemd", UNIT },
	[SERVICE_LAUNCHD] = { "macos", "launchd", "com.mcoda.mswarm.self-hosted-node" },
	[SERVICE_WINDOWS] = { "windows", "windows-task-scheduler", "MswarmSelfHostedNode" },
};

bool service_kind_parse(struct slice name, enum service_kind *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (slice_eq_nocase(name, slice_str(kinds[i].system)) || slice_eq_nocase(name, slice_str(kinds[i].manager))) {
			*ret = (enum service_kind)i;
			return true;
		}
	return false;
}

const char *service_manager(const struct service *s)
{
	return kinds[s->kind].manager;
}

/* ---- where things lie ---- */

static char *below(const char *home, const char *path)
{
	return file_join(home, path);
}

enum errc service_open(const struct config *cfg, enum service_kind kind, bool is_system, struct service *ret, struct err *e)
{
	const struct passwd *pw = getpwuid(geteuid());
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	struct service s = { .kind = kind, .is_system = is_system, .cfg = cfg, .name = kinds[kind].name };

	if (n <= 0)
		return err_set(e, E_IO, "cannot tell where this program is");
	self[n] = '\0';
	s.program = mem_strdup(self);
	s.home = mem_strdup(is_system ? SERVICE_SYSTEM_HOME : cfg->home);
	s.user = mem_strdup(is_system ? SERVICE_SYSTEM_USER : pw ? pw->pw_name : "");
	if (!s.home || !s.program || !s.user) {
		service_close(&s);
		return err_set(e, E_NO_MEMORY, "no memory");
	}
	s.log = below(s.home, ".mswarm/self-hosted-node/daemon.log");
	s.error_log = below(s.home, ".mswarm/self-hosted-node/daemon.err.log");
	s.wrapper = below(s.home, kind == SERVICE_WINDOWS ? ".mswarm/self-hosted-node/mswarm-self-hosted-node.ps1" : ".mswarm/self-hosted-node/mswarm-node");
	if (kind == SERVICE_SYSTEMD)
		s.file = is_system ? mem_strdup(SERVICE_SYSTEM_UNIT) : below(s.home, ".config/systemd/user/" UNIT);
	else
		s.file = kind == SERVICE_LAUNCHD ? below(s.home, "Library/LaunchAgents/com.mcoda.mswarm.self-hosted-node.plist") : mem_strdup(s.wrapper);
	if (!s.log || !s.error_log || !s.wrapper || !s.file) {
		service_close(&s);
		return err_set(e, E_NO_MEMORY, "no memory");
	}
	*ret = s;
	return E_OK;
}

void service_close(struct service *s)
{
	mem_free(s->file);
	mem_free(s->wrapper);
	mem_free(s->log);
	mem_free(s->error_log);
	mem_free(s->program);
	mem_free(s->user);
	mem_free(s->home);
	*s = (struct service){ 0 };
}

void service_json_head(const struct service *s, struct jw *w, const char *action)
{
	jw_str(w, "manager", service_manager(s));
	jw_str(w, "serviceName", s->name);
	jw_str(w, "servicePath", s->file);
	jw_str(w, "logPath", s->log);
	jw_str(w, "errorLogPath", s->error_log);
	jw_str(w, "action", action);
}

/* ---- redaction ---- */

static bool is_name_char(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '-';
}

static bool sounds_secret(struct slice name)
{
	static const char *const words[] = { "SECRET", "TOKEN", "PASSWORD", "CREDENTIAL" }, *const before_key[] = { "API", "ACCESS", "PRIVATE" };

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (slice_contains_nocase(name, slice_str(words[i])))
			return true;
	for (size_t i = 0; i < ARRAY_LEN(before_key); i++)
		for (size_t k = 0; k < 3; k++) {
			char text[16];

			snprintf(text, sizeof(text), "%s%sKEY", before_key[i], k == 1 ? "_" : k == 2 ? "-" : "");
			if (slice_contains_nocase(name, slice_str(text)))
				return true;
		}
	return false;
}

/* Offset of what is to be hidden in a line, or its length. */
static size_t secret_at(struct slice line)
{
	size_t at = 0, begin;

	while (at < line.n && isspace((unsigned char)line.p[at]))
		at++;
	begin = at;
	while (at < line.n && is_name_char(line.p[at]))
		at++;
	struct slice name = slice_of(line.p + begin, at - begin);

	while (at < line.n && isspace((unsigned char)line.p[at]))
		at++;
	if (!name.n || at >= line.n || (line.p[at] != '=' && line.p[at] != ':') || !sounds_secret(name))
		return line.n;
	return at + (line.p[at] == '=' && at + 1 < line.n && line.p[at + 1] == '>' ? 2 : 1);
}

void service_redact(struct buf *text)
{
	struct buf out = BUF_MAX(text->n + 4096);
	struct slice rest = buf_slice(text), line;
	bool is_first = true;
	enum errc rc = E_OK;

	buf_init(&out, 2 * OUTPUT_MAX);
	while (!rc && rest.p && slice_next(&rest, '\n', &line)) {
		size_t at = secret_at(line);

		if (!is_first)
			rc = buf_add_str(&out, "\n", NULL);
		is_first = false;
		if (!rc)
			rc = buf_add_slice(&out, slice_cut(line, at), NULL);
		if (!rc && at < line.n)
			rc = buf_add_str(&out, "[redacted]", NULL);
	}
	buf_done(text);
	*text = out;
}

/* ---- running a command ---- */

void service_answer_done(struct service_answer *a)
{
	buf_done(&a->out);
	buf_done(&a->err);
}

struct running {
	struct loop *loop;
	struct service_answer *answer;
	enum errc rc;
};

static void on_ran(void *ctx, const struct proc_result *r)
{
	struct running *x = ctx;
	struct service_answer *a = x->answer;

	x->rc = r->rc;
	a->is_ok = r->rc == E_OK;
	(void)!buf_add_slice(&a->out, r->out, NULL);
	(void)!buf_add_slice(&a->err, r->err, NULL);
	service_redact(&a->out);
	service_redact(&a->err);
	if (r->rc == E_UPSTREAM)
		snprintf(a->message, sizeof(a->message), "command failed (%d)", r->exit_code);
	else if (r->rc)
		snprintf(a->message, sizeof(a->message), "%s", r->e.what);
	loop_stop(x->loop);
}

/* The message of a failure names the command and ends in what it said. */
static void tell(struct service_answer *a, const char *const *argv)
{
	char head[128];
	AUTO_BUF line = BUF_MAX(TEXT_MAX);

	if (a->is_ok || strncmp(a->message, "command failed", 14) != 0)
		return;
	snprintf(head, sizeof(head), "%.100s", a->message);
	for (size_t i = 0; argv[i]; i++)
		(void)!buf_addf(&line, NULL, "%s%s", i ? " " : "", argv[i]);
	struct slice said = slice_trim(buf_slice(&a->err));

	snprintf(a->message, sizeof(a->message), "%s: " SLICE_FMT "%s" SLICE_FMT, head, SLICE_ARG(slice_cut(buf_slice(&line), 400)), said.n ? " " : "",
		 SLICE_ARG(slice_cut_text(said, 400)));
}

static enum errc run(const char *const *argv, struct service_answer *ret, struct err *e)
{
	static const char *const names[] = { "PATH", "HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS", "LANG" };
	char *env[ARRAY_LEN(names) + 1] = { 0 };
	struct running x = { .answer = ret };
	struct proc *p = NULL;
	size_t n = 0;
	enum errc rc = loop_new("command", &x.loop, e);

	*ret = (struct service_answer){ 0 };
	buf_init(&ret->out, OUTPUT_MAX);
	buf_init(&ret->err, OUTPUT_MAX);
	for (size_t i = 0; !rc && i < ARRAY_LEN(names); i++) {
		AUTO_BUF line = BUF_MAX(TEXT_MAX);
		const char *value = config_env(names[i]);

		if (value && !buf_addf(&line, e, "%s=%s", names[i], value))
			env[n++] = buf_take(&line, NULL);
	}
	const struct proc_req q = { .argv = argv, .env = (const char *const *)env, .limit_ms = LIMIT_MS, .max_out_bytes = OUTPUT_MAX, .done = on_ran, .ctx = &x };

	if (!rc)
		rc = proc_start(x.loop, &q, &p, e);
	if (!rc)
		loop_run(x.loop);
	loop_free(x.loop);
	for (size_t i = 0; i < n; i++)
		mem_free(env[i]);
	tell(ret, argv);
	if (!rc && x.rc)
		rc = err_set(e, x.rc, "%s", ret->message);
	return rc;
}

/* systemctl [--user] WORDS... [UNIT]; words end with a NULL. */
static enum errc systemctl(const struct service *s, const char *const *words, bool names_unit, struct service_answer *ret, struct err *e)
{
	const char *argv[8] = { "systemctl" };
	size_t n = 1;

	if (!s->is_system)
		argv[n++] = "--user";
	for (; *words && n < 6; words++)
		argv[n++] = *words;
	if (names_unit)
		argv[n++] = s->name;
	return run(argv, ret, e);
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

enum errc service_do(struct service *s, enum service_op op, struct service_answer *ret, struct err *e)
{
	switch (op) {
	case SERVICE_START:
		return systemctl(s, WORDS("start"), true, ret, e);
	case SERVICE_STOP:
		return systemctl(s, WORDS("stop"), true, ret, e);
	case SERVICE_RESTART:
		return systemctl(s, WORDS("restart"), true, ret, e);
	case SERVICE_STATUS:
		break;
	}
	return systemctl(s, WORDS("status", "--no-pager"), true, ret, e);
}

/* ---- install ---- */

static enum errc write_definitions(const struct service *s, struct err *e)
{
	AUTO_BUF wrapper = BUF_MAX(TEXT_MAX);
	AUTO_BUF unit = BUF_MAX(TEXT_MAX);
	AUTO_FREE char *folder = file_dirname(s->file);
	AUTO_FREE char *home = file_dirname(s->wrapper);
	enum errc rc = folder && home ? service_wrapper_text(s, &wrapper, e) : err_set(e, E_NO_MEMORY, "no memory");

	if (!rc)
		rc = service_file_text(s, &unit, e);
	if (!rc)
		rc = file_make_private_dir(home, e);
	if (!rc && !file_exists(folder))
		rc = file_make_private_dir(folder, e);
	if (!rc)
		rc = file_write_atomic(s->wrapper, buf_slice(&wrapper), 0755, e);
	return rc ? rc : file_write_atomic(s->file, buf_slice(&unit), 0644, e);
}

/* A user's services end at the last logout unless the user lingers. */
static void enable_linger(const struct service *s, struct service_install *ret)
{
	struct service_answer a = { 0 };
	struct err e;
	bool is_on;

	(void)!run(WORDS("loginctl", "enable-linger", s->user), &a, &e);
	service_answer_done(&a);
	is_on = run(WORDS("loginctl", "show-user", s->user, "--property=Linger"), &a, &e) == E_OK && slice_find(buf_slice(&a.out), SLICE("Linger=yes")) >= 0;
	if (!is_on)
		snprintf(ret->linger_warning, sizeof(ret->linger_warning),
			 "Lingering could not be switched on for %s: the node will stop when you log out. As an administrator: loginctl enable-linger %s",
			 s->user, s->user);
	service_answer_done(&a);
}

/* No systemd at all, or none that this user can reach: that is no failure of ours. */
static bool is_unmanaged(enum errc rc, const struct service_answer *a)
{
	struct slice said = buf_slice(&a->err);

	return rc == E_NOT_FOUND || slice_find(said, SLICE("Failed to connect to bus")) >= 0 ||
	       slice_find(said, SLICE("not been booted with systemd")) >= 0;
}

static enum errc step(struct service *s, const char *const *words, bool names_unit, struct err *e)
{
	struct service_answer a = { 0 };
	enum errc rc = systemctl(s, words, names_unit, &a, e);

	if (rc && is_unmanaged(rc, &a))
		rc = err_set(e, E_NOT_FOUND, "no service manager");
	service_answer_done(&a);
	return rc;
}

enum errc service_install(struct service *s, enum errc (*ready)(const struct service *s, struct err *e), struct service_install *ret, struct err *e)
{
	bool had_file = file_exists(s->file);
	enum errc rc = write_definitions(s, e);
	struct err ignored;

	*ret = (struct service_install){ 0 };
	if (!rc && ready)
		rc = ready(s, e);
	if (!rc)
		rc = step(s, WORDS("daemon-reload"), false, e);
	if (!rc)
		rc = step(s, WORDS("enable"), true, e);
	if (!rc && !s->is_system)
		enable_linger(s, ret);
	if (!rc)
		rc = step(s, WORDS("restart"), true, e);
	if (!rc)
		return E_OK;
	if (!had_file) {
		(void)!step(s, WORDS("disable", "--now"), true, &ignored);
		(void)unlink(s->file);
		(void)unlink(s->wrapper);
		(void)!step(s, WORDS("daemon-reload"), false, &ignored);
	}
	return rc;
}

void service_uninstall(struct service *s, struct service_answer *ret)
{
	struct err e;

	(void)!systemctl(s, WORDS("disable", "--now"), true, ret, &e);
	ret->is_ok = true;
	(void)unlink(s->file);
	(void)unlink(s->wrapper);
	(void)!step(s, WORDS("daemon-reload"), false, &e);
}
