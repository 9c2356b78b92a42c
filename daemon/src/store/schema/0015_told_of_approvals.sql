-- That a task waits for a person is told, too.
DROP TRIGGER tasks_told_on;

CREATE TRIGGER tasks_told_on AFTER UPDATE OF state ON tasks
WHEN OLD.state <> NEW.state AND (SELECT tells FROM outbox)
    AND (NEW.state IN ('queued', 'running', 'awaiting_approval') OR NEW.deadline_at IS NULL)
BEGIN
    INSERT INTO events (event, at, body, uid, task)
    VALUES (CASE NEW.state WHEN 'queued' THEN 'task.queued' WHEN 'running' THEN 'task.started'
                WHEN 'awaiting_approval' THEN 'task.awaiting_approval' ELSE 'task.finished' END,
            0, '', lower(hex(randomblob(16))), NEW.number);
END;
