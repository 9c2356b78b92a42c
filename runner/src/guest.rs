//! Whether the guest computes at this moment: the attendant makes its engine look up then, and sleeps while the guest waits for
//! a process, which may be for hours.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use forge_plugin_host::Host;

use crate::bell::Bell;

/// What the main thread and the attendant know of the guest.
#[derive(Debug)]
pub(crate) struct Guest {
    host: OnceLock<Host>,
    is_computing: AtomicBool,
    /// The attendant looks no more until it is woken.
    is_asleep: AtomicBool,
}

impl Guest {
    /// One that is about to compute: most jobs have nothing to prepare.
    pub(crate) fn new() -> Self {
        Self { host: OnceLock::new(), is_computing: AtomicBool::new(true), is_asleep: AtomicBool::new(false) }
    }

    /// The engine that it computes in.
    pub(crate) fn is_in(&self, host: &Host) {
        // There is one call in an attempt.
        let _ = self.host.set(host.clone());
    }

    /// It waits, or is not called yet.
    pub(crate) fn pauses(&self) {
        self.is_computing.store(false, Ordering::SeqCst);
    }

    /// It computes from now on.
    pub(crate) fn computes(&self, bell: &Bell) {
        self.is_computing.store(true, Ordering::SeqCst);
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            bell.ring();
        }
    }

    /// For the attendant, before it waits: whether it must look again soon. When not, [`Guest::computes`] wakes it.
    pub(crate) fn is_computing_else_asleep(&self) -> bool {
        // In this order: whoever begins to compute between the two lines sees the sleeper.
        self.is_asleep.store(true, Ordering::SeqCst);
        let is_computing = self.is_computing.load(Ordering::SeqCst);
        if is_computing {
            self.is_asleep.store(false, Ordering::SeqCst);
        }
        is_computing
    }

    /// Makes the engine look up once.
    pub(crate) fn tick(&self) {
        if let Some(host) = self.host.get() {
            host.tick();
        }
    }
}
