/* base/dechunk: what comes out for any cut of the input, what is bad, and taking back. */
#include "base/buf.h"
#include "base/dechunk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define X16 "xxxxxxxxxxxxxxxx"
#define X256 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16
#define X4096 X256 X256 X256 X256 X256 X256 X256 X256 X256 X256 X256 X256 X256 X256 X256 X256

static const struct {
	const char *in;
	enum dechunk_got got;
	const char *data, *rest;
} rows[] = {
	{ "", DECHUNK_MORE, "", "" },
	{ "5\r\nhello\r\n0\r\n\r\n", DECHUNK_END, "hello", "" },
	{ "5\nhello\n0\n\n", DECHUNK_END, "hello", "" },
	{ "a\r\n0123456789\r\nB\r\nabcdefghijk\r\n", DECHUNK_MORE, "0123456789abcdefghijk", "" },
	{ "05;name=\"v\"\r\nhello\r\n000\r\n\r\nHTTP/1.1", DECHUNK_END, "hello", "HTTP/1.1" },
	{ "1\r\n\n\r\n0\r\nA: 1\r\nB: 2\r\n\r\n!", DECHUNK_END, "\n", "!" },
	{ "5\r\nhel", DECHUNK_MORE, "hel", "" },
	{ "5\r\nhelloX", DECHUNK_BAD, "hello", "" },
	{ "5\r\nhello\r\r\n", DECHUNK_BAD, "hello", "\n" },
	{ "\r\n", DECHUNK_BAD, "", "\n" },
	{ "\n", DECHUNK_BAD, "", "" },
	{ " 5\r\n", DECHUNK_BAD, "", "5\r\n" },
	{ "-1\r\n", DECHUNK_BAD, "", "1\r\n" },
	{ "data: {}\n\n", DECHUNK_MORE, "\n", "" },                /* "da" are digits, the rest is an extension */
	{ "g\r\n", DECHUNK_BAD, "", "\r\n" },
	{ "1000000000000000\r\n", DECHUNK_BAD, "", "\r\n" },       /* 16 digits */
	{ "fffffffffffffff\r\nab", DECHUNK_MORE, "ab", "" },
	{ "1;" X4096 "\r\n", DECHUNK_BAD, "", "\r\n" },
	{ "0\r\na:" X4096 "\r\n", DECHUNK_BAD, "", "x\r\n" },
};

static enum dechunk_got run(const char *text, size_t piece, struct buf *data, struct buf *rest)
{
	struct slice all = slice_str(text);
	enum dechunk_got got = DECHUNK_MORE;
	struct dechunk d = { 0 };

	buf_clear(data);
	buf_clear(rest);
	while (all.n && got == DECHUNK_MORE) {
		struct slice in = slice_cut(all, piece), out;

		all = slice_from(all, in.n);
		while ((got = dechunk_next(&d, &in, &out)) == DECHUNK_DATA) {
			assert_true(out.n > 0);
			assert_int_equal(buf_add_slice(data, out, NULL), E_OK);
		}
		assert_int_equal(buf_add_slice(rest, in, NULL), E_OK);
	}
	assert_int_equal(buf_add_slice(rest, all, NULL), E_OK);
	return got;
}

static void test_rows(void **state)
{
	AUTO_BUF data = BUF_MAX(1 << 20), rest = BUF_MAX(1 << 20);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (size_t piece = 1; piece < 40; piece++) {
			enum dechunk_got got = run(rows[i].in, piece == 39 ? 1 << 20 : piece, &data, &rest);

			if (got != rows[i].got || !slice_eq(buf_slice(&data), slice_str(rows[i].data)) ||
			    !slice_eq(buf_slice(&rest), slice_str(rows[i].rest)))
				fail_msg("row %zu in pieces of %zu: got %d, data \"" SLICE_FMT "\", rest \"" SLICE_FMT "\"", i, piece, (int)got,
					 SLICE_ARG(buf_slice(&data)), SLICE_ARG(buf_slice(&rest)));
		}
	}
}

/* Every piece is taken back once before it is kept: the same data. */
static void test_back(void **state)
{
	struct slice in = SLICE("3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"), out;
	AUTO_BUF data = BUF_MAX(100);
	struct dechunk d = { 0 };
	enum dechunk_got got;
	bool is_second = false;

	(void)state;
	while ((got = dechunk_next(&d, &in, &out)) == DECHUNK_DATA) {
		if (is_second)
			assert_int_equal(buf_add_slice(&data, out, NULL), E_OK);
		else
			dechunk_back(&d, &in, out);
		is_second = !is_second;
	}
	assert_int_equal(got, DECHUNK_END);
	assert_true(slice_eq(buf_slice(&data), SLICE("abcdefg")));
	assert_int_equal(dechunk_next(&d, &in, &out), DECHUNK_END);     /* for good */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
