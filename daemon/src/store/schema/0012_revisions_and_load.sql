-- What became of the newest revisions of the configuration, as JSON without secrets.
CREATE TABLE config_revisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    body   TEXT NOT NULL
) STRICT;

-- How busy the runners were, a row a minute.
CREATE TABLE load_samples (
    minute         INTEGER PRIMARY KEY,     -- since the Unix epoch
    queued         INTEGER NOT NULL,
    running        INTEGER NOT NULL,
    slots          INTEGER,                 -- NULL where a runner that is online has no limit
    runners_online INTEGER NOT NULL
) STRICT;
