//! Whose processes a job's are: the runner's own user, or with `run_as` another one that can read neither the runner's files nor,
//! with a range, those of another attempt.
//!
//! The supervisor stays the runner's user: it writes the log, keeps the secrets and ends processes. What belongs to a job (its
//! workspace, its secret files, its end of the log's pipe) is given to the job's user before the first process starts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forge_plugin_host::FileUser;
use rustix::fs::{AtFlags, Gid, Uid};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::settings::RunAs;

/// Everyone may pass through a folder of this mode; what lies in it protects itself.
const PASSAGE_MODE: u32 = 0o711;

/// A user that a job's processes run as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobUser {
    /// As `USER` and `LOGNAME` say.
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
}

/// `run_as` cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum RunAsError {
    /// This process may not become another user.
    #[error("run_as needs a runner that is started as root: only root can start processes of another user")]
    NotRoot,
    /// The user cannot be found.
    #[error("run_as = {name:?}: {reason}; make the user with `useradd --system {name}`, or write one that is there")]
    User {
        /// As written.
        name: String,
        /// What `id` says.
        reason: String,
    },
    /// Root is no other user.
    #[error("run_as = {written:?} is root, from whom nothing is kept apart: write a user of its own")]
    Root {
        /// As written.
        written: String,
    },
    /// The job's user cannot get to its workspace.
    #[error(
        "run_as: the user {user} cannot reach {path}: {error}; let everyone pass through the folders above it (`chmod o+x`), or move tmp_path"
    )]
    Unreachable {
        /// The user.
        user: String,
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The users that this runner's attempts get.
pub(crate) struct Users {
    kind: Kind,
}

enum Kind {
    /// Everything is the runner's own.
    Own,
    /// All attempts share one user.
    Shared(JobUser),
    /// Each attempt has one for itself.
    Each { first: u32, last: u32, taken: Mutex<Taken>, freed: Notify },
}

#[derive(Default)]
struct Taken {
    uids: BTreeSet<u32>,
    /// Given out last: a number rests as long as possible before it is given out again.
    latest: Option<u32>,
}

impl Users {
    /// What `run_as` means on this machine.
    pub(crate) fn new(run_as: Option<&RunAs>) -> Result<Self, RunAsError> {
        let Some(run_as) = run_as else { return Ok(Self { kind: Kind::Own }) };
        let kind = match run_as {
            RunAs::User(name) => Kind::Shared(look_up(name)?),
            RunAs::Range { first: 0, last } => return Err(RunAsError::Root { written: format!("0-{last}") }),
            RunAs::Range { first, last } => {
                Kind::Each { first: *first, last: *last, taken: Mutex::default(), freed: Notify::new() }
            }
        };
        if !rustix::process::geteuid().is_root() {
            return Err(RunAsError::NotRoot);
        }
        Ok(Self { kind })
    }

    /// How many attempts may run at a time, of `wanted` (0: unlimited): a range has one user for each.
    pub(crate) fn slots(&self, wanted: u32) -> u32 {
        match &self.kind {
            Kind::Own | Kind::Shared(_) => wanted,
            Kind::Each { first, last, .. } => {
                let users = (last - first).saturating_add(1);
                if wanted == 0 { users } else { wanted.min(users) }
            }
        }
    }

    /// What an operator should know of this choice.
    pub(crate) fn warning(&self, max_parallel_tasks: u32) -> Option<String> {
        match &self.kind {
            Kind::Shared(user) if max_parallel_tasks != 1 => Some(format!(
                "attempts that run at the same time are all the user {}, so they can read one another's workspaces: write a \
                 range such as run_as = \"70000-70099\", or max_parallel_tasks = 1",
                user.name
            )),
            Kind::Own | Kind::Shared(_) | Kind::Each { .. } => None,
        }
    }

    /// Opens the way to the workspaces and caches for the jobs' users, and tries it.
    pub(crate) fn open_way(&self, tmp_path: &Path, workspaces: &Path, caches: &Path) -> Result<(), RunAsError> {
        let user = match &self.kind {
            Kind::Own => return Ok(()),
            Kind::Shared(user) => user.clone(),
            Kind::Each { first, .. } => numbered(*first),
        };
        let failed = |error| RunAsError::Unreachable { user: user.name.clone(), path: workspaces.to_owned(), error };
        for folder in [tmp_path, workspaces, caches] {
            fs::set_permissions(folder, fs::Permissions::from_mode(PASSAGE_MODE)).map_err(failed)?;
        }
        reach(&user, workspaces).map_err(failed)
    }

    /// A user for a new attempt, `None` for the runner's own. One of a range is waited for: an attempt gives its slot back when its
    /// end is acknowledged, and its user a moment later, when nothing of it is left.
    pub(crate) async fn take(&self) -> Option<JobUser> {
        match &self.kind {
            Kind::Own => None,
            Kind::Shared(user) => Some(user.clone()),
            Kind::Each { first, last, taken, freed } => loop {
                // Listened for before looking, so that nothing is missed in between.
                let notified = freed.notified();
                if let Some(uid) = lock(taken).next(*first, *last) {
                    return Some(numbered(uid));
                }
                notified.await;
            },
        }
    }

    /// The attempt of a predecessor has this user.
    pub(crate) fn occupy(&self, user: Option<&JobUser>) {
        if let (Kind::Each { taken, .. }, Some(user)) = (&self.kind, user) {
            lock(taken).uids.insert(user.uid);
        }
    }

    /// The user's attempt has ended and left nothing.
    pub(crate) fn release(&self, user: Option<&JobUser>) {
        if let (Kind::Each { taken, freed, .. }, Some(user)) = (&self.kind, user) {
            lock(taken).uids.remove(&user.uid);
            freed.notify_one();
        }
    }
}

impl Taken {
    /// Takes the free user that rested longest.
    fn next(&mut self, first: u32, last: u32) -> Option<u32> {
        let after = self.latest.map_or(first, |latest| latest.saturating_add(1));
        let uid = (after..=last).chain(first..=last).find(|uid| !self.uids.contains(uid))?;
        self.uids.insert(uid);
        self.latest = Some(uid);
        Some(uid)
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // Every change is one insertion or removal.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A user of a range, which needs no account.
fn numbered(uid: u32) -> JobUser {
    JobUser { name: format!("forge-{uid}"), uid, gid: uid, groups: Vec::new() }
}

/// Asks the system's own program, which knows every source of users.
fn look_up(name: &str) -> Result<JobUser, RunAsError> {
    let failed = |reason: String| RunAsError::User { name: name.to_owned(), reason };
    let ask = |what: &str| -> Result<Vec<u32>, RunAsError> {
        let answer = Command::new("id").args([what, "--", name]).output().map_err(|error| failed(error.to_string()))?;
        if !answer.status.success() {
            return Err(failed(String::from_utf8_lossy(&answer.stderr).trim().to_owned()));
        }
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let numbers: Result<Vec<u32>, _> = text.split_whitespace().map(str::parse).collect();
        numbers.map_err(|_| failed(format!("`id {what}` answers {text:?}")))
    };
    let one = |what: &str| ask(what)?.first().copied().ok_or_else(|| failed(format!("`id {what}` answers nothing")));
    let user = JobUser { name: name.to_owned(), uid: one("-u")?, gid: one("-g")?, groups: ask("-G")? };
    if user.uid == 0 { Err(RunAsError::Root { written: name.to_owned() }) } else { Ok(user) }
}

/// Tries as `user` whether `path` can be reached: in a thread of its own, which ends with what it became.
fn reach(user: &JobUser, path: &Path) -> io::Result<()> {
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| {
            user.become_in_this_thread()?;
            fs::metadata(path).map(drop)
        });
        tried.join().unwrap_or_else(|_| Err(io::Error::other("the thread that tries it ended badly")))
    })
}

