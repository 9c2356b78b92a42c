//! A process that a guest follows while it runs: its output in pieces, masked as the log is, and its end.
//!
//! The end of the process ends its output: a daemon that it leaves behind may hold the pipes for as long as the attempt lasts.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use forge_plugin_host::{CapabilityError, ChildProcess, Event, Exit};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use crate::executor::Ground;
use crate::mask::Masker;
use crate::process::{Scope, Start};

/// How many pieces of output a guest may leave unread before its process waits.
const UNREAD_PIECES_MAX: usize = 16;

/// How much of a process's output is handed to a guest at a time, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// A started process.
pub(crate) struct Child {
    ground: Arc<Ground>,
    pid: Pid,
    inbox: Receiver<Event>,
    /// What the guest has not asked for yet.
    ready: VecDeque<Event>,
    stdout: Masker,
    stderr: Masker,
    exited: Option<Exit>,
}

type Started = SyncSender<io::Result<Pid>>;

impl Child {
    /// Starts a process whose standard output and error come out of `readers`.
    pub(crate) fn start(
        ground: Arc<Ground>,
        start: Start,
        readers: (OwnedFd, OwnedFd),
        timeout_ms: Option<u64>,
    ) -> io::Result<Self> {
        let (events, inbox) = sync_channel(UNREAD_PIECES_MAX);
        let (started, starting) = sync_channel(1);
        let (stdout, stderr) = (ground.log.new_masker(), ground.log.new_masker());
        let watched = Arc::clone(&ground);
        // The thread ends with its process, which the supervisor ends at the latest when the attempt is over.
        std::thread::Builder::new()
            .name("child".to_owned())
            .spawn(move || watch(&watched, start, readers, timeout_ms, &started, &events))?;
        let pid = starting.recv().map_err(|_| io::Error::other("its thread is gone"))??;
        Ok(Self { ground, pid, inbox, ready: VecDeque::new(), stdout, stderr, exited: None })
    }
}

/// Starts a process, passes its output on and reports its end: the body of a child's thread.
fn watch(
    ground: &Ground,
    start: Start,
    readers: (OwnedFd, OwnedFd),
    timeout_ms: Option<u64>,
    started: &Started,
    events: &SyncSender<Event>,
) {
    // A receiver that is gone is a guest that lost interest; then nothing of this matters.
    let begun = ground.processes.start(start).and_then(|running| Ok((running.handle()?, running.handle()?, running)));
    let (handle, other_handle, mut running) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(running.pid()));
    let (stdout, stderr) = readers;
    let exit = std::thread::scope(|scope| {
        scope.spawn(|| pass_on(stdout, &handle, events, Event::Stdout));
        scope.spawn(|| pass_on(stderr, &other_handle, events, Event::Stderr));
        ground.wait(&mut running, timeout_ms)
    });
    match exit {
        Ok(exit) => drop(events.send(Event::Exited(exit))),
        Err(error) => tracing::warn!(%error, "a child process could not be waited for"),
    }
}

