/*
 * The bodies of the job plane through a real store: what they leave, in which order, and that a failing write anywhere
 * leaves exactly what was acknowledged, with the running sums equal to a recount.
 */
#include "jobs/job.h"
#include "tests/support/store_bed.h"
#include "tests/support/vfs_fault.h"

#include "base/clock.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define WALL_MS 1795600000000

static const struct capabilities no_gpu;

/* ---- the bodies, run and waited for ---- */

static void fill_create(struct job_create *c, const char *id, const char *tenant, const char *more)
{
	struct job_row *j = &c->wanted;
	AUTO_BUF key = BUF_MAX(2 * JOB_ID_MAX);
	char text[400];

	job_create_init(c);
	j->job_id = mem_strdup(id);
	j->request_id = mem_strdup("r");
	j->tenant_id = mem_strdup(tenant);
	assert_int_equal(buf_addf(&key, NULL, "%s:%s", tenant, id), E_OK);
	j->idempotency_key = mem_strdup(buf_cstr(&key));
	snprintf(text, sizeof(text), "{\"job_type\":\"tenant.test-echo\"%.120s}", more);
	j->job_type = mem_strdup("tenant.test-echo");
	j->schema_version = mem_strdup(JOB_SCHEMA_VERSION);
	j->token_sha256 = mem_strdup("00");
	j->request = mem_strdup(text);
}

static enum errc create(struct bed *b, const char *id, const char *tenant, const char *more)
{
	struct job_create c;
	struct err e = { 0 };
	enum errc rc;

	fill_create(&c, id, tenant, more);
	rc = store_run(b->s, &c.job, &e);
	job_create_done(&c);
	return rc;
}

/* How many begun; the ids of their jobs in *ids, with blanks between. */
static size_t claim(struct bed *b, struct job_claim *c, int64_t max, char *ids, size_t cap, enum errc *ret_rc)
{
	struct err e = { 0 };
	size_t at = 0;

	c->caps = &no_gpu;
	c->max_active = max;
	*ret_rc = store_run(b->s, &c->job, &e);
	ids[0] = '\0';
	for (size_t i = 0; !*ret_rc && i < c->n; i++)
		at += (size_t)snprintf(ids + at, cap - at, "%s%s", at ? " " : "", c->begun[i].job_id);
	return *ret_rc ? 0 : c->n;
}

static enum errc record(struct bed *b, int64_t key, int64_t attempt, const char *line, bool has_end, enum job_state to)
{
	struct job_record r;
	struct err e = { 0 };
	enum errc rc;

	job_record_init(&r);
	r.key = key;
	r.attempt = attempt;
	if (line)
		assert_int_equal(events_add(&r.events, EVENT_STDOUT, 8, WALL_MS, slice_str(line), SLICE("{}"), NULL), E_OK);
	r.at = (struct attempt_row){ .job_key = key, .attempt = attempt, .journal_bytes = 100, .out_lines = 1 };
	r.has_end = has_end;
	r.end.to = to;
	r.end.result = mem_strdup("{\"status\":\"x\"}");
	if (has_end)
		assert_int_equal(events_add(&r.events, to == JOB_SUCCEEDED ? EVENT_COMPLETED : EVENT_FAILED, 9000, WALL_MS, SLICE("end"), SLICE(""), NULL), E_OK);
	rc = store_run(b->s, &r.job, &e);
	job_record_done(&r);
	return rc;
}

/* ---- looking ---- */

static int64_t number(struct store_reader *r, const char *sql, int64_t arg)
{
	AUTO_QUERY q = query_open(&r->db, sql);
	bool has_row = false;
	struct err e = { 0 };

	query_bind_i64(&q, 1, arg);
	assert_int_equal(query_row(&q, &has_row, &e), E_OK);
	assert_true(has_row);
	return query_i64(&q, 0);
}

