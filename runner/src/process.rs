//! The processes of an attempt: started, waited for, found again wherever they hide, and ended.
//!
//! The supervisor is a child subreaper, so every process that a job leaves behind (daemons, `setsid` escapees, orphans)
//! becomes its child sooner or later, and all of them are always its descendants. The end of an attempt is when there are no
//! descendants any more: the end of the output says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};

use crate::log::Log;
use crate::procfs::{self, Seen, all_processes, below};
use crate::user::JobUser;

/// How long a killed process may take to vanish before it is named and left: it hangs in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// How often descendants are looked for again while they are being ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A process to start. The program's path is resolved; the environment is the whole of it.
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) cwd: PathBuf,
    /// Standard input; empty when `None`.
    pub(crate) stdin: Option<Vec<u8>>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Whose process it is; this process's user's where it is `None`.
    pub(crate) user: Option<JobUser>,
}

/// The processes of one supervisor.
#[derive(Default)]
pub(crate) struct Processes {
    /// Those that somebody waits for: orphans are reaped here, these are not. Held while a process starts, since the
    /// standard library may reap a process that fails to.
    awaited: Mutex<BTreeSet<i32>>,
    /// When the end of everything was first asked for.
    end_began: Mutex<Option<Instant>>,
    /// Held while it is looked who lives: `/proc` is read entry by entry, and a process whose dead parent another thread lets go of
    /// meanwhile would seem to belong to nobody.
    looking: Mutex<()>,
}

/// Which processes.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    /// Every descendant of the supervisor.
    All,
    /// One process, its descendants and its process group.
    Under(Pid),
}

/// A started process that must be waited for.
pub(crate) struct Running<'a> {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    processes: &'a Processes,
}

impl Processes {
    fn awaited(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process in a process group of its own.
    pub(crate) fn start(&self, start: Start) -> io::Result<Running<'_>> {
        let Start { program, args, env, cwd, stdin, stdout, stderr, user } = start;
        let stdin = match stdin {
            None => Stdio::null(),
            Some(bytes) => Stdio::from(in_memory(&bytes)?),
        };
        let mut command = std::process::Command::new(program);
        command.args(args).env_clear().envs(env).current_dir(cwd).stdin(stdin);
        command.stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr)).process_group(0);
        if let Some(user) = user {
            user.becomes(&mut command);
        }
        let mut awaited = self.awaited();
        let mut child = command.spawn()?;
        let raw = i32::try_from(child.id()).unwrap_or(0);
        let opened = Pid::from_raw(raw)
            .ok_or_else(|| io::Error::other("the system gave a process no id"))
            .and_then(|pid| Ok((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty())?)));
        match opened {
            Ok((pid, pidfd)) => {
                awaited.insert(raw);
                Ok(Running { child, pid, pidfd, processes: self })
            }
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Ends every process of `scope`: TERM, `grace_ms` later KILL, again and again until none is left. Answers those that
    /// not even KILL could end. A second call for all of them does not begin the grace anew.
    pub(crate) fn end(&self, scope: Scope, grace_ms: u64) -> Vec<i32> {
        let began = match scope {
            Scope::All => {
                *self.end_began.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now)
            }
            Scope::Under(_) => Instant::now(),
        };
        end_found(began, grace_ms, || {
            let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
            self.reap();
            let living = self.living(scope);
            if living.is_empty() {
                // Those that died since.
                self.reap();
            }
            living
        })
    }

    /// Whether no descendant is left, living or dead.
    pub(crate) fn none_left(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(rustix::process::waitid(WaitId::All, options), Err(rustix::io::Errno::CHILD))
    }

    /// Lets go of dead orphans that came to the supervisor: each would keep its number for as long as the attempt lasts.
    pub(crate) fn reap_orphans(&self) {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        self.reap();
    }

    fn reap(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if !matches!(rustix::process::waitid(WaitId::All, options), Ok(Some(_))) {
            return;
        }
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let dead: Vec<i32> =
            all_processes().into_iter().filter(|seen| seen.parent == me && seen.zombie).map(|seen| seen.pid).collect();
        let awaited = self.awaited();
        for pid in dead.into_iter().filter(|pid| !awaited.contains(pid)).filter_map(Pid::from_raw) {
            // It is a zombie child, so this cannot block; it may be gone already.
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }

    fn living(&self, scope: Scope) -> Vec<Seen> {
        if self.none_left() {
            return Vec::new();
        }
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let all = all_processes();
        let below_me = below(&all, me);
        let chosen = match scope {
            Scope::All => below_me,
            Scope::Under(root) => {
                let root = root.as_raw_nonzero().get();
                let mut chosen = below(&all, root);
                chosen.insert(root);
                chosen.extend(all.iter().filter(|seen| seen.group == root).map(|seen| seen.pid));
                // A reused number must never lead outside of this supervisor's own.
                chosen.intersection(&below_me).copied().collect()
            }
        };
        all.into_iter().filter(|seen| !seen.zombie && chosen.contains(&seen.pid)).collect()
    }
}

