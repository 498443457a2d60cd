/* The body of a create (R6). See job.h. Source: direct-api.md 2.10, 3.3. */
#include "base/clock.h"
#include "jobs/job.h"

#define DETAILS_BYTES 512          /* room for those of a usual job */

enum errc job_audit(struct store_tx *t, const struct job_row *j, enum audit_action action, int64_t now_wall_ms, struct slice details, struct err *e)
{
	struct audit_row a = { .job_key = j->key, .wall_ms = now_wall_ms, .action = action, .details = details };

	return audit_add_tx(t, &a, e);
}

static enum errc key_details(const struct job_row *j, bool has_priority, struct buf *out, struct err *e)
{
	struct jw w = JW(out);

	jw_obj(&w, NULL);
	jw_str(&w, "idempotency_key", j->idempotency_key);
	if (has_priority)
		jw_i64(&w, "priority", j->priority);
	jw_end(&w);
	return jw_done(&w, e);
}

static enum errc reuse(struct store_tx *t, struct job_create *c, struct err *e)
{
	AUTO_BUF details = BUF_MAX(64u << 10);
	const struct job_row *want = &c->wanted, *have = &c->found;
	enum errc rc;

	if (!slice_eq(slice_str(want->job_id), slice_str(have->job_id)) || !slice_eq(slice_str(want->request_id), slice_str(have->request_id)))
		return err_set(e, E_IDEMPOTENCY_CONFLICT, "idempotency_key_conflict");
	rc = key_details(have, false, &details, e);
	if (!rc)
		rc = job_audit(t, have, AUDIT_REUSED, clock_wall_ms(), buf_slice(&details), e);
	c->is_reused = true;
	return rc;
}

/* The row could not be written because one of its keys is there: the idempotency key comes first, then the id. */
static enum errc collide(struct store_tx *t, struct job_create *c, struct err *e)
{
	struct err missing;
	enum errc rc;

	if (c->wanted.is_direct)
		return err_set(e, E_JOB_RUNNING, "Generic job is already running on this node");
	rc = jobs_find_idempotent_tx(t, slice_str(c->wanted.idempotency_key), &c->found, &missing);
	if (!rc)
		return reuse(t, c, e);
	return rc == E_JOB_NOT_FOUND ? err_set(e, E_JOB_ID_CONFLICT, "job_id_conflict") : err_set(e, rc, "%s", missing.what);
}

static enum errc create(struct store_tx *t, struct store_job *job, struct err *e)
{
	struct job_create *c = CONTAINER_OF(job, struct job_create, job);
	int64_t now_ms = clock_wall_ms();
	enum errc rc;

	job_row_done(&c->found);
	c->is_reused = false;
	c->wanted.created_wall_ms = c->wanted.updated_wall_ms = c->wanted.queued_wall_ms = now_ms;
	rc = jobs_insert_tx(t, &c->wanted, e);
	if (rc == E_CONFLICT)
		return collide(t, c, e);
	buf_clear(&c->details);
	if (!rc)
		rc = key_details(&c->wanted, true, &c->details, e);
	c->audit[0] = (struct audit_row){ .job_key = c->wanted.key, .wall_ms = now_ms, .action = AUDIT_CREATED, .details = buf_slice(&c->details) };
	c->audit[1] = (struct audit_row){ .job_key = c->wanted.key, .wall_ms = now_ms, .action = AUDIT_QUEUED };
	if (!rc)
		rc = audit_add_tx(t, &c->audit[0], e);
	return rc ? rc : audit_add_tx(t, &c->audit[1], e);
}

void job_create_init(struct job_create *c)
{
	char *ignored;

	*c = (struct job_create){ .details = BUF_MAX(64u << 10), .job = { .name = "job.create", .body = create },
				  .wanted = { .state = JOB_QUEUED, .last_event_type = -1, .progress_percent = -1 } };
	/* Here, where it is freed as well: a block of the writer's heap would have the loop wait for that heap's lock. Without memory it
	 * grows there after all. */
	(void)!buf_reserve(&c->details, DETAILS_BYTES, &ignored, NULL);
}

void job_create_done(struct job_create *c)
{
	job_row_done(&c->wanted);
	job_row_done(&c->found);
	buf_done(&c->details);
}
