/*
 * The contract of a generic job request, with every issue in the order of direct-api.md 4. Called by the supervisor before
 * a job's runner is asked, and by R4. Pure.
 */
#include "base/clock.h"
#include "jobs/request.h"

#include <stdio.h>

struct check {
	struct jw *w;
	size_t n;
};

#define PATH_MAX_BYTES 320
#define POSITIVE "Expected a positive integer."
#define NON_EMPTY "Expected a non-empty string."

static void issue(struct check *c, const char *code, const char *path, const char *message, const struct json *value)
{
	jw_obj(c->w, NULL);
	jw_str(c->w, "code", code);
	jw_str(c->w, "path", path);
	jw_str(c->w, "message", message);
	if (value)
		jw_tree(c->w, "value", value);
	jw_end(c->w);
	c->n++;
}

struct path {
	char text[PATH_MAX_BYTES];
};

/* "base.key"; a key of the caller's is cut. */
static struct path join(const char *base, const char *key)
{
	struct path p;

	snprintf(p.text, sizeof(p.text), "%.*s%s%.*s", 120, base, *base ? "." : "", 180, key);
	return p;
}

static struct path join_at(const char *base, size_t i)
{
	char number[24];

	snprintf(number, sizeof(number), "%zu", i);
	return join(base, number);
}

static bool is_one_of(const char *key, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(key, *list) == 0)
			return true;
	return false;
}

static bool is_filled(const struct json *v)
{
	return json_is_string(v) && slice_trim_js(json_slice(v)).n;
}

static bool is_positive(const struct json *v)
{
	double d = json_num(v, 0);

	return json_is_number(v) && d > 0 && d == __builtin_floor(d);
}

static void check_unknown(struct check *c, const struct json *obj, const char *base, const char *const *known, const char *message)
{
	for (const struct json *m = json_first(obj); m; m = json_next(m))
		if (!is_one_of(json_key(m), known))
			issue(c, "unknown_field", join(base, json_key(m)).text, message, m);
}

static void check_positive(struct check *c, const struct json *obj, const char *base, const char *key, const char *code)
{
	const struct json *v = json_get(obj, key);

	if (v && !is_positive(v))
		issue(c, code, join(base, key).text, POSITIVE, v);
}

static void check_filled(struct check *c, const struct json *obj, const char *base, const char *key, const char *code, const char *message)
{
	const struct json *v = json_get(obj, key);

	if (v && !is_filled(v))
		issue(c, code, join(base, key).text, message, v);
}

static void check_bool(struct check *c, const struct json *obj, const char *base, const char *key, const char *code, const char *message)
{
	const struct json *v = json_get(obj, key);

	if (v && !json_is_bool(v))
		issue(c, code, join(base, key).text, message, v);
}

static void check_strings(struct check *c, const struct json *obj, const char *base, const char *key)
{
	const struct json *v = json_get(obj, key);
	struct path p = join(base, key);
	size_t i = 0;

	if (!v)
		return;
	if (!json_is_array(v)) {
		issue(c, "invalid_request", p.text, "Expected an array of non-empty strings.", v);
		return;
	}
	for (const struct json *m = json_first(v); m; m = json_next(m), i++)
		if (!is_filled(m))
			issue(c, "invalid_request", join_at(p.text, i).text, NON_EMPTY, m);
}

/* direct-api.md 4.5: relative, no "..", no backslash, no empty last part. */
static void check_path(struct check *c, const struct json *v, const char *path)
{
	struct slice s = is_filled(v) ? slice_trim_js(json_slice(v)) : slice_of(NULL, 0), rest, part;
	bool is_safe = s.n && s.p[0] != '/' && s.p[0] != '~' && !memchr(s.p, '\\', s.n) && s.p[s.n - 1] != '/';

	if (!s.p) {
		issue(c, "unsafe_path", path, "Expected a non-empty relative sandbox path.", v);
		return;
	}
	for (rest = s; is_safe && slice_next(&rest, '/', &part);)
		is_safe = !slice_eq(part, SLICE(".."));
	if (!is_safe)
		issue(c, "unsafe_path", path, "Path must be relative and must not escape the job sandbox.", v);
}

/* ---- top level ---- */

