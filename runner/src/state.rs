//! What the threads of a supervisor share: whether the attempt must end and why, when the runner was heard of, how long
//! the log is. One lock, one condition, and a bell for the thread that waits for descriptors (the attendant); nobody holds the
//! lock while doing anything else.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::ClockId;

use crate::bell::Bell;
use crate::warden::Contact;
use crate::wire::Order;

/// Milliseconds of a clock that goes on while the machine sleeps.
pub(crate) fn boottime_ms() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// What is shared.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    bell: Arc<Bell>,
}

/// The daemon's word that the attempt may begin, as its runner passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It has not come yet: whatever touches more than the attempt's own folders waits.
    Awaited,
    /// The attempt began.
    Given,
    /// The runner has hung up: the attempt is not to begin, and leaves nothing.
    Withdrawn,
}

/// What is known at one moment.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Whether the attempt may begin.
    pub(crate) word: Word,
    /// Contact with the runner and, through it, the daemon.
    pub(crate) contact: Contact,
    /// The first order to end; later ones change nothing.
    pub(crate) ending: Option<Order>,
    /// The log's length.
    pub(crate) log_length: u64,
    /// The repository's commit.
    pub(crate) commit: Option<String>,
    /// Whether the result lies in the spool.
    pub(crate) ended: bool,
    /// Whether a process was killed while the kernel killed for want of memory.
    pub(crate) memory_ran_out: bool,
}

impl Shared {
    /// Waits for the word. `bell` rings at every change that the attendant did not make itself.
    pub(crate) fn new(contact: Contact, bell: Arc<Bell>) -> Self {
        let state = State {
            word: Word::Awaited,
            contact,
            ending: None,
            log_length: 0,
            commit: None,
            ended: false,
            memory_ran_out: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), bell }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
        self.bell.ring();
    }

    /// The state now.
    pub(crate) fn now(&self) -> State {
        self.lock().clone()
    }

    /// Orders the end; the first order counts.
    pub(crate) fn end(&self, order: Order) {
        self.change(|state| {
            state.ending.get_or_insert(order);
        });
    }

    /// Whether the attempt must end.
    pub(crate) fn is_ending(&self) -> bool {
        self.lock().ending.is_some()
    }

    /// The attempt begins at `contact`; with an order to end where too much time went by since the word was given.
    pub(crate) fn begins(&self, contact: Contact, ending: Option<Order>) {
        let mut state = self.lock();
        state.contact = contact;
        state.ending = state.ending.take().or(ending);
        state.word = Word::Given;
        drop(state);
        self.changed.notify_all();
    }

    /// The attempt is not to begin.
    pub(crate) fn withdraw(&self, order: Order) {
        let mut state = self.lock();
        state.ending.get_or_insert(order);
        state.word = Word::Withdrawn;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the word is given or withdrawn; answers whether it is given.
    pub(crate) fn may_begin(&self) -> bool {
        let guard = self.lock();
        let awaited = self.changed.wait_while(guard, |state| state.word == Word::Awaited);
        awaited.unwrap_or_else(PoisonError::into_inner).word == Word::Given
    }

    /// The runner was heard of. Only the attendant hears it, and only it wants to know.
    pub(crate) fn heard(&self, now_ms: u64) {
        let mut state = self.lock();
        state.contact.heard_ms = state.contact.heard_ms.max(now_ms);
    }

    /// The daemon acknowledged a heartbeat sent at `sent_ms`. Only the attendant hears it, and only it wants to know.
    pub(crate) fn leased(&self, sent_ms: u64) {
        let mut state = self.lock();
        state.contact.leased_ms = state.contact.leased_ms.max(sent_ms);
    }

    /// The log has `length` bytes now.
    pub(crate) fn log_grew(&self, length: u64) {
        self.change(|state| state.log_length = length);
    }

    /// The commit is known.
    pub(crate) fn commit_known(&self, commit: &str) {
        self.change(|state| state.commit = Some(commit.to_owned()));
    }

    /// The result lies in the spool. Nobody is woken: this process is about to end.
    pub(crate) fn has_ended(&self) {
        self.lock().ended = true;
    }

    /// A process was killed while the kernel killed for want of memory. Nobody waits for this.
    pub(crate) fn memory_ran_out(&self) {
        self.lock().memory_ran_out = true;
    }

    /// Waits until `ready` answers something, or for `wait`.
    pub(crate) fn wait_for<T>(&self, wait: Duration, mut ready: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut found = None;
        let guard = self.lock();
        let _state = self
            .changed
            .wait_timeout_while(guard, wait, |state| {
                found = ready(state);
                found.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        found
    }
}
