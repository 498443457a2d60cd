/*
 * What the node is measured against: the same rows written by SQLite alone, and processes started by a loop alone.
 *
 *   raw commit DB JOBS BATCH   job, two audit rows, turn and sums of each, BATCH of them a transaction, WAL, synchronous FULL: as
 *                              many writers of one job each in a perfect group commit       ->  {"done", "seconds"}
 *   raw group DB JOBS WRITERS  the same rows by so many threads, each of which writes one job at a time and waits for its commit; a thread
 *                              of its own takes all that wait into one transaction: group commit as it is, without HTTP
 *                                                              ->  {"done", "seconds"}
 *   raw spawn FOLDER JOBS      one after the other: a shell that prints a line is started, waited for, and two files are written
 *                              and synced                                                  ->  {"done", "seconds"}
 *
 *   raw watch                  until its input ends: when the machine stood still. On each processor a thread that nothing else may
 *                              take it from (SCHED_FIFO; needs root) wakes each millisecond; what makes it late by more than one
 *                              is no program's doing                    ->  [[processor, when as Unix us, for how many us], ...]
 *
 * DB is a database that a node has made: schema and indexes are the node's.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must_be(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "raw: %s\n", what);
		exit(1);
	}
}

/* ---- commit ---- */

#define SQL_COUNT 5

static const char *const sql[SQL_COUNT] = {
	"INSERT INTO jobs (key, job_id, is_direct, request_id, tenant_id, idempotency_key, job_type, schema_version, token_sha256, state, attempt, "
	"priority, deadline_wall_ms, retry_count, max_retries, next_retry_wall_ms, created_wall_ms, updated_wall_ms, queued_wall_ms, "
	"scheduled_wall_ms, started_wall_ms, finished_wall_ms, released_wall_ms, is_cancel_asked, next_sequence, last_event_type, artifact_count, "
	"artifact_bytes, log_bytes, request) VALUES (?1, ?2, 0, ?2, 'owner-local', 'owner-local:' || ?2, 'tenant.test-echo', '2026-06-14', ?3, 0, 0, "
	"0, 0, 0, 0, 0, ?4, ?4, ?4, 0, 0, 0, 0, 0, 0, -1, 0, 0, 0, ?5)",
	"INSERT INTO audit (job_key, wall_ms, action, first_sequence, events, details) VALUES (?1, ?4, 0, 0, 0, ?5)",
	"INSERT INTO audit (job_key, wall_ms, action, first_sequence, events, details) VALUES (?1, ?4, 1, 0, 0, NULL)",
	"INSERT INTO tenants (tenant_id, waiting, served) VALUES ('owner-local', 1, 0) ON CONFLICT (tenant_id) DO UPDATE SET waiting = waiting + 1",
	"INSERT INTO job_totals (id, value) VALUES (?1, 1) ON CONFLICT (id) DO UPDATE SET value = value + 1",
};

static void run(sqlite3_stmt *st)
{
	must_be(sqlite3_step(st) == SQLITE_DONE, "a statement");
	sqlite3_reset(st);
}

static void write_job(sqlite3_stmt **st, int64_t key, const char *request)
{
	char id[64], sum[65];

	snprintf(id, sizeof(id), "job-%08llx-0000-4000-8000-%012llx", (unsigned long long)key & 0xffffffff, (unsigned long long)key & 0xffffffffffff);
	memset(sum, 'a', 64);
	sum[64] = '\0';
	for (int i = 0; i < 3; i++) {
		sqlite3_bind_int64(st[i], 1, key);
		sqlite3_bind_int64(st[i], 4, 1795600000000);
	}
	sqlite3_bind_text(st[0], 2, id, -1, SQLITE_TRANSIENT);
	sqlite3_bind_text(st[0], 3, sum, -1, SQLITE_STATIC);
	sqlite3_bind_text(st[0], 5, request, -1, SQLITE_STATIC);
	sqlite3_bind_text(st[1], 5, "{\"job_type\":\"tenant.test-echo\",\"priority\":0}", -1, SQLITE_STATIC);
	for (int i = 0; i < 4; i++)
		run(st[i]);
	for (int total = 0; total < 4; total++) {      /* waiting, created, audit twice: the sums that a create changes */
		sqlite3_bind_int64(st[4], 1, 60 + total);
		run(st[4]);
	}
}

