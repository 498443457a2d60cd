/* Entry: what concerns the whole process, then the command line. */
#include "base/thread.h"
#include "server/cli.h"

#include <malloc.h>

int main(int argc, char **argv)
{
	/* Few arenas: free memory of one thread can be used by the others, and is given back sooner. */
	mallopt(M_ARENA_MAX, 2);
	thread_set_role_self(THREAD_MAIN);
	return cli_main(argc, argv);
}
