/* base/json: the strict check, raw members, the tree, reading by spec. */
#include "base/json.h"
#include "base/jw.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_slice(s, text) assert_true(slice_eq((s), slice_str(text)))

static const struct json_limits limits = { .max_bytes = 1 << 20, .max_depth = 64 };

static int switch_off(void **state)
{
	(void)state;
	mem_test_fail_at(0, 0);
	return 0;
}

/* Check and parse must agree on every text. */
static enum errc verdict(struct slice text, struct err *e)
{
	AUTO_JSON j = NULL;
	struct err ignored;
	enum errc rc = json_check(text, limits, e);

	assert_int_equal(json_parse(text, limits, &j, &ignored), rc);
	assert_int_equal(j != NULL, rc == E_OK);
	return rc;
}

static void accepts(void **state)
{
	static const char *const texts[] = {
		"0", "-0", "-0.0e-0", "1E+5", "12.5", "1e999", "123456789012345678901234567890", "true", "false", "null", "\"\"", "[]", "{}", " [ ] ",
		"\t\r\n{ }\n", "\xEF\xBB\xBF{}", "\xEF\xBB\xBF-1", "[1,2 , 3]", "{\"a\":{\"b\":[null,{}]},\"a\":1}", "{\"\":0}",
		"[[[]],[]]", "\"\xC3\xA9\xF0\x9F\x98\x80\"",
		"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\"", "\"\x7F\"", "\"\\u0000\"", "\"\\ud800\"", "\"\\uDC00x\"",
		"\"\\ud800\\ud800\"", "\"\\ud83dx\\ude00\"",
		"[\"\\udead\", \"\\ufeff\"]", "\"12345678\xC3\xA9\"", "\"1234567\xE2\x80\xA8\"",
		"0.10000000000000000000000000000000000000000000000000000000000000000000000000000001",
		"[-100000000000000000000000000000000000000000000000000000000000000000000000000000e-70,1]",
	};
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (verdict(slice_str(texts[i]), &e))
			fail_msg("%s: %s", texts[i], e.what);
}

