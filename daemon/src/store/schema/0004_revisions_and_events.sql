-- Who made the revision that a task was created from, and what they said; NULL for a folder's.
ALTER TABLE tasks ADD COLUMN revision_author TEXT;
ALTER TABLE tasks ADD COLUMN revision_subject TEXT;

-- What happened, in order and only ever added to: `body` is JSON with the object that the event is about. A number is never given twice.
CREATE TABLE events (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL,
    at    INTEGER NOT NULL,
    body  TEXT NOT NULL
) STRICT;
