-- How long a plan may wait for a person's word, in milliseconds; what exists has the default of a day.
ALTER TABLE specs ADD COLUMN approval_timeout_ms INTEGER NOT NULL DEFAULT 86400000;

-- The attempt whose plan the next attempt carries out: a person approved it. NULL before, and once an attempt has run since.
ALTER TABLE tasks ADD COLUMN resume_attempt INTEGER;
ALTER TABLE tasks ADD COLUMN approved_by TEXT;
ALTER TABLE tasks ADD COLUMN approved_at INTEGER;

-- What was approved and waits for a runner: it goes before its template's others.
CREATE INDEX tasks_resume ON tasks (project, template, required_tag, number) WHERE state = 'queued' AND resume_attempt IS NOT NULL;
