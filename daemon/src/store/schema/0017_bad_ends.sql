-- What ended badly, by when it ended: the first page shows the last of it.
CREATE INDEX tasks_bad_ends ON tasks (project, finished_at) WHERE state IN ('failed', 'timed_out', 'lost', 'expired');