/* Every sum against the rows. */
static void recount(struct bed *b)
{
	struct store_reader *r = NULL;
	int64_t t[TOTAL__COUNT];
	struct err e = { 0 };

	assert_int_equal(store_reader_open(b->s, &r, &e), E_OK);
	assert_int_equal(job_totals_get(r, t, &e), E_OK);
	for (int s = 0; s < JOB__COUNT; s++)
		assert_int_equal(t[TOTAL_HELD_QUEUED + s], number(r, "SELECT count(*) FROM jobs WHERE state = ?1", s));
	assert_int_equal(t[TOTAL_CREATED], number(r, "SELECT count(*) FROM jobs WHERE ?1 = 0", 0));
	assert_int_equal(t[TOTAL_EVENTS], number(r, "SELECT count(*) FROM events WHERE ?1 = 0", 0));
	assert_int_equal(t[TOTAL_STDOUT_BYTES], number(r, "SELECT coalesce(sum(length(message)), 0) FROM events WHERE type = ?1", EVENT_STDOUT));
	assert_int_equal(t[TOTAL_AUDIT], number(r, "SELECT coalesce(sum(CASE WHEN action = ?1 THEN events ELSE 1 END), 0) FROM audit", AUDIT_EVENT));
	assert_int_equal(number(r, "SELECT coalesce(sum(waiting), 0) FROM tenants WHERE ?1 = 0", 0), t[TOTAL_HELD_QUEUED]);
	assert_int_equal(number(r, "SELECT count(*) FROM tenants WHERE waiting = ?1", 0), 0);
	assert_int_equal(t[TOTAL_SUCCEEDED], number(r, "SELECT count(*) FROM jobs WHERE state = ?1", JOB_SUCCEEDED));
	store_reader_close(r);
}

static bool find(struct bed *b, const char *id, struct job_row *ret)
{
	struct store_reader *r = NULL;
	struct err e = { 0 };
	enum errc rc;

	assert_int_equal(store_reader_open(b->s, &r, &e), E_OK);
	rc = jobs_find(r, slice_str(id), ret, &e);
	store_reader_close(r);
	assert_true(rc == E_OK || rc == E_JOB_NOT_FOUND);
	return rc == E_OK;
}

static void begin(struct bed *b)
{
	bed_init(b, NULL);
	bed_open(b);
	clock_test_set_wall_ms(WALL_MS);
}

static void end(struct bed *b)
{
	recount(b);
	clock_test_set_wall_ms(-1);
	bed_done(b);
}

/* ---- order and turns ---- */

static void test_create(void **state)
{
	struct bed b;
	AUTO_JOB_ROW j = { 0 };
	char *longest = mem_calloc(1, JOB_ID_MAX + 1);

	(void)state;
	begin(&b);
	memset(longest, 'x', JOB_ID_MAX);
	assert_int_equal(create(&b, "a", "t", ""), E_OK);
	assert_int_equal(create(&b, "a", "t", ""), E_OK);          /* the same again: reused */
	assert_int_equal(create(&b, "a", "u", ""), E_JOB_ID_CONFLICT);
	assert_int_equal(create(&b, longest, "t", ""), E_OK);
	assert_true(find(&b, "a", &j));
	assert_int_equal(j.state, JOB_QUEUED);
	assert_int_equal(j.key >> 20, WALL_MS);
	assert_int_equal(j.last_event_type, -1);
	mem_free(longest);
	end(&b);
}

static void test_the_request_alone(void **state)
{
	struct bed b;
	AUTO_JOB_ROW j = { 0 };
	AUTO_FREE char *request = NULL;
	struct store_reader *r = NULL;
	struct err e = { 0 };
	size_t n;

	(void)state;
	begin(&b);
	assert_int_equal(create(&b, "a", "t", ""), E_OK);
	assert_true(find(&b, "a", &j));
	n = strlen(j.request);
	assert_int_equal(store_reader_open(b.s, &r, &e), E_OK);
	assert_int_equal(jobs_get_request(r, j.key, n - 1, &request, &e), E_TOO_LARGE);
	assert_null(request);
	assert_int_equal(jobs_get_request(r, j.key + 1, n, &request, &e), E_JOB_NOT_FOUND);
	assert_int_equal(jobs_get_request(r, j.key, n, &request, &e), E_OK);
	assert_string_equal(request, j.request);
	store_reader_close(r);
	end(&b);
}

