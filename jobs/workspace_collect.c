/*
 * Outputs of an attempt: its declared files are hashed and synced where they lie, then linked among the artifacts. The work
 * directory stays until the rows are committed, so a crash in between collects them again. See workspace.h. On the pool.
 */
#include "jobs/workspace.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/jobs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BLOCK (1u << 20)
#define DEPTH_MAX 32

struct collect {
	const struct workspace *w;
	const char *job_id;
	struct collected *out;
	int outputs_fd;
	char *block;
	int64_t file_max, total_max, total;
	/* the output that is being looked at */
	struct slice name, declared, content_type;
};

static enum errc hash(struct collect *c, int fd, int64_t size, char sha256[SHA256_HEX_LEN], struct err *e)
{
	struct sha256 s = { 0 };
	uint8_t sum[SHA256_LEN];
	enum errc rc = sha256_begin(&s, e);

	for (int64_t at = 0; !rc && at < size;) {
		ssize_t n = pread(fd, c->block, READ_BLOCK, (off_t)at);

		if (n <= 0)
			rc = err_set(e, E_BAD_REQUEST, "output_changed_while_it_was_read");
		else
			sha256_add(&s, slice_of(c->block, (size_t)n));
		at += n > 0 ? n : 0;
	}
	if (rc) {
		sha256_done(&s);
		return rc;
	}
	sha256_end(&s, sum);
	crypto_hex(sum, sizeof(sum), sha256);
	return E_OK;
}

static enum errc set(char **at, struct slice value, struct err *e)
{
	*at = slice_dup(value);
	return *at ? E_OK : err_set(e, E_NO_MEMORY, "no memory for an artifact");
}

static enum errc make_row(struct collect *c, const char *path, int64_t key, int64_t size, const char *sha256, struct err *e)
{
	AUTO_ARTIFACT a = { .key = key, .is_output = true, .size_bytes = size, .wanted_bytes = -1, .made_wall_ms = clock_wall_ms() };
	AUTO_BUF name = BUF_MAX(2 * ARTIFACT_PATH_MAX + (1u << 20));
	enum errc rc = buf_add_slice(&name, c->name, e);

	memcpy(a.sha256, sha256, sizeof(a.sha256));
	if (!rc && !slice_eq(slice_str(path), c->declared))
		rc = buf_addf(&name, e, "/%s", path);
	if (!rc)
		rc = set(&a.name, buf_slice(&name), e);
	if (!rc)
		rc = set(&a.path, slice_str(path), e);
	if (!rc)
		rc = set(&a.content_type, c->content_type, e);
	if (!rc)
		rc = artifact_output_id(c->job_id, path, &a.id, e);
	return rc ? rc : artifact_outs_add(&c->out->outs, &a, e);
}

static bool is_known(const struct collect *c, const char *path)
{
	for (size_t i = 0; i < c->out->outs.n; i++)
		if (strcmp(c->out->outs.v[i].path, path) == 0)
			return true;
	return false;
}

static enum errc keep_file(struct collect *c, int fd, const char *path, int64_t size, struct err *e)
{
	char sha256[SHA256_HEX_LEN];
	int64_t key = 0;
	enum errc rc;

	if (size > c->file_max)
		return err_set(e, E_BAD_REQUEST, "output_artifact_size_limit_exceeded");
	c->total += size;
	if (c->total > c->total_max)
		return err_set(e, E_BAD_REQUEST, "output_size_limit_exceeded");
	if (c->out->outs.n == OUTPUT_FILES_MAX)
		return err_set(e, E_BAD_REQUEST, "output_count_limit_exceeded");
	rc = hash(c, fd, size, sha256, e);
	if (!rc && fchmod(fd, 0600))
		rc = err_set_os(e, E_IO, errno, "artifacts: an output");
	if (!rc)
		rc = artifact_files_adopt(c->w->files, fd, &key, e);
	if (!rc)
		rc = artifact_files_sync(c->w->files, key, fd, e);
	return rc ? rc : make_row(c, path, key, size, sha256, e);
}

