-- What asks by project, by state or for a runner without reading all of the history.

-- A project's newest tasks, page by page.
CREATE INDEX tasks_project ON tasks (project, number);

-- What a second registration gave, as JSON: it counts from the first use of its token, which proves the runner's key.
ALTER TABLE runners ADD COLUMN pending_grant TEXT;

-- How many tasks stand in each state, kept by the triggers below: metrics ask often, and history is long.
CREATE TABLE task_counts (
    state TEXT PRIMARY KEY,
    tasks INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO task_counts SELECT state, count(*) FROM tasks GROUP BY state;

CREATE TRIGGER tasks_counted_in AFTER INSERT ON tasks BEGIN
    INSERT INTO task_counts VALUES (NEW.state, 1) ON CONFLICT DO UPDATE SET tasks = tasks + 1;
END;

CREATE TRIGGER tasks_counted_on AFTER UPDATE OF state ON tasks WHEN OLD.state <> NEW.state BEGIN
    UPDATE task_counts SET tasks = tasks - 1 WHERE state = OLD.state;
    INSERT INTO task_counts VALUES (NEW.state, 1) ON CONFLICT DO UPDATE SET tasks = tasks + 1;
END;

CREATE TRIGGER tasks_counted_out AFTER DELETE ON tasks BEGIN
    UPDATE task_counts SET tasks = tasks - 1 WHERE state = OLD.state;
END;
