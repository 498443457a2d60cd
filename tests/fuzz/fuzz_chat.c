/*
 * Fuzz target of chat_parse and chat_build, run by ctest (label fuzz). A request that is taken gives, for every kind of
 * runner and strategy, a body that is JSON and says what it must. The first byte chooses the agent. Also: bodies of
 * runner errors of any form.
 */
#include "llm/chat.h"

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_built(const struct chat_req *r, const struct chat_build *b)
{
	AUTO_BUF out = BUF_MAX(1 << 20), model = BUF_MAX(1 << 16);
	struct slice v = { 0 };
	struct err e;
	enum errc rc = chat_build(r, b, &out, &e);
	int64_t n;

	must(rc == E_OK || rc == E_UNSUPPORTED_VALUE);
	if (rc)
		return;
	must(json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e) == E_OK);
	must(json_find_member(buf_slice(&out), "stream", &v) && slice_eq(v, b->as_stream ? SLICE("true") : SLICE("false")));
	must(json_find_member(buf_slice(&out), "stream_options", &v) == b->as_stream);
	must(json_find_member(buf_slice(&out), "model", &v) == b->agent->sends_model);
	if (b->agent->sends_model)
		must(json_unquote(v, &model, &e) == E_OK && slice_eq(buf_slice(&model), slice_str(b->agent->model)));
	if (b->owner_max_tokens)
		must(json_find_member(buf_slice(&out), "max_tokens", &v) && slice_to_i64(v, 1, b->owner_max_tokens, &n));
	must(json_find_member(buf_slice(&out), "messages", &v));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	char model[] = "re\"al", extra[] = "{\"top_k\":5,\"seed\":7,\"x\":null}";
	struct upstream up = { .kind = (enum upstream_kind)(data[0] % UPSTREAM__COUNT) };
	struct agent a = { .model = model, .supports_tools = data[0] & 1, .sends_model = data[0] & 2, .up = data[0] & 16 ? &up : NULL,
			   .format = (enum agent_format)((data[0] >> 2) % (FORMAT_NONE + 1)),
			   .extra_body = data[0] & 4 ? extra : NULL, .max_output_tokens = data[0] & 8 ? 9 : 0 };
	struct chat_build b = { .agent = &a, .as_stream = data[0] & 32, .owner_max_tokens = data[0] & 64 ? 5 : 0 };
	struct slice body = slice_of((const char *)data + 1, size - 1);
	AUTO_BUF out = BUF_MAX(1 << 20);
	struct chat_error ce;
	struct chat_req r;
	struct err e;

	if (chat_parse(body, &r, &e) == E_OK) {
		must(r.model[0] && r.n >= 1 && (r.max_tokens == -1 || r.max_tokens >= 1));
		check_built(&r, &b);
		chat_req_done(&r);
	} else {
		must(err_http_status(e.code) == 400);
		chat_error_from_err(&e, &ce);
	}
	chat_error_from_runner(400 + data[0] % 200, body, &ce);
	must(ce.status >= 400 && ce.message[0]);
	must(chat_error_json(&ce, &out, &e) == E_OK && json_check(buf_slice(&out), JSON_LIMITS_DEFAULT, &e) == E_OK);
	return 0;
}
