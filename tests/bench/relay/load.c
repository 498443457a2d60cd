/*
 * Clients for measurements: one thread, epoll, STREAMS connections to 127.0.0.1:PORT, for SECONDS.
 *
 *   bench_load chat PORT STREAMS SECONDS PATH MODEL KEY     streams chats again and again; KEY "-" sends none
 *   bench_load get  PORT STREAMS SECONDS PATH KEY           asks for PATH again and again over kept-alive connections
 *
 * Prints one line of JSON: what was received, time to first byte, and how late chunks came (they carry the time of
 * their sending, "t=<us>").
 */
#include <arpa/inet.h>
#include <errno.h>
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

#define SAMPLES_MAX 4000000

struct conn {
	int fd;
	int64_t asked_us;
	bool has_first, is_open;
	char buf[16384 + 64];
	size_t n;
};

static uint32_t *late, *first;
static size_t late_n, first_n;
static long requests, errors, bytes;
static int port, epoll_fd;
static bool is_chat;
static char request[2048];
static size_t request_n;

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void ask(struct conn *c)
{
	c->asked_us = now_us();
	c->has_first = false;
	c->n = 0;
	if (send(c->fd, request, request_n, MSG_NOSIGNAL) != (ssize_t)request_n)
		errors++;
}

static void open_conn(struct conn *c)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port) };
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(c->fd, (struct sockaddr *)&sa, sizeof(sa))) {
		perror("connect");
		exit(1);
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev);
	c->is_open = true;
	ask(c);
}

static void again(struct conn *c, bool is_closed)
{
	requests++;
	if (is_closed) {
		close(c->fd);
		open_conn(c);
	} else {
		ask(c);
	}
}

static void note(uint32_t *list, size_t *n, int64_t us)
{
	if (*n < SAMPLES_MAX)
		list[(*n)++] = us < 0 ? 0 : (uint32_t)us;
}

/* Whole marks in what has come; the tail is kept for the next read. */
static void scan(struct conn *c, int64_t now)
{
	char *p = c->buf, *end = c->buf + c->n, *t;
	bool is_end;

	while ((t = memmem(p, (size_t)(end - p), "\"t=", 3)) && t + 23 <= end) {
		note(late, &late_n, now - strtoll(t + 3, NULL, 10));
		p = t + 23;
	}
	is_end = memmem(p, (size_t)(end - p), "0\r\n\r\n", 5) != NULL && memmem(p, (size_t)(end - p), "[DONE]", 6) != NULL;
	if (is_end) {
		again(c, false);
		return;
	}
	if (t)
		p = t;
	else if (end - p > 400)
		p = end - 400;
	memmove(c->buf, p, (size_t)(end - p));
	c->n = (size_t)(end - p);
}

static void on_readable(struct conn *c)
{
	ssize_t n = recv(c->fd, c->buf + c->n, sizeof(c->buf) - 64 - c->n, MSG_DONTWAIT);
	int64_t now = now_us();
	char *body, *len;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		errors++;
		again(c, true);
		return;
	}
	if (!c->has_first) {
		note(first, &first_n, now - c->asked_us);
		c->has_first = true;
		if (strncmp(c->buf, "HTTP/1.1 200", 12) && strncmp(c->buf, "HTTP/1.1 2", 10)) {
			if (errors++ == 0)
				fprintf(stderr, "%.*s\n", (int)(n < 300 ? n : 300), c->buf);
		}
	}
	bytes += n;
	c->n += (size_t)n;
	c->buf[c->n] = '\0';
	if (is_chat) {
		scan(c, now);
		return;
	}
	body = strstr(c->buf, "\r\n\r\n");
	len = strcasestr(c->buf, "content-length:");
	if (body && len && c->n >= (size_t)(body - c->buf) + 4 + strtoul(len + 15, NULL, 10))
		again(c, false);
}

static int order(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print_list(const char *name, uint32_t *v, size_t n)
{
	if (n)
		qsort(v, n, sizeof(*v), order);
	printf("\"%s\":{\"n\":%zu,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u}", name, n, n ? v[n / 2] : 0, n ? v[n * 99 / 100] : 0, n ? v[n - 1] : 0);
}

static void make_request(char **argv)
{
	char body[512], auth[256] = "";
	const char *key = is_chat ? argv[7] : argv[6];

	if (strcmp(key, "-"))
		snprintf(auth, sizeof(auth), "authorization: Bearer %s\r\n", key);
	if (is_chat) {
		snprintf(body, sizeof(body), "{\"model\":\"%s\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story.\"}]}", argv[6]);
		request_n = (size_t)snprintf(request, sizeof(request), "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n%scontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
					     argv[5], port, auth, strlen(body), body);
	} else {
		request_n = (size_t)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n%s\r\n", argv[5], port, auth);
	}
}

int main(int argc, char **argv)
{
	struct conn *conns;
	int64_t until, began;
	int streams;

	if (argc < 7)
		return 2;
	is_chat = strcmp(argv[1], "chat") == 0;
	port = (int)strtol(argv[2], NULL, 10);
	streams = (int)strtol(argv[3], NULL, 10);
	late = calloc(SAMPLES_MAX, sizeof(*late));
	first = calloc(SAMPLES_MAX, sizeof(*first));
	conns = calloc((size_t)streams, sizeof(*conns));
	epoll_fd = epoll_create1(0);
	make_request(argv);
	began = now_us();
	until = began + (int64_t)(strtod(argv[4], NULL) * 1e6);
	for (int i = 0; i < streams; i++)
		open_conn(&conns[i]);
	while (now_us() < until) {
		struct epoll_event evs[256];
		int k = epoll_wait(epoll_fd, evs, 256, 10);

		for (int i = 0; i < k; i++)
			on_readable(evs[i].data.ptr);
	}
	printf("{\"seconds\":%.3f,\"requests\":%ld,\"errors\":%ld,\"bytes\":%ld,", (double)(now_us() - began) / 1e6, requests, errors, bytes);
	print_list("first", first, first_n);
	printf(",");
	print_list("late", late, late_n);
	printf("}\n");
	return errors ? 1 : 0;
}
