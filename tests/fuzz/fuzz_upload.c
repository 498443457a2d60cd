/*
 * Fuzz target of routes/upload_json, run by ctest (label fuzz). File and rest do not depend on how the bytes were cut, and what
 * the rest's parser takes names a content that the whole text has too. The first byte chooses the cuts.
 */
#include "base/json.h"
#include "routes/upload_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum errc sink(void *ctx, struct slice bytes, struct err *e)
{
	return buf_add_slice(ctx, bytes, e);
}

static enum errc run(struct slice text, size_t step, struct buf *file, struct buf *rest, enum upload_content *content)
{
	struct upload_json *j = NULL;
	enum errc rc = E_OK;

	must(upload_json_new(&j, NULL) == E_OK);
	while (!rc && text.n) {
		rc = upload_json_feed(j, slice_cut(text, step), sink, file, NULL);
		text = slice_from(text, step);
	}
	must(buf_add_slice(rest, upload_json_rest(j), NULL) == E_OK);
	*content = upload_json_content(j);
	upload_json_free(j);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum upload_content a = CONTENT_BLANK, b = CONTENT_BLANK;

	if (size < 1)
		return 0;
	struct slice text = slice_of((const char *)data + 1, size - 1);
	AUTO_BUF file = BUF_MAX(1 << 20), rest = BUF_MAX(1 << 20), file2 = BUF_MAX(1 << 20), rest2 = BUF_MAX(1 << 20);
	AUTO_JSON whole = NULL;
	enum errc rc = run(text, text.n + 1, &file, &rest, &a);

	must(run(text, (size_t)data[0] % 7 + 1, &file2, &rest2, &b) == rc);
	if (rc)
		return 0;
	must(a == b && slice_eq(buf_slice(&file), buf_slice(&file2)) && slice_eq(buf_slice(&rest), buf_slice(&rest2)));
	must(file.n <= text.n);
	/* a text that is JSON stays JSON without its content */
	if (json_parse(text, JSON_LIMITS_DEFAULT, &whole, NULL) == E_OK) {
		AUTO_JSON left = NULL;

		must(json_parse(buf_slice(&rest), JSON_LIMITS_DEFAULT, &left, NULL) == E_OK);
		must(json_count(left) == json_count(whole));
	}
	return 0;
}
