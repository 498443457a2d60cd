/*
 * The signed capability payload; see capability.h. Called by heartbeat.c. Members stand in the order of gateway.md 5: the MAC
 * is over the bytes, and a verifier writes them anew in the order in which they came.
 */
#include "gateway/capability.h"

#include "base/clock.h"
#include "base/crypto.h"
#include "base/mem.h"
#include "jobs/request.h"
#include "jobs/runner.h"

#include <stdio.h>
#include <stdlib.h>

#define PAYLOAD_MAX (1u << 20)
#define NAMES_MAX 64
#define TRUST "owner-local"

/* ---- sorted names ---- */

struct name_set {
	char v[NAMES_MAX][64];
	size_t n;
};

static void add(struct name_set *s, const char *prefix, const char *name)
{
	if (s->n < NAMES_MAX)
		snprintf(s->v[s->n++], sizeof(s->v[0]), "%s%s", prefix, name);
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void seal(struct name_set *s)
{
	size_t kept = 0;

	qsort(s->v, s->n, sizeof(s->v[0]), by_bytes);
	for (size_t i = 0; i < s->n; i++)
		if (!kept || strcmp(s->v[i], s->v[kept - 1]) != 0)
			memmove(s->v[kept++], s->v[i], sizeof(s->v[0]));
	s->n = kept;
}

static void write_set(struct jw *w, const char *key, const struct name_set *s)
{
	jw_arr(w, key);
	for (size_t i = 0; i < s->n; i++)
		jw_str(w, NULL, s->v[i]);
	jw_end(w);
}

static bool has(const struct name_set *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->v[i], name) == 0)
			return true;
	return false;
}

/* ---- what is there ---- */

struct view {
	const struct capability_in *in;
	const struct capabilities *caps;
	struct name_set names, job_types, trust, vendors, cuda;
	bool offers[NAMES_MAX];            /* by runner */
	char captured[CLOCK_ISO_LEN], snapshot_id[24];
};

static bool is_available(const struct capability_software *s)
{
	return s->status == CAPABILITY_AVAILABLE;
}

static const char *status_name(enum capability_status s)
{
	static const char *const names[] = {
#define X(id, name) [CAPABILITY_##id] = name,
		CAPABILITY_STATUSES(X)
#undef X
	};

	return names[s];
}

static void add_hardware(struct view *v)
{
	const struct capabilities *c = v->caps;

	for (size_t i = 0; i < c->device_count; i++) {
		add(&v->vendors, "", c->devices[i].vendor);
		if (c->devices[i].cuda_version[0])
			add(&v->cuda, "", c->devices[i].cuda_version);
	}
	seal(&v->vendors);
	seal(&v->cuda);
	if (c->gpu_status == CAPABILITY_AVAILABLE && c->device_count) {
		add(&v->names, "gpu", "");
		for (size_t i = 0; i < v->vendors.n; i++)
			add(&v->names, "gpu.", v->vendors.v[i]);
		add(&v->names, "cuda", "");    /* every device that can be found has it */
	}
	if (is_available(&c->docker))
		add(&v->names, "software.docker", "");
	if (is_available(&c->docker_nvidia))
		add(&v->names, "docker.nvidia", "");
	if (is_available(&c->blender))
		add(&v->names, "software.blender", "");
	if (is_available(&c->ffmpeg))
		add(&v->names, "software.ffmpeg", "");
}

static void add_offers(struct view *v)
{
	for (size_t i = 0; v->in->is_generic_on && i < v->in->runner_count && i < NAMES_MAX; i++) {
		const struct capability_runner *r = &v->in->runners[i];

		v->offers[i] = true;
		for (size_t k = 0; k < ARRAY_LEN(r->required) && r->required[k]; k++)
			v->offers[i] = v->offers[i] && has(&v->names, r->required[k]);
		if (!v->offers[i])
			continue;
		add(&v->job_types, "", r->job_type);
		add(&v->names, "job_type:", r->job_type);
		add(&v->trust, "", TRUST);
	}
	if (v->in->is_generic_on)
		add(&v->names, "generic_jobs", "");
	seal(&v->job_types);
	seal(&v->trust);
	seal(&v->names);
}

/* The largest device's memory; without details the lower bound of its tier. 0: not told. */
static double shown_vram(const struct view *v)
{
	double gb = v->caps->max_vram_gb;

	if (v->in->shows_details)
		return gb > 0 ? gb : 0;
	return gb >= 32 ? 32 : gb >= 16 ? 16 : gb >= 8 ? 8 : 0;
}

static const char *vram_tier(double gb)
{
	return gb <= 0 ? "none" : gb < 8 ? "lt8" : gb < 16 ? "8-15" : gb < 32 ? "16-31" : "32plus";
}

