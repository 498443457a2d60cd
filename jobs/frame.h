/*
 * Reads the frames of an attempt's journal out of a block of bytes. Owns nothing: bytes borrow from the block. Any
 * thread. The format stands in jobs/shim/format.h.
 */
#ifndef MSWARM_JOBS_FRAME_H
#define MSWARM_JOBS_FRAME_H

#include "base/slice.h"
#include "jobs/shim/format.h"

struct frame {
	enum frame_kind kind;
	int64_t wall_ms;
	struct slice bytes;
};

enum frame_got {
	FRAME_GOT,
	FRAME_SHORT,         /* the block ends within a frame: more is to come, or a power cut tore it */
	FRAME_BROKEN,        /* no frame can begin here; what follows cannot be trusted */
};

enum frame_got frame_next(struct slice *in, struct frame *ret);

#endif
