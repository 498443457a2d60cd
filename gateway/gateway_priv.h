/*
 * The insides of the link. Shared by gateway/{link,join,poll,relay,outbox,report}.c only.
 *   link.c    membership, states, heartbeats      poll.c    asking for work
 *   relay.c   one relayed job                     outbox.c  its start and result, across restarts
 *   report.c  its chunks and progress             join.c    enrolment, the token
 *
 * Threads: the gateway's, but for what says otherwise.
 */
#ifndef MSWARM_GATEWAY_GATEWAY_PRIV_H
#define MSWARM_GATEWAY_GATEWAY_PRIV_H

#include "base/backoff.h"
#include "base/clock.h"
#include "base/thread.h"
#include "gateway/exchange.h"
#include "gateway/gateway.h"
#include "gateway/heartbeat.h"
#include "gateway/url.h"
#include "llm/invoke.h"
#include "store/relay_jobs.h"

#define GATEWAY_POLL_MAX (8u << 20)        /* an answer with a job */
#define GATEWAY_BACKOFF_CAP_MS 60000
#define GATEWAY_ENDED_KEPT 256             /* ids of jobs that were ended lately, against answers that come twice */
#define GATEWAY_OUTBOX_MAX 1000            /* results that wait; with more the node asks for no further work */
#define GATEWAY_POSTS_MAX 8                /* results of earlier runs that are posted at a time */

struct relay;

struct gateway {
	struct gateway_opts o;
	const struct config *cfg;
	struct loop *loop;
	struct httpc *client;
	struct store_reader *reader;
	struct thread thread;
	struct invoke_env env;
	struct loop_msg start_msg, stop_msg, kick_msg;
	atomic_bool is_kicked;
	atomic_int_fast64_t stop_grace_ms;

	/* membership: link.c, join.c */
	char *base, *poll_path, *start_path, *events_path, *result_path;
	char *config_version, *clients;    /* JSON tokens of config.json, or NULL */
	struct secret token;
	int64_t interval_ms;
	enum link_state state;
	struct exchange *join;             /* enrolment in flight */
	struct loop_timer join_timer;
	struct backoff join_backoff;
	struct pool_job file_job;          /* reading node.key, or writing what an enrolment gave */
	bool is_file_busy, is_reading;
	struct buf file_text;              /* what was read, or the answer that is to be kept */
	enum errc file_rc;
	struct err file_err;

	/* heartbeats: link.c */
	struct inventory_waiter wait;
	bool is_waiting;
	struct exchange *beat;
	struct loop_timer beat_timer;
	int64_t beat_due_ms, first_limit_ms;   /* monotonic */
	bool is_first_beat_over, is_beat_wanted;
	struct gateway_ask *asks;          /* for the next heartbeat */
	struct gateway_ask *asking;        /* for the one in flight */
	struct buf asked;                  /* what they are told, up to the gateway's answer */

	/* polls: poll.c */
	struct exchange *poll;
	struct loop_timer poll_timer;
	struct backoff poll_backoff;
	int64_t poll_began_ms, poll_next_ms;
	bool is_poll_failing;              /* the last one was not answered */
	bool is_mismatched;
	char mismatch[400];
	int64_t mismatch_wall_ms;
	bool has_bad_path;                 /* a job path leads where no token may go: no polls; bad_path says which */
	char bad_path[240];

	/* jobs: relay.c, outbox.c */
	struct relay *relays;
	size_t relay_count, running_count; /* all; those not yet over */
	int64_t claimed;                   /* those that admission does not know yet */
	int64_t recover_after;             /* rows of earlier runs: up to here they have been looked at; -1: all */
	size_t recovering;                 /* relays made of such rows */
	char *ended[GATEWAY_ENDED_KEPT];
	size_t ended_at;

	bool is_stopping;
	struct loop_timer stop_timer;
	int64_t stop_due_ms;

	struct mutex mu;
	struct {                           /* GUARDED_BY(mu): for gateway_status */
		enum link_state state;
		int64_t state_wall_ms, beat_wall_ms, poll_wall_ms, job_wall_ms;
		int64_t beats, beat_failures, polls, poll_failures, jobs, failed, gone;
		int64_t running, ending;
		int64_t late_max_ms;           /* worst lateness of a heartbeat */
		char error[240];
	} shown;
};

/* One post to the gateway. */
struct link_post {
	const char *path;                  /* behind the base; or: */
	const char *template;              /* a job path, with job_id put in (NULL: it has none) */
	const char *job_id;
	struct buf *take_body;
	int64_t timeout_ms;
	size_t max_answer;                 /* 0: the usual */
	bool is_bare;                      /* without the token */
	void (*done)(void *ctx, const struct exchange_answer *a);
	void *ctx;
};
/* E_INVALID_VALUE, E_FORBIDDEN: the path leads nowhere, or where no token may go. */
MUST_CHECK enum errc link_send(struct gateway *g, const struct link_post *p, struct exchange **ret, struct err *e);

