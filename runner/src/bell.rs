//! What wakes the thread that waits for descriptors: a counter of the kernel's that it polls with the others.
//!
//! Signals ring it too, so what a signal handler does here is one atomic store and one `write`.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::event::EventfdFlags;

/// The counter.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

/// The bell that signals ring; none while it is negative.
static RUNG_BY_SIGNALS: AtomicI32 = AtomicI32::new(-1);

/// Whether a signal told this process to stop.
static IS_STOPPED: AtomicBool = AtomicBool::new(false);

impl Bell {
    /// A silent one.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes whoever polls it, now or next.
    pub(crate) fn ring(&self) {
        // The one refusal is a counter that is full: then it rings already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Silences it.
    pub(crate) fn quiet(&self) {
        // The one refusal is that it is silent.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    /// From now on TERM and INT ring this bell and HUP does nothing: an order to end is obeyed in order. Processes that are
    /// started hear signals as ever, since a handler does not outlive `exec`.
    #[expect(unsafe_code, reason = "signals are heard without a thread of their own, which a runtime would need")]
    pub(crate) fn rings_at_signals(&self) -> io::Result<()> {
        RUNG_BY_SIGNALS.store(self.0.as_raw_fd(), Ordering::SeqCst);
        for (signal, handler) in [
            (libc::SIGTERM, stop as extern "C" fn(libc::c_int)),
            (libc::SIGINT, stop as extern "C" fn(libc::c_int)),
            (libc::SIGHUP, pass as extern "C" fn(libc::c_int)),
        ] {
            // SAFETY: zeroes are a valid `sigaction`, and the two handlers do nothing that a handler may not.
            let set = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut())
            };
            if set != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a signal has told this process to stop.
pub(crate) fn is_stopped() -> bool {
    IS_STOPPED.load(Ordering::SeqCst)
}

#[expect(unsafe_code, reason = "`write` of libc is what a signal handler may call")]
extern "C" fn stop(_signal: libc::c_int) {
    IS_STOPPED.store(true, Ordering::SeqCst);
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the bytes are there for the call; a descriptor that is closed is only refused. What the interrupted code may look
    // at afterwards is its own `errno`, which is put back.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(RUNG_BY_SIGNALS.load(Ordering::SeqCst), one.as_ptr().cast(), one.len());
        *libc::__errno_location() = errno;
    }
}

extern "C" fn pass(_signal: libc::c_int) {}