static void refuses_with_line_and_column(void **state)
{
	static const struct {
		const char *text, *what;
	} rows[] = {
		{ "", "line 1, column 1: expected a value, but the text ends" },
		{ " \n ", "line 2, column 2: expected a value, but the text ends" },
		{ "\xEF\xBB\xBF", "line 1, column 1: expected a value, but the text ends" },
		{ "{\n\"a\": 1\n \"b\": 2}", "line 3, column 2: expected ',' or '}'" },
		{ "[1 2]", "line 1, column 4: expected ',' or ']'" }, { "[1}", "line 1, column 3: expected ',' or ']'" },
		{ "{\"a\":1]", "line 1, column 7: expected ',' or '}'" }, { "[1,]", "line 1, column 4: expected a value" },
		{ "[,1]", "line 1, column 2: expected a value" }, { "{\"a\":1,}", "line 1, column 8: expected a member name in quotes" },
		{ "{a:1}", "line 1, column 2: expected a member name in quotes" }, { "{\"a\" 1}", "line 1, column 6: expected ':'" },
		{ "{\"a\":}", "line 1, column 6: expected a value" }, { "{\"\xC3\xA9\":x}", "line 1, column 6: expected a value" },
		{ "[", "line 1, column 2: expected a value, but the text ends" },
		{ "{", "line 1, column 2: expected a member name in quotes, but the text ends" },
		{ "{\"a\":1", "line 1, column 7: expected ',' or '}', but the text ends" },
		{ "1 2", "line 1, column 3: expected nothing more" }, { "{}}", "line 1, column 3: expected nothing more" },
		{ "{}\xEF\xBB\xBF", "line 1, column 3: expected nothing more" }, { "01", "line 1, column 1: a number does not begin with 0" },
		{ "-01", "line 1, column 2: a number does not begin with 0" }, { "-", "line 1, column 2: expected a digit, but the text ends" },
		{ "+1", "line 1, column 1: expected a value" }, { ".5", "line 1, column 1: expected a value" },
		{ "5.", "line 1, column 3: expected a digit after the point, but the text ends" },
		{ "5.e1", "line 1, column 3: expected a digit after the point" },
		{ "1e", "line 1, column 3: expected a digit in the exponent, but the text ends" },
		{ "[1e+]", "line 1, column 5: expected a digit in the exponent" }, { "0x1", "line 1, column 2: expected nothing more" },
		{ "NaN", "line 1, column 1: expected a value" }, { "nul", "line 1, column 1: expected a value" },
		{ "True", "line 1, column 1: expected a value" },
		{ "truex", "line 1, column 5: expected nothing more" }, { "'a'", "line 1, column 1: expected a value" },
		{ "\"a", "line 1, column 3: expected '\"' to close a string, but the text ends" },
		{ "\"a\\\"", "line 1, column 5: expected '\"' to close a string, but the text ends" },
		{ "\"\n\"", "line 1, column 2: control characters in a string must be escaped" },
		{ "\"12345678\x1F\"", "line 1, column 10: control characters in a string must be escaped" },
		{ "\"\\x\"", "line 1, column 2: not an escape sequence" }, { "\"\\u12g4\"", "line 1, column 2: not an escape sequence" },
		{ "\"\\u123\"", "line 1, column 2: not an escape sequence" }, { "\"\\", "line 1, column 2: not an escape sequence" },
		{ "\"\xC3\"", "line 1, column 2: not UTF-8" }, { "\"\xED\xA0\x80\"", "line 1, column 2: not UTF-8" },
		{ "\"1234567890\xC0\xAF\"", "line 1, column 12: not UTF-8" }, { "{\"\xFF\":1}", "line 1, column 3: not UTF-8" },
		{ "\xC2\xA0" "1", "line 1, column 1: expected a value" }, { "/* */ 1", "line 1, column 1: expected a value" },
	};
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(verdict(slice_str(rows[i].text), &e), E_BAD_JSON);
		assert_string_equal(e.what, rows[i].what);
	}
	assert_int_equal(verdict(SLICE("\xEF\xBB\xBF\x37"), &e), E_OK); /* one character behind the mark */
	assert_int_equal(verdict(SLICE("1\0"), &e), E_BAD_JSON);
	assert_int_equal(verdict(SLICE("\"\0\""), &e), E_BAD_JSON);
	assert_int_equal(verdict(slice_of(NULL, 0), &e), E_BAD_JSON);
}

/* Every cut of a good text is bad, and nothing is read behind its end: the heap block is exactly as long (asan). */
static void every_cut_is_refused(void **state)
{
	const struct slice text = SLICE("{\"a\":[1.5e3,\"x\\u00e9\\n\xE2\x82\xAC\",true,null,{\"b\":false}],\"c\":{}}");
	struct err e;

	(void)state;
	for (size_t n = 0; n <= text.n; n++) {
		AUTO_FREE char *block = mem_alloc(n);

		memcpy(block, text.p, n);
		assert_int_equal(verdict(slice_of(block, n), &e), n < text.n ? E_BAD_JSON : E_OK);
	}
}

