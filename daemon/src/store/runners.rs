//! Registered runners: their rows, their tokens' hashes, and what they hold.

use forge_api::{AttemptId, Health, RefusedJob, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Fate, Refused, StoreError, deliveries, rows, work};
use crate::scheduler::task::Happening;

/// A registered runner.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) key: i64,
    pub(crate) name: String,
    pub(crate) public_key: String,
    /// The registration token's name; `None` is the single one of forge.toml.
    pub(crate) registered_by: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) token_max: u32,
    pub(crate) own_max: u32,
    pub(crate) draining: bool,
    /// It takes one task and leaves.
    pub(crate) one_off: bool,
    pub(crate) version: String,
    pub(crate) session: Option<String>,
    pub(crate) last_contact_at: Option<Timestamp>,
    pub(crate) health: Option<Health>,
}

const COLUMNS: &str = "key, name, public_key, registered_by, project, tags, token_max, own_max, draining, \
     version, session, last_contact_at, health, one_off";

fn registration(row: &Row<'_>) -> Result<Registration, rusqlite::Error> {
    Ok(Registration {
        key: row.get(0)?,
        name: row.get(1)?,
        public_key: row.get(2)?,
        registered_by: row.get(3)?,
        project: row.get(4)?,
        tags: rows::json(row, 5)?,
        token_max: row.get(6)?,
        own_max: row.get(7)?,
        draining: row.get(8)?,
        version: row.get(9)?,
        session: row.get(10)?,
        last_contact_at: rows::maybe_time(row, 11)?,
        health: rows::maybe_json(row, 12)?,
        one_off: row.get(13)?,
    })
}

/// A registration about to be stored.
#[derive(Clone, Debug)]
pub(crate) struct NewRegistration {
    pub(crate) name: String,
    pub(crate) public_key: String,
    pub(crate) token_sha256: [u8; 32],
    pub(crate) registered_by: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) token_max: u32,
    pub(crate) own_max: u32,
    pub(crate) one_off: bool,
    pub(crate) version: String,
    /// The registration token's hash and how often it may be used.
    pub(crate) uses: Option<([u8; 32], u32)>,
}

/// All registered runners, by name.
pub(super) fn all(connection: &Connection) -> Result<Vec<Registration>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM runners ORDER BY name");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map([], registration)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The runner of a token, and whether the token is one that was not used before.
pub(super) fn by_token(
    connection: &Connection,
    token_sha256: &[u8; 32],
) -> Result<Option<(Registration, bool)>, StoreError> {
    for (column, pending) in [("token_sha256", false), ("pending_token_sha256", true)] {
        let sql = format!("SELECT {COLUMNS} FROM runners WHERE {column} = ?1");
        let mut statement = connection.prepare_cached(&sql)?;
        if let Some(found) = statement.query_row([token_sha256.as_slice()], registration).optional()? {
            return Ok(Some((found, pending)));
        }
    }
    Ok(None)
}

/// The runner of a name.
pub(super) fn by_name(connection: &Connection, name: &str) -> Result<Option<Registration>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM runners WHERE name = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([name], registration).optional()?)
}

/// What a registration of a known runner gives, for as long as nobody has proved to hold the runner's key.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Grant {
    registered_by: Option<String>,
    project: Option<String>,
    tags: Vec<String>,
    token_max: u32,
    own_max: u32,
    one_off: bool,
    version: String,
}

