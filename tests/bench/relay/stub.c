/*
 * The least that the node's five libraries allow: each is initialised and used once, and /healthz is answered. What the
 * node costs at start and at rest is compared with this.
 *
 *   bench_stub PORT DB_FILE     PORT 0: the kernel chooses; prints "port N"
 */
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum MHD_Result answer(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version,
			      const char *data, size_t *size, void **state)
{
	static char text[] = "{\"status\":\"ok\"}";
	static int seen;
	struct MHD_Response *r;
	enum MHD_Result rc;

	(void)cls;
	(void)url;
	(void)method;
	(void)version;
	(void)data;
	(void)size;
	if (!*state) {
		*state = &seen;
		return MHD_YES;
	}
	r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_PERSISTENT);
	rc = MHD_queue_response(c, 200, r);
	MHD_destroy_response(r);
	return rc;
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const union MHD_DaemonInfo *info;
	struct MHD_Daemon *d;
	sqlite3 *db;

	if (argc != 3)
		return 2;
	sa.sin_port = htons((unsigned short)strtoul(argv[1], NULL, 10));
	gnutls_global_init();
	curl_global_init(CURL_GLOBAL_DEFAULT);
	curl_multi_init();
	cJSON_Delete(cJSON_Parse("{}"));
	if (sqlite3_open(argv[2], &db) || sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(a)", NULL, NULL, NULL))
		return 1;
	d = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, NULL, MHD_OPTION_SOCK_ADDR, &sa, MHD_OPTION_END);
	info = d ? MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT) : NULL;
	if (!info)
		return 1;
	printf("port %d\n", info->port);
	fflush(stdout);
	pause();
}
