/*
 * "upstreams" of config.json: each entry is a runner that the owner named. Made at boot, on main: key files are read
 * here, never on a loop. base/config has checked the shape of the entries already.
 */
#include "base/file.h"
#include "base/mem.h"
#include "llm/source.h"

#define KEY_MAX 8192

static void wipe_done(struct buf *b)
{
	if (b->p)
		mem_wipe(b->p, b->cap);
	buf_done(b);
}
#define WIPED_BUF CLEANUP(wipe_done) struct buf

/* The key becomes one more header line; the copies on the way are wiped. */
static enum errc read_key(const char *path, char **ret_line, struct err *e)
{
	WIPED_BUF text = BUF_MAX(KEY_MAX);
	WIPED_BUF line = BUF_MAX(KEY_MAX + 64);
	enum errc rc = buf_reserve(&text, KEY_MAX, &(char *){ NULL }, e);   /* one block: no stale copies when it grows */

	if (rc == E_OK)
		rc = file_read_private(path, &text, e);
	if (rc)
		return rc;
	struct slice key = slice_trim(buf_slice(&text));

	if (key.n == 0)
		rc = err_set(e, E_INVALID_VALUE, "%s: holds no key", path);
	for (size_t i = 0; i < key.n && rc == E_OK; i++)
		if ((unsigned char)key.p[i] <= 0x20 || (unsigned char)key.p[i] >= 0x7f)
			rc = err_set(e, E_INVALID_VALUE, "%s: holds more than one word, or bytes that no key has", path);
	if (rc == E_OK)
		rc = buf_reserve(&line, KEY_MAX + 32, &(char *){ NULL }, e);
	if (rc == E_OK)
		rc = buf_addf(&line, e, "authorization: Bearer " SLICE_FMT, SLICE_ARG(key));
	char *copy = rc == E_OK ? slice_dup(buf_slice(&line)) : NULL;

	if (rc == E_OK && !copy)
		rc = err_set(e, E_NO_MEMORY, "no memory");
	if (rc == E_OK)
		*ret_line = copy;
	return rc;
}

static enum errc make_headers(const struct config_upstream *u, char ***ret, struct err *e)
{
	char **headers = mem_calloc(u->headers.n + 2, sizeof(*headers));
	enum errc rc = headers ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
	size_t n = 0;

	for (; rc == E_OK && n < u->headers.n; n++) {
		headers[n] = mem_strdup(u->headers.v[n]);
		if (!headers[n])
			rc = err_set(e, E_NO_MEMORY, "no memory");
	}
	if (rc == E_OK && u->api_key_file[0])
		rc = read_key(u->api_key_file, &headers[n], e);
	if (rc) {
		source_headers_free(headers);
		return rc;
	}
	*ret = headers;
	return E_OK;
}

enum errc source_config_new(const struct source_base *b, size_t i, struct source_part **ret, struct err *e)
{
	const struct config_upstream *u = &b->cfg->upstreams[i];
	struct source_runner_spec s = {
		.source = AGENT_FROM_CONFIG, .name = u->name, .base_url = u->base_url, .models = &u->models, .is_shared = u->share,
		.max_concurrent = u->max_concurrent, .connect_ms = u->connect_ms, .first_byte_ms = u->first_byte_ms,
		.idle_ms = u->idle_ms, .total_ms = u->total_ms, .kind = UPSTREAM_OPENAI,
	};

	if (source_is_self(b->cfg, slice_str(u->base_url)))
		return err_set(e, E_INVALID_VALUE, "base_url: that is this node itself");
	if (u->kind[0]) {
		s.is_kind_known = true;
		if (!upstream_kind_parse(slice_str(u->kind), &s.kind) || s.kind == UPSTREAM_DEMO)
			return err_set(e, E_INVALID_VALUE, "kind: no kind of runner is called \"%.40s\"", u->kind);
	}
	enum errc rc = make_headers(u, &s.headers, e);

	return rc ? rc : source_runner_new(b, &s, ret, e);
}
