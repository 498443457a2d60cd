/*
 * Redaction behind log.h: registered secrets, and what follows words such as "authorization:" (llm-execution.md 1.8).
 * Also looks behind a quote, as in JSON: "token":"x". Used by log.c; everybody else calls log_redact.
 *
 * Threads: any. Readers take no lock: secrets are only ever added, until log_secrets_clear at the end.
 */
#ifndef MSWARM_BASE_REDACT_H
#define MSWARM_BASE_REDACT_H

#include "base/slice.h"

/* Copy text with replacements, cut at cap - 1, NUL-terminated; returns the length. is_cut: text was cut at its end, so
 * that its last bytes may be the beginning of a secret; they go too. */
size_t redact_into(struct slice text, bool is_cut, char *out, size_t cap);
/* Length of the longest registered secret that text begins with, or 0. */
size_t redact_secret_at(struct slice text);

#endif
