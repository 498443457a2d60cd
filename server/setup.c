/* Registering this machine; see setup.h. Called by cmd_setup.c. */
#include "server/setup.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "gateway/member.h"
#include "server/account.h"
#include "server/clients.h"
#include "server/nodeid.h"
#include "server/register.h"

#include <ctype.h>
#include <stdio.h>
#include <unistd.h>

#define KEY_MAX (64u * 1024)
#define FILE_MAX (1u << 20)

/* ---- the owner's key ---- */

static enum errc read_stdin(struct buf *out, struct err *e)
{
	char chunk[4096];
	ssize_t n;
	enum errc rc = E_OK;

	while (!rc && (n = read(STDIN_FILENO, chunk, sizeof(chunk))) > 0)
		rc = buf_add(out, chunk, (size_t)n, e);
	mem_wipe(chunk, sizeof(chunk));
	return rc;
}

static enum errc take_secret(struct buf *text, struct secret *ret, const char *missing, struct err *e)
{
	struct slice s = slice_trim_js(buf_slice(text));
	enum errc rc = s.n ? secret_set(ret, s, e) : err_set(e, E_MISSING_PARAMETER, "%s", missing);

	if (text->p)
		mem_wipe(text->p, text->n);
	return rc;
}

static enum errc owner_key(const struct setup_options *o, const char *positional, struct secret *ret, struct err *e)
{
	AUTO_BUF text = BUF_MAX(KEY_MAX);
	int forms = (o->api_key != NULL) + (positional != NULL) + o->has_key_on_stdin + (o->api_key_file != NULL);
	const char *env = config_env("MSWARM_API_KEY");
	enum errc rc = E_OK;

	if (forms > 1)
		return err_set(e, E_BAD_REQUEST, "Use either --api-key, a positional API key, or --api-key-stdin; not more than one");
	if (o->has_key_on_stdin && o->has_secret_on_stdin)
		return err_set(e, E_BAD_REQUEST, "--api-key-stdin and --signing-secret-stdin both read standard input; hand one over another way");
	if (o->has_key_on_stdin) {
		rc = read_stdin(&text, e);
		return rc ? rc : take_secret(&text, ret, "No API key received on stdin", e);
	}
	if (o->api_key_file)
		rc = file_read(o->api_key_file, &text, e);
	else if (o->api_key || positional)
		rc = buf_add_str(&text, o->api_key ? o->api_key : positional, e);
	else if (env)
		rc = buf_add_str(&text, env, e);
	return rc ? rc : take_secret(&text, ret, "--api-key or MSWARM_API_KEY is required", e);
}

/* ---- what is offered ---- */

