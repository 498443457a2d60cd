/*
 * The chunked coding as a machine of five states, by bytes in the lines and by blocks in the data.
 * Called by base/httpc_direct.c.
 */
#include "base/dechunk.h"

#define SIZE_DIGITS_MAX 15                   /* 60 bits: no overflow to think of */

enum {
	IN_SIZE,                             /* the digits of a size */
	IN_EXTENSION,                        /* the rest of that line */
	IN_DATA,
	AFTER_DATA,                          /* the end of line behind it */
	IN_TRAILER,
	AT_END,
	IN_RUINS,
};

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A size line is whole. */
static void end_size(struct dechunk *d)
{
	d->line = 0;
	d->state = !d->digits ? IN_RUINS : d->left ? IN_DATA : IN_TRAILER;
	d->digits = 0;
}

static void take_size(struct dechunk *d, char c)
{
	int v = d->state == IN_SIZE ? digit(c) : -1;

	if (c == '\n') {
		end_size(d);
	} else if (v < 0) {
		d->state = IN_EXTENSION;     /* a CR, or a real one */
		if (++d->line > DECHUNK_LINE_MAX || !d->digits)
			d->state = IN_RUINS;
	} else if (++d->digits > SIZE_DIGITS_MAX) {
		d->state = IN_RUINS;
	} else {
		d->left = d->left << 4 | (unsigned)v;
	}
}

static void take_trailer(struct dechunk *d, char c)
{
	if (c == '\n') {
		d->state = d->has_text ? IN_TRAILER : AT_END;
		d->has_text = false;
	} else if (c != '\r') {
		d->has_text = true;
	}
	if (++d->line > DECHUNK_LINE_MAX)
		d->state = IN_RUINS;
}

/* The end of line behind the data of a chunk. */
static void take_gap(struct dechunk *d, char c)
{
	if (c == '\n')
		d->state = IN_SIZE;
	else if (c != '\r' || d->has_cr)
		d->state = IN_RUINS;
	d->has_cr = c == '\r';
}

static void take_byte(struct dechunk *d, char c)
{
	switch (d->state) {
	case IN_SIZE:
	case IN_EXTENSION:
		take_size(d, c);
		return;
	case IN_TRAILER:
		take_trailer(d, c);
		return;
	default:
		take_gap(d, c);
	}
}

enum dechunk_got dechunk_next(struct dechunk *d, struct slice *in, struct slice *ret_data)
{
	while (d->state < AT_END && in->n) {
		if (d->state == IN_DATA) {
			*ret_data = slice_cut(*in, d->left < in->n ? (size_t)d->left : in->n);
			*in = slice_from(*in, ret_data->n);
			d->left -= ret_data->n;
			if (!d->left)
				d->state = AFTER_DATA;
			return DECHUNK_DATA;
		}
		take_byte(d, in->p[0]);
		*in = slice_from(*in, 1);
	}
	return d->state == AT_END ? DECHUNK_END : d->state == IN_RUINS ? DECHUNK_BAD : DECHUNK_MORE;
}

void dechunk_back(struct dechunk *d, struct slice *in, struct slice data)
{
	d->left += data.n;
	d->state = IN_DATA;
	*in = slice_of(data.p, data.n + in->n);
}