impl Running<'_> {
    /// Its id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that can be read from once it has ended.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    /// Waits until it ends, for `wait` at most; `None` when it still runs. Copies output to `log` meanwhile, unless the pump does.
    pub(crate) fn wait(&mut self, wait: Option<Duration>, log: &Log) -> io::Result<Option<ExitStatus>> {
        let deadline = wait.map(|wait| Instant::now() + wait);
        loop {
            // Asked again each time: the pump may have started meanwhile.
            let output = log.reader();
            if let Some(status) = self.child.try_wait()? {
                self.processes.awaited().remove(&self.pid.as_raw_nonzero().get());
                return Ok(Some(status));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let handles = std::iter::once(&self.pidfd).chain(output.as_deref());
            wait_for_any(handles, left.unwrap_or(Duration::from_secs(3_600)));
            if output.is_some_and(|output| rustix::io::ioctl_fionread(&*output).unwrap_or(0) > 0) {
                log.read_once();
            }
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Whoever gave up waiting leaves an orphan like any other.
        self.processes.awaited().remove(&self.pid.as_raw_nonzero().get());
    }
}

/// Ends every process that `find` finds: TERM, KILL once `grace_ms` after `began` are over, again and again until none is
/// left. Answers those that not even KILL could end.
pub(crate) fn end_found(began: Instant, grace_ms: u64, mut find: impl FnMut() -> Vec<Seen>) -> Vec<i32> {
    let kill_at = began + Duration::from_millis(grace_ms);
    let give_up_at = kill_at.max(Instant::now()) + KILL_WAIT;
    let mut asked = BTreeSet::new();
    loop {
        let alive = find();
        if alive.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        if now >= give_up_at {
            return alive.iter().map(|seen| seen.pid).collect();
        }
        let handles: Vec<(Seen, OwnedFd)> = alive
            .into_iter()
            .filter_map(|seen| Some((procfs::open_same(seen.pid, seen.start_ticks)?, seen)))
            .map(|(fd, seen)| (seen, fd))
            .collect();
        for (seen, handle) in &handles {
            if now >= kill_at {
                signal(handle, Signal::KILL);
            } else if asked.insert((seen.pid, seen.start_ticks)) {
                signal(handle, Signal::TERM);
                // A stopped process hears TERM only once it goes on.
                signal(handle, Signal::CONT);
            }
        }
        let until = if now >= kill_at { LOOK_AGAIN } else { LOOK_AGAIN.min(kill_at - now) };
        wait_for_any(handles.iter().map(|(_, handle)| handle), until);
    }
}

pub(crate) fn signal(handle: &OwnedFd, signal: Signal) {
    // It may have ended meanwhile, which is what is wanted.
    let _ = rustix::process::pidfd_send_signal(handle, signal);
}

/// The exit code, or the signal.
pub(crate) fn code_or_signal(status: ExitStatus) -> Result<i32, i32> {
    match status.code() {
        Some(code) => Ok(code),
        None => Err(status.signal().unwrap_or(0)),
    }
}

/// Where `program` is on the search path `path`; only executable files count.
pub(crate) fn find_program(program: &str, path: &str, cwd: &Path) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(cwd.join(program)).filter(|file| is_executable(file));
    }
    // An empty entry means the working folder to a shell: here it means nothing, a checkout must not shadow programs.
    path.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| Path::new(folder).join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// A file in memory that reads `bytes`.
pub(crate) fn in_memory(bytes: &[u8]) -> io::Result<std::fs::File> {
    let fd = rustix::fs::memfd_create("forge", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

fn wait_for_any<'a>(handles: impl Iterator<Item = &'a OwnedFd>, wait: Duration) {
    let mut waiting: Vec<PollFd<'_>> = handles.map(|handle| PollFd::new(handle, PollFlags::IN)).collect();
    let timeout =
        Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(wait.subsec_nanos()) };
    // Woken early or refused, the caller looks again.
    let _ = rustix::event::poll(&mut waiting, Some(&timeout));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_only() {
        let here = std::env::temp_dir();
        assert!(find_program("sh", "/usr/bin:/bin", &here).is_some_and(|file| file.is_absolute()));
        assert_eq!(find_program("sh", ":.:relative", &here), None);
        assert_eq!(find_program("no-such-program", "/usr/bin:/bin", &here), None);
    }
}