static void check_top(struct check *c, const struct json *job)
{
	static const char *const known[] = { "schema_version", "job_type", "policy", "limits", "inputs", "outputs", "resources",
		"scheduling", "args", "idempotency_key", "runner_hint", "metadata", NULL };
	static const char *const llm[] = { "openai_request", "messages", "model", "agent_slug", "adapter", "source_agent_slug",
		"execution_runtime", NULL };

	for (const struct json *m = json_first(job); m; m = json_next(m)) {
		if (is_one_of(json_key(m), llm))
			issue(c, "llm_field_not_allowed", join("", json_key(m)).text, "LLM invocation fields are not part of the generic job contract.", m);
		else if (!is_one_of(json_key(m), known))
			issue(c, "unknown_field", join("", json_key(m)).text, "Unknown generic job request field.", m);
	}
}

static bool is_registered(struct slice type)
{
	struct slice rest = type, part;

	if (!slice_starts_with(type, SLICE("tenant.")) && !slice_starts_with(type, SLICE("package.")))
		return false;
	while (slice_next(&rest, '.', &part)) {
		for (size_t i = 0; i < part.n; i++)
			if (!((part.p[i] >= 'a' && part.p[i] <= 'z') || (part.p[i] >= '0' && part.p[i] <= '9') || (i && part.p[i] == '-')))
				return false;
		if (!part.n)
			return false;
	}
	return true;
}

static const struct known_type {
	const char *name;
	const char *args[8];            /* NULL: anything */
} known_types[] = {
	{ "render.blender", { "frames", "engine", "resolution", "output_format", "camera", "scene" } },
	{ "cuda.run", { "manifest_path", "profile", "target" } },
	{ "ffmpeg.cuda", { "input", "output", "filter", "codec", "preset" } },
	{ "python.gpu", { "manifest_path", "entrypoint", "profile" } },
	{ "package.job", { "manifest_path", "package_ref", "task", "profile" } },
};

static const struct known_type *find_type(const struct json *job)
{
	struct slice type = slice_trim_js(json_slice(json_get(job, "job_type")));

	for (size_t i = 0; i < ARRAY_LEN(known_types); i++)
		if (slice_eq(type, slice_str(known_types[i].name)))
			return &known_types[i];
	return NULL;
}

static void check_kind(struct check *c, const struct json *job)
{
	const struct json *version = json_get(job, "schema_version"), *type = json_get(job, "job_type");
	struct slice name = slice_trim_js(json_slice(type));

	if (!slice_eq(slice_trim_js(json_slice(version)), SLICE(JOB_SCHEMA_VERSION)))
		issue(c, "invalid_schema_version", "schema_version",
		      "Unsupported mswarm generic job schema version; expected " JOB_SCHEMA_VERSION ".", version);
	if (find_type(job) || slice_eq(name, SLICE("tenant.test-echo")))
		return;
	if (is_registered(name))
		issue(c, "unregistered_job_type", "job_type",
		      "Registered job types must be present in the tenant job catalog before validation accepts them.", type);
	else
		issue(c, "invalid_job_type", "job_type", "Job type must be a known type or a registered tenant/package namespace.", type);
}

/* ---- policy, limits ---- */

static void check_policy(struct check *c, const struct json *job)
{
	static const char *const known[] = { "trust_mode", "network", "allow_raw_command", "allowed_images", "allowed_package_publishers",
		"max_artifact_bytes", NULL };
	const struct json *p = json_get(job, "policy"), *v;
	struct slice mode;

	if (!json_is_object(p)) {
		issue(c, "invalid_policy", "policy", "Generic job policy is required and must be an object.", p);
		return;
	}
	check_unknown(c, p, "policy", known, "Unknown policy field.");
	v = json_get(p, "trust_mode");
	mode = slice_trim_js(json_slice(v));
	if (!slice_eq(mode, SLICE("owner-local")) && !slice_eq(mode, SLICE("tenant-owned")))
		issue(c, "invalid_policy", "policy.trust_mode", "Policy trust_mode must be owner-local or tenant-owned.", v);
	v = json_get(p, "network");
	mode = slice_trim_js(json_slice(v));
	if (v && !slice_eq(mode, SLICE("none")) && !slice_eq(mode, SLICE("egress-allowlist")))
		issue(c, "invalid_policy", "policy.network", "Policy network must be none or egress-allowlist.", v);
	v = json_get(p, "allow_raw_command");
	if (v && !(json_is_bool(v) && !json_is_true(v)))
		issue(c, "unsafe_field", "policy.allow_raw_command", "Raw command execution is not allowed in the generic job contract.", v);
	check_strings(c, p, "policy", "allowed_images");
	check_strings(c, p, "policy", "allowed_package_publishers");
	check_positive(c, p, "policy", "max_artifact_bytes", "invalid_policy");
}

