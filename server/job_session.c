/* See job_session.h. Called by cmd_job.c and cmd_job_files.c. */
#include "server/job_session.h"

#include "base/mem.h"

void session_done(struct job_session *s)
{
	client_close(&s->client);
	buf_done(&s->token);
	json_free(s->answer);
	mem_free(s->job_id);
	mem_free(s->request_id);
	mem_free(s->job_type);
}

enum errc session_keep(char **at, const char *value, struct err *e)
{
	char *copy = mem_strdup(value);

	if (!copy)
		return err_set(e, E_NO_MEMORY, "no memory");
	mem_free(*at);
	*at = copy;
	return E_OK;
}

static enum errc keep_names(struct job_session *s, const char *const *words, size_t n, bool takes_id, struct err *e)
{
	struct job_words *w = &s->w;
	bool is_word = takes_id && !w->job_id;
	enum errc rc = E_OK;

	if (is_word && !n)
		return err_set(e, E_BAD_REQUEST, "jobId is required");
	if (takes_id)
		rc = session_keep(&s->job_id, is_word ? words[0] : w->job_id, e);
	for (size_t i = is_word; !rc && i < n; i++) {
		if (s->n == ARRAY_LEN(s->words))
			return err_set(e, E_BAD_REQUEST, "too many words: %.60s", words[i]);
		s->words[s->n++] = words[i];
	}
	if (!rc)
		rc = session_keep(&s->request_id, w->request_id ? w->request_id : "-", e);
	return rc ? rc : session_keep(&s->job_type, w->job_type ? w->job_type : w->type ? w->type : "-", e);
}

enum errc session_load(struct cli *c, struct job_session *s, bool takes_id, size_t max_words, struct err *e)
{
	struct job_words *w = &s->w;
	const struct cli_option options[] = {
		CLIENT_OPTIONS(w->o), { .flag = "--job-id", .value = &w->job_id }, { .flag = "--request-id", .value = &w->request_id },
		{ .flag = "--job-type", .value = &w->job_type }, { .flag = "--type", .value = &w->type },
		{ .flag = "--schema-version", .value = &w->schema_version }, { .flag = "--job-file", .value = &w->job_file },
		{ .flag = "--payload-file", .value = &w->payload_file }, { .flag = "--interval-ms", .value = &w->interval_ms },
		{ .flag = "--artifact-path", .value = &w->artifact_path }, { .flag = "--artifact-name", .value = &w->artifact_name },
		{ .flag = "--content-type", .value = &w->content_type }, { .flag = "--output", .value = &w->output },
		{ .flag = "--gpu", .is_set = &w->is_gpu }, { .flag = "--wait", .is_set = &w->is_waiting },
		{ .flag = "--follow", .is_set = &w->is_following }, { 0 },
	};
	const char *words[4];
	size_t n = 0;
	enum errc rc;

	w->is_json = cli_has_flag(c, "--json");
	buf_init(&s->token, 64u << 10);
	rc = cli_load(c, options, words, max_words + takes_id, &n, e);
	if (!rc)
		rc = keep_names(s, words, n, takes_id, e);
	return rc ? rc : client_open(c, &w->o, &s->client, e);
}

enum errc session_escape(const char *text, bool keeps_slash, struct buf *out, struct err *e)
{
	enum errc rc = E_OK;

	for (const char *p = text; !rc && *p; p++) {
		bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("-_.~", *p) ||
				(keeps_slash && *p == '/');

		rc = is_plain ? buf_add(out, p, 1, e) : buf_addf(out, e, "%%%02X", (unsigned char)*p);
	}
	return rc;
}

enum errc session_path(struct job_session *s, const char *rest, struct buf *out, struct err *e)
{
	enum errc rc = buf_add_str(out, JOBS_PATH "/", e);

	if (!rc)
		rc = session_escape(s->job_id, false, out, e);
	return rc ? rc : buf_add_str(out, rest, e);
}

enum errc session_call(struct job_session *s, const char *method, const char *rest, struct err *e)
{
	AUTO_BUF path = BUF_MAX(64u << 10);
	enum errc rc = client_token(&s->client, TOKEN_GENERIC, s->job_id, s->request_id, s->job_type, &s->token, e);

	if (!rc)
		rc = session_path(s, rest, &path, e);
	if (!rc)
		rc = client_call(&s->client, method, buf_cstr(&path), buf_slice(&s->token), slice_of("", 0), e);
	if (rc)
		return rc;
	json_free(s->answer);
	s->answer = NULL;
	if (json_parse(buf_slice(&s->client.body), JSON_LIMITS_DEFAULT, &s->answer, e))
		return err_set(e, E_UPSTREAM, "mswarm response was not valid JSON: %.120s", buf_cstr(&s->client.body));
	return E_OK;
}

int session_print(struct job_session *s)
{
	AUTO_BUF out = BUF_MAX(256u << 20);
	struct jw w = JW_PRETTY(&out);
	struct err e = { 0 };

	jw_tree(&w, NULL, s->answer);
	if (jw_done(&w, &e) || buf_add_str(&out, "\n", &e))
		return cli_fail(&e);
	return cli_print(buf_slice(&out));
}
