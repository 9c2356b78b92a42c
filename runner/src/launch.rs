//! The runner's side of the launcher: a process that is started once and asked for supervisors.
//!
//! One that died (somebody ended it, memory ran out) or that does not answer is replaced by the next request.
//!
//! One supervisor is kept in waiting, for the plugin that ran last: its birth takes longer than all else before a job's first process.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::begin::PATH_DEFAULT;
use crate::orphans;
use crate::wire::{Born, Launch};

/// How long a supervisor may take to be born; a busy machine takes milliseconds.
const BIRTH_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a dead supervisor's last words is shown, in bytes.
const LAST_WORDS_BYTES_MAX: usize = 512;

/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// Starts supervisors.
pub(crate) struct Launcher {
    /// The program and its arguments.
    command: Vec<OsString>,
    plugin_cache: PathBuf,
    process: Mutex<Option<Process>>,
    spare: std::sync::Mutex<Option<Spare>>,
    /// Somebody sees to one at this moment: attempts that start together need no more than one.
    spare_comes: AtomicBool,
}

/// A supervisor without an attempt.
struct Spare {
    plugin_sha256: String,
    newborn: Newborn,
}

/// The launcher's process, as long as this runner keeps it.
struct Process {
    requests: OwnedFd,
    child: std::process::Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It holds nothing that its end could harm, and the supervisors stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A supervisor that waits for its brief.
pub(crate) struct Newborn {
    pub(crate) stream: UnixStream,
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) words: LastWords,
}

impl Newborn {
    /// Whether it still waits: nobody ended it meanwhile.
    fn waits(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(&self.stream, &mut [0_u8; 1], flags), Err(rustix::io::Errno::AGAIN))
    }
}

/// What a supervisor writes to its standard error, which says why it died: a file in memory, since hardly any ever writes. The
/// successor of a runner that died does not have it.
#[derive(Debug)]
pub(crate) struct LastWords(File);

impl LastWords {
    fn new() -> io::Result<Self> {
        Ok(Self(File::from(rustix::fs::memfd_create("forge-last-words", MemfdFlags::CLOEXEC)?)))
    }

    /// To be appended to a reason.
    pub(crate) fn read(&self) -> String {
        let length = self.0.metadata().map_or(0, |file| file.len());
        let mut bytes = vec![0; LAST_WORDS_BYTES_MAX];
        let read = self.0.read_at(&mut bytes, length.saturating_sub(LAST_WORDS_BYTES_MAX as u64)).unwrap_or(0);
        let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!(": {text}") }
    }
}

impl Launcher {
    /// Nothing is started yet.
    pub(crate) fn new(command: Vec<OsString>, plugin_cache: PathBuf) -> Self {
        Self {
            command,
            plugin_cache,
            process: Mutex::new(None),
            spare: std::sync::Mutex::new(None),
            spare_comes: AtomicBool::new(false),
        }
    }

    /// The launcher's program, for messages.
    pub(crate) fn program(&self) -> String {
        self.command.first().map(|program| program.display().to_string()).unwrap_or_default()
    }

    /// A supervisor that will run the plugin `plugin_sha256`: the one in waiting, or a new one.
    pub(crate) async fn launch(&self, plugin_sha256: &str) -> io::Result<Newborn> {
        let spare = self.spare().take().filter(|spare| spare.plugin_sha256 == plugin_sha256);
        match spare.map(|spare| spare.newborn).filter(Newborn::waits) {
            Some(newborn) => Ok(newborn),
            None => self.bear(plugin_sha256).await,
        }
    }

