/* The system user of a machine's node; see system_user.h. Called by cmd_setup.c. */
#include "server/system_user.h"

#include "base/file.h"

#include <errno.h>
#include <pwd.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static enum errc run(char *const *argv, struct err *e)
{
	pid_t pid;
	int status = 0, failed = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);

	if (failed)
		return err_set_os(e, E_IO, failed, "%s", argv[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? E_OK : err_set(e, E_IO, "%s failed for user %s", argv[0], SERVICE_SYSTEM_USER);
}

static enum errc run_useradd(struct err *e)
{
	char *const argv[] = { "useradd", "--system", "--home-dir", SERVICE_SYSTEM_HOME, "--create-home", "--shell", "/usr/sbin/nologin", SERVICE_SYSTEM_USER, NULL };

	return run(argv, e);
}

static enum errc own(char *whose, char *folder, struct err *e)
{
	char *const argv[] = { "chown", "-R", "-P", whose, "--", folder, NULL };

	return run(argv, e);
}

enum errc system_user_make(struct cli *c, struct err *e)
{
	char *const args[] = { "--state-path", SERVICE_SYSTEM_HOME "/.mswarm/self-hosted-node/config.json", NULL };
	enum errc rc = getpwnam(SERVICE_SYSTEM_USER) ? E_OK : run_useradd(e);
	char **paths[] = { &c->cfg->config_path, &c->cfg->state_dir, &c->cfg->key_path, &c->cfg->machine_id_path, &c->cfg->artifact_path, &c->cfg->home };
	const struct config_load in = { .args = args };
	struct config *other = NULL;

	/* A second registration: what is written now is root's, and its own again in the end. */
	if (!rc && file_exists(SERVICE_SYSTEM_HOME "/.mswarm"))
		rc = own("root:root", SERVICE_SYSTEM_HOME "/.mswarm", e);
	if (rc || (c->cfg->state_path && strcmp(c->cfg->state_path, "~/.mswarm/self-hosted-node/config.json") != 0))
		return rc;
	rc = config_load(&in, &other, e);
	if (rc)
		return rc;
	char **theirs[] = { &other->config_path, &other->state_dir, &other->key_path, &other->machine_id_path, &other->artifact_path, &other->home };

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		char *mine = *paths[i];

		*paths[i] = *theirs[i];
		*theirs[i] = mine;
	}
	config_free(other);
	return E_OK;
}

enum errc system_user_own(const struct service *s, struct err *e)
{
	(void)s;
	return own(SERVICE_SYSTEM_USER ":" SERVICE_SYSTEM_USER, SERVICE_SYSTEM_HOME, e);
}