/// The new token was used: the old one is worth nothing from now on, and what came with the new one counts.
pub(super) fn promote(
    connection: &Connection,
    key: i64,
    token_sha256: &[u8; 32],
    now: Timestamp,
) -> Result<(), StoreError> {
    let found = connection
        .prepare_cached("SELECT pending_grant FROM runners WHERE key = ?1 AND pending_token_sha256 = ?2")?
        .query_row(params![key, token_sha256.as_slice()], |row| rows::maybe_json::<Grant>(row, 0))
        .optional()?;
    let Some(grant) = found else {
        // Another request with the same token was here first.
        return Ok(());
    };
    if let Some(grant) = grant {
        // A one-off runner that comes back begins anew; what a person drained stays drained.
        connection
            .prepare_cached(
                "UPDATE runners SET registered_by = ?2, project = ?3, tags = ?4, token_max = ?5, own_max = ?6,
                     draining = draining AND NOT one_off, one_off = ?7, version = ?8, begun_at = ?9 WHERE key = ?1",
            )?
            .execute(params![
                key,
                grant.registered_by,
                grant.project,
                rows::to_json(&grant.tags)?,
                grant.token_max,
                grant.own_max,
                grant.one_off,
                grant.version,
                now.unix_micros()
            ])?;
        let name: String =
            connection.prepare_cached("SELECT name FROM runners WHERE key = ?1")?.query_row([key], |row| row.get(0))?;
        deliveries::skip_of_runner(connection, &name, now)?;
    }
    connection
        .prepare_cached(
            "UPDATE runners SET token_sha256 = pending_token_sha256, pending_token_sha256 = NULL, pending_grant = NULL
             WHERE key = ?1",
        )?
        .execute([key])?;
    Ok(())
}

/// Whose the name was that a registration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Nobody's.
    New,
    /// A one-off runner's that had its task: it is known no more.
    Successor,
    /// The same runner's.
    Again,
}

impl Registered {
    /// As the audit log says it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Successor => "successor",
            Self::Again => "again",
        }
    }
}

/// Whether a one-off runner has had its task, as far as the store knows: it takes nothing more and holds nothing.
fn has_had_its_task(connection: &Connection, known: &Registration) -> Result<bool, StoreError> {
    Ok(known.one_off && known.draining && held(connection, &known.name)?.is_empty())
}

/// Stores a registration, or gives the runner of that name and key a new token. What counts is decided here, in the one
/// writer: a name is given once, a token is used as often as it may be. `is_away` says whether nobody is heard of under a name.
pub(super) fn register(
    connection: &Connection,
    new: &NewRegistration,
    is_away: impl FnOnce(&str) -> bool,
    now: Timestamp,
) -> Result<Registered, StoreError> {
    match by_name(connection, &new.name)? {
        // A one-off runner's registration ends with its task: whoever comes now begins anew, with whatever key.
        Some(known) if has_had_its_task(connection, &known)? && is_away(&known.name) => {
            // Nobody is told that the old one is gone: who stops its machine then would stop the new one, which goes by the same name.
            connection
                .prepare_cached("UPDATE runners SET told_online = 0, told_idle = 1 WHERE key = ?1")?
                .execute([known.key])?;
            connection.prepare_cached("DELETE FROM runners WHERE key = ?1")?.execute([known.key])?;
            insert(connection, new, now)?;
            Ok(Registered::Successor)
        }
        Some(known) if known.public_key != new.public_key => Err(StoreError::Refused(Refused::NameTaken)),
        // The key on record is the proof: whoever does not hold it cannot open the new token. Until that token is used
        // nothing changes, since a public key is no secret and any registration token may name it. It costs no use.
        Some(known) => {
            let grant = Grant {
                registered_by: new.registered_by.clone(),
                project: new.project.clone(),
                tags: new.tags.clone(),
                token_max: new.token_max,
                own_max: new.own_max,
                one_off: new.one_off,
                version: new.version.clone(),
            };
            connection
                .prepare_cached("UPDATE runners SET pending_token_sha256 = ?2, pending_grant = ?3 WHERE key = ?1")?
                .execute(params![known.key, new.token_sha256.as_slice(), rows::to_json(&grant)?])?;
            Ok(Registered::Again)
        }
        None => {
            insert(connection, new, now)?;
            Ok(Registered::New)
        }
    }
}

