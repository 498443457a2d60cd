/*
 * A model runner for measurements: one thread, epoll, streams of small chunks at a steady pace, each carrying the
 * monotonic time of its sending. Speaks just enough HTTP/1.1 (keep-alive, chunked answers).
 *
 *   bench_upstream PORT CHUNKS CHUNK_BYTES INTERVAL_US      PORT 0: the kernel chooses; prints "port N"
 *
 * GET /v1/models lists one model, "m". POST .../chat/completions streams: role, CHUNKS texts, finish, usage, [DONE].
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct conn {
	int fd;
	char in[65536];
	size_t in_n;
	size_t skip;                    /* bytes of the request's body still to come, dropped */
	bool is_asked;                  /* its head was read: answer when skip is 0 */
	int left;                       /* chunks still to be sent; -1: not streaming */
	int64_t next_us;                /* when the next is due */
	struct conn *next;              /* in the list of streaming connections */
};

static int chunk_count, chunk_bytes, epoll_fd;
static int64_t interval_us;
static struct conn *streaming;

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void drop(struct conn *c)
{
	struct conn **p = &streaming;

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p)
		*p = c->next;
	close(c->fd);
	free(c);
}

static bool send_all(struct conn *c, const char *p, size_t n)
{
	while (n) {
		ssize_t w = send(c->fd, p, n, MSG_NOSIGNAL);

		if (w < 0 && errno == EAGAIN)
			continue;           /* loopback, small pieces: does not happen in a run that is valid */
		if (w <= 0)
			return false;
		p += w;
		n -= (size_t)w;
	}
	return true;
}

static size_t frame(char *out, const char *json, size_t n)
{
	size_t h = (size_t)sprintf(out, "%zx\r\ndata: ", n + 8);

	memcpy(out + h, json, n);
	memcpy(out + h + n, "\n\n\r\n", 4);
	return h + n + 4;
}

static const char *const base = "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1795424829,\"model\":\"m\",";

static bool send_chunk(struct conn *c)
{
	char json[4096], out[8192];
	size_t n, at;

	if (c->left > 0) {
		n = (size_t)sprintf(json, "%s\"choices\":[{\"index\":0,\"delta\":{\"content\":\"t=%020lld ", base, (long long)now_us());
		at = (size_t)chunk_bytes > n + 60 ? (size_t)chunk_bytes - n - 48 : 8;
		memset(json + n, 'x', at);
		n += at;
		n += (size_t)sprintf(json + n, "\"},\"finish_reason\":null}]}");
		c->left--;
		return send_all(c, out, frame(out, json, n));
	}
	n = (size_t)sprintf(json, "%s\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}", base);
	at = frame(out, json, n);
	n = (size_t)sprintf(json, "%s\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":%d,\"total_tokens\":%d}}", base, chunk_count, chunk_count + 7);
	at += frame(out + at, json, n);
	at += frame(out + at, "[DONE]", 6);
	at += (size_t)sprintf(out + at, "0\r\n\r\n");
	c->left = -1;
	return send_all(c, out, at);
}

static bool begin(struct conn *c)
{
	static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
	char json[1024], out[2048];
	size_t n = (size_t)sprintf(json, "%s\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"t=%020lld \"},\"finish_reason\":null}]}", base, (long long)now_us());

	if (!send_all(c, head, sizeof(head) - 1) || !send_all(c, out, frame(out, json, n)))
		return false;
	c->left = chunk_count;
	c->next_us = now_us() + interval_us / 2 + rand() % (interval_us / 2 + 1);
	c->next = streaming;
	streaming = c;
	return true;
}

static bool answer_models(struct conn *c)
{
	static const char body[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1795424829,\"owned_by\":\"bench\"}]}";
	char out[512];
	int n = snprintf(out, sizeof(out), "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", sizeof(body) - 1, body);

	return send_all(c, out, (size_t)n);
}

/* Take bytes of the head, drop those of the body; begin when the request is whole. Requests do not overlap here. */
static bool step(struct conn *c)
{
	char *end, *len;
	size_t rest;

	c->in[c->in_n] = '\0';
	end = strstr(c->in, "\r\n\r\n");
	if (!end)
		return c->in_n < sizeof(c->in) - 1;
	len = strcasestr(c->in, "content-length:");
	c->skip = len && len < end ? strtoul(len + 15, NULL, 10) : 0;
	rest = c->in_n - (size_t)(end + 4 - c->in);
	c->skip -= rest < c->skip ? rest : c->skip;
	c->in_n = 0;
	if (strncmp(c->in, "POST", 4) != 0)
		return answer_models(c);
	c->is_asked = true;
	return true;
}

static void on_readable(struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_n, sizeof(c->in) - 1 - c->in_n, 0);
	bool ok = true;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		drop(c);
		return;
	}
	if (c->is_asked) {
		c->skip -= (size_t)n < c->skip ? (size_t)n : c->skip;
	} else {
		c->in_n += (size_t)n;
		ok = step(c);
	}
	if (ok && c->is_asked && !c->skip) {
		c->is_asked = false;
		ok = begin(c);
	}
	if (!ok)
		drop(c);
}

static void send_due(int64_t now)
{
	for (struct conn **p = &streaming, *c; (c = *p);) {
		bool ok = true;

		if (c->next_us <= now) {
			c->next_us += interval_us;
			ok = send_chunk(c);
		}
		if (!ok) {
			*p = c->next;
			close(c->fd);
			free(c);
		} else if (c->left < 0) {
			*p = c->next;
		} else {
			p = &c->next;
		}
	}
}

static void accept_all(int listener)
{
	int fd, one = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct conn *c = calloc(1, sizeof(*c));
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

		c->fd = fd;
		c->left = -1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(sa);
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct epoll_event ev = { .events = EPOLLIN };

	if (argc != 5)
		return 2;
	sa.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	chunk_count = (int)strtol(argv[2], NULL, 10);
	chunk_bytes = (int)strtol(argv[3], NULL, 10);
	interval_us = strtol(argv[4], NULL, 10);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&sa, sizeof(sa)) || listen(listener, 4096) || getsockname(listener, (struct sockaddr *)&sa, &n))
		return 1;
	printf("port %d\n", ntohs(sa.sin_port));
	fflush(stdout);
	epoll_fd = epoll_create1(0);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev);
	for (;;) {
		struct epoll_event evs[256];
		int k = epoll_wait(epoll_fd, evs, 256, streaming ? 1 : -1);

		for (int i = 0; i < k; i++) {
			if (!evs[i].data.ptr)
				accept_all(listener);
			else
				on_readable(evs[i].data.ptr);
		}
		send_due(now_us());
	}
}
