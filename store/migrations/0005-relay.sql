-- Jobs that came from the gateway and that it has not let go of: a row from the claim until the gateway has taken the result, or
-- says that the job is gone. No prompt, no key of the owner's stands here. state: store/relay_jobs.h. result: the JSON to be posted,
-- once it is known.
CREATE TABLE relay_jobs (
	seq             INTEGER PRIMARY KEY AUTOINCREMENT,
	job_id          TEXT NOT NULL UNIQUE,
	request_id      TEXT NOT NULL,
	state           INTEGER NOT NULL,
	claimed_wall_ms INTEGER NOT NULL,
	result          BLOB
) STRICT;
