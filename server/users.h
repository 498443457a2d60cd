/* Who else can log in to this machine. Threads: main (reads a file). */
#ifndef MSWARM_SERVER_USERS_H
#define MSWARM_SERVER_USERS_H

#include "base/slice.h"

/* People of /etc/passwd with a login shell, without the user that we run as. */
unsigned users_who_can_log_in(void);
/* The same for the text of a passwd file. */
unsigned users_count(struct slice passwd, unsigned own_uid);

#endif