void setup_normalize_name(struct slice name, char out[81])
{
	size_t n = 0;

	for (size_t i = 0; i < name.n && n < 80; i++) {
		char ch = (char)tolower((unsigned char)name.p[i]);
		bool is_kept = (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9');

		if (is_kept)
			out[n++] = ch;
		else if (n && out[n - 1] != '-')
			out[n++] = '-';
	}
	while (n && out[n - 1] == '-')
		n--;
	out[n] = '\0';
	if (!n)
		snprintf(out, 81, "local-node");
}

static void choose_name(const struct config *cfg, char out[81])
{
	char host[256] = "";

	if (!*cfg->server_name)
		(void)gethostname(host, sizeof(host) - 1);
	setup_normalize_name(slice_trim(slice_str(*cfg->server_name ? cfg->server_name : host)), out);
}

static bool exposes_all(const struct config *cfg, const struct setup_options *o)
{
	const char *env = config_env("MSWARM_SELF_HOSTED_EXPOSE_ALL_MODELS");

	if (o->exposes_none)
		return false;
	if (*cfg->exposure_policy && !o->exposes_all)
		return cfg->expose_all;
	return o->exposes_all || !env || !*env || cfg->expose_all_models;
}

static enum errc check_mode(const struct config *cfg, const char **ret_mode, struct err *e)
{
	*ret_mode = strcmp(cfg->relay_mode, "direct") == 0 ? "direct" : "outbound";
	if (strcmp(*ret_mode, "direct") == 0 && !*cfg->direct_base_url)
		return err_set(e, E_BAD_REQUEST, "--direct-url is required when --mode direct is used");
	if (strcmp(*ret_mode, "outbound") == 0 && *cfg->direct_base_url)
		return err_set(e, E_BAD_REQUEST, "--direct-url can only be used with --mode direct");
	return E_OK;
}

/* ---- files ---- */

static enum errc keep_one(const char *path, char **ret, size_t *ret_n, struct err *e)
{
	struct buf text = BUF_MAX(FILE_MAX);
	enum errc rc = file_read(path, &text, e);

	if (rc == E_NOT_FOUND)
		return E_OK;
	if (!rc && !(*ret = buf_take(&text, ret_n)))
		rc = err_set(e, E_NO_MEMORY, "no memory");
	buf_done(&text);
	return rc;
}

static char *secret_path(const struct config *cfg)
{
	return file_join(cfg->state_dir, CONFIG_SHARED_SECRET_FILE);
}

static enum errc keep_files(const struct config *cfg, struct setup_files *f, struct err *e)
{
	AUTO_FREE char *shared = secret_path(cfg);
	enum errc rc = shared ? keep_one(cfg->config_path, &f->config, &f->config_n, e) : err_set(e, E_NO_MEMORY, "no memory");

	if (!rc)
		rc = keep_one(cfg->key_path, &f->key, &f->key_n, e);
	if (!rc)
		rc = keep_one(shared, &f->secret, &f->secret_n, e);
	f->is_taken = !rc;
	return rc;
}

static void put_back(const char *path, const char *text, size_t n)
{
	struct err e;

	if (!text)
		(void)unlink(path);
	else if (file_write_atomic(path, slice_of(text, n), 0600, &e))
		fprintf(stderr, "%s could not be put back: %s\n", path, e.what);
}

static void restore(const struct config *cfg, const struct setup_files *f)
{
	AUTO_FREE char *shared = secret_path(cfg);

	if (!f->is_taken)
		return;
	put_back(cfg->config_path, f->config, f->config_n);
	put_back(cfg->key_path, f->key, f->key_n);
	if (shared)
		put_back(shared, f->secret, f->secret_n);
}

static void wipe_text(char **text, size_t n)
{
	if (*text)
		mem_wipe(*text, n);
	mem_free(*text);
	*text = NULL;
}

void setup_done(struct setup *s)
{
	wipe_text(&s->before.config, s->before.config_n);
	wipe_text(&s->before.key, s->before.key_n);
	wipe_text(&s->before.secret, s->before.secret_n);
	mem_free(s->node_id);
	mem_free(s->server_name);
	mem_free(s->relay_mode);
	*s = (struct setup){ 0 };
}

static enum errc store_secret(const struct config *cfg, struct err *e)
{
	AUTO_FREE char *path = secret_path(cfg);
	AUTO_BUF text = BUF_MAX(KEY_MAX);
	struct secret s = { 0 };
	enum errc rc = path ? read_stdin(&text, e) : err_set(e, E_NO_MEMORY, "no memory");

	if (!rc)
		rc = take_secret(&text, &s, "No signing secret received on stdin", e);
	if (!rc)
		rc = member_write_key(path, secret_slice(&s), e);
	secret_done(&s);
	return rc;
}

static enum errc write_files(const struct config *cfg, const struct member *m, const struct member_offer *o, bool has_secret, struct err *e)
{
	struct config_edit edit;
	enum errc rc = has_secret ? store_secret(cfg, e) : E_OK;

	config_edit_begin(&edit);
	config_edit_given(&edit, cfg);
	member_edit_offer(&edit, m, o, cfg->gateway_base_url, clock_wall_ms());
	if (!rc)
		rc = config_edit_save(&edit, cfg->config_path, e);
	config_edit_done(&edit);
	return rc ? rc : member_write_key(cfg->key_path, secret_slice(&m->token), e);
}

/* ---- the first heartbeat ---- */

static enum errc first_beat(struct account *a, const struct member *m, struct setup *s, struct err *e)
{
	struct account_found found = { 0 };
	struct account_beat beat = { 0 };
	enum errc rc = secret_set(&a->token, secret_slice(&m->token), e);

	a->base = m->base;
	if (!rc)
		rc = account_discover(a->cfg, &found, e);
	if (!rc)
		rc = account_beat(a, &found, m->node_id, &beat, e);
	s->is_online = beat.is_online;
	s->exposed_count = beat.exposed_count;
	agents_unref(found.agents);
	buf_done(&beat.told);
	a->base = NULL;
	return rc;
}

/* ---- the whole ---- */

static enum errc bootstrap(struct account *a, const struct member_offer *offer, const struct setup_options *o, const char *positional,
			   struct member *m, struct err *e)
{
	AUTO_BUF body = BUF_MAX(FILE_MAX);
	struct secret key = { 0 };
	enum errc rc = owner_key(o, positional, &key, e);

	if (!rc)
		log_secret_add(secret_slice(&key));
	if (!rc)
		rc = member_write_bootstrap(offer, &body, e);
	if (!rc)
		rc = account_call(a, MEMBER_BOOTSTRAP_PATH, slice_of("", 0), secret_slice(&key), &body, e);
	if (!rc)
		rc = member_parse(buf_slice(&a->answer), MEMBER_BOOTSTRAPPED, m, e);
	secret_done(&key);
	return rc;
}

static enum errc finish(struct account *a, const struct member *m, const struct member_offer *offer, const struct setup_options *o, struct setup *s,
			struct err *e)
{
	const struct config *cfg = a->cfg;
	enum errc rc = keep_files(cfg, &s->before, e);

	if (rc)
		return rc;
	s->node_id = mem_strdup(m->node_id);
	s->server_name = mem_strdup(m->server_name ? m->server_name : offer->server_name);
	s->relay_mode = mem_strdup(m->relay_mode ? m->relay_mode : offer->relay_mode);
	if (!s->node_id || !s->server_name || !s->relay_mode)
		return err_set(e, E_NO_MEMORY, "no memory");
	rc = write_files(cfg, m, offer, o->has_secret_on_stdin, e);
	if (!rc)
		rc = first_beat(a, m, s, e);
	if (rc)
		restore(cfg, &s->before);
	return rc;
}

enum errc setup_run(struct cli *c, const struct setup_options *o, const char *positional, struct setup *ret, struct err *e)
{
	struct account a = { 0 };
	struct member m = { 0 };
	struct setup s = { 0 };
	AUTO_BUF allowlist = BUF_MAX(FILE_MAX);
	char name[81], hex[SHA256_HEX_LEN], fingerprint[SHA256_HEX_LEN + 8];
	const char *handle = o->handle ? o->handle : config_env("MSWARM_HANDLE");
	struct member_offer offer = { .cfg = c->cfg, .server_name = name, .fingerprint = fingerprint, .exposes_all = exposes_all(c->cfg, o) };
	enum errc rc = check_mode(c->cfg, &offer.relay_mode, e);
	bool has_key = o->api_key || o->api_key_file || o->has_key_on_stdin || positional || (!o->handle && config_env("MSWARM_API_KEY"));

	choose_name(c->cfg, name);
	offer.direct_base_url = strcmp(offer.relay_mode ? offer.relay_mode : "", "direct") == 0 ? c->cfg->direct_base_url : NULL;
	if (!rc)
		rc = clients_from_options(c->cfg, o->clients ? o->clients : o->client, &allowlist, e);
	offer.client_allowlist = buf_slice(&allowlist);
	if (!rc)
		rc = account_open(c->cfg, &a, e);
	if (rc)
		return rc;
	rc = nodeid_fingerprint(c->cfg, hex, e);
	snprintf(fingerprint, sizeof(fingerprint), "sha256:%s", rc ? "" : hex);
	if (!rc)
		rc = handle && *handle && !has_key ? register_by_handle(&a, &offer, handle, &m, e) : bootstrap(&a, &offer, o, positional, &m, e);
	if (!rc)
		rc = finish(&a, &m, &offer, o, &s, e);
	account_close(&a);
	member_done(&m);
	if (rc) {
		setup_done(&s);
		return rc;
	}
	*ret = s;
	return E_OK;
}

void setup_undo(struct cli *c, struct setup *s)
{
	char *const args[] = { "--state-path", c->cfg->config_path, NULL };
	const struct config_load in = { .args = args };
	struct account a = { 0 };
	struct config *cfg = NULL;
	struct err e;

	/* As the files stand: with the token that was just given. */
	if (!config_load(&in, &cfg, &e) && !account_open(cfg, &a, &e)) {
		(void)!account_goodbye(&a, NULL, &e);
		account_close(&a);
	}
	config_free(cfg);
	restore(c->cfg, &s->before);
}
