//! The one thread that a supervisor has beside the one that works: it hears the runner and tells it what is new, hears signals,
//! knows when the job may begin and when it must end, and makes the plugin's engine look up while the guest computes.
//!
//! It waits for all of that in one `poll`. What may take long (ending the job's processes) has a thread of its own, which is
//! started when it comes to that: an attempt of some milliseconds should not pay for what only long ones need. For the same
//! reason the control socket is made when a runner has gone: as long as one is connected, no other comes.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_plugin_host::TICK_MS;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::bell::{self, Bell};
use crate::cgroup;
use crate::executor::Ground;
use crate::state::{State, Word, boottime_ms};
use crate::warden::{self, Contact, Terms};
use crate::wire::{self, FromSupervisor, Go, LINE_BYTES_MAX, Order, ToSupervisor};

/// The longest nap: the clock of `poll` stands still while the machine sleeps. After each, dead orphans are let go of, of which
/// a long job may leave thousands.
const NAP_MAX: Duration = Duration::from_secs(2);

/// The longest that a message to a runner that does not read may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long nothing is told before a connection is tried: one that is broken without a word is found so.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long an attempt lasts before room is kept for the end of its log, and it gets a control group.
const RESERVE_AFTER: Duration = Duration::from_millis(200);

/// How much is read from a runner at a time, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// What the thread works with.
pub(crate) struct Attendant {
    pub(crate) ground: Arc<Ground>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) terms: Terms,
    /// Where the control socket is made once no runner is connected.
    pub(crate) control: PathBuf,
}

/// The end of an attempt that nobody asked for.
fn lost(reason: &str) -> Order {
    Order { outcome: forge_api::AttemptOutcome::Lost, reason: reason.to_owned() }
}

impl Attendant {
    /// The runner passes the daemon's word on. This process may have stood still since it was given: nothing begins that would have to
    /// end at once.
    fn begin(&self, go: Go) {
        let now_ms = boottime_ms();
        let contact = Contact { leased_ms: go.leased_ms.min(now_ms), ..Contact::at(now_ms) };
        let ending = match warden::verdict(self.terms, contact, now_ms) {
            warden::Verdict::End(order) => Some(order),
            warden::Verdict::WaitUntil(_) => None,
        };
        self.ground.shared.begins(contact, ending);
    }

    fn withdraw(&self, reason: &str) {
        self.ground.shared.withdraw(lost(reason));
    }

    /// Starts the thread. `unread` is what came over `connection` behind the brief.
    pub(crate) fn start(self, connection: UnixStream, unread: Vec<u8>) -> io::Result<()> {
        self.bell.rings_at_signals()?;
        let first = Conversation::new(connection, unread)?;
        let attending = Attending {
            attendant: self,
            conversations: vec![first],
            listener: None,
            is_ending: false,
            is_reserved: false,
            began: Instant::now(),
        };
        // It ends with the process.
        std::thread::Builder::new().name("attendant".to_owned()).spawn(move || attending.attend()).map(drop)
    }
}

struct Attending {
    attendant: Attendant,
    conversations: Vec<Conversation>,
    listener: Option<UnixListener>,
    is_ending: bool,
    is_reserved: bool,
    began: Instant,
}

impl Attending {
    fn attend(mut self) {
        let mut next_look = Instant::now() + NAP_MAX;
        // The word may have come behind the brief.
        self.hear();
        loop {
            let nap = self.guard().min(self.reserve());
            let state = self.attendant.ground.shared.now();
            for conversation in &mut self.conversations {
                conversation.tell(&state);
            }
            self.conversations.retain(|conversation| conversation.is_open);
            if self.conversations.is_empty() && state.word == Word::Awaited {
                self.attendant.withdraw("its runner changed its mind: the daemon took it back, say");
            }
            if self.conversations.is_empty() && self.listener.is_none() && state.word == Word::Given && !state.ended {
                self.listen();
            }
            self.wait(nap);
            self.accept();
            self.hear();
            if Instant::now() >= next_look {
                self.attendant.ground.processes.reap_orphans();
                next_look = Instant::now() + NAP_MAX;
            }
        }
    }

