-- First schema. One transaction, run by db_migrate(); never edited after a release.
PRAGMA application_id = 0x6d737731;

-- Single values: flags that must survive ("access.keyed"), and the writer's own probe of a full disk.
CREATE TABLE meta (
	name  TEXT NOT NULL PRIMARY KEY,
	value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- API keys. The key itself is nowhere: only its SHA-256 and its last characters. Revoked rows stay for the record.
CREATE TABLE keys (
	seq                 INTEGER PRIMARY KEY,
	id                  TEXT NOT NULL UNIQUE CHECK (length(id) BETWEEN 1 AND 19),
	name                TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
	hash                BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
	hint                TEXT NOT NULL CHECK (length(hint) <= 7),
	requests_per_minute INTEGER NOT NULL CHECK (requests_per_minute >= 0),
	max_concurrent      INTEGER NOT NULL CHECK (max_concurrent >= 0),
	created_wall_ms     INTEGER NOT NULL,
	revoked_wall_ms     INTEGER NOT NULL DEFAULT 0
) STRICT;

-- A name is free again once its key is revoked.
CREATE UNIQUE INDEX keys_by_name_in_force ON keys (name) WHERE revoked_wall_ms = 0;

-- Which models a key may use; no row: all of them.
CREATE TABLE key_models (
	key_seq INTEGER NOT NULL REFERENCES keys (seq) ON DELETE CASCADE,
	at      INTEGER NOT NULL,
	model   TEXT NOT NULL,
	PRIMARY KEY (key_seq, at)
) STRICT, WITHOUT ROWID;

-- Running totals by agent and key; l0 .. l15 is the latency histogram of usage_bucket().
CREATE TABLE usage (
	agent             TEXT NOT NULL,
	key_id            TEXT NOT NULL,
	requests          INTEGER NOT NULL,
	errors            INTEGER NOT NULL,
	prompt_tokens     INTEGER NOT NULL,
	completion_tokens INTEGER NOT NULL,
	latency_sum_ms    INTEGER NOT NULL,
	l0 INTEGER NOT NULL, l1 INTEGER NOT NULL, l2 INTEGER NOT NULL, l3 INTEGER NOT NULL,
	l4 INTEGER NOT NULL, l5 INTEGER NOT NULL, l6 INTEGER NOT NULL, l7 INTEGER NOT NULL,
	l8 INTEGER NOT NULL, l9 INTEGER NOT NULL, l10 INTEGER NOT NULL, l11 INTEGER NOT NULL,
	l12 INTEGER NOT NULL, l13 INTEGER NOT NULL, l14 INTEGER NOT NULL, l15 INTEGER NOT NULL,
	PRIMARY KEY (agent, key_id)
) STRICT, WITHOUT ROWID;
