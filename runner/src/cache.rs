//! Folders that stay between attempts, for what is costly to make anew: one for each project and plugin, and with `run_as` for each
//! user that its attempts ran as, since what one user's job wrote is not for another's.
//!
//! ```text
//! caches/                     the runner's; with run_as everyone may pass through
//!     OWNER-KEY/              the gate: the runner's, and locked (shared) by each attempt that uses what lies behind
//!         files/              what the attempt gets: its user's, 0700
//! ```
//!
//! The gate is why a user that one project's attempt had is of no use to the next project's attempt: who begins closes all gates of
//! its user but its own, unless another attempt of that user is inside. Only the runner may write into `caches` and into a gate
//! then, so a job can put nothing in their place; nothing here follows a symlink all the same, for a runner without `run_as`.
//!
//! What was not used for long, or is too much, goes: the gate is locked alone, moved aside and removed from there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::user::JobUser;
use crate::{files, workspace};

/// How long what nobody uses is kept.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How much all of them may hold; what was used longest ago goes first, and nothing that is in use.
const BYTES_MAX: u64 = 10 << 30;

/// The folder behind a gate.
const FILES: &str = "files";

/// What the names of folders begin with that are being removed. No gate's name does.
const REMOVED: &str = "removed-";

/// Whose a gate is where there is no `run_as`.
const OWN: &str = "own";

const CLOSED_MODE: u32 = 0o700;
/// Everyone may pass through, and see nothing.
const OPEN_MODE: u32 = 0o711;

/// How often a gate is made again that somebody removes at that moment.
const TRIES_MAX: u32 = 100;

/// How deep folders are looked into when they are measured. What lies deeper does not count.
const DEPTH_MAX: u32 = 64;

/// How large a file's blocks are, whatever the file system's are.
const BLOCK_BYTES: u64 = 512;

/// A cache that this process uses: until it is dropped, nobody removes it.
#[derive(Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    /// Its lock is the process's, and ends with it however it ends.
    _gate: File,
}

impl Cache {
    /// What the attempt gets.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the cache of a project's plugin in the folder `caches`, made where there is none. `user` is whose the attempt's processes
    /// are, when they are not the runner's own user's.
    pub(crate) fn take(caches: &Path, project: &str, plugin: &str, user: Option<&JobUser>) -> io::Result<Self> {
        let owner = user.map_or_else(|| OWN.to_owned(), |user| user.uid.to_string());
        // Neither name holds an end of line.
        let name = format!("{owner}-{}", files::sha256_hex(format!("{project}\n{plugin}").as_bytes()));
        let path = caches.join(&name);
        let gate = lock_gate(&path)?;
        if let Some(user) = user {
            close_others(caches, &format!("{}-", user.uid), &name)?;
        }
        let folder = open_files(gate.as_fd(), user)?;
        folder.set_permissions(fs::Permissions::from_mode(CLOSED_MODE))?;
        let mode = if user.is_some() { OPEN_MODE } else { CLOSED_MODE };
        gate.set_permissions(fs::Permissions::from_mode(mode))?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        rustix::fs::futimens(&gate, &Timestamps { last_access: now, last_modification: now })?;
        Ok(Self { path: path.join(FILES), _gate: gate })
    }
}

/// Opens a folder, and nothing else that may be in its place.
fn open_folder(at: BorrowedFd<'_>, name: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty()).map(File::from)
}

/// The gate at `path`, made where there is none and locked so that nobody removes it.
fn lock_gate(path: &Path) -> io::Result<File> {
    for _ in 0..TRIES_MAX {
        match DirBuilder::new().mode(CLOSED_MODE).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let gate = match open_folder(rustix::fs::CWD, path) {
            Ok(gate) => gate,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        // Whoever holds it alone moves it away and lets go at once.
        rustix::fs::flock(&gate, FlockOperation::LockShared)?;
        let (opened, found) = (gate.metadata()?, fs::symlink_metadata(path));
        if found.is_ok_and(|found| (found.dev(), found.ino()) == (opened.dev(), opened.ino())) {
            return Ok(gate);
        }
    }
    Err(io::Error::other("it is removed again and again"))
}

/// Closes the gates whose names begin with `prefix`, but `own` and those that another attempt is in.
fn close_others(caches: &Path, prefix: &str, own: &str) -> io::Result<()> {
    for entry in fs::read_dir(caches)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == own || !name.as_encoded_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        let Ok(gate) = open_folder(rustix::fs::CWD, &entry.path()) else { continue };
        let is_open = gate.metadata()?.mode() & 0o077 != 0;
        if is_open && rustix::fs::flock(&gate, FlockOperation::NonBlockingLockExclusive).is_ok() {
            gate.set_permissions(fs::Permissions::from_mode(CLOSED_MODE))?;
        }
    }
    Ok(())
}

