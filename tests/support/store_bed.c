/* See store_bed.h. */
#include "tests/support/store_bed.h"

#include "base/clock.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void bed_init(struct bed *b, const char *vfs)
{
	const char *tmp = getenv("TMPDIR");
	struct err e;

	*b = (struct bed){ .vfs = vfs, .max_queued = 64 };
	(void)snprintf(b->folder, sizeof(b->folder), "%.60s/mswarm-store-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	must(mkdtemp(b->folder));
	(void)snprintf(b->path, sizeof(b->path), "%s/node.db", b->folder);
	must(loop_new("test", &b->loop, &e) == E_OK);
	must(sem_init(&b->gate_entered, 0, 0) == 0 && sem_init(&b->gate_open, 0, 0) == 0);
}

static void on_broken(void *ctx)
{
	struct bed *b = ctx;

	atomic_fetch_add(&b->broken_calls, 1);
}

enum errc bed_try_open(struct bed *b, struct err *e)
{
	const struct store_opts o = { .path = b->path, .max_queued = b->max_queued, .on_broken = on_broken, .ctx = b, .vfs = b->vfs };

	return store_open(&o, &b->s, e);
}

void bed_open(struct bed *b)
{
	struct err e = { 0 };

	if (bed_try_open(b, &e) || bed_sql(b, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, pad BLOB) STRICT", &e)) {
		(void)fprintf(stderr, "bed_open: %s\n", e.what);
		abort();
	}
}

void bed_close(struct bed *b)
{
	store_close(b->s);
	b->s = NULL;
}

void bed_done(struct bed *b)
{
	DIR *d;
	struct dirent *f;

	bed_close(b);
	loop_free(b->loop);
	(void)sem_destroy(&b->gate_entered);
	(void)sem_destroy(&b->gate_open);
	d = opendir(b->folder);
	must(d);
	while ((f = readdir(d)))
		(void)unlinkat(dirfd(d), f->d_name, 0);
	(void)closedir(d);
	(void)rmdir(b->folder);
}

void bed_path(const struct bed *b, const char *suffix, char out[160])
{
	(void)snprintf(out, 160, "%s%s", b->path, suffix);
}

int64_t bed_file_size(const struct bed *b, const char *suffix)
{
	char path[160];
	struct stat st;

	bed_path(b, suffix, path);
	return stat(path, &st) < 0 ? -1 : (int64_t)st.st_size;
}

/* ---- jobs ---- */

static enum errc gate_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	struct bed *b = CONTAINER_OF(j, struct bed, gate);

	(void)t;
	(void)e;
	sem_post(&b->gate_entered);
	while (sem_wait(&b->gate_open) < 0)
		;
	return E_OK;
}

void bed_hold(struct bed *b)
{
	struct err e;

	b->gate = (struct store_job){ .name = "gate", .body = gate_body };
	must(store_submit(b->s, &b->gate, &e) == E_OK);
	while (sem_wait(&b->gate_entered) < 0)
		;
}

void bed_go(struct bed *b)
{
	sem_post(&b->gate_open);
}

static enum errc put_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	struct put *p = CONTAINER_OF(j, struct put, job);
	AUTO_QUERY q = query_open(t->db, "INSERT INTO t (id, pad) VALUES (?1, randomblob(?2))");
	enum errc rc;

	p->runs++;
	query_bind_i64(&q, 1, p->id);
	query_bind_i64(&q, 2, p->bytes);
	rc = query_run(&q, e);
	if (rc)
		p->saw_failure = true;
	if (p->is_careless)
		return E_OK;
	if (!rc && p->fail_with)
		return err_set(e, p->fail_with, "asked to fail");
	return rc;
}

static void on_done(struct loop_msg *m)
{
	struct put *p = CONTAINER_OF(m, struct put, job.done);

	if (--p->bed->pending == 0)
		loop_stop(p->bed->loop);
}

void put_init(struct put *p, struct bed *b, int64_t id, int64_t bytes)
{
	*p = (struct put){ .bed = b, .id = id, .bytes = bytes };
	p->job = (struct store_job){ .name = "test.put", .body = put_body, .loop = b->loop, .done.fn = on_done };
}

void put_submit(struct put *p)
{
	struct err e;

	p->bed->pending++;
	must(store_submit(p->bed->s, &p->job, &e) == E_OK);
}

enum errc put_run(struct bed *b, int64_t id, int64_t bytes, struct err *e)
{
	struct put p;

	put_init(&p, b, id, bytes);
	return store_run(b->s, &p.job, e);
}

void bed_collect(struct bed *b)
{
	if (b->pending > 0)
		loop_run(b->loop);
}

struct sql_job {
	struct store_job job;
	const char *sql;
};

static enum errc sql_body(struct store_tx *t, struct store_job *j, struct err *e)
{
	return db_exec(t->db, CONTAINER_OF(j, struct sql_job, job)->sql, e);
}

enum errc bed_sql(struct bed *b, const char *sql, struct err *e)
{
	struct sql_job j = { .job = { .name = "test.sql", .body = sql_body }, .sql = sql };

	return store_run(b->s, &j.job, e);
}

/* ---- looking ---- */

static int64_t look(struct bed *b, int64_t id, int64_t fallback)
{
	struct store_reader *r = NULL;
	struct err e = { 0 };
	bool has_row = false;
	int64_t v = fallback;

	if (store_reader_open(b->s, &r, &e)) {
		(void)fprintf(stderr, "look: %s\n", e.what);
		abort();
	}
	{
		AUTO_QUERY q = query_open(&r->db, "SELECT count(*) FROM t WHERE ?1 < 0 OR id = ?1");

		query_bind_i64(&q, 1, id);
		if (query_row(&q, &has_row, &e) || !has_row) {
			(void)fprintf(stderr, "look: %s\n", e.what);
			abort();
		}
		v = query_i64(&q, 0);
	}
	store_reader_close(r);
	return v;
}

bool bed_has(struct bed *b, int64_t id)
{
	return look(b, id, 0) == 1;
}

int64_t bed_count(struct bed *b)
{
	return look(b, -1, 0);
}

bool bed_wait_until(bool (*is_so)(struct bed *b), struct bed *b, int64_t limit_ms)
{
	struct timespec t0, t;

	/* Not clock_mono_ms: the test may turn that by hand. */
	(void)clock_gettime(CLOCK_MONOTONIC, &t0);
	while (!is_so(b)) {
		(void)clock_gettime(CLOCK_MONOTONIC, &t);
		if ((t.tv_sec - t0.tv_sec) * 1000 > limit_ms)
			return false;
		(void)poll(NULL, 0, 1);
	}
	return true;
}

static bool is_ok(struct bed *b) { return store_state(b->s) == STORE_OK; }
static bool is_full(struct bed *b) { return store_state(b->s) == STORE_FULL; }
static bool is_broken(struct bed *b) { return store_state(b->s) == STORE_BROKEN; }

bool bed_wait_state(struct bed *b, enum store_state st, int64_t limit_ms)
{
	return bed_wait_until(st == STORE_OK ? is_ok : st == STORE_FULL ? is_full : is_broken, b, limit_ms);
}
