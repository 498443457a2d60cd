/*
 * Fuzz target of base/dechunk, run by ctest (label fuzz). The verdict and the data do not depend on how the bytes were
 * cut, nor on pieces that were taken back once; and never is more handed out than came in.
 */
#include "base/buf.h"
#include "base/dechunk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Pieces of up to `most` bytes; with does_back every piece of data is taken back the first time. */
static enum dechunk_got run(struct slice text, size_t most, bool does_back, struct buf *out)
{
	enum dechunk_got got = DECHUNK_MORE;
	struct dechunk d = { 0 };
	bool is_again = false;

	while (text.n && got == DECHUNK_MORE) {
		struct slice in = slice_cut(text, most), piece;

		text = slice_from(text, in.n);
		while ((got = dechunk_next(&d, &in, &piece)) == DECHUNK_DATA) {
			must(piece.n > 0);
			is_again = does_back && !is_again;
			if (is_again)
				dechunk_back(&d, &in, piece);
			else
				must(buf_add_slice(out, piece, NULL) == E_OK);
		}
	}
	return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice_of((const char *)data, size);
	AUTO_BUF whole = BUF_MAX(1 << 20), bytes = BUF_MAX(1 << 20), back = BUF_MAX(1 << 20);
	enum dechunk_got got = run(text, size, false, &whole);

	must(whole.n <= size);
	must(run(text, 1, false, &bytes) == got && slice_eq(buf_slice(&whole), buf_slice(&bytes)));
	must(run(text, 7, true, &back) == got && slice_eq(buf_slice(&whole), buf_slice(&back)));
	return 0;
}
