-- The condition of jobs_active is looked at with each row that is written: a list in it would be built as a table of its own each time.
DROP INDEX jobs_active;
CREATE INDEX jobs_active ON jobs (key) WHERE state > 0 AND state < 4;