/* ---- the snapshot ---- */

static void text_or_nothing(struct jw *w, const char *key, const char *text, bool is_shown)
{
	if (is_shown && text[0])
		jw_str(w, key, text);
}

static void write_device(struct jw *w, const struct capability_device *d, bool is_shown)
{
	jw_obj(w, NULL);
	jw_str(w, "id", d->id);
	jw_str(w, "vendor", d->vendor);
	text_or_nothing(w, "name", d->name, is_shown);
	if (is_shown && d->vram_gb > 0)
		jw_f64(w, "vram_gb", d->vram_gb);
	text_or_nothing(w, "driver_version", d->driver_version, is_shown);
	text_or_nothing(w, "cuda_version", d->cuda_version, is_shown && d->is_cuda_by_query);
	text_or_nothing(w, "compute_capability", d->compute_capability, is_shown);
	jw_arr(w, "capabilities");
	jw_str(w, NULL, "cuda");
	jw_end(w);
	text_or_nothing(w, "cuda_version", d->cuda_version, is_shown && !d->is_cuda_by_query);
	jw_end(w);
}

static void write_gpu(struct jw *w, const struct view *v)
{
	const struct capabilities *c = v->caps;
	bool is_shown = v->in->shows_details, is_by_query = c->device_count && c->devices[0].is_cuda_by_query;

	jw_obj(w, "gpu");
	jw_str(w, "status", status_name(c->gpu_status));
	jw_i64(w, "count", (int64_t)c->device_count);
	write_set(w, "vendors", &v->vendors);
	jw_arr(w, "devices");
	for (size_t i = 0; i < c->device_count; i++)
		write_device(w, &c->devices[i], is_shown);
	jw_end(w);
	if (is_shown && v->cuda.n && is_by_query)
		write_set(w, "cuda_versions", &v->cuda);
	if (shown_vram(v) > 0)
		jw_f64(w, "max_vram_gb", shown_vram(v));
	if (is_shown && v->cuda.n && !is_by_query)
		write_set(w, "cuda_versions", &v->cuda);
	text_or_nothing(w, "message", c->gpu_message, is_shown);
	jw_end(w);
}

static const struct { const char *name; size_t offset; } software[] = {
	{ "docker", offsetof(struct capabilities, docker) }, { "docker-nvidia", offsetof(struct capabilities, docker_nvidia) },
	{ "blender", offsetof(struct capabilities, blender) }, { "ffmpeg", offsetof(struct capabilities, ffmpeg) },
};

static const struct capability_software *software_at(const struct capabilities *c, size_t i)
{
	return (const struct capability_software *)(const void *)((const char *)c + software[i].offset);
}

static void write_software(struct jw *w, const struct view *v)
{
	jw_obj(w, "software");
	for (size_t i = 0; i < ARRAY_LEN(software); i++) {
		const struct capability_software *s = software_at(v->caps, i);

		jw_obj(w, software[i].name);
		jw_str(w, "name", software[i].name);
		jw_str(w, "status", status_name(s->status));
		text_or_nothing(w, "version", s->version, v->in->shows_details);
		text_or_nothing(w, "message", s->message, v->in->shows_details);
		jw_end(w);
	}
	jw_end(w);
}

static void write_runners(struct jw *w, const struct view *v)
{
	jw_arr(w, "runner_catalog");
	for (size_t i = 0; i < v->in->runner_count && i < NAMES_MAX; i++) {
		const struct capability_runner *r = &v->in->runners[i];

		if (!v->offers[i])
			continue;
		jw_obj(w, NULL);
		jw_str(w, "job_type", r->job_type);
		jw_str(w, "runner", r->name);
		jw_arr(w, "trust_modes");
		jw_str(w, NULL, TRUST);
		jw_end(w);
		jw_arr(w, "required_capabilities");
		for (size_t k = 0; k < ARRAY_LEN(r->required) && r->required[k]; k++)
			jw_str(w, NULL, r->required[k]);
		jw_end(w);
		jw_end(w);
	}
	jw_end(w);
}

static const char *machine_name(void)
{
#if defined(__x86_64__)
	return "x64";
#elif defined(__aarch64__)
	return "arm64";
#elif defined(__arm__)
	return "arm";
#elif defined(__riscv)
	return "riscv64";
#else
	return "unknown";
#endif
}

static void diagnose(struct jw *w, const char *name, enum capability_status status, const char *message, bool is_shown)
{
	if (status == CAPABILITY_AVAILABLE)
		return;
	jw_obj(w, NULL);
	jw_str(w, "name", name);
	jw_str(w, "status", status_name(status));
	text_or_nothing(w, "message", message, is_shown);
	jw_end(w);
}

