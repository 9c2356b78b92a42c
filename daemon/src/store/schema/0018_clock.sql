-- How long after it was put into the queue a task is not assigned, in milliseconds: what `ready_at` may be ahead of the calendar by.
ALTER TABLE tasks ADD COLUMN delay_ms INTEGER NOT NULL DEFAULT 0;

UPDATE tasks SET delay_ms = max(0, (ready_at - created_at) / 1000) WHERE state = 'queued';

-- The registration that the attempt was given to; NULL for old ones. Another one of the same name is another runner.
ALTER TABLE attempts ADD COLUMN runner_key INTEGER;

UPDATE attempts SET runner_key = (SELECT r.key FROM runners r WHERE r.name = attempts.runner AND r.registered_at <= attempts.assigned_at)
WHERE closed_at IS NULL OR log_state = 'open' OR runner IN (SELECT r.name FROM runners r WHERE r.one_off);
