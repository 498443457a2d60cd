-- The durable job plane. Times are Unix milliseconds, 0 is none; documents are JSON text. States and event types are
-- numbered by the lists in store/jobs.h and store/job_events.h, actions by store/audit.h: only ever added to at their end.

-- key: milliseconds shifted by 20 bits, counted up within one; rows of one time lie together, and it names the directories.
CREATE TABLE jobs (
	key                INTEGER PRIMARY KEY,
	job_id             TEXT NOT NULL,
	is_direct          INTEGER NOT NULL,
	request_id         TEXT NOT NULL,
	tenant_id          TEXT NOT NULL,
	idempotency_key    TEXT NOT NULL,
	job_type           TEXT NOT NULL,
	schema_version     TEXT NOT NULL,
	token_sha256       TEXT NOT NULL,
	state              INTEGER NOT NULL,
	attempt            INTEGER NOT NULL,
	priority           INTEGER NOT NULL,
	deadline_wall_ms   INTEGER NOT NULL,
	retry_count        INTEGER NOT NULL,
	max_retries        INTEGER NOT NULL,
	next_retry_wall_ms INTEGER NOT NULL,
	created_wall_ms    INTEGER NOT NULL,
	updated_wall_ms    INTEGER NOT NULL,
	queued_wall_ms     INTEGER NOT NULL,
	scheduled_wall_ms  INTEGER NOT NULL,
	started_wall_ms    INTEGER NOT NULL,
	finished_wall_ms   INTEGER NOT NULL,
	released_wall_ms   INTEGER NOT NULL,
	is_cancel_asked    INTEGER NOT NULL,
	next_sequence      INTEGER NOT NULL,
	last_event_type    INTEGER NOT NULL,
	last_event_message TEXT,
	progress_percent   REAL,
	artifact_count     INTEGER NOT NULL,
	artifact_bytes     INTEGER NOT NULL,
	log_bytes          INTEGER NOT NULL,
	backpressure       TEXT,
	reservation        TEXT,
	result             TEXT,
	artifacts          TEXT,
	validation_issues  TEXT,
	request            TEXT NOT NULL
) STRICT;

-- A direct job (R4) is known by its id only while it is at work; the id may be used again, and by a lifecycle job.
CREATE UNIQUE INDEX jobs_by_id ON jobs (job_id) WHERE is_direct = 0;
CREATE UNIQUE INDEX jobs_by_idempotency_key ON jobs (idempotency_key) WHERE is_direct = 0;
CREATE UNIQUE INDEX jobs_direct_at_work ON jobs (job_id) WHERE is_direct = 1 AND state < 4;

-- Who waits, tenant by tenant, in the order of its own jobs; who is at work; whose time may run out while waiting; who may
-- be forgotten first.
CREATE INDEX jobs_waiting ON jobs (tenant_id, priority, queued_wall_ms, key) WHERE state = 0;
CREATE INDEX jobs_active ON jobs (key) WHERE state IN (1, 2, 3);
CREATE INDEX jobs_deadline ON jobs (deadline_wall_ms) WHERE state = 0 AND deadline_wall_ms > 0;
CREATE INDEX jobs_ended ON jobs (finished_wall_ms, key) WHERE state >= 4;
CREATE INDEX jobs_by_update ON jobs (updated_wall_ms, key);

-- A tenant has a row while jobs of it wait; served is the number of the claim that was its last.
CREATE TABLE tenants (
	tenant_id TEXT NOT NULL PRIMARY KEY,
	waiting   INTEGER NOT NULL CHECK (waiting >= 0),
	served    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tenants_by_turn ON tenants (served, tenant_id) WHERE waiting > 0;

-- One run of a job. journal_bytes: how much of the journal stands in events, -1 before its start does; *_carry: the line
-- that had not ended there.
CREATE TABLE attempts (
	job_key         INTEGER NOT NULL REFERENCES jobs (key) ON DELETE CASCADE,
	attempt         INTEGER NOT NULL,
	journal_bytes   INTEGER NOT NULL,
	out_lines       INTEGER NOT NULL,
	err_lines       INTEGER NOT NULL,
	out_carry       BLOB NOT NULL,
	err_carry       BLOB NOT NULL,
	PRIMARY KEY (job_key, attempt)
) STRICT, WITHOUT ROWID;

-- pos orders within an attempt and never changes: 8 times the place in the journal, plus a count at one place.
CREATE TABLE events (
	job_key  INTEGER NOT NULL REFERENCES jobs (key) ON DELETE CASCADE,
	attempt  INTEGER NOT NULL,
	pos      INTEGER NOT NULL,
	sequence INTEGER NOT NULL,
	wall_ms  INTEGER NOT NULL,
	type     INTEGER NOT NULL,
	message  TEXT,
	data     TEXT,
	PRIMARY KEY (job_key, attempt, pos)
) STRICT, WITHOUT ROWID;

-- events > 0: this row stands for that many records of events, from first_sequence on; details are their types, a letter each.
CREATE TABLE audit (
	seq            INTEGER PRIMARY KEY,
	job_key        INTEGER NOT NULL REFERENCES jobs (key) ON DELETE CASCADE,
	wall_ms        INTEGER NOT NULL,
	action         INTEGER NOT NULL,
	first_sequence INTEGER NOT NULL,
	events         INTEGER NOT NULL,
	details        TEXT
) STRICT;
CREATE INDEX audit_by_job ON audit (job_key, seq);

-- Running sums, by the numbers of the list in store/job_totals.h.
CREATE TABLE job_totals (
	id    INTEGER PRIMARY KEY,
	value INTEGER NOT NULL
) STRICT;
