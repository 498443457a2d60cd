/* Node id, machine.id and signing.key. Called on main: at boot, and by the commands token, node env and status. */
#include "server/nodeid.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>

#define ID_FILE_MAX 4096
#define KEY_BYTES 32

/* Trimmed content of machine.id in out; makes the file when it is absent or blank. */
static enum errc machine_id(const struct config *cfg, struct buf *out, struct err *e)
{
	struct err why = { 0 };
	enum errc rc = file_read(cfg->machine_id_path, out, &why);
	char uuid[37], line[40];

	if (rc == E_OK && slice_trim(buf_slice(out)).n)
		return E_OK;
	if (rc && rc != E_NOT_FOUND) {
		if (e)
			*e = why;
		return rc;
	}
	buf_clear(out);
	AUTO_FREE char *folder = file_dirname(cfg->machine_id_path);

	if (!folder)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = file_exists(folder) ? E_OK : file_make_private_dir(folder, e);
	if (rc == E_OK)
		rc = crypto_uuid4(uuid, e);
	if (rc)
		return rc;
	snprintf(line, sizeof(line), "%s\n", uuid);
	rc = file_write_atomic(cfg->machine_id_path, slice_str(line), 0600, e);
	return rc ? rc : buf_add_str(out, line, e);
}

enum errc nodeid_fingerprint(const struct config *cfg, char ret[SHA256_HEX_LEN], struct err *e)
{
	AUTO_BUF text = BUF_MAX(ID_FILE_MAX);
	uint8_t sum[SHA256_LEN];
	enum errc rc = machine_id(cfg, &text, e);

	if (rc)
		return rc;
	crypto_sha256(slice_trim(buf_slice(&text)), sum);
	crypto_hex(sum, sizeof(sum), ret);
	return E_OK;
}

enum errc nodeid_get(const struct config *cfg, char **ret, struct err *e)
{
	char hex[SHA256_HEX_LEN], id[32];

	if (!*cfg->node_id) {
		if (cfg->mode != MODE_LOCAL)
			return err_set(e, E_MISSING_CONFIG, "MSWARM_SELF_HOSTED_NODE_ID is required");
		enum errc rc = nodeid_fingerprint(cfg, hex, e);

		if (rc)
			return rc;
		snprintf(id, sizeof(id), "local-%.12s", hex);
	}
	char *copy = mem_strdup(*cfg->node_id ? cfg->node_id : id);

	if (!copy)
		return err_set(e, E_NO_MEMORY, "no memory");
	*ret = copy;
	return E_OK;
}

/* Make signing.key. E_CONFLICT: somebody else was faster. */
static enum errc make_key(const char *path, struct err *e)
{
	uint8_t random[KEY_BYTES];
	AUTO_BUF text = BUF_MAX(128);
	enum errc rc = crypto_random(random, sizeof(random), e);

	if (rc == E_OK)
		rc = crypto_base64url(slice_of((const char *)random, sizeof(random)), &text, e);
	mem_wipe(random, sizeof(random));
	if (rc == E_OK)
		rc = buf_add_str(&text, "\n", e);
	if (rc == E_OK)
		rc = file_create(path, buf_slice(&text), 0600, e);
	if (text.n)
		mem_wipe(text.p, text.n);
	return rc;
}

static enum errc read_key(const char *path, struct secret *ret, struct err *e)
{
	AUTO_BUF text = BUF_MAX(ID_FILE_MAX);
	enum errc rc = file_read_private(path, &text, e);
	struct slice key = slice_trim(buf_slice(&text));

	if (rc == E_OK)
		rc = key.n ? secret_set(ret, key, e) : err_set(e, E_IO, "%s: empty", path);
	if (text.n)
		mem_wipe(text.p, text.n);
	return rc;
}

enum errc nodeid_secret(const struct config *cfg, struct secret *ret, struct err *e)
{
	struct slice configured = slice_trim(secret_slice(&cfg->signing_secret));

	if (configured.n)
		return secret_set(ret, configured, e);
	AUTO_FREE char *path = file_join(cfg->state_dir, "signing.key");

	if (!path)
		return err_set(e, E_NO_MEMORY, "no memory");
	enum errc rc = read_key(path, ret, e);

	if (rc != E_NOT_FOUND)
		return rc;
	rc = file_exists(cfg->state_dir) ? E_OK : file_make_private_dir(cfg->state_dir, e);
	if (rc == E_OK)
		rc = make_key(path, e);
	return rc && rc != E_CONFLICT ? rc : read_key(path, ret, e);
}

void nodeid_secret_mark(struct slice secret, char ret[9])
{
	uint8_t sum[SHA256_LEN];

	crypto_sha256(secret, sum);
	crypto_hex(sum, 4, ret);
}

enum errc nodeid_url(const struct config *cfg, int port, struct buf *out, struct err *e)
{
	const char *host = cfg->listen_host;

	/* A wildcard is no address to call. */
	if (!*host || strcmp(host, "0.0.0.0") == 0)
		host = "127.0.0.1";
	else if (strcmp(host, "::") == 0)
		host = "::1";
	bool has_brackets = strchr(host, ':') && host[0] != '[';

	return buf_addf(out, e, "%s://%s%s%s:%d", *cfg->tls_cert ? "https" : "http", has_brackets ? "[" : "", host,
			has_brackets ? "]" : "", port);
}
