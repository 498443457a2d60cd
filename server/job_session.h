/*
 * What the commands about jobs share: their options, a client, a job by its id, the answer of the node. See client.h.
 *
 * Owns: all of it; session_done. Threads: main.
 */
#ifndef MSWARM_SERVER_JOB_SESSION_H
#define MSWARM_SERVER_JOB_SESSION_H

#include "server/client.h"

#define JOBS_PATH "/v1/swarm/self-hosted/node/generic-job-control/jobs"

struct job_words {
	struct client_options o;
	const char *job_id, *request_id, *job_type, *type, *schema_version, *job_file, *payload_file, *interval_ms;
	const char *artifact_path, *artifact_name, *content_type, *output;
	bool is_gpu, is_waiting, is_following, is_json;
};

struct job_session {
	struct client client;
	struct job_words w;
	struct buf token;
	char *job_id, *request_id, *job_type;
	struct json *answer;
	const char *words[2];           /* other words than the id */
	size_t n;
};

/* Options; then the job's id as a word (unless --job-id has it) when takes_id, and up to max_words others. */
MUST_CHECK enum errc session_load(struct cli *c, struct job_session *s, bool takes_id, size_t max_words, struct err *e);
void session_done(struct job_session *s);
MUST_CHECK enum errc session_keep(char **at, const char *value, struct err *e);
/* The job's path and rest behind it, onto out; the id percent-encoded. */
MUST_CHECK enum errc session_path(struct job_session *s, const char *rest, struct buf *out, struct err *e);
/* text percent-encoded onto out; slashes too unless they are kept. */
MUST_CHECK enum errc session_escape(const char *text, bool keeps_slash, struct buf *out, struct err *e);
/* One request about the job; s->answer is what came. */
MUST_CHECK enum errc session_call(struct job_session *s, const char *method, const char *rest, struct err *e);
/* s->answer, indented. Exit code. */
int session_print(struct job_session *s);

#endif