static void check_limits(struct check *c, const struct json *job)
{
	static const char *const known[] = { "timeout_sec", "max_stdout_bytes", "max_stderr_bytes", "max_output_bytes", NULL };
	const struct json *l = json_get(job, "limits");

	if (!l)
		return;
	if (!json_is_object(l)) {
		issue(c, "invalid_limits", "limits", "Limits must be an object.", l);
		return;
	}
	for (const struct json *m = json_first(l); m; m = json_next(m)) {
		if (strcmp(json_key(m), "network") == 0)
			issue(c, "unsafe_field", "limits.network", "Network policy belongs under policy.network.", m);
		else if (!is_one_of(json_key(m), known))
			issue(c, "unknown_field", join("limits", json_key(m)).text, "Unknown limits field.", m);
	}
	for (size_t i = 0; known[i]; i++)
		check_positive(c, l, "limits", known[i], "invalid_limits");
}

/* ---- inputs, outputs ---- */

static void check_artifact(struct check *c, const struct json *a, const char *path)
{
	static const char *const known[] = { "id", "uri", "name", "content_type", "size_bytes", "sha256", "scope", NULL };
	static const char *const scopes[] = { "input", "output", "log", "manifest", NULL };
	static const char *const texts[] = { "id", "name", "content_type", "sha256" };
	const struct json *v;

	if (!json_is_object(a)) {
		issue(c, "invalid_artifact", path, "Artifact reference must be an object.", a);
		return;
	}
	check_unknown(c, a, path, known, "Unknown artifact field.");
	v = json_get(a, "uri");
	if (!is_filled(v))
		issue(c, "invalid_artifact", join(path, "uri").text, "Artifact uri is required.", v);
	else if (!slice_starts_with(slice_trim_js(json_slice(v)), SLICE("artifact://")))
		issue(c, "unsafe_artifact_uri", join(path, "uri").text,
		      "Artifact uri must be artifact:// unless a signed URL flow explicitly allows https://.", v);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		check_filled(c, a, path, texts[i], "invalid_artifact", NON_EMPTY);
	check_positive(c, a, path, "size_bytes", "invalid_artifact");
	v = json_get(a, "scope");
	if (v && !(json_is_string(v) && is_one_of(json_str(v), scopes)))
		issue(c, "invalid_artifact", join(path, "scope").text, "Invalid artifact scope.", v);
}

static void check_input(struct check *c, const struct json *in, const char *path)
{
	static const char *const known[] = { "name", "artifact", "mount_path", "required", NULL };
	const struct json *v;

	if (!json_is_object(in)) {
		issue(c, "invalid_artifact", path, "Input must be an object.", in);
		return;
	}
	check_unknown(c, in, path, known, "Unknown input field.");
	v = json_get(in, "name");
	if (!is_filled(v)) {
		issue(c, "invalid_artifact", join(path, "name").text, "Input name is required.", v);
		return;
	}
	check_artifact(c, json_get(in, "artifact"), join(path, "artifact").text);
	v = json_get(in, "mount_path");
	if (v)
		check_path(c, v, join(path, "mount_path").text);
	check_bool(c, in, path, "required", "invalid_artifact", "Input required must be a boolean.");
}

static void check_output(struct check *c, const struct json *out, const char *path)
{
	static const char *const known[] = { "name", "path", "content_type", "required", NULL };
	const struct json *v;

	if (!json_is_object(out)) {
		issue(c, "invalid_output", path, "Output must be an object.", out);
		return;
	}
	check_unknown(c, out, path, known, "Unknown output field.");
	v = json_get(out, "name");
	if (!is_filled(v)) {
		issue(c, "invalid_output", join(path, "name").text, "Output name is required.", v);
		return;
	}
	check_path(c, json_get(out, "path"), join(path, "path").text);
	check_filled(c, out, path, "content_type", "invalid_output", "Output content_type must be a non-empty string.");
	check_bool(c, out, path, "required", "invalid_output", "Output required must be a boolean.");
}