static void limits_hold(void **state)
{
	char text[3000];
	AUTO_JSON j = NULL;
	struct err e;
	struct json_limits lim = { .max_bytes = 10, .max_depth = 3 };

	(void)state;
	assert_int_equal(json_check(SLICE("[[[1]]]"), lim, &e), E_OK);
	assert_int_equal(json_check(SLICE("{\"a\":[[]]}"), lim, &e), E_OK);
	assert_int_equal(json_check(SLICE("[[[[]]]]"), lim, &e), E_BAD_JSON);
	assert_string_equal(e.what, "line 1, column 4: nested too deep");
	assert_int_equal(json_check(SLICE("[[],[[[]]]"), lim, &e), E_BAD_JSON);
	assert_int_equal(json_check(SLICE("1234567890"), lim, &e), E_OK);
	assert_int_equal(json_check(SLICE("12345678901"), lim, &e), E_TOO_LARGE);
	assert_string_equal(e.what, "JSON text: 11 of at most 10 bytes");
	assert_int_equal(json_parse(SLICE("12345678901"), lim, &j, &e), E_TOO_LARGE);
	assert_null(j);
	/* however deep the caller allows, the tree's own limit holds */
	lim = (struct json_limits){ .max_bytes = SIZE_MAX, .max_depth = UINT32_MAX };
	memset(text, '[', 1001);
	memset(text + 1001, ']', 1001);
	assert_int_equal(json_parse(slice_of(text, 2002), lim, &j, &e), E_BAD_JSON);
	assert_int_equal(json_parse(slice_of(text + 1, 2000), lim, &j, &e), E_OK);
}

/* An array of n zeros: n + 1 values. */
static enum errc parse_zeros(size_t n)
{
	size_t bytes = 2 * n + 1;
	AUTO_FREE char *text = mem_alloc(bytes);
	AUTO_JSON j = NULL;

	for (size_t i = 0; i < bytes; i++)
		text[i] = i % 2 ? '0' : ',';
	text[0] = '[';
	text[bytes - 1] = ']';
	return json_parse(slice_of(text, bytes), (struct json_limits){ .max_bytes = bytes, .max_depth = 1 }, &j, NULL);
}

static void too_many_values_for_a_tree(void **state)
{
	(void)state;
	assert_int_equal(parse_zeros(JSON_TREE_MAX_VALUES - 1), E_OK);
	assert_int_equal(parse_zeros(JSON_TREE_MAX_VALUES), E_TOO_LARGE);
}

static void walks_members(void **state)
{
	const struct slice text = SLICE("\xEF\xBB\xBF { \"seed\" : 1152921504606846977 ,\"t\":0.10,"
		" \"a\\\"b\":[1, {\"x\":2}] , \"t\" : \"}\" }\n");
	static const char *const want[][2] = {
		{ "seed", "1152921504606846977" }, { "t", "0.10" }, { "a\\\"b", "[1, {\"x\":2}]" }, { "t", "\"}\"" },
	};
	struct json_member m;
	struct slice value;
	size_t pos = 0, n = 0;
	bool is_bad = true;

	(void)state;
	for (; json_next_member(text, &pos, &m, &is_bad); n++) {
		assert_true(n < ARRAY_LEN(want));
		assert_slice(m.key, want[n][0]);
		assert_slice(m.value, want[n][1]);
	}
	assert_int_equal(n, ARRAY_LEN(want));
	assert_false(is_bad);
	assert_false(json_next_member(text, &pos, &m, &is_bad)); /* stays at the end */
	assert_false(is_bad);
	assert_true(json_find_member(text, "t", &value));
	assert_slice(value, "\"}\"");
	assert_false(json_find_member(text, "x", &value));
	assert_false(json_find_member(SLICE("{}"), "x", &value));
	assert_false(json_find_member(SLICE("{\"x\":1"), "x", &value));
}

/* How many items came before the end, or minus that and one when the end was bad. */
static int walk(struct slice text, bool is_object)
{
	struct json_member m;
	size_t pos = 0;
	int n = 0;
	bool is_bad;

	while (is_object ? json_next_member(text, &pos, &m, &is_bad) : json_next_element(text, &pos, &m.value, &is_bad))
		n++;
	return is_bad ? -n - 1 : n;
}