/* Rows 1 to 11, whose hash is the id; then the id and what stands behind it. */
static enum errc make_snapshot(struct view *v, struct buf *out, struct err *e)
{
	const struct capabilities *c = v->caps;
	struct jw w = JW(out);
	uint8_t sum[SHA256_LEN];
	char hex[SHA256_HEX_LEN];
	bool is_all = c->gpu_status == CAPABILITY_AVAILABLE;
	enum errc rc;

	jw_obj(&w, NULL);
	jw_str(&w, "schema_version", JOB_SCHEMA_VERSION);
	jw_str(&w, "captured_at", v->captured);
	jw_str(&w, "node_id", v->in->node_id);
	jw_str(&w, "platform", "linux");
	jw_str(&w, "arch", machine_name());
	jw_bool(&w, "generic_jobs_enabled", v->in->is_generic_on);
	write_set(&w, "job_types", &v->job_types);
	write_set(&w, "trust_modes", &v->trust);
	write_gpu(&w, v);
	write_software(&w, v);
	write_runners(&w, v);
	jw_end(&w);
	rc = jw_done(&w, e);
	if (rc)
		return rc;
	crypto_sha256(buf_slice(out), sum);
	crypto_hex(sum, sizeof(sum), hex);
	snprintf(v->snapshot_id, sizeof(v->snapshot_id), "caps_%.16s", hex);
	buf_truncate(out, out->n - 1);
	rc = buf_addf(out, e, ",\"snapshot_id\":\"%s\"", v->snapshot_id);
	for (size_t i = 0; i < ARRAY_LEN(software); i++)
		is_all = is_all && is_available(software_at(c, i));
	if (!rc && !is_all) {
		w = JW(out);
		rc = buf_add_str(out, ",\"diagnostics\":", e);
		jw_arr(&w, NULL);
		diagnose(&w, "gpu", c->gpu_status, c->gpu_message, v->in->shows_details);
		for (size_t i = 0; i < ARRAY_LEN(software); i++)
			diagnose(&w, software[i].name, software_at(c, i)->status, software_at(c, i)->message, v->in->shows_details);
		jw_end(&w);
		if (!rc)
			rc = jw_done(&w, e);
	}
	return rc ? rc : buf_add_str(out, "}", e);
}

/* ---- the derived views ---- */

static enum errc make_match(const struct view *v, struct buf *out, struct err *e)
{
	const struct capabilities *c = v->caps;
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "schema_version", JOB_SCHEMA_VERSION);
	jw_str(&w, "snapshot_id", v->snapshot_id);
	jw_str(&w, "node_id", v->in->node_id);
	jw_str(&w, "updated_at", v->captured);
	jw_bool(&w, "generic_jobs_enabled", v->in->is_generic_on);
	write_set(&w, "available_job_types", &v->job_types);
	write_set(&w, "trust_modes", &v->trust);
	jw_obj(&w, "resources");
	jw_i64(&w, "gpu_count", (int64_t)c->device_count);
	write_set(&w, "gpu_vendors", &v->vendors);
	if (shown_vram(v) > 0)
		jw_f64(&w, "max_vram_gb", shown_vram(v));
	jw_bool(&w, "has_cuda", has(&v->names, "cuda"));
	jw_obj(&w, "software");
	jw_bool(&w, "docker_nvidia", is_available(&c->docker_nvidia));
	jw_bool(&w, "blender", is_available(&c->blender));
	jw_bool(&w, "ffmpeg", is_available(&c->ffmpeg));
	jw_end(&w);
	jw_end(&w);
	write_set(&w, "capabilities", &v->names);
	jw_end(&w);
	return jw_done(&w, e);
}

static void project_software(struct jw *w, const char *key, const struct capability_software *s)
{
	jw_obj(w, key);
	jw_bool(w, "available", is_available(s));
	jw_str(w, "status", status_name(s->status));
	jw_end(w);
}

static enum errc make_projection(const struct view *v, struct buf *out, struct err *e)
{
	const struct capabilities *c = v->caps;
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "schema_version", JOB_SCHEMA_VERSION);
	jw_str(&w, "snapshot_id", v->snapshot_id);
	jw_str(&w, "captured_at", v->captured);
	jw_bool(&w, "generic_jobs_enabled", v->in->is_generic_on);
	write_set(&w, "job_types", &v->job_types);
	jw_obj(&w, "accelerators");
	jw_obj(&w, "gpu");
	jw_bool(&w, "available", has(&v->names, "gpu"));
	jw_i64(&w, "count", (int64_t)c->device_count);
	write_set(&w, "vendors", &v->vendors);
	jw_bool(&w, "cuda", has(&v->names, "cuda"));
	jw_str(&w, "vram_tier", vram_tier(c->device_count ? c->max_vram_gb : 0));
	jw_end(&w);
	jw_end(&w);
	jw_obj(&w, "software");
	project_software(&w, "docker_nvidia", &c->docker_nvidia);
	project_software(&w, "blender", &c->blender);
	project_software(&w, "ffmpeg", &c->ffmpeg);
	jw_end(&w);
	write_set(&w, "capabilities", &v->names);
	jw_end(&w);
	return jw_done(&w, e);
}

