/* The outbox of relayed jobs: one row an id, states that only go on, the first result stays, nothing comes back. */
#include "store/relay_jobs.h"
#include "tests/support/store_bed.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum what { CLAIM, RUN, END, FORGET };

struct deed {
	struct store_job job;
	enum what what;
	const char *id;
	int64_t seq;
	const char *result;
};

static enum errc body(struct store_tx *t, struct store_job *j, struct err *e)
{
	struct deed *d = CONTAINER_OF(j, struct deed, job);

	switch (d->what) {
	case CLAIM:
		return relay_claim_tx(t, d->id, "r", 1000, &d->seq, e);
	case RUN:
		return relay_run_tx(t, d->seq, e);
	case END:
		return relay_end_tx(t, d->seq, slice_str(d->result), e);
	case FORGET:
		break;
	}
	return relay_forget_tx(t, d->seq, e);
}

static enum errc deed(struct bed *b, enum what what, const char *id, int64_t *seq, const char *result)
{
	struct deed d = { .job = { .name = "test", .body = body }, .what = what, .id = id, .seq = *seq, .result = result };
	struct err e;
	enum errc rc = store_run(b->s, &d.job, &e);

	*seq = d.seq;
	return rc;
}

static void check_row(struct bed *b, size_t at, const char *id, enum relay_state want)
{
	struct store_reader *r = NULL;
	struct relay_row *rows = NULL;
	size_t n = 0;
	struct err e;

	assert_int_equal(store_reader_open(b->s, &r, &e), E_OK);
	assert_int_equal(relay_list(r, 0, 10, &rows, &n, &e), E_OK);
	assert_true(at < n);
	assert_string_equal(rows[at].job_id, id);
	assert_string_equal(rows[at].request_id, "r");
	assert_int_equal(rows[at].state, want);
	assert_int_equal(rows[at].claimed_wall_ms, 1000);
	relay_rows_free(rows, n);
	store_reader_close(r);
}

static void check_result(struct bed *b, int64_t seq, const char *want)
{
	struct store_reader *r = NULL;
	AUTO_BUF got = BUF_MAX(4096);
	struct err e;

	assert_int_equal(store_reader_open(b->s, &r, &e), E_OK);
	assert_int_equal(relay_result(r, seq, &got, &e), want ? E_OK : E_NOT_FOUND);
	if (want)
		assert_string_equal(buf_cstr(&got), want);
	store_reader_close(r);
}

static void test_life(void **state)
{
	int64_t a = 0, b_seq = 0, again = 0;
	struct bed b;

	(void)state;
	bed_init(&b, NULL);
	bed_open(&b);
	assert_int_equal(deed(&b, CLAIM, "a/1", &a, NULL), E_OK);
	assert_int_equal(deed(&b, CLAIM, "b", &b_seq, NULL), E_OK);
	assert_int_equal(deed(&b, CLAIM, "a/1", &again, NULL), E_CONFLICT);
	check_row(&b, 0, "a/1", RELAY_STARTING);
	check_result(&b, a, NULL);
	assert_int_equal(deed(&b, RUN, NULL, &a, NULL), E_OK);
	check_row(&b, 0, "a/1", RELAY_RUNNING);
	assert_int_equal(deed(&b, END, NULL, &a, "{\"status\":\"success\"}"), E_OK);
	assert_int_equal(deed(&b, END, NULL, &a, "{\"status\":\"failed\"}"), E_OK);
	assert_int_equal(deed(&b, RUN, NULL, &a, NULL), E_OK);       /* too late: it has ended */
	check_row(&b, 0, "a/1", RELAY_ENDING);
	check_result(&b, a, "{\"status\":\"success\"}");
	bed_close(&b);
	bed_open(&b);                          /* after a restart all the same */
	check_row(&b, 0, "a/1", RELAY_ENDING);
	check_row(&b, 1, "b", RELAY_STARTING);
	check_result(&b, a, "{\"status\":\"success\"}");
	assert_int_equal(deed(&b, FORGET, NULL, &a, NULL), E_OK);
	check_row(&b, 0, "b", RELAY_STARTING);
	check_result(&b, a, NULL);
	assert_int_equal(deed(&b, CLAIM, "a/1", &again, NULL), E_OK);
	assert_true(again > b_seq);            /* numbers are not used again */
	bed_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_life) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
