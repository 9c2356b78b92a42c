-- Tokens that are refused whatever the tree says. Rows stay: a revision from before must not bring a leaked token back.
CREATE TABLE revoked_tokens (
    sha256     BLOB PRIMARY KEY,
    revoked_by TEXT NOT NULL,
    revoked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
