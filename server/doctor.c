/* Checks of the machine and its files; see doctor.h. Called by cmd_doctor.c. */
#include "server/doctor.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/http.h"
#include "server/service.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define FREE_MB 512

struct check *doctor_add(struct doctor *d, const char *name, bool is_ok, const char *fmt, ...)
{
	struct check *k = &d->v[d->n < DOCTOR_CHECKS_MAX ? d->n++ : DOCTOR_CHECKS_MAX - 1];
	va_list ap;

	*k = (struct check){ .name = name, .is_ok = is_ok, .has_message = fmt != NULL };
	if (!fmt)
		return k;
	va_start(ap, fmt);
	vsnprintf(k->message, sizeof(k->message), fmt, ap);
	va_end(ap);
	return k;
}

void doctor_mend(struct check *k, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(k->mend, sizeof(k->mend), fmt, ap);
	va_end(ap);
}

bool doctor_parse_date(const char *text, int64_t *ret_wall_ms)
{
	struct tm tm = { 0 };
	const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);

	if (!end || *end)
		return false;
	*ret_wall_ms = (int64_t)timegm(&tm) * 1000;
	return true;
}

/* ---- files ---- */

/* The first path that others may read; NULL: none. */
static const char *open_path(const char *const *paths, size_t n, mode_t *ret_mode)
{
	for (size_t i = 0; i < n; i++) {
		struct stat st;

		if (paths[i] && stat(paths[i], &st) == 0 && (st.st_mode & 077)) {
			*ret_mode = st.st_mode & 07777;
			return paths[i];
		}
	}
	return NULL;
}

static void check_permissions(struct doctor *d)
{
	const struct config *cfg = d->cfg;
	AUTO_FREE char *signing = file_join(cfg->state_dir, "signing.key");
	AUTO_FREE char *shared = file_join(cfg->state_dir, CONFIG_SHARED_SECRET_FILE);
	const char *const paths[] = { cfg->state_dir, cfg->config_path, cfg->key_path, cfg->machine_id_path, signing, shared };
	mode_t mode = 0;
	const char *bad = open_path(paths, ARRAY_LEN(paths), &mode);
	struct check *k;

	if (!bad) {
		doctor_add(d, "permissions", true, "private");
		return;
	}
	k = doctor_add(d, "permissions", false, "%s can be read by others (%03o)", bad, (unsigned)mode);
	doctor_mend(k, "chmod go= %s", bad);
}

static void check_disk(struct doctor *d)
{
	struct statvfs st;
	struct check *k;

	if (statvfs(d->cfg->state_dir, &st) != 0) {
		doctor_add(d, "disk", true, "%s: not there yet", d->cfg->state_dir);
		return;
	}
	int64_t mb = (int64_t)((uint64_t)st.f_bavail * st.f_frsize >> 20);

	k = doctor_add(d, "disk", mb >= FREE_MB, "%lld MB free on the disk of %s", (long long)mb, d->cfg->state_dir);
	if (!k->is_ok)
		doctor_mend(k, "make room: the node takes no jobs on a full disk");
	if (d->running) {
		const char *state = json_str(json_get(d->running, "store"));

		k = doctor_add(d, "store", state && strcmp(state, "ok") == 0, "%s", state ? state : "unknown");
		if (!k->is_ok)
			doctor_mend(k, "look at: mswarm node logs --error");
	}
}

void doctor_files(struct doctor *d)
{
	check_permissions(d);
	check_disk(d);
}

/* ---- the machine ---- */

/* A program of that name in PATH. */
static bool has_program(const char *name)
{
	struct slice rest = slice_str(config_env("PATH")), folder;

	while (rest.p && slice_next(&rest, ':', &folder)) {
		AUTO_BUF path = BUF_MAX(8192);

		if (folder.n && !buf_addf(&path, NULL, SLICE_FMT "/%s", SLICE_ARG(folder), name) && access(buf_cstr(&path), X_OK) == 0)
			return true;
	}
	return false;
}

static void check_port(struct doctor *d)
{
	const struct config *cfg = d->cfg;
	struct err e = { 0 };
	struct check *k;
	int fd = -1, port = 0;

	if (d->running) {
		doctor_add(d, "port", true, "%s", json_str(json_get(d->running, "url")));
		return;
	}
	if (http_listen(cfg->listen_host, (int)cfg->listen_port, &fd, &port, &e) == E_OK) {
		(void)close(fd);
		doctor_add(d, "port", true, "%s:%lld is free", cfg->listen_host, (long long)cfg->listen_port);
		return;
	}
	k = doctor_add(d, "port", false, "%.250s", e.what);
	doctor_mend(k, "choose another: set listen_port in %s", cfg->config_path);
}

static const char *cgroup_text(void)
{
	AUTO_BUF text = BUF_MAX(4096);

	if (!file_read("/sys/fs/cgroup/cgroup.controllers", &text, NULL))
		return slice_find(buf_slice(&text), SLICE("memory")) >= 0 ? "v2" : "v2 without memory limits";
	return file_exists("/sys/fs/cgroup/memory") ? "v1" : "none: a job's limits of memory are kept by its process limits";
}

void doctor_machine(struct doctor *d)
{
	check_port(d);
	doctor_add(d, "gpu", true, "%s", file_exists("/dev/nvidia0") ? "NVIDIA" : "none");
	doctor_add(d, "docker", true, "%s", has_program("docker") ? "docker" : has_program("podman") ? "podman" : "none");
	doctor_add(d, "sandbox", true, "%s", has_program("bwrap") ? "bubblewrap" : "none");
	doctor_add(d, "cgroup", true, "%s", cgroup_text());
}

/* ---- the service ---- */

void doctor_service(struct doctor *d)
{
	struct service s = { 0 };
	AUTO_BUF path = BUF_MAX(4096);
	struct check *k;
	struct err e;

	if (service_open(d->cfg, SERVICE_SYSTEMD, false, &s, &e))
		return;
	bool is_installed = file_exists(s.file);

	if (!is_installed) {
		k = doctor_add(d, "service", true, d->running ? "not installed; a node runs all the same" : "not installed");
		doctor_mend(k, "mswarm node install --api-key-stdin");
	} else {
		k = doctor_add(d, "service", d->running != NULL, d->running ? "installed, and a node runs" : "installed, but no node runs");
		if (!k->is_ok)
			doctor_mend(k, "mswarm node start; then mswarm node logs --error");
		if (!buf_addf(&path, NULL, "/var/lib/systemd/linger/%s", s.user)) {
			k = doctor_add(d, "linger", file_exists(buf_cstr(&path)), file_exists(buf_cstr(&path)) ? "on" : "off: the node stops at logout");
			if (!k->is_ok)
				doctor_mend(k, "loginctl enable-linger %s", s.user);
		}
	}
	service_close(&s);
}
