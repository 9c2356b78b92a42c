//! The clone as a thing of this host that can be spoiled: it is taken for one daemon, cleared of what a killed one left behind, and
//! thrown away and made anew when it is damaged. Nothing that counts is lost with it: what serves is kept elsewhere.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::super::failure::{SourceCode, SourceFailure};
use super::{BLOBLESS, Git, host_failure, local};
use crate::files::{self, MODE_PRIVATE};

/// The variable by which a git of ours is known after its daemon was killed: the folder of its source.
pub(super) const MARK: &str = "FORGE_SOURCE_FOLDER";

/// How deep the folders of the clone's references lie.
const REFERENCE_DEPTH_MAX: u32 = 8;

/// The least time between two clones that are made anew: a disk that spoils each of them must not have them made in a circle.
const THROWN_AWAY_PAUSE_MIN: Duration = Duration::from_secs(10 * 60);

/// How long the end of a stray git is waited for.
const STRAY_END_MAX: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The file that names the server which refuses to leave blobs out.
const UNFILTERED: &str = "unfiltered";

/// Whether the server is asked to leave blobs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filters {
    /// It is; one that does not know of it sends everything.
    Asked,
    /// It answered that it will not.
    Refused,
}

impl Git {
    /// Whether the server is asked to leave blobs out. What it answered is known of this URL, over restarts too.
    pub(super) fn filters(&self) -> Filters {
        match fs::read_to_string(self.options.folder.join(UNFILTERED)) {
            Ok(url) if url == self.options.url => Filters::Refused,
            Ok(_) | Err(_) => Filters::Asked,
        }
    }

    /// Whether another try is worth it after this failure, since what caused it is out of the way: the clone was damaged, or the server
    /// refuses to leave blobs out. Then the next fetch makes a new clone.
    pub(crate) fn recover(&mut self, failure: &SourceFailure) -> bool {
        let refused = self.filters() == Filters::Asked && refuses_filters(&failure.message);
        if refused {
            let marked =
                files::write_atomic(&self.options.folder.join(UNFILTERED), self.options.url.as_bytes(), MODE_PRIVATE);
            if marked.is_err() {
                return false;
            }
            tracing::info!(
                cause = failure.message,
                "the server does not leave files of old commits out, so they are fetched too"
            );
            return self.remove_clone().is_ok();
        }
        let soon = self.thrown_away.is_some_and(|at| at.elapsed() < THROWN_AWAY_PAUSE_MIN);
        if soon || self.not_the_clones.as_ref() == Some(failure) || !self.is_damaged(failure.code) {
            // Looking for damage reads the clone: it is done once a failure.
            self.not_the_clones = Some(failure.clone());
            return false;
        }
        self.thrown_away = Some(Instant::now());
        tracing::warn!(
            cause = failure.message,
            "the clone of the configuration's repository is damaged: it is made anew"
        );
        self.remove_clone().is_ok()
    }

    /// Whether the clone is to blame. Where a server may be, only what is certainly broken counts.
    fn is_damaged(&self, code: SourceCode) -> bool {
        match code {
            SourceCode::BranchGone | SourceCode::Prunes | SourceCode::SetBack | SourceCode::Unsigned => return false,
            SourceCode::Unreachable
            | SourceCode::Rewritten
            | SourceCode::Foreign
            | SourceCode::NoDirectory
            | SourceCode::Host => {}
        }
        if self.lock.is_none() || !self.program.repository.join("HEAD").is_file() {
            return false;
        }
        let fails = |options: &[&str]| {
            let fsck = ["fsck", "--no-dangling", "--no-progress"];
            let args = [&BLOBLESS[..], &fsck[..], options].concat();
            self.run(&args, b"", local()).is_ok_and(|ended| ended.code != Some(0))
        };
        // The second one also reads every file; it minds what old commits look like, too, which no server is to pay for.
        fails(&["--connectivity-only"]) || (code == SourceCode::Host && fails(&[]))
    }

    /// Removes the clone, if there is one.
    pub(super) fn remove_clone(&self) -> Result<(), SourceFailure> {
        match fs::remove_dir_all(&self.program.repository) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(host_failure(format!("the spoiled clone cannot be removed: {error}")))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes the folder for this process, and clears it of what a killed daemon left behind: a git that still fetches, and git's locks.
    pub(super) fn take_folder(&self) -> Result<File, SourceFailure> {
        let path = self.options.folder.join("lock");
        let failed = |error: io::Error| host_failure(format!("{} cannot be locked: {error}", path.display()));
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        if !files::lock_alone(&file).map_err(failed)? {
            return Err(host_failure(format!("{} is held by another daemon", path.display())));
        }
        end_strays(&self.options.folder);
        let stale = remove_stale_locks(&self.program.repository, 0);
        stale.map_err(|error| host_failure(format!("a lock of git's cannot be removed: {error}")))?;
        Ok(file)
    }
}

/// Whether git's words say that the server does not leave blobs out, or does not give single ones later.
fn refuses_filters(words: &str) -> bool {
    (words.contains("filter") && words.contains("not supported")) || words.contains("unadvertised object")
}

/// Ends every process that was started for the source in `folder`. We hold the folder, so they are those of a daemon that was killed:
/// a fetch of theirs would write into the clone beside ours.
fn end_strays(folder: &Path) {
    let marked = [MARK.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // Opened before it is looked at: then the signal meets the process that was looked at, and no later one of its number.
        let Ok(handle) = pidfd_open(process, PidfdFlags::empty()) else { continue };
        let is_ours = fs::read(entry.path().join("environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == marked));
        if !is_ours || pidfd_send_signal(&handle, Signal::KILL).is_err() {
            continue;
        }
        tracing::warn!(pid = process.as_raw_nonzero().get(), "a git that a killed daemon left behind was ended");
        // One that does not end holds up nothing but its own locks.
        let _ = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&STRAY_END_MAX));
    }
}

/// Removes the lock files that a git left behind which was killed: we hold the folder, so nobody else's are among them.
fn remove_stale_locks(folder: &Path, depth: u32) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            if path.extension().is_some_and(|end| end == OsStr::new("lock")) {
                fs::remove_file(&path)?;
            }
        } else if depth < REFERENCE_DEPTH_MAX && entry.file_name() != "objects" {
            remove_stale_locks(&path, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    #[test]
    fn a_stray_of_this_folder_is_ended_and_one_of_another_lives() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = |mark: &Path| {
            let child = Command::new("sleep").arg("60").env(MARK, mark).spawn().expect("started");
            // Who starts it goes on a moment before its environment can be read.
            while fs::read(format!("/proc/{}/environ", child.id())).expect("it lives").is_empty() {
                std::thread::yield_now();
            }
            child
        };
        let (mut ours, mut other) = (start(folder.path()), start(&folder.path().join("other")));
        end_strays(folder.path());
        assert_eq!(ours.wait().expect("ended").signal(), Some(Signal::KILL.as_raw()));
        assert_eq!(other.try_wait().expect("asked"), None);
        other.kill().expect("ended");
        other.wait().expect("gone");
    }

    #[test]
    fn a_server_that_refuses_filters_is_understood() {
        assert!(refuses_filters("x cannot be fetched: fatal: remote error: filter 'blob:none' not supported"));
        assert!(refuses_filters("error: Server does not allow request for unadvertised object 0123"));
        assert!(!refuses_filters("fatal: unable to access 'https://filter.example.com/': Could not resolve host"));
    }
}