impl JobUser {
    /// As files know it.
    pub(crate) fn file_user(&self) -> FileUser {
        FileUser { uid: self.uid, gid: self.gid }
    }

    /// For good. In a process that was just forked this is the whole process.
    fn become_in_this_thread(&self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // A fixed room, since a process that was just forked must not ask for memory.
        let mut groups = [gid; GROUPS_MAX];
        let mut count = 0;
        for (place, group) in groups.iter_mut().zip(&self.groups) {
            *place = Gid::from_raw(*group);
            count += 1;
        }
        rustix::thread::set_thread_groups(groups.get(..count).unwrap_or_default())?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }

    /// Makes what `command` starts a process of this user.
    #[expect(unsafe_code, reason = "the standard library cannot set further groups")]
    pub(crate) fn becomes(&self, command: &mut Command) {
        let user = self.clone();
        // SAFETY: what runs between fork and exec makes three system calls and takes no lock and no memory.
        unsafe {
            command.pre_exec(move || user.become_in_this_thread());
        }
    }

    /// Gives it an open file or pipe.
    pub(crate) fn owns_open(&self, file: impl AsFd) -> io::Result<()> {
        rustix::fs::fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        Ok(())
    }

    /// Gives it a folder and everything in it. Nothing of the job may run yet. Files that another folder holds too (objects that a
    /// git cache lends) stay what they are: whoever owned them could change them there.
    pub(crate) fn owns_tree(&self, path: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        if found.is_file() && found.nlink() > 1 {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(rustix::fs::CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if found.is_dir() {
            for entry in fs::read_dir(path)? {
                self.owns_tree(&entry?.path())?;
            }
        }
        Ok(())
    }
}

/// How many further groups a job's user has at most; what `id` says beyond is left out.
const GROUPS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_range_gives_each_attempt_the_user_that_rested_longest() {
        let taken = Mutex::default();
        let users = Users { kind: Kind::Each { first: 70_000, last: 70_002, taken, freed: Notify::new() } };
        assert_eq!([users.slots(0), users.slots(2), users.slots(9)], [3, 2, 3]);
        let take = async || users.take().await.expect("of the range");
        let (one, two) = (take().await, take().await);
        assert_eq!((one.uid, two.uid, two.gid), (70_000, 70_001, 70_001));
        users.release(Some(&one));
        assert_eq!([take().await.uid, take().await.uid], [70_002, 70_000]);
        let waiting = users.take();
        tokio::pin!(waiting);
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err(), "none is free");
        users.release(Some(&two));
        assert_eq!(waiting.await, Some(two.clone()));
        users.release(Some(&two));
        users.occupy(Some(&two));
        assert!(timeout(Duration::ZERO, users.take()).await.is_err(), "a predecessor's attempt has it");
    }

    #[test]
    fn a_user_that_is_none_is_refused_with_words() {
        let refused = |run_as| Users::new(Some(&run_as)).map(drop).expect_err("refused").to_string();
        assert!(refused(RunAs::User("no-such-user".to_owned())).contains("useradd"));
        assert!(refused(RunAs::User("root".to_owned())).contains("root"));
        assert!(refused(RunAs::Range { first: 0, last: 9 }).contains("root"));
    }
}
