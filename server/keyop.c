/* Changes of API keys and access: see keyop.h. The body runs on THREAD(store); the rest on the supervisor or main. */
#include "server/keyop.h"

#include "base/clock.h"
#include "base/mem.h"

#define NAME_MAX_BYTES 64
#define MODELS_MAX 64
#define LIMIT_MAX 1000000.0

static enum errc op_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	struct key_op *op = CONTAINER_OF(j, struct key_op, job);
	enum errc rc = E_OK;

	switch (op->kind) {
	case KEY_OP_ADD:
		rc = keys_insert_tx(t, &op->row, e);
		return rc ? rc : access_set_keyed_tx(t, true, e);
	case KEY_OP_REVOKE:
		return keys_revoke_tx(t, op->target, op->now_wall_ms, op->revoked_id, e);
	case KEY_OP_OPEN:
		return access_set_keyed_tx(t, false, e);
	}
	return rc;
}

struct add_in {
	char op[16], name[NAME_MAX_BYTES + 1];
	bool has_rpm, has_concurrent;
	const struct json *models;
	int64_t requests_per_minute, max_concurrent;
};
static const struct json_field add_spec[] = {
	JF_STR(struct add_in, op, 1, 15, JF_REQUIRED),
	JF_STR(struct add_in, name, 1, NAME_MAX_BYTES, JF_REQUIRED),
	JF_ARR(struct add_in, models, JF_OPTIONAL),
	JF_I64(struct add_in, requests_per_minute, 0, LIMIT_MAX, JF_OPTIONAL, has_rpm),
	JF_I64(struct add_in, max_concurrent, 0, LIMIT_MAX, JF_OPTIONAL, has_concurrent),
	JF_END(JF_REFUSE_UNKNOWN),
};

/* A name is shown in lists and logs: printable ASCII without blanks at the ends. */
static bool is_name(const char *s)
{
	for (const char *p = s; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			return false;
	return *s && s[0] != ' ' && s[strlen(s) - 1] != ' ';
}

static enum errc parse_models(const struct json *models, struct str_list *out, struct err *e)
{
	if (json_count(models) > MODELS_MAX)
		return err_set_param(e, E_INVALID_VALUE, "models", "models: at most %d", MODELS_MAX);
	for (const struct json *m = json_first(models); m; m = json_next(m)) {
		struct slice name = json_slice(m);

		if (name.n == 0 || name.n > 256)
			return err_set_param(e, E_INVALID_VALUE, "models", "models: names of 1 to 256 bytes");
		enum errc rc = str_list_has(out, name) ? E_OK : str_list_add(out, name, e);

		if (rc)
			return rc;
	}
	return E_OK;
}

static enum errc parse_add(const struct json *request, struct key_op *op, struct err *e)
{
	struct add_in in = { 0 };
	enum errc rc = json_read(request, "", add_spec, &in, e);

	if (rc)
		return rc;
	if (!is_name(in.name))
		return err_set_param(e, E_INVALID_VALUE, "name", "name: printable ASCII, no blank at its ends");
	rc = auth_make_key(in.name, &op->row, op->text, e);
	if (rc)
		return rc;
	op->row.requests_per_minute = in.requests_per_minute;
	op->row.max_concurrent = in.max_concurrent;
	op->row.created_wall_ms = op->now_wall_ms;
	return parse_models(in.models, &op->row.models, e);
}

bool key_op_is_name(const char *name)
{
	return strcmp(name, "keys.add") == 0 || strcmp(name, "keys.revoke") == 0 || strcmp(name, "access.open") == 0;
}

enum errc key_op_parse(const struct json *request, const char *op_name, struct key_op *op, struct err *e)
{
	*op = (struct key_op){ .job = { .name = "keys.change", .body = op_body }, .now_wall_ms = clock_wall_ms() };
	if (strcmp(op_name, "keys.add") == 0) {
		op->kind = KEY_OP_ADD;
		return parse_add(request, op, e);
	}
	if (strcmp(op_name, "access.open") == 0) {
		op->kind = KEY_OP_OPEN;
		return E_OK;
	}
	op->kind = KEY_OP_REVOKE;
	struct slice target = json_slice(json_get(request, "key"));

	if (target.n == 0)
		return err_set_param(e, E_MISSING_PARAMETER, "key", "key: id or name of a key is required");
	if (!slice_copy(target, op->target, sizeof(op->target)))
		return err_set_param(e, E_INVALID_VALUE, "key", "key: an id or a name, not the key itself");
	return E_OK;
}

enum errc key_op_apply(const struct key_op *op, struct auth *auth, struct err *e)
{
	switch (op->kind) {
	case KEY_OP_ADD:
		return auth_apply_add(auth, &op->row, e);
	case KEY_OP_REVOKE:
		auth_apply_revoke(auth, op->revoked_id);
		return E_OK;
	case KEY_OP_OPEN:
		auth_apply_open(auth);
		return E_OK;
	}
	return E_OK;
}

static void limits_json(struct jw *w, const struct key_row *k)
{
	jw_arr(w, "models");
	for (size_t i = 0; i < k->models.n; i++)
		jw_str(w, NULL, k->models.v[i]);
	jw_end(w);
	jw_i64(w, "requests_per_minute", k->requests_per_minute);
	jw_i64(w, "max_concurrent", k->max_concurrent);
}

void key_op_answer(const struct key_op *op, struct jw *w)
{
	switch (op->kind) {
	case KEY_OP_ADD:
		jw_str(w, "id", op->row.id);
		jw_str(w, "name", op->row.name);
		jw_str(w, "key", op->text);
		limits_json(w, &op->row);
		break;
	case KEY_OP_REVOKE:
		jw_str(w, "id", op->revoked_id);
		jw_bool(w, "revoked", true);
		break;
	case KEY_OP_OPEN:
		jw_bool(w, "is_keyed", false);
		break;
	}
}

void key_op_done(struct key_op *op)
{
	key_row_done(&op->row);
	mem_wipe(op->text, sizeof(op->text));
}

static void key_json(struct jw *w, const struct key_row *k)
{
	char at[CLOCK_ISO_LEN];

	jw_obj(w, NULL);
	jw_str(w, "id", k->id);
	jw_str(w, "name", k->name);
	jw_str(w, "hint", k->hint);
	limits_json(w, k);
	clock_iso(k->created_wall_ms, at);
	jw_str(w, "created_at", at);
	if (k->revoked_wall_ms) {
		clock_iso(k->revoked_wall_ms, at);
		jw_str(w, "revoked_at", at);
	} else {
		jw_null(w, "revoked_at");
	}
	jw_end(w);
}

enum errc key_op_list(struct store_reader *r, struct jw *w, struct err *e)
{
	struct key_row *rows = NULL;
	size_t n = 0;
	bool is_keyed = false;
	enum errc rc = access_is_keyed(r, &is_keyed, e);

	if (rc == E_OK)
		rc = keys_list(r, &rows, &n, e);
	if (rc)
		return rc;
	jw_arr(w, "keys");
	for (size_t i = 0; i < n; i++) {
		key_json(w, &rows[i]);
		key_row_done(&rows[i]);
	}
	jw_end(w);
	jw_bool(w, "is_keyed", is_keyed);
	mem_free(rows);
	return E_OK;
}