    fn hear(&mut self) {
        for conversation in &mut self.conversations {
            conversation.hear(&self.attendant);
        }
    }

    /// Has the job end when it must; answers how long nothing of that kind is due.
    fn guard(&mut self) -> Duration {
        let ground = &self.attendant.ground;
        let state = ground.shared.now();
        if bell::is_stopped() && state.ending.is_none() {
            let reason = "its supervisor was told to stop: the runner's machine shuts down, or someone ended it";
            match state.word {
                Word::Awaited => self.attendant.withdraw(reason),
                Word::Given | Word::Withdrawn => ground.shared.end(lost(reason)),
            }
        }
        let state = ground.shared.now();
        // Before the attempt begins, or where it never does, nothing runs that could have to end.
        if self.is_ending || state.word != Word::Given {
            return NAP_MAX;
        }
        if state.ending.is_none() {
            let now_ms = boottime_ms();
            match warden::verdict(self.attendant.terms, state.contact, now_ms) {
                warden::Verdict::WaitUntil(until_ms) => {
                    return Duration::from_millis(until_ms.saturating_sub(now_ms)).min(NAP_MAX);
                }
                warden::Verdict::End(order) => ground.shared.end(order),
            }
        }
        let ending = Arc::clone(ground);
        let ender = std::thread::Builder::new().name("ender".to_owned());
        match ender.spawn(move || drop(ending.end_all())) {
            Ok(_) => self.is_ending = true,
            // Tried again after a nap: whoever waits for the job's processes looks for the order, too.
            Err(error) => tracing::error!(%error, "the job's end has no thread"),
        }
        Duration::from_millis(TICK_MS)
    }

    /// Keeps room for the end of the log of an attempt that lasts; answers when that is due.
    fn reserve(&mut self) -> Duration {
        if self.is_reserved {
            return NAP_MAX;
        }
        let due = RESERVE_AFTER.saturating_sub(self.began.elapsed());
        if due.is_zero() {
            self.attendant.ground.log.keep_reserve();
            // A job runs without it, too: what a dead supervisor leaves is then known by fewer marks.
            let gather = || {
                if let Err(error) = cgroup::gather() {
                    tracing::debug!(%error, "this supervisor has no control group of its own");
                }
            };
            // The kernel takes its time for it.
            if let Err(error) = std::thread::Builder::new().name("gatherer".to_owned()).spawn(gather) {
                tracing::debug!(%error, "the control group has no thread");
            }
            self.is_reserved = true;
            return NAP_MAX;
        }
        due
    }

    fn listen(&mut self) {
        // A socket that is there belonged to nobody: this process is the only one of its attempt.
        let made = crate::files::remove(&self.attendant.control).and_then(|()| {
            let listener = UnixListener::bind(&self.attendant.control)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match made {
            Ok(listener) => self.listener = Some(listener),
            // Tried again after the next nap.
            Err(error) => tracing::warn!(%error, "a runner cannot attach"),
        }
    }

    /// Takes the connections of restarted runners. The folder is private, so only this user's processes reach the socket.
    fn accept(&mut self) {
        while let Some(accepted) = self.listener.as_ref().map(UnixListener::accept) {
            match accepted.and_then(|(connection, _)| Conversation::new(connection, Vec::new())) {
                Ok(conversation) => self.conversations.push(conversation),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "a runner could not attach");
                    return;
                }
            }
        }
    }

    /// Waits for news, for `nap` at most, and makes the engine look up while the guest computes.
    fn wait(&self, nap: Duration) {
        let Attendant { ground, bell, .. } = &self.attendant;
        let mut waiting = vec![PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
        waiting
            .extend(self.listener.as_ref().map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)));
        waiting.extend(self.conversations.iter().map(Conversation::awaited));
        let deadline = Instant::now() + nap;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_computing = ground.guest.is_computing_else_asleep();
            let timeout = if is_computing { left.min(Duration::from_millis(TICK_MS)) } else { left };
            let timeout = Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(timeout.subsec_nanos()),
            };
            let found = rustix::event::poll(&mut waiting, Some(&timeout));
            if is_computing {
                ground.guest.tick();
            }
            if !matches!(found, Ok(0)) || Instant::now() >= deadline {
                break;
            }
        }
        bell.quiet();
    }
}