fn insert(connection: &Connection, new: &NewRegistration, now: Timestamp) -> Result<(), StoreError> {
    deliveries::skip_of_runner(connection, &new.name, now)?;
    if let Some((token, uses)) = &new.uses {
        spend(connection, token, *uses)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO runners (name, public_key, token_sha256, registered_by, registered_at, project, tags,
                 token_max, own_max, one_off, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            new.name,
            new.public_key,
            new.token_sha256.as_slice(),
            new.registered_by,
            now.unix_micros(),
            new.project,
            rows::to_json(&new.tags)?,
            new.token_max,
            new.own_max,
            new.one_off,
            new.version
        ])?;
    Ok(())
}

fn spend(connection: &Connection, token_sha256: &[u8; 32], uses_max: u32) -> Result<(), StoreError> {
    let uses: u32 = connection
        .prepare_cached(
            "INSERT INTO registration_uses VALUES (?1, 1) ON CONFLICT DO UPDATE SET uses = uses + 1 RETURNING uses",
        )?
        .query_row([token_sha256.as_slice()], |row| row.get(0))?;
    if uses > uses_max { Err(StoreError::Refused(Refused::TokenUsedUp { uses: uses_max })) } else { Ok(()) }
}

/// Forgets a runner. What it still holds is lost at once; its supervisors end by themselves when their leases do.
pub(super) fn remove(
    connection: &Connection,
    name: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<Fate>, StoreError> {
    if connection.prepare_cached("DELETE FROM runners WHERE name = ?1")?.execute([name])? == 0 {
        return Err(StoreError::Refused(Refused::NoRunner));
    }
    let mut fates = Vec::new();
    for held in held(connection, name)? {
        let happening = Happening::RunnerLost { reason: reason.to_owned(), runs_on_ms: held.grace_ms };
        fates.push(work::happen(connection, held.attempt.task, &happening, now)?);
    }
    Ok(fates)
}

/// Lets a runner take nothing new, or again.
pub(super) fn set_draining(
    connection: &Connection,
    name: &str,
    draining: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    if !draining {
        deliveries::skip_of_runner(connection, name, now)?;
    }
    let changed = connection
        .prepare_cached("UPDATE runners SET draining = ?2 WHERE name = ?1")?
        .execute(params![name, draining])?;
    if changed == 0 { Err(StoreError::Refused(Refused::NoRunner)) } else { Ok(()) }
}

/// What a runner said and when.
#[derive(Clone, Debug)]
pub(crate) struct ContactRow {
    pub(crate) key: i64,
    pub(crate) at: Timestamp,
    pub(crate) session: String,
    pub(crate) version: String,
    pub(crate) own_max: u32,
    pub(crate) health: Option<Health>,
}

/// Stores what runners said last.
pub(super) fn store_contacts(connection: &Connection, contacts: &[ContactRow]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE runners SET last_contact_at = ?2, session = ?3, version = ?4, own_max = ?5, health = ?6 WHERE key = ?1",
    )?;
    for contact in contacts {
        let health = contact.health.as_ref().map(rows::to_json).transpose()?;
        statement.execute(params![
            contact.key,
            contact.at.unix_micros(),
            contact.session,
            contact.version,
            contact.own_max,
            health
        ])?;
    }
    Ok(())
}

/// A live attempt of a runner.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) attempt: AttemptId,
    pub(crate) started: bool,
    pub(crate) cancel: bool,
    /// Whether it does what was planned and approved.
    pub(crate) resumes: bool,
    /// How long its supervisor lives on without its runner.
    pub(crate) grace_ms: u64,
}

