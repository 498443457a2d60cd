/*
 * Structured log: one event, one line, to standard error.
 *   2026-11-24T15:00:00.000Z info node.started addr=127.0.0.1:18083 mode=local
 * Values are formatted by the caller; log_event quotes nothing, so pass free text through log_quote. Lines go into a
 * bounded ring (1 MiB) that the log thread empties: a stuck reader of stderr never blocks a loop; lines that do not
 * fit are counted and reported as log.dropped. Registered secrets and what follows words such as "authorization:" or
 * "api_key=" are replaced by [redacted] in every line.
 *
 * Threads: any. Before log_start and after log_stop lines are written directly.
 */
#ifndef MSWARM_BASE_LOG_H
#define MSWARM_BASE_LOG_H

#include "base/buf.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

#define LOG_MSG_MAX 2048

void log_set_level(enum log_level lvl);
bool log_is_on(enum log_level lvl);
bool log_level_parse(struct slice s, enum log_level *ret) MUST_CHECK;
MUST_CHECK enum errc log_start(struct err *e);   /* starts the log thread */
void log_stop(void);                             /* flushes and joins */
/* event is "noun.past_verb"; fmt holds key=value pairs. */
void log_event(enum log_level lvl, const char *event, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* "k=v" text of an error: code=E_IO what="..." ; into the caller's array, returns it. */
const char *log_err(const struct err *e, char *out, size_t cap);
/* Quote free text for a value: "..." with \" \\ \n escaped and cut to fit; returns out. */
const char *log_quote(struct slice s, char *out, size_t cap);
/* Context of this thread, added to its lines as " req=<id>"; NULL clears. Borrowed until cleared. */
void log_context(const char *request_id);

/* Secrets of 4 bytes and more; at most 64; kept until log_secrets_clear. Also used for texts sent to clients. */
void log_secret_add(struct slice secret);
void log_secrets_clear(void);
/* Replace registered secrets and values behind secret-looking words (llm-execution.md 1.8) in text, in place. */
void log_redact(struct buf *text);

#endif
