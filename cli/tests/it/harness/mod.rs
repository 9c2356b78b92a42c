//! A world of its own for each story: a temporary home, an environment that holds nothing of the machine's, a tree of
//! configuration, and the real `forge` binary as daemon, runner and client. It waits for facts, never for time to pass.

mod process;
mod programs;
mod proxy;
mod random;
mod world;

pub(crate) use process::{Finished, Process};
pub(crate) use programs::{SSHD, need};
pub(crate) use proxy::Proxy;
pub(crate) use random::Random;
pub(crate) use world::{Daemon, World, utf8};

use std::time::{Duration, Instant};

/// How long a fact may take before the story fails. Generous: it bounds a broken run, it measures nothing.
const FACT_DEADLINE: Duration = Duration::from_secs(90);

/// How often a fact is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Looks for a fact until it is there; fails the story with `what` when it does not come.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(fact) = look() {
            return fact;
        }
        assert!(started.elapsed() < FACT_DEADLINE, "waited {FACT_DEADLINE:?} in vain for: {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Whether a process of this id is there and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the command's name, which stands in parentheses and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

/// A port of loopback that was free a moment ago, for what must come back on the same one.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
