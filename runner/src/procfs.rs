//! Processes as `/proc` shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags};

/// A process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) zombie: bool,
    /// With the id it names one process for good, as long as the machine is up.
    pub(crate) start_ticks: u64,
}

/// The moment a living process started, in clock ticks since boot.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    read_stat(pid).filter(|seen| !seen.zombie).map(|seen| seen.start_ticks)
}

/// A handle on the process that had the number `pid` and started at `start_ticks`; `None` when it is gone.
pub(crate) fn open_same(pid: i32, start_ticks: u64) -> Option<OwnedFd> {
    let handle = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // The number may have been given to another process between the look and the opening.
    (read_stat(pid)?.start_ticks == start_ticks).then_some(handle)
}

/// Ids of everything below `root`.
pub(crate) fn below(all: &[Seen], root: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for seen in all {
        children.entry(seen.parent).or_default().push(seen.pid);
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// Every process that this one may see.
pub(crate) fn all_processes() -> Vec<Seen> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).filter_map(read_stat).collect()
}

/// Whether a process was started with exactly `NAME=VALUE`. Another user's environment cannot be read: then it was not.
pub(crate) fn has_variable(pid: i32, name: &str, value: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = [name.as_bytes(), b"=", value.as_os_str().as_bytes()].concat();
    environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
}

/// Whether a process works in `folder`: it stands there, sees it as the root of all, or its program lies in it.
pub(crate) fn works_in(pid: i32, folder: &Path) -> bool {
    let is_inside =
        |link: &str| std::fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|at| at.starts_with(folder));
    ["cwd", "root", "exe"].into_iter().any(is_inside)
}

/// Whether a process has the file in memory of this name.
pub(crate) fn holds_memory(pid: i32, name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let wanted = Path::new("/").join(format!("memfd:{name} (deleted)"));
    entries.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == wanted))
}

/// Whose process it is.
pub(crate) fn user(pid: i32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|folder| folder.uid())
}

pub(crate) fn read_stat(pid: i32) -> Option<Seen> {
    parse_stat(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat`. The program's name may hold spaces and brackets, so counting begins after the last bracket.
fn parse_stat(pid: i32, text: &str) -> Option<Seen> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let state = *fields.first()?;
    Some(Seen {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        zombie: matches!(state, "Z" | "X" | "x"),
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_hostile_name_is_read() {
        let text = "7 (a) R 1 (b) S 3 4 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let seen = parse_stat(7, text).expect("a process");
        assert_eq!(seen, Seen { pid: 7, parent: 3, group: 4, session: 5, zombie: false, start_ticks: 4242 });
        assert_eq!(parse_stat(7, "garbage"), None);
    }

    #[test]
    fn what_is_below_a_process_is_found_at_any_depth() {
        let seen = |pid, parent| Seen { pid, parent, group: pid, session: pid, zombie: false, start_ticks: 0 };
        let all = [seen(2, 1), seen(3, 2), seen(4, 3), seen(5, 1), seen(6, 4)];
        assert_eq!(below(&all, 2), BTreeSet::from([3, 4, 6]));
    }

    #[test]
    fn a_variable_is_compared_whole() {
        let mut child =
            std::process::Command::new("sleep").arg("60").env("FORGE_WORKSPACE", "/w/1-1").spawn().expect("started");
        let pid = i32::try_from(child.id()).expect("an id");
        // A process shows its environment a moment after it has started.
        let found = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            has_variable(pid, "FORGE_WORKSPACE", Path::new("/w/1-1"))
        });
        let other = has_variable(pid, "FORGE_WORKSPACE", Path::new("/w/1-10"));
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert!(found && !other);
    }

    #[test]
    fn a_process_is_known_by_where_it_works_and_by_what_it_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).expect("made");
        let mark = rustix::fs::memfd_create("forge-test-mark", rustix::fs::MemfdFlags::empty()).expect("made");
        // It says so once it runs.
        let script = "cd /; echo; exec sleep 60";
        let start = |script: &str| {
            let mut child = std::process::Command::new("bash")
                .args(["-c", script])
                .current_dir(&inner)
                .env_clear()
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("started");
            let out = child.stdout.take().expect("piped");
            std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut String::new()).expect("read");
            child
        };
        let [mut elsewhere, mut inside] = [script, "echo; exec sleep 60"].map(start);
        drop(mark);
        let mut stranger = start(script);
        let pid = |child: &std::process::Child| i32::try_from(child.id()).expect("an id");
        let seen = [&elsewhere, &inside, &stranger]
            .map(|child| (works_in(pid(child), folder.path()), holds_memory(pid(child), "forge-test-mark")));
        for child in [&mut elsewhere, &mut inside, &mut stranger] {
            child.kill().expect("killed");
            child.wait().expect("waited for");
        }
        assert_eq!(seen, [(false, true), (true, true), (false, false)]);
    }
}
