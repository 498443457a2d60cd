/* The list of clients of a node; see clients.h. Called by setup.c and cmd_clients.c. */
#include "server/clients.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/jw.h"

#include <arpa/inet.h>
#include <ctype.h>

#define FILE_MAX (1u << 20)
#define CLIENTS_MAX 1000

/* ---- what an identifier is ---- */

static bool is_ip(const char *s)
{
	unsigned char address[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, s, address) == 1 || inet_pton(AF_INET6, s, address) == 1;
}

static bool is_uuid(const char *s)
{
	if (strlen(s) != 36)
		return false;
	for (size_t i = 0; i < 36; i++) {
		bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (is_dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return s[14] >= '1' && s[14] <= '5';
}

/* Labels of letters, digits and inner dashes; at least two; the last is no number. */
static bool is_domain(struct slice s)
{
	struct slice rest = s, label = { 0 };
	size_t labels = 0;

	if (!s.n || s.n > 253)
		return false;
	while (rest.p && slice_next(&rest, '.', &label)) {
		if (!label.n || label.n > 63 || label.p[0] == '-' || label.p[label.n - 1] == '-')
			return false;
		for (size_t i = 0; i < label.n; i++)
			if (!isalnum((unsigned char)label.p[i]) && label.p[i] != '-')
				return false;
		labels++;
	}
	return labels >= 2 && isalpha((unsigned char)label.p[0]);
}

const char *clients_kind(struct slice s)
{
	char text[256];

	if (!slice_copy(s, text, sizeof(text)))
		return NULL;
	return is_ip(text) ? "ip" : is_uuid(text) ? "uuid" : is_domain(s) ? "domain" : NULL;
}

/* ---- lists ---- */

static enum errc read_list(const char *list, struct str_list *out, struct err *e)
{
	struct slice rest = slice_str(list), piece;
	enum errc rc = E_OK;

	while (!rc && rest.p && slice_next(&rest, ',', &piece)) {
		char lower[256];

		piece = slice_trim(piece);
		if (!piece.n)
			continue;
		if (!clients_kind(piece) || !slice_copy(piece, lower, sizeof(lower)))
			return err_set(e, E_BAD_REQUEST, "Invalid mswarm node client identifier: " SLICE_FMT, SLICE_ARG(slice_cut_text(piece, 120)));
		for (char *p = lower; *p; p++)
			*p = (char)tolower((unsigned char)*p);
		if (!str_list_has(out, slice_str(lower)))
			rc = out->n < CLIENTS_MAX ? str_list_add(out, slice_str(lower), e) : err_set(e, E_TOO_LARGE, "more than %d clients", CLIENTS_MAX);
	}
	return rc;
}

static void write_client(struct jw *w, const char *value, const char *added_at)
{
	jw_obj(w, NULL);
	jw_str(w, "kind", clients_kind(slice_str(value)));
	jw_str(w, "value", value);
	jw_str(w, "added_at", added_at);
	jw_end(w);
}

static void now_text(char out[CLOCK_ISO_LEN])
{
	clock_iso(clock_wall_ms(), out);
}

enum errc clients_from_options(const struct config *cfg, const char *list, struct buf *out, struct err *e)
{
	static const char *const names[] = { "MSWARM_SELF_HOSTED_CLIENT_ALLOWLIST", "MSWARM_SELF_HOSTED_CLIENTS" };
	CLEANUP(str_list_done) struct str_list clients = { 0 };
	struct jw w = JW(out);
	char now[CLOCK_ISO_LEN];
	enum errc rc;

	(void)cfg;
	for (size_t i = 0; i < ARRAY_LEN(names) && !(list && *list); i++)
		list = config_env(names[i]);
	if (!list || !*list)
		return E_OK;
	rc = read_list(list, &clients, e);
	now_text(now);
	jw_arr(&w, NULL);
	for (size_t i = 0; i < clients.n; i++)
		write_client(&w, clients.v[i], now);
	jw_end(&w);
	return rc ? rc : jw_done(&w, e);
}

static enum errc load(const struct config *cfg, struct json **ret, struct err *e)
{
	AUTO_BUF text = BUF_MAX(FILE_MAX);
	enum errc rc = file_read(cfg->config_path, &text, e);

	if (rc == E_NOT_FOUND)
		return E_OK;
	return rc ? rc : json_parse(buf_slice(&text), JSON_LIMITS_DEFAULT, ret, e);
}

enum errc clients_change(const struct config *cfg, const char *list, bool is_removal, struct buf *out, size_t *ret_changed, struct err *e)
{
	CLEANUP(str_list_done) struct str_list clients = { 0 };
	AUTO_JSON file = NULL;
	struct jw w = JW(out);
	char now[CLOCK_ISO_LEN];
	size_t known = 0;
	enum errc rc = read_list(list, &clients, e);

	if (!rc)
		rc = load(cfg, &file, e);
	if (rc)
		return rc;
	now_text(now);
	CLEANUP(str_list_done) struct str_list standing = { 0 };
	const struct json *entries = json_get(file, "client_allowlist");

	jw_arr(&w, NULL);
	for (const struct json *m = json_is_array(entries) ? json_first(entries) : NULL; m; m = json_next(m)) {
		struct slice value = json_is_string(m) ? json_slice(m) : json_slice(json_get(m, "value"));
		bool is_named = str_list_has(&clients, value);

		known += is_named;
		if (!value.n || (is_named && is_removal))
			continue;
		jw_tree(&w, NULL, m);
		if (!rc)
			rc = str_list_add(&standing, value, e);
	}
	for (size_t i = 0; !is_removal && i < clients.n; i++)
		if (!str_list_has(&standing, slice_str(clients.v[i])))
			write_client(&w, clients.v[i], now);
	jw_end(&w);
	*ret_changed = is_removal ? known : clients.n - known;
	return rc ? rc : jw_done(&w, e);
}
