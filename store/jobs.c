/*
 * Table "jobs": rows in and out. Called by the bodies of jobs/ and the routes. Threads: see jobs.h.
 */
#include "store/jobs.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/job_totals.h"
#include "store/store_priv.h"
#include "store/tenants.h"

#define FACTS "key, job_id, request_id, tenant_id, idempotency_key, job_type, schema_version, token_sha256, state, attempt, " \
	"priority, deadline_wall_ms, retry_count, max_retries, next_retry_wall_ms, created_wall_ms, updated_wall_ms, queued_wall_ms, " \
	"scheduled_wall_ms, started_wall_ms, finished_wall_ms, released_wall_ms, is_cancel_asked, next_sequence, last_event_type, " \
	"last_event_message, progress_percent, artifact_count, artifact_bytes, log_bytes, "
#define COLUMNS FACTS "backpressure, reservation, result, artifacts, validation_issues, request, is_direct"
#define BRIEF FACTS "NULL, reservation, NULL, NULL, NULL, '', is_direct"   /* the same places, without the documents */
enum { COL_KEY, COL_JOB_ID, COL_REQUEST_ID, COL_TENANT, COL_IDEMPOTENCY, COL_TYPE, COL_SCHEMA, COL_TOKEN, COL_STATE, COL_ATTEMPT,
	COL_PRIORITY, COL_DEADLINE, COL_RETRY_COUNT, COL_MAX_RETRIES, COL_NEXT_RETRY, COL_CREATED, COL_UPDATED, COL_QUEUED,
	COL_SCHEDULED, COL_STARTED, COL_FINISHED, COL_RELEASED, COL_CANCEL_ASKED, COL_NEXT_SEQUENCE, COL_LAST_TYPE, COL_LAST_MESSAGE,
	COL_PROGRESS, COL_ARTIFACT_COUNT, COL_ARTIFACT_BYTES, COL_LOG_BYTES, COL_BACKPRESSURE, COL_RESERVATION, COL_RESULT,
	COL_ARTIFACTS, COL_ISSUES, COL_REQUEST, COL_DIRECT };

const char *job_state_name(enum job_state s)
{
	static const char *const names[] = {
#define X(id, name) name,
		JOB_STATES(X)
#undef X
	};

	return (size_t)s < ARRAY_LEN(names) ? names[s] : "unknown";
}

void job_row_done(struct job_row *j)
{
	char **strings[] = { &j->job_id, &j->request_id, &j->tenant_id, &j->idempotency_key, &j->job_type, &j->schema_version,
		&j->token_sha256, &j->last_event_message, &j->backpressure, &j->reservation, &j->result, &j->artifacts,
		&j->validation_issues, &j->request };

	for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
		mem_free(*strings[i]);
		*strings[i] = NULL;
	}
}

/* ---- reading ---- */

static enum errc load_text(struct query *q, int col, char **ret, struct err *e)
{
	struct slice s;
	enum errc rc;

	if (sqlite3_column_type(q->st, col) == SQLITE_NULL)
		return E_OK;
	rc = query_slice(q, col, &s, e);
	if (rc)
		return rc;
	*ret = slice_dup(s);
	return *ret ? E_OK : err_set(e, E_NO_MEMORY, "store: no memory for a job of %zu bytes", s.n);
}

static enum errc load_texts(struct query *q, struct job_row *j, struct err *e)
{
	const struct {
		int col;
		char **at;
	} texts[] = {
		{ COL_JOB_ID, &j->job_id }, { COL_REQUEST_ID, &j->request_id }, { COL_TENANT, &j->tenant_id },
		{ COL_IDEMPOTENCY, &j->idempotency_key }, { COL_TYPE, &j->job_type }, { COL_SCHEMA, &j->schema_version },
		{ COL_TOKEN, &j->token_sha256 }, { COL_LAST_MESSAGE, &j->last_event_message },
		{ COL_BACKPRESSURE, &j->backpressure }, { COL_RESERVATION, &j->reservation }, { COL_RESULT, &j->result },
		{ COL_ARTIFACTS, &j->artifacts }, { COL_ISSUES, &j->validation_issues }, { COL_REQUEST, &j->request },
	};
	enum errc rc = E_OK;

	for (size_t i = 0; !rc && i < ARRAY_LEN(texts); i++)
		rc = load_text(q, texts[i].col, texts[i].at, e);
	return rc;
}