static void walks_report_bad_input(void **state)
{
	static const struct {
		const char *text;
		int members, elements;
	} rows[] = {
		{ "{}", 0, -1 }, { " { } ", 0, -1 }, { "[]", -1, 0 }, { "", -1, -1 }, { "null", -1, -1 }, { "[1, \"]\" ,[2,3]]", -1, 3 },
		{ "{\"a\":1}", 1, -1 }, { "{\"a\":1", -2, -1 }, { "{\"a\":1,", -2, -1 }, { "{\"a\":1,}", -2, -1 },
		{ "{,}", -1, -1 }, { "[,]", -1, -1 }, { "[1,]", -1, -2 },
		{ "{\"a\":1 \"b\":2}", -2, -1 }, { "{\"a\" 1}", -1, -1 }, { "{\"a\":[1}", -1, -1 }, { "{\"a\":1}x", -2, -1 },
		{ "{}x", -1, -1 }, { "[]]", -1, -1 },
		{ "[1]]", -1, -2 }, { "[1", -1, -2 }, { "[1 2]", -1, -2 }, { "[", -1, -1 }, { "{", -1, -1 },
		{ "{\"a\":\"\xFF\"}", -1, -1 }, { "{\"a", -1, -1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(walk(slice_str(rows[i].text), true), rows[i].members);
		assert_int_equal(walk(slice_str(rows[i].text), false), rows[i].elements);
	}
	assert_int_equal(walk(slice_of(NULL, 0), true), -1);
}

static void unquotes(void **state)
{
	static const struct {
		const char *token, *want;   /* NULL: refused */
	} rows[] = {
		{ "\"\"", "" }, { "\"abc\"", "abc" }, { "\"a\\n\\t\\\"\\\\\\/\\b\\f\\r\"", "a\n\t\"\\/\b\f\r" },
		{ "\"\\u0041\\u00E9\\u20ac\"", "A\xC3\xA9\xE2\x82\xAC" },
		{ "\"\\uD83D\\uDE00\"", "\xF0\x9F\x98\x80" }, { "\"\\uD83D!\\uDE00\"", "\xEF\xBF\xBD!\xEF\xBF\xBD" },
		{ "\"\\uD83D\\uD83D\\uDE00\"", "\xEF\xBF\xBD\xF0\x9F\x98\x80" },
		{ "\"\xC3\xA9\"", "\xC3\xA9" }, { "\"\\u07FF\\u0800\\uFFFF\\uDBFF\\uDFFF\"", "\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF4\x8F\xBF\xBF" },
		{ "", NULL }, { "\"", NULL }, { "abc", NULL }, { "\"a\"b", NULL }, { "\"\\q\"", NULL }, { "\"a", NULL },
		{ "12", NULL }, { "\"a\\\"", NULL },
	};
	AUTO_BUF b = BUF_MAX(12);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		buf_clear(&b);
		assert_int_equal(json_unquote(slice_str(rows[i].token), &b, NULL), rows[i].want ? E_OK : E_BAD_JSON);
		assert_slice(buf_slice(&b), rows[i].want ? rows[i].want : "");
	}
	assert_int_equal(json_unquote(SLICE("\"a\\u0000b\""), &b, NULL), E_OK);
	assert_true(slice_eq(buf_slice(&b), SLICE("a\0b")));
	assert_int_equal(json_unquote(SLICE("\"123456\\n789\""), &b, NULL), E_TOO_LARGE);
	assert_true(slice_eq(buf_slice(&b), SLICE("a\0b")));
}

