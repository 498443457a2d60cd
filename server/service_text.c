/*
 * The definitions of the service for each system (cli-config-service.md 4). Settings stand in config.json; here only where
 * that is, and what a program needs of its surroundings. Called by service.c and cmd_service.c. Pure.
 */
#include "server/service.h"

#include "base/mem.h"

#define TITLE "mswarm-node"
#define FALLBACK_PATH "/usr/local/bin:/opt/homebrew/bin:/usr/bin:/bin"
#define VARIABLES_MAX 12

struct variable {
	const char *name, *value;
};

static const char *first_env(const char *const *names)
{
	for (; *names; names++) {
		const char *value = config_env(*names);

		if (value && *value)
			return value;
	}
	return NULL;
}

static size_t add(struct variable *v, size_t n, const char *name, const char *value)
{
	if (value && *value)
		v[n++] = (struct variable){ name, value };
	return n;
}

/* 4.1 without the settings, and one of the allocator's. Of a system service only what belongs to its own user. */
static size_t variables(const struct service *s, struct variable v[VARIABLES_MAX])
{
	static const char *const users[] = { "USER", "LOGNAME", "USERNAME", NULL }, *const temps[] = { "TMPDIR", "TMP", "TEMP", NULL };
	const char *path = config_env("PATH"), *user = first_env(users);
	size_t n = 0;

	n = add(v, n, "HOME", s->home);
	n = add(v, n, "PATH", path && *path && !s->is_system ? path : FALLBACK_PATH);
	for (size_t i = 0; users[i]; i++) {
		const char *own = config_env(users[i]);

		n = add(v, n, users[i], s->is_system ? s->user : own && *own ? own : user ? user : s->user);
	}
	if (!s->is_system) {
		n = add(v, n, "SHELL", config_env("SHELL"));
		n = add(v, n, "TMPDIR", first_env(temps));
	}
	/* As deploy/quickstart: glibc's cache of freed blocks a thread keeps memory from coming back after a load. */
	if (s->kind == SERVICE_SYSTEMD)
		n = add(v, n, "GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
	n = add(v, n, "MSWARM_SELF_HOSTED_PROCESS_TITLE", TITLE);
	n = add(v, n, "MSWARM_SELF_HOSTED_NODE_STATE_PATH", s->cfg->config_path);
	n = add(v, n, "MSWARM_SELF_HOSTED_NODE_KEY_PATH", s->cfg->key_path);
	return n;
}

/* ---- quoting ---- */

/* text with each occurrence of one of the characters replaced; the rows are pairs. */
static enum errc add_escaped(struct buf *out, const char *text, const char *const rows[][2], struct err *e)
{
	enum errc rc = E_OK;

	for (; *text && !rc; text++) {
		const char *with = NULL;

		for (size_t i = 0; rows[i][0] && !with; i++)
			if (rows[i][0][0] == *text)
				with = rows[i][1];
		rc = with ? buf_add_str(out, with, e) : buf_add(out, text, 1, e);
	}
	return rc;
}

static const char *const shell_rows[][2] = { { "'", "'\\''" }, { NULL, NULL } };
static const char *const unit_rows[][2] = { { "\\", "\\\\" }, { "\"", "\\\"" }, { "%", "%%" }, { "$", "$$" }, { NULL, NULL } };
static const char *const log_rows[][2] = { { "%", "%%" }, { NULL, NULL } };
static const char *const xml_rows[][2] = { { "&", "&amp;" }, { "<", "&lt;" }, { ">", "&gt;" }, { "\"", "&quot;" }, { "'", "&apos;" }, { NULL, NULL } };
static const char *const windows_rows[][2] = { { "'", "''" }, { NULL, NULL } };

/* A line made of pieces; every second piece is escaped. */
static enum errc add_line(struct buf *out, const char *const rows[][2], struct err *e, const char *a, const char *value, const char *b)
{
	enum errc rc = buf_add_str(out, a, e);

	if (!rc)
		rc = add_escaped(out, value, rows, e);
	return rc ? rc : buf_add_str(out, b, e);
}

/* ---- the wrapper of Linux and macOS ---- */

static enum errc shell_wrapper(const struct service *s, struct buf *out, struct err *e)
{
	struct variable v[VARIABLES_MAX];
	size_t n = variables(s, v);
	enum errc rc = buf_add_str(out, "#!/bin/sh\n# The service's start: the node with an environment of its own. Settings stand in config.json.\n"
					"exec /usr/bin/env -i \\\n", e);

	for (size_t i = 0; i < n && !rc; i++) {
		AUTO_BUF line = BUF_MAX(64 * 1024);

		rc = buf_addf(&line, e, "%s=%s", v[i].name, v[i].value);
		if (!rc)
			rc = add_line(out, shell_rows, e, "  '", buf_cstr(&line), "' \\\n");
	}
	/* What the manager itself hands over: where to say "ready", and how often to say "alive". */
	if (!rc && s->kind == SERVICE_SYSTEMD)
		rc = buf_add_str(out, "  ${NOTIFY_SOCKET:+NOTIFY_SOCKET=\"$NOTIFY_SOCKET\"} ${WATCHDOG_USEC:+WATCHDOG_USEC=\"$WATCHDOG_USEC\"} \\\n", e);
	if (!rc)
		rc = add_line(out, shell_rows, e, "  '", s->program, "' \\\n  'start'\n");
	return rc;
}

static enum errc systemd_unit(const struct service *s, struct buf *out, struct err *e)
{
	enum errc rc = buf_add_str(out, "[Unit]\nDescription=mswarm self-hosted node\nAfter=network-online.target\nWants=network-online.target\n"
					"StartLimitIntervalSec=0\n\n[Service]\nType=notify\n", e);

	if (!rc)
		rc = add_line(out, unit_rows, e, "ExecStart=\"", s->wrapper, "\"\n");
	if (!rc && s->is_system)
		rc = buf_addf(out, e, "User=%s\n", s->user);
	/* Jobs outlive the node and its restarts; one that runs out of memory takes nobody along. No hardening that sandboxes inherit. */
	if (!rc)
		rc = buf_add_str(out, "Restart=always\nRestartSec=5\nWatchdogSec=60\nTimeoutStartSec=60\nTimeoutStopSec=60\nKillMode=process\nDelegate=yes\n"
				      "OOMPolicy=continue\n", e);
	if (!rc)
		rc = add_line(out, log_rows, e, "StandardOutput=append:", s->log, "\n");
	if (!rc)
		rc = add_line(out, log_rows, e, "StandardError=append:", s->error_log, "\n");
	return rc ? rc : buf_addf(out, e, "\n[Install]\nWantedBy=%s\n", s->is_system ? "multi-user.target" : "default.target");
}

/* ---- macOS ---- */

static enum errc plist_string(struct buf *out, const char *key, const char *value, struct err *e)
{
	enum errc rc = buf_addf(out, e, "  <key>%s</key>\n", key);

	return rc ? rc : add_line(out, xml_rows, e, "  <string>", value, "</string>\n");
}

static enum errc launchd_plist(const struct service *s, struct buf *out, struct err *e)
{
	enum errc rc = buf_add_str(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" "
					"\"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n", e);

	if (!rc)
		rc = plist_string(out, "Label", s->name, e);
	if (!rc)
		rc = add_line(out, xml_rows, e, "  <key>ProgramArguments</key>\n  <array>\n    <string>", s->wrapper, "</string>\n  </array>\n");
	if (!rc)
		rc = buf_add_str(out, "  <key>RunAtLoad</key>\n  <true/>\n  <key>KeepAlive</key>\n  <true/>\n", e);
	if (!rc)
		rc = plist_string(out, "StandardOutPath", s->log, e);
	if (!rc)
		rc = plist_string(out, "StandardErrorPath", s->error_log, e);
	return rc ? rc : buf_add_str(out, "</dict>\n</plist>\n", e);
}

/* ---- Windows ---- */

static enum errc windows_wrapper(const struct service *s, struct buf *out, struct err *e)
{
	struct variable v[VARIABLES_MAX];
	size_t n = variables(s, v);
	enum errc rc = buf_add_str(out, "$ErrorActionPreference = 'Continue'\n", e);

	if (!rc)
		rc = add_line(out, windows_rows, e, "$LogPath = '", s->log, "'\n");
	if (!rc)
		rc = add_line(out, windows_rows, e, "$ErrorLogPath = '", s->error_log, "'\n");
	if (!rc)
		rc = add_line(out, windows_rows, e, "$Program = '", s->program, "'\n");
	if (!rc)
		rc = buf_add_str(out, "$ProgramArguments = @('start')\n"
				      "$KeepVariables = @('SystemRoot', 'WINDIR', 'COMSPEC', 'PATHEXT', 'PSModulePath', 'ProgramFiles', 'ProgramFiles(x86)', "
				      "'ProgramW6432', 'TEMP', 'TMP')\n"
				      "New-Item -ItemType Directory -Force -Path (Split-Path -Parent $LogPath) | Out-Null\n"
				      "Get-ChildItem Env: | Where-Object { $KeepVariables -notcontains $_.Name } | ForEach-Object {\n"
				      "  Remove-Item -Path (\"Env:\" + $_.Name) -ErrorAction SilentlyContinue\n}\n", e);
	for (size_t i = 0; i < n && !rc; i++) {
		rc = buf_addf(out, e, "$env:%s = '", v[i].name);
		if (!rc)
			rc = add_line(out, windows_rows, e, "", v[i].value, "'\n");
	}
	return rc ? rc : buf_add_str(out,
		"while ($true) {\n  try {\n"
		"    Add-Content -Path $LogPath -Value (\"[\" + (Get-Date).ToUniversalTime().ToString('o') + \"] starting mswarm self-hosted node\")\n"
		"    & $Program @ProgramArguments >> $LogPath 2>> $ErrorLogPath\n"
		"    Add-Content -Path $ErrorLogPath -Value (\"[\" + (Get-Date).ToUniversalTime().ToString('o') + \"] mswarm self-hosted node exited with code \" + "
		"$LASTEXITCODE + \"; restarting in 5 seconds\")\n"
		"  } catch {\n"
		"    Add-Content -Path $ErrorLogPath -Value (\"[\" + (Get-Date).ToUniversalTime().ToString('o') + \"] mswarm self-hosted node wrapper error: \" + $_)\n"
		"  }\n  Start-Sleep -Seconds 5\n}\n", e);
}

static enum errc windows_task(const struct service *s, struct buf *out, struct err *e)
{
	enum errc rc = add_line(out, windows_rows, e,
		"$action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument '-NoProfile -ExecutionPolicy Bypass -File \"", s->wrapper, "\"'\n");

	return rc ? rc : buf_addf(out, e,
		"$trigger = New-ScheduledTaskTrigger -AtLogOn\n"
		"$settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -StartWhenAvailable "
		"-MultipleInstances IgnoreNew -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1) -ExecutionTimeLimit ([TimeSpan]::Zero)\n"
		"Register-ScheduledTask -TaskName '%s' -Action $action -Trigger $trigger -Settings $settings "
		"-Description 'mswarm self-hosted node daemon' -Force\n", s->name);
}

/* ---- all ---- */

enum errc service_wrapper_text(const struct service *s, struct buf *out, struct err *e)
{
	return s->kind == SERVICE_WINDOWS ? windows_wrapper(s, out, e) : shell_wrapper(s, out, e);
}

enum errc service_file_text(const struct service *s, struct buf *out, struct err *e)
{
	switch (s->kind) {
	case SERVICE_SYSTEMD:
		return systemd_unit(s, out, e);
	case SERVICE_LAUNCHD:
		return launchd_plist(s, out, e);
	case SERVICE_WINDOWS:
		break;
	}
	return windows_task(s, out, e);
}

const char *service_load_text(const struct service *s)
{
	switch (s->kind) {
	case SERVICE_SYSTEMD:
		return s->is_system ? "systemctl daemon-reload && systemctl enable --now mswarm-self-hosted-node.service" :
				      "systemctl --user daemon-reload && systemctl --user enable --now mswarm-self-hosted-node.service && loginctl enable-linger";
	case SERVICE_LAUNCHD:          /* gui/ is the session at the screen; over ssh there is only user/ */
		return "launchctl bootstrap gui/$(id -u) \"$plist\" || launchctl bootstrap user/$(id -u) \"$plist\"";
	case SERVICE_WINDOWS:
		break;
	}
	return "Start-ScheduledTask -TaskName 'MswarmSelfHostedNode'";
}