    /// Has a supervisor wait for the next attempt that runs the plugin `plugin_sha256`.
    pub(crate) async fn keep_spare(&self, plugin_sha256: &str) {
        let is_there = self.spare().as_ref().is_some_and(|spare| spare.plugin_sha256 == plugin_sha256);
        if is_there || self.spare_comes.swap(true, Ordering::SeqCst) {
            return;
        }
        match self.bear(plugin_sha256).await {
            // One that was there leaves, since its connection closes.
            Ok(newborn) => *self.spare() = Some(Spare { plugin_sha256: plugin_sha256.to_owned(), newborn }),
            // The next attempt asks again, and says it where somebody looks.
            Err(error) => tracing::debug!(%error, "no supervisor is kept in waiting"),
        }
        self.spare_comes.store(false, Ordering::SeqCst);
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Option<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn bear(&self, plugin_sha256: &str) -> io::Result<Newborn> {
        let launch = Launch { plugin_cache: self.plugin_cache.clone(), plugin_sha256: plugin_sha256.to_owned() };
        let request = serde_json::to_vec(&launch)?;
        let mut held = self.process.lock().await;
        let had_one = held.is_some();
        let born = match self.ask(&mut held, &request).await {
            Ok(newborn) => Ok(newborn),
            Err(Refusal::Supervisor(words)) => Err(io::Error::other(words)),
            // It may have died long ago: that is heard only now.
            Err(Refusal::Launcher(error)) if had_one => {
                tracing::info!(%error, "the launcher of supervisors is started again");
                self.ask(&mut held, &request).await.map_err(Refusal::into_error)
            }
            Err(refusal) => Err(refusal.into_error()),
        }?;
        orphans::know_supervisor(born.pid, born.start_ticks);
        Ok(born)
    }

    async fn ask(&self, held: &mut Option<Process>, request: &[u8]) -> Result<Newborn, Refusal> {
        let process = match held {
            Some(process) => process,
            None => held.insert(start(&self.command).map_err(Refusal::Launcher)?),
        };
        let asked = ask(&process.requests, request).await;
        if matches!(asked, Err(Refusal::Launcher(_))) {
            *held = None;
        }
        asked
    }
}

/// Why there is no supervisor.
enum Refusal {
    /// The launcher is to blame: another one may do better.
    Launcher(io::Error),
    /// The launcher's words.
    Supervisor(String),
}

impl Refusal {
    fn into_error(self) -> io::Error {
        match self {
            Self::Launcher(error) => error,
            Self::Supervisor(words) => io::Error::other(words),
        }
    }
}

fn start(command: &[OsString]) -> io::Result<Process> {
    let mut words = command.iter();
    let program = words.next().cloned().unwrap_or_default();
    let (requests, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        // Each request is one message: it arrives whole, with its descriptor.
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let child = orphans::start_child(|| {
        std::process::Command::new(program)
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into()))
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
    })?;
    Ok(Process { requests, child })
}

async fn ask(requests: &OwnedFd, request: &[u8]) -> Result<Newborn, Refusal> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(Refusal::Launcher)?;
    let words = LastWords::new().map_err(Refusal::Launcher)?;
    send(requests, request, [theirs.as_fd(), words.0.as_fd()]).map_err(Refusal::Launcher)?;
    drop(theirs);
    ours.set_nonblocking(true).map_err(Refusal::Launcher)?;
    let mut stream = UnixStream::from_std(ours).map_err(Refusal::Launcher)?;
    let born = tokio::time::timeout(BIRTH_TIMEOUT, read_born(&mut stream)).await;
    match born.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Refusal::Launcher)? {
        Born::Process(pid, start_ticks) => Ok(Newborn { stream, pid, start_ticks, words }),
        Born::Failed(words) => Err(Refusal::Supervisor(words)),
    }
}

fn send(requests: &OwnedFd, request: &[u8], passed: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&passed)) {
        return Err(io::Error::other("the descriptors do not fit into a message"));
    }
    // One request at a time is under way, so a full queue means a launcher that reads nothing.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(requests, &[IoSlice::new(request)], &mut ancillary, flags)?;
    Ok(())
}

/// The first line. Nothing follows it before the brief is sent.
async fn read_born(stream: &mut UnixStream) -> io::Result<Born> {
    let mut bytes = Vec::new();
    let mut piece = [0; 256];
    while !bytes.ends_with(b"\n") {
        match stream.read(&mut piece).await? {
            0 => return Err(io::Error::other("the launcher of supervisors died")),
            length => bytes.extend_from_slice(piece.get(..length).unwrap_or_default()),
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the launcher of supervisors answers without end"));
        }
    }
    Ok(serde_json::from_slice(&bytes)?)
}
