/*
 * What R4 and R6 share: from the request to the job in the store. The request is kept as it came; it is looked into only
 * as far as the queue needs. See generic_work.h. Source: direct-api.md 2.8, 2.10, 3.2, 3.3.
 */
#include "routes/generic_work.h"

#include "base/mem.h"
#include "jobs/supervisor.h"
#include "routes/node_job_gate.h"

#define BODY_POOL_BYTES (64u << 10)     /* a larger one is read on the pool */

void generic_work_free(struct generic_work *c)
{
	token_claims_done(&c->claims);
	job_create_done(&c->create);
	buf_done(&c->body);
	mem_free(c);
}

/* ---- what it says: on the pool when it is large ---- */

/* A string without escapes is compared as it stands. What is not there, or no string, equals no claim. */
static enum errc is_claimed(struct slice raw, const char *claim, bool *ret, struct err *e)
{
	AUTO_BUF text = BUF_MAX(JOB_ID_MAX + 6 * 1024);
	struct slice inner = raw.n >= 2 && raw.p[0] == '"' ? slice_of(raw.p + 1, raw.n - 2) : slice_of("", 0);
	struct err ignored;

	if (slice_find_char(inner, '\\') >= 0) {
		if (json_unquote(raw, &text, &ignored))
			return err_set(e, E_NO_MEMORY, "no memory");
		inner = buf_slice(&text);
	}
	*ret = slice_eq(inner, slice_str(claim));
	return E_OK;
}

/* The members that the token speaks of, of the body, then of its job; and those of the job that the queue asks after. */
enum { OF_NODE_ID, OF_JOB_ID, OF_REQUEST_ID, OF_JOB, OF_SCHEMA, OF_TYPE, OF_KEY, OF_METADATA, OF_SCHEDULING, OF__COUNT };
static const char *const keys[OF__COUNT] = { "node_id", "job_id", "request_id", "job", "schema_version", "job_type", "idempotency_key",
	"metadata", "scheduling" };

static bool is_object(struct slice v)
{
	return v.n && v.p[0] == '{';
}

/* The five checks of 2.8, and the two of 2.10. */
static enum errc check_claims(struct generic_work *c, struct slice body, struct slice v[OF__COUNT], struct err *e)
{
	const struct {
		int of;
		const char *claim, *text;
	} pairs[] = {
		{ OF_NODE_ID, c->claims.node_id, "generic job node_id does not match invocation token" },
		{ OF_JOB_ID, c->claims.job_id, "generic job_id does not match invocation token" },
		{ OF_REQUEST_ID, c->claims.request_id, "generic request_id does not match invocation token" },
		{ OF_SCHEMA, c->claims.schema_version, "generic schema_version does not match invocation token" },
		{ OF_TYPE, c->claims.job_type, "generic job_type does not match invocation token" },
	};

	if (is_object(body))
		(void)json_find_members(body, keys, v, OF_SCHEMA);
	if (is_object(v[OF_JOB]))
		(void)json_find_members(v[OF_JOB], keys + OF_SCHEMA, v + OF_SCHEMA, OF__COUNT - OF_SCHEMA);
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		bool is_same = false;
		enum errc rc = is_claimed(v[pairs[i].of], pairs[i].claim, &is_same, e);

		if (rc)
			return rc;
		if (!is_same)
			return err_set(e, E_BAD_REQUEST, "%s", pairs[i].text);
	}
	if (!slice_eq(slice_str(c->claims.node_id), slice_str(c->ctx->svc->node_id)))
		return err_set(e, E_BAD_REQUEST, "generic job token does not match this node or job");
	if (strlen(c->claims.job_id) > JOB_ID_MAX)
		return err_set(e, E_BAD_REQUEST, "job_id: %zu of at most %d bytes", strlen(c->claims.job_id), JOB_ID_MAX);
	return E_OK;
}

/*
 * The job as a tree, or NULL when it says nothing that the queue asks after: most do not, and a tree costs a tenth of a create. A
 * backslash may stand in a name, spelled otherwise.
 */
static enum errc read_job(const struct slice v[OF__COUNT], struct json **ret, struct err *e)
{
	bool is_asked = v[OF_KEY].p || v[OF_METADATA].p || v[OF_SCHEDULING].p;

	if (!is_asked && v[OF_JOB].n <= BODY_POOL_BYTES && slice_find_char(v[OF_JOB], '\\') < 0)
		return E_OK;
	return json_parse(v[OF_JOB], JSON_LIMITS_DEFAULT, ret, e);
}

static enum errc set(char **at, struct slice value, struct err *e)
{
	*at = slice_dup(value);
	return *at ? E_OK : err_set(e, E_NO_MEMORY, "no memory for a job");
}

/* tenant + ":" + (the request's own key, else the job id): 3.3. */
static enum errc set_idempotency(struct job_row *j, const struct job_facts *f, struct err *e)
{
	AUTO_BUF key = BUF_MAX(2u << 20);
	struct slice own = f->idempotency_key.n ? f->idempotency_key : slice_str(j->job_id);
	enum errc rc = buf_addf(&key, e, "%s:", j->tenant_id);

	if (!rc)
		rc = buf_add_slice(&key, own, e);
	return rc ? rc : set(&j->idempotency_key, slice_trim_js(buf_slice(&key)), e);
}

static enum errc set_token(struct req *q, struct job_row *j, struct err *e)
{
	uint8_t sum[SHA256_LEN];
	char hex[SHA256_HEX_LEN];

