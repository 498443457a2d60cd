/* Bodies of artifacts and how one is shown. See artifact.h. Source: direct-api.md 2.11, 3.10, 4.9. */
#include "jobs/artifact.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/jobs.h"

#include <stdio.h>

/* ---- save ---- */

static bool is_at_work(enum job_state s)
{
	return s == JOB_SCHEDULED || s == JOB_RUNNING || s == JOB_RETRYING;
}

/* Files must not be planted among what a job is writing (weakness W17). */
static enum errc check_job(struct store_tx *t, const struct artifact_save *s, struct err *e)
{
	AUTO_JOB_ROW j = { 0 };
	enum errc rc;

	if (!slice_starts_with(slice_str(s->row.path), SLICE("outputs/")))
		return E_OK;
	rc = jobs_find_tx(t, slice_str(s->job_id), &j, e);
	if (rc == E_JOB_NOT_FOUND)
		return E_OK;
	if (!rc && is_at_work(j.state))
		rc = err_set(e, E_BAD_REQUEST, "artifact_upload_outputs_of_a_running_job");
	return rc;
}

/* What stands at its path: nothing, an upload that was never ended (it gives way), or something. */
static enum errc check_target(struct store_tx *t, struct artifact_save *s, struct err *e)
{
	struct slice path = slice_str(s->row.path);
	AUTO_ARTIFACT old = { 0 };
	AUTO_ARTIFACT output = { 0 };
	bool has_old = false, has_output = false;
	enum errc rc = artifacts_find_tx(t, s->row.space_key, false, path, &old, &has_old, e);

	if (!rc && slice_starts_with(path, SLICE("outputs/")))
		rc = artifacts_find_tx(t, s->row.space_key, true, slice_from(path, 8), &output, &has_output, e);
	if (rc)
		return rc;
	if (has_output || (has_old && old.sha256[0]))
		return err_set(e, E_CONFLICT, "artifact_upload_target_exists");
	if (!has_old)
		return E_OK;
	s->gone.v[s->gone.n++] = old.key;
	return artifacts_drop_tx(t, &old, e);
}

static enum errc save(struct store_tx *t, struct store_job *job, struct err *e)
{
	struct artifact_save *s = CONTAINER_OF(job, struct artifact_save, job);
	int64_t now_ms = clock_wall_ms();
	AUTO_BUF label = BUF_MAX(JOB_ID_MAX + 64);
	enum errc rc = artifact_label(slice_str(s->job_id), &label, e);

	s->gone.n = 0;
	buf_clear(&s->label);
	if (!rc)
		rc = check_job(t, s, e);
	if (!rc)
		rc = spaces_need_tx(t, slice_str(s->job_id), buf_slice(&label), now_ms, &s->row.space_key, e);
	if (!rc)
		rc = spaces_label_tx(t, s->row.space_key, &s->label, e);
	if (!rc && s->is_known)
		return artifacts_grow_tx(t, &s->row, e);
	if (!rc)
		rc = check_target(t, s, e);
	s->row.made_wall_ms = now_ms;
	return rc ? rc : artifacts_insert_tx(t, &s->row, e);
}

void artifact_save_init(struct artifact_save *s)
{
	*s = (struct artifact_save){ .job = { .name = "artifact.save", .body = save }, .row = { .wanted_bytes = -1 },
				     .label = BUF_MAX(JOB_ID_MAX + 64) };
}

void artifact_save_done(struct artifact_save *s)
{
	mem_free(s->job_id);
	s->job_id = NULL;
	artifact_row_done(&s->row);
	buf_done(&s->label);
}

/* ---- drop ---- */

static enum errc drop(struct store_tx *t, struct store_job *job, struct err *e)
{
	struct artifact_drop *d = CONTAINER_OF(job, struct artifact_drop, job);
	AUTO_ARTIFACT a = { 0 };
	enum errc rc;

	d->gone.n = 0;
	rc = artifacts_named_tx(t, slice_str(d->job_id), slice_str(d->path), &a, e);
	if (!rc)
		rc = artifacts_drop_tx(t, &a, e);
	if (!rc)
		d->gone.v[d->gone.n++] = a.key;
	return rc;
}

void artifact_drop_init(struct artifact_drop *d)
{
	*d = (struct artifact_drop){ .job = { .name = "artifact.drop", .body = drop } };
}

void artifact_drop_done(struct artifact_drop *d)
{
	mem_free(d->job_id);
	mem_free(d->path);
	d->job_id = d->path = NULL;
}

/* ---- outputs ---- */

enum errc artifact_outs_add(struct artifact_outs *o, struct artifact_row *take_row, struct err *e)
{
	if (o->n == o->cap) {
		size_t cap = o->cap ? 2 * o->cap : 16;
		struct artifact_row *v = mem_realloc(o->v, cap * sizeof(*v));

		if (!v) {
			artifact_row_done(take_row);
			return err_set(e, E_NO_MEMORY, "no memory for an artifact");
		}
		o->v = v;
		o->cap = cap;
	}
	o->v[o->n++] = *take_row;
	*take_row = (struct artifact_row){ 0 };
	return E_OK;
}

void artifact_outs_done(struct artifact_outs *o)
{
	for (size_t i = 0; i < o->n; i++)
		artifact_row_done(&o->v[i]);
	mem_free(o->v);
	*o = (struct artifact_outs){ 0 };
}

/* A job of the other kind with the same id may have left a file of that name: the newer one stands. */
static enum errc replace(struct store_tx *t, const struct artifact_row *a, struct artifact_keys *gone, struct err *e)
{
	AUTO_ARTIFACT old = { 0 };
	bool is_found = false;
	enum errc rc = artifacts_find_tx(t, a->space_key, true, slice_str(a->path), &old, &is_found, e);