static const char request[] = "{\"schema_version\":\"2026-06-14\",\"job_type\":\"tenant.test-echo\",\"args\":{\"message\":\"hi\"},"
			      "\"policy\":{\"trust_mode\":\"owner-local\"}}";
#define FIRST_KEY (1795600000000ll << 20)

static sqlite3 *open_db(const char *path, sqlite3_stmt *st[SQL_COUNT])
{
	sqlite3 *db;

	must_be(sqlite3_open(path, &db) == SQLITE_OK, "open");
	must_be(sqlite3_exec(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 2000", NULL, NULL, NULL) == SQLITE_OK, "pragmas");
	for (int i = 0; i < SQL_COUNT; i++)
		must_be(sqlite3_prepare_v2(db, sql[i], -1, &st[i], NULL) == SQLITE_OK, sqlite3_errmsg(db));
	return db;
}

/* ---- group: writers that wait ---- */

struct writer {
	pthread_t thread;
	sem_t is_done;
	struct writer *next;
};

static struct {
	pthread_mutex_t mu;
	pthread_cond_t work;
	struct writer *waiting;
	int left;                      /* jobs that nobody has taken yet */
	int running;                   /* writers that may still come */
} queue = { .mu = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER };

static void *write_jobs(void *arg)
{
	struct writer *w = arg;

	pthread_mutex_lock(&queue.mu);
	while (queue.left > 0) {
		queue.left--;
		w->next = queue.waiting;
		queue.waiting = w;
		pthread_mutex_unlock(&queue.mu);
		pthread_cond_signal(&queue.work);
		while (sem_wait(&w->is_done))
			;
		pthread_mutex_lock(&queue.mu);
	}
	queue.running--;
	pthread_cond_signal(&queue.work);
	pthread_mutex_unlock(&queue.mu);
	return NULL;
}

static void group(const char *path, int jobs, int writers)
{
	struct writer *w = calloc((size_t)writers, sizeof(*w));
	sqlite3_stmt *st[SQL_COUNT];
	sqlite3 *db = open_db(path, st);
	int64_t key = FIRST_KEY;
	double begun = now_s();

	must_be(w != NULL, "memory");
	queue.left = jobs;
	queue.running = writers;
	for (int i = 0; i < writers; i++)
		must_be(sem_init(&w[i].is_done, 0, 0) == 0 && pthread_create(&w[i].thread, NULL, write_jobs, &w[i]) == 0, "a thread");
	pthread_mutex_lock(&queue.mu);
	while (queue.running > 0) {
		struct writer *batch = queue.waiting;

		if (!batch) {
			pthread_cond_wait(&queue.work, &queue.mu);
			continue;
		}
		queue.waiting = NULL;
		pthread_mutex_unlock(&queue.mu);
		must_be(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK, "begin");
		for (struct writer *one = batch; one; one = one->next)
			write_job(st, ++key, request);
		must_be(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK, "commit");
		for (struct writer *one = batch, *next; one; one = next) {
			next = one->next;
			sem_post(&one->is_done);
		}
		pthread_mutex_lock(&queue.mu);
	}
	pthread_mutex_unlock(&queue.mu);
	for (int i = 0; i < writers; i++)
		pthread_join(w[i].thread, NULL);
	printf("{\"done\":%d,\"seconds\":%.6f}\n", jobs, now_s() - begun);
	free(w);
}

static void commit(const char *path, int jobs, int batch)
{
	sqlite3_stmt *st[SQL_COUNT];
	sqlite3 *db = open_db(path, st);
	int64_t key = FIRST_KEY;
	double begun = now_s();

	for (int i = 0; i < jobs; i += batch) {
		must_be(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK, "begin");
		for (int k = 0; k < batch; k++)
			write_job(st, ++key, request);
		must_be(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK, "commit");
	}
	printf("{\"done\":%d,\"seconds\":%.6f}\n", jobs, now_s() - begun);
}

/* ---- watch ---- */

#define PERIOD_US	1000
#define PAUSES_MAX	100000
#define PROCESSORS_MAX	64

static struct pause {
	int processor;
	int64_t wall_us, us;
} pauses[PAUSES_MAX];
static atomic_size_t pause_count;
static atomic_bool is_watched_enough;

static int64_t us_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000ll + t.tv_nsec / 1000;
}

static void *watch_processor(void *arg)
{
	int processor = (int)(intptr_t)arg;
	struct sched_param first = { .sched_priority = 50 };
	int64_t due = us_of(CLOCK_MONOTONIC), late;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	must_be(pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0, "a processor of its own");
	must_be(pthread_setschedparam(pthread_self(), SCHED_FIFO, &first) == 0, "SCHED_FIFO: root is needed");
	while (!is_watched_enough) {
		due += PERIOD_US;
		struct timespec t = { .tv_sec = due / 1000000, .tv_nsec = due % 1000000 * 1000 };

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
		late = us_of(CLOCK_MONOTONIC) - due;
		if (late < PERIOD_US)
			continue;
		size_t at = pause_count++;

		must_be(at < PAUSES_MAX, "too many pauses");
		pauses[at] = (struct pause){ .processor = processor, .wall_us = us_of(CLOCK_REALTIME) - late, .us = late };
		due += late;
	}
	return NULL;
}

static void watch(void)
{
	pthread_t threads[PROCESSORS_MAX];
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	char byte;

	must_be(n <= PROCESSORS_MAX, "processors");
	for (long i = 0; i < n; i++)
		must_be(pthread_create(&threads[i], NULL, watch_processor, (void *)(intptr_t)i) == 0, "a thread");
	while (read(0, &byte, 1) > 0)
		;
	is_watched_enough = true;
	for (long i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	putchar('[');
	for (size_t i = 0; i < pause_count; i++)
		printf("%s[%d,%lld,%lld]", i ? "," : "", pauses[i].processor, (long long)pauses[i].wall_us, (long long)pauses[i].us);
	puts("]");
}

/* ---- spawn ---- */

extern char **environ;

static void write_file(const char *folder, const char *name)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	must_be(fd >= 0 && write(fd, "hello\n", 6) == 6 && fsync(fd) == 0, "a file");
	close(fd);
}

static void spawn(const char *folder, int jobs)
{
	char *const argv[] = { "sh", "-c", "printf '%s\\n' hi", NULL };
	posix_spawn_file_actions_t files;
	double begun = now_s();

	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	for (int i = 0; i < jobs; i++) {
		pid_t pid;

		must_be(posix_spawn(&pid, "/bin/sh", &files, NULL, argv, environ) == 0 && waitpid(pid, NULL, 0) == pid, "a process");
		write_file(folder, "journal");
		write_file(folder, "exit");
	}
	printf("{\"done\":%d,\"seconds\":%.6f}\n", jobs, now_s() - begun);
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "commit") == 0)
		commit(argv[2], atoi(argv[3]), atoi(argv[4]));
	else if (argc == 5 && strcmp(argv[1], "group") == 0)
		group(argv[2], atoi(argv[3]), atoi(argv[4]));
	else if (argc == 4 && strcmp(argv[1], "spawn") == 0)
		spawn(argv[2], atoi(argv[3]));
	else if (argc == 2 && strcmp(argv[1], "watch") == 0)
		watch();
	else
		return 2;
	return 0;
}