/* link.c */
void link_set_state(struct gateway *g, enum link_state state, const char *why);
void link_note_error(struct gateway *g, const char *what);
/* What 401, 403 and 410 to anything with the token mean for the link; false: the status says nothing about it. */
bool link_judge(struct gateway *g, int status, const char *what);
void link_beat_soon(struct gateway *g);
bool link_is_usable(const struct gateway *g);       /* there is a token, and it was not refused */
MUST_CHECK enum errc link_load(struct gateway *g, struct heartbeat_load *ret, struct err *e);

/* join.c */
void join_begin(struct gateway *g);                 /* no token: enroll, or wait for node.key */
void join_read_key(struct gateway *g);              /* node.key again: perhaps there is another token */
void join_stop(struct gateway *g);

/* poll.c */
void poll_consider(struct gateway *g);              /* ask now, or set the timer, or leave it */
void poll_check_paths(struct gateway *g);           /* at the start, and when they have changed */
void poll_stop(struct gateway *g);
void poll_init(struct gateway *g);

/* A batch of chunks and the signs of life of a job: report.c */
struct relay_report {
	struct relay *r;
	struct buf pending, flying;        /* JSON texts with commas between; unconfirmed are both */
	size_t pending_count;
	struct exchange *x;
	struct loop_timer timer;
	int64_t returned_ms;               /* when the last post came back; 0: none was sent */
	int64_t spoke_ms;                  /* last sign of life */
	bool is_broken;                    /* no more chunks are posted */
	bool is_ended, is_progress;        /* the run is over; what flies is a sign of life, no chunks */
	bool is_overfull;                  /* there were too many to keep: none goes into the result */
};

struct relay {
	struct gateway *g;
	struct relay *next;
	char *job_id, *request_id;
	int64_t seq;                       /* its row; 0: none (yet) */
	enum relay_state state;
	struct buf text;                   /* the job, until invoke has it */
	struct secret attached;
	struct invoke *v;                  /* NULL: of an earlier run, or over */
	struct buf frames;
	struct relay_report report;
	struct store_job job;
	bool is_storing, is_run_due, is_end_due, is_forget_due;   /* writes to be done, one after the other */
	struct exchange *post;             /* start or result */
	struct loop_timer timer;
	struct backoff backoff;
	struct buf start_body, result;
	unsigned tries;
	int64_t began_ms, limit_ms;        /* for how long a start is tried */
	bool was_lost;                     /* a post of this kind may have been taken */
	bool is_over;                      /* the run has an outcome */
	bool is_claimed;                   /* counted in g->claimed */
	bool is_counted;                   /* counted in g->running_count */
	bool is_gone;                      /* nothing more is told to the gateway */
	bool is_ending;                    /* counted in g->shown.ending */
	bool is_recovered, is_stored;      /* result is in the row */
	bool was_started;                  /* the start was taken, as far as is known */
	bool is_freed, is_leaving;
	struct loop_msg free_msg;
};

/* relay.c */
void relay_begin(struct gateway *g, struct slice job, struct slice attached_key, const char *job_id, const char *request_id);
bool relay_is_known(struct gateway *g, const char *job_id);
void relay_on_stored_claim(struct relay *r, enum errc rc, const struct err *e);
void relay_on_started(struct relay *r);                     /* the gateway took the start */
void relay_on_refused(struct relay *r, const struct err *e);   /* it refused it: the job does not run */
void relay_on_gone(struct relay *r, const char *why);       /* 404, 409, 410: stop, forget */
void relay_on_report_settled(struct relay *r);              /* no post of chunks is in flight any more */
void relay_release(struct relay *r);                        /* frees when nothing of it is on its way */
void relay_free(struct relay *r);                           /* now: at the end of the gateway */
void relay_abort(struct relay *r, const char *why);         /* the node stops */
struct relay *relay_new(struct gateway *g, const char *job_id, const char *request_id, struct err *e);

/* outbox.c */
void outbox_claim(struct relay *r);
void outbox_started(struct relay *r);                       /* the row says so */
void outbox_post_start(struct relay *r);
void outbox_end(struct relay *r);                           /* result is written: keep it, then post it */
void outbox_forget(struct relay *r);
void outbox_recover(struct gateway *g);                     /* rows of earlier runs, some at a time */
void outbox_hurry(struct gateway *g);                       /* the link is well again: post now what waits */
void outbox_cancel(struct relay *r);

/* report.c */
void report_init(struct relay_report *v, struct relay *r);
void report_begin(struct relay_report *v);                  /* the job runs: signs of life from now on */
void report_take(struct relay_report *v, struct buf *frames);   /* whole SSE frames; emptied */
void report_end(struct relay_report *v);                    /* no more; settled is told when nothing is in flight, perhaps at once */
MUST_CHECK enum errc report_unconfirmed(struct relay_report *v, struct buf *out, struct err *e);   /* JSON array; nothing when all were taken */
void report_done(struct relay_report *v);

#endif
