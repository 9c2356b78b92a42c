//! What a runner and an attempt's supervisor say to each other: one JSON document a line, over a Unix socket.
//!
//! The supervisor's first line is [`Born`], the runner's first two the [`Brief`] and [`Go`]; all cross a socket pair and never touch a
//! disk. Everything after them may also come over `control.sock` of the attempt's spool folder, where a restarted runner
//! attaches again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use forge_api::{AttemptOutcome, Job};
use serde::{Deserialize, Serialize};

use crate::carry::Carrier;
use crate::user::JobUser;

/// The most bytes of one line between runner and supervisor: a job, with room for what surrounds it.
pub(crate) const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a runner asks its launcher for; the supervisor's end of the socket pair comes along.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The folder of the compiled plugins.
    pub(crate) plugin_cache: PathBuf,
    /// The digest of the plugin that the attempt will run, in hex: loaded once and shared by all that are born later.
    pub(crate) plugin_sha256: String,
}

/// The first line of a new supervisor, or of a launcher that could not start one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Born {
    /// The supervisor's process: its id, and when it started in clock ticks since boot.
    Process(i32, u64),
    /// Why there is none.
    Failed(String),
}

/// Everything that a supervisor needs for its attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Brief {
    /// The opened job.
    pub(crate) job: Job,
    /// The attempt's spool folder: log, result and control socket.
    pub(crate) spool: PathBuf,
    /// The folder that the job works in; made by the supervisor.
    pub(crate) workspace: PathBuf,
    /// The folder of secret files, in memory where the machine has such a place; made by the supervisor.
    pub(crate) private: PathBuf,
    /// Where the workspace goes when the attempt fails; nowhere where it is `None`.
    #[serde(default)]
    pub(crate) kept_workspaces: Option<PathBuf>,
    /// The folder of the git caches.
    pub(crate) git_caches: PathBuf,
    /// The folder of what stays between attempts.
    pub(crate) caches: PathBuf,
    /// The folder of the compiled plugins.
    pub(crate) plugin_cache: PathBuf,
    /// The git program.
    pub(crate) git_client: String,
    /// A configuration for ssh.
    pub(crate) ssh_config_path: Option<PathBuf>,
    /// Whose processes the job's are; the runner's own user's where it is `None`.
    pub(crate) user: Option<JobUser>,
    /// How long processes have between TERM and KILL, in milliseconds.
    pub(crate) stop_grace_ms: u64,
    /// What the job's processes see of the runner's environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// What git's processes see of it: the same, and how it reaches servers.
    pub(crate) git_environment: BTreeMap<String, String>,
}

impl Brief {
    /// What packs and unpacks the files that the attempt carries.
    pub(crate) fn carrier(&self) -> Carrier<'_> {
        Carrier {
            key: self.job.carry_key.as_ref(),
            workspace: &self.workspace,
            file_user: self.user.as_ref().map(JobUser::file_user),
            spool: &self.spool,
        }
    }
}

/// The job may begin: the daemon has said so. Until then its supervisor gets ready and starts no process of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Go {
    /// When the request was sent that renewed the attempt's lease last, in milliseconds since boot: a supervisor that stood still
    /// before it read this must not take an old word for a new one.
    pub(crate) leased_ms: u64,
}

/// What a runner tells its supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToSupervisor {
    /// The runner lives; the daemon may be away.
    Alive,
    /// The daemon acknowledged a heartbeat that was sent so many milliseconds ago.
    LeaseMs(u64),
    /// End the job.
    Cancel(Order),
}

/// An order to end a job, and what that makes of the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// How the attempt counts as ended.
    pub outcome: AttemptOutcome,
    /// Why.
    pub reason: String,
}

/// What a supervisor tells its runner; what comes often is told once for all that happened meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromSupervisor {
    /// The log has so many bytes.
    Log(u64),
    /// The repository's commit is known.
    Commit(String),
    /// The result lies in the spool. Supervisors of this version close the connection instead.
    Ended,
}

/// One message as a line.
pub(crate) fn line<T: Serialize>(message: &T) -> std::io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// Each message of a file, as it was written and as it is understood.
    fn read<T: DeserializeOwned + Serialize>(file: &str) -> Vec<(String, String)> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/spool").join(file);
        let text = std::fs::read_to_string(&path).expect("a sample");
        let again = |said: &str| {
            let message: T = serde_json::from_str(said).unwrap_or_else(|error| panic!("{file}: {said}: {error}"));
            String::from_utf8(line(&message).expect("JSON")).expect("text").trim_end().to_owned()
        };
        text.lines().map(|said| (said.to_owned(), again(said))).collect()
    }

    /// A runner that was upgraded talks with supervisors that the older one started (`testdata/spool`).
    #[test]
    fn what_older_versions_say_is_understood() {
        let told = read::<ToSupervisor>("0.1.0-alpha/to-supervisor.jsonl");
        let heard = read::<FromSupervisor>("0.1.0-alpha/from-supervisor.jsonl");
        assert_eq!((told.len(), heard.len()), (3, 3));
        for (said, again) in told.iter().chain(&heard) {
            assert_eq!(said, again, "it would be said otherwise now, which an older supervisor does not understand");
        }
    }
}
