//! Workspaces of attempts that failed, kept for a person to look at (`keep_failed_workspaces`).
//!
//! Whoever sees the attempt to its end moves its workspace away before the log is closed, so that the log's last line is true: the supervisor, or
//! the runner when that one died. The folder of the kept ones is the runner's alone: files keep their owner, and no job gets at
//! them, not even one of the same user. Secret files never lie in a workspace, so they go with the attempt. The files of a plan do, and may hold
//! secrets in plain text: those that the plugin named go before the workspace is kept, and where they cannot, it is not kept.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use forge_api::{AttemptId, AttemptOutcome};
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};

use crate::log::Log;
use crate::wire::Brief;
use crate::{carry, files, workspace};

/// How many are kept; the oldest go first.
const KEPT_MAX: usize = 10;

/// Moves the workspace away where its attempt's end is one to look into, and says so in the log, which is not closed yet.
pub(crate) fn keep_and_say(brief: &Brief, outcome: AttemptOutcome, log: &Log) {
    let kept = keep(brief.kept_workspaces.as_deref(), &brief.spool, &brief.workspace, brief.job.attempt, outcome);
    if let Some(words) = kept {
        log.forge(&words);
    }
}

/// Moves `workspace` into the folder `kept`, where there is one and the attempt's end is one to look into. Answers what to say of it.
pub(crate) fn keep(
    kept: Option<&Path>,
    spool: &Path,
    workspace: &Path,
    attempt: AttemptId,
    outcome: AttemptOutcome,
) -> Option<String> {
    let is_there = || fs::symlink_metadata(workspace).is_ok_and(|found| found.is_dir());
    let kept = kept.filter(|_| is_to_keep(outcome) && is_there())?;
    let target = place(kept, attempt);
    let done = carry::remove_carried(spool, workspace)
        .and_then(|removed| move_into(kept, workspace, &target).map(|()| removed));
    Some(match done {
        Ok(0) => format!("the workspace is kept: {}", target.display()),
        Ok(_) => {
            format!(
                "the workspace is kept: {}, without the files of its plan, which may hold secrets",
                target.display()
            )
        }
        Err(error) => format!("the workspace cannot be kept at {}: {error}", target.display()),
    })
}

/// Gives up what was kept of an attempt: where the disk is full, its result needs the room more.
pub(crate) fn give_up(kept: Option<&Path>, attempt: AttemptId) -> io::Result<()> {
    kept.map_or(Ok(()), |kept| workspace::remove(&place(kept, attempt)))
}

/// Where the workspace of an attempt is kept.
fn place(kept: &Path, attempt: AttemptId) -> PathBuf {
    kept.join(attempt.to_string())
}

fn is_to_keep(outcome: AttemptOutcome) -> bool {
    match outcome {
        AttemptOutcome::Failed | AttemptOutcome::Retry | AttemptOutcome::TimedOut | AttemptOutcome::Lost => true,
        AttemptOutcome::Succeeded | AttemptOutcome::Canceled | AttemptOutcome::AwaitsApproval => false,
    }
}

