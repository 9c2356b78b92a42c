-- The schedule that made a task, also once somebody has retried it and is what triggered it last.
ALTER TABLE tasks ADD COLUMN schedule TEXT;

UPDATE tasks SET schedule = trigger_by WHERE trigger_kind = 'schedule';

DROP INDEX tasks_scheduled;
CREATE INDEX tasks_scheduled ON tasks (project, schedule) WHERE deadline_at IS NOT NULL AND schedule IS NOT NULL;

-- Up to where old events were looked through: those that are still to be told stay, and are not looked at in each round.
ALTER TABLE outbox ADD COLUMN forget_from INTEGER NOT NULL DEFAULT 0;
