/*
 * Shared by httpc*.c only: a client and a transfer on the inside. Everything belongs to the loop's thread.
 *
 *   httpc.c        the client: curl's multi handle on the loop, queue of starts, resumes, cancels, the end of transfers
 *   httpc_xfer.c   one transfer: curl's options, callbacks, time limits, what an error is called
 *   httpc_direct.c streams past curl: the body of the answer
 *   httpc_again.c  streams past curl from the beginning, on a connection that served one before
 *   httpc_parked.c connections that wait for the next stream
 *   httpc_sock.c   a watched socket
 *   httpc_mem.c    curl's memory, and what to do when there is none
 *   httpc_url.c    URLs by our own strict rules; idle connections a host
 */
#ifndef MSWARM_BASE_HTTPC_PRIV_H
#define MSWARM_BASE_HTTPC_PRIV_H

#include "base/buf.h"
#include "base/dechunk.h"
#include "base/httpc.h"

#include <curl/curl.h>

#define HTTPC_IDLE_KEPT		4       /* idle handles that httpc_trim leaves */
#define HTTPC_IDLE_MAX		1024     /* idle handles between two trims */
#define HTTPC_LOOKUPS_MAX	8        /* each is a thread of curl's: design.md 5.12 */
#define HTTPC_GHOST_MS		5000     /* how long a look-up that nobody waits for any more counts */
#define HTTPC_SLICE		16       /* starts at a time: about 1 ms */
#define HTTPC_HEAD_MAX		(64 * 1024)
#define HTTPC_ORIGINS_MAX	64
#define HTTPC_CONNS_MAX		1024     /* connections kept, all hosts */
#define HTTPC_OPENED_MAX	4        /* more are opened only for names with many addresses that refuse */
#define HTTPC_BURNT_MAX		64
#define HTTPC_BLOCK		(16 * 1024) /* read of a stream at a time */
#define HTTPC_HELD_MAX		(512 * 1024) /* of a stream, by curl in one go or while paused: its buffer a hundred times */
#define HTTPC_PARKED_MAX	32       /* connections of ended streams, kept for the next */
#define HTTPC_PARKED_MS		60000

enum httpc_body { BODY_CHUNKS, BODY_LENGTH, BODY_TO_CLOSE };

enum httpc_where {
	HTTPC_WAITING,               /* started, not yet given to curl */
	HTTPC_RUNNING,
	HTTPC_DOOMED,                /* cancelled from inside a curl callback: taken off as soon as that returns */
	HTTPC_ENDING,                /* on_done is running */
};

enum httpc_sock_use {
	SOCK_CURL,                   /* watched on curl's behalf */
	SOCK_DIRECT,                 /* a stream past curl; ours to close */
	SOCK_PARKED,                 /* nobody's now; ours to close */
};

struct httpc_sock {
	struct httpc *c;
	struct httpc_xfer *x;        /* whose it is now; NULL between two, and parked */
	struct httpc_sock *next;     /* of the same transfer, or in the client's list of parked ones */
	int fd;
	int what;                    /* CURL_POLL_, while curl's */
	loop_watch_id watch;
	enum httpc_sock_use use;
	char *origin;                /* parked: owned */
	int64_t parked_ms;
};

struct httpc_handle {                /* one of curl's easy handles: idle in the client's pool, or working for a transfer */
	CURL *easy;
	struct httpc_xfer *x;        /* NULL: idle */
	struct httpc_handle *next;   /* in the pool */
};

struct httpc_list {                  /* doubly linked, by the member "link" of transfers */
	struct httpc_xfer *first, *last;
};

struct httpc_origin {                /* idle connections of one host, when they are limited */
	char name[160];
	unsigned kept, claimed;      /* idle now; running transfers that will keep theirs */
};

