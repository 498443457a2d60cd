/*
 * What joining an account exchanges and leaves behind: bodies of bootstrap and enroll, their answers, config.json and node.key.
 *
 * Pure but for member_keep_*, which block (main or the pool). Source: gateway.md 2, 3; cli-config-service.md 3.
 */
#ifndef MSWARM_GATEWAY_MEMBER_H
#define MSWARM_GATEWAY_MEMBER_H

#include "base/config.h"
#include "base/config_edit.h"
#include "base/crypto.h"

#define MEMBER_BASE_PATH "/v1/swarm/self-hosted/node"
#define MEMBER_BOOTSTRAP_PATH MEMBER_BASE_PATH "/bootstrap"
#define MEMBER_ENROLL_PATH MEMBER_BASE_PATH "/enroll"
#define MEMBER_HEARTBEAT_PATH MEMBER_BASE_PATH "/heartbeat"
#define MEMBER_MODELS_PATH MEMBER_BASE_PATH "/models"
#define MEMBER_UNINSTALL_PATH MEMBER_BASE_PATH "/uninstall"

enum member_kind { MEMBER_BOOTSTRAPPED, MEMBER_ENROLLED };
enum member_path { MEMBER_POLL, MEMBER_START, MEMBER_EVENTS, MEMBER_RESULT, MEMBER_PATHS };

/* An answer, read. NULL, 0: the gateway said nothing about it. */
struct member {
	struct secret token;
	char *node_id, *server_name, *relay_mode;
	char *base;                        /* without slashes at its end */
	char *paths[MEMBER_PATHS];
	char *config_version;              /* JSON token */
	int64_t interval_s;                /* 1 to 86400; another value counts as none */
	int64_t timeout_s;
	bool is_created;
};

/* E_UPSTREAM with the text of gateway.md 2, 3 when what is needed is missing. */
MUST_CHECK enum errc member_parse(struct slice answer, enum member_kind kind, struct member *ret, struct err *e);
void member_done(struct member *m);

MUST_CHECK enum errc member_write_enroll(const char *node_id, const char *enrollment_token, struct buf *out, struct err *e);

/* What a node says of itself when its owner registers it. Borrowed. */
struct member_offer {
	const struct config *cfg;          /* limits, lists, modes */
	const char *fingerprint;           /* "sha256:..." */
	const char *server_name, *relay_mode;
	const char *direct_base_url;       /* NULL: none */
	bool exposes_all;
	struct slice client_allowlist;     /* JSON array, or empty: not told */
};
MUST_CHECK enum errc member_write_bootstrap(const struct member_offer *o, struct buf *out, struct err *e);
/* config.json after a registration: all settings, in the reference's order (cli-config-service.md 3.1). */
void member_edit_offer(struct config_edit *c, const struct member *m, const struct member_offer *o, const char *base, int64_t now_wall_ms);

/* What every way of joining writes into config.json. */
void member_edit(struct config_edit *c, const struct member *m, const char *node_id, int64_t now_wall_ms);
/* After an enrolment: node.key, then config.json; what was there is put back when the second fails. */
MUST_CHECK enum errc member_keep_enrolled(const struct config *cfg, const struct member *m, struct err *e);
MUST_CHECK enum errc member_write_key(const char *path, struct slice token, struct err *e);

#endif
