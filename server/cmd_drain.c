/* node drain: changes or shows the drain mode of the running node, at once. Main thread. */
#include "server/cli.h"

#include <stdio.h>

int cmd_drain(struct cli *c)
{
	AUTO_BUF request = BUF_MAX(1024);
	AUTO_JSON answer = NULL;
	struct jw w = JW(&request);
	const char *mode = "status";
	struct err e = { 0 };
	enum errc rc = cli_load(c, NULL, &mode, 1, NULL, &e);

	jw_obj(&w, NULL);
	jw_str(&w, "op", "drain");
	jw_str(&w, "mode", mode);
	jw_end(&w);
	if (rc == E_OK)
		rc = jw_done(&w, &e);
	if (rc == E_OK)
		rc = cli_control(c, buf_slice(&request), &answer, &e);
	if (rc == E_NOT_FOUND)
		err_set(&e, E_NOT_FOUND, "no node runs on %s", c->cfg->state_dir);
	if (rc)
		return cli_fail(&e);
	const char *now = json_str(json_get(answer, "drain"));

	printf("%s%s%s", c->wants_json ? "{\n  \"drain\": \"" : "drain ", now ? now : "?", c->wants_json ? "\"\n}\n" : "\n");
	return cli_print(SLICE(""));
}
