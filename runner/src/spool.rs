//! What is not yet acknowledged, on disk: one private folder an attempt, in which a restarted runner finds everything that it
//! needs to go on.
//!
//! | file | what |
//! |---|---|
//! | `attempt.json` | which attempt, its token, its supervisor: a line before the daemon is told, and another before the supervisor begins the job; the last whole one counts |
//! | `log` | the masked log, written by the supervisor |
//! | `reserve` | room for the last lines and the result, should the disk be full |
//! | `result.json` | how it ended: whole or not there |
//! | `carry` | what an attempt that awaits approval leaves for the next one, encrypted: there before its result |
//! | `resume` | what an approved attempt begins with, encrypted: gone once it is in the workspace |
//! | `control.sock` | where a runner attaches, while the supervisor lives |
//!
//! A folder goes only when its result is acknowledged and the daemon holds the whole log for good. Most are gone within milliseconds, so
//! nothing here waits for the disk; what the daemon has not taken by then is made to survive a power cut ([`sync`]). An empty file
//! is as good as none: the next attempt may get the folder of one that is over ([`crate::shelf`]).

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use forge_api::{AttemptId, AttemptOutcome, AttemptResult, Secret};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::procfs;
use crate::shelf::Shelf;
use crate::user::JobUser;
use crate::wire::Order;

/// The log's name.
pub(crate) const LOG: &str = "log";

/// The name of the file that keeps room for the end of the log and the result.
pub(crate) const RESERVE: &str = "reserve";

/// The control socket's name.
pub(crate) const CONTROL: &str = "control.sock";

/// How the name of a folder of secret files ends that lies beside its workspace.
pub(crate) const PRIVATE_END: &str = ".private";

const RESULT: &str = "result.json";
const ATTEMPT: &str = "attempt.json";

/// Files that hold nothing of an attempt any more once they are cut to nothing.
pub(crate) const KEPT: [&str; 3] = [ATTEMPT, RESULT, LOG];

/// What the result's file holds. Its attempt is named, since the folder may be one that an earlier attempt had.
#[derive(Serialize, Deserialize)]
struct Left<R> {
    attempt: AttemptId,
    result: R,
}

/// What a restarted runner must know of an attempt. It holds the attempt's token and nothing of the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which attempt.
    pub(crate) attempt: AttemptId,
    /// The bearer of its requests.
    pub(crate) token: Secret,
    /// The supervisor's process.
    pub(crate) supervisor_pid: i32,
    /// When it started, in clock ticks since boot: a reused number is not taken for it.
    pub(crate) supervisor_start_ticks: u64,
    /// The boot that the ticks count from.
    pub(crate) boot_id: String,
    /// The runner's session that started it.
    pub(crate) session: String,
    /// How long the runner may be gone, in milliseconds.
    pub(crate) runner_grace_ms: u64,
    /// The job's folder, to be removed after it.
    pub(crate) workspace: PathBuf,
    /// The folder of secret files, to be removed after it.
    pub(crate) private: PathBuf,
    /// Whose processes the job's are, when not the runner's own user's.
    #[serde(default)]
    pub(crate) user: Option<JobUser>,
    /// The user that has no other processes than this attempt's, where there is one.
    #[serde(default)]
    pub(crate) alone_uid: Option<u32>,
    /// How far the runner had come with it.
    #[serde(default)]
    pub(crate) stage: Stage,
}

/// How far a runner has come with an attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The daemon may have been told that it starts. Nothing of the job ran.
    Told,
    /// It could not begin, and this is how it ends. Nothing of the job ran.
    Ended(Order),
    /// Its supervisor has word to begin, or is about to have it.
    #[default]
    Begins,
}

/// The id of this boot.
pub(crate) fn boot_id() -> String {
    static ID: LazyLock<String> =
        LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned());
    ID.clone()
}

impl Record {
    /// Whether the supervisor still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && procfs::start_ticks(self.supervisor_pid) == Some(self.supervisor_start_ticks)
    }

    /// How an attempt ends of which nothing ran; `None` when some of it may have run.
    pub(crate) fn unbegun(&self) -> Option<Order> {
        match &self.stage {
            Stage::Ended(order) => Some(order.clone()),
            Stage::Told if self.boot_id == boot_id() => {
                let reason = "its runner was restarted before the job began".to_owned();
                Some(Order { outcome: AttemptOutcome::Lost, reason })
            }
            // After a power cut the line that said more may not have been on the disk yet.
            Stage::Told | Stage::Begins => None,
        }
    }
}

