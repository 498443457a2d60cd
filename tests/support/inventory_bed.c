/* See inventory_bed.h. */
#include "tests/support/inventory_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

/* ---- a server: answers by a table of paths; a stalled one says nothing ---- */

static void conn_close(struct conn *c)
{
	if (c->fd < 0)
		return;
	loop_watch_del(c->fake->loop, c->watch);
	close(c->fd);
	c->fd = -1;
	buf_done(&c->in);
}

static void conn_answer(struct conn *c)
{
	const struct answer *a = c->fake->answers;
	AUTO_BUF out = BUF_MAX(65536);
	struct slice line = buf_slice(&c->in), method, path;
	struct err e;

	(void)!slice_next(&line, ' ', &method);
	(void)!slice_next(&line, ' ', &path);
	while (a->path && !slice_eq(path, slice_str(a->path)))
		a++;
	assert_int_equal(buf_addf(&out, &e, "HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", a->path ? a->status : 404,
		strlen(a->path ? a->body : ""), a->path ? a->body : ""), E_OK);
	(void)!write(c->fd, out.p, out.n);
	conn_close(c);
}

static void on_conn(void *arg, uint32_t events)
{
	struct conn *c = arg;
	char bytes[4096];
	ssize_t n = read(c->fd, bytes, sizeof(bytes));
	struct err e;

	(void)events;
	if (n <= 0) {
		conn_close(c);
		return;
	}
	assert_int_equal(buf_add(&c->in, bytes, (size_t)n, &e), E_OK);
	if (slice_find(buf_slice(&c->in), SLICE("\r\n\r\n")) < 0)
		return;
	c->fake->hits++;
	(void)!slice_copy(slice_cut(buf_slice(&c->in), sizeof(c->fake->last) - 1), c->fake->last, sizeof(c->fake->last));
	if (!c->fake->is_stalled)
		conn_answer(c);
}

static void on_accept(void *arg, uint32_t events)
{
	struct fake *f = arg;
	struct conn *c = f->conns;
	struct err e;

	(void)events;
	while (c->fd >= 0)
		c++;
	c->fd = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	c->in = BUF_MAX(65536);
	if (c->fd >= 0)
		assert_int_equal(loop_watch_add(f->loop, c->fd, EPOLLIN, on_conn, c, &c->watch, &e), E_OK);
}

void fake_open(struct fake *f, struct loop *loop, const struct answer *answers)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(at);
	struct err e;

	*f = (struct fake){ .loop = loop, .answers = answers };
	for (size_t i = 0; i < CONNS_MAX; i++)
		f->conns[i] = (struct conn){ .fake = f, .fd = -1 };
	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(f->fd, (struct sockaddr *)&at, n) | listen(f->fd, 64), 0);
	assert_int_equal(getsockname(f->fd, (struct sockaddr *)&at, &n), 0);
	f->port = ntohs(at.sin_port);
	assert_int_equal(loop_watch_add(loop, f->fd, EPOLLIN, on_accept, f, &f->watch, &e), E_OK);
}