/// One connection of a runner.
struct Conversation {
    stream: UnixStream,
    is_open: bool,
    /// What came and is no whole line yet.
    unread: Vec<u8>,
    /// What the runner does not take yet, and since when.
    unsent: Vec<u8>,
    stuck_since: Option<Instant>,
    told_at: Instant,
    told_length: u64,
    told_commit: bool,
}

impl Conversation {
    fn new(stream: UnixStream, unread: Vec<u8>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            is_open: true,
            unread,
            unsent: Vec::new(),
            stuck_since: None,
            told_at: Instant::now(),
            told_length: 0,
            told_commit: false,
        })
    }

    fn awaited(&self) -> PollFd<'_> {
        let stream: BorrowedFd<'_> = self.stream.as_fd();
        let flags = if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        PollFd::from_borrowed_fd(stream, flags)
    }

    /// Takes what the runner says.
    fn hear(&mut self, attendant: &Attendant) {
        let mut piece = [0; READ_BYTES];
        loop {
            self.heed(attendant);
            match self.stream.read(&mut piece) {
                Ok(0) => self.is_open = false,
                Ok(length) => {
                    self.unread.extend_from_slice(piece.get(..length).unwrap_or_default());
                    if self.unread.len() as u64 <= LINE_BYTES_MAX {
                        continue;
                    }
                    self.is_open = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => self.is_open = false,
            }
            return;
        }
    }

    /// Heeds every whole line.
    fn heed(&mut self, attendant: &Attendant) {
        let ground = &attendant.ground;
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            if ground.shared.now().word == Word::Awaited {
                match serde_json::from_slice(&line) {
                    Ok(go) => attendant.begin(go),
                    Err(error) => {
                        tracing::warn!(%error, "a runner's word is not understood");
                        self.is_open = false;
                    }
                }
                continue;
            }
            let now_ms = boottime_ms();
            ground.shared.heard(now_ms);
            match serde_json::from_slice(&line) {
                Ok(ToSupervisor::Alive) => {}
                Ok(ToSupervisor::LeaseMs(ago_ms)) => ground.shared.leased(now_ms.saturating_sub(ago_ms)),
                Ok(ToSupervisor::Cancel(order)) => ground.shared.end(order),
                Err(error) => tracing::warn!(%error, "a runner said what this supervisor does not understand"),
            }
        }
    }

    /// Says what is new, once for all that happened meanwhile. The end is said by the main thread, which closes the connection,
    /// or by the end of this process.
    fn tell(&mut self, state: &State) {
        if self.unsent.is_empty() {
            let commit = state.commit.clone().filter(|_| !self.told_commit).map(FromSupervisor::Commit);
            let is_longer = state.log_length > self.told_length;
            let is_silent = self.told_at.elapsed() >= SILENCE_MAX;
            let length = (is_longer || is_silent).then_some(FromSupervisor::Log(state.log_length));
            self.told_commit |= commit.is_some();
            self.told_length = state.log_length;
            for message in commit.into_iter().chain(length) {
                // A message is a number or a word: it cannot fail to become a line.
                self.unsent.extend(wire::line(&message).unwrap_or_default());
            }
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => {
                    self.unsent.drain(..written);
                    self.told_at = Instant::now();
                    self.stuck_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A runner that stood still for long: it attaches anew when it goes on.
                    let since = *self.stuck_since.get_or_insert_with(Instant::now);
                    self.is_open &= since.elapsed() < WRITE_TIMEOUT;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_open = false;
                    return;
                }
            }
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // The main thread holds the first one, too: the runner must not wait on it for news that nobody tells.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