static void check_each(struct check *c, const struct json *job, const char *key, const char *code, const char *message,
		       void (*fn)(struct check *, const struct json *, const char *))
{
	const struct json *list = json_get(job, key);
	size_t i = 0;

	if (!list)
		return;
	if (!json_is_array(list)) {
		issue(c, code, key, message, list);
		return;
	}
	for (const struct json *m = json_first(list); m; m = json_next(m), i++)
		fn(c, m, join_at(key, i).text);
}

/* ---- resources, scheduling ---- */

static void check_gpu(struct check *c, const struct json *g)
{
	static const char *const known[] = { "count", "min_vram_gb", "vendor", "cuda_min_version", "capabilities", NULL };
	static const char at[] = "resources.gpu";

	if (!g)
		return;
	if (!json_is_object(g)) {
		issue(c, "invalid_resources", at, "GPU resources must be an object.", g);
		return;
	}
	check_unknown(c, g, at, known, "Unknown GPU resource field.");
	check_positive(c, g, at, "count", "invalid_resources");
	check_positive(c, g, at, "min_vram_gb", "invalid_resources");
	check_filled(c, g, at, "vendor", "invalid_resources", "GPU vendor must be a non-empty string.");
	check_filled(c, g, at, "cuda_min_version", "invalid_resources", "CUDA minimum version must be a non-empty string.");
	check_strings(c, g, at, "capabilities");
}

static void check_resources(struct check *c, const struct json *job)
{
	static const char *const known[] = { "gpu", "cpu", "memory_gb", "disk_gb", NULL };
	const struct json *r = json_get(job, "resources"), *cpu = json_get(r, "cpu");

	if (!r)
		return;
	if (!json_is_object(r)) {
		issue(c, "invalid_resources", "resources", "Resources must be an object.", r);
		return;
	}
	check_unknown(c, r, "resources", known, "Unknown resources field.");
	check_positive(c, r, "resources", "memory_gb", "invalid_resources");
	check_positive(c, r, "resources", "disk_gb", "invalid_resources");
	if (cpu && !json_is_object(cpu))
		issue(c, "invalid_resources", "resources.cpu", "CPU resources must be an object.", cpu);
	else if (cpu)
		check_positive(c, cpu, "resources.cpu", "cores", "invalid_resources");
	check_gpu(c, json_get(r, "gpu"));
}

static void check_scheduling(struct check *c, const struct json *job)
{
	static const char *const known[] = { "priority", "deadline_at", "fairness_key", "reason_code", "preemptible", NULL };
	static const char code[] = "invalid_scheduling", at[] = "scheduling";
	const struct json *s = json_get(job, at), *v;
	int64_t priority = 0, when;

	if (!s)
		return;
	if (!json_is_object(s)) {
		issue(c, code, at, "Scheduling must be an object.", s);
		return;
	}
	check_unknown(c, s, at, known, "Unknown scheduling field.");
	v = json_get(s, "priority");
	if (v && (!json_i64(v, &priority) || priority < -100 || priority > 100))
		issue(c, code, "scheduling.priority", "Scheduling priority must be an integer from -100 to 100; lower numbers dispatch earlier.", v);
	v = json_get(s, "deadline_at");
	if (v && !clock_parse_iso(slice_trim_js(json_slice(v)), &when))
		issue(c, code, "scheduling.deadline_at", "Scheduling deadline_at must be a valid timestamp string.", v);
	check_filled(c, s, at, "fairness_key", code, "Scheduling fairness_key must be a non-empty string.");
	check_filled(c, s, at, "reason_code", code, "Scheduling reason_code must be a non-empty string.");
	check_bool(c, s, at, "preemptible", code, "Scheduling preemptible must be a boolean.");
}

/* ---- args, metadata ---- */

#define UNSAFE_KEYS "command", "cmd", "shell", "image", "runtime", "network", "mount", "mounts", "device", "devices", "privileged", \
	"hostNetwork", "host_network", "volumes", "binds"

static bool is_identifier(struct slice s)
{
	for (size_t i = 0; i < s.n; i++) {
		char ch = s.p[i];
		bool is_letter = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');

		if (!is_letter && !(i && (ch == '_' || ch == '.' || ch == '-')))
			return false;
	}
	return s.n >= 1 && s.n <= 128;
}