static enum errc load(struct query *q, struct job_row *ret, struct err *e)
{
	AUTO_JOB_ROW j = {
		.key = query_i64(q, COL_KEY), .attempt = query_i64(q, COL_ATTEMPT),
		.priority = query_i64(q, COL_PRIORITY), .deadline_wall_ms = query_i64(q, COL_DEADLINE),
		.retry_count = query_i64(q, COL_RETRY_COUNT), .max_retries = query_i64(q, COL_MAX_RETRIES),
		.next_retry_wall_ms = query_i64(q, COL_NEXT_RETRY), .created_wall_ms = query_i64(q, COL_CREATED),
		.updated_wall_ms = query_i64(q, COL_UPDATED), .queued_wall_ms = query_i64(q, COL_QUEUED),
		.scheduled_wall_ms = query_i64(q, COL_SCHEDULED), .started_wall_ms = query_i64(q, COL_STARTED),
		.finished_wall_ms = query_i64(q, COL_FINISHED), .released_wall_ms = query_i64(q, COL_RELEASED),
		.is_cancel_asked = query_i64(q, COL_CANCEL_ASKED) != 0, .next_sequence = query_i64(q, COL_NEXT_SEQUENCE),
		.last_event_type = query_i64(q, COL_LAST_TYPE), .progress_percent = -1,
		.artifact_count = query_i64(q, COL_ARTIFACT_COUNT), .artifact_bytes = query_i64(q, COL_ARTIFACT_BYTES),
		.log_bytes = query_i64(q, COL_LOG_BYTES), .is_direct = query_i64(q, COL_DIRECT) != 0,
	};
	int64_t state = query_i64(q, COL_STATE);
	enum errc rc;

	if (state < 0 || state >= JOB__COUNT)
		return err_set(e, E_IO, "store: job %lld is in state %lld", (long long)j.key, (long long)state);
	j.state = (enum job_state)state;
	if (sqlite3_column_type(q->st, COL_PROGRESS) != SQLITE_NULL)
		j.progress_percent = sqlite3_column_double(q->st, COL_PROGRESS);
	rc = load_texts(q, &j, e);
	if (rc)
		return rc;
	*ret = j;
	j = (struct job_row){ 0 };
	return E_OK;
}

static enum errc load_one(struct query *q, struct job_row *ret, struct err *e)
{
	bool has_row = false;
	enum errc rc = query_row(q, &has_row, e);

	if (!rc && !has_row)
		rc = err_set(e, E_JOB_NOT_FOUND, "Generic lifecycle job was not found");
	return rc ? rc : load(q, ret, e);
}

static const char sql_get[] = "SELECT " COLUMNS " FROM jobs WHERE key = ?1";

enum errc jobs_get(struct store_reader *r, int64_t key, struct job_row *ret, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, sql_get);

	query_bind_i64(&q, 1, key);
	return load_one(&q, ret, e);
}

enum errc jobs_get_request(struct store_reader *r, int64_t key, size_t max, char **ret, struct err *e)
{
	sqlite3_blob *b = NULL;
	int rc = sqlite3_blob_open(r->db.h, "main", "jobs", "request", key, 0, &b);
	enum errc code = E_OK;
	char *text = NULL;
	size_t n = 0;

	if (rc != SQLITE_OK) {
		code = rc == SQLITE_ERROR ? err_set(e, E_JOB_NOT_FOUND, "Generic lifecycle job was not found") : db_err(&r->db, rc, e);
		goto out;
	}
	n = (size_t)sqlite3_blob_bytes(b);
	if (n > max) {
		code = err_set(e, E_TOO_LARGE, "store: a request of %zu bytes, %zu at most are read here", n, max);
		goto out;
	}
	text = mem_calloc(n + 1, 1);
	if (!text) {
		code = err_set(e, E_NO_MEMORY, "store: no memory for a job of %zu bytes", n);
		goto out;
	}
	rc = sqlite3_blob_read(b, text, (int)n, 0);
	if (rc != SQLITE_OK) {
		code = db_err(&r->db, rc, e);
		goto out;
	}
	*ret = text;
	text = NULL;
out:
	mem_free(text);
	(void)sqlite3_blob_close(b);
	return code;
}

enum errc jobs_get_tx(struct store_tx *t, int64_t key, struct job_row *ret, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, sql_get);

	query_bind_i64(&q, 1, key);
	return load_one(&q, ret, e);
}

static const char sql_find[] = "SELECT " COLUMNS " FROM jobs WHERE job_id = ?1 AND is_direct = 0";

enum errc jobs_find_tx(struct store_tx *t, struct slice job_id, struct job_row *ret, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, sql_find);

	query_bind_text(&q, 1, job_id);
	return load_one(&q, ret, e);
}

enum errc jobs_find(struct store_reader *r, struct slice job_id, struct job_row *ret, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, sql_find);

	query_bind_text(&q, 1, job_id);
	return load_one(&q, ret, e);
}

