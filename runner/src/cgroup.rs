//! A control group for each supervisor, where this machine lets a runner make one: whatever a job starts is in it, however it hides, and stays
//! in it when its supervisor and its runner are dead.
//!
//! A supervisor enters its group once its job has lasted for a moment, with everything that it has started by then: the kernel takes many
//! milliseconds for that, which no task should wait for. A machine without groups, or one that lets a runner make none, is no error: [`crate::orphans`] knows processes by other marks, too.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::procfs;

/// The file that lists a group's processes, and takes one that is to be in it.
const PROCESSES: &str = "cgroup.procs";

/// How the names of these groups begin.
const NAME: &str = "forge-supervisor-";

/// How often it is looked for what was born outside meanwhile.
const LOOKS_MAX: usize = 8;

/// How deep below a supervisor's group others are looked for: a job may make some.
const DEPTH_MAX: usize = 8;

/// The group that this process was started in, where it may make others; launcher and supervisors inherit the answer with it.
static PLACE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let place = find(&groups, &mounts)?;
    rustix::fs::access(place.join(PROCESSES), rustix::fs::Access::WRITE_OK).ok()?;
    rustix::fs::access(&place, rustix::fs::Access::WRITE_OK).ok()?;
    Some(place)
});

/// The folder of a supervisor's group.
fn folder(pid: i32, start_ticks: u64) -> Option<PathBuf> {
    PLACE.as_ref().map(|place| place.join(format!("{NAME}{pid}-{start_ticks}")))
}

/// Puts this process, which is a supervisor, and everything below it into a group of its own; what they start from then on is born in it.
pub(crate) fn gather() -> io::Result<()> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let Some(folder) = folder(pid, procfs::start_ticks(pid).unwrap_or_default()) else { return Ok(()) };
    fs::create_dir(&folder)?;
    let processes = folder.join(PROCESSES);
    fs::write(&processes, pid.to_string())?;
    // What is born of one that is still outside is found with the next look.
    for _ in 0..LOOKS_MAX {
        let inside: BTreeSet<i32> = read(&processes).collect();
        let outside: Vec<i32> = procfs::below(&procfs::all_processes(), pid).difference(&inside).copied().collect();
        if outside.is_empty() {
            break;
        }
        for pid in outside {
            // It may have ended by itself just now.
            let _ = fs::write(&processes, pid.to_string());
        }
    }
    Ok(())
}

fn read(processes: &Path) -> impl Iterator<Item = i32> {
    let pids: Vec<i32> =
        fs::read_to_string(processes).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect();
    pids.into_iter()
}

/// The processes of a supervisor's group, itself included.
pub(crate) fn members(pid: i32, start_ticks: u64) -> BTreeSet<i32> {
    let mut members = BTreeSet::new();
    if let Some(folder) = folder(pid, start_ticks) {
        for folder in with_inner(folder) {
            members.extend(read(&folder.join(PROCESSES)));
        }
    }
    members
}

/// Removes the group of a supervisor that is dead. The kernel refuses that while anyone is in it.
pub(crate) fn remove(pid: i32, start_ticks: u64) {
    for folder in folder(pid, start_ticks).into_iter().flat_map(with_inner).rev() {
        let _ = fs::remove_dir(folder);
    }
}

/// A group and those below it, outer ones first.
fn with_inner(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = vec![folder];
    let mut level = 0..1;
    for _ in 0..DEPTH_MAX {
        let outer = found.get(level.clone()).unwrap_or_default().to_vec();
        level.start = found.len();
        let entries = outer.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        found.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
        level.end = found.len();
    }
    found
}

/// Where the group lies that `/proc/self/cgroup` names, by `/proc/self/mountinfo`: in the one hierarchy of version 2, else in that of `pids`.
fn find(groups: &str, mounts: &str) -> Option<PathBuf> {
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let pids = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "pids").then_some(path)
    });
    let of_unified = unified.and_then(|path| below_mount(mounts, path, |kind, _| kind == "cgroup2"));
    of_unified.or_else(|| {
        let is_pids = |kind: &str, options: &str| kind == "cgroup" && options.split(',').any(|name| name == "pids");
        below_mount(mounts, pids?, is_pids)
    })
}

/// Where `path` of a hierarchy lies below the mount that shows it.
fn below_mount(mounts: &str, path: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
        if !is_it(kind, options) {
            return None;
        }
        // A container may see only a part of the hierarchy, or its own group as the root of all.
        let inner = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(point).join(inner))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_in_either_version_and_below_its_mount() {
        let two =
            "22 1 0:9 / /proc rw - proc proc rw\n33 31 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let one = "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n38 31 0:35 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let part = "33 31 0:30 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        for (groups, mounts, expected) in [
            ("0::/system.slice/forge.service\n", two, Some("/sys/fs/cgroup/system.slice/forge.service")),
            ("0::/\n", two, Some("/sys/fs/cgroup/")),
            ("9:name=systemd:/a\n8:pids:/b/c\n0::/\n", one, Some("/sys/fs/cgroup/pids/b/c")),
            ("0::/docker/1/x\n", part, Some("/sys/fs/cgroup/x")),
            ("0::/elsewhere\n", part, None),
            ("0::/\n", one, None),
        ] {
            assert_eq!(find(groups, mounts), expected.map(PathBuf::from), "{groups}");
        }
    }
}
