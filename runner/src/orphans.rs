//! Processes whose supervisor is dead: found wherever they hide, and ended.
//!
//! A supervisor ends what it started. One that is killed itself cannot, so its runner does: it is a child subreaper too, and
//! what a dead supervisor had below it becomes the runner's child. A runner that was not there at that moment (it had died as
//! well) knows those processes by the `FORGE_WORKSPACE` that they were started with, and by the supervisor's session.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, WaitOptions};

use crate::process;
use crate::procfs::{self, Seen};
use crate::spool::{self, Record};

/// The variable whose value is an attempt's own.
pub(crate) const MARK: &str = "FORGE_WORKSPACE";

/// The supervisors that this process started or found, by id and start: these children are no orphans. It belongs to the
/// process and not to a runner, as children do.
static SUPERVISORS: Mutex<BTreeSet<(i32, u64)>> = Mutex::new(BTreeSet::new());

fn supervisors() -> MutexGuard<'static, BTreeSet<(i32, u64)>> {
    SUPERVISORS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember(known: &mut BTreeSet<(i32, u64)>, pid: i32, start_ticks: u64) {
    known.retain(|(pid, ticks)| procfs::read_stat(*pid).is_some_and(|seen| seen.start_ticks == *ticks));
    known.insert((pid, start_ticks));
}

/// Makes this process the one that orphans come to.
pub(crate) fn adopt() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "processes of a supervisor that is killed may be missed");
    }
}

/// Starts a supervisor; `start` answers its id. Answers when it started, too.
pub(crate) fn start_supervisor<T>(start: impl FnOnce() -> io::Result<(T, i32)>) -> io::Result<(T, i32, u64)> {
    // Held meanwhile, so that nobody takes the new process for an orphan before it is known.
    let mut known = supervisors();
    let (started, pid) = start()?;
    let start_ticks = procfs::start_ticks(pid).unwrap_or(0);
    remember(&mut known, pid, start_ticks);
    Ok((started, pid, start_ticks))
}

/// Knows the supervisor of a predecessor.
pub(crate) fn found_supervisor(record: &Record) {
    remember(&mut supervisors(), record.supervisor_pid, record.supervisor_start_ticks);
}

/// Ends what a dead supervisor left: TERM, `grace_ms` later KILL. Answers what not even KILL could end. Blocks.
pub(crate) fn end(record: &Record, grace_ms: u64) -> Vec<i32> {
    if record.supervisor_pid == 0 || record.boot_id != spool::boot_id() {
        return Vec::new();
    }
    process::end_found(Instant::now(), grace_ms, || living(record))
}

fn living(record: &Record) -> Vec<Seen> {
    let known = supervisors();
    let all = procfs::all_processes();
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let my_session = all.iter().find(|seen| seen.pid == me).map_or(0, |seen| seen.session);
    let is_supervisor = |seen: &Seen| known.contains(&(seen.pid, seen.start_ticks));
    // Other children of this process (the daemon's, in a process that is both) stay in its session; orphans never do.
    let is_adopted = |seen: &Seen| seen.parent == me && seen.session != my_session && !is_supervisor(seen);
    for dead in all.iter().filter(|seen| seen.zombie && is_adopted(seen)) {
        // It is a zombie child, so this cannot block.
        let _ = Pid::from_raw(dead.pid).map(|pid| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG));
    }
    // As long as anyone is in a session its number is not given away; one that is alive again names another session.
    let is_reused =
        all.iter().any(|seen| seen.pid == record.supervisor_pid && seen.start_ticks != record.supervisor_start_ticks);
    let is_left = |seen: &Seen| {
        let is_later = seen.start_ticks >= record.supervisor_start_ticks;
        let is_of_session = seen.session == record.supervisor_pid && !is_reused;
        is_later
            && !is_supervisor(seen)
            && (is_of_session || is_adopted(seen) || procfs::has_variable(seen.pid, MARK, &record.workspace))
    };
    let roots: BTreeSet<i32> = all.iter().filter(|seen| seen.pid != me && is_left(seen)).map(|seen| seen.pid).collect();
    let chosen: BTreeSet<i32> =
        roots.iter().flat_map(|root| procfs::below(&all, *root)).chain(roots.iter().copied()).collect();
    all.into_iter().filter(|seen| !seen.zombie && seen.pid != me && chosen.contains(&seen.pid)).collect()
}