/// What a runner holds by the store.
pub(super) fn held(connection: &Connection, runner: &str) -> Result<Vec<Held>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT a.task, a.attempt, a.started_at IS NOT NULL, t.cancel_by IS NOT NULL, a.grace_ms,
             t.resume_attempt IS NOT NULL
         FROM attempts a JOIN tasks t ON t.number = a.task WHERE a.runner = ?1 AND a.closed_at IS NULL ORDER BY 1, 2",
    )?;
    let rows = statement.query_map([runner], |row| {
        let attempt = AttemptId { task: row.get(0)?, attempt: row.get(1)? };
        Ok(Held { attempt, started: row.get(2)?, cancel: row.get(3)?, grace_ms: row.get(4)?, resumes: row.get(5)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Ends attempts that were given to a runner and that it does not begin. What is not its own, or began, is not its to refuse.
pub(super) fn refuse(
    connection: &Connection,
    runner: &str,
    jobs: &[RefusedJob],
    now: Timestamp,
) -> Result<Vec<Fate>, StoreError> {
    let mut fates = Vec::new();
    for held in held(connection, runner)?.into_iter().filter(|held| !held.started) {
        if let Some(job) = jobs.iter().find(|job| job.attempt == held.attempt) {
            let reason = format!("runner {runner} refused the job: {}", job.reason);
            fates.push(work::happen(connection, held.attempt.task, &Happening::Fail { reason }, now)?);
        }
    }
    Ok(fates)
}

/// Ends the turn of one-off runners that got no task: those that are silent, as a machine is that died before its first one, and those that
/// have waited as long as they may, as one does that was started for what another took. Like one that had its task, each is told to
/// leave when it asks, and its name is free when it has gone. `wait_ms` says how long a name's runner waits; 0 is for ever.
pub(super) fn end_unused(
    connection: &Connection,
    silent_before: Timestamp,
    wait_ms: impl Fn(&str) -> u64,
    is_away: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let unused: Vec<(i64, String, Timestamp, Timestamp)> = connection
        .prepare_cached(
            "SELECT key, name, coalesce(begun_at, registered_at), max(coalesce(last_contact_at, 0), coalesce(begun_at, registered_at))
             FROM runners r WHERE one_off AND NOT draining AND NOT EXISTS
                 (SELECT 1 FROM attempts a INDEXED BY attempts_live WHERE a.closed_at IS NULL AND a.runner = r.name)",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, rows::time(row, 2)?, rows::time(row, 3)?)))?
        .collect::<Result<_, _>>()?;
    let mut ended = Vec::new();
    for (key, name, begun_at, heard_at) in unused {
        let wait_ms = wait_ms(&name);
        let has_waited = wait_ms > 0 && now.millis_since(begun_at) >= wait_ms;
        if has_waited || (heard_at < silent_before && is_away(&name)) {
            connection.prepare_cached("UPDATE runners SET draining = 1 WHERE key = ?1")?.execute([key])?;
            ended.push(name);
        }
    }
    Ok(ended)
}

/// Forgets runners that are gone for good: one-off ones that did their task, and those without a file that stay away. What the calendar says
/// of their last contact is not enough: it may have been set a moment ago.
pub(super) fn expire(
    connection: &Connection,
    one_off_before: Timestamp,
    away_before: Timestamp,
    declared: &[String],
    is_away: impl Fn(&str) -> bool,
) -> Result<Vec<String>, StoreError> {
    let silent: Vec<(String, bool)> = connection
        .prepare_cached(
            "SELECT name, one_off AND draining FROM runners r
             WHERE (one_off AND draining AND coalesce(last_contact_at, registered_at) < ?1
                 OR coalesce(last_contact_at, registered_at) < ?2)
                 AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.runner = r.name AND a.closed_at IS NULL)",
        )?
        .query_map(params![one_off_before.unix_micros(), away_before.unix_micros()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    let is_gone = |(name, done): &(String, bool)| (*done || !declared.contains(name)) && is_away(name);
    let gone: Vec<String> = silent.into_iter().filter(is_gone).map(|(name, _)| name).collect();
    for name in &gone {
        connection.prepare_cached("DELETE FROM runners WHERE name = ?1")?.execute([name])?;
    }
    Ok(gone)
}

/// The runner of a key; a runner that was removed meanwhile has none.
pub(super) fn by_key(connection: &Connection, key: i64) -> Result<Registration, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM runners WHERE key = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row([key], registration).optional()?.ok_or(StoreError::Refused(Refused::NoRunner))
}
