//! What is not yet acknowledged, on disk: one private folder an attempt, in which a restarted runner finds everything that it
//! needs to go on.
//!
//! | file | what |
//! |---|---|
//! | `attempt.json` | which attempt, its token, its supervisor: written by the runner before the supervisor gets the job |
//! | `log` | the masked log, written by the supervisor |
//! | `reserve` | room for the last lines and the result, should the disk be full |
//! | `result.json` | how it ended: whole or not there |
//! | `control.sock` | where a runner attaches, while the supervisor lives |
//!
//! A folder goes only when its result is acknowledged and the daemon holds the whole log for good. Most are gone within milliseconds, so
//! nothing here waits for the disk; what the daemon has not taken by then is made to survive a power cut ([`sync`]).

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use forge_api::{AttemptId, AttemptOutcome, AttemptResult, Secret};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::procfs;
use crate::user::JobUser;

/// The log's name.
pub(crate) const LOG: &str = "log";

/// The name of the file that keeps room for the end of the log and the result.
pub(crate) const RESERVE: &str = "reserve";

/// The control socket's name.
pub(crate) const CONTROL: &str = "control.sock";

const RESULT: &str = "result.json";
const ATTEMPT: &str = "attempt.json";

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
}

/// The id of this boot.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Record {
    /// Whether the supervisor still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && procfs::start_ticks(self.supervisor_pid) == Some(self.supervisor_start_ticks)
    }
}

/// Writes what a restarted runner must know.
pub(crate) fn write_record(folder: &Path, record: &Record) -> io::Result<()> {
    files::put_private(&folder.join(ATTEMPT), &serde_json::to_vec(record)?)
}

/// Writes the result, wholly or not at all.
pub(crate) fn write_result(folder: &Path, result: &AttemptResult) -> io::Result<()> {
    files::put_private(&folder.join(RESULT), &serde_json::to_vec(result)?)
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
    let Some(mut result) = read_result(folder)? else { return Ok(()) };
    let found = files::measure(&folder.join(LOG))?;
    if found == (result.log_length, result.log_sha256.clone()) {
        return Ok(());
    }
    append_own_line(&folder.join(LOG), LOST_END)?;
    (result.log_length, result.log_sha256) = files::measure(&folder.join(LOG))?;
    write_result(folder, &result)
}

/// What stands at the end of a log that a power cut has shortened.
const LOST_END: &str = "the end of this log was lost when the runner's machine went down";

/// The result, when there is one.
pub(crate) fn read_result(folder: &Path) -> io::Result<Option<AttemptResult>> {
    match fs::read(folder.join(RESULT)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The result of an attempt that ended without one: what its log holds is all that is known.
pub(crate) fn result_without_supervisor(
    folder: &Path,
    outcome: AttemptOutcome,
    reason: &str,
) -> io::Result<AttemptResult> {
    // The result says it again, so a log that takes no line (the disk is full) hides nothing.
    if let Err(error) = append_own_line(&folder.join(LOG), reason) {
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
    };
    write_result(folder, &result)?;
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

/// Every attempt in the spool. A folder that its runner never finished making is removed.
pub(crate) fn scan(attempts: &Path) -> io::Result<Vec<(PathBuf, Record)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(attempts)? {
        let folder = entry?.path();
        let record = fs::read(folder.join(ATTEMPT)).and_then(|bytes| match bytes.as_slice() {
            // A power cut came before it was on the disk.
            [] => Err(io::ErrorKind::NotFound.into()),
            bytes => Ok(serde_json::from_slice::<Record>(bytes)?),
        });
        match record {
            Ok(record) => found.push((folder, record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Nothing runs here: the record is written before the supervisor gets its job.
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
    Ok(found)
}

/// Removes an attempt's traces: its folder last, since it names the others.
pub(crate) fn remove(folder: &Path, record: &Record) -> io::Result<()> {
    files::remove(&record.private)?;
    crate::workspace::remove(&record.workspace)?;
    files::remove(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_begun_is_removed() {
        let attempts = tempfile::tempdir().expect("a folder");
        for name in ["1-1", "2-1"] {
            fs::create_dir(attempts.path().join(name)).expect("made");
            fs::write(attempts.path().join(name).join(LOG), "a line\n").expect("written");
        }
        fs::write(attempts.path().join("2-1").join(ATTEMPT), r#"{"version":99}"#).expect("written");
        assert!(scan(attempts.path()).expect("scanned").is_empty());
        assert!(!attempts.path().join("1-1").exists());
        assert!(attempts.path().join("2-1").join(LOG).exists(), "a log that may be the only copy stays");
    }
}
