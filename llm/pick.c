/* Members of JSON records; see pick.h. */
#include "llm/pick.h"

const struct json *pick_any(struct record r, const char *key)
{
	const struct json *v = json_get(r.top, key);

	return json_is_absent(v) ? json_get(r.below, key) : v;
}

struct slice pick_text(struct record r, const char *const *keys)
{
	for (; *keys; keys++) {
		struct slice s = slice_trim_js(json_slice(pick_any(r, *keys)));

		if (s.n > 0)
			return s;
	}
	return SLICE("");
}

bool pick_bool(struct record r, const char *const *keys, bool *ret)
{
	for (; *keys; keys++) {
		const struct json *v = pick_any(r, *keys);

		if (json_is_bool(v)) {
			*ret = json_is_true(v);
			return true;
		}
	}
	return false;
}

int64_t pick_count(struct record r, const char *const *keys)
{
	for (; *keys; keys++) {
		double v = json_num(pick_any(r, *keys), -1);

		if (v >= 1 && v < 1e15)
			return (int64_t)v;
	}
	return 0;
}

bool pick_number(struct record r, const char *const *keys, double *ret)
{
	for (; *keys; keys++) {
		const struct json *v = pick_any(r, *keys);

		if (json_is_number(v)) {
			*ret = json_num(v, 0);
			return true;
		}
	}
	return false;
}