void fake_close(struct fake *f)
{
	for (size_t i = 0; i < CONNS_MAX; i++)
		conn_close(&f->conns[i]);
	loop_watch_del(f->loop, f->watch);
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

/* ---- the bed ---- */

const char *bed_path(struct bed *b, const char *name)
{
	static char path[160];

	snprintf(path, sizeof(path), "%s/%s", b->dir, name);
	return path;
}

void bed_write(struct bed *b, const char *name, const char *text, mode_t mode)
{
	struct err e;

	assert_int_equal(file_write_atomic(bed_path(b, name), slice_str(text), mode, &e), E_OK);
}

void bed_open(struct bed *b)
{
	struct httpc_opts o = { .user_agent = "test" };
	const char *tmp = getenv("TMPDIR");
	struct err e;

	*b = (struct bed){ 0 };
	for (size_t i = 0; i < ARRAY_LEN(b->fake); i++)
		b->fake[i].fd = -1;
	snprintf(b->dir, sizeof(b->dir), "%.40s/inv-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(b->dir));
	assert_int_equal(loop_new("test", &b->loop, &e), E_OK);
	assert_int_equal(httpc_new(b->loop, &o, &b->client, &e), E_OK);
}

void bed_load(struct bed *b, const char *json)
{
	static const char *const off[] = { "mcoda_source", "ollama_source", "upstreams_source", "discovery_source" };
	char *args[] = { (char[]){ "--state-path" }, NULL, NULL };
	AUTO_BUF text = BUF_MAX(65536);
	struct err e = { 0 };

	assert_int_equal(buf_addf(&text, &e, "{%s%s\"inventory_refresh_ms\":3600000,\"probe_timeout_ms\":2000", json, *json ? "," : ""), E_OK);
	for (size_t i = 0; i < ARRAY_LEN(off); i++)
		if (!strstr(json, off[i]))
			assert_int_equal(buf_addf(&text, &e, ",\"%s\":false", off[i]), E_OK);
	assert_int_equal(buf_add(&text, "}", 2, &e), E_OK);
	bed_write(b, "config.json", text.p, 0600);
	args[1] = (char *)(uintptr_t)bed_path(b, "config.json");
	enum errc rc = config_load(&(struct config_load){ .args = args }, &b->cfg, &e);

	if (rc)
		print_error("%s\n", e.what);
	assert_int_equal(rc, E_OK);
}

void bed_new(struct bed *b)
{
	struct inventory_opts o = { .cfg = b->cfg, .loop = b->loop, .client = b->client };
	struct err e;

	assert_int_equal(inventory_new(&o, &b->inv, &e), E_OK);
}

static void on_tick(struct loop_timer *t)
{
	struct bed *b = CONTAINER_OF(t, struct bed, tick);

	if (b->is_done(b) || clock_mono_ms() > b->deadline_mono_ms)
		loop_stop(b->loop);
	else
		loop_timer_set(b->loop, t, clock_mono_ms() + 1);
}

void bed_wait(struct bed *b, bool (*is_done)(struct bed *b))
{
	b->is_done = is_done;
	b->deadline_mono_ms = clock_mono_ms() + 10000;
	b->tick.fn = on_tick;
	loop_timer_set(b->loop, &b->tick, clock_mono_ms());
	loop_run(b->loop);
	assert_true(is_done(b));
}

bool bed_is_woken(struct bed *b)
{
	return b->woken > 0;
}

void bed_on_woken(struct loop_msg *m)
{
	CONTAINER_OF(m, struct bed, waiter.msg)->woken++;
}

void bed_start(struct bed *b)
{
	b->waiter = (struct inventory_waiter){ .msg.fn = bed_on_woken, .loop = b->loop };
	assert_true(inventory_wait_first(b->inv, &b->waiter));
	inventory_start(b->inv);
	bed_wait(b, bed_is_woken);
	assert_int_equal(b->woken, 1);
	assert_false(inventory_wait_first(b->inv, &b->waiter));
	assert_false(inventory_wait_cancel(b->inv, &b->waiter));
}

void bed_close(struct bed *b)
{
	if (b->inv)
		inventory_stop(b->inv);
	inventory_free(b->inv);
	for (size_t i = 0; i < ARRAY_LEN(b->fake); i++)
		if (b->fake[i].fd >= 0)
			fake_close(&b->fake[i]);
	httpc_free(b->client);
	loop_free(b->loop);
	config_free(b->cfg);
	static const char *const names[] = { "config.json", "mcoda", "key", "key2", "count" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		unlink(bed_path(b, names[i]));
	assert_int_equal(rmdir(b->dir), 0);
}

bool bed_has_hits(struct bed *b)
{
	return b->fake[0].hits >= b->want && httpc_active(b->client) == 0;
}

bool bed_is_published(struct bed *b)
{
	struct agents *l = inventory_get(b->inv);
	bool is_it = (int64_t)l->revision >= b->want;

	agents_unref(l);
	return is_it;
}

int64_t bed_revision(struct bed *b)
{
	struct agents *l = inventory_get(b->inv);
	int64_t r = (int64_t)l->revision;

	agents_unref(l);
	return r;
}

void bed_next(struct bed *b)
{
	b->want = bed_revision(b) + 1;
	clock_test_advance_ms(1100);
	inventory_refresh(b->inv);
	bed_wait(b, bed_is_published);
}

void bed_round(struct bed *b)
{
	b->want = b->fake[0].hits + 1;
	clock_test_advance_ms(1100);
	inventory_refresh(b->inv);
	bed_wait(b, bed_has_hits);
}

void bed_assert_list(struct bed *b, const char *want)
{
	struct agents *l = inventory_get(b->inv);
	AUTO_BUF got = BUF_MAX(65536);
	struct err e;

	for (size_t i = 0; i < l->n; i++) {
		const struct agent *a = &l->v[i];

		assert_int_equal(buf_addf(&got, &e, "%s%s:%s/%s %s%s%s%s", i ? "\n" : "", agent_source_name(a->source), a->slug,
			agent_health_name(a->health), a->is_exposed ? "x" : "", a->is_shared ? "s" : "", a->is_embedding ? "e" : "",
			agent_is_listed(l, i) ? "l" : ""), E_OK);
	}
	assert_int_equal(buf_add(&got, "", 1, &e), E_OK);
	agents_unref(l);
	assert_string_equal(got.p, want);
}

const struct agent *bed_agent(struct agents *l, const char *slug)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i].slug, slug) == 0)
			return &l->v[i];
	fail_msg("no agent %s", slug);
	return NULL;
}

void bed_load_port(struct bed *b, const char *fmt, int port)
{
	AUTO_BUF json = BUF_MAX(8192);
	struct slice rest = slice_str(fmt), piece;
	struct err e;
	bool is_first = true;

	while (slice_next(&rest, '%', &piece)) {
		if (!is_first)
			assert_int_equal(buf_addf(&json, &e, "%d", port), E_OK);
		assert_int_equal(buf_add_slice(&json, piece, &e), E_OK);
		is_first = false;
	}
	assert_int_equal(buf_add(&json, "", 1, &e), E_OK);
	bed_load(b, json.p);
}