/// Adds what a restarted runner must know.
pub(crate) fn write_record(folder: &Path, record: &Record) -> io::Result<()> {
    let mut file = fs::File::options().create(true).append(true).mode(0o600).open(folder.join(ATTEMPT))?;
    let length = file.metadata()?.len();
    file.write_all(&crate::wire::line(record)?).inspect_err(|_full| {
        // The line before it counts, and the next one begins at its end.
        let _ = file.set_len(length);
    })
}

/// What was written last, whole. An older version wrote one line without an end.
fn read_record(bytes: &[u8]) -> io::Result<Option<Record>> {
    let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else {
        return match serde_json::from_slice(bytes) {
            Ok(record) => Ok(Some(record)),
            // Nothing, or a line whose writer died over it.
            Err(error) if error.is_eof() => Ok(None),
            Err(error) => Err(error.into()),
        };
    };
    let whole = bytes.get(..end).unwrap_or_default();
    let last = whole.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(Some(serde_json::from_slice(last)?))
}

/// Writes the result, wholly or not at all: without the end of its line it is none.
pub(crate) fn write_result(folder: &Path, attempt: AttemptId, result: &AttemptResult) -> io::Result<()> {
    write_line(&folder.join(RESULT), &Left { attempt, result })
}

/// Writes a document and the end of its line, in the file's own place: another name that is renamed costs more than all else here.
fn write_line<T: Serialize>(path: &Path, document: &T) -> io::Result<()> {
    let mut file = fs::File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // Most are empty, and ext4 writes out at once what is written after a file was cut.
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    file.write_all(&crate::wire::line(document)?)
}

/// Has everything of an attempt survive a power cut.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    for name in [LOG, RESULT, ATTEMPT] {
        files::sync(&folder.join(name))?;
    }
    files::sync(folder)
}

/// Brings a result into line with what a power cut left of its log, and says so: the daemon takes no result whose log it does not have.
pub(crate) fn mend_after_power_cut(folder: &Path, record: &Record) -> io::Result<()> {
    if record.boot_id == boot_id() {
        return Ok(());
    }
    let Some(mut result) = read_result(folder, record.attempt)? else { return Ok(()) };
    let found = files::measure(&folder.join(LOG))?;
    if found == (result.log_length, result.log_sha256.clone()) {
        return Ok(());
    }
    append_own_line(&folder.join(LOG), LOST_END)?;
    (result.log_length, result.log_sha256) = files::measure(&folder.join(LOG))?;
    write_result(folder, record.attempt, &result)
}

/// What stands at the end of a log that a power cut has shortened.
const LOST_END: &str = "the end of this log was lost when the runner's machine went down";

