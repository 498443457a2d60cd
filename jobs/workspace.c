/* Inputs of an attempt. See workspace.h; outputs are in workspace_collect.c. Called by run.c. */
#include "jobs/workspace.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BLOCK (1u << 20)

bool workspace_is_needed(const struct json *job)
{
	return json_count(json_get(job, "inputs")) || json_count(json_get(job, "outputs"));
}

void workspace_done(struct workspace *w)
{
	for (size_t i = 0; i < w->n; i++)
		mem_free(w->inputs[i].target);
	mem_free(w->inputs);
	w->inputs = NULL;
	w->n = 0;
}

/* ---- plan ---- */

/* "name" with every strange character as "_", when nothing says where to. */
static enum errc default_target(const struct json *input, size_t index, struct buf *out, struct err *e)
{
	struct slice name = json_slice(json_get(input, "name"));
	AUTO_BUF text = BUF_MAX(ARTIFACT_PATH_MAX);
	enum errc rc = E_OK;

	for (size_t i = 0; !rc && i < name.n; i++) {
		char c = name.p[i];
		bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';

		if (((unsigned char)c & 0xc0) != 0x80)
			rc = buf_add(&text, is_plain ? &c : "_", 1, e);
	}
	if (!rc && !text.n)
		rc = buf_addf(&text, e, "input-%zu", index);
	return rc ? rc : artifact_path(buf_slice(&text), "artifact_name", out, e);
}

static enum errc find_target(const struct workspace *w, const struct json *input, char **ret, struct err *e)
{
	const struct json *mount = json_get(input, "mount_path");
	AUTO_BUF path = BUF_MAX(ARTIFACT_PATH_MAX + 1);
	enum errc rc = json_is_absent(mount) ? default_target(input, w->n, &path, e)
					     : artifact_path(json_slice(mount), "input_mount_path", &path, e);

	if (rc)
		return rc;
	for (size_t i = 0; i < w->n; i++)
		if (slice_eq(slice_str(w->inputs[i].target), buf_slice(&path)))
			return err_set(e, E_BAD_REQUEST, "input_mount_path_conflict");
	*ret = slice_dup(buf_slice(&path));
	return *ret ? E_OK : err_set(e, E_NO_MEMORY, "no memory for an input");
}

static int64_t number_of(const struct json *v)
{
	int64_t n = 0;

	return json_i64(v, &n) && n > 0 ? n : 0;
}

static int64_t input_max(const struct workspace *w, const struct json *job)
{
	int64_t asked = number_of(json_get(json_get(job, "policy"), "max_artifact_bytes")), most = artifact_files_limits(w->files)->max;

	asked = asked ? asked : ARTIFACT_DEFAULT_MAX;
	return asked < most ? asked : most;
}

/* E_ARTIFACT_NOT_FOUND: no such file, or none of this node's. */
static enum errc find_file(struct store_reader *r, struct slice uri, struct slice tenant_id, struct artifact_row *ret, struct err *e)
{
	AUTO_BUF label = BUF_MAX(65536);
	AUTO_BUF path = BUF_MAX(ARTIFACT_PATH_MAX + 1);

	if (!artifact_uri_parse(uri, &label, &path))
		return err_set(e, E_ARTIFACT_NOT_FOUND, "no artifact of this node");
	return artifacts_resolve(r, buf_slice(&label), buf_slice(&path), tenant_id, ret, e);
}

static enum errc check_file(const struct artifact_row *a, const struct json *wanted, int64_t max, struct err *e)
{
	struct slice sha256 = json_slice(json_get(wanted, "sha256"));
	int64_t size = number_of(json_get(wanted, "size_bytes"));

	if (a->size_bytes > max || size > max)
		return err_set(e, E_BAD_REQUEST, "input_artifact_size_limit_exceeded");
	if (size && size != a->size_bytes)
		return err_set(e, E_BAD_REQUEST, "input_artifact_size_mismatch");
	if (sha256.n && !slice_eq(sha256, slice_str(a->sha256)))
		return err_set(e, E_BAD_REQUEST, "input_artifact_checksum_mismatch");
	return E_OK;
}

static enum errc plan_one(struct workspace *w, struct store_reader *r, const struct json *job, const struct json *input, struct slice tenant_id, struct err *e)
{
	const struct json *wanted = json_get(input, "artifact");
	struct work_input *in = &w->inputs[w->n];
	AUTO_ARTIFACT a = { 0 };
	enum errc rc = find_target(w, input, &in->target, e);