enum errc jobs_find_idempotent_tx(struct store_tx *t, struct slice idempotency_key, struct job_row *ret, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT " COLUMNS " FROM jobs WHERE idempotency_key = ?1 AND is_direct = 0");

	query_bind_text(&q, 1, idempotency_key);
	return load_one(&q, ret, e);
}

enum errc jobs_get_brief(struct store_reader *r, int64_t key, struct job_row *ret, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT " BRIEF " FROM jobs WHERE key = ?1");

	query_bind_i64(&q, 1, key);
	return load_one(&q, ret, e);
}

enum errc jobs_walk_newest(struct store_reader *r, int64_t before_updated_wall_ms, int64_t before_key, size_t max,
			   enum errc (*fn)(void *ctx, const struct job_row *j, struct err *e), void *ctx, size_t *ret_n, struct err *e)
{
	AUTO_QUERY q = query_open(&r->db, "SELECT " BRIEF " FROM jobs WHERE (updated_wall_ms, key) < (?1, ?2) "
		"ORDER BY updated_wall_ms DESC, key DESC LIMIT ?3");
	size_t n = 0;
	bool has_row = true;
	enum errc rc;

	query_bind_i64(&q, 1, before_updated_wall_ms);
	query_bind_i64(&q, 2, before_key);
	query_bind_i64(&q, 3, (int64_t)max);
	rc = query_row(&q, &has_row, e);
	while (!rc && has_row) {
		AUTO_JOB_ROW j = { 0 };

		rc = load(&q, &j, e);
		if (!rc)
			rc = fn(ctx, &j, e);
		n++;
		if (!rc)
			rc = query_row(&q, &has_row, e);
	}
	*ret_n = n;
	return rc;
}

enum errc jobs_find_direct_tx(struct store_tx *t, struct slice job_id, struct job_row *ret, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "SELECT " COLUMNS " FROM jobs WHERE job_id = ?1 AND is_direct = 1 AND state < 4");

	query_bind_text(&q, 1, job_id);
	return load_one(&q, ret, e);
}

/* ---- writing ---- */

static void bind_text(struct query *q, int col, const char *s)
{
	if (s)
		query_bind_text(q, col + 1, slice_str(s));
}

/* Everything but the key, at the places of COLUMNS. */
static void bind(struct query *q, const struct job_row *j)
{
	const int64_t numbers[][2] = {
		{ COL_STATE, j->state }, { COL_ATTEMPT, j->attempt }, { COL_PRIORITY, j->priority }, { COL_DEADLINE, j->deadline_wall_ms },
		{ COL_RETRY_COUNT, j->retry_count }, { COL_MAX_RETRIES, j->max_retries }, { COL_NEXT_RETRY, j->next_retry_wall_ms },
		{ COL_CREATED, j->created_wall_ms }, { COL_UPDATED, j->updated_wall_ms }, { COL_QUEUED, j->queued_wall_ms },
		{ COL_SCHEDULED, j->scheduled_wall_ms }, { COL_STARTED, j->started_wall_ms }, { COL_FINISHED, j->finished_wall_ms },
		{ COL_RELEASED, j->released_wall_ms }, { COL_CANCEL_ASKED, j->is_cancel_asked }, { COL_NEXT_SEQUENCE, j->next_sequence },
		{ COL_LAST_TYPE, j->last_event_type }, { COL_ARTIFACT_COUNT, j->artifact_count },
		{ COL_ARTIFACT_BYTES, j->artifact_bytes }, { COL_LOG_BYTES, j->log_bytes }, { COL_DIRECT, j->is_direct },
	};

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		query_bind_i64(q, (int)numbers[i][0] + 1, numbers[i][1]);
	if (j->progress_percent >= 0 && q->rc == SQLITE_OK)
		q->rc = sqlite3_bind_double(q->st, COL_PROGRESS + 1, j->progress_percent);
	bind_text(q, COL_JOB_ID, j->job_id);
	bind_text(q, COL_REQUEST_ID, j->request_id);
	bind_text(q, COL_TENANT, j->tenant_id);
	bind_text(q, COL_IDEMPOTENCY, j->idempotency_key);
	bind_text(q, COL_TYPE, j->job_type);
	bind_text(q, COL_SCHEMA, j->schema_version);
	bind_text(q, COL_TOKEN, j->token_sha256);
	bind_text(q, COL_LAST_MESSAGE, j->last_event_message);
	bind_text(q, COL_BACKPRESSURE, j->backpressure);
	bind_text(q, COL_RESERVATION, j->reservation);
	bind_text(q, COL_RESULT, j->result);
	bind_text(q, COL_ARTIFACTS, j->artifacts);
	bind_text(q, COL_ISSUES, j->validation_issues);
	bind_text(q, COL_REQUEST, j->request);
}