/// The folder behind a gate, made where there is none and the user's.
fn open_files(gate: BorrowedFd<'_>, user: Option<&JobUser>) -> io::Result<File> {
    let name = Path::new(FILES);
    match rustix::fs::mkdirat(gate, name, Mode::from_raw_mode(CLOSED_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = match open_folder(gate, name) {
        // Its owner closed it to itself.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(gate, name, Mode::from_raw_mode(CLOSED_MODE), AtFlags::empty())?;
            open_folder(gate, name)?
        }
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(io::Error::other("something else lies in its place")),
        opened => opened?,
    };
    let (me, found) = (rustix::process::geteuid().as_raw(), folder.metadata()?.uid());
    match user {
        Some(user) if found == me => user.owns_open(&folder)?,
        Some(user) if found == user.uid => {}
        None if found == me => {}
        Some(_) | None => return Err(io::Error::other(format!("it belongs to another user (uid {found})"))),
    }
    Ok(folder)
}

/// Removes what nobody used for long, and beyond the bound what was used longest ago. It blocks, for as long as a disk takes to walk;
/// `is_over` is asked now and then and ends it early.
pub(crate) fn evict(caches: &Path, is_over: &dyn Fn() -> bool) -> io::Result<()> {
    evict_beyond(caches, BYTES_MAX, SystemTime::now().checked_sub(AGE_MAX), is_over)
}

/// One that may have to go.
struct Found {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

fn evict_beyond(
    caches: &Path,
    bytes_max: u64,
    oldest: Option<SystemTime>,
    is_over: &dyn Fn() -> bool,
) -> io::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(caches)? {
        let entry = entry?;
        if is_over() {
            return Ok(());
        }
        if entry.file_name().as_encoded_bytes().starts_with(REMOVED.as_bytes()) {
            // Left by a runner that ended while it removed.
            workspace::remove(&entry.path())?;
            continue;
        }
        let Ok(gate) = open_folder(rustix::fs::CWD, &entry.path()) else { continue };
        all.push(Found { path: entry.path(), used: gate.metadata()?.modified()?, bytes: bytes_in(gate.as_fd(), 0) });
    }
    all.sort_by_key(|found| found.used);
    let mut total: u64 = all.iter().map(|found| found.bytes).sum();
    for Found { path, used, bytes } in all {
        let is_old = oldest.is_some_and(|oldest| used < oldest);
        if !is_old && total <= bytes_max || is_over() {
            break;
        }
        if remove_unused(caches, &path, used)? {
            total -= bytes;
            tracing::info!(folder = %path.display(), bytes, is_old, "a cache of jobs is removed");
        }
    }
    Ok(())
}

/// Removes a cache that was last used at `used` and that nobody uses; answers whether it did.
fn remove_unused(caches: &Path, path: &Path, used: SystemTime) -> io::Result<bool> {
    let gate = match open_folder(rustix::fs::CWD, path) {
        Ok(gate) => gate,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::flock(&gate, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    if gate.metadata()?.modified()? != used {
        // Used meanwhile, however briefly.
        return Ok(false);
    }
    let aside = caches.join(format!("{REMOVED}{}", files::random_hex::<8>()?));
    fs::rename(path, &aside)?;
    // Whoever waits for it makes another, and does not wait for the removal.
    drop(gate);
    workspace::remove(&aside)?;
    Ok(true)
}

/// What a folder holds on the disk. Nothing that a job does meanwhile leads it elsewhere; what cannot be looked at counts as nothing.
fn bytes_in(folder: BorrowedFd<'_>, depth: u32) -> u64 {
    let Ok(entries) = Dir::read_from(folder) else { return 0 };
    let mut bytes = 0;
    for entry in entries {
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Ok(found) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        bytes += u64::try_from(found.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory && depth < DEPTH_MAX {
            let path = Path::new(std::ffi::OsStr::new(name.to_str().unwrap_or_default()));
            bytes += open_folder(folder, path).map_or(0, |below| bytes_in(below.as_fd(), depth + 1));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn take(caches: &Path, project: &str, plugin: &str) -> Cache {
        Cache::take(caches, project, plugin, None).expect("taken")
    }

    fn user(uid: u32) -> JobUser {
        JobUser { name: format!("forge-{uid}"), uid, gid: uid, groups: Vec::new() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    /// Makes a cache one that was used so long ago.
    fn age(cache: &Path, seconds: u64) {
        let used = SystemTime::now() - Duration::from_secs(seconds);
        File::open(cache.parent().expect("a gate")).and_then(|gate| gate.set_modified(used)).expect("aged");
    }

    fn evict_to(caches: &Path, bytes_max: u64, seconds: u64) {
        let oldest = SystemTime::now().checked_sub(Duration::from_secs(seconds));
        evict_beyond(caches, bytes_max, oldest, &|| false).expect("evicted");
    }

    #[test]
    fn attempts_of_one_project_and_plugin_share_a_cache_and_others_do_not() {
        let caches = tempfile::tempdir().expect("a folder");
        let one = take(caches.path(), "shop", "python");
        fs::write(one.path().join("x"), "x").expect("written");
        assert_eq!(mode(one.path()), 0o700);
        let two = take(caches.path(), "shop", "python");
        assert_eq!(one.path(), two.path());
        for (project, plugin) in [("shop", "shell"), ("bank", "python")] {
            let other = take(caches.path(), project, plugin);
            assert_ne!(one.path(), other.path());
            assert_eq!(fs::read_dir(other.path()).expect("listed").count(), 0);
        }
        drop((one, two));
        assert!(take(caches.path(), "shop", "python").path().join("x").exists(), "it stays");
    }

    #[test]
    fn what_was_not_used_for_long_goes_and_what_is_in_use_never() {
        let caches = tempfile::tempdir().expect("a folder");
        let (old, used) = (take(caches.path(), "shop", "old"), take(caches.path(), "shop", "used"));
        let new = take(caches.path(), "shop", "new").path().to_owned();
        for cache in [&old, &used] {
            age(cache.path(), 100);
        }
        // No longer in use.
        let old = { old }.path().to_owned();
        fs::create_dir_all(old.join("a/b")).expect("made");
        fs::set_permissions(old.join("a"), fs::Permissions::from_mode(0o0)).expect("closed");
        let left = caches.path().join(format!("{REMOVED}1"));
        fs::create_dir(&left).expect("made");
        evict_to(caches.path(), u64::MAX, 10);
        assert!(!old.parent().expect("a gate").exists() && !left.exists());
        assert!(used.path().exists() && new.exists());
        drop(used);
        assert_eq!(take(caches.path(), "shop", "old").path(), old, "it is made again");
    }

    #[test]
    fn beyond_the_bound_goes_what_was_used_longest_ago() {
        let caches = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("large"), vec![1; 4 << 20]).expect("written");
        let made: Vec<PathBuf> =
            ["a", "b", "c"].map(|plugin| take(caches.path(), "shop", plugin).path().to_owned()).into();
        for (path, seconds) in made.iter().zip([10, 30, 20]) {
            fs::create_dir(path.join("below")).expect("made");
            fs::write(path.join("below/x"), vec![1; 1 << 20]).expect("written");
            symlink(outside.path(), path.join("way-out")).expect("linked");
            age(path, seconds);
        }
        evict_to(caches.path(), 4 << 20, 1000);
        assert!(made.iter().all(|path| path.exists()), "what lies outside does not count");
        evict_to(caches.path(), 5 << 19, 1000);
        assert_eq!(made.iter().map(|path| path.exists()).collect::<Vec<_>>(), [true, false, true]);
        let held = take(caches.path(), "shop", "c");
        age(held.path(), 20);
        evict_to(caches.path(), 0, 1000);
        assert_eq!(made.iter().map(|path| path.exists()).collect::<Vec<_>>(), [false, false, true], "in use");
        assert!(outside.path().join("large").exists());
    }

    #[test]
    fn a_symlink_in_its_place_is_not_followed() {
        let caches = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        let path = take(caches.path(), "shop", "python").path().to_owned();
        fs::remove_dir(&path).expect("removed");
        symlink(outside.path(), &path).expect("linked");
        let refused = Cache::take(caches.path(), "shop", "python", None).expect_err("it leads elsewhere");
        assert!(refused.to_string().contains("something else lies in its place"), "{refused}");
        let gate = path.parent().expect("a gate");
        files::remove(gate).expect("removed");
        symlink(outside.path(), gate).expect("linked");
        Cache::take(caches.path(), "shop", "python", None).expect_err("the gate leads elsewhere");
        evict_to(caches.path(), 0, 0);
        assert!(outside.path().exists() && fs::read_dir(outside.path()).expect("listed").count() == 0);
    }

    #[test]
    fn each_user_has_its_own_and_no_way_to_another_projects() {
        if !rustix::process::geteuid().is_root() {
            // Not captured: whoever reads the result is to know.
            drop(io::stderr().write_all(b"\nNOT TESTED without root: each user's cache is its own\n"));
            return;
        }
        let caches = tempfile::tempdir().expect("a folder");
        let take =
            |project: &str, uid: u32| Cache::take(caches.path(), project, "python", Some(&user(uid))).expect("taken");
        let gate = |cache: &Path| cache.parent().expect("a gate").to_owned();
        let shop = take("shop", 70_000);
        let found = fs::metadata(shop.path()).expect("there");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (70_000, 70_000, 0o700));
        assert_eq!((mode(&gate(shop.path())), fs::metadata(gate(shop.path())).expect("there").uid()), (0o711, 0));
        let other_user = take("shop", 70_001);
        assert_ne!(shop.path(), other_user.path());
        assert_eq!(mode(&gate(shop.path())), 0o711, "another user's attempt does not matter to it");
        let bank = take("bank", 70_000);
        assert_eq!(mode(&gate(shop.path())), 0o711, "an attempt is inside");
        let shop = { shop }.path().to_owned();
        drop(bank);
        let bank = take("bank", 70_000);
        assert_eq!((mode(&gate(&shop)), mode(&gate(bank.path()))), (0o700, 0o711));
    }
}
