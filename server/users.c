/* Counts login users, for the banner: on loopback without a key they can all call the node. Called on main. */
#include "server/users.h"

#include "base/buf.h"
#include "base/file.h"

#include <unistd.h>

#define PASSWD_MAX (4 << 20)
/* Ids of people on Debian and most others; below are the system's own, above are "nobody" and containers' ranges. */
#define UID_FIRST 1000
#define UID_LAST 59999

static bool is_login_shell(struct slice shell)
{
	return !slice_ends_with(shell, SLICE("/nologin")) && !slice_ends_with(shell, SLICE("/false")) &&
	       !slice_ends_with(shell, SLICE("/sync"));
}

unsigned users_count(struct slice passwd, unsigned own_uid)
{
	struct slice rest = passwd, line;
	unsigned n = 0;

	while (rest.p && slice_next(&rest, '\n', &line)) {
		struct slice fields[7], left = line;
		size_t got = 0;
		int64_t uid;

		while (got < ARRAY_LEN(fields) && left.p && slice_next(&left, ':', &fields[got]))
			got++;
		if (got == ARRAY_LEN(fields) && slice_to_i64(fields[2], UID_FIRST, UID_LAST, &uid) && uid != (int64_t)own_uid &&
		    is_login_shell(slice_trim(fields[6])))
			n++;
	}
	return n;
}

unsigned users_who_can_log_in(void)
{
	AUTO_BUF text = BUF_MAX(PASSWD_MAX);

	if (file_read("/etc/passwd", &text, NULL) != E_OK)
		return 0;
	return users_count(buf_slice(&text), (unsigned)geteuid());
}
