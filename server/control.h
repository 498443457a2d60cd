/*
 * The control socket: how commands act on the running node. A unix socket in the state folder (0600, peer uid checked by
 * SO_PEERCRED), one JSON object a line in, one a line out: {"ok":true,...} or {"ok":false,"error":{"code","message"}}.
 *
 *   {"op":"status"}                               {"op":"drain","mode":"on"|"off"|"all"|"status"}
 *   {"op":"keys.add","name":..,"models":[..],"requests_per_minute":n,"max_concurrent":n}   answers with the key, once
 *   {"op":"keys.list"}   {"op":"keys.revoke","key":id or name}   {"op":"access.open"}   {"op":"refresh"}
 *   {"op":"clients","list":[..]} the same, with a new client_allowlist
 *   {"op":"heartbeat"}     answers {"ok":true,"heartbeat":{...}} when the gateway has
 *
 * Server: THREAD(supervisor), its loop. Client: blocking, for commands.
 */
#ifndef MSWARM_SERVER_CONTROL_H
#define MSWARM_SERVER_CONTROL_H

#include "base/json.h"
#include "routes/route.h"

struct control;

MUST_CHECK enum errc control_new(struct svc *svc, struct loop *supervisor, const char *path, struct control **ret, struct err *e);
void control_stop(struct control *c);      /* main, after the loop has ended and before store_close; removes the socket file */
void control_free(struct control *c);      /* main, after store_close: what the store had promised to answer is dropped */

/* One request, one answer (whole line, without its end); waits at most 20 s. E_NOT_FOUND: no node runs there. */
MUST_CHECK enum errc control_call(const char *path, struct slice request, struct buf *answer, struct err *e);

#endif