	crypto_sha256(token_from_header(req_header(q, "authorization")), sum);
	crypto_hex(sum, sizeof(sum), hex);
	return set(&j->token_sha256, slice_str(hex), e);
}

static enum errc fill(struct generic_work *c, const struct slice v[OF__COUNT], struct err *e)
{
	struct job_row *j = &c->create.wanted;
	AUTO_JSON job = NULL;
	struct job_facts f;
	enum errc rc = read_job(v, &job, e);

	if (rc)
		return rc;
	f = job_facts(job);
	j->priority = f.priority;
	j->deadline_wall_ms = f.deadline_wall_ms;
	j->max_retries = f.max_retries;
	rc = set(&j->job_id, slice_str(c->claims.job_id), e);
	if (!rc)
		rc = set(&j->request_id, slice_str(c->claims.request_id), e);
	if (!rc)
		rc = set(&j->schema_version, slice_str(c->claims.schema_version), e);
	if (!rc)
		rc = set(&j->job_type, slice_str(c->claims.job_type), e);
	if (!rc)
		rc = set(&j->tenant_id, f.tenant_id, e);
	if (!rc)
		rc = set_idempotency(j, &f, e);
	return rc ? rc : set(&j->request, v[OF_JOB], e);
}

static void prepare(struct generic_work *c)
{
	struct slice body = buf_slice(&c->body), v[OF__COUNT] = { { 0 } };

	c->rc = json_check(body, JSON_LIMITS_DEFAULT, &c->err);
	c->is_bad_json = c->rc == E_BAD_JSON;
	if (c->rc)
		return;
	if (slice_starts_with(body, SLICE("\xef\xbb\xbf")))
		body = slice_from(body, 3);
	body = slice_trim(body);
	c->rc = check_claims(c, body, v, &c->err);
	if (!c->rc)
		c->rc = fill(c, v, &c->err);
}

/* ---- to the store ---- */

static void fail(struct generic_work *c, const struct err *e)
{
	if (c->q)
		reply_fail(c->q, e);
	generic_work_free(c);
}

static void on_created(struct loop_msg *m)
{
	struct store_job *job = CONTAINER_OF(m, struct store_job, done);
	struct generic_work *c = CONTAINER_OF(CONTAINER_OF(job, struct job_create, job), struct generic_work, create);

	if (job->rc) {
		fail(c, &job->e);
		return;
	}
	if (!c->create.is_reused)
		supervisor_queued(c->ctx->svc->supervisor, c->create.wanted.deadline_wall_ms != 0);
	c->created(c);
}

static enum errc submit(struct generic_work *c)
{
	c->create.job.loop = c->ctx->loop;
	c->create.job.done.fn = on_created;
	return c->rc ? c->rc : store_submit(c->ctx->svc->store, &c->create.job, &c->err);
}

static void prepare_work(struct pool_job *p)    /* THREAD(pool) */
{
	prepare(CONTAINER_OF(p, struct generic_work, pool));
}

static void prepare_done(struct loop_msg *m)
{
	struct generic_work *c = CONTAINER_OF(m, struct generic_work, pool.done);

	if (!submit(c))
		return;
	if (!c->is_bad_json || !c->q) {
		fail(c, &c->err);
		return;
	}
	node_job_bad_json(&c->q->reply);
	reply_done(c->q);
	generic_work_free(c);
}

/* A create that was begun stands, whoever is there to hear of it. */
static void on_gone(struct req *q)
{
	struct generic_work *c = q->handler_state;

	c->q = NULL;
}

static enum errc work_new(struct req *q, struct token_claims *take_claims, enum generic_kind kind, struct generic_work **ret, struct err *e)
{
	struct generic_work *c = NEW(struct generic_work);
	enum errc rc;

	if (!c) {
		token_claims_done(take_claims);
		return err_set(e, E_NO_MEMORY, "no memory for a job");
	}
	job_create_init(&c->create);
	c->create.wanted.is_direct = kind != GENERIC_LIFECYCLE;
	c->is_stream = kind == GENERIC_STREAM;
	c->q = q;
	c->ctx = q->ctx;
	c->claims = *take_claims;
	c->body = req_take_body(q);
	rc = set_token(q, &c->create.wanted, e);
	if (rc)
		generic_work_free(c);
	else
		*ret = c;
	return rc;
}

enum errc generic_work_start(struct req *q, struct reply *rep, enum generic_kind kind, void (*created)(struct generic_work *c), struct err *e)
{
	struct token_claims claims = { 0 };
	enum errc rc = generic_gate(q, TOKEN_GENERIC, &claims, e);
	struct generic_work *c = NULL;

	if (rc)
		return rc;
	if (!node_job_media(q, rep, &rc, e)) {
		token_claims_done(&claims);
		return rc == E_BAD_REQUEST ? err_set(e, rc, "generic job node_id does not match invocation token") : rc;
	}
	rc = work_new(q, &claims, kind, &c, e);
	if (rc)
		return rc;
	c->created = created;
	c->pool = (struct pool_job){ .work = prepare_work, .loop = q->ctx->loop, .done = { .fn = prepare_done } };
	if (c->body.n > BODY_POOL_BYTES && !pool_submit(q->ctx->svc->pool, &c->pool, e)) {
		reply_later(q, c, on_gone);
		return E_OK;
	}
	prepare(c);
	rc = submit(c);
	if (!rc) {
		reply_later(q, c, on_gone);
		return E_OK;
	}
	if (c->is_bad_json) {
		node_job_bad_json(rep);
		rc = E_OK;
	}
	*e = c->err;
	generic_work_free(c);
	return rc;
}
