-- Webhook targets are told of events from here: an event is written in the transaction of the change that it is about, and put out
-- to its targets in the same one.

-- The targets of a task's template and project, as JSON: who was to be told when it was made is told of its end.
ALTER TABLE specs ADD COLUMN webhooks TEXT NOT NULL DEFAULT '[]';

-- When it was last told that a task waits with no runner there; NULL is never.
ALTER TABLE tasks ADD COLUMN waiting_told_at INTEGER;

-- What was last told of a runner.
ALTER TABLE runners ADD COLUMN told_online INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runners ADD COLUMN told_idle INTEGER NOT NULL DEFAULT 0;

-- Attempts that ended and whose logs are still on their way.
CREATE INDEX attempts_sending ON attempts (runner, closed_at) WHERE closed_at IS NOT NULL AND log_state = 'open';

-- What an event is called outside; the task or the runner that it is about, the task's state filling its body in; and its targets,
-- where they were chosen as it was written.
ALTER TABLE events ADD COLUMN uid TEXT;
ALTER TABLE events ADD COLUMN task INTEGER;
ALTER TABLE events ADD COLUMN runner TEXT;
ALTER TABLE events ADD COLUMN targets TEXT;

CREATE INDEX events_task ON events (task) WHERE task IS NOT NULL;

-- One row: whether the tree that serves has any webhook target, and the newest event that was put out.
CREATE TABLE outbox (
    tells   INTEGER NOT NULL,
    put_out INTEGER NOT NULL
) STRICT;

INSERT INTO outbox SELECT 0, coalesce(max(id), 0) FROM events;

-- Triggers, so that no step of a task can forget its event.
CREATE TRIGGER tasks_told_made AFTER INSERT ON tasks WHEN (SELECT tells FROM outbox) BEGIN
    INSERT INTO events (event, at, body, uid, task)
    VALUES (iif(NEW.deadline_at IS NULL, 'task.finished', 'task.queued'), 0, '', lower(hex(randomblob(16))), NEW.number);
END;

CREATE TRIGGER tasks_told_on AFTER UPDATE OF state ON tasks
WHEN OLD.state <> NEW.state AND (SELECT tells FROM outbox)
    AND (NEW.state IN ('queued', 'running') OR NEW.deadline_at IS NULL)
BEGIN
    INSERT INTO events (event, at, body, uid, task)
    VALUES (CASE NEW.state WHEN 'queued' THEN 'task.queued' WHEN 'running' THEN 'task.started' ELSE 'task.finished' END,
            0, '', lower(hex(randomblob(16))), NEW.number);
END;

-- A registration that ends takes along what was not told of it yet.
CREATE TRIGGER runners_told_gone AFTER DELETE ON runners WHEN (SELECT tells FROM outbox) BEGIN
    INSERT INTO events (event, at, body, uid, runner)
    SELECT 'runner.idle', 0, '', lower(hex(randomblob(16))), OLD.name WHERE OLD.draining AND NOT OLD.told_idle;
    INSERT INTO events (event, at, body, uid, runner)
    SELECT 'runner.offline', 0, '', lower(hex(randomblob(16))), OLD.name WHERE OLD.told_online AND NOT OLD.draining;
END;

CREATE TABLE deliveries (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,            -- Forge-Delivery: the same for every try
    event      INTEGER NOT NULL REFERENCES events (id),
    target     TEXT NOT NULL,
    subject    TEXT NOT NULL,                   -- those about one subject go to a target in their order
    state      TEXT NOT NULL,                   -- waiting, delivered, skipped, dead
    tries      INTEGER NOT NULL DEFAULT 0,
    next_at    INTEGER,                         -- NULL at its end, and while an earlier one of its subject goes first
    message    TEXT,                            -- what the last try came to, where it did not arrive
    exchanges  TEXT NOT NULL DEFAULT '[]',      -- the last try's requests, as JSON without secrets
    created_at INTEGER NOT NULL,
    tried_at   INTEGER,
    ended_at   INTEGER
) STRICT;

CREATE INDEX deliveries_due ON deliveries (target, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_order ON deliveries (target, subject, number) WHERE state = 'waiting';
CREATE INDEX deliveries_event ON deliveries (event);
CREATE INDEX deliveries_state ON deliveries (state, number);
CREATE INDEX deliveries_target ON deliveries (target, number);
CREATE INDEX deliveries_subject ON deliveries (subject) WHERE state = 'waiting';

-- How many deliveries of each target stand in each state, kept by the triggers below.
CREATE TABLE delivery_counts (
    target     TEXT NOT NULL,
    state      TEXT NOT NULL,
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (target, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER deliveries_counted_in AFTER INSERT ON deliveries BEGIN
    INSERT INTO delivery_counts VALUES (NEW.target, NEW.state, 1) ON CONFLICT DO UPDATE SET deliveries = deliveries + 1;
END;

CREATE TRIGGER deliveries_counted_on AFTER UPDATE OF state ON deliveries WHEN OLD.state <> NEW.state BEGIN
    UPDATE delivery_counts SET deliveries = deliveries - 1 WHERE target = OLD.target AND state = OLD.state;
    INSERT INTO delivery_counts VALUES (NEW.target, NEW.state, 1) ON CONFLICT DO UPDATE SET deliveries = deliveries + 1;
END;

CREATE TRIGGER deliveries_counted_out AFTER DELETE ON deliveries BEGIN
    UPDATE delivery_counts SET deliveries = deliveries - 1 WHERE target = OLD.target AND state = OLD.state;
END;