/// The result of `attempt`, when there is one.
pub(crate) fn read_result(folder: &Path, attempt: AttemptId) -> io::Result<Option<AttemptResult>> {
    match fs::read(folder.join(RESULT)) {
        // An older version's, which put it there whole under another name and wrote no end of line. Else it is not there yet, or its
        // writer died over it: no part of this version's reads as an older one.
        Ok(bytes) if !bytes.ends_with(b"\n") => Ok(serde_json::from_slice(&bytes).ok()),
        Ok(bytes) => {
            let left: Left<AttemptResult> = serde_json::from_slice(&bytes)?;
            // A power cut may bring back what an earlier attempt left here.
            Ok((left.attempt == attempt).then_some(left.result))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is known of the job of an attempt that left no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It never began.
    Nothing,
    /// Nobody knows how much of it ran.
    Perhaps,
}

/// The result of an attempt that ended without one: what its log holds is all that is known. `last` are the log's last lines. One that finds no
/// room counts all the same: its runner hands in the log that is there, and a successor of it makes another.
pub(crate) fn result_without_supervisor(
    folder: &Path,
    attempt: AttemptId,
    (outcome, ran): (AttemptOutcome, Ran),
    reason: &str,
    last: &str,
) -> io::Result<AttemptResult> {
    // The result gives the reason again, so a log that takes no line (the disk is full) hides nothing.
    if let Err(error) = append_own_line(&folder.join(LOG), last) {
        tracing::warn!(%error, "the log takes no last line");
    }
    let (log_length, log_sha256) = files::measure(&folder.join(LOG))?;
    let result = AttemptResult {
        outcome,
        reason: Some(reason.to_owned()),
        exit_code: None,
        summary: None,
        commit: None,
        log_length,
        log_sha256,
        carry: None,
        no_retry: false,
        retry_after_ms: None,
        nothing_ran: ran == Ran::Nothing,
    };
    if let Err(error) = write_result(folder, attempt, &result) {
        tracing::warn!(%attempt, %error, "the spool takes no result; it is handed in without");
    }
    Ok(result)
}

/// Appends a line of Forge's own to a log that nobody writes any more.
fn append_own_line(log: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options().create(true).append(true).read(true).mode(0o600).open(log)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    let end = if last == [b'\n'] { "" } else { "\n" };
    let lines: String = text.lines().map(|line| format!("[forge] {line}\n")).collect();
    file.write_all(format!("{end}{lines}").as_bytes())?;
    file.sync_all()
}

/// Every attempt in the spool. A folder that its runner never finished making is removed, and so is a workspace that no attempt has.
pub(crate) fn scan(attempts: &Path, workspaces: &Path) -> io::Result<Vec<(PathBuf, Record)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(attempts)? {
        let folder = entry?.path();
        // One that holds no whole line is as good as none: a power cut came before it was on the disk, or the disk was full.
        let record = fs::read(folder.join(ATTEMPT))
            .and_then(|bytes| read_record(&bytes)?.ok_or_else(|| io::ErrorKind::NotFound.into()));
        match record {
            // A power cut brought back what an earlier attempt left in this folder, and this one's was not on the disk yet.
            Ok(record) if !folder.ends_with(record.attempt.to_string()) => {
                tracing::info!(folder = %folder.display(), "removing an attempt's folder that was never begun");
                files::remove(&folder)?;
            }
            Ok(record) => found.push((folder, record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Nothing runs here, and the daemon was told nothing of it: the record is written before.
                tracing::info!(folder = %folder.display(), "removing an attempt's folder that was never begun");
                files::remove(&folder)?;
            }
            // It may hold the only copy of a log: another version wrote it, perhaps, or the disk fails.
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "an attempt's folder cannot be read and is left alone");
            }
        }
    }
    found.sort_by_key(|(_, record)| record.attempt);
    for entry in fs::read_dir(workspaces)? {
        let name = entry?.file_name();
        // A power cut may leave a workspace whose attempt's record it took.
        if !attempts.join(name.to_string_lossy().trim_end_matches(PRIVATE_END)).exists() {
            crate::workspace::remove(&workspaces.join(name))?;
        }
    }
    Ok(found)
}

/// Removes what an attempt worked with: it goes before its folder, which names it. What is empty is kept on the shelf where there is one.
pub(crate) fn remove_places(record: &Record, shelf: Option<&Shelf>) -> io::Result<()> {
    files::remove(&record.private)?;
    match shelf {
        Some(shelf) if record.user.is_none() => shelf.keep_workspace(&record.workspace),
        _ => crate::workspace::remove(&record.workspace),
    }
}

