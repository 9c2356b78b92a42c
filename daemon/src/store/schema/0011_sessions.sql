-- Who is signed in to the dashboard. Neither the session's own secret nor the token is here, and what the token may is the tree's to say.
CREATE TABLE sessions (
    sha256       BLOB PRIMARY KEY,
    token_sha256 BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_of_token ON sessions (token_sha256, created_at);
