//! Processes whose supervisor is dead: found wherever they hide, and ended.
//!
//! A supervisor ends what it started. One that is killed itself cannot, so its runner does: it is a child subreaper too, and
//! what a dead supervisor had below it becomes the runner's child. A runner that was not there at that moment (it had died as
//! well) knows those processes by what they got from their supervisor: its control group, where the machine has such; its session; a
//! descriptor that nobody closes unless he closes all; the `FORGE_WORKSPACE` that they were started with; the workspace that they work
//! in; and a user of their own, where `run_as` gives each attempt one. A process would have to get rid of all of them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, WaitOptions};

use crate::cgroup;
use crate::process;
use crate::procfs::{self, Seen};
use crate::spool::{self, Record};

/// The variable whose value is an attempt's own.
pub(crate) const MARK: &str = "FORGE_WORKSPACE";

/// The launcher and the supervisors that this process started or found, by id and start: these are no orphans, also when
/// they are its children. It belongs to the process and not to a runner, as children do.
static OWN: Mutex<Own> = Mutex::new(Own { known: BTreeSet::new(), look_at: KNOWN_MIN });

fn own() -> MutexGuard<'static, Own> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many are known at least before it is looked which of them are gone.
const KNOWN_MIN: usize = 64;

struct Own {
    known: BTreeSet<(i32, u64)>,
    /// How many may be known before it is looked which of them are gone.
    look_at: usize,
}

fn remember(own: &mut Own, pid: i32, start_ticks: u64) {
    own.known.insert((pid, start_ticks));
    if own.known.len() >= own.look_at {
        own.known.retain(|(pid, ticks)| procfs::read_stat(*pid).is_some_and(|seen| seen.start_ticks == *ticks));
        // Twice as many as live: on average one look for each that comes.
        own.look_at = KNOWN_MIN.max(2 * own.known.len());
    }
}

/// The name of what every process of a supervisor inherits.
fn descriptor_name(pid: i32, start_ticks: u64) -> String {
    format!("forge-supervisor-{pid}-{start_ticks}")
}

/// Opens what every process that this supervisor starts inherits, and is known by; it is a file in memory that holds nothing. The caller
/// keeps it for as long as it starts any.
pub(crate) fn mark_children() -> io::Result<OwnedFd> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let start_ticks = procfs::start_ticks(pid).unwrap_or_default();
    // Without CLOEXEC on purpose.
    Ok(rustix::fs::memfd_create(descriptor_name(pid, start_ticks), rustix::fs::MemfdFlags::empty())?)
}

/// Makes this process the one that orphans come to.
pub(crate) fn adopt() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "processes of a supervisor that is killed may be missed");
    }
}

/// Starts a child that is no orphan in a session of its own.
pub(crate) fn start_child(start: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    // Held meanwhile, so that nobody takes the new process for an orphan before it is known.
    let mut own = own();
    let child = start()?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    remember(&mut own, pid, procfs::start_ticks(pid).unwrap_or(0));
    Ok(child)
}

/// Knows a supervisor. It is this process's child once its launcher is dead.
pub(crate) fn know_supervisor(pid: i32, start_ticks: u64) {
    remember(&mut own(), pid, start_ticks);
}

/// Ends what a dead supervisor left: TERM, `grace_ms` later KILL. Answers what not even KILL could end. Blocks.
pub(crate) fn end(record: &Record, grace_ms: u64) -> Vec<i32> {
    if record.supervisor_pid == 0 || record.boot_id != spool::boot_id() {
        return Vec::new();
    }
    process::end_found(Instant::now(), grace_ms, || living(record))
}

fn living(record: &Record) -> Vec<Seen> {
    let own = own();
    let all = procfs::all_processes();
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let my_session = all.iter().find(|seen| seen.pid == me).map_or(0, |seen| seen.session);
    let is_own = |seen: &Seen| own.known.contains(&(seen.pid, seen.start_ticks));
    // Other children of this process (the daemon's, in a process that is both) stay in its session; orphans never do.
    let is_adopted = |seen: &Seen| seen.parent == me && seen.session != my_session && !is_own(seen);
    for dead in all.iter().filter(|seen| seen.zombie && is_adopted(seen)) {
        // It is a zombie child, so this cannot block.
        let _ = Pid::from_raw(dead.pid).map(|pid| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG));
    }
    // As long as anyone is in a session its number is not given away; one that is alive again names another session.
    let is_reused =
        all.iter().any(|seen| seen.pid == record.supervisor_pid && seen.start_ticks != record.supervisor_start_ticks);
    let in_group = cgroup::members(record.supervisor_pid, record.supervisor_start_ticks);
    let descriptor = descriptor_name(record.supervisor_pid, record.supervisor_start_ticks);
    let is_marked = |pid: i32| {
        in_group.contains(&pid)
            || procfs::has_variable(pid, MARK, &record.workspace)
            || procfs::works_in(pid, &record.workspace)
            || procfs::holds_memory(pid, &descriptor)
            || record.alone_uid.is_some_and(|uid| procfs::user(pid) == Some(uid))
    };
    let is_left = |seen: &Seen| {
        let is_later = seen.start_ticks >= record.supervisor_start_ticks;
        let is_of_session = seen.session == record.supervisor_pid && !is_reused;
        is_later && !is_own(seen) && (is_of_session || is_adopted(seen) || is_marked(seen.pid))
    };
    let roots: BTreeSet<i32> = all.iter().filter(|seen| seen.pid != me && is_left(seen)).map(|seen| seen.pid).collect();
    let chosen: BTreeSet<i32> =
        roots.iter().flat_map(|root| procfs::below(&all, *root)).chain(roots.iter().copied()).collect();
    all.into_iter().filter(|seen| !seen.zombie && seen.pid != me && chosen.contains(&seen.pid)).collect()
}