/* Tenants in turn, priority first, age within a tenant, and one tenant at a time. */
static void test_turns(void **state)
{
	struct bed b;
	struct job_claim c;
	char ids[256];
	enum errc rc;

	(void)state;
	begin(&b);
	job_claim_init(&c);
	for (int i = 0; i < 3; i++) {
		char id[8];

		snprintf(id, sizeof(id), "a%d", i);
		assert_int_equal(create(&b, id, "A", ""), E_OK);
		clock_test_set_wall_ms(WALL_MS + i + 1);
	}
	assert_int_equal(create(&b, "b0", "B", ""), E_OK);
	assert_int_equal(claim(&b, &c, 2, ids, sizeof(ids), &rc), 2);
	assert_string_equal(ids, "a0 a1");                         /* A came first, and fills its places */
	assert_int_equal(record(&b, c.begun[1].key, 1, "x", true, JOB_SUCCEEDED), E_OK);
	clock_test_set_wall_ms(WALL_MS + 20000);                   /* it has had its turn */
	assert_int_equal(claim(&b, &c, 2, ids, sizeof(ids), &rc), 0);
	recount(&b);
	{
		AUTO_JOB_ROW j = { 0 };

		assert_true(find(&b, "a0", &j));
		assert_int_equal(record(&b, j.key, 1, NULL, true, JOB_FAILED), E_OK);
	}
	assert_int_equal(claim(&b, &c, 2, ids, sizeof(ids), &rc), 1);
	assert_string_equal(ids, "b0");                            /* who was not served for longest */
	assert_int_equal(record(&b, c.begun[0].key, 1, NULL, true, JOB_SUCCEEDED), E_OK);
	assert_int_equal(claim(&b, &c, 2, ids, sizeof(ids), &rc), 1);
	assert_string_equal(ids, "a2");
	job_claim_done(&c);
	end(&b);
}

static void test_fence(void **state)
{
	struct bed b;
	struct job_claim c;
	char ids[64];
	enum errc rc;
	int64_t key;

	(void)state;
	begin(&b);
	job_claim_init(&c);
	assert_int_equal(create(&b, "a", "t", ""), E_OK);
	assert_int_equal(claim(&b, &c, 1, ids, sizeof(ids), &rc), 1);
	key = c.begun[0].key;
	assert_int_equal(record(&b, key, 2, "late", false, JOB_SUCCEEDED), E_CONFLICT);
	assert_int_equal(record(&b, key, 1, "one", false, JOB_SUCCEEDED), E_OK);
	assert_int_equal(record(&b, key, 1, "twice", false, JOB_SUCCEEDED), E_CONFLICT);   /* the place is taken */
	assert_int_equal(record(&b, key, 1, NULL, true, JOB_SUCCEEDED), E_OK);
	assert_int_equal(record(&b, key, 1, NULL, true, JOB_FAILED), E_CONFLICT);          /* it has an end */
	job_claim_done(&c);
	end(&b);
}

static void test_blocked_and_expired(void **state)
{
	struct bed b;
	struct job_claim c;
	AUTO_JOB_ROW j = { 0 };
	char ids[64];
	enum errc rc;

	(void)state;
	begin(&b);
	job_claim_init(&c);
	assert_int_equal(create(&b, "gpu", "t", ",\"resources\":{\"gpu\":{}}"), E_OK);
	assert_int_equal(claim(&b, &c, 1, ids, sizeof(ids), &rc), 0);
	assert_true(c.has_ended_some);
	assert_true(find(&b, "gpu", &j));
	assert_int_equal(j.state, JOB_BLOCKED);
	assert_non_null(strstr(j.result, "\"retryable\":true"));
	assert_non_null(strstr(j.backpressure, "no_capable_node"));
	job_claim_done(&c);
	end(&b);
}

/* ---- faults ---- */

static const struct {
	int code;
	bool is_sticky;
} faults[] = { { SQLITE_FULL, false }, { SQLITE_IOERR_WRITE, false }, { SQLITE_IOERR_NOMEM, false }, { SQLITE_IOERR_WRITE, true } };

/* One life of a job with the nth write failing; after a reopen exactly what was acknowledged stands. False: none failed. */
static bool run_fault(size_t f, uint64_t nth)
{
	struct bed b;
	struct job_claim c;
	AUTO_JOB_ROW j = { 0 };
	char ids[64];
	enum errc created, claimed = E_OK, recorded = E_OK;
	size_t n = 0;
	struct err e;
	bool was_hit;

	bed_init(&b, "fault");
	bed_open(&b);
	assert_int_equal(bed_sql(&b, "PRAGMA cache_size = 1", &e), E_OK);
	job_claim_init(&c);
	vfs_fault_set(VFS_FAULT_WRITE | VFS_FAULT_TRUNCATE, nth, faults[f].code, faults[f].is_sticky);
	created = create(&b, "a", "t", "");
	if (!created)
		n = claim(&b, &c, 1, ids, sizeof(ids), &claimed);
	if (n)
		recorded = record(&b, c.begun[0].key, 1, "line", true, JOB_SUCCEEDED);
	was_hit = vfs_fault_hits() > 0;
	vfs_fault_set(0, 0, 0, false);
	bed_close(&b);
	bed_open(&b);
	assert_int_equal(find(&b, "a", &j), created == E_OK);
	if (!created)
		assert_int_equal(j.state, claimed ? JOB_QUEUED : recorded ? JOB_RUNNING : JOB_SUCCEEDED);
	if (!created && !claimed)
		assert_int_equal(j.next_sequence, recorded ? 0 : 2);
	recount(&b);
	job_claim_done(&c);
	bed_done(&b);
	return was_hit;
}

