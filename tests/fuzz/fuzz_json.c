/*
 * Fuzz target of base/json and base/jw, run by ctest (label fuzz). What must hold for any bytes: check and parse agree;
 * the raw walks agree with the tree; a tree written out parses to the same text again.
 */
#include "base/json.h"
#include "base/jw.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct json_limits limits = { .max_bytes = 1 << 20, .max_depth = 60 }; /* below the writer's 63 */

/* Names of the raw walk, decoded, are those of the tree, in order; \u0000 is a replacement character there. */
static void check_member(const struct json_member *m, const struct json *node)
{
	AUTO_BUF token = BUF_MAX(1 << 20), key = BUF_MAX(1 << 20);

	must(json_check(m->value, limits, NULL) == E_OK);
	must(buf_addf(&token, NULL, "\"" SLICE_FMT "\"", SLICE_ARG(m->key)) == E_OK);
	must(json_unquote(buf_slice(&token), &key, NULL) == E_OK);
	must(slice_is_utf8(buf_slice(&key)));
	if (slice_find_char(buf_slice(&key), '\0') < 0)
		must(slice_eq(buf_slice(&key), slice_str(json_key(node))));
}

/* Walk raw members or elements beside the tree, all levels down. */
static void check_walk(struct slice text, const struct json *tree)
{
	const struct json *node = json_first(tree);
	struct json_member m = { 0 };
	bool is_object = json_is_object(tree), is_bad;
	size_t pos = 0;

	if (!is_object && !json_is_array(tree))
		return;
	for (; is_object ? json_next_member(text, &pos, &m, &is_bad) : json_next_element(text, &pos, &m.value, &is_bad); node = json_next(node)) {
		must(node);
		must(text.p <= m.value.p && m.value.p + m.value.n <= text.p + text.n);
		if (is_object)
			check_member(&m, node);
		check_walk(m.value, node);
	}
	must(!node && !is_bad);
}

static void write_tree(const struct json *tree, struct buf *out, bool is_pretty)
{
	struct jw w = is_pretty ? JW_PRETTY(out) : JW(out);

	jw_tree(&w, NULL, tree);
	must(jw_done(&w, NULL) == E_OK);
}

static void check_round_trip(const struct json *tree, bool is_pretty)
{
	AUTO_BUF first = BUF_MAX(64 << 20), second = BUF_MAX(64 << 20);
	AUTO_JSON again = NULL;

	write_tree(tree, &first, is_pretty);
	must(json_parse(buf_slice(&first), (struct json_limits){ .max_bytes = 64 << 20, .max_depth = 60 }, &again, NULL) == E_OK);
	write_tree(again, &second, is_pretty);
	must(slice_eq(buf_slice(&first), buf_slice(&second)));
}

/* On text that nobody checked a walk ends well exactly when the whole is a good object or array. */
static void check_unchecked(struct slice text, bool is_good, const struct json *tree)
{
	struct json_member m;
	size_t pos = 0;
	bool is_bad;

	while (json_next_member(text, &pos, &m, &is_bad))
		must(m.value.n > 0);
	must(is_good ? is_bad == !json_is_object(tree) : is_bad);
	pos = 0;
	while (json_next_element(text, &pos, &m.value, &is_bad))
		must(m.value.n > 0);
	must(is_good ? is_bad == !json_is_array(tree) : is_bad);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice_of((const char *)data, size);
	AUTO_BUF unquoted = BUF_MAX(1 << 20);
	AUTO_JSON tree = NULL;
	struct err e = { 0 }, e2 = { 0 };
	enum errc rc = json_check(text, limits, &e);

	must(json_parse(text, limits, &tree, &e2) == rc);
	must((rc == E_OK) == (tree != NULL));
	must(rc == E_OK || (slice_is_utf8(slice_str(e.what)) && slice_eq(slice_str(e.what), slice_str(e2.what))));
	if (slice_find(slice_str(e.what), SLICE("nested")) < 0) /* the walks have a depth limit of their own */
		check_unchecked(text, rc == E_OK, tree);
	if (json_unquote(text, &unquoted, NULL) == E_OK)
		must(json_is_string(tree) && slice_is_utf8(buf_slice(&unquoted)));
	if (tree) {
		check_walk(text, tree);
		check_round_trip(tree, false);
		check_round_trip(tree, true);
	}
	return 0;
}