static enum errc walk(struct collect *c, int fd, const char *path, int depth, struct err *e);

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		mem_free(v[i]);
	mem_free(v);
}

/* Sorted, so that the same files always make the same list. */
static enum errc list_dir(int fd, char ***ret, size_t *ret_n, struct err *e)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	char **v = NULL;
	size_t n = 0, cap = 0;
	enum errc rc = d ? E_OK : err_set_os(e, E_IO, errno, "artifacts: an output");

	if (!d && copy >= 0)
		close(copy);
	for (struct dirent *entry; !rc && d && (entry = readdir(d));) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (n == cap) {
			char **more = mem_realloc(v, (cap = cap ? 2 * cap : 32) * sizeof(*v));

			if (!more) {
				rc = err_set(e, E_NO_MEMORY, "no memory for outputs");
				break;
			}
			v = more;
		}
		v[n] = mem_strdup(entry->d_name);
		if (!v[n])
			rc = err_set(e, E_NO_MEMORY, "no memory for outputs");
		else if (++n > OUTPUT_FILES_MAX)
			rc = err_set(e, E_BAD_REQUEST, "output_count_limit_exceeded");
	}
	if (d)
		closedir(d);
	if (rc) {
		free_names(v, n);
		return rc;
	}
	if (n)
		qsort(v, n, sizeof(*v), by_name);
	*ret = v;
	*ret_n = n;
	return E_OK;
}

/* O_NONBLOCK: a job may have left a pipe, which nobody will ever open at its other end. */
static enum errc visit(struct collect *c, int dir_fd, const char *name, const char *path, int depth, struct err *e)
{
	AUTO_FD fd = -1;
	enum errc rc = open_beneath(dir_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, &fd, e);

	if (rc == E_FORBIDDEN)
		return err_set(e, E_BAD_REQUEST, "output_symlink_not_allowed");
	if (rc == E_IO)                        /* a socket cannot be opened */
		return err_set(e, E_BAD_REQUEST, "output_entry_type_not_allowed");
	return rc ? rc : walk(c, fd, path, depth, e);
}

static enum errc walk_dir(struct collect *c, int fd, const char *path, int depth, struct err *e)
{
	char **names = NULL;
	size_t n = 0;
	enum errc rc = list_dir(fd, &names, &n, e);

	for (size_t i = 0; !rc && i < n; i++) {
		AUTO_BUF inner = BUF_MAX(ARTIFACT_PATH_MAX);

		if (buf_addf(&inner, e, "%s/%s", path, names[i]) || !buf_cstr(&inner) || !slice_is_utf8(buf_slice(&inner)))
			rc = err_set(e, E_BAD_REQUEST, "output_path_not_allowed");
		else
			rc = visit(c, fd, names[i], buf_cstr(&inner), depth + 1, e);
	}
	free_names(names, n);
	return rc;
}

static enum errc walk(struct collect *c, int fd, const char *path, int depth, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_set_os(e, E_IO, errno, "artifacts: an output");
	if (S_ISREG(st.st_mode))
		return is_known(c, path) ? E_OK : keep_file(c, fd, path, (int64_t)st.st_size, e);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, E_BAD_REQUEST, "output_entry_type_not_allowed");
	if (depth > DEPTH_MAX)
		return err_set(e, E_BAD_REQUEST, "output_directory_too_deep");
	return walk_dir(c, fd, path, depth, e);
}

/* A required directory without a file in it is as good as none (weakness 26). */
static enum errc collect_one(struct collect *c, const struct json *output, struct err *e)
{
	AUTO_BUF path = BUF_MAX(ARTIFACT_PATH_MAX + 1);
	size_t before = c->out->outs.n;
	enum errc rc = artifact_path(json_slice(json_get(output, "path")), "output_path", &path, e);