/// Removes an attempt's folder, which must be its last trace. What is empty is kept on the shelf where there is one.
pub(crate) fn remove(folder: &Path, shelf: Option<&Shelf>) -> io::Result<()> {
    match shelf {
        Some(shelf) => shelf.keep_spool(folder),
        None => files::remove(folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_begun_is_removed() {
        let attempts = tempfile::tempdir().expect("a folder");
        for name in ["1-1", "2-1", "4-1"] {
            fs::create_dir(attempts.path().join(name)).expect("made");
            fs::write(attempts.path().join(name).join(LOG), "a line\n").expect("written");
        }
        fs::write(attempts.path().join("4-1").join(ATTEMPT), r#"{"attempt":"4-1","tok"#).expect("written");
        fs::write(attempts.path().join("2-1").join(ATTEMPT), r#"{"version":99}"#).expect("written");
        let workspaces = tempfile::tempdir().expect("a folder");
        for name in ["1-1", "2-1", "2-1.private", "3-1", "3-1.private"] {
            fs::create_dir(workspaces.path().join(name)).expect("made");
        }
        assert!(scan(attempts.path(), workspaces.path()).expect("scanned").is_empty());
        assert!(!attempts.path().join("1-1").exists());
        assert!(!attempts.path().join("4-1").exists(), "the disk was full when its record was written");
        let mut left: Vec<_> =
            fs::read_dir(workspaces.path()).expect("listed").map(|one| one.expect("one").file_name()).collect();
        left.sort();
        assert_eq!(left, ["2-1", "2-1.private"], "a workspace goes with its attempt");
        assert!(attempts.path().join("2-1").join(LOG).exists(), "a log that may be the only copy stays");
    }

    fn record(stage: Stage) -> Record {
        Record {
            attempt: AttemptId { task: 7, attempt: 1 },
            token: Secret::new("t"),
            supervisor_pid: 0,
            supervisor_start_ticks: 0,
            boot_id: boot_id(),
            session: "s".to_owned(),
            runner_grace_ms: 1_000,
            workspace: PathBuf::from("/w"),
            private: PathBuf::from("/p"),
            user: None,
            alone_uid: None,
            stage,
        }
    }

    #[test]
    fn what_was_told_last_counts_and_half_a_line_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(ATTEMPT);
        let read = || read_record(&fs::read(&path).expect("there")).expect("read");
        write_record(folder.path(), &record(Stage::Told)).expect("written");
        let first = fs::read(&path).expect("there");
        for length in 0..first.len() {
            // The last of them is whole but for its end, as an older version wrote it.
            assert_eq!(read_record(&first[..length]).expect("read").is_some(), length + 1 == first.len(), "{length}");
        }
        assert_eq!(read().expect("one").unbegun().expect("nothing ran").outcome, AttemptOutcome::Lost);

        write_record(folder.path(), &record(Stage::Begins)).expect("written");
        let both = fs::read(&path).expect("there");
        assert!(read().expect("one").unbegun().is_none());
        for length in first.len()..both.len() {
            let record = read_record(&both[..length]).expect("read").expect("the first");
            assert!(matches!(record.stage, Stage::Told), "{length}");
        }

        let order = Order { outcome: AttemptOutcome::Failed, reason: "why".to_owned() };
        write_record(folder.path(), &record(Stage::Ended(order.clone()))).expect("written");
        assert_eq!(read().expect("one").unbegun(), Some(order));
    }

    /// What older versions leave in a spool is read for ever (`testdata/spool`).
    #[test]
    fn what_an_older_runner_left_is_read() {
        let older = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/spool");
        for version in ["0.1.0-alpha"] {
            let bytes = fs::read(older.join(version).join(ATTEMPT)).expect("a sample");
            let record = read_record(&bytes).expect("read").expect("a record");
            assert_eq!(record.attempt, AttemptId { task: 42, attempt: 1 });
            assert!(record.unbegun().is_none(), "some of it may have run");
            let said: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            let again = serde_json::to_value(&record).expect("JSON");
            for (field, value) in said.as_object().expect("an object") {
                assert_eq!(again.get(field), Some(value), "{version}: {field}");
            }
            let result = read_result(&older.join(version), record.attempt).expect("read").expect("a result");
            assert_eq!((result.outcome, result.exit_code), (AttemptOutcome::Failed, Some(3)));
        }
    }

    #[test]
    fn after_a_power_cut_nobody_says_that_nothing_ran() {
        let told = Record { boot_id: "another".to_owned(), ..record(Stage::Told) };
        assert!(told.unbegun().is_none());
        let mut older = serde_json::to_value(record(Stage::Told)).expect("an object");
        older.as_object_mut().expect("an object").remove("stage");
        let older: Record = serde_json::from_value(older).expect("an older version's");
        assert!(older.unbegun().is_none(), "it wrote none before the job began");
    }

    #[test]
    fn a_result_is_whole_or_none_and_an_older_versions_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let (attempt, another) = (AttemptId { task: 7, attempt: 1 }, AttemptId { task: 7, attempt: 2 });
        let end = (AttemptOutcome::Failed, Ran::Perhaps);
        let made = result_without_supervisor(folder, attempt, end, "why", "why").expect("made");
        assert_eq!(read_result(folder, attempt).expect("read"), Some(made.clone()));
        assert_eq!(read_result(folder, another).expect("read"), None, "what an earlier attempt left here");

        let whole = fs::read(folder.join(RESULT)).expect("there");
        for length in 0..whole.len() {
            fs::write(folder.join(RESULT), &whole[..length]).expect("written");
            assert_eq!(read_result(folder, attempt).expect("read"), None, "{length} bytes of {}", whole.len());
        }

        fs::write(folder.join(RESULT), serde_json::to_vec(&made).expect("written")).expect("written");
        assert_eq!(read_result(folder, attempt).expect("read"), Some(made), "an older version's");
    }

    #[test]
    fn a_result_that_finds_no_room_still_names_the_whole_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        fs::write(folder.join(LOG), "printed\n").expect("written");
        // It takes no result, as a disk that is full.
        fs::create_dir(folder.join(RESULT)).expect("made");
        let attempt = AttemptId { task: 7, attempt: 1 };
        let end = (AttemptOutcome::Failed, Ran::Perhaps);
        let made = result_without_supervisor(folder, attempt, end, "why", "why").expect("made");
        assert_eq!((made.log_length, made.log_sha256), files::measure(&folder.join(LOG)).expect("measured"));
        assert_eq!(fs::read(folder.join(LOG)).expect("read"), b"printed\n[forge] why\n");
    }
}
