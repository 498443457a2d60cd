/* Entry: what concerns the whole process, then the command line. */
#include "base/mem.h"
#include "base/thread.h"
#include "server/cli.h"

int main(int argc, char **argv)
{
	mem_init();
	thread_set_role_self(THREAD_MAIN);
	return cli_main(argc, argv);
}
