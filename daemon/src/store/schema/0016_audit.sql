-- Who did what. Rows are added and never changed; one goes when it is older than `audit_retention` says, and not before.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    actor_kind TEXT NOT NULL,
    actor      TEXT NOT NULL,
    remote     TEXT,
    action     TEXT NOT NULL,
    project    TEXT,
    object     TEXT NOT NULL,
    result     TEXT NOT NULL,
    problem    TEXT,
    detail     TEXT
) STRICT;

CREATE INDEX audit_of_project ON audit (project, id);

-- What is older than this may go. It only ever moves forward.
CREATE TABLE audit_retention (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    older_than INTEGER NOT NULL
) STRICT;

INSERT INTO audit_retention VALUES (1, 0);

CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- INSERT OR REPLACE would take the place of a row without a word.
CREATE TRIGGER audit_replaces_nothing BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_keeps_what_is_young BEFORE DELETE ON audit
WHEN OLD.at >= (SELECT older_than FROM audit_retention) BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_retention_moves_forward BEFORE UPDATE ON audit_retention WHEN NEW.older_than < OLD.older_than BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
