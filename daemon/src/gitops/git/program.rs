//! Runs the system's git: an environment that is ours alone, a deadline, a bound on what it may say, and an end of all its processes.
//!
//! It blocks the thread that it is called on, which is never one that serves.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The most bytes of git's own words that are kept; the last ones count.
const WORDS_BYTES_MAX: usize = 16 * 1024;

/// How many of git's last lines make a reason.
const REASON_LINES: usize = 4;

/// How long a git that is told to end may tidy up, so that it leaves no lock behind.
const END_GRACE: Duration = Duration::from_secs(2);

/// git, with the environment that it sees.
#[derive(Debug)]
pub(super) struct Program {
    /// The whole environment.
    pub(super) environment: BTreeMap<OsString, OsString>,
    /// The bare repository.
    pub(super) repository: PathBuf,
    /// Ends what runs.
    pub(super) stopping: CancellationToken,
}

/// What one of git's commands may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How long.
    pub(super) time_max: Duration,
    /// The most bytes of its answer.
    pub(super) bytes_max: usize,
}

/// A git that has ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; `None` after a signal.
    pub(super) code: Option<i32>,
    /// Its answer.
    pub(super) answer: Vec<u8>,
    /// What it said on stderr.
    pub(super) words: String,
}

/// git did not come to an end by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    /// It is not there.
    #[error("the program git is not on the daemon's PATH")]
    Missing,
    /// The system refused something.
    #[error("git cannot be run: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("git {step} did not end within {seconds} s")]
    TooSlow {
        /// Which of git's commands.
        step: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It said too much.
    #[error("git {step} answered more than {bytes_max} bytes")]
    TooMuch {
        /// Which of git's commands.
        step: String,
        /// The bound.
        bytes_max: usize,
    },
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopping,
}

impl Ended {
    /// Its last words on one line.
    pub(super) fn reason(&self) -> String {
        let lines: Vec<&str> = self.words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(REASON_LINES)..).unwrap_or_default();
        match (last.is_empty(), self.code) {
            (false, _) => last.join(" / "),
            (true, Some(code)) => format!("exit code {code}"),
            (true, None) => "ended by a signal".to_owned(),
        }
    }
}

impl Program {
    /// Runs one of git's commands in the repository, with `input` on its stdin.
    pub(super) fn run<A: AsRef<OsStr>>(&self, args: &[A], input: &[u8], bounds: Bounds) -> Result<Ended, ProgramError> {
        let step = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .find(|arg| arg.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') && !arg.starts_with('-'))
            .unwrap_or_default()
            .into_owned();
        let mut git_dir = OsString::from("--git-dir=");
        git_dir.push(&self.repository);
        let mut command = Command::new("git");
        command
            .arg(git_dir)
            .args(args)
            .env_clear()
            .envs(&self.environment)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Handle::current().block_on(async {
            let mut child = command.spawn().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ProgramError::Missing,
                _ => ProgramError::Io(error),
            })?;
            let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            let outcome = tokio::select! {
                done = converse(&mut child, input, bounds.bytes_max, &step) => done,
                () = tokio::time::sleep(bounds.time_max) => {
                    Err(ProgramError::TooSlow { step, seconds: bounds.time_max.as_secs() })
                }
                () = self.stopping.cancelled() => Err(ProgramError::Stopping),
            };
            if outcome.is_err() {
                end(&mut child, group).await;
            }
            outcome
        })
    }
}

async fn converse(child: &mut Child, input: &[u8], bytes_max: usize, step: &str) -> Result<Ended, ProgramError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A git that fails early closes its stdin: its words say why.
            let _ = stdin.write_all(input).await;
        }
        Ok::<(), ProgramError>(())
    };
    let answer = async {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(bytes_max as u64 + 1).read_to_end(&mut answer).await?;
        }
        if answer.len() > bytes_max {
            return Err(ProgramError::TooMuch { step: step.to_owned(), bytes_max });
        }
        Ok(answer)
    };
    let words = async {
        match stderr {
            Some(stderr) => last_words(stderr).await.map_err(ProgramError::Io),
            None => Ok(String::new()),
        }
    };
    let ((), answer, words) = tokio::try_join!(write, answer, words)?;
    let status = child.wait().await?;
    Ok(Ended { code: status.code(), answer, words })
}

/// Reads to the end and keeps the last bytes.
async fn last_words(mut stderr: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut kept = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = stderr.read(&mut part).await?;
        if length == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        kept.extend_from_slice(&part[..length]);
        let surplus = kept.len().saturating_sub(WORDS_BYTES_MAX);
        kept.drain(..surplus);
    }
}

/// Ends git and whatever it started, such as ssh.
async fn end(child: &mut Child, group: Option<Pid>) {
    let Some(group) = group else { return };
    // A group that is gone already needs no signal.
    let _ = kill_process_group(group, Signal::TERM);
    let _ = tokio::time::timeout(END_GRACE, child.wait()).await;
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait().await;
}
