/*
 * HTTP's chunked transfer coding, taken apart as the bytes come (RFC 9112, 7.1). Extensions and trailers are skipped.
 * A bare LF ends a line as CRLF does: some runners write so, and curl takes it too.
 *
 * Owns nothing; what is handed out borrows from the input. Threads: its owner's only.
 */
#ifndef MSWARM_BASE_DECHUNK_H
#define MSWARM_BASE_DECHUNK_H

#include "base/slice.h"

#define DECHUNK_LINE_MAX	4096         /* bytes of one size line with its extension, and of all trailers */

struct dechunk {                             /* all zero: before the first byte */
	uint64_t left;                       /* bytes of the chunk still to come */
	uint32_t line;                       /* bytes of the extension, or of the trailers, so far */
	uint8_t state, digits;
	bool has_cr, has_text;
};

enum dechunk_got {
	DECHUNK_MORE,                        /* the input is used up */
	DECHUNK_DATA,                        /* *ret_data, never empty */
	DECHUNK_END,                         /* the coding is complete; what is left of the input belongs to no answer */
	DECHUNK_BAD,                         /* no chunked coding; nothing can follow */
};

enum dechunk_got dechunk_next(struct dechunk *d, struct slice *in, struct slice *ret_data);
/* Undo the last DECHUNK_DATA: its bytes are the next of the input again. */
void dechunk_back(struct dechunk *d, struct slice *in, struct slice data);

#endif