struct httpc_xfer {
	struct httpc *c;
	struct httpc_handle *handle;                 /* NULL once a stream goes past curl */
	struct httpc_xfer *next, *prev;              /* in one of the client's lists, by where */
	struct httpc_xfer *next_resume, *next_take;
	struct httpc_sock *socks;                    /* watched for it now */
	int opened[HTTPC_OPENED_MAX];                /* the last sockets opened for it; maybe closed since */
	unsigned opened_count;
	enum httpc_where where;
	enum httpc_phase phase;
	const struct httpc_ops *ops;                 /* borrowed until the end */
	void *ctx;
	struct curl_slist *headers;                  /* owned */
	struct loop_timer limit;                     /* the next of the four limits; moved lazily, never by a chunk */
	int64_t start_ms, last_ms;                   /* last_ms: of the last body byte, the head or a resume */
	int64_t connect_ms, first_byte_ms, idle_ms, total_ms;
	uint64_t max_body, received;
	struct httpc_origin *origin;                 /* NULL: idle connections are not counted */
	size_t head_bytes;
	int status;
	int64_t content_length;
	char content_type[128], retry_after[64], wanted[128];
	const char *header_wanted;
	struct err e;                                /* e.code: why we ended it ourselves; E_OK otherwise */
	bool is_name, is_resolving;                  /* needs a look-up; holds one of the 8 places */
	bool is_head_done, is_paused, is_to_resume, is_fresh, is_once, has_claim;
	/* streams past curl */
	bool is_stream;                              /* asked for, and possible */
	bool is_chunked, is_last;                    /* as the head says; is_last: the peer closes after this answer */
	bool is_to_take;                             /* in the client's list */
	bool is_clean;                               /* ended with nothing behind its end */
	bool is_cut;                                 /* the peer has closed: read to the end */
	bool is_unread;                              /* there may be bytes that no event will tell of again */
	bool is_without_parked;                      /* a parked connection failed it: not another one */
	bool is_head_only;                           /* HEAD */
	enum httpc_body body_kind;
	char *origin_name;                           /* owned; only of a stream */
	struct httpc_sock *direct;                   /* its socket; NULL when curl has it or all of the answer is in held */
	struct buf out;                              /* head of the request for a parked connection */
	struct slice body;                           /* of the request, borrowed as httpc.h says */
	size_t sent;                                 /* of both */
	uint64_t left;                               /* BODY_LENGTH: still to come */
	struct dechunk chunks;
	struct buf held;                             /* coded bytes not yet given, or a head that is not whole */
	CURLcode end_code;                           /* curl's verdict when it saw the end itself */
};

struct httpc {
	struct loop *loop;
	CURLM *multi;
	char *ca_file, *user_agent;
	size_t max_idle_per_host;
	struct loop_timer curl_timer;                /* what curl asked for */
	struct loop_timer kick;                      /* starts and resumes */
	struct httpc_list waiting, running, doomed;
	struct httpc_handle *idle;
	struct httpc_xfer *resume_first, *resume_last, *take_first;
	struct httpc_sock *parked;                   /* the warmest first */
	struct loop_timer parked_timer;
	unsigned parked_count;
	int taking;                                  /* the socket that curl is being rid of; -1 none */
	bool is_taken;                               /* it let go */
	char *block;                                 /* HTTPC_BLOCK */
	size_t active, idle_count, lookups;
	int64_t ghosts[HTTPC_LOOKUPS_MAX];           /* until when an abandoned look-up counts; 0 = free */
	int burnt[HTTPC_BURNT_MAX];                  /* descriptors kept from use: see httpc_end_unwatched() */
	size_t burnt_count;
	bool is_in_curl;                             /* something that calls transfers back is on the stack */
	struct httpc_origin origins[HTTPC_ORIGINS_MAX];
	size_t origin_count;
};

struct httpc_url {
	struct slice host;                           /* without brackets */
	struct slice origin;                         /* scheme://host:port as spelled */
	struct slice authority, target;              /* host:port as spelled; path and query, maybe empty */
	bool is_literal;                             /* address or localhost: no look-up */
	bool is_loopback;
};

/* httpc.c */
void httpc_list_add(struct httpc_list *l, struct httpc_xfer *x);
void httpc_list_del(struct httpc_list *l, struct httpc_xfer *x);
void httpc_finish(struct httpc_xfer *x, enum errc rc);      /* take off, tell, recycle; not from inside curl */
void httpc_lookup_ended(struct httpc_xfer *x);              /* its place may go to another */
void httpc_end_doomed(struct httpc *c);
void httpc_kick(struct httpc *c);
void httpc_restart(struct httpc_xfer *x);                   /* from the queue again; it is off its socket */

