/* The capability payload against the vector of gateway.md 5.4, byte for byte; and what stays in by default. */
#include "base/crypto.h"
#include "base/file.h"
#include "gateway/capability.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define CAPTURED_MS 1795421162824LL    /* 2026-11-23T08:06:02.824Z */

static const struct capability_runner runners[] = {
	{ .job_type = "tenant.test-echo", .name = "test.echo" },
	{ .job_type = "render.blender", .name = "blender.render", .required = { "software.blender" } },
	{ .job_type = "cuda.run", .name = "cuda.package", .required = { "gpu.nvidia", "software.docker", "docker.nvidia" } },
};

static struct capabilities machine(void)
{
	return (struct capabilities){
		.devices = { { .id = "gpu-0", .vendor = "nvidia", .name = "NVIDIA RTX 4090", .driver_version = "550.54.14",
			       .compute_capability = "8.9", .cuda_version = "12.4", .vram_gb = 24 } },
		.device_count = 1, .gpu_status = CAPABILITY_AVAILABLE, .gpu_count = 1, .is_nvidia = true, .max_vram_gb = 24,
		.docker = { .status = CAPABILITY_AVAILABLE }, .docker_nvidia = { .status = CAPABILITY_AVAILABLE, .version = "nvidia" },
		.blender = { .status = CAPABILITY_AVAILABLE, .version = "4.1.1" },
		.ffmpeg = { .status = CAPABILITY_AVAILABLE, .version = "6.1.1-3ubuntu5" },
	};
}

static void write(const struct capabilities *c, bool shows_details, bool is_on, struct buf *out)
{
	const struct capability_in in = { .caps = c, .runners = runners, .runner_count = ARRAY_LEN(runners), .node_id = "shn_1", .is_generic_on = is_on,
					  .shows_details = shows_details, .captured_wall_ms = CAPTURED_MS, .signed_wall_ms = CAPTURED_MS + 2, .key = SLICE("msn_tok") };
	struct jw w = JW(out);
	struct err e = { 0 };

	assert_int_equal(capability_write(&w, NULL, &in, &e), E_OK);
	assert_int_equal(jw_done(&w, &e), E_OK);
}

static void test_vector(void **state)
{
	AUTO_BUF got = BUF_MAX(1 << 20);
	AUTO_BUF want = BUF_MAX(1 << 20);
	struct capabilities c = machine();
	struct err e = { 0 };

	(void)state;
	write(&c, true, true, &got);
	assert_int_equal(file_read(TEST_DATA_DIR "/capability-signed.json", &want, &e), E_OK);
	buf_truncate(&want, want.n - 1);
	assert_int_equal(buf_add_str(&want, ",\"signature\":{\"alg\":\"HS256\",\"value\":\"0UZT7yh4syGyvlF717veMYHI3yacBH7HxqP2H_zDTxw\","
					    "\"signed_at\":\"2026-11-23T08:06:02.826Z\",\"key_id\":\"self_hosted_runtime_token\"}}", &e), E_OK);
	assert_string_equal(buf_cstr(&got), buf_cstr(&want));
}

/* The members alone are signed: whoever takes the signature out has the signed bytes. */
static void check_mac(const struct buf *payload)
{
	AUTO_BUF body = BUF_MAX(1 << 20);
	AUTO_BUF value = BUF_MAX(128);
	struct slice all = buf_slice(payload);
	ptrdiff_t at = slice_find(all, SLICE(",\"signature\":"));
	uint8_t mac[SHA256_LEN];
	struct err e;

	assert_true(at > 0);
	assert_int_equal(buf_add_slice(&body, slice_cut(all, (size_t)at), &e), E_OK);
	assert_int_equal(buf_add_str(&body, "}", &e), E_OK);
	crypto_hmac_sha256(SLICE("msn_tok"), buf_slice(&body), mac);
	assert_int_equal(crypto_base64url(slice_of((const char *)mac, sizeof(mac)), &value, &e), E_OK);
	assert_true(slice_find(all, buf_slice(&value)) > 0);
}

static void test_private_by_default(void **state)
{
	static const char *const never[] = { "RTX", "550.54", "\"8.9\"", "12.4", "4.1.1", "6.1.1", "gb\":24", "/opt/secret", "cuda_version" };
	AUTO_BUF got = BUF_MAX(1 << 20);
	struct capabilities c = machine();

	(void)state;
	c.blender = (struct capability_software){ .status = CAPABILITY_ERROR, .message = "/opt/secret/blender: cannot run" };
	write(&c, false, true, &got);
	for (size_t i = 0; i < ARRAY_LEN(never); i++)
		assert_int_equal(slice_find(buf_slice(&got), slice_str(never[i])), -1);
	assert_non_null(strstr(buf_cstr(&got), "\"devices\":[{\"id\":\"gpu-0\",\"vendor\":\"nvidia\",\"capabilities\":[\"cuda\"]}],\"max_vram_gb\":16}"));
	assert_non_null(strstr(buf_cstr(&got), "\"diagnostics\":[{\"name\":\"blender\",\"status\":\"error\"}]"));
	assert_non_null(strstr(buf_cstr(&got), "\"vram_tier\":\"16-31\""));
	check_mac(&got);
}

static void test_bare_machine(void **state)
{
	struct capabilities c = { 0 };
	AUTO_BUF got = BUF_MAX(1 << 20);

	(void)state;
	write(&c, false, false, &got);
	assert_non_null(strstr(buf_cstr(&got), "\"job_types\":[],\"trust_modes\":[],\"gpu\":{\"status\":\"missing\",\"count\":0,\"vendors\":[],\"devices\":[]}"));
	assert_non_null(strstr(buf_cstr(&got), "\"runner_catalog\":[]"));
	assert_non_null(strstr(buf_cstr(&got), "\"capabilities\":[]"));
	assert_non_null(strstr(buf_cstr(&got), "\"vram_tier\":\"none\""));
	check_mac(&got);
	buf_clear(&got);
	write(&c, false, true, &got);      /* what lacks its needs is not offered */
	assert_non_null(strstr(buf_cstr(&got), "\"job_types\":[\"tenant.test-echo\"]"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vector),
		cmocka_unit_test(test_private_by_default),
		cmocka_unit_test(test_bare_machine),
	};
	struct err e;

	if (crypto_init(&e))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
