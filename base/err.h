/*
 * The one error type: a code for machines, a text for people.
 *
 * The table maps each code to an HTTP status, to "may be tried again", to the wire name of the flat shape
 * {"error":class,"code":name,"message":text} used under /v1/swarm/, and to type and code of the OpenAI shape
 * {"error":{"message","type","param","code"}} used under /v1/. An empty OpenAI code is sent as null.
 *
 * Threads: any; a struct err belongs to its caller.
 */
#ifndef MSWARM_BASE_ERR_H
#define MSWARM_BASE_ERR_H

#include "base/attr.h"

#include <stdbool.h>

/*	 code                    http retry  flat code                  OpenAI type              OpenAI code */
#define ERR_CODES(X) \
	X(E_OK,                  200, 0, "ok",                       "",                      "") \
	X(E_BAD_REQUEST,         400, 0, "validation_failed",        "invalid_request_error", "") \
	X(E_BAD_JSON,            400, 0, "invalid_json",             "invalid_request_error", "") \
	X(E_INVALID_VALUE,       400, 0, "validation_failed",        "invalid_request_error", "invalid_value") \
	X(E_UNSUPPORTED_VALUE,   400, 0, "unsupported_value",        "invalid_request_error", "unsupported_value") \
	X(E_MISSING_PARAMETER,   400, 0, "validation_failed",        "invalid_request_error", "missing_required_parameter") \
	X(E_UNAUTHORIZED,        401, 0, "unauthorized",             "invalid_request_error", "invalid_api_key") \
	X(E_FORBIDDEN,           403, 0, "policy_denied",            "invalid_request_error", "policy_denied") \
	X(E_OWNER_LOCAL,         403, 0, "owner_local_required",     "invalid_request_error", "owner_local_required") \
	X(E_HOST_DENIED,         403, 0, "host_denied",              "invalid_request_error", "host_denied") \
	X(E_ORIGIN_DENIED,       403, 0, "origin_denied",            "invalid_request_error", "origin_denied") \
	X(E_FORWARDED_DENIED,    403, 0, "forwarded_denied",         "invalid_request_error", "forwarded_denied") \
	X(E_NOT_FOUND,           404, 0, "not_found",                "invalid_request_error", "") \
	X(E_MODEL_NOT_FOUND,     404, 0, "model_not_found",          "invalid_request_error", "model_not_found") \
	X(E_JOB_NOT_FOUND,       404, 0, "job_not_found",            "invalid_request_error", "job_not_found") \
	X(E_ARTIFACT_NOT_FOUND,  404, 0, "artifact_not_found",       "invalid_request_error", "artifact_not_found") \
	X(E_JOB_NOT_RUNNING,     404, 0, "job_not_running",          "invalid_request_error", "job_not_running") \
	X(E_FEATURE_DISABLED,    404, 0, "feature_disabled",         "invalid_request_error", "feature_disabled") \
	X(E_METHOD,              405, 0, "method_not_allowed",       "invalid_request_error", "") \
	X(E_REQUEST_TIMEOUT,     408, 1, "request_timeout",          "invalid_request_error", "request_timeout") \
	X(E_CONFLICT,            409, 0, "conflict",                 "invalid_request_error", "conflict") \
	X(E_IDEMPOTENCY_CONFLICT, 409, 0, "idempotency_key_conflict", "invalid_request_error", "idempotency_key_conflict") \
	X(E_JOB_ID_CONFLICT,     409, 0, "job_id_conflict",          "invalid_request_error", "job_id_conflict") \
	X(E_JOB_RUNNING,         409, 0, "job_already_running",      "invalid_request_error", "job_already_running") \
	X(E_TOO_LARGE,           413, 0, "request_too_large",        "invalid_request_error", "request_too_large") \
	X(E_MEDIA_TYPE,          415, 0, "unsupported_media_type",   "invalid_request_error", "unsupported_media_type") \
	X(E_RANGE,               416, 0, "range_not_satisfiable",    "invalid_request_error", "range_not_satisfiable") \
	X(E_HEADERS_TOO_LARGE,   431, 0, "headers_too_large",        "invalid_request_error", "headers_too_large") \
	X(E_RATE_LIMITED,        429, 1, "rate_limit_exceeded",      "rate_limit_error",      "rate_limit_exceeded") \
	X(E_CANCELLED,           499, 0, "cancelled",                "invalid_request_error", "cancelled") \
	X(E_INTERNAL,            500, 0, "internal_error",           "server_error",          "internal_error") \
	X(E_IO,                  500, 0, "io_error",                 "server_error",          "internal_error") \
	X(E_NO_MEMORY,           503, 1, "no_memory",                "server_error",          "no_memory") \
	X(E_UPSTREAM,            502, 1, "upstream_error",           "server_error",          "upstream_error") \
	X(E_UNHEALTHY,           503, 1, "selected_agent_unhealthy", "server_error",          "selected_agent_unhealthy") \
	X(E_DRAINING,            503, 1, "node_draining",            "server_error",          "node_draining") \
	X(E_BUSY,                503, 1, "node_busy",                "server_error",          "node_busy") \
	X(E_AT_CAPACITY,         503, 1, "node_at_capacity",         "server_error",          "node_at_capacity") \
	X(E_MISSING_CONFIG,      503, 0, "missing_config",           "server_error",          "missing_config") \
	X(E_READ_ONLY,           503, 1, "store_read_only",          "server_error",          "store_read_only") \
	X(E_OUTCOME_UNKNOWN,     500, 0, "outcome_unknown",          "server_error",          "outcome_unknown") \
	X(E_NO_SPACE,            507, 0, "insufficient_storage",     "server_error",          "insufficient_storage") \
	X(E_TIMEOUT,             504, 0, "timeout",                  "server_error",          "timeout")

enum errc {
#define X(code, http, retry, flat, type, oai) code,
	ERR_CODES(X)
#undef X
	ERR__COUNT
};

struct err {
	enum errc code;
	int os_errno;     /* 0 when no system call was to blame */
	char param[64];   /* OpenAI "param": path of the offending member, or empty (sent as null) */
	char what[240];   /* the text; names the thing and the numbers, never a secret, never the whole input */
};

/* Fill *e (which may be NULL) and return code, so that "return err_set(...)" works. Text is cut at its limit on a
 * UTF-8 boundary. err_set clears param. */
enum errc err_set(struct err *e, enum errc code, const char *fmt, ...) PRINTF_LIKE(3, 4);
enum errc err_set_param(struct err *e, enum errc code, const char *param, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* As err_set, with ": <text of os_errno>" appended (strerror_r; the plain one is banned). */
enum errc err_set_os(struct err *e, enum errc code, int os_errno, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Put "<text>: " in front of the text that is there. Returns e->code. */
enum errc err_prefix(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

int err_http_status(enum errc code);
bool err_is_retryable(enum errc code);
const char *err_name(enum errc code);        /* flat wire code, "validation_failed" */
const char *err_class(int http_status);      /* flat "error" member: "bad_request", "unauthorized", ... */
const char *err_openai_type(enum errc code);
const char *err_openai_code(enum errc code); /* NULL where the wire says null */
const char *err_symbol(enum errc code);      /* "E_BAD_REQUEST", for logs and the reference page */

#endif
