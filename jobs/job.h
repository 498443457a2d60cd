/*
 * What can be done to a job, each one body of the store: rows, audit and sums change together or not at all.
 *
 * A struct of the kind below is filled by its owner, submitted (or run) as its store_job, and read when that is done. A
 * body may run again, so it starts from what was filled and overwrites what it found.
 *
 * Owns: strings and rows inside are heap; <kind>_done frees. Threads: bodies on THREAD(store), the rest the owner's.
 */
#ifndef MSWARM_JOBS_JOB_H
#define MSWARM_JOBS_JOB_H

#include "base/token.h"
#include "jobs/artifact.h"
#include "jobs/capabilities.h"
#include "jobs/events.h"
#include "jobs/journal.h"
#include "jobs/request.h"
#include "jobs/state.h"
#include "store/artifacts.h"
#include "store/audit.h"
#include "store/job_totals.h"

#define JOB_STREAM_MAX (1u << 30)       /* bytes of each output that are kept when the request says nothing */
#define CLAIMS_MAX 16                   /* jobs of one claim */
#define JOB_ENVELOPE_MS 300000          /* from the start until the envelope says that it expires */

/* ---- create (R6) ---- */
struct job_create {
	struct store_job job;           /* name and body are set by job_create_init */
	struct job_row wanted;          /* as given; the new row when it was not there */
	struct job_row found;           /* is_reused: the one that was there */
	bool is_reused;
	struct audit_row audit[2];      /* of a new one: created, queued; details borrow from the buffer */
	struct buf details;
};
void job_create_init(struct job_create *c);
void job_create_done(struct job_create *c);

/* ---- cancel (R14, R5) and retry (R15) by a person, and the end of a direct job whose caller has left ---- */
enum job_wish { JOB_WISH_CANCEL, JOB_WISH_RETRY, JOB_WISH_CANCEL_DIRECT };
struct job_ask {
	struct store_job job;
	enum job_wish wish;
	int64_t key;                    /* not 0: this job, and no token is compared */
	struct token_claims claims;
	struct job_row found;           /* afterwards */
	bool is_stop_wanted;            /* it runs: its process is to be stopped */
};
void job_ask_init(struct job_ask *a, enum job_wish wish);
void job_ask_done(struct job_ask *a);

/* ---- claim: queued jobs begin ---- */
struct job_claim {
	struct store_job job;
	const struct capabilities *caps;
	int64_t max_active;             /* in all */
	int64_t boot;                   /* which run of the machine this is */
	bool is_draining;               /* deadlines are kept, nothing begins */
	char *holder;                   /* the tenant that has the node, kept from claim to claim; NULL: none */
	int64_t holder_since_wall_ms;
	struct job_row begun[CLAIMS_MAX];
	size_t n;
	bool is_more;                   /* more may be begun at once */
	bool is_full;                   /* nothing begins until one that runs has ended, or draining has */
	bool has_ended_some;            /* by deadline, or because the node cannot run them */
	int64_t next_deadline_wall_ms;  /* of a waiting job; 0: none */
};
void job_claim_init(struct job_claim *c);
void job_claim_done(struct job_claim *c);

/* ---- record: what an attempt said, and its end ---- */
struct job_end {
	enum job_state to;              /* SUCCEEDED, FAILED, CANCELLED */
	bool is_retryable;              /* the retry policy may queue it again */
	bool is_lost;                   /* it surely never began: queued again without counting */
	char *result, *artifacts, *issues;  /* JSON; artifacts and issues may be NULL */
	int64_t artifact_count, artifact_bytes;
	bool has_files;                 /* outs take the place of what earlier attempts left */
	struct artifact_outs outs;
};
struct job_record {
	struct store_job job;
	int64_t key, attempt;
	struct events events;
	struct attempt_row at;          /* how far the journal is read then; at.job_key 0: not written */
	struct buf out_carry, err_carry;
	bool has_end;
	struct job_end end;
	struct job_row found;           /* afterwards */
};
void job_record_init(struct job_record *r);
void job_record_done(struct job_record *r);

/* ---- prune: a step of forgetting ---- */
struct job_prune {
	struct store_job job;
	struct keep_limits keep;
	struct artifact_keys gone;      /* files to be unlinked */
	bool is_more;
};
void job_prune_init(struct job_prune *p, const struct keep_limits *keep);

/* ---- shared by the bodies ---- */
MUST_CHECK enum errc job_audit(struct store_tx *t, const struct job_row *j, enum audit_action action, int64_t now_wall_ms, struct slice details, struct err *e);

#endif
