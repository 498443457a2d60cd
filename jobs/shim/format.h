/*
 * A journal's frames, as the shim writes them and jobs/frame.c reads them. Little-endian, without holes:
 *
 *   0  crc      CRC-32 of all that follows, the bytes included
 *   4  length   of the bytes
 *   8  wall_ms  when they were read from the job, Unix time
 *  16  kind     FRAME_OUT, FRAME_ERR: what the job wrote, cut anywhere; FRAME_NOTE: what the shim has to say
 *  17  three zeros, then the bytes
 */
#ifndef MSWARM_JOBS_SHIM_FORMAT_H
#define MSWARM_JOBS_SHIM_FORMAT_H

#define FRAME_HEAD	20
#define FRAME_BYTES_MAX	16384u

enum frame_kind { FRAME_OUT = 1, FRAME_ERR = 2, FRAME_NOTE = 3 };

#define SHIM_NO_ROOM	4               /* exit code: the disk had no room for the attempt's files, nothing was begun */

#endif
