/*
 * Preloaded into a node: a name server that never answers. Names that begin with "hang." take HANG_SECONDS to fail; the
 * rest is looked up as ever. Stands in for resolv.conf pointing at a black hole, which a test cannot set for one process.
 */
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <time.h>

#define HANG_SECONDS 20

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
	struct timespec wait = { .tv_sec = HANG_SECONDS };

	if (!node || strncmp(node, "hang.", 5) != 0)
		return real(node, service, hints, res);
	nanosleep(&wait, NULL);
	return EAI_AGAIN;
}
