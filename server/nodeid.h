/*
 * Who this node is and with what it signs: node id, machine.id, signing.key. Files are made when absent.
 * Threads: main (blocking).
 */
#ifndef MSWARM_SERVER_NODEID_H
#define MSWARM_SERVER_NODEID_H

#include "base/config.h"

/*
 * The configured id, else in local mode "local-" and 12 hex digits of the machine fingerprint (*ret: mem_free). In the
 * other modes an id is required: E_MISSING_CONFIG with the reference's text. Source: cli-config-service.md 1.12, 3.
 */
MUST_CHECK enum errc nodeid_get(const struct config *cfg, char **ret, struct err *e);
/* Lower-case hex SHA-256 of the trimmed text of machine.id, which is made (UUID v4) when absent or blank. */
MUST_CHECK enum errc nodeid_fingerprint(const struct config *cfg, char ret[SHA256_HEX_LEN], struct err *e);
/*
 * The signing secret, trimmed: the configured one, else signing.key in the state folder, made when absent (O_EXCL, 0600,
 * 32 random bytes as base64url). E_FORBIDDEN when others may read the file.
 */
MUST_CHECK enum errc nodeid_secret(const struct config *cfg, struct secret *ret, struct err *e);
/* First 8 hex digits of the secret's SHA-256: tells two secrets apart without saying them. */
void nodeid_secret_mark(struct slice secret, char ret[9]);
/* Appends the URL under which clients of this machine reach the node, without a slash at its end. */
MUST_CHECK enum errc nodeid_url(const struct config *cfg, int port, struct buf *out, struct err *e);

#endif
