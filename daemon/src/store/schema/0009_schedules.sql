-- Until when each schedule was looked at: a firing after it, and not after now, is due. Another cron line or zone begins anew.
CREATE TABLE schedules (
    project  TEXT NOT NULL,
    schedule TEXT NOT NULL,
    meaning  TEXT NOT NULL,
    until    INTEGER NOT NULL,
    PRIMARY KEY (project, schedule)
) STRICT, WITHOUT ROWID;

-- Each firing once, by the time that it was meant for.
CREATE TABLE firings (
    project    TEXT NOT NULL,
    schedule   TEXT NOT NULL,
    nominal_at INTEGER NOT NULL,
    fired_at   INTEGER NOT NULL,
    task       INTEGER,                         -- NULL where none was made
    message    TEXT,                            -- why not
    PRIMARY KEY (project, schedule, nominal_at)
) STRICT, WITHOUT ROWID;

-- The open tasks of a schedule, whatever template it starts by now.
CREATE INDEX tasks_scheduled ON tasks (project, trigger_by) WHERE deadline_at IS NOT NULL AND trigger_kind = 'schedule';
