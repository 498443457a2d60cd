/*
 * Flags: which row they belong to, their values, what is left for the caller, and the nearest name for a slip. Called by
 * config_load.c and by commands with flags of their own, on main.
 */
#include "base/config_priv.h"

#include <limits.h>

static struct slice flag_name(const struct config_row *r)
{
	struct slice s = slice_str(r->flag);

	return slice_ends_with(s, SLICE("!")) ? slice_cut(s, s.n - 1) : s;
}

static size_t find_flag(struct slice name)
{
	for (size_t i = 0; i < ROW__COUNT; i++)
		if (config_rows[i].flag[0] != '\0' && slice_eq(flag_name(&config_rows[i]), name))
			return i;
	return ROW__COUNT;
}

struct slice config_nearest_flag(const char *given)
{
	struct slice name = slice_str(given), holds = SLICE(""), near = SLICE("");
	ptrdiff_t equals = slice_find_char(name, '=');
	unsigned best = UINT_MAX;

	if (equals >= 0)
		name = slice_cut(name, (size_t)equals);
	while (name.n > 0 && name.p[0] == '-')
		name = slice_from(name, 1);
	for (size_t i = 0; i < ROW__COUNT; i++) {
		struct slice flag = flag_name(&config_rows[i]);
		unsigned distance = flag.n > 2 ? config_text_distance(slice_from(flag, 2), name) : UINT_MAX;

		if (distance < best) {
			best = distance;
			near = flag;
		}
		/* "--port" is far from "--listen-port" in edits, but it is what was meant. */
		if (holds.n == 0 && name.n >= 3 && slice_find(flag, name) >= 0)
			holds = flag;
	}
	return near.n > 0 && config_text_is_near(best, name.n) ? near : holds;
}

static enum errc refuse_argument(const char *arg, struct err *e)
{
	struct slice name = slice_str(arg);
	ptrdiff_t equals = slice_find_char(name, '=');
	struct slice near;

	/* Never the whole of it: what stands behind "=", or a word in the wrong place, may be a key. */
	if (arg[0] != '-')
		return err_set(e, E_INVALID_VALUE, "unexpected argument \"%.12s%s\"", arg, strlen(arg) > 12 ? "..." : "");
	if (equals >= 0)
		name = slice_cut(name, (size_t)equals);
	near = config_nearest_flag(arg);
	name = slice_cut(name, 64);
	if (near.n > 0)
		return err_set(e, E_INVALID_VALUE, "unknown flag " SLICE_FMT "; did you mean " SLICE_FMT "?", SLICE_ARG(name),
			SLICE_ARG(near));
	return err_set(e, E_INVALID_VALUE, "unknown flag " SLICE_FMT, SLICE_ARG(name));
}

/* The value of a known flag: behind "=", else the next argument. *at moves when that is used up. */
static enum errc take_flag(struct config_build *b, size_t row, char *const *args, size_t *at, struct err *e)
{
	const struct config_row *r = &config_rows[row];
	struct slice name = flag_name(r);
	const char *value = strchr(args[*at], '='), *next = args[*at + 1];
	bool is_on = true;

	if (value)
		value++;
	else if (next && strncmp(next, "--", 2) != 0 && (r->type != ROW_BOOL || config_text_bool(slice_str(next), &is_on)))
		value = args[++*at];
	if (r->type == ROW_BOOL) {
		if (value && !config_text_bool(slice_str(value), &is_on))
			return err_set(e, E_INVALID_VALUE, SLICE_FMT ": must be one of 1 true yes 0 false no", SLICE_ARG(name));
		value = is_on != slice_ends_with(slice_str(r->flag), SLICE("!")) ? "true" : "false";
	}
	if (!value)
		return err_set(e, E_INVALID_VALUE, SLICE_FMT " needs a value", SLICE_ARG(name));
	b->flag_value[row] = value;
	return E_OK;
}

enum errc config_flags(struct config_build *b, const struct config_load *in, struct str_list *rest, struct err *e)
{
	bool is_open = true; /* until "--" */

	for (size_t i = 0; in->args && in->args[i]; i++) {
		struct slice arg = slice_str(in->args[i]);
		ptrdiff_t equals = slice_find_char(arg, '=');
		size_t row = is_open ? find_flag(equals < 0 ? arg : slice_cut(arg, (size_t)equals)) : ROW__COUNT;
		enum errc rc = E_OK;

		if (is_open && slice_eq(arg, SLICE("--")))
			is_open = false;
		else if (row < ROW__COUNT)
			rc = take_flag(b, row, in->args, &i, e);
		else if (in->allow_rest)
			rc = str_list_add(rest, arg, e);
		else
			rc = refuse_argument(in->args[i], e);
		if (rc)
			return rc;
	}
	return E_OK;
}
