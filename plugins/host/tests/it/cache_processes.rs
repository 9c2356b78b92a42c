//! One cache folder and several processes, one of which is killed while it writes. This program starts itself for that.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use forge_plugin_host::{Host, HostOptions, KEPT_AT_LEAST};

use crate::guests::{bytes, large};

/// The cache that a process of its own works on.
const FOLDER: &str = "FORGE_TEST_CACHE";
/// The component that it loads.
const COMPONENT: &str = "FORGE_TEST_COMPONENT";
/// What a process says that found its plugin compiled.
const FOUND: &str = "it was compiled before";

/// So much that a process which writes it can be met at that.
const LARGE_BYTES: usize = 16 << 20;
/// How often a process may be through with it all the same.
const TRIES: usize = 20;
const WAIT: Duration = Duration::from_secs(120);

fn host(folder: &Path) -> Host {
    Host::new(HostOptions { cache_dir: Some(folder.to_owned()), ..HostOptions::default() }).expect("the engine starts")
}

#[test]
#[ignore = "it is run by `a_process_that_is_killed_while_it_writes_harms_no_other`"]
fn loads_alone() {
    let [folder, component] = [FOLDER, COMPONENT].map(|name| PathBuf::from(std::env::var_os(name).expect("it is set")));
    let bytes = fs::read(component).expect("it is there");
    let host = host(&folder);
    // All begin when their input ends, which is at once.
    std::io::stdin().read_to_end(&mut Vec::new()).expect("it ends");
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let found = host.load_cached(&digest).expect("it can be looked up");
    if found.is_some() {
        writeln!(std::io::stdout(), "{FOUND}").expect("it is read");
    }
    let plugin = host.load(&bytes).expect("it loads");
    assert_eq!(plugin.describe().expect("it works").name, "hostile");
}

/// A process that loads the component as soon as its input ends.
fn start(folder: &Path, component: &Path) -> Child {
    Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "cache_processes::loads_alone", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(COMPONENT, component)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

fn ends_well(child: Child) -> String {
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The first file of the folder that is being written, and the process that writes it; `None` when all ended meanwhile.
fn unfinished(folder: &Path, children: &mut [Child]) -> Option<(PathBuf, u32)> {
    let begun = Instant::now();
    loop {
        let all_ended = children.iter_mut().all(|child| child.try_wait().expect("it is ours").is_some());
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            // `.DIGEST.PID.NUMBER`
            if let Some(pid) = name.strip_prefix('.').and_then(|rest| rest.split('.').nth(1)?.parse().ok()) {
                return Some((path, pid));
            }
        }
        if all_ended {
            return None;
        }
        assert!(begun.elapsed() < WAIT, "nobody writes, and nobody ends");
        std::thread::yield_now();
    }
}

/// Has processes load the component at once, and kills the first that is met while it writes. Answers what it left, and the others.
fn kill_one_of_four(folder: &Path, component: &Path) -> Option<(PathBuf, Vec<Child>)> {
    let mut children: Vec<Child> = (0..4).map(|_| start(folder, component)).collect();
    for child in &mut children {
        drop(child.stdin.take());
    }
    let (left, pid) = unfinished(folder, &mut children)?;
    let at = children.iter().position(|child| child.id() == pid).expect("it is one of them");
    let mut killed = children.remove(at);
    killed.kill().expect("it is ours");
    let status: ExitStatus = killed.wait().expect("it ends");
    // Whoever was through with it before the signal came is none that was killed while it wrote.
    if status.success() || !left.exists() {
        children.into_iter().for_each(|child| drop(ends_well(child)));
        return None;
    }
    Some((left, children))
}

#[test]
fn a_process_that_is_killed_while_it_writes_harms_no_other() {
    let outer = tempfile::tempdir().expect("a folder");
    let component = outer.path().join("large.wasm");
    fs::write(&component, large(LARGE_BYTES)).expect("written");
    let (folder, left, others) = (0..TRIES)
        .find_map(|number| {
            let folder = outer.path().join(format!("cache-{number}"));
            kill_one_of_four(&folder, &component).map(|(left, others)| (folder, left, others))
        })
        .expect("one is met while it writes");
    for other in others {
        ends_well(other);
    }
    let mut later = start(&folder, &component);
    drop(later.stdin.take());
    assert!(ends_well(later).contains(FOUND), "a later process finds what the others compiled");
    assert!(left.exists(), "a file that is being written is left alone, and nobody can tell that this one is not");

    // Nobody has written it for so long: whoever compiles the next one removes it.
    let file = fs::File::open(&left).expect("it is there");
    file.set_modified(SystemTime::now() - KEPT_AT_LEAST - Duration::from_secs(1)).expect("it is ours");
    host(&folder).load(&bytes("hoarder")).expect("it compiles");
    assert!(!left.exists());
    assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 2, "both plugins");
}