static void reads_the_tree(void **state)
{
	AUTO_JSON j = NULL;
	int64_t v = 5;

	(void)state;
	assert_int_equal(json_parse(SLICE("{\"s\":\"x\",\"n\":1.5,\"t\":true,\"f\":false,\"z\":null,"
		"\"a\":[1,2,3],\"S\":2,\"s\":\"last\"}"), limits, &j, NULL), E_OK);
	assert_true(json_is_object(j) && !json_is_array(j) && json_count(j) == 8);
	assert_string_equal(json_str(json_get(j, "s")), "last");
	assert_slice(json_slice(json_get(j, "s")), "last");
	assert_null(json_str(json_get(j, "n")));
	assert_slice(json_slice(json_get(j, "n")), "");
	assert_true(json_num(json_get(j, "n"), 0) == 1.5 && json_num(json_get(j, "s"), 7) == 7 && json_num(NULL, 7) == 7);
	assert_true(json_is_true(json_get(j, "t")) && !json_is_true(json_get(j, "f")) && json_is_bool(json_get(j, "f")));
	assert_true(json_is_null(json_get(j, "z")) && json_is_absent(json_get(j, "z")) && json_is_absent(json_get(j, "y")));
	assert_false(json_is_absent(j));
	assert_true(json_num(json_at(json_get(j, "a"), 2), 0) == 3);
	assert_null(json_at(json_get(j, "a"), 3));
	assert_null(json_at(j, 0));
	assert_string_equal(json_key(json_next(json_first(j))), "n");
	assert_null(json_key(json_first(json_get(j, "a"))));
	assert_null(json_first(json_get(j, "s")));
	assert_null(json_get(json_get(j, "a"), "x"));
	assert_null(json_get(NULL, "x"));
	assert_null(json_next(NULL));
	assert_int_equal(json_count(NULL), 0);
	assert_false(json_i64(json_get(j, "n"), &v) || json_i64(json_get(j, "s"), &v) || json_i64(NULL, &v));
	assert_int_equal(v, 5);
	assert_true(json_i64(json_get(j, "S"), &v) && v == 2);
}

