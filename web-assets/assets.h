/*
 * Files of web-assets/, embedded at build time. Everything is const. Threads: any.
 */
#ifndef MSWARM_WEB_ASSETS_H
#define MSWARM_WEB_ASSETS_H

#include <stddef.h>

struct asset {
	const char *name;          /* "index.html" */
	const char *type;          /* media type */
	const char *hash;          /* SHA-256 of the bytes, 64 hex digits */
	const char *bytes;         /* a NUL stands behind them */
	size_t n;
};

extern const struct asset assets[];
extern const size_t assets_count;

const struct asset *asset_find(const char *name);      /* NULL when there is none */

#endif
