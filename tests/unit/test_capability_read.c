/* What the commands of a capability probe print, as they are met in the field, and what is made of it. */
#include "jobs/capability_probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_gpus(void **state)
{
	struct capabilities c = { 0 };

	(void)state;
	capability_read_gpus(&c, SLICE("0, NVIDIA GeForce RTX 4090, 24564, 550.54.14, 8.9\n\r\n1, NVIDIA H100 80GB HBM3, 81559, 550.54.14, 9.0, 12.2\n"));
	capability_settle(&c);
	assert_int_equal(c.gpu_status, CAPABILITY_AVAILABLE);
	assert_int_equal(c.gpu_count, 2);
	assert_true(c.is_nvidia);
	assert_string_equal(c.devices[0].id, "gpu-0");
	assert_string_equal(c.devices[0].vendor, "nvidia");
	assert_string_equal(c.devices[0].name, "NVIDIA GeForce RTX 4090");
	assert_string_equal(c.devices[0].driver_version, "550.54.14");
	assert_string_equal(c.devices[0].compute_capability, "8.9");
	assert_true(c.devices[0].vram_gb == 24 && c.devices[1].vram_gb == 79.6 && c.max_vram_gb == 79.6);
	assert_false(c.devices[0].is_cuda_by_query);
	assert_true(c.devices[1].is_cuda_by_query);
	assert_string_equal(c.cuda_version, "12.2");

	/* The second step fills what the list did not say. */
	capability_read_cuda(&c, SLICE("| NVIDIA-SMI 550.54.14   Driver Version: 550.54.14   CUDA Version: 12.4     |\n"));
	assert_string_equal(c.devices[0].cuda_version, "12.4");
	assert_false(c.devices[0].is_cuda_by_query);
	assert_string_equal(c.devices[1].cuda_version, "12.2");
}

static void test_cuda(void **state)
{
	static const struct { const char *text, *want; } rows[] = {
		{ "cuda version: 11", "11" }, { "CUDA Version: 12.4.1", "12.4" }, { "CUDA Version: 12.", "12" }, { "CUDA Version: N/A", "" },
		{ "CUDA Version: N/A\nCUDA Version: 12.8", "12.8" }, { "CUDA Version:", "" }, { "", "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct capabilities c = { .device_count = 1 };

		capability_read_cuda(&c, slice_str(rows[i].text));
		assert_string_equal(c.devices[0].cuda_version, rows[i].want);
	}
}

static void test_odd_rows(void **state)
{
	struct capabilities c = { 0 };
	char long_name[4000];

	(void)state;
	capability_read_gpus(&c, SLICE("0, Orin, [N/A], 540.4.0, 8.7\n1\n2,,,,\n"));
	capability_settle(&c);
	assert_int_equal(c.gpu_count, 3);
	assert_true(c.max_vram_gb == 0);
	assert_string_equal(c.devices[0].name, "Orin");
	assert_string_equal(c.devices[1].id, "gpu-1");
	assert_string_equal(c.devices[2].name, "");

	memset(long_name, 'x', sizeof(long_name));
	memcpy(long_name, "0,", 2);
	memset(&c, 0, sizeof(c));
	capability_read_gpus(&c, slice_of(long_name, sizeof(long_name)));
	assert_int_equal(strlen(c.devices[0].name), sizeof(c.devices[0].name) - 1);

	memset(&c, 0, sizeof(c));
	for (int i = 0; i < 3; i++)        /* more than there is room for */
		capability_read_gpus(&c, SLICE("0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"));
	assert_int_equal(c.device_count, CAPABILITY_DEVICES_MAX);
}

static void test_no_gpu(void **state)
{
	struct capabilities c = { 0 };
	struct capability_software s = { 0 };

	(void)state;
	capability_read_gpus(&c, SLICE("\n  \n"));
	capability_settle(&c);
	assert_int_equal(c.gpu_status, CAPABILITY_MISSING);
	assert_string_equal(c.gpu_message, "nvidia-smi returned no GPU rows");
	assert_int_equal(c.gpu_count, 0);

	capability_failed(&s, SLICE("spawn nvidia-smi ENOENT"));
	assert_int_equal(s.status, CAPABILITY_MISSING);
	assert_string_equal(s.message, "spawn nvidia-smi ENOENT");
	capability_failed(&s, SLICE("exec: \"docker\": executable file Not Found in $PATH"));
	assert_int_equal(s.status, CAPABILITY_MISSING);
	capability_failed(&s, SLICE("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver"));
	assert_int_equal(s.status, CAPABILITY_ERROR);
}

static void test_docker(void **state)
{
	struct capabilities c = { 0 };

	(void)state;
	capability_read_docker(&c, SLICE("{\"io.containerd.runc.v2\":{\"path\":\"runc\"},\"NVIDIA\":{\"path\":\"nvidia-container-runtime\"},\"runc\":{\"path\":\"runc\"}}\n"));
	capability_settle(&c);
	assert_int_equal(c.docker.status, CAPABILITY_AVAILABLE);
	assert_true(c.has_docker_nvidia);
	assert_string_equal(c.docker_nvidia.version, "nvidia");
	assert_string_equal(c.docker.version, "");

	memset(&c, 0, sizeof(c));
	capability_read_docker(&c, SLICE("{\"runc\":{\"path\":\"runc\"}}"));
	assert_int_equal(c.docker.status, CAPABILITY_AVAILABLE);
	assert_int_equal(c.docker_nvidia.status, CAPABILITY_MISSING);
	assert_string_equal(c.docker_nvidia.message, "Docker is available but the nvidia runtime is not registered");

	for (int i = 0; i < 3; i++) {
		memset(&c, 0, sizeof(c));
		capability_read_docker(&c, slice_str(((const char *[]){ "", "null", "{\"runc\"" })[i]));
		assert_int_equal(c.docker.status, CAPABILITY_ERROR);
		assert_int_equal(c.docker_nvidia.status, CAPABILITY_ERROR);
		assert_true(slice_starts_with(slice_str(c.docker.message), SLICE("Unable to parse docker runtime inventory: ")));
	}
}

static void test_versions(void **state)
{
	struct capability_software s = { 0 };

	(void)state;
	capability_read_version(&s, SLICE("\n  Blender 4.1.1\n\tbuild date: 2024-04-16\n"), SLICE("Blender"));
	assert_int_equal(s.status, CAPABILITY_AVAILABLE);
	assert_string_equal(s.version, "4.1.1");
	memset(&s, 0, sizeof(s));
	capability_read_version(&s, SLICE("ffmpeg version 6.1.1-3ubuntu5 Copyright (c) 2000-2023 the FFmpeg developers\n"), SLICE("ffmpeg version"));
	assert_string_equal(s.version, "6.1.1-3ubuntu5");
	memset(&s, 0, sizeof(s));
	capability_read_version(&s, SLICE("something else\n"), SLICE("Blender"));      /* it ran: it is there */
	assert_int_equal(s.status, CAPABILITY_AVAILABLE);
	assert_string_equal(s.version, "");
	capability_read_version(&s, SLICE(""), SLICE("Blender"));
	assert_string_equal(s.version, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gpus), cmocka_unit_test(test_cuda), cmocka_unit_test(test_odd_rows), cmocka_unit_test(test_no_gpu),
		cmocka_unit_test(test_docker), cmocka_unit_test(test_versions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