/* Time-ordered and never given twice, whatever the clock does. */
static enum errc next_key(struct store_tx *t, int64_t *ret, struct err *e)
{
	int64_t by_clock = clock_wall_ms() << 20;

	if (!*t->last_key) {
		AUTO_QUERY q = query_open(t->db, "SELECT coalesce(max(key), 0) FROM jobs");
		bool has_row = false;
		enum errc rc = query_row(&q, &has_row, e);

		if (rc)
			return rc;
		*t->last_key = query_i64(&q, 0);
	}
	*ret = *t->last_key = *t->last_key >= by_clock ? *t->last_key + 1 : by_clock;
	return E_OK;
}

enum errc jobs_insert_tx(struct store_tx *t, struct job_row *j, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "INSERT INTO jobs (" COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, "
		"?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37)");
	int64_t key = 0;
	enum errc rc = next_key(t, &key, e);

	must(j->state == JOB_QUEUED);
	if (rc)
		return rc;
	query_bind_i64(&q, COL_KEY + 1, key);
	bind(&q, j);
	rc = query_run(&q, e);
	if (rc && (t->db->last_rc & 0xff) == SQLITE_CONSTRAINT)
		return err_set(e, E_CONFLICT, "job_id_conflict");
	if (!rc)
		rc = tenants_more_tx(t, j->tenant_id, e);
	if (rc)
		return rc;
	job_totals_add_tx(t, TOTAL_HELD_QUEUED, 1);
	job_totals_add_tx(t, TOTAL_CREATED, 1);
	j->key = key;
	return E_OK;
}

/* The sums and turns that hang on the state. */
static enum errc note_state(struct store_tx *t, const struct job_row *j, enum job_state from, struct err *e)
{
	static const enum job_total ended[JOB__COUNT] = { [JOB_SUCCEEDED] = TOTAL_SUCCEEDED, [JOB_FAILED] = TOTAL_FAILED,
		[JOB_CANCELLED] = TOTAL_CANCELLED, [JOB_EXPIRED] = TOTAL_EXPIRED, [JOB_BLOCKED] = TOTAL_BLOCKED };
	enum errc rc = E_OK;

	if (j->state == from)
		return E_OK;
	job_totals_add_tx(t, (enum job_total)(TOTAL_HELD_QUEUED + from), -1);
	job_totals_add_tx(t, (enum job_total)(TOTAL_HELD_QUEUED + j->state), 1);
	if (ended[j->state])
		job_totals_add_tx(t, ended[j->state], 1);
	if (ended[from])                       /* an ended job begins anew */
		job_totals_add_tx(t, ended[from], -1);
	if (from == JOB_QUEUED)
		rc = tenants_less_tx(t, j->tenant_id, e);
	if (!rc && j->state == JOB_QUEUED)
		rc = tenants_more_tx(t, j->tenant_id, e);
	return rc;
}

enum errc jobs_save_tx(struct store_tx *t, const struct job_row *j, enum job_state from, int64_t from_attempt, struct err *e)
{
	AUTO_QUERY q = query_open(t->db, "UPDATE jobs SET state = ?9, attempt = ?10, priority = ?11, deadline_wall_ms = ?12, "
		"retry_count = ?13, max_retries = ?14, next_retry_wall_ms = ?15, updated_wall_ms = ?17, queued_wall_ms = ?18, "
		"scheduled_wall_ms = ?19, started_wall_ms = ?20, finished_wall_ms = ?21, released_wall_ms = ?22, is_cancel_asked = ?23, "
		"next_sequence = ?24, last_event_type = ?25, last_event_message = ?26, progress_percent = ?27, artifact_count = ?28, "
		"artifact_bytes = ?29, log_bytes = ?30, backpressure = ?31, reservation = ?32, result = ?33, artifacts = ?34, "
		"validation_issues = ?35 WHERE key = ?1 AND state = ?38 AND attempt = ?39");
	enum errc rc;

	query_bind_i64(&q, COL_KEY + 1, j->key);
	bind(&q, j);
	query_bind_i64(&q, COL_DIRECT + 2, from);
	query_bind_i64(&q, COL_DIRECT + 3, from_attempt);
	rc = query_run(&q, e);
	if (rc)
		return rc;
	if (sqlite3_changes(t->db->h) != 1)
		return err_set(e, E_CONFLICT, "job %s is not %s in attempt %lld any more", j->job_id, job_state_name(from), (long long)from_attempt);
	return note_state(t, j, from, e);
}
