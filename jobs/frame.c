/* See frame.h. Called by the follower of a journal on the supervisor, and by readers of old ones on the pool. */
#include "jobs/frame.h"

#include "jobs/shim/crc32.h"

enum frame_got frame_next(struct slice *in, struct frame *ret)
{
	uint32_t crc, length;
	int64_t wall_ms;

	if (in->n < FRAME_HEAD)
		return FRAME_SHORT;
	memcpy(&crc, in->p, 4);
	memcpy(&length, in->p + 4, 4);
	memcpy(&wall_ms, in->p + 8, 8);
	if (length > FRAME_BYTES_MAX || in->p[16] < FRAME_OUT || in->p[16] > FRAME_NOTE || in->p[17] || in->p[18] || in->p[19])
		return FRAME_BROKEN;
	if (in->n < FRAME_HEAD + length)
		return FRAME_SHORT;
	if (crc32_add(0, in->p + 4, FRAME_HEAD - 4 + length) != crc)
		return FRAME_BROKEN;
	*ret = (struct frame){ .kind = (enum frame_kind)in->p[16], .wall_ms = wall_ms, .bytes = slice_of(in->p + FRAME_HEAD, length) };
	*in = slice_from(*in, FRAME_HEAD + length);
	return FRAME_GOT;
}
