/*
 * The HTTP client: curl's multi handle on a loop, by socket_action. Called by relays, probes and the gateway link;
 * the loop's thread.
 *
 * curl forbids most of its functions inside its callbacks, and it calls back from inside curl_easy_pause. So starts
 * and resumes wait for the kick timer (which fires later in the same turn), a cancel from inside a callback dooms the
 * transfer until curl has returned, and on_done is told from outside of curl only. The same holds while
 * httpc_direct.c gives a stream's bytes.
 */
#include "base/httpc_priv.h"

#include "base/mem.h"

#include <sys/epoll.h>

#define RESUMES_A_KICK	64

void httpc_list_add(struct httpc_list *l, struct httpc_xfer *x)
{
	x->next = NULL;
	x->prev = l->last;
	if (l->last)
		l->last->next = x;
	else
		l->first = x;
	l->last = x;
}

void httpc_list_del(struct httpc_list *l, struct httpc_xfer *x)
{
	if (x->prev)
		x->prev->next = x->next;
	else
		l->first = x->next;
	if (x->next)
		x->next->prev = x->prev;
	else
		l->last = x->prev;
	x->next = x->prev = NULL;
}

void httpc_kick(struct httpc *c)
{
	loop_timer_set(c->loop, &c->kick, loop_now_ms(c->loop));
}

/* ---- look-ups: at most 8, those included that were given up and run on in curl's threads ---- */

void httpc_lookup_ended(struct httpc_xfer *x)
{
	if (!x->is_resolving)
		return;
	x->is_resolving = false;
	x->c->lookups--;
	if (x->c->waiting.first)
		httpc_kick(x->c);
}

/* Nobody waits for it any more, but its thread goes on for some time: it becomes a ghost. */
static void abandon_lookup(struct httpc_xfer *x)
{
	if (!x->is_resolving)
		return;
	x->is_resolving = false;
	for (size_t i = 0; i < HTTPC_LOOKUPS_MAX; i++) {
		if (!x->c->ghosts[i]) {
			x->c->ghosts[i] = loop_now_ms(x->c->loop) + HTTPC_GHOST_MS;
			return;
		}
	}
}

/* Let old ghosts go; when the first of the others goes, or INT64_MAX. */
static int64_t expire_ghosts(struct httpc *c)
{
	int64_t first = INT64_MAX, now = loop_now_ms(c->loop);

	for (size_t i = 0; i < HTTPC_LOOKUPS_MAX; i++) {
		if (c->ghosts[i] && c->ghosts[i] <= now) {
			c->ghosts[i] = 0;
			c->lookups--;
		}
		if (c->ghosts[i] && c->ghosts[i] < first)
			first = c->ghosts[i];
	}
	return first;
}

/* ---- the end of a transfer ---- */

static void drop_resume(struct httpc_xfer *x)
{
	struct httpc *c = x->c;
	struct httpc_xfer *before = NULL, *r = c->resume_first;

	if (!x->is_to_resume)
		return;
	for (; r != x; r = r->next_resume)
		before = r;
	if (before)
		before->next_resume = x->next_resume;
	else
		c->resume_first = x->next_resume;
	if (c->resume_last == x)
		c->resume_last = before;
	x->is_to_resume = false;
}

/* curl 7.88 closes a socket that still connects before it says so; by then the number may be another thread's. */
static void unwatch_connecting(struct httpc_xfer *x)
{
	for (struct httpc_sock *s = x->socks; s; s = s->next) {
		loop_watch_del(x->c->loop, s->watch);
		s->watch = 0;
	}
}

static void off_curl(struct httpc_xfer *x)
{
	if (x->phase == HTTPC_CONNECT)
		unwatch_connecting(x);
	curl_multi_remove_handle(x->c->multi, x->handle->easy);
	while (x->socks)
		httpc_sock_unlink(x->socks);
	abandon_lookup(x);
}

/* Off all lists and off curl. An unfinished transfer's connection is closed here. */
static void take_off(struct httpc_xfer *x, bool is_complete)
{
	struct httpc *c = x->c;

	must(!c->is_in_curl);
	loop_timer_cancel(c->loop, &x->limit);
	drop_resume(x);
	httpc_direct_unmark(x);
	if (x->where == HTTPC_WAITING) {
		httpc_list_del(&c->waiting, x);
	} else {
		httpc_list_del(x->where == HTTPC_DOOMED ? &c->doomed : &c->running, x);
		if (x->handle && !x->direct)
			off_curl(x);
		else
			is_complete = httpc_direct_end(x, is_complete);
		httpc_origin_end(x, is_complete);
	}
	x->where = HTTPC_ENDING;
	c->active--;
}