static void test_a_write_fails(void **state)
{
	(void)state;
	for (size_t f = 0; f < ARRAY_LEN(faults); f++) {
		uint64_t nth = 1;

		while (run_fault(f, nth))
			nth++;
		assert_true(nth > 10);                 /* there were writes to fail */
	}
}

/* ---- three bodies in one transaction ---- */

static struct bed *batch_bed;           /* of the test that runs */

static void on_batch(struct loop_msg *m)
{
	(void)m;
	if (--batch_bed->pending == 0)
		loop_stop(batch_bed->loop);
}

static void submit(struct bed *b, struct store_job *j)
{
	struct err e = { 0 };

	j->loop = b->loop;
	j->done.fn = on_batch;
	b->pending++;
	assert_int_equal(store_submit(b->s, j, &e), E_OK);
}

/* A create, what a running job said, and another create, committed together, with the nth write failing: each stands or not as it was told. */
static bool run_batch(size_t f, uint64_t nth)
{
	struct bed b;
	struct job_claim c;
	struct job_create first, last;
	struct job_record r;
	AUTO_JOB_ROW a = { 0 };
	AUTO_JOB_ROW other = { 0 };
	AUTO_JOB_ROW third = { 0 };
	char ids[64];
	enum errc rc;
	struct err e;
	bool was_hit;

	bed_init(&b, "fault");
	batch_bed = &b;
	bed_open(&b);
	assert_int_equal(bed_sql(&b, "PRAGMA cache_size = 1", &e), E_OK);
	job_claim_init(&c);
	assert_int_equal(create(&b, "a", "t", ""), E_OK);
	assert_int_equal(claim(&b, &c, 1, ids, sizeof(ids), &rc), 1);
	fill_create(&first, "b", "t", "");
	fill_create(&last, "c", "u", "");
	job_record_init(&r);
	r.key = c.begun[0].key;
	r.attempt = 1;
	assert_int_equal(events_add(&r.events, EVENT_STDOUT, 8, WALL_MS, SLICE("line"), SLICE("{}"), NULL), E_OK);
	r.at = (struct attempt_row){ .job_key = r.key, .attempt = 1, .journal_bytes = 100, .out_lines = 1 };
	bed_hold(&b);
	submit(&b, &first.job);
	submit(&b, &r.job);
	submit(&b, &last.job);
	vfs_fault_set(VFS_FAULT_WRITE | VFS_FAULT_TRUNCATE, nth, faults[f].code, faults[f].is_sticky);
	bed_go(&b);
	bed_collect(&b);
	was_hit = vfs_fault_hits() > 0;
	vfs_fault_set(0, 0, 0, false);
	bed_close(&b);
	bed_open(&b);
	assert_int_equal(find(&b, "b", &other), first.job.rc == E_OK);
	assert_int_equal(find(&b, "c", &third), last.job.rc == E_OK);
	assert_true(find(&b, "a", &a));
	assert_int_equal(a.next_sequence, r.job.rc == E_OK);
	recount(&b);
	job_create_done(&first);
	job_create_done(&last);
	job_record_done(&r);
	job_claim_done(&c);
	bed_done(&b);
	return was_hit;
}

static void test_a_batch_of_three(void **state)
{
	(void)state;
	for (size_t f = 0; f < ARRAY_LEN(faults); f++) {
		uint64_t nth = 1;

		while (run_batch(f, nth))
			nth++;
		assert_true(nth > 5);
	}
}

static int set_up(void **state)
{
	struct err e;

	(void)state;
	if (db_init(&e))
		return -1;
	vfs_fault_register();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create), cmocka_unit_test(test_the_request_alone), cmocka_unit_test(test_turns), cmocka_unit_test(test_fence), cmocka_unit_test(test_blocked_and_expired),
		cmocka_unit_test(test_a_write_fails), cmocka_unit_test(test_a_batch_of_three),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
