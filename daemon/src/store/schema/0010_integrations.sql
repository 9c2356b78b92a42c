-- What came to integrations and what became of it, the newest of each. A request that did not prove itself is not written down.
CREATE TABLE integration_requests (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    project     TEXT NOT NULL,
    integration TEXT NOT NULL,
    at          INTEGER NOT NULL,
    delivery    TEXT,
    outcome     TEXT NOT NULL,
    message     TEXT NOT NULL,
    task        INTEGER
) STRICT;

CREATE INDEX integration_requests_newest ON integration_requests (project, integration, number);