	if (!rc && is_found)
		rc = artifacts_drop_tx(t, &old, e);
	if (!rc && is_found && gone->n < ARTIFACT_KEYS_MAX)
		gone->v[gone->n++] = old.key;
	return rc ? rc : artifacts_insert_tx(t, a, e);
}

enum errc artifact_outs_tx(struct store_tx *t, const struct job_row *j, struct artifact_outs *o, struct err *e)
{
	AUTO_BUF label = BUF_MAX(JOB_ID_MAX + 64);
	int64_t now_ms = clock_wall_ms(), space = 0;
	struct artifact_keys rest;
	bool any = true;
	enum errc rc;

	o->gone.n = 0;
	rc = artifact_label(slice_str(j->job_id), &label, e);
	if (!rc)
		rc = spaces_need_tx(t, slice_str(j->job_id), buf_slice(&label), now_ms, &space, e);
	if (!rc)
		rc = spaces_own_tx(t, space, slice_str(j->tenant_id), e);
	if (!rc)
		rc = artifacts_drop_outputs_tx(t, j->key, &o->gone, &any, e);
	while (!rc && any) {                   /* beyond what the list takes: left for the sweep at the next start */
		rest.n = 0;
		rc = artifacts_drop_outputs_tx(t, j->key, &rest, &any, e);
	}
	for (size_t i = 0; !rc && i < o->n; i++) {
		o->v[i].space_key = space;
		o->v[i].job_key = j->key;
		rc = replace(t, &o->v[i], &o->gone, e);
	}
	return rc;
}

/* ---- shown ---- */

static enum errc id_of(const char *kind, const char *hex, char **ret, struct err *e)
{
	char text[40];

	snprintf(text, sizeof(text), "%s_%.16s", kind, hex);
	*ret = mem_strdup(text);
	return *ret ? E_OK : err_set(e, E_NO_MEMORY, "no memory");
}

enum errc artifact_upload_id(const char *sha256, char **ret, struct err *e)
{
	return id_of("upload", sha256, ret, e);
}

enum errc artifact_output_id(const char *job_id, const char *path, char **ret, struct err *e)
{
	AUTO_BUF text = BUF_MAX(JOB_ID_MAX + ARTIFACT_PATH_MAX + 16);
	uint8_t sum[SHA256_LEN];
	char hex[SHA256_HEX_LEN];
	enum errc rc = buf_addf(&text, e, "%s:%s", job_id, path);

	if (rc)
		return rc;
	crypto_sha256(buf_slice(&text), sum);
	crypto_hex(sum, sizeof(sum), hex);
	return id_of("output", hex, ret, e);
}

static void words(struct jw *w, const char *key, const char *const *v, size_t n)
{
	jw_arr(w, key);
	for (size_t i = 0; i < n; i++)
		jw_str(w, NULL, v[i]);
	jw_end(w);
}

static void access_json(struct jw *w, bool is_tenant)
{
	static const char *const owner[] = { "runner", "owner" };
	static const char *const tenant[] = { "runner", "tenant", "gateway" };
	static const char *const gateway[] = { "runner", "gateway" };

	jw_obj(w, "access");
	jw_str(w, "visibility", is_tenant ? "tenant-scoped" : "owner-local");
	words(w, "read_by", is_tenant ? tenant : owner, is_tenant ? 3 : 2);
	words(w, "write_by", is_tenant ? gateway : owner, 2);
	jw_end(w);
	jw_obj(w, "retention");
	jw_i64(w, "retain_for_seconds", ARTIFACT_RETAIN_S);
	jw_end(w);
}

static void uri_json(struct jw *w, const char *key, struct slice label, const char *path)
{
	AUTO_BUF text = BUF_MAX(JOB_ID_MAX + ARTIFACT_PATH_MAX + 64);
	struct err ignored;

	(void)!buf_addf(&text, &ignored, "artifact://local/" SLICE_FMT "%s%s", SLICE_ARG(label), path ? "/" : "", path ? path : "");
	jw_slice(w, key, buf_slice(&text));
}

void artifact_upload_json(struct jw *w, const char *key, const struct artifact_row *a, struct slice label)
{
	jw_obj(w, key);
	jw_str(w, "id", a->id);
	uri_json(w, "uri", label, a->path);
	jw_str(w, "name", a->name);
	if (*a->content_type)
		jw_str(w, "content_type", a->content_type);
	jw_i64(w, "size_bytes", a->size_bytes);
	jw_str(w, "sha256", a->sha256);
	jw_str(w, "scope", "input");
	access_json(w, false);
	jw_end(w);
}

void artifact_output_json(struct jw *w, const char *key, const char *job_id, const struct artifact_row *a, struct slice label, bool is_tenant)
{
	char when[CLOCK_ISO_LEN];

	clock_iso(a->made_wall_ms, when);
	jw_obj(w, key);
	jw_str(w, "id", a->id);
	jw_str(w, "job_id", job_id);
	jw_str(w, "name", a->name);
	uri_json(w, "uri", label, a->path);
	if (*a->content_type)
		jw_str(w, "content_type", a->content_type);
	jw_i64(w, "size_bytes", a->size_bytes);
	jw_str(w, "sha256", a->sha256);
	jw_str(w, "scope", "output");
	jw_str(w, "registered_at", when);
	jw_obj(w, "store");
	jw_str(w, "backend", "local-dev");
	uri_json(w, "root_uri", label, NULL);
	jw_end(w);
	access_json(w, is_tenant);
	jw_end(w);
}
