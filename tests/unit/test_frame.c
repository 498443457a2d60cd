/* jobs/frame: frames come out as they went in, at any cut; what is torn or broken is told apart. */
#include "base/buf.h"
#include "jobs/frame.h"
#include "jobs/shim/crc32.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void put(struct buf *b, enum frame_kind kind, int64_t wall_ms, struct slice bytes)
{
	char head[FRAME_HEAD] = { 0 };
	uint32_t n = (uint32_t)bytes.n, crc;

	memcpy(head + 4, &n, 4);
	memcpy(head + 8, &wall_ms, 8);
	head[16] = (char)kind;
	crc = crc32_add(crc32_add(0, head + 4, FRAME_HEAD - 4), bytes.p, bytes.n);
	memcpy(head, &crc, 4);
	assert_int_equal(buf_add(b, head, FRAME_HEAD, NULL), E_OK);
	assert_int_equal(buf_add_slice(b, bytes, NULL), E_OK);
}

static void test_crc(void **state)
{
	(void)state;
	assert_int_equal(crc32_add(0, "123456789", 9), 0xcbf43926);    /* the check value of the catalogue */
	assert_int_equal(crc32_add(crc32_add(0, "1234", 4), "56789", 5), 0xcbf43926);
	assert_int_equal(crc32_add(0, "", 0), 0);
}

static void test_frames(void **state)
{
	AUTO_BUF b = BUF_MAX(1 << 20);
	struct frame f;

	(void)state;
	put(&b, FRAME_OUT, 1700000000123, SLICE("one\n"));
	put(&b, FRAME_ERR, -1, SLICE(""));
	put(&b, FRAME_NOTE, 0, slice_of("a\0b", 3));
	for (size_t cut = 0; cut <= b.n; cut++) {
		struct slice in = slice_cut(buf_slice(&b), cut);
		unsigned n = 0;

		while (frame_next(&in, &f) == FRAME_GOT)
			n++;
		assert_int_equal(frame_next(&in, &f), FRAME_SHORT);
		assert_int_equal(n, (cut >= 24) + (cut >= 44) + (cut >= 67));
	}
	struct slice in = buf_slice(&b);

	assert_int_equal(frame_next(&in, &f), FRAME_GOT);
	assert_true(f.kind == FRAME_OUT && f.wall_ms == 1700000000123 && slice_eq(f.bytes, SLICE("one\n")));
	assert_int_equal(frame_next(&in, &f), FRAME_GOT);
	assert_true(f.kind == FRAME_ERR && f.wall_ms == -1 && f.bytes.n == 0);
	assert_int_equal(frame_next(&in, &f), FRAME_GOT);
	assert_true(f.kind == FRAME_NOTE && slice_eq(f.bytes, slice_of("a\0b", 3)));
}

/* Any one changed bit of a frame is seen, but for a length that asks for more bytes than there are. */
static void test_changed_bits(void **state)
{
	AUTO_BUF b = BUF_MAX(1 << 20);
	struct frame f;

	(void)state;
	put(&b, FRAME_OUT, 1700000000123, SLICE("some bytes of a job"));
	for (size_t i = 0; i < b.n * 8; i++) {
		struct slice in = buf_slice(&b);

		b.p[i / 8] = (char)(b.p[i / 8] ^ 1 << i % 8);
		enum frame_got got = frame_next(&in, &f);

		b.p[i / 8] = (char)(b.p[i / 8] ^ 1 << i % 8);
		if (got == FRAME_GOT || (got == FRAME_SHORT && i / 32 != 1))
			fail_msg("bit %zu: %d", i, (int)got);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_changed_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
