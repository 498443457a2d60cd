/* One datagram to the service manager. Called by main at boot and stop. Source: sd_notify(3), "NOTIFY_SOCKET". */
#include "server/notify.h"

#include "base/config.h"
#include "base/file.h"

#include <sys/socket.h>
#include <sys/un.h>

bool notify_send(const char *state)
{
	const char *path = config_env("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;

	if (n < 2 || n >= sizeof(to.sun_path) || (path[0] != '/' && path[0] != '@'))
		return false;
	memcpy(to.sun_path, path, n);
	if (path[0] == '@') /* abstract socket: its name begins with a NUL byte */
		to.sun_path[0] = '\0';
	AUTO_FD fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);

	return fd >= 0 && sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, len) == (ssize_t)strlen(state);
}

int64_t notify_watchdog_ms(void)
{
	int64_t us = 0;

	return slice_to_i64(slice_str(config_env("WATCHDOG_USEC")), 1, INT64_MAX, &us) ? us / 1000 : 0;
}