void httpc_finish(struct httpc_xfer *x, enum errc rc)
{
	take_off(x, rc == E_OK);
	x->ops->on_done(x->ctx, rc, x->phase, &x->e);
	httpc_xfer_free(x);
}

void httpc_end_doomed(struct httpc *c)
{
	struct httpc_xfer *x;

	while ((x = c->doomed.first)) {
		take_off(x, false);
		httpc_xfer_free(x);
	}
}

static struct httpc_xfer *xfer_of(CURL *easy)
{
	char *private = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
	return ((struct httpc_handle *)(void *)private)->x;
}

void httpc_restart(struct httpc_xfer *x)
{
	struct httpc *c = x->c;

	httpc_origin_end(x, false);
	httpc_list_del(&c->running, x);
	httpc_list_add(&c->waiting, x);
	x->where = HTTPC_WAITING;
	x->phase = HTTPC_CONNECT;
	httpc_xfer_arm(x);
	httpc_kick(c);
}

/* After every curl function that may have called back: take off the doomed, tell the finished, take the streams. */
static void after_curl(struct httpc *c)
{
	CURLMsg *m;
	int left;

	httpc_end_doomed(c);
	while ((m = curl_multi_info_read(c->multi, &left))) {
		CURLcode code = m->data.result;
		struct httpc_xfer *x = xfer_of(m->easy_handle);

		httpc_lookup_ended(x);
		if (x->is_to_take)
			httpc_direct_take(x, true, code);
		else
			httpc_finish(x, httpc_xfer_judge(x, code));
	}
	while (c->take_first)
		httpc_direct_take(c->take_first, false, CURLE_OK);
}

static void drive(struct httpc *c, curl_socket_t fd, int mask)
{
	CURLMcode code;
	int running;

	httpc_memory_begin();
	c->is_in_curl = true;
	code = curl_multi_socket_action(c->multi, fd, mask, &running);
	c->is_in_curl = false;
	after_curl(c);
	if (code == CURLM_OUT_OF_MEMORY)
		httpc_end_unwatched(c);
}

/* ---- what curl asks of the loop ---- */

static void on_ready(void *arg, uint32_t events)
{
	struct httpc_sock *s = arg;
	int mask = 0;

	if (s->use == SOCK_DIRECT) {
		httpc_direct_ready(s->x, events);
		return;
	}
	if (s->use == SOCK_PARKED) {
		if (events & ~(uint32_t)EPOLLOUT)
			httpc_parked_drop(s);
		return;
	}
	/* An error or hang-up is left to recv or send, which say what it was. */
	if ((events & EPOLLIN) || ((events & (EPOLLERR | EPOLLHUP)) && (s->what & CURL_POLL_IN)))
		mask |= CURL_CSELECT_IN;
	if ((events & EPOLLOUT) || ((events & (EPOLLERR | EPOLLHUP)) && (s->what & CURL_POLL_OUT)))
		mask |= CURL_CSELECT_OUT;
	drive(s->c, s->fd, mask); /* may free s */
}

static void on_curl_timer(struct loop_timer *t)
{
	drive(CONTAINER_OF(t, struct httpc, curl_timer), CURL_SOCKET_TIMEOUT, 0);
}

static int ask_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct httpc *c = arg;

	(void)multi;
	if (timeout_ms < 0)
		loop_timer_cancel(c->loop, &c->curl_timer);
	else
		loop_timer_set(c->loop, &c->curl_timer, loop_now_ms(c->loop) + timeout_ms);
	return 0;
}

static enum errc sock_watch(struct httpc *c, int fd, uint32_t epoll_events, struct httpc_sock **ret, struct err *e)
{
	struct httpc_sock *s = NEW(struct httpc_sock);
	enum errc rc;

	if (!s)
		return err_set(e, E_NO_MEMORY, "http: no memory for a socket");
	s->c = c;
	s->fd = fd;
	rc = loop_watch_add(c->loop, fd, epoll_events, on_ready, s, &s->watch, e);
	if (rc)
		mem_free(s);
	else
		*ret = s;
	return rc;
}

static enum errc watch_socket(struct httpc_xfer *x, struct httpc_sock *s, curl_socket_t fd, int what, struct err *e)
{
	struct httpc *c = x->c;
	uint32_t events = ((what & CURL_POLL_IN) ? EPOLLIN : 0u) | ((what & CURL_POLL_OUT) ? EPOLLOUT : 0u);
	enum errc rc = E_OK;

