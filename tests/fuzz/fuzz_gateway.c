/*
 * What a gateway says, and where its paths lead: answers of bootstrap and enroll, job paths against ids. The first byte tells
 * which; the rest up to a NUL is the path, behind it the job id.
 */
#include "base/config.h"
#include "base/mem.h"
#include "gateway/member.h"
#include "gateway/url.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config *settings(void)
{
	static struct config *cfg;             /* one for the run: it is only read */
	char *args[] = { "--state-path", "/nonexistent/config.json", NULL };
	const struct config_load in = { .args = args };
	struct err e;

	if (!cfg && config_load(&in, &cfg, &e))
		abort();
	return cfg;
}

static void paths(struct slice in)
{
	ptrdiff_t nul = slice_find_char(in, '\0');
	AUTO_FREE char *template = slice_dup(nul < 0 ? in : slice_cut(in, (size_t)nul));
	struct slice id = nul < 0 ? slice_of("", 0) : slice_from(in, (size_t)nul + 1);
	AUTO_BUF url = BUF_MAX(8192);
	struct err e;

	if (!template || gateway_url_job(settings(), "https://gateway.example/base", template, id, &url, &e))
		return;
	/* Whatever the path says, the token goes to this host and to no other. */
	if (!slice_starts_with_nocase(buf_slice(&url), SLICE("https://gateway.example")))
		abort();
	if (url.n > 23 && !strchr("/:?#", url.p[23]))
		abort();
}

static void answers(struct slice in, enum member_kind kind)
{
	struct member m = { 0 };
	struct err e;

	if (member_parse(in, kind, &m, &e))
		return;
	if (!m.token.n || (kind == MEMBER_BOOTSTRAPPED && !m.node_id) || m.interval_s < 0 || m.interval_s > 86400)
		abort();
	member_done(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice_of((const char *)data, size);

	if (!size)
		return 0;
	if (data[0] % 3 == 0)
		paths(slice_from(in, 1));
	else
		answers(slice_from(in, 1), data[0] % 3 == 1 ? MEMBER_BOOTSTRAPPED : MEMBER_ENROLLED);
	return 0;
}