fn move_into(kept: &Path, workspace: &Path, target: &Path) -> io::Result<()> {
    files::make_private_folder(kept)?;
    // A job may have closed it, and what cannot be written cannot be moved.
    fs::set_permissions(workspace, fs::Permissions::from_mode(0o700))?;
    // From when it is kept, not from when the job last wrote there: the oldest go first.
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    rustix::fs::utimensat(rustix::fs::CWD, workspace, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    // Of a daemon that counts anew.
    workspace::remove(target)?;
    fs::rename(workspace, target)
}

/// Tells the operator of the workspace that was kept of an attempt, if one was, and removes the oldest beyond the bound. It blocks.
pub(crate) fn tell_and_prune(kept: &Path, attempt: AttemptId) {
    let target = place(kept, attempt);
    if !target.is_dir() {
        return;
    }
    tracing::info!(%attempt, workspace = %target.display(), "the workspace of a failed attempt is kept");
    if let Err(error) = prune(kept) {
        tracing::warn!(folder = %kept.display(), %error, "kept workspaces cannot be removed: they fill the disk");
    }
}

fn prune(kept: &Path) -> io::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(kept)? {
        let entry = entry?;
        match entry.metadata().and_then(|found| found.modified()) {
            Ok(modified) => all.push((modified, entry.path())),
            // Another attempt's end removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for path in oldest(all) {
        match workspace::remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// All but the newest.
fn oldest(mut all: Vec<(SystemTime, PathBuf)>) -> impl Iterator<Item = PathBuf> {
    all.sort();
    let beyond = all.len().saturating_sub(KEPT_MAX);
    all.into_iter().take(beyond).map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_workspace_that_its_job_closed_is_kept_and_a_canceled_one_is_not() {
        let place = tempfile::tempdir().expect("a folder");
        let kept = place.path().join("kept");
        let attempt = AttemptId { task: 1, attempt: 1 };
        let made = |mode: u32| {
            let workspace = place.path().join("1-1");
            fs::create_dir_all(workspace.join("d")).expect("made");
            fs::write(workspace.join("d/x"), "x").expect("written");
            for folder in [workspace.join("d"), workspace.clone()] {
                fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("closed");
            }
            workspace
        };
        let workspace = made(0o500);
        for outcome in [AttemptOutcome::Succeeded, AttemptOutcome::Canceled] {
            assert_eq!(keep(Some(&kept), place.path(), &workspace, attempt, outcome), None);
        }
        assert_eq!(keep(None, place.path(), &workspace, attempt, AttemptOutcome::Failed), None);
        for outcome in [AttemptOutcome::Failed, AttemptOutcome::Retry, AttemptOutcome::TimedOut, AttemptOutcome::Lost] {
            // One of the same name, which an earlier daemon's attempt had, gives way.
            let workspace = made(0o500);
            let words = keep(Some(&kept), place.path(), &workspace, attempt, outcome).expect("kept");
            assert_eq!(words, format!("the workspace is kept: {}", kept.join("1-1").display()));
            assert!(kept.join("1-1/d/x").is_file() && !workspace.exists());
        }
        assert_eq!(fs::metadata(&kept).expect("there").permissions().mode() & 0o777, 0o700);
        give_up(None, attempt).expect("nothing to do");
        assert!(kept.join("1-1").exists());
        give_up(Some(&kept), attempt).expect("given up");
        assert!(!kept.join("1-1").exists());
        assert_eq!(keep(Some(&kept), place.path(), &workspace, attempt, AttemptOutcome::Failed), None, "there is none");

        // Without the files of a plan, and not at all where those cannot go.
        let (spool, workspace) = (place.path().join("spool"), made(0o700));
        fs::create_dir(&spool).expect("made");
        fs::write(spool.join("carried.json"), r#"["d/x","gone"]"#).expect("written");
        let words = keep(Some(&kept), &spool, &workspace, attempt, AttemptOutcome::Failed).expect("kept");
        assert!(words.ends_with("1-1, without the files of its plan, which may hold secrets"), "{words}");
        assert!(kept.join("1-1/d").is_dir() && !kept.join("1-1/d/x").exists());
        let workspace = made(0o700);
        fs::write(spool.join("carried.json"), r#"["d"]"#).expect("written");
        let words = keep(Some(&kept), &spool, &workspace, attempt, AttemptOutcome::Failed).expect("told");
        assert!(words.contains("cannot be kept") && words.contains("d of the plan cannot be removed"), "{words}");
        assert!(workspace.exists(), "whoever ends the attempt removes it");
    }

    #[test]
    fn the_oldest_go_first() {
        let at =
            |second: u64| (SystemTime::UNIX_EPOCH + Duration::from_secs(second), PathBuf::from(second.to_string()));
        let all: Vec<_> = [5, 3, 12, 1, 4, 11, 2, 10, 9, 8, 7, 6].map(at).into();
        assert_eq!(oldest(all.clone()).collect::<Vec<_>>(), ["1", "2"].map(PathBuf::from));
        assert_eq!(oldest(all[..KEPT_MAX].to_vec()).count(), 0);
    }
}
