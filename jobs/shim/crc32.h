/* CRC-32 as of IEEE 802.3 and zlib. Any thread; libc only, shared by the shim and the node. */
#ifndef MSWARM_JOBS_SHIM_CRC32_H
#define MSWARM_JOBS_SHIM_CRC32_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32_add(uint32_t crc, const void *p, size_t n);   /* crc: 0, or of the bytes before */

#endif
