/* What the life of a job reads of its request, leniently, as the reference does with the raw one. See request.h. */
#include "jobs/request.h"

#include "base/clock.h"
#include "jobs/capabilities.h"

#include <math.h>
#include <stdio.h>

#define OWNER_LOCAL "owner-local"

static struct slice trimmed(const struct json *v)
{
	return json_is_string(v) ? slice_trim_js(json_slice(v)) : slice_of("", 0);
}

static bool is_integer(const struct json *v, int64_t *ret)
{
	return json_is_number(v) && json_i64(v, ret);
}

/* Seconds, bytes, gigabytes; what is no positive integer counts as not given (the check of the contract says so). */
static int64_t positive(const struct json *object, const char *key, int64_t max)
{
	int64_t v = 0;

	if (!is_integer(json_get(object, key), &v) || v <= 0)
		return 0;
	return v < max ? v : max;
}

static bool is_truthy(const struct json *v)
{
	if (!v || json_is_null(v) || (json_is_bool(v) && !json_is_true(v)))
		return false;
	if (json_is_number(v))
		return json_num(v, 0) != 0;
	return !json_is_string(v) || json_slice(v).n;
}

static double gpu_count(const struct json *job)
{
	const struct json *gpu = json_get(json_get(job, "resources"), "gpu");
	double n = json_num(json_get(gpu, "count"), 1);

	if (!is_truthy(gpu))
		return 0;
	return n > 1 ? n : 1;
}

struct job_facts job_facts(const struct json *job)
{
	const struct json *metadata = json_get(job, "metadata"), *scheduling = json_get(job, "scheduling"), *limits = json_get(job, "limits");
	struct job_facts f = { .tenant_id = trimmed(json_get(metadata, "tenant_id")),
			       .idempotency_key = json_slice(json_get(job, "idempotency_key")), .gpu_count = gpu_count(job) };
	double retries = json_num(json_get(json_get(metadata, "retry"), "max_retries"), 0);

	if (!f.tenant_id.n)
		f.tenant_id = SLICE(OWNER_LOCAL);
	if (isfinite(retries) && retries > 0)
		f.max_retries = retries < JOB_RETRIES_MAX ? (int64_t)retries : JOB_RETRIES_MAX;
	(void)!is_integer(json_get(scheduling, "priority"), &f.priority);
	if (!clock_parse_iso(json_slice(json_get(scheduling, "deadline_at")), &f.deadline_wall_ms))
		f.deadline_wall_ms = 0;
	f.timeout_ms = positive(limits, "timeout_sec", INT64_MAX / 1000) * 1000;
	f.memory_bytes = positive(json_get(job, "resources"), "memory_gb", INT64_MAX >> 30) << 30;
	f.stdout_max = positive(limits, "max_stdout_bytes", INT64_MAX);
	f.stderr_max = positive(limits, "max_stderr_bytes", INT64_MAX);
	return f;
}

void job_resources_json(struct jw *w, const struct json *job)
{
	const struct json *resources = json_get(job, "resources");
	const struct {
		const char *name;
		const struct json *value;
	} members[] = {
		{ "gpu_count", json_get(json_get(resources, "gpu"), "count") },
		{ "cpu_cores", json_get(json_get(resources, "cpu"), "cores") },
		{ "memory_gb", json_get(resources, "memory_gb") },
		{ "disk_gb", json_get(resources, "disk_gb") },
	};

	jw_obj(w, NULL);
	for (size_t i = 0; i < ARRAY_LEN(members); i++)
		if (is_truthy(members[i].value))
			jw_tree(w, members[i].name, members[i].value);
	jw_end(w);
}

/* ---- can this node do it ---- */

/* Dotted numbers, parts that are missing are 0, what is no digit is skipped. */
static bool is_version_at_least(struct slice have, struct slice want)
{
	while (have.p || want.p) {
		struct slice a = { .p = "" }, b = { .p = "" };
		int64_t x = 0, y = 0;

		if (have.p)
			(void)!slice_next(&have, '.', &a);
		if (want.p)
			(void)!slice_next(&want, '.', &b);
		for (size_t i = 0; i < a.n && x < INT32_MAX; i++)
			x = a.p[i] >= '0' && a.p[i] <= '9' ? x * 10 + (a.p[i] - '0') : x;
		for (size_t i = 0; i < b.n && y < INT32_MAX; i++)
			y = b.p[i] >= '0' && b.p[i] <= '9' ? y * 10 + (b.p[i] - '0') : y;
		if (x != y)
			return x > y;
	}
	return true;
}

static bool lacks_gpu(const struct json *job, const struct capabilities *caps, char *out, size_t cap)
{
	const struct json *gpu = json_get(json_get(job, "resources"), "gpu");
	double wanted = gpu_count(job), vram = json_num(json_get(gpu, "min_vram_gb"), 0);
	struct slice vendor = json_slice(json_get(gpu, "vendor")), cuda = json_slice(json_get(gpu, "cuda_min_version"));

	if (wanted <= 0)
		return false;
	if (caps->gpu_count < wanted)
		snprintf(out, cap, "Requested %.0f GPU(s), but this node reports %u.", wanted, caps->gpu_count);
	else if (vendor.n && !(caps->is_nvidia && slice_eq(vendor, SLICE("nvidia"))))
		snprintf(out, cap, "Requested GPU vendor %.*s is not available on this node.", (int)(vendor.n < 80 ? vendor.n : 80), vendor.p);
	else if (vram > 0 && caps->max_vram_gb < vram)
		snprintf(out, cap, "Requested GPU VRAM %.15gGB exceeds this node capability.", vram);
	else if (cuda.n && (!caps->cuda_version[0] || !is_version_at_least(slice_str(caps->cuda_version), cuda)))
		snprintf(out, cap, "Requested CUDA %.*s is not available on this node.", (int)(cuda.n < 80 ? cuda.n : 80), cuda.p);
	else
		return false;
	return true;
}

bool job_lacks(const struct json *job, const struct capabilities *caps, char *out, size_t cap)
{
	struct slice type = trimmed(json_get(job, "job_type"));

	if (slice_eq(type, SLICE("render.blender")) && !caps->has_blender)
		snprintf(out, cap, "Blender is not available on this node.");
	else if (slice_eq(type, SLICE("cuda.run")) && !(caps->is_nvidia && caps->gpu_count))
		snprintf(out, cap, "No NVIDIA GPU is available on this node.");
	else if (slice_eq(type, SLICE("cuda.run")) && !caps->has_docker_nvidia)
		snprintf(out, cap, "Docker with the NVIDIA runtime is not available on this node.");
	else if (!capabilities_has_type(caps, type))
		snprintf(out, cap, "No capable owner-local node is available for %.*s.", (int)(type.n < 120 ? type.n : 120), type.p);
	else
		return lacks_gpu(job, caps, out, cap);
	return true;
}
