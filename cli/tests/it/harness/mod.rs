//! A world of its own for each story: a temporary home, an environment that holds nothing of the machine's, a tree of
//! configuration, and the real `forge` binary as daemon, runner and client. It waits for facts, never for time to pass.

mod process;
mod programs;
mod proxy;
mod random;
mod receiver;
mod wasm;
mod world;

pub(crate) use process::{Finished, Process};
pub(crate) use programs::{SSHD, made_by, need, repository};
pub(crate) use proxy::Proxy;
pub(crate) use random::Random;
pub(crate) use receiver::{Received, Receiver, status};
pub(crate) use wasm::build_environment;
pub(crate) use world::{Daemon, Runner, World, utf8};

use std::time::{Duration, Instant};

/// How long a fact may take before the story fails. Generous: it bounds a broken run, it measures nothing.
const FACT_DEADLINE: Duration = Duration::from_secs(90);

/// Below those that systems give to whoever asks for any port.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

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

/// The whole answer to a plain GET.
pub(crate) fn get(address: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).expect("the daemon listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Waits until a job has written the ids of its processes to `file`, whole: beside it first, then moved.
pub(crate) fn pids_in(file: &std::path::Path) -> Vec<u32> {
    wait_for("the job's processes are known", || {
        let text = std::fs::read_to_string(file).ok()?;
        Some(text.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect())
    })
}

/// Whether a process of this id is there and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the command's name, which stands in parentheses and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

/// A port of loopback that was free a moment ago, for what must come back on the same one.
///
/// It is none that the system gives to whoever asks for any: a connection of another story's would take it meanwhile, and whoever
/// connects to such a port while nobody listens may even reach himself.
pub(crate) fn free_port() -> u16 {
    use std::hash::BuildHasher as _;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Each state hashes in a way of its own.
    let mut random =
        (0..u32::MAX).map(|turn| std::hash::RandomState::new().hash_one(turn) % u64::from(PORTS.end - PORTS.start));
    let mut ports = random.by_ref().filter_map(|offset| PORTS.start.checked_add(u16::try_from(offset).ok()?));
    ports.find(is_free).expect("one of them is free")
}
