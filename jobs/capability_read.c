/* What the commands of a capability probe print (gateway.md 5.1). Pure. Called by capability_probe.c. */
#include "jobs/capability_probe.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>

static struct slice first_line(struct slice out)
{
	struct slice line = { 0 };

	while (out.p && slice_next(&out, '\n', &line))
		if (slice_trim(line).n)
			return slice_trim(line);
	return slice_of("", 0);
}

static void copy(struct slice s, char *out, size_t cap)
{
	(void)!slice_copy(slice_cut_text(s, cap - 1), out, cap);
}

/* ---- GPUs ---- */

static void read_device(struct capabilities *c, struct slice line)
{
	struct slice field[6] = { { 0 } }, rest = line;
	struct capability_device *d = &c->devices[c->device_count];
	double mb = 0;
	size_t n = 0;

	while (n < ARRAY_LEN(field) && rest.p && slice_next(&rest, ',', &field[n]))
		n++;
	for (size_t i = 0; i < n; i++)
		field[i] = slice_trim(field[i]);
	snprintf(d->id, sizeof(d->id), "gpu-%.*s", (int)(field[0].n < 10 ? field[0].n : 10), field[0].n ? field[0].p : "");
	copy(SLICE("nvidia"), d->vendor, sizeof(d->vendor));
	copy(field[1], d->name, sizeof(d->name));
	if (slice_to_f64(field[2], &mb) && mb > 0)
		d->vram_gb = round(mb / 1024 * 10) / 10;
	copy(field[3], d->driver_version, sizeof(d->driver_version));
	copy(field[4], d->compute_capability, sizeof(d->compute_capability));
	copy(field[5], d->cuda_version, sizeof(d->cuda_version));
	d->is_cuda_by_query = d->cuda_version[0] != '\0';
	c->device_count++;
}

void capability_read_gpus(struct capabilities *c, struct slice out)
{
	struct slice line;

	while (out.p && slice_next(&out, '\n', &line) && c->device_count < CAPABILITY_DEVICES_MAX)
		if (slice_trim(line).n)
			read_device(c, line);
	c->gpu_status = c->device_count ? CAPABILITY_AVAILABLE : CAPABILITY_MISSING;
	if (!c->device_count)
		snprintf(c->gpu_message, sizeof(c->gpu_message), "nvidia-smi returned no GPU rows");
}

void capability_read_cuda(struct capabilities *c, struct slice out)
{
	const struct slice mark = SLICE("CUDA Version:");
	struct slice version = { 0 };

	for (size_t i = 0; i + mark.n <= out.n && !version.n; i++) {
		struct slice rest;
		size_t n = 0;

		if (!slice_starts_with_nocase(slice_from(out, i), mark))
			continue;
		rest = slice_trim(slice_from(out, i + mark.n));
		while (n < rest.n && ((rest.p[n] >= '0' && rest.p[n] <= '9') || (n && rest.p[n] == '.' && !memchr(rest.p, '.', n))))
			n++;
		version = slice_cut(rest, n && rest.p[n - 1] == '.' ? n - 1 : n);
	}
	for (size_t i = 0; i < c->device_count; i++)
		if (version.n && !c->devices[i].cuda_version[0])
			copy(version, c->devices[i].cuda_version, sizeof(c->devices[i].cuda_version));
}

/* ---- software ---- */

void capability_read_docker(struct capabilities *c, struct slice out)
{
	AUTO_JSON runtimes = NULL;
	struct err e = { 0 };

	if (json_parse(out, JSON_LIMITS_DEFAULT, &runtimes, &e) || !json_is_object(runtimes)) {
		c->docker.status = c->docker_nvidia.status = CAPABILITY_ERROR;
		snprintf(c->docker.message, sizeof(c->docker.message), "Unable to parse docker runtime inventory: %.140s", e.code ? e.what : "not an object");
		memcpy(c->docker_nvidia.message, c->docker.message, sizeof(c->docker.message));
		return;
	}
	c->docker.status = CAPABILITY_AVAILABLE;
	c->docker_nvidia.status = CAPABILITY_MISSING;
	for (const struct json *m = json_first(runtimes); m; m = json_next(m))
		if (slice_eq_nocase(slice_str(json_key(m)), SLICE("nvidia"))) {
			c->docker_nvidia.status = CAPABILITY_AVAILABLE;
			copy(SLICE("nvidia"), c->docker_nvidia.version, sizeof(c->docker_nvidia.version));
			return;
		}
	snprintf(c->docker_nvidia.message, sizeof(c->docker_nvidia.message), "Docker is available but the nvidia runtime is not registered");
}

void capability_read_version(struct capability_software *s, struct slice out, struct slice behind)
{
	struct slice line = first_line(out), word;

	s->status = CAPABILITY_AVAILABLE;
	if (!slice_starts_with_nocase(line, behind))
		return;
	line = slice_trim(slice_from(line, behind.n));
	if (line.n && slice_next(&line, ' ', &word))
		copy(word, s->version, sizeof(s->version));
}

void capability_failed(struct capability_software *s, struct slice text)
{
	static const char *const absent[] = { "enoent", "not found", "no such file" };

	s->status = CAPABILITY_ERROR;
	for (size_t i = 0; i < ARRAY_LEN(absent); i++)
		if (slice_contains_nocase(text, slice_str(absent[i])))
			s->status = CAPABILITY_MISSING;
	copy(text, s->message, sizeof(s->message));
}

void capability_settle(struct capabilities *c)
{
	c->gpu_count = c->gpu_status == CAPABILITY_AVAILABLE ? (unsigned)c->device_count : 0;
	c->is_nvidia = c->gpu_count > 0;       /* no other vendor can be found yet */
	c->has_blender = c->blender.status == CAPABILITY_AVAILABLE;
	c->has_docker_nvidia = c->docker_nvidia.status == CAPABILITY_AVAILABLE;
	c->max_vram_gb = 0;
	for (size_t i = 0; i < c->device_count; i++) {
		if (c->devices[i].vram_gb > c->max_vram_gb)
			c->max_vram_gb = c->devices[i].vram_gb;
		if (!c->cuda_version[0])
			memcpy(c->cuda_version, c->devices[i].cuda_version, sizeof(c->cuda_version));
	}
}
