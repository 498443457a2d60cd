/* Coarse pressure of this machine's hardware, opt-in (gateway.md 4.6). Reads two files of /proc. Any thread. */
#ifndef MSWARM_GATEWAY_PRESSURE_H
#define MSWARM_GATEWAY_PRESSURE_H

#include "base/jw.h"
#include "jobs/capabilities.h"

void pressure_write(struct jw *w, const char *key, const struct capabilities *c, int64_t now_wall_ms);
const char *pressure_ram_bucket(int64_t bytes);

#endif