/* jobs-and-capabilities.md 1.3, the checker of argument paths. */
static bool is_argument_path(struct slice s)
{
	struct slice rest = s, part;
	size_t kept = 0;

	if (!s.n || s.p[0] == '/')
		return false;
	while (slice_next(&rest, '/', &part)) {
		if (!part.n || slice_eq(part, SLICE(".")))
			continue;
		if (slice_eq(part, SLICE("..")))
			return false;
		for (size_t i = 0; i < part.n; i++) {
			char ch = part.p[i];

			if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '_' || ch == '.' || ch == '-'))
				return false;
		}
		kept++;
	}
	return kept > 0;
}

static void check_cuda(struct check *c, const struct json *args)
{
	static const char *const names[] = { "profile", "target" };
	const struct json *v = json_get(args, "manifest_path");

	if (!is_filled(v))
		issue(c, "invalid_args", "args.manifest_path", "manifest_path must be a non-empty relative path.", v);
	else if (!is_argument_path(slice_trim_js(json_slice(v))))
		issue(c, "unsafe_path", "args.manifest_path", "manifest_path must be a safe relative path.", v);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char message[120];

		v = json_get(args, names[i]);
		if (!is_filled(v))
			snprintf(message, sizeof(message), "%s must be a non-empty identifier.", names[i]);
		else if (!is_identifier(slice_trim_js(json_slice(v))))
			snprintf(message, sizeof(message), "%s may only contain letters, numbers, dots, underscores, and hyphens.", names[i]);
		else
			continue;
		issue(c, "invalid_args", join("args", names[i]).text, message, v);
	}
}

static void check_args(struct check *c, const struct json *job)
{
	static const char *const unsafe[] = { UNSAFE_KEYS, NULL };
	const struct json *args = json_get(job, "args");
	const struct known_type *type = find_type(job);
	char message[80];

	if (!args)
		return;
	if (!json_is_object(args)) {
		issue(c, "invalid_args", "args", "Args must be an object.", args);
		return;
	}
	snprintf(message, sizeof(message), "Unknown args field for %s.", type ? type->name : "");
	for (const struct json *m = json_first(args); m; m = json_next(m)) {
		if (is_one_of(json_key(m), unsafe))
			issue(c, "unsafe_field", join("args", json_key(m)).text, "Unsafe runtime controls are not allowed in generic job args.", m);
		else if (type && !is_one_of(json_key(m), type->args))
			issue(c, "unknown_field", join("args", json_key(m)).text, message, m);
	}
	if (type && strcmp(type->name, "cuda.run") == 0)
		check_cuda(c, args);
}

static void check_metadata(struct check *c, const struct json *job)
{
	static const char *const unsafe[] = { UNSAFE_KEYS, "allow_raw_command", "allowed_images", "allowed_package_publishers",
		"host_path", "host_paths", NULL };
	const struct json *v = json_get(job, "metadata");

	check_filled(c, job, "", "idempotency_key", "invalid_request", "Idempotency key must be a non-empty string.");
	check_filled(c, job, "", "runner_hint", "invalid_request", "Runner hint must be a non-empty string.");
	if (v && !json_is_object(v))
		issue(c, "invalid_request", "metadata", "Metadata must be an object.", v);
	for (const struct json *m = json_is_object(v) ? json_first(v) : NULL; m; m = json_next(m))
		if (is_one_of(json_key(m), unsafe))
			issue(c, "unsafe_field", join("metadata", json_key(m)).text,
			      "Metadata cannot override runtime, network, shell, mount, device, or image behavior.", m);
}

size_t job_check(const struct json *job, struct jw *w)
{
	struct check c = { .w = w };

	if (!json_is_object(job)) {
		issue(&c, "invalid_request", "", "Generic job request must be an object.", job);
		return c.n;
	}
	check_top(&c, job);
	check_kind(&c, job);
	check_policy(&c, job);
	check_limits(&c, job);
	check_each(&c, job, "inputs", "invalid_artifact", "Inputs must be an array.", check_input);
	check_each(&c, job, "outputs", "invalid_output", "Outputs must be an array.", check_output);
	check_resources(&c, job);
	check_scheduling(&c, job);
	check_args(&c, job);
	check_metadata(&c, job);
	return c.n;
}
