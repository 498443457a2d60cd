/*
 * Members of a tree into a C struct, by a table of fields. Called by handlers and loaders with the shape of a body as
 * data. Threads: any.
 */
#include "base/json.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>

#define FIELDS_MAX 64 /* a table has fewer; the array of what was found stands on the stack */

struct place {
	char name[96];   /* path.key, for errors */
};

static struct place place_of(const char *path, const char *key)
{
	struct place at;

	snprintf(at.name, sizeof(at.name), "%s%s%s", path, path[0] && key[0] ? "." : "", key);
	struct slice rest = slice_str(at.name);

	/* a name that was cut ends on a character */
	while (rest.n) {
		int step = slice_utf8_step(rest);

		if (step < 0) {
			at.name[rest.p - at.name] = '\0';
			break;
		}
		rest = slice_from(rest, (size_t)step);
	}
	return at;
}

static enum errc refuse(const struct place *at, const char *must_be, struct err *e)
{
	return err_set_param(e, E_INVALID_VALUE, at->name, "%s%smust be %s", at->name, at->name[0] ? ": " : "", must_be);
}

static enum errc check_length(const struct json_field *f, size_t n, const struct place *at, struct err *e)
{
	if ((double)n < f->lo || (double)n > f->hi)
		return err_set_param(e, E_INVALID_VALUE, at->name, "%s: %zu bytes, must be %.0f to %.0f", at->name, n, f->lo, f->hi);
	return E_OK;
}

static enum errc read_string(const struct json_field *f, const struct json *j, const struct place *at, char *to, struct err *e)
{
	if (!json_is_string(j))
		return refuse(at, "a string", e);
	struct slice s = json_slice(j);
	enum errc rc = check_length(f, s.n, at, e);

	if (rc)
		return rc;
	if (f->kind == JK_STRDUP) {
		char *copy = slice_dup(s);

		if (!copy)
			return err_set(e, E_NO_MEMORY, "no memory for %s", at->name);
		mem_free(*(char **)(void *)to);
		*(char **)(void *)to = copy;
		return E_OK;
	}
	if (!slice_copy(s, to, f->size))
		return err_set_param(e, E_INVALID_VALUE, at->name, "%s: must be at most %zu bytes", at->name, f->size - 1);
	return E_OK;
}

static enum errc read_number(const struct json_field *f, const struct json *j, const struct place *at, char *to, struct err *e)
{
	bool is_int = f->kind == JK_I64;
	double v = json_num(j, NAN);
	int64_t i = 0;

	if (is_int ? !json_i64(j, &i) : !isfinite(v))
		return refuse(at, is_int ? "an integer" : "a number", e);
	if (v < f->lo || v > f->hi)
		return is_int ? err_set_param(e, E_INVALID_VALUE, at->name, "%s: must be %.0f to %.0f", at->name, f->lo, f->hi) :
			err_set_param(e, E_INVALID_VALUE, at->name, "%s: must be %.15g to %.15g", at->name, f->lo, f->hi);
	if (is_int)
		*(int64_t *)(void *)to = i;
	else
		*(double *)(void *)to = v;
	return E_OK;
}

static enum errc read_field(const struct json_field *f, const struct json *j, const struct place *at, char *to, struct err *e)
{
	switch (f->kind) {
	case JK_STR:
	case JK_STRDUP:
		return read_string(f, j, at, to, e);
	case JK_I64:
	case JK_F64:
		return read_number(f, j, at, to, e);
	case JK_BOOL:
		if (!json_is_bool(j))
			return refuse(at, "true or false", e);
		*(bool *)(void *)to = json_is_true(j);
		return E_OK;
	case JK_OBJ:
		if (!json_is_object(j))
			return refuse(at, "an object", e);
		break;
	case JK_ARR:
		if (!json_is_array(j))
			return refuse(at, "an array", e);
		break;
	case JK_ANY:
	case JK_END:
		break;
	}
	*(const struct json **)(void *)to = j;
	return E_OK;
}

static size_t count_fields(const struct json_field *spec)
{
	size_t n = 0;

	while (spec[n].kind != JK_END)
		n++;
	must(n <= FIELDS_MAX);
	return n;
}

/* The last member of each name that the table knows; the first name that it does not know, or NULL. */
static const char *find_fields(const struct json *obj, const struct json_field *spec, size_t n, const struct json **found)
{
	const char *unknown = NULL;

	for (const struct json *m = json_first(obj); m; m = json_next(m)) {
		const char *key = json_key(m);
		size_t i = 0;

		while (i < n && strcmp(spec[i].key, key) != 0)
			i++;
		if (i < n)
			found[i] = m;
		else if (!unknown)
			unknown = key;
	}
	return unknown;
}

enum errc json_read(const struct json *obj, const char *path, const struct json_field *spec, void *out, struct err *e)
{
	const struct json *found[FIELDS_MAX] = { NULL };
	size_t n = count_fields(spec);
	struct place at = place_of(path, "");

	if (!json_is_object(obj))
		return refuse(&at, "an object", e);
	const char *unknown = find_fields(obj, spec, n, found);

	if (unknown && spec[n].flags & JF_REFUSE_UNKNOWN_FLAG) {
		at = place_of(path, unknown);
		return err_set_param(e, E_INVALID_VALUE, at.name, "%s: unknown member", at.name);
	}
	for (size_t i = 0; i < n; i++) {
		const struct json_field *f = &spec[i];

		at = place_of(path, f->key);
		if (!found[i] && f->flags & JF_REQUIRED)
			return err_set_param(e, E_MISSING_PARAMETER, at.name, "%s: is required", at.name);
		if (!found[i] || (json_is_null(found[i]) && !(f->flags & JF_REQUIRED)))
			continue;
		enum errc rc = read_field(f, found[i], &at, (char *)out + f->offset, e);

		if (rc)
			return rc;
		if (f->has_offset)
			*(bool *)(void *)((char *)out + f->has_offset) = true;
	}
	return E_OK;
}
