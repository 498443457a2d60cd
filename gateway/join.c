/*
 * The token: from the settings, from node.key when it was changed under us, or by enrolment. Called by link.c, on the gateway's
 * thread; files are read and written on the pool.
 */
#include "gateway/gateway_priv.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "gateway/member.h"

#define KEY_MAX 16384
#define LOOK_AGAIN_MS 5000             /* for a node.key that somebody may be writing right now */

static void wipe(struct buf *b)
{
	if (b->p)
		mem_wipe(b->p, b->n);
	buf_done(b);
}

static void join_later(struct gateway *g, int64_t ms);

/* ---- reading node.key ---- */

static void read_work(struct pool_job *j)      /* THREAD(pool) */
{
	struct gateway *g = CONTAINER_OF(j, struct gateway, file_job);

	buf_init(&g->file_text, KEY_MAX);
	g->file_rc = file_read(g->cfg->key_path, &g->file_text, &g->file_err);
}

static void on_read(struct loop_msg *m)
{
	struct gateway *g = CONTAINER_OF(CONTAINER_OF(m, struct pool_job, done), struct gateway, file_job);
	struct slice key = g->file_rc ? slice_of("", 0) : slice_trim_js(buf_slice(&g->file_text));
	struct err e = { 0 };

	g->is_file_busy = g->is_reading = false;
	if (key.n && !slice_eq(key, secret_slice(&g->token)) && !secret_set(&g->token, key, &e)) {
		log_secret_add(key);
		log_event(LOG_INFO, "link.token_changed", "file=%s", g->cfg->key_path);
		link_set_state(g, LINK_JOINING, "node.key holds another token");
		link_beat_soon(g);
	}
	wipe(&g->file_text);
}

void join_read_key(struct gateway *g)
{
	struct err e;

	if (g->is_file_busy || config_env("MSWARM_SELF_HOSTED_RUNTIME_TOKEN"))
		return;                        /* a token from the environment is the one that counts */
	g->file_job = (struct pool_job){ .work = read_work, .loop = g->loop, .done = { .fn = on_read } };
	g->is_file_busy = g->is_reading = pool_submit(g->o.pool, &g->file_job, &e) == E_OK;
}

/* ---- enrolment ---- */

static void keep_work(struct pool_job *j)      /* THREAD(pool) */
{
	struct gateway *g = CONTAINER_OF(j, struct gateway, file_job);
	struct member m = { 0 };

	g->file_rc = member_parse(buf_slice(&g->file_text), MEMBER_ENROLLED, &m, &g->file_err);
	if (!g->file_rc)
		g->file_rc = member_keep_enrolled(g->cfg, &m, &g->file_err);
	member_done(&m);
}

/* What the gateway said takes effect at once, not after a restart. */
static enum errc adopt(struct gateway *g, const struct member *m, struct err *e)
{
	char **paths[] = { &g->poll_path, &g->start_path, &g->events_path, &g->result_path };
	enum errc rc = secret_set(&g->token, secret_slice(&m->token), e);

	if (rc)
		return rc;
	log_secret_add(secret_slice(&g->token));
	if (m->interval_s > 0)
		g->interval_ms = 1000 * m->interval_s;
	if (m->base) {
		mem_free(g->base);
		g->base = mem_strdup(m->base);
	}
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		if (m->paths[i]) {
			mem_free(*paths[i]);
			*paths[i] = mem_strdup(m->paths[i]);
		}
	if (m->config_version) {
		mem_free(g->config_version);
		g->config_version = mem_strdup(m->config_version);
	}
	if (!g->base || !g->poll_path || !g->start_path || !g->events_path || !g->result_path)
		return err_set(e, E_NO_MEMORY, "no memory");
	poll_check_paths(g);
	return E_OK;
}

static void on_kept(struct loop_msg *msg)
{
	struct gateway *g = CONTAINER_OF(CONTAINER_OF(msg, struct pool_job, done), struct gateway, file_job);
	struct member m = { 0 };
	struct err e = g->file_err;
	char text[400];
	enum errc rc = member_parse(buf_slice(&g->file_text), MEMBER_ENROLLED, &m, &e);

	g->is_file_busy = false;
	if (!rc && g->file_rc)             /* the token is good all the same; only a restart will have to ask again */
		log_event(LOG_ERROR, "link.token_unwritten", "%s", log_err(&g->file_err, text, sizeof(text)));
	if (!rc)
		rc = adopt(g, &m, &e);
	if (rc) {
		link_set_state(g, LINK_JOINING, e.what);
		link_note_error(g, e.what);
		join_later(g, backoff_next_ms(&g->join_backoff));
	} else {
		backoff_reset(&g->join_backoff);
		log_event(LOG_INFO, "link.enrolled", "node=%s", g->o.node_id);
		link_beat_soon(g);
	}
	member_done(&m);
	wipe(&g->file_text);
}

static void on_answered(void *ctx, const struct exchange_answer *a)
{
	struct gateway *g = ctx;
	struct err e = { 0 };

	g->join = NULL;
	buf_init(&g->file_text, EXCHANGE_ANSWER_MAX);
	if (a->kind == EXCHANGE_OK && !buf_add_slice(&g->file_text, a->body, &e)) {
		g->file_job = (struct pool_job){ .work = keep_work, .loop = g->loop, .done = { .fn = on_kept } };
		g->is_file_busy = pool_submit(g->o.pool, &g->file_job, &e) == E_OK;
	} else {
		e = a->err;
	}
	if (g->is_file_busy)
		return;
	wipe(&g->file_text);
	link_set_state(g, LINK_JOINING, e.what);
	link_note_error(g, e.what);
	join_later(g, backoff_next_ms(&g->join_backoff));
}

static void enroll(struct gateway *g)
{
	AUTO_BUF body = BUF_MAX(16 * 1024);
	const struct link_post p = { .path = MEMBER_ENROLL_PATH, .take_body = &body, .timeout_ms = g->cfg->request_timeout_ms, .is_bare = true,
				     .done = on_answered, .ctx = g };
	struct err e = { 0 };
	enum errc rc = member_write_enroll(g->o.node_id, g->cfg->enrollment_token, &body, &e);

	if (!rc)
		rc = link_send(g, &p, &g->join, &e);
	if (!rc)
		return;
	link_set_state(g, LINK_JOINING, e.what);
	link_note_error(g, e.what);
	join_later(g, backoff_next_ms(&g->join_backoff));
}

static void on_timer(struct loop_timer *t)
{
	join_begin(CONTAINER_OF(t, struct gateway, join_timer));
}

static void join_later(struct gateway *g, int64_t ms)
{
	g->join_timer.fn = on_timer;
	loop_timer_set(g->loop, &g->join_timer, loop_now_ms(g->loop) + ms);
}

void join_begin(struct gateway *g)
{
	if (g->token.n || g->join || g->is_file_busy || g->is_stopping)
		return;
	g->join_backoff.base_ms = 1000;
	g->join_backoff.cap_ms = GATEWAY_BACKOFF_CAP_MS;
	if (g->cfg->enrollment_token[0]) {
		enroll(g);
		return;
	}
	link_note_error(g, "No runtime token is stored and MSWARM_SELF_HOSTED_ENROLLMENT_TOKEN is missing");
	join_read_key(g);                  /* a setup beside this process may be writing it */
	join_later(g, LOOK_AGAIN_MS);
}

void join_stop(struct gateway *g)
{
	loop_timer_cancel(g->loop, &g->join_timer);
	exchange_cancel(TAKE(g->join));
}
