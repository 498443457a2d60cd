/*
 * Sends prepared requests over kept-alive connections, the next one on each as soon as its answer is there, and says how
 * many a second were answered with 2xx. Input: a file of requests, each "<bytes>\n" and the request itself.
 *
 *   replay PORT CONNECTIONS FILE [SECONDS]      ->  {"done", "failed", "seconds", "p50_us", "p99_us"}
 *
 * With SECONDS the file is sent round and round for so long. Linux only; one thread, edge cases of HTTP are not handled: the
 * server is ours and always sends content-length.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024

struct request {
	const char *p;
	size_t n;
};

struct connection {
	int fd;
	char *in;
	size_t have, cap;
	int64_t sent_ns;
};

static struct request *requests;
static size_t request_count, next_request, done, failed;
static uint32_t *latency_us;
static size_t latency_cap;
static int64_t end_ns;                  /* 0: until the file is over */

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void load(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	char *p, *end;
	size_t cap = 0;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	p = mmap(NULL, (size_t)st.st_size + 1, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	for (end = p + st.st_size; p < end;) {
		char *line;
		size_t n = strtoul(p, &line, 10);

		if (request_count == cap)
			requests = realloc(requests, (cap = cap ? 2 * cap : 1024) * sizeof(*requests));
		requests[request_count++] = (struct request){ line + 1, n };
		p = line + 1 + n;
	}
}

static bool send_next(struct connection *c)
{
	struct request r;
	size_t at = 0;

	if (end_ns ? now_ns() >= end_ns : next_request == request_count)
		return false;
	r = requests[next_request++ % request_count];
	c->sent_ns = now_ns();
	c->have = 0;
	while (at < r.n) {
		ssize_t n = send(c->fd, r.p + at, r.n - at, MSG_NOSIGNAL);

		if (n <= 0)
			die("send");
		at += (size_t)n;
	}
	return true;
}

/* True: the answer is whole. */
static bool receive(struct connection *c)
{
	char *body, *length;
	ssize_t n;

	if (c->cap - c->have < 65536)
		c->in = realloc(c->in, c->cap += 1 << 20);
	n = recv(c->fd, c->in + c->have, c->cap - c->have - 1, 0);
	if (n <= 0)
		die("recv");
	c->have += (size_t)n;
	c->in[c->have] = '\0';
	body = strstr(c->in, "\r\n\r\n");
	length = body ? strcasestr(c->in, "content-length:") : NULL;
	return length && c->have >= (size_t)(body + 4 - c->in) + strtoul(length + 15, NULL, 10);
}

static void note(struct connection *c)
{
	if (done + failed < latency_cap)
		latency_us[done + failed] = (uint32_t)((now_ns() - c->sent_ns) / 1000);
	if (strncmp(c->in, "HTTP/1.1 2", 10) == 0) {
		done++;
	} else if (!failed++) {
		fprintf(stderr, "%.300s\n", c->in);
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	static struct connection c[CONNECTIONS_MAX];
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int ep = epoll_create1(0), n, one = 1;
	size_t open = 0;
	int64_t begun;

	if (argc < 4)
		return 2;
	to.sin_port = htons((uint16_t)atoi(argv[1]));
	n = atoi(argv[2]);
	load(argv[3]);
	latency_cap = argc > 4 ? 4000000 : request_count;
	latency_us = calloc(latency_cap, sizeof(*latency_us));
	for (int i = 0; i < n && i < CONNECTIONS_MAX; i++) {
		c[i].fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(c[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (connect(c[i].fd, (struct sockaddr *)&to, sizeof(to)))
			die("connect");
		epoll_ctl(ep, EPOLL_CTL_ADD, c[i].fd, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = &c[i] });
	}
	begun = now_ns();
	if (argc > 4)
		end_ns = begun + (int64_t)(atof(argv[4]) * 1e9);
	for (int i = 0; i < n; i++)
		open += send_next(&c[i]);
	while (open) {
		struct epoll_event v[64];
		int got = epoll_wait(ep, v, 64, -1);

		for (int i = 0; i < got; i++) {
			struct connection *one_of = v[i].data.ptr;

			if (!receive(one_of))
				continue;
			note(one_of);
			open -= !send_next(one_of);
		}
	}
	double seconds = (double)(now_ns() - begun) / 1e9;
	size_t kept = done + failed < latency_cap ? done + failed : latency_cap;

	qsort(latency_us, kept, sizeof(*latency_us), compare);
	printf("{\"done\":%zu,\"failed\":%zu,\"seconds\":%.6f,\"p50_us\":%u,\"p99_us\":%u}\n", done, failed, seconds,
	       kept ? latency_us[kept / 2] : 0, kept ? latency_us[kept * 99 / 100] : 0);
	return 0;
}