/* httpc_direct.c */
void httpc_direct_mark(struct httpc_xfer *x);               /* head is here: to be taken when curl has returned */
bool httpc_direct_hold(struct httpc_xfer *x, struct slice bytes); /* false: refused, x->e says why */
void httpc_direct_unmark(struct httpc_xfer *x);
void httpc_direct_take(struct httpc_xfer *x, bool is_ended, CURLcode code); /* may end x */
void httpc_direct_ready(struct httpc_xfer *x, uint32_t epoll_events);       /* may end x */
bool httpc_direct_deliver(struct httpc_xfer *x, struct slice coded);        /* false: x has ended */
void httpc_direct_resume(struct httpc_xfer *x);             /* may end x */
bool httpc_direct_end(struct httpc_xfer *x, bool is_complete); /* park or close its socket; true: parked */

/* httpc_again.c */
MUST_CHECK enum errc httpc_again_set(struct httpc_xfer *x, const struct httpc_req *r, const struct httpc_url *u, struct err *e);
bool httpc_again_start(struct httpc_xfer *x);               /* false: curl must */
void httpc_again_send(struct httpc_xfer *x);                /* more of the request; may start x anew */
bool httpc_again_head(struct httpc_xfer *x, struct slice bytes); /* false: x has ended */
void httpc_again_cut(struct httpc_xfer *x, int os_errno);   /* closed or failed before the head was whole; may end x */

/* httpc_parked.c */
void httpc_parked_init(struct httpc *c);
bool httpc_parked_has(const struct httpc *c, struct slice origin);
struct httpc_sock *httpc_parked_get(struct httpc *c, const char *origin); /* still watched; NULL none */
bool httpc_parked_put(struct httpc_xfer *x);                /* its socket; false: it may not be kept */
void httpc_parked_drop(struct httpc_sock *s);
void httpc_parked_drop_all(struct httpc *c);

/* httpc_sock.c */
void httpc_sock_link(struct httpc_sock *s, struct httpc_xfer *x);
void httpc_sock_unlink(struct httpc_sock *s);
void httpc_sock_close(struct httpc_sock *s);                /* one of ours, not linked */
MUST_CHECK enum errc httpc_sock_rearm(struct httpc_sock *s, struct err *e); /* one of ours: an event follows if there is any */

/* httpc_mem.c */
void httpc_memory_begin(void);                              /* a call of curl begins */
bool httpc_had_no_memory(void);                             /* it failed to get some */
void httpc_end_unwatched(struct httpc *c);                  /* after CURLM_OUT_OF_MEMORY */
void httpc_free_burnt(struct httpc *c);

/* httpc_xfer.c */
MUST_CHECK enum errc httpc_xfer_new(struct httpc *c, struct httpc_xfer **ret, struct err *e);
void httpc_xfer_free(struct httpc_xfer *x);
MUST_CHECK enum errc httpc_xfer_set(struct httpc_xfer *x, const struct httpc_req *r, struct err *e);
void httpc_xfer_unhand(struct httpc_xfer *x);               /* its handle goes back to the pool */
void httpc_handle_free(struct httpc_handle *h);
void httpc_xfer_note_header(struct httpc_xfer *x, struct slice line); /* one line of the head, neither first nor last */
void httpc_xfer_end_head(struct httpc_xfer *x, int64_t length);       /* tell it; callbacks run */
void httpc_xfer_arm(struct httpc_xfer *x);                  /* arm the first limit */
enum errc httpc_xfer_judge(struct httpc_xfer *x, CURLcode code); /* fills x->e */

/* httpc_url.c */
bool httpc_url_split(struct slice url, struct httpc_url *ret);
struct httpc_origin *httpc_origin_get(struct httpc *c, struct slice name); /* NULL: table full, keep nothing */
void httpc_origin_begin(struct httpc_xfer *x, bool is_reused);  /* connected: may the connection be kept? */
void httpc_origin_end(struct httpc_xfer *x, bool is_kept);

#endif