static void names_types(void **state)
{
	static const char *const rows[][2] = {
		{ "{}", "object" }, { "[]", "array" }, { "\"\"", "string" }, { "1", "number" }, { "true", "boolean" },
		{ "false", "boolean" }, { "null", "null" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_JSON j = NULL;

		assert_int_equal(json_parse(slice_str(rows[i][0]), limits, &j, NULL), E_OK);
		assert_string_equal(json_type_name(j), rows[i][1]);
	}
	assert_string_equal(json_type_name(NULL), "absent");
}

static void integers_end_at_2_to_53(void **state)
{
	static const struct {
		const char *text;
		bool is_ok;
		int64_t v;
	} rows[] = {
		{ "9007199254740992", true, INT64_C(1) << 53 }, { "-9007199254740992", true, -(INT64_C(1) << 53) }, { "9007199254740994", false, 0 },
		{ "1e999", false, 0 }, { "1.0", true, 1 }, { "1e3", true, 1000 }, { "0.5", false, 0 }, { "-0", true, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_JSON j = NULL;
		int64_t v = 77;

		assert_int_equal(json_parse(slice_str(rows[i].text), limits, &j, NULL), E_OK);
		assert_int_equal(json_i64(j, &v), rows[i].is_ok);
		assert_true(v == (rows[i].is_ok ? rows[i].v : 77));
	}
}

/* One oddity alone, each: a name that poses as another, a number of just one character too many. */
static void single_oddities(void **state)
{
	AUTO_JSON names = NULL;
	AUTO_JSON number = NULL;
	const struct slice digits = SLICE("[0.25000000000000000000000000000000000000000000000000000000000000]");

	(void)state;
	assert_int_equal(json_parse(SLICE("{\"a\":1,\"a\\u0000\":2}"), limits, &names, NULL), E_OK);
	assert_true(json_num(json_get(names, "a"), 0) == 1);
	assert_int_equal(digits.n, 64 + 2);
	assert_int_equal(json_parse(digits, limits, &number, NULL), E_OK);
	assert_true(json_num(json_at(number, 0), 0) == 0.25);
}

/* What cJSON would cut, refuse or let pose as another name. */
static void odd_texts_are_tamed(void **state)
{
	AUTO_JSON j = NULL;
	const struct json *a;

	(void)state;
	assert_int_equal(json_parse(SLICE("{\"model\":\"m\",\"model\\u0000\":\"other\","
		"\"a\":[\"x\\u0000y\",\"\\ud83d\",\"\\\\ud800\",\"\\uD83D\\uDE00\"],"
		"\"n\":[0.10000000000000000000000000000000000000000000000000000000000000000000000000000001,"
		"-1000000000000000000000000000000000000000000000000000000000000000000e999,7]}"), limits, &j, NULL), E_OK);
	assert_string_equal(json_str(json_get(j, "model")), "m");
	a = json_get(j, "a");
	assert_string_equal(json_str(json_at(a, 0)), "x\xEF\xBF\xBDy");
	assert_string_equal(json_str(json_at(a, 1)), "\xEF\xBF\xBD");
	assert_string_equal(json_str(json_at(a, 2)), "\\ud800");
	assert_string_equal(json_str(json_at(a, 3)), "\xF0\x9F\x98\x80");
	a = json_get(j, "n");
	assert_true(json_num(json_at(a, 0), 0) == 0.1);
	assert_true(json_num(json_at(a, 1), 0) == -INFINITY);
	assert_true(json_num(json_at(a, 2), 0) == 7);
}

static void writes_trees(void **state)
{
	const struct slice text = SLICE("{\"a\":[1,-2.5,\"x\\n\xC3\xA9\",true,false,null,{}],\"b\":{\"c\":[]}}");
	AUTO_JSON j = NULL;
	AUTO_BUF b = BUF_MAX(1000);
	struct jw w = JW(&b);

	(void)state;
	assert_int_equal(json_parse(text, limits, &j, NULL), E_OK);
	jw_tree(&w, NULL, j);
	assert_int_equal(jw_done(&w, NULL), E_OK);
	assert_true(slice_eq(buf_slice(&b), text));
	buf_clear(&b);
	w = JW(&b);
	jw_obj(&w, NULL);
	jw_tree(&w, "k", json_get(j, "b"));
	jw_tree(&w, "n", NULL);
	jw_end(&w);
	assert_int_equal(jw_done(&w, NULL), E_OK);
	assert_slice(buf_slice(&b), "{\"k\":{\"c\":[]},\"n\":null}");
}

/* ---- by spec ---- */
struct in {
	bool is_first;
	char kind[8];
	char *note;
	int64_t timeout_ms;
	bool has_timeout;
	double temperature;
	bool has_temperature;
	bool stream, has_stream;
	const struct json *args, *list, *any;
};
static const struct json_field in_spec[] = {
	JF_STR(struct in, kind, 1, 7, JF_REQUIRED),
	JF_STRDUP(struct in, note, 0, 4, JF_OPTIONAL),
	JF_I64(struct in, timeout_ms, 10, 1000, JF_OPTIONAL, has_timeout),
	JF_F64(struct in, temperature, 0, 2, JF_OPTIONAL, has_temperature),
	JF_BOOL(struct in, stream, JF_OPTIONAL, has_stream),
	JF_OBJ(struct in, args, JF_OPTIONAL),
	JF_ARR(struct in, list, JF_OPTIONAL),
	JF_ANY(struct in, any, JF_OPTIONAL),
	JF_END(JF_REFUSE_UNKNOWN),
};

static void reads_by_spec(void **state)
{
	AUTO_JSON j = NULL;
	struct in in = { .timeout_ms = 5 };

	(void)state;
	assert_int_equal(json_parse(SLICE("{\"kind\":\"shell\",\"note\":\"abc\",\"timeout_ms\":1000,\"temperature\":0.5,"
		"\"stream\":true,\"args\":{\"x\":1},\"list\":[],\"any\":7}"),
		limits, &j, NULL), E_OK);
	assert_int_equal(json_read(j, "", in_spec, &in, NULL), E_OK);
	assert_string_equal(in.kind, "shell");
	assert_string_equal(in.note, "abc");
	assert_true(in.timeout_ms == 1000 && in.has_timeout && in.temperature == 0.5 && in.has_temperature && in.stream && in.has_stream);
	assert_true(json_is_object(in.args) && json_is_array(in.list) && json_num(in.any, 0) == 7);
	/* a second read replaces what the first allocated */
	assert_int_equal(json_read(j, "", in_spec, &in, NULL), E_OK);
	mem_free(in.note);
	json_free(TAKE(j));
	/* absent and null leave what was there */
	in = (struct in){ .timeout_ms = 5 };
	assert_int_equal(json_parse(SLICE("{\"kind\":\"x\",\"timeout_ms\":null,\"args\":null,\"stream\":null}"), limits, &j, NULL), E_OK);
	assert_int_equal(json_read(j, "", in_spec, &in, NULL), E_OK);
	assert_true(in.timeout_ms == 5 && !in.has_timeout && !in.has_stream && !in.args && !in.note);
}

static void spec_names_what_is_wrong(void **state)
{
	static const struct {
		const char *text, *path;
		enum errc code;
		const char *param, *what;
	} rows[] = {
		{ "[]", "", E_INVALID_VALUE, "", "must be an object" }, { "1", "job", E_INVALID_VALUE, "job", "job: must be an object" },
		{ "{}", "", E_MISSING_PARAMETER, "kind", "kind: is required" }, { "{}", "job", E_MISSING_PARAMETER, "job.kind", "job.kind: is required" },
		{ "{\"kind\":null}", "", E_INVALID_VALUE, "kind", "kind: must be a string" },
		{ "{\"kind\":1}", "a.b", E_INVALID_VALUE, "a.b.kind", "a.b.kind: must be a string" },
		{ "{\"kind\":\"\"}", "", E_INVALID_VALUE, "kind", "kind: 0 bytes, must be 1 to 7" },
		{ "{\"kind\":\"12345678\"}", "", E_INVALID_VALUE, "kind", "kind: 8 bytes, must be 1 to 7" },
		{ "{\"kind\":\"x\",\"note\":[]}", "", E_INVALID_VALUE, "note", "note: must be a string" },
		{ "{\"kind\":\"x\",\"note\":\"12345\"}", "", E_INVALID_VALUE, "note", "note: 5 bytes, must be 0 to 4" },
		{ "{\"kind\":\"x\",\"timeout_ms\":1.5}", "", E_INVALID_VALUE, "timeout_ms", "timeout_ms: must be an integer" },
		{ "{\"kind\":\"x\",\"timeout_ms\":\"10\"}", "", E_INVALID_VALUE, "timeout_ms", "timeout_ms: must be an integer" },
		{ "{\"kind\":\"x\",\"timeout_ms\":9}", "", E_INVALID_VALUE, "timeout_ms", "timeout_ms: must be 10 to 1000" },
		{ "{\"kind\":\"x\",\"timeout_ms\":1001}", "", E_INVALID_VALUE, "timeout_ms", "timeout_ms: must be 10 to 1000" },
		{ "{\"kind\":\"x\",\"temperature\":2.5}", "", E_INVALID_VALUE, "temperature", "temperature: must be 0 to 2" },
		{ "{\"kind\":\"x\",\"temperature\":1e999}", "", E_INVALID_VALUE, "temperature", "temperature: must be a number" },
		{ "{\"kind\":\"x\",\"temperature\":true}", "", E_INVALID_VALUE, "temperature", "temperature: must be a number" },
		{ "{\"kind\":\"x\",\"stream\":1}", "", E_INVALID_VALUE, "stream", "stream: must be true or false" },
		{ "{\"kind\":\"x\",\"args\":[]}", "", E_INVALID_VALUE, "args", "args: must be an object" },
		{ "{\"kind\":\"x\",\"list\":{}}", "", E_INVALID_VALUE, "list", "list: must be an array" },
		{ "{\"kind\":\"x\",\"Kind\":1}", "", E_INVALID_VALUE, "Kind", "Kind: unknown member" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_JSON j = NULL;
		struct in in = { 0 };
		struct err e = { 0 };

		assert_int_equal(json_parse(slice_str(rows[i].text), limits, &j, NULL), E_OK);
		assert_int_equal(json_read(j, rows[i].path, in_spec, &in, &e), rows[i].code);
		assert_string_equal(e.param, rows[i].param);
		assert_string_equal(e.what, rows[i].what);
		mem_free(in.note);
	}
}

/* A name of many bytes is cut on a character, and unknown ones pass where the table lets them. */
static void unknown_members(void **state)
{
	static const struct json_field keep[] = { JF_ANY(struct in, any, JF_OPTIONAL), JF_END(JF_KEEP_UNKNOWN) };
	static const struct json_field none[] = { JF_END(JF_REFUSE_UNKNOWN) };
	AUTO_BUF b = BUF_MAX(1000);
	AUTO_JSON j = NULL;
	struct in in = { 0 };
	struct err e = { 0 };

	(void)state;
	assert_int_equal(buf_add_str(&b, "{\"", &e), E_OK);
	for (int i = 0; i < 100; i++)
		assert_int_equal(buf_add_str(&b, "\xE2\x82\xAC", &e), E_OK);
	assert_int_equal(buf_add_str(&b, "\":1}", &e), E_OK);
	assert_int_equal(json_parse(buf_slice(&b), limits, &j, &e), E_OK);
	assert_int_equal(json_read(j, "", keep, &in, &e), E_OK);
	assert_int_equal(json_read(j, "", none, &in, &e), E_INVALID_VALUE);
	assert_true(slice_is_utf8(slice_str(e.what)) && slice_is_utf8(slice_str(e.param)));
	assert_true(slice_ends_with(slice_str(e.what), SLICE(": unknown member")));
}

/* Every allocation fails in turn: an error, no leak (asan), no tree. The tree is of several blocks. */
static void no_memory(void **state)
{
	AUTO_BUF b = BUF_MAX(4u << 20);
	unsigned n = 0;
	enum errc rc;
	struct slice text;

	(void)state;
	rc = buf_add_str(&b, "{\"kind\":\"x\",\"note\":\"\\ud800\",\"args\":{\"a\":[1,2,{\"b\":\"", NULL);
	for (unsigned i = 0; !rc && i < 100000; i++)
		rc = buf_add_str(&b, "c", NULL);
	if (!rc)
		rc = buf_add_str(&b, "\"}", NULL);
	for (unsigned i = 0; !rc && i < 1000; i++)
		rc = buf_add_str(&b, ",\"d\"", NULL);
	if (!rc)
		rc = buf_add_str(&b, "]}}", NULL);
	assert_int_equal(rc, E_OK);
	text = buf_slice(&b);
	rc = E_NO_MEMORY;
	while (rc) {
		AUTO_JSON j = NULL;
		struct in in = { 0 };

		mem_test_fail_at(++n, 0);
		rc = json_parse(text, limits, &j, NULL);
		if (rc == E_OK)
			rc = json_read(j, "", in_spec, &in, NULL);
		if (rc)
			assert_int_equal(rc, E_NO_MEMORY);
		mem_free(in.note);
		assert_true(n < 10000);
	}
	assert_true(n > 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts), cmocka_unit_test(refuses_with_line_and_column), cmocka_unit_test(every_cut_is_refused),
		cmocka_unit_test(limits_hold), cmocka_unit_test(too_many_values_for_a_tree), cmocka_unit_test(walks_members),
		cmocka_unit_test(walks_report_bad_input), cmocka_unit_test(unquotes), cmocka_unit_test(reads_the_tree), cmocka_unit_test(names_types),
		cmocka_unit_test(integers_end_at_2_to_53), cmocka_unit_test(single_oddities),
		cmocka_unit_test(odd_texts_are_tamed), cmocka_unit_test(writes_trees),
		cmocka_unit_test(reads_by_spec), cmocka_unit_test(spec_names_what_is_wrong), cmocka_unit_test(unknown_members),
		cmocka_unit_test_teardown(no_memory, switch_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
