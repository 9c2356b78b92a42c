//! The process that supervisors are born from. It holds the engine and the compiled plugins ready and forks a supervisor for
//! each attempt, so that an attempt costs a fork and not the start of a large program.
//!
//! It has one thread (a fork takes no other along) and knows nothing secret: the job goes from the runner straight to the
//! supervisor over the socket that is passed through here. It ends when its runner does; the supervisors stay.

use std::fs::File;
use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use forge_plugin_host::{Host, Plugin};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, PidfdFlags, WaitOptions};

use crate::executor::host_options;
use crate::procfs;
use crate::supervisor;
use crate::wire::{self, Born, Launch};

/// The longest request, in bytes: three paths' worth.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// How many plugins are kept ready; one that is pushed out is loaded from the cache again.
const PLUGINS_MAX: usize = 32;

/// The main function of the launcher, and of every supervisor that is forked from it.
pub(crate) fn main() -> ExitCode {
    // A process that already leads its session (started by hand) stays where it is.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let served = Launcher::new().and_then(Launcher::serve);
    match served {
        // Everything of the launcher is gone by now but what it has loaded.
        Ok(Some((connection, ready, plugin_sha256))) => supervisor::main(connection, ready.host, &plugin_sha256),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the runner's: this is its only way to hear.
            let _ = writeln!(io::stderr(), "the launcher of supervisors ends: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The runner's socket, which comes as standard input; nothing that is forked may hold it.
fn take_stdin() -> io::Result<OwnedFd> {
    let requests = io::stdin().as_fd().try_clone_to_owned()?;
    become_fd(&File::open("/dev/null")?, libc::STDIN_FILENO)?;
    Ok(requests)
}

struct Launcher {
    requests: OwnedFd,
    children: Vec<(Pid, OwnedFd)>,
    ready: Ready,
    /// How many there were at first.
    threads: usize,
}

/// What supervisors inherit.
#[derive(Default)]
struct Ready {
    host: Option<Host>,
    /// Newest last.
    plugins: Vec<Plugin>,
}

impl Launcher {
    fn new() -> io::Result<Self> {
        Ok(Self { requests: take_stdin()?, children: Vec::new(), ready: Ready::default(), threads: threads()? })
    }

    /// Serves requests until the runner is gone. In a forked supervisor it answers what that one needs.
    fn serve(mut self) -> io::Result<Option<(UnixStream, Ready, String)>> {
        loop {
            self.wait()?;
            self.bury();
            let (launch, connection, words) = match self.receive() {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            self.ready.load(&launch);
            match fork(self.threads) {
                Ok(Some(child)) => match rustix::process::pidfd_open(child, PidfdFlags::empty()) {
                    Ok(handle) => self.children.push((child, handle)),
                    // Without a handle its death is not heard of; it stays a zombie until the launcher ends.
                    Err(error) => tracing::warn!(%error, "a supervisor has no handle"),
                },
                Ok(None) => {
                    let Self { requests, children, ready, threads: _ } = self;
                    drop((requests, children));
                    return begin(connection, &words).map(|connection| Some((connection, ready, launch.plugin_sha256)));
                }
                Err(error) => answer(&connection, &Born::Failed(error.to_string())),
            }
        }
    }

    /// Waits for a request or a child's death.
    fn wait(&self) -> io::Result<()> {
        let handles = self.children.iter().map(|(_, handle)| handle);
        let mut waiting: Vec<PollFd<'_>> =
            std::iter::once(&self.requests).chain(handles).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match rustix::event::poll(&mut waiting, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets go of dead supervisors.
    fn bury(&mut self) {
        self.children.retain(|(pid, _)| {
            // Only a child that lives on answers `None`.
            matches!(rustix::process::waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None))
        });
    }

    /// The next request; `None` when the runner is gone.
    fn receive(&self) -> io::Result<Option<(Launch, UnixStream, File)>> {
        let mut bytes = vec![0; REQUEST_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&self.requests, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let passed = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        });
        let [connection, words]: [OwnedFd; 2] = passed
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| io::Error::other("a request came without its socket and its file for last words"))?;
        let launch = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
        Ok(Some((launch, UnixStream::from(connection), File::from(words))))
    }
}

impl Ready {
    /// Loads the plugin for the supervisor that is about to be born. What fails here is tried again by that one, which has a
    /// log to say so.
    fn load(&mut self, launch: &Launch) {
        if self.plugins.iter().any(|plugin| plugin.sha256_hex() == launch.plugin_sha256) {
            return;
        }
        if self.host.is_none() {
            self.host = Host::new(host_options(&launch.plugin_cache)).ok();
        }
        let loaded = self.host.as_ref().and_then(|host| host.load_cached(&launch.plugin_sha256).ok().flatten());
        if let Some(plugin) = loaded {
            if self.plugins.len() >= PLUGINS_MAX {
                self.plugins.remove(0);
            }
            self.plugins.push(plugin);
        }
    }
}

/// Makes a forked process a supervisor's: what its own errors go to, and word to the runner that it is there.
fn begin(connection: UnixStream, words: &File) -> io::Result<UnixStream> {
    let begun = || -> io::Result<Born> {
        become_fd(words, libc::STDERR_FILENO)?;
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let start_ticks = procfs::start_ticks(pid).ok_or_else(|| io::Error::other("/proc does not show it"))?;
        Ok(Born::Process(pid, start_ticks))
    };
    match begun() {
        Ok(born) => {
            answer(&connection, &born);
            Ok(connection)
        }
        Err(error) => {
            answer(&connection, &Born::Failed(error.to_string()));
            Err(error)
        }
    }
}

fn answer(mut connection: &UnixStream, born: &Born) {
    // A runner that is gone needs no answer; the supervisor notices when it reads its brief.
    let _ = wire::line(born).and_then(|line| connection.write_all(&line));
}

/// Makes a standard stream of this process a copy of `file`.
#[expect(unsafe_code, reason = "the standard streams belong to nobody who could hand them over")]
fn become_fd(file: &File, stream: libc::c_int) -> io::Result<()> {
    // SAFETY: both are open descriptors, and what reads or writes the stream means whatever it is at that moment.
    match unsafe { libc::dup2(file.as_raw_fd(), stream) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// How many threads this process has.
fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Forks; `None` in the child.
#[expect(unsafe_code, reason = "a fork is how a supervisor gets what the launcher has loaded")]
fn fork(threads_at_start: usize) -> io::Result<Option<Pid>> {
    let threads = threads()?;
    if threads != threads_at_start {
        let words = format!("the launcher has {threads} threads and must have {threads_at_start}");
        return Err(io::Error::other(words));
    }
    // SAFETY: no thread was started since `crate::supervise` was called, and the caller has none that does anything, so that no
    // lock and no half-made change belongs to a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}
