/*
 * The body of R7 as it comes: a JSON object whose "content_base64" is decoded on the way and never held; the rest of it is kept,
 * with a short text in that place, and parsed when the body is whole. Members may come in any order.
 *
 * Threads: one at a time.
 */
#ifndef MSWARM_ROUTES_UPLOAD_JSON_H
#define MSWARM_ROUTES_UPLOAD_JSON_H

#include "base/buf.h"

#include <stdint.h>

#define UPLOAD_JSON_MAX (128ll << 20)   /* decoded bytes */
#define UPLOAD_JSON_REST_MAX (1u << 20) /* of everything else */

struct upload_json;
typedef enum errc upload_sink(void *ctx, struct slice bytes, struct err *e);

MUST_CHECK enum errc upload_json_new(struct upload_json **ret, struct err *e);
void upload_json_free(struct upload_json *j);   /* NULL is fine */
/* E_BAD_JSON: inside the content; E_TOO_LARGE: the rest; or what sink says. */
MUST_CHECK enum errc upload_json_feed(struct upload_json *j, struct slice bytes, upload_sink *sink, void *ctx, struct err *e);
/* The rest, to be parsed. Borrowed. */
struct slice upload_json_rest(const struct upload_json *j);

/* Once all is fed: how the last content_base64 was. */
enum upload_content { CONTENT_BLANK, CONTENT_INVALID, CONTENT_FINE };
enum upload_content upload_json_content(const struct upload_json *j);

#endif
