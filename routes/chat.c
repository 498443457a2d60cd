/* Shared by the routes that run models; see chat.h. */
#include "routes/chat.h"

#include <stdio.h>

void reply_retry(struct reply *rep, int status, int64_t retry_after_s, bool is_started)
{
	char text[24];
	struct err ignored;

	if (retry_after_s <= 0 && (status == 429 || status == 503))
		retry_after_s = 1;
	if (retry_after_s > 0) {
		snprintf(text, sizeof(text), "%lld", (long long)retry_after_s);
		(void)!reply_header(rep, "retry-after", text, &ignored);
	}
	if (status >= 500 && (is_started || status == 504))
		(void)!reply_header(rep, "x-should-retry", "false", &ignored);
}
