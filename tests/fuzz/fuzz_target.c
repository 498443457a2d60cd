/*
 * Request targets, paths and Host values from strangers. Input: "METHOD TARGET HOST". A match decodes each parameter once
 * and holds no NUL byte; a path that matched matches again with its parameters' bytes escaped; nothing crashes.
 */
#include "base/mem.h"
#include "routes/guard.h"
#include "routes/route.h"

#include <stdio.h>

/* The table wants its handlers; nobody calls them here. */
#define ROUTE(method, pattern, access, shape, max_body, name, help) \
	enum errc route_##name(struct req *q, struct reply *rep, struct err *e) \
	{ \
		(void)q; \
		(void)rep; \
		return err_set(e, E_INTERNAL, "not called"); \
	}
#define ROUTE_LARGE(method, pattern, access, shape, max_body, name, help) \
	ROUTE(method, pattern, access, shape, max_body, name, help) \
	enum errc route_##name##_begin(struct req *q, struct err *e) \
	{ \
		(void)q; \
		return err_set(e, E_INTERNAL, "not called"); \
	}
#include "routes/routes.def"
#undef ROUTE
#undef ROUTE_LARGE

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every byte of a parameter escaped, so that it must come out the same. */
static bool add_escaped(struct buf *out, const char *arg)
{
	for (; *arg; arg++)
		if (buf_addf(out, NULL, "%%%02X", (unsigned char)*arg))
			return false;
	return true;
}

static void check_again(const struct route *r, char *const args[ROUTE_ARGS_MAX])
{
	AUTO_BUF path = BUF_MAX(1 << 20);
	struct slice rest = slice_str(r->pattern), seg;
	char *again[ROUTE_ARGS_MAX] = { NULL };
	const struct route *same = NULL;
	bool is_first = true;
	unsigned n = 0;

	while (slice_next(&rest, '/', &seg)) {
		if (!is_first && buf_add_str(&path, "/", NULL))
			return;
		is_first = false;
		bool is_arg = seg.n && (seg.p[0] == ':' || seg.p[0] == '*');

		if (is_arg ? !add_escaped(&path, args[n++]) : buf_add_slice(&path, seg, NULL) != E_OK)
			return;
	}
	if (route_match(slice_str(r->method), buf_slice(&path), &same, again, NULL) == E_OK) {
		must(same == r);
		for (unsigned i = 0; i < n; i++)
			must(strcmp(args[i], again[i]) == 0);
	}
	route_args_done(again);
}

static void check_host(struct slice host)
{
	static char name[] = "box.example:8443";
	char *hosts[] = { name };
	struct config cfg = { .listen_host = name, .direct_base_url = name, .allowed_hosts = { hosts, 1 } };
	struct guard_in in = { .cfg = &cfg, .host = host, .origin = host, .has_origin = host.n > 3, .local_address = SLICE("127.0.0.1"), .port = 18083 };
	bool cors;
	struct err e;
	enum errc rc = guard_check(&in, &cors, &e);

	must(rc == E_OK || rc == E_HOST_DENIED || rc == E_ORIGIN_DENIED);
	(void)guard_is_local_host(host);
	(void)guard_is_forwarding_header(host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice rest = slice_of((const char *)data, size), method, target;
	char *args[ROUTE_ARGS_MAX] = { NULL };
	const struct route *r = NULL;
	struct err e = { 0 };
	enum errc rc;

	if (!size || !slice_next(&rest, ' ', &method) || !rest.p || !slice_next(&rest, ' ', &target))
		return 0;
	rc = route_match(method, target, &r, args, &e);
	must(rc == E_OK || rc == E_NOT_FOUND || rc == E_METHOD || rc == E_BAD_REQUEST || rc == E_NO_MEMORY);
	must(slice_is_utf8(slice_str(e.what)) || !slice_is_utf8(target) || !slice_is_utf8(method));
	if (rc == E_OK)
		check_again(r, args);
	route_args_done(args);
	if (rest.p)
		check_host(rest);
	return 0;
}
