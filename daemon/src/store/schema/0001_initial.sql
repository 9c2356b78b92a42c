-- What the daemon remembers. Times are microseconds since the Unix epoch; hashes are raw bytes; JSON is text.

-- What a task needs of its revision, once for all tasks that share it.
CREATE TABLE specs (
    id     INTEGER PRIMARY KEY,
    sha256 BLOB NOT NULL UNIQUE,
    json   TEXT NOT NULL,
    -- What every step of a task reads, beside the JSON that only a claim reads.
    timeout_ms       INTEGER NOT NULL,
    queue_timeout_ms INTEGER NOT NULL,
    runner_grace_ms  INTEGER NOT NULL,
    on_runner_lost   TEXT NOT NULL,
    retry_attempts   INTEGER NOT NULL,
    retry_delay_ms   INTEGER NOT NULL
) STRICT;

CREATE TABLE tasks (
    number           INTEGER PRIMARY KEY AUTOINCREMENT,
    project          TEXT NOT NULL,
    template         TEXT NOT NULL,
    state            TEXT NOT NULL,
    reason           TEXT,
    attempt          INTEGER NOT NULL DEFAULT 0,
    required_tag     TEXT NOT NULL,             -- '' is none, so that it takes part in the queue's order
    priority         INTEGER NOT NULL,
    concurrency      TEXT NOT NULL,
    revision         TEXT NOT NULL,
    commit_id        TEXT,
    exit_code        INTEGER,
    trigger_kind     TEXT NOT NULL,
    trigger_by       TEXT NOT NULL,
    variables        TEXT NOT NULL,
    arguments        TEXT NOT NULL,
    secret_answers   BLOB,                      -- sealed to the daemon; gone once the task is final
    had_secret_answers INTEGER NOT NULL,
    summary          TEXT,
    spec             INTEGER NOT NULL REFERENCES specs (id),
    retries_left     INTEGER NOT NULL,
    cancel_by        TEXT,                      -- the intent; no report removes it
    cancel_at        INTEGER,
    created_at       INTEGER NOT NULL,
    queued_at        INTEGER NOT NULL,          -- since when it counts as waiting
    ready_at         INTEGER NOT NULL,          -- not assigned before
    assigned_at      INTEGER,
    started_at       INTEGER,
    finished_at      INTEGER,
    deadline_at      INTEGER                    -- when the reconciler acts; NULL exactly when the task is final
) STRICT;

CREATE INDEX tasks_queue ON tasks (project, template, required_tag, priority DESC, number) WHERE state = 'queued';
CREATE INDEX tasks_deadline ON tasks (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX tasks_ready ON tasks (ready_at) WHERE state = 'queued';
CREATE INDEX tasks_open ON tasks (project, template) WHERE deadline_at IS NOT NULL;
CREATE INDEX tasks_template ON tasks (project, template, number);
CREATE INDEX tasks_state ON tasks (state, number);
CREATE INDEX tasks_spec ON tasks (spec);

-- A slot is a live row here: closed_at IS NULL.
CREATE TABLE attempts (
    task         INTEGER NOT NULL REFERENCES tasks (number) ON DELETE CASCADE,
    attempt      INTEGER NOT NULL,
    runner       TEXT NOT NULL,
    project      TEXT NOT NULL,
    template     TEXT NOT NULL,
    nonce        BLOB NOT NULL,
    token_sha256 BLOB NOT NULL,
    grace_ms     INTEGER NOT NULL,
    assigned_at  INTEGER NOT NULL,
    started_at   INTEGER,
    closed_at    INTEGER,
    closed_why   TEXT,
    result       TEXT,                          -- the runner's report as it came
    result_at    INTEGER,
    counted      INTEGER,                       -- whether the report decided anything
    resends      INTEGER NOT NULL DEFAULT 0,    -- how often its log was asked for again
    log_state    TEXT NOT NULL DEFAULT 'open',  -- open, whole, damaged
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempts_live ON attempts (runner, project, template) WHERE closed_at IS NULL;

CREATE TABLE runners (
    key                  INTEGER PRIMARY KEY AUTOINCREMENT,
    name                 TEXT NOT NULL UNIQUE,
    token_sha256         BLOB NOT NULL UNIQUE,
    pending_token_sha256 BLOB UNIQUE,           -- becomes the token when it is first used
    public_key           TEXT NOT NULL,
    registered_by        TEXT,                  -- a registration token's name; NULL is the single one of forge.toml
    registered_at        INTEGER NOT NULL,
    project              TEXT,                  -- what that token gave, for a runner without a file
    tags                 TEXT NOT NULL,
    token_max            INTEGER NOT NULL,
    own_max              INTEGER NOT NULL,
    one_off              INTEGER NOT NULL,
    draining             INTEGER NOT NULL DEFAULT 0,
    version              TEXT NOT NULL,
    session              TEXT,
    last_contact_at      INTEGER,
    health               TEXT
) STRICT;

CREATE TABLE registration_uses (
    token_sha256 BLOB PRIMARY KEY,
    uses         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_keys (
    project     TEXT NOT NULL,
    template    TEXT NOT NULL,
    key         TEXT NOT NULL,
    request_mac BLOB NOT NULL,
    task        INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (project, template, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
