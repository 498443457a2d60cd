/* The control socket's client side, for commands: blocking, on main. And the address that both sides use. */
#include "server/control_priv.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CALL_LIMIT_MS 20000            /* a heartbeat may take the gateway's whole time */

enum errc control_address(const char *path, int *ret_folder_fd, struct sockaddr_un *ret, struct err *e)
{
	AUTO_FREE char *folder = file_dirname(path);
	const char *name = strrchr(path, '/');
	AUTO_FD fd = -1;

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!folder)
		return err_set(e, E_NO_MEMORY, "no memory");
	if (strlen(path) < sizeof(ret->sun_path)) {
		memcpy(ret->sun_path, path, strlen(path) + 1);
		return E_OK;
	}
	/* An address holds 107 bytes. A longer path is reached through its folder. */
	fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set_os(e, errno == ENOENT ? E_NOT_FOUND : E_IO, errno, "%s", folder);
	int n = snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d%s", fd, name ? name : "");

	if (n < 0 || (size_t)n >= sizeof(ret->sun_path))
		return err_set(e, E_INVALID_VALUE, "%s: name too long for a socket", path);
	*ret_folder_fd = fd;
	fd = -1;
	return E_OK;
}

static enum errc connect_to(const char *path, int *ret_fd, struct err *e)
{
	struct sockaddr_un at;
	const struct timeval limit = { .tv_sec = CALL_LIMIT_MS / 1000 };
	AUTO_FD folder = -1;
	AUTO_FD fd = -1;
	enum errc rc = control_address(path, &folder, &at, e);

	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set_os(e, E_IO, errno, "control socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0) {
		if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR)
			return err_set(e, E_NOT_FOUND, "no node runs on this state folder");
		return err_set_os(e, errno == EACCES ? E_FORBIDDEN : E_IO, errno, "%s", path);
	}
	*ret_fd = fd;
	fd = -1;
	return E_OK;
}

static enum errc send_all(int fd, struct slice text, struct err *e)
{
	while (text.n) {
		ssize_t n = send(fd, text.p, text.n, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set_os(e, errno == EAGAIN ? E_TIMEOUT : E_IO, errno, "control socket");
		text = slice_from(text, (size_t)n);
	}
	return E_OK;
}

static enum errc read_line(int fd, struct buf *answer, struct err *e)
{
	int64_t end_ms = clock_mono_ms() + CALL_LIMIT_MS;
	char chunk[4096];

	while (clock_mono_ms() < end_ms) {
		ssize_t n = recv(fd, chunk, sizeof(chunk), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return err_set_os(e, E_IO, errno, "control socket");
		if (n == 0)
			return err_set(e, E_IO, "the node closed the control socket without an answer");
		const char *newline = memchr(chunk, '\n', (size_t)n);
		enum errc rc = buf_add(answer, chunk, newline ? (size_t)(newline - chunk) : (size_t)n, e);

		mem_wipe(chunk, sizeof(chunk));
		if (rc || newline)
			return rc;
	}
	return err_set(e, E_TIMEOUT, "the node did not answer on its control socket within %d s", CALL_LIMIT_MS / 1000);
}

enum errc control_call(const char *path, struct slice request, struct buf *answer, struct err *e)
{
	AUTO_FD fd = -1;
	enum errc rc = connect_to(path, &fd, e);

	if (rc == E_OK)
		rc = send_all(fd, request, e);
	if (rc == E_OK)
		rc = send_all(fd, SLICE("\n"), e);
	return rc ? rc : read_line(fd, answer, e);
}