/* ---- the whole ---- */

struct pieces {
	struct buf snapshot, match, projection;
};

static void pieces_done(struct pieces *p)
{
	buf_done(&p->snapshot);
	buf_done(&p->match);
	buf_done(&p->projection);
}

static enum errc make_unsigned(const struct view *v, const struct pieces *p, struct buf *out, struct err *e)
{
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "schema_version", JOB_SCHEMA_VERSION);
	jw_str(&w, "snapshot_id", v->snapshot_id);
	jw_obj(&w, "private_catalog_entry");
	jw_str(&w, "node_id", v->in->node_id);
	jw_str(&w, "snapshot_id", v->snapshot_id);
	jw_str(&w, "captured_at", v->captured);
	jw_raw(&w, "snapshot", buf_slice(&p->snapshot));
	jw_raw(&w, "scheduler_match", buf_slice(&p->match));
	jw_raw(&w, "public_projection", buf_slice(&p->projection));
	jw_end(&w);
	jw_raw(&w, "scheduler_match", buf_slice(&p->match));
	jw_raw(&w, "public_projection", buf_slice(&p->projection));
	jw_end(&w);
	return jw_done(&w, e);
}

static enum errc sign(const struct capability_in *in, struct buf *payload, struct err *e)
{
	AUTO_BUF value = BUF_MAX(64);
	char signed_at[CLOCK_ISO_LEN];
	uint8_t mac[SHA256_LEN];
	enum errc rc;

	crypto_hmac_sha256(in->key, buf_slice(payload), mac);
	rc = crypto_base64url(slice_of((const char *)mac, sizeof(mac)), &value, e);
	clock_iso(in->signed_wall_ms, signed_at);
	buf_truncate(payload, payload->n - 1);
	return rc ? rc : buf_addf(payload, e, ",\"signature\":{\"alg\":\"HS256\",\"value\":\"" SLICE_FMT "\",\"signed_at\":\"%s\","
				  "\"key_id\":\"self_hosted_runtime_token\"}}", SLICE_ARG(buf_slice(&value)), signed_at);
}

size_t capability_offered(struct capability_runner *out, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < runner_count && n < max; i++)
		out[n++] = (struct capability_runner){ .job_type = runner_table[i]->job_type, .name = runner_table[i]->name };
	return n;
}

/* The snapshot and what follows from it. */
static enum errc make_pieces(struct view *v, const struct capability_in *in, struct pieces *p, struct err *e)
{
	enum errc rc;

	v->in = in;
	v->caps = in->caps;
	clock_iso(in->captured_wall_ms, v->captured);
	add_hardware(v);
	add_offers(v);
	rc = make_snapshot(v, &p->snapshot, e);
	return rc ? rc : make_projection(v, &p->projection, e);
}

#define PIECES ((struct pieces){ .snapshot = BUF_MAX(PAYLOAD_MAX), .match = BUF_MAX(PAYLOAD_MAX), .projection = BUF_MAX(PAYLOAD_MAX) })

enum errc capability_write_public(struct jw *w, const char *key, const struct capability_in *in, struct err *e)
{
	CLEANUP(pieces_done) struct pieces p = PIECES;
	AUTO_FREE struct view *v = NEW(struct view);
	enum errc rc = v ? make_pieces(v, in, &p, e) : err_set(e, E_NO_MEMORY, "no memory for the capabilities");

	if (!rc)
		jw_raw(w, key, buf_slice(&p.projection));
	return rc;
}

enum errc capability_write(struct jw *w, const char *key, const struct capability_in *in, struct err *e)
{
	CLEANUP(pieces_done) struct pieces p = PIECES;
	AUTO_BUF payload = BUF_MAX(4 * PAYLOAD_MAX);
	AUTO_FREE struct view *v = NEW(struct view);
	enum errc rc = v ? make_pieces(v, in, &p, e) : err_set(e, E_NO_MEMORY, "no memory for the capabilities");

	if (!rc)
		rc = make_match(v, &p.match, e);
	if (!rc)
		rc = make_unsigned(v, &p, &payload, e);
	if (!rc)
		rc = sign(in, &payload, e);
	if (!rc)
		jw_raw(w, key, buf_slice(&payload));
	return rc;
}
