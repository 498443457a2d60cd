/* Coarse hardware pressure; see pressure.h. Called by heartbeat.c. */
#include "gateway/pressure.h"

#include "base/clock.h"
#include "base/file.h"

#include <math.h>
#include <unistd.h>

#define GIB (INT64_C(1) << 30)

static double to_3_decimals(double v)
{
	return round(v * 1000) / 1000;
}

static double load_1m(void)
{
	AUTO_BUF text = BUF_MAX(256);
	struct slice rest, first;
	double v = 0;

	if (file_read("/proc/loadavg", &text, NULL))
		return 0;
	rest = buf_slice(&text);
	return slice_next(&rest, ' ', &first) && slice_to_f64(first, &v) ? v : 0;
}

/* A line of /proc/meminfo, in bytes; 0: not there. */
static int64_t meminfo(struct slice text, struct slice name)
{
	struct slice line;

	while (text.p && slice_next(&text, '\n', &line)) {
		struct slice value;
		int64_t kib;

		if (!slice_starts_with(line, name))
			continue;
		value = slice_trim(slice_from(line, name.n));
		if (slice_ends_with(value, SLICE(" kB")) && slice_to_i64(slice_cut(value, value.n - 3), 0, INT64_MAX / 1024, &kib))
			return kib * 1024;
	}
	return 0;
}

const char *pressure_ram_bucket(int64_t bytes)
{
	static const struct { int64_t gib; const char *name; } rows[] = {
		{ 8, "<=8GiB" }, { 16, "<=16GiB" }, { 32, "<=32GiB" }, { 64, "<=64GiB" }, { 128, "<=128GiB" } };

	if (bytes <= 0)
		return "unknown";
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (bytes <= rows[i].gib * GIB)
			return rows[i].name;
	return ">128GiB";
}

static void write_ram(struct jw *w)
{
	AUTO_BUF text = BUF_MAX(64 * 1024);
	int64_t total = 0, available = 0;

	if (!file_read("/proc/meminfo", &text, NULL)) {
		total = meminfo(buf_slice(&text), SLICE("MemTotal:"));
		available = meminfo(buf_slice(&text), SLICE("MemAvailable:"));
	}
	jw_obj(w, "ram");
	if (total > 0)
		jw_f64(w, "used_ratio", to_3_decimals((double)(total - available) / (double)total));
	else
		jw_null(w, "used_ratio");
	jw_str(w, "total_bucket", pressure_ram_bucket(total));
	jw_end(w);
}

void pressure_write(struct jw *w, const char *key, const struct capabilities *c, int64_t now_wall_ms)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	double gb = c->max_vram_gb;
	char at[CLOCK_ISO_LEN];
	bool is_there = c->gpu_status == CAPABILITY_AVAILABLE && c->device_count > 0;

	clock_iso(now_wall_ms, at);
	jw_obj(w, key);
	jw_i64(w, "schema_version", 1);
	jw_str(w, "collected_at", at);
	jw_obj(w, "cpu");
	jw_i64(w, "core_count", cores > 1 ? cores : 1);
	jw_f64(w, "load_1m_ratio", to_3_decimals(load_1m() / (double)(cores > 1 ? cores : 1)));
	jw_end(w);
	write_ram(w);
	jw_obj(w, "gpu");
	jw_bool(w, "available", is_there);
	jw_i64(w, "count", (int64_t)c->device_count);
	jw_bool(w, "cuda", is_there);
	jw_obj(w, "vram");
	jw_str(w, "total_tier", !is_there ? "none" : gb <= 0 ? "unknown" : gb < 8 ? "lt8" : gb < 16 ? "8-15" : gb < 32 ? "16-31" : "32plus");
	jw_null(w, "used_ratio");
	jw_end(w);
	jw_end(w);
	jw_end(w);
}
