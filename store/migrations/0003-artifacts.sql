-- Files that jobs take in and leave behind. A job id has one space, made by its first upload or its first output: it may be
-- there before the job. label is its name in uris; tenant_id is that of the job that left something in it last, or empty.
CREATE TABLE spaces (
	key          INTEGER PRIMARY KEY,
	job_id       TEXT NOT NULL UNIQUE,
	label        TEXT NOT NULL UNIQUE,
	tenant_id    TEXT NOT NULL,
	used_wall_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX spaces_by_use ON spaces (used_wall_ms);

-- One file each: its key names it on disk, so no path of a caller ever does. job_key: whose output it is, 0 for an upload (a direct
-- job and a lifecycle job may have one id, and so share a space). sha256 is empty while an upload is not whole; then
-- size_bytes is what is safe on disk. wanted_bytes: the length that was announced, -1 for none.
CREATE TABLE artifacts (
	key          INTEGER PRIMARY KEY,
	space_key    INTEGER NOT NULL REFERENCES spaces (key),
	job_key      INTEGER NOT NULL,
	is_output    INTEGER NOT NULL,
	path         TEXT NOT NULL,
	id           TEXT NOT NULL,
	name         TEXT NOT NULL,
	content_type TEXT NOT NULL,
	size_bytes   INTEGER NOT NULL,
	wanted_bytes INTEGER NOT NULL,
	sha256       TEXT NOT NULL,
	made_wall_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX artifacts_by_path ON artifacts (space_key, is_output, path);
CREATE INDEX artifacts_by_job ON artifacts (job_key) WHERE job_key > 0;
CREATE INDEX artifacts_by_id ON artifacts (space_key, id, key);