	if (rc)
		return rc;
	rc = find_file(r, json_slice(json_get(wanted, "uri")), tenant_id, &a, e);
	if (!rc)
		rc = check_file(&a, wanted, input_max(w, job), e);
	if (!rc) {
		in->key = a.key;
		in->size_bytes = a.size_bytes;
		w->n++;
		return E_OK;
	}
	mem_free(in->target);
	if (rc != E_ARTIFACT_NOT_FOUND)
		return rc;
	return json_is_true(json_get(input, "required")) ? err_set(e, E_BAD_REQUEST, "input_artifact_unavailable") : E_OK;
}

enum errc workspace_plan(struct workspace *w, struct store_reader *r, const struct json *job, struct slice tenant_id, struct err *e)
{
	const struct json *list = json_get(job, "inputs");
	size_t n = json_count(list);
	enum errc rc = E_OK;

	if (!n)
		return E_OK;
	w->inputs = mem_calloc(n, sizeof(*w->inputs));
	if (!w->inputs)
		return err_set(e, E_NO_MEMORY, "no memory for %zu inputs", n);
	for (const struct json *input = json_first(list); !rc && input; input = json_next(input))
		rc = plan_one(w, r, job, input, tenant_id, e);
	return rc;
}

/* ---- stage ---- */

/* The directories above a target, made where they are missing. */
static enum errc make_parents(int inputs_fd, const char *target, struct err *e)
{
	AUTO_FREE char *path = mem_strdup(target);

	if (!path)
		return err_set(e, E_NO_MEMORY, "no memory");
	for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdirat(inputs_fd, path, 0700) && errno != EEXIST)
			return errno == ENOTDIR ? err_set(e, E_BAD_REQUEST, "input_mount_path_conflict")
						: err_set_os(e, errno == ENOSPC ? E_NO_SPACE : E_IO, errno, "artifacts: an input");
		*slash = '/';
	}
	return E_OK;
}

/* Shared blocks where the file system can, else within the kernel, else by hand. */
static enum errc copy(int from, int to, int64_t size, struct err *e)
{
	AUTO_FREE char *block = NULL;
	int64_t at = 0;

	if (ioctl(to, FICLONE, from) == 0)
		return E_OK;
	while (at < size) {
		ssize_t n = copy_file_range(from, NULL, to, NULL, (size_t)(size - at), 0);

		if (n <= 0)
			break;
		at += n;
	}
	while (at < size) {
		ssize_t n;

		block = block ? block : mem_alloc(COPY_BLOCK);
		n = block ? pread(from, block, COPY_BLOCK, (off_t)at) : -1;
		if (n <= 0)
			return err_set(e, E_IO, "artifacts: an input of %lld bytes ends at %lld", (long long)size, (long long)at);
		enum errc rc = artifact_write(to, block, (size_t)n, at, e);

		if (rc)
			return rc;
		at += n;
	}
	return E_OK;
}

static enum errc place(const struct workspace *w, int inputs_fd, const struct work_input *in, struct err *e)
{
	AUTO_FD from = -1;
	AUTO_FD to = -1;
	enum errc rc = artifact_files_get(w->files, in->key, false, &from, e);

	if (rc == E_ARTIFACT_NOT_FOUND)
		return err_set(e, E_BAD_REQUEST, "input_artifact_unavailable");
	if (!rc)
		rc = make_parents(inputs_fd, in->target, e);
	if (rc)
		return rc;
	rc = open_beneath(inputs_fd, in->target, O_WRONLY | O_CREAT | O_EXCL, 0400, &to, e);
	if (rc)
		return rc == E_NO_SPACE ? rc : err_set(e, E_BAD_REQUEST, "input_mount_path_conflict");
	return copy(from, to, in->size_bytes, e);
}

enum errc workspace_stage(struct workspace *w, struct err *e)
{
	AUTO_FD fd = -1;
	AUTO_FD inputs = -1;
	int64_t bytes = 0;
	enum errc rc = artifact_work_make(w->files, w->job_key, w->attempt, &fd, e);

	for (size_t i = 0; i < w->n; i++)
		bytes += w->inputs[i].size_bytes;
	if (!rc)
		rc = open_beneath(fd, "inputs", O_RDONLY | O_DIRECTORY, 0, &inputs, e);
	if (!rc)
		rc = artifact_files_reserve(w->files, 0, bytes, e);
	if (rc)
		return rc;
	for (size_t i = 0; !rc && i < w->n; i++)
		rc = place(w, inputs, &w->inputs[i], e);
	artifact_files_give_back(w->files, bytes);
	return rc;
}