	if (rc)
		return rc;
	if (!buf_cstr(&path))
		return err_set(e, E_NO_MEMORY, "no memory");
	c->name = json_slice(json_get(output, "name"));
	c->content_type = json_slice(json_get(output, "content_type"));
	c->declared = buf_slice(&path);
	rc = visit(c, c->outputs_fd, buf_cstr(&path), buf_cstr(&path), 0, e);
	if (rc && rc != E_NOT_FOUND)
		return rc;
	if (c->out->outs.n == before && !is_known(c, buf_cstr(&path)) && json_is_true(json_get(output, "required")) && !c->out->lacks[0])
		snprintf(c->out->lacks, sizeof(c->out->lacks), "required_output_missing: %.200s", buf_cstr(&path));
	return E_OK;
}

static int64_t number_of(const struct json *v)
{
	int64_t n = 0;

	return json_i64(v, &n) && n > 0 ? n : 0;
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* The request may lower the owner's limits, never raise them (weakness 20). */
static void set_limits(struct collect *c, const struct json *job, int64_t held)
{
	const struct artifact_limits *own = artifact_files_limits(c->w->files);
	int64_t artifact = number_of(json_get(json_get(job, "policy"), "max_artifact_bytes"));
	int64_t output = number_of(json_get(json_get(job, "limits"), "max_output_bytes"));

	c->file_max = artifact && output ? least(artifact, output) : artifact ? artifact : output ? output : ARTIFACT_DEFAULT_MAX;
	c->file_max = least(c->file_max, own->max);
	c->total_max = output ? output : ARTIFACT_DEFAULT_MAX;
	if (own->quota)
		c->total_max = least(c->total_max, own->quota > held ? own->quota - held : 0);
}

/* The label that uris have is given by the store: made now, so that events and result can say it. */
struct space_job {
	struct store_job job;
	const char *job_id;
	struct buf *label;
};

static enum errc need_space(struct store_tx *t, struct store_job *job, struct err *e)
{
	struct space_job *s = CONTAINER_OF(job, struct space_job, job);
	AUTO_BUF wanted = BUF_MAX(JOB_ID_MAX + 64);
	int64_t key = 0;
	enum errc rc = artifact_label(slice_str(s->job_id), &wanted, e);

	buf_clear(s->label);
	if (!rc)
		rc = spaces_need_tx(t, slice_str(s->job_id), buf_slice(&wanted), clock_wall_ms(), &key, e);
	return rc ? rc : spaces_label_tx(t, key, s->label, e);
}

enum errc workspace_collect(const struct workspace *w, struct store *s, const char *job_id, const struct json *job, int64_t held, struct collected *ret, struct err *e)
{
	struct collect c = { .w = w, .job_id = job_id, .out = ret };
	AUTO_FREE char *block = mem_alloc(READ_BLOCK);
	AUTO_FD work = -1;
	AUTO_FD outputs = -1;
	enum errc rc = block ? artifact_work_open(w->files, w->job_key, w->attempt, &work, e) : err_set(e, E_NO_MEMORY, "no memory");

	ret->label = BUF_MAX(JOB_ID_MAX + 64);
	c.block = block;
	set_limits(&c, job, held);
	if (!rc)
		rc = open_beneath(work, "outputs", O_RDONLY | O_DIRECTORY, 0, &outputs, e);
	c.outputs_fd = outputs;
	for (const struct json *output = json_first(json_get(job, "outputs")); !rc && output; output = json_next(output))
		rc = collect_one(&c, output, e);
	if (!rc && ret->outs.n) {
		struct space_job space = { .job = { .name = "artifact.space", .body = need_space }, .job_id = job_id, .label = &ret->label };

		rc = store_run(s, &space.job, e);
	}
	if (rc)
		artifact_outs_done(&ret->outs);
	return rc;
}

void collected_done(struct collected *c)
{
	artifact_outs_done(&c->outs);
	buf_done(&c->label);
}