	if (s) {
		rc = loop_watch_mod(c->loop, s->watch, events, e);
	} else {
		rc = sock_watch(c, fd, events, &s, e);
		if (rc)
			return rc;
		if (curl_multi_assign(c->multi, fd, s)) {
			loop_watch_del(c->loop, s->watch);
			mem_free(s);
			return err_set(e, E_INTERNAL, "http: socket unknown to curl");
		}
	}
	s->what = what;
	httpc_sock_link(s, x);
	return rc;
}

static int ask_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sock)
{
	struct httpc *c = arg;
	struct httpc_sock *s = sock;
	struct httpc_xfer *x;
	struct err e;

	if (what == CURL_POLL_REMOVE) {
		if (s && fd == c->taking)
			return 0;            /* it stays watched, on our behalf: httpc_direct_take() */
		if (s) {
			loop_watch_del(c->loop, s->watch);
			httpc_sock_unlink(s);
		}
		mem_free(s);
		return 0;
	}
	x = xfer_of(easy);
	if (!x || watch_socket(x, s, fd, what, &e) == E_OK)
		return 0;
	/* Answering -1 would end every transfer of this client: end this one, from its limit timer. */
	if (!x->e.code) {
		x->e = e;
		loop_timer_set(c->loop, &x->limit, loop_now_ms(c->loop));
	}
	return 0;
}

/* ---- starts and resumes ---- */

/* False when it failed: on_done has run, and any list may be another one now. */
static bool start_one(struct httpc_xfer *x)
{
	struct httpc *c = x->c;

	httpc_list_del(&c->waiting, x);
	httpc_list_add(&c->running, x);
	x->where = HTTPC_RUNNING;
	if (httpc_again_start(x))
		return true;
	x->is_resolving = x->is_name;
	c->lookups += x->is_name;
	if (!curl_multi_add_handle(c->multi, x->handle->easy))
		return true;
	httpc_lookup_ended(x);
	httpc_finish(x, err_set(&x->e, E_NO_MEMORY, "http: no memory for a request"));
	return false;
}

/* Start up to a slice. Those that need a look-up when all places are taken let others pass. */
static void run_starts(struct httpc *c)
{
	int64_t ghost_at = expire_ghosts(c);
	struct httpc_xfer *x = c->waiting.first;
	unsigned n = 0;
	bool is_blocked = false;

	while (x && n < HTTPC_SLICE) {
		struct httpc_xfer *next = x->next;

		if (x->is_name && c->lookups >= HTTPC_LOOKUPS_MAX) {
			is_blocked = true;
		} else if (start_one(x)) {
			n++;
		} else {
			httpc_kick(c);
			return;
		}
		x = next;
	}
	if (x)
		httpc_kick(c);
	else if (is_blocked && ghost_at != INT64_MAX && !c->kick.heap_pos)
		loop_timer_set(c->loop, &c->kick, ghost_at);
}

static void resume_one(struct httpc_xfer *x)
{
	struct httpc *c = x->c;
	CURLcode code;

	if (!x->is_paused)
		return;
	x->is_paused = false;
	x->last_ms = loop_now_ms(c->loop);
	if (!x->handle) {
		httpc_direct_resume(x);
		return;
	}
	httpc_memory_begin();
	c->is_in_curl = true;
	code = curl_easy_pause(x->handle->easy, CURLPAUSE_CONT); /* gives the bytes that were held back */
	c->is_in_curl = false;
	if (!code && httpc_had_no_memory() && !x->socks && !x->is_paused)
		code = CURLE_OUT_OF_MEMORY; /* curl does not tell: see httpc_end_unwatched() */
	/* The callback refused: ended here, so that nothing depends on curl's telling it once more. */
	if (code && x->where == HTTPC_RUNNING)
		httpc_finish(x, httpc_xfer_judge(x, code));
	after_curl(c);
}

static void run_resumes(struct httpc *c)
{
	struct httpc_xfer *x;

	for (unsigned n = 0; n < RESUMES_A_KICK && (x = c->resume_first); n++) {
		drop_resume(x);
		resume_one(x);
	}
	if (c->resume_first)
		httpc_kick(c);
}

static void on_kick(struct loop_timer *t)
{
	struct httpc *c = CONTAINER_OF(t, struct httpc, kick);

	run_resumes(c);
	run_starts(c);
}

/* ---- what callers do ---- */

