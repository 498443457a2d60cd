/*
 * Names of artifacts: safe relative paths, the label of a job id, uris, media types. Nothing here touches a file.
 *
 * Threads: any. Source: direct-api.md 4.8, 4.9; jobs-and-capabilities.md 3.1, 3.2.
 */
#ifndef MSWARM_JOBS_ARTIFACT_PATH_H
#define MSWARM_JOBS_ARTIFACT_PATH_H

#include "base/buf.h"

#define ARTIFACT_PATH_MAX 4096          /* bytes of a normalised path */

/* Onto out, normalised: segments joined by "/". E_BAD_REQUEST: "<label>_<reason of 4.8>". */
MUST_CHECK enum errc artifact_path(struct slice raw, const char *label, struct buf *out, struct err *e);
/* The job's name in uris: each character outside [A-Za-z0-9_.-] becomes "_". E_BAD_REQUEST: no segment of a path ("..", too long). */
MUST_CHECK enum errc artifact_label(struct slice job_id, struct buf *out, struct err *e);
/* "artifact://local/<label>/<path>" of this node into its two parts, decoded and normalised. False: it is none. */
bool artifact_uri_parse(struct slice uri, struct buf *label, struct buf *path) MUST_CHECK;
/* Percent escapes decoded onto out; what is none stays as it is. */
MUST_CHECK enum errc artifact_unescape(struct slice s, struct buf *out, struct err *e);
/* By the name's end; "application/octet-stream" when it says nothing. */
const char *artifact_media_type(struct slice path);

#endif
