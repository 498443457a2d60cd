/*
 * The node as a service: its files, its definitions for each system, and the manager's commands (cli-config-service.md 4, 5).
 * The definitions can be printed anywhere; the commands are systemd's.
 *
 * Threads: main, blocking.
 */
#ifndef MSWARM_SERVER_SERVICE_H
#define MSWARM_SERVER_SERVICE_H

#include "base/config.h"
#include "base/jw.h"
#include "base/loop.h"

enum service_kind { SERVICE_SYSTEMD, SERVICE_LAUNCHD, SERVICE_WINDOWS };

struct service {
	enum service_kind kind;
	bool is_system;                    /* of the machine, not of a user */
	const struct config *cfg;          /* borrowed */
	const char *name;                  /* as the manager knows it; static */
	char *file, *wrapper, *log, *error_log;
	char *program;                     /* absolute, links resolved */
	char *user, *home;
};

#define SERVICE_SYSTEM_UNIT "/etc/systemd/system/mswarm-self-hosted-node.service"
#define SERVICE_SYSTEM_USER "mswarm"
#define SERVICE_SYSTEM_HOME "/var/lib/mswarm"

MUST_CHECK enum errc service_open(const struct config *cfg, enum service_kind kind, bool is_system, struct service *ret, struct err *e);
void service_close(struct service *s);
/* "linux", "macos", "windows" (also the manager's name); false: none of them. */
bool service_kind_parse(struct slice name, enum service_kind *ret);
const char *service_manager(const struct service *s);      /* "systemd", ... */

MUST_CHECK enum errc service_wrapper_text(const struct service *s, struct buf *out, struct err *e);
/* What makes the system's manager know it: a line of a shell, or nothing. */
const char *service_load_text(const struct service *s);
/* Unit, plist, or the command that registers the task. */
MUST_CHECK enum errc service_file_text(const struct service *s, struct buf *out, struct err *e);

/* What a command of the manager came to. */
struct service_answer {
	bool is_ok;
	struct buf out, err;               /* redacted; service_answer_done */
	char message[1024];                /* "command failed (5): systemctl ...", when not ok; redacted */
};
void service_answer_done(struct service_answer *a);
enum service_op { SERVICE_START, SERVICE_STOP, SERVICE_RESTART, SERVICE_STATUS };
/* E_UPSTREAM: message says so, too. E_NOT_FOUND: there is no systemd here. */
MUST_CHECK enum errc service_do(struct service *s, enum service_op op, struct service_answer *ret, struct err *e);

/* Files, ready (NULL: nothing; the files stand, nothing is started yet), daemon-reload, enable, linger, restart. On failure everything
 * is as it was. E_NOT_FOUND: no service manager. */
struct service_install {
	char linger_warning[400];          /* loud; empty: it is on, or not needed */
};
MUST_CHECK enum errc service_install(struct service *s, enum errc (*ready)(const struct service *s, struct err *e), struct service_install *ret, struct err *e);
/* Never fails: what is gone is gone. */
void service_uninstall(struct service *s, struct service_answer *ret);
/* Redaction of what a manager prints: values behind names that sound like secrets (6). In place. */
void service_redact(struct buf *text);

/* The keys of control results, in their order (1.5), up to "action". */
void service_json_head(const struct service *s, struct jw *w, const char *action);

#endif
