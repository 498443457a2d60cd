/* systemd's notification protocol: one datagram to the socket in NOTIFY_SOCKET. Threads: any. Never fails loudly. */
#ifndef MSWARM_SERVER_NOTIFY_H
#define MSWARM_SERVER_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* state: lines such as "READY=1\nSTATUS=serving". False when nobody listens, or the datagram could not be sent. */
bool notify_send(const char *state);
/* How often the manager wants to hear "WATCHDOG=1" at the latest (WATCHDOG_USEC); 0: never. */
int64_t notify_watchdog_ms(void);

#endif