/// Passes on what `pipe` gives until it ends, or until `process` has ended and what it wrote is read.
fn pass_on(pipe: OwnedFd, process: &OwnedFd, events: &SyncSender<Event>, wrap: fn(Vec<u8>) -> Event) {
    let mut pipe = File::from(pipe);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left: Option<u64> = None;
    while left != Some(0) {
        let mut waiting = [PollFd::new(&pipe, PollFlags::IN), PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut waiting, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        let has_ended = waiting.last().is_some_and(|process| !process.revents().is_empty());
        if has_ended && left.is_none() {
            // All that it wrote lies in the pipe now. What others write to it later is not waited for.
            left = Some(rustix::io::ioctl_fionread(pipe.as_fd()).unwrap_or(0));
            continue;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                left = left.map(|left| left.saturating_sub(length as u64));
                if events.send(wrap(buffer.get(..length).unwrap_or_default().to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

impl ChildProcess for Child {
    fn next(&mut self) -> Result<Event, CapabilityError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(exit) = self.exited {
                return Ok(Event::Exited(exit));
            }
            if self.ground.shared.is_ending() {
                return Err(CapabilityError::Canceled);
            }
            // What a guest reads is masked as the log is, so it cannot pass a secret on: as a stream, since a read may
            // end in the middle of one.
            let mut masked = Vec::new();
            self.ground.guest.pauses();
            let received = self.inbox.recv();
            self.ground.guest.computes(&self.ground.bell);
            let event = match received {
                Ok(Event::Stdout(bytes)) => {
                    self.stdout.push(&bytes, &mut masked);
                    Event::Stdout(masked)
                }
                Ok(Event::Stderr(bytes)) => {
                    self.stderr.push(&bytes, &mut masked);
                    Event::Stderr(masked)
                }
                Ok(Event::Exited(exit)) => {
                    self.exited = Some(exit);
                    self.stdout.finish(&mut masked);
                    let mut masked_errors = Vec::new();
                    self.stderr.finish(&mut masked_errors);
                    self.ready.push_back(Event::Stdout(masked));
                    Event::Stderr(masked_errors)
                }
                Err(_) => return Err(CapabilityError::Io("the process cannot be waited for".to_owned())),
            };
            self.ready.push_back(event);
            self.ready.retain(|event| match event {
                Event::Stdout(bytes) | Event::Stderr(bytes) => !bytes.is_empty(),
                Event::Exited(_) => true,
            });
        }
    }

    fn kill(&mut self) {
        if self.exited.is_none() {
            self.ground.processes.end(Scope::Under(self.pid), self.ground.stop_grace_ms);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::bell::Bell;
    use crate::guest::Guest;
    use crate::log::Log;
    use crate::process::Processes;
    use crate::state::Shared;
    use crate::warden::Contact;

    fn child(folder: &Path, script: &str) -> Child {
        let bell = Arc::new(Bell::new().expect("a bell"));
        let contact = Contact { started_ms: 0, heard_ms: 0, leased_ms: 0 };
        let shared = Arc::new(Shared::new(contact, Arc::clone(&bell)));
        let log = Log::create(&folder.join("log"), &["a-very-secret-word"], Arc::clone(&shared)).expect("a log");
        let (log, processes, guest) = (Arc::new(log), Processes::default(), Guest::new());
        let ground = Arc::new(Ground { log, processes, shared, bell, guest, stop_grace_ms: 100 });
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        let ((stdout_reader, stdout), (stderr_reader, stderr)) = (pipe(), pipe());
        let start = Start {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            cwd: folder.to_owned(),
            stdin: None,
            stdout,
            stderr,
            user: None,
        };
        Child::start(ground, start, (stdout_reader, stderr_reader), None).expect("started")
    }

    fn read(mut child: Child) -> (Vec<u8>, Vec<u8>, Exit) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match child.next().expect("an event") {
                Event::Stdout(bytes) => out.extend(bytes),
                Event::Stderr(bytes) => err.extend(bytes),
                Event::Exited(exit) => return (out, err, exit),
            }
        }
    }

    #[test]
    fn a_secret_that_two_reads_share_is_masked_and_other_bytes_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let script =
            r"printf a-very; printf '\303' >&2; sleep 0.2; printf -- '-secret-word a-ve'; printf '\244\377' >&2";
        let (out, err, exit) = read(child(folder.path(), script));
        assert_eq!(String::from_utf8_lossy(&out), "[masked] a-ve");
        assert_eq!(err, [0xc3, 0xa4, 0xff]);
        assert_eq!(exit, Exit::Code(0));
    }

    #[test]
    fn what_a_process_leaves_behind_does_not_hold_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let began = Instant::now();
        let (out, _, exit) = read(child(folder.path(), "sleep 8 & seq 1 20000; exit 3"));
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert_eq!(exit, Exit::Code(3));
        assert_eq!(out.len(), (1..=20_000).map(|number: u32| number.to_string().len() + 1).sum::<usize>());
    }
}