enum errc httpc_start(struct httpc *c, const struct httpc_req *r, struct httpc_xfer **ret, struct err *e)
{
	struct httpc_xfer *x;
	enum errc rc = httpc_xfer_new(c, &x, e);

	if (rc)
		return rc;
	rc = httpc_xfer_set(x, r, e);
	if (rc) {
		httpc_xfer_free(x);
		return rc;
	}
	x->where = HTTPC_WAITING;
	httpc_list_add(&c->waiting, x);
	c->active++;
	httpc_xfer_arm(x);
	httpc_kick(c);
	*ret = x;
	return E_OK;
}

void httpc_cancel(struct httpc_xfer *x)
{
	struct httpc *c = x->c;

	if (x->where == HTTPC_DOOMED || x->where == HTTPC_ENDING)
		return;
	if (c->is_in_curl && x->where == HTTPC_RUNNING) {
		httpc_list_del(&c->running, x);
		httpc_list_add(&c->doomed, x);
		x->where = HTTPC_DOOMED;
		return;
	}
	if (x->where == HTTPC_WAITING) {
		loop_timer_cancel(c->loop, &x->limit);
		httpc_list_del(&c->waiting, x);
		c->active--;
	} else {
		take_off(x, false);
	}
	httpc_xfer_free(x);
}

void httpc_resume(struct httpc_xfer *x)
{
	struct httpc *c = x->c;

	if (x->is_to_resume || x->where != HTTPC_RUNNING)
		return;
	x->is_to_resume = true;
	x->next_resume = NULL;
	if (c->resume_first)
		c->resume_last->next_resume = x;
	else
		c->resume_first = x;
	c->resume_last = x;
	httpc_kick(c);
}

size_t httpc_active(const struct httpc *c)
{
	return c->active;
}

static void drop_idle(struct httpc *c, size_t keep)
{
	while (c->idle_count > keep) {
		struct httpc_handle *h = c->idle;

		c->idle = h->next;
		c->idle_count--;
		httpc_handle_free(h);
	}
}

void httpc_trim(struct httpc *c)
{
	drop_idle(c, HTTPC_IDLE_KEPT);
}

/* ---- the client ---- */

static CURLMcode set_multi(struct httpc *c)
{
	CURLMcode code = curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, ask_socket);

	code = code ? code : curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	code = code ? code : curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, ask_timer);
	code = code ? code : curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	code = code ? code : curl_multi_setopt(c->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	code = code ? code : curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)HTTPC_CONNS_MAX);
	return code;
}

/* One file: curl would otherwise read a folder of 140 certificates for each connection. */
static const char *default_ca_file(void)
{
	const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);

	return v->age >= CURLVERSION_EIGHTH && v->cainfo ? v->cainfo : "/etc/ssl/certs/ca-certificates.crt";
}

enum errc httpc_new(struct loop *l, const struct httpc_opts *o, struct httpc **ret, struct err *e)
{
	struct httpc *c = NEW(struct httpc);

	if (!c)
		return err_set(e, E_NO_MEMORY, "http: no memory for a client");
	c->loop = l;
	c->kick.fn = on_kick;
	c->curl_timer.fn = on_curl_timer;
	c->max_idle_per_host = o->max_idle_per_host;
	c->ca_file = mem_strdup(o->ca_file ? o->ca_file : default_ca_file());
	c->user_agent = mem_strdup(o->user_agent ? o->user_agent : "mswarm/" MSWARM_VERSION);
	c->multi = curl_multi_init();
	c->block = mem_alloc(HTTPC_BLOCK);
	httpc_parked_init(c);
	if (!c->ca_file || !c->user_agent || !c->multi || !c->block || set_multi(c)) {
		httpc_free(c);
		return err_set(e, E_NO_MEMORY, "http: no memory for a client");
	}
	*ret = c;
	return E_OK;
}

void httpc_free(struct httpc *c)
{
	if (!c)
		return;
	must(!c->is_in_curl && !c->doomed.first);
	while (c->waiting.first)
		httpc_cancel(c->waiting.first);
	while (c->running.first)
		httpc_cancel(c->running.first);
	drop_idle(c, 0);
	httpc_parked_drop_all(c);
	curl_multi_cleanup(c->multi);
	loop_timer_cancel(c->loop, &c->kick);
	loop_timer_cancel(c->loop, &c->curl_timer);
	httpc_free_burnt(c);
	mem_free(c->ca_file);
	mem_free(c->user_agent);
	mem_free(c->block);
	mem_free(c);
}
