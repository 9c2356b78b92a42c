//! What a guest may touch and run, asked from inside the sandbox.

use std::os::unix::fs::symlink;

use forge_plugin_host::{Done, ExecuteError, Limits, Plugin};
use rustix::fs::Mode;

use crate::guests::{Seen, execute, load};

fn answer(plugin: &Plugin, seen: &Seen, workspace: &std::path::Path, arguments: &[&str]) -> Result<String, String> {
    match execute(plugin, seen, workspace, Limits::default(), arguments) {
        Ok(Done::Finished(outcome)) => Ok(outcome.summary),
        Err(ExecuteError::Invalid(message)) => Err(message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_stay_inside_the_workspace() {
    let outer = tempfile::tempdir().expect("a folder");
    let workspace = outer.path().join("workspace");
    std::fs::create_dir_all(workspace.join("folder")).expect("a folder");
    std::fs::write(outer.path().join("secret"), "secret").expect("a file");
    std::fs::write(workspace.join("inside"), "inside").expect("a file");
    symlink("../secret", workspace.join("out")).expect("a link");
    symlink("..", workspace.join("up")).expect("a link");
    symlink("/proc/self/root", workspace.join("magic")).expect("a link");
    symlink("folder/../inside", workspace.join("in")).expect("a link");
    rustix::fs::mkfifoat(rustix::fs::CWD, workspace.join("fifo"), Mode::from_raw_mode(0o600)).expect("a FIFO");

    let guest = load("workspace");
    let touch = |arguments: &[&str]| answer(&guest, &Seen::default(), &workspace, arguments);
    assert_eq!(touch(&["inside"]), Ok("inside".to_owned()));
    assert_eq!(touch(&["in"]), Ok("inside".to_owned()));
    assert_eq!(touch(&["gone"]), Err("gone in the workspace".to_owned()));
    assert_eq!(touch(&["../secret"]), Err("../secret holds `..`; paths stay inside the workspace".to_owned()));
    assert_eq!(touch(&["/etc/passwd"]), Err("/etc/passwd is absolute; paths are relative to the workspace".to_owned()));
    for path in ["out", "up/secret", "magic/etc/passwd"] {
        assert_eq!(touch(&[path]), Err(format!("{path} leaves the workspace through a symlink")));
        assert!(
            touch(&[path, "changed"]).is_err_and(|error| error.ends_with("leaves the workspace through a symlink"))
        );
    }
    assert_eq!(touch(&["up", "", "", ""]), Err("up leaves the workspace through a symlink".to_owned()));
    assert_eq!(touch(&["up/secret", "", ""]), Err("up leaves the workspace through a symlink".to_owned()));
    assert_eq!(touch(&["fifo"]), Err("fifo is not a regular file".to_owned()));
    assert_eq!(touch(&["folder"]), Err("folder is a folder and not a file".to_owned()));
    assert_eq!(touch(&[".", "", ""]), Err("the workspace itself is not removed".to_owned()));
    assert!(touch(&[""]).is_err());
    assert_eq!(std::fs::read_to_string(outer.path().join("secret")).expect("it is there"), "secret");
}

#[test]
fn files_are_written_listed_and_removed() {
    let workspace = tempfile::tempdir().expect("a folder");
    let guest = load("workspace");
    let touch = |arguments: &[&str]| answer(&guest, &Seen::default(), workspace.path(), arguments);
    assert_eq!(touch(&["new/deep/file", "longer"]), Ok(String::new()));
    assert_eq!(touch(&["new/deep/file", "short"]), Ok(String::new()));
    assert_eq!(touch(&["new/deep/file"]), Ok("short".to_owned()));
    assert_eq!(touch(&["new", "", "", ""]), Ok("deep".to_owned()));
    assert_eq!(touch(&["new/deep/file", "", ""]), Ok(String::new()));
    assert_eq!(touch(&["new/deep", "", ""]), Ok(String::new()));
    assert_eq!(touch(&["new/deep"]), Err("new/deep in the workspace".to_owned()));
    assert_eq!(touch(&["new/deep", "", "", ""]), Err("new/deep in the workspace".to_owned()));
}

#[test]
fn commands_are_checked_before_the_embedder_hears_of_them() {
    let workspace = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(workspace.path().join("folder")).expect("a folder");
    let guest = load("run");
    let seen = Seen::default();
    let run = |arguments: &[&str]| answer(&guest, &seen, workspace.path(), arguments);
    assert_eq!(
        run(&["ansible-playbook"]),
        Err("ansible-playbook is not in [allow].programs of plugins/x.toml".to_owned())
    );
    assert!(run(&["/bin/true"]).is_err_and(|error| error.contains("is not a program's bare name")));
    for name in ["PATH", "LD_PRELOAD", "BASH_ENV", "ENV", "PYTHONPATH", "GIT_DIR", "FORGE_TASK"] {
        assert_eq!(run(&["true", name]), Err(format!("{name} is set by the host alone, not by a plugin")));
    }
    assert!(run(&["true", "A=B"]).is_err_and(|error| error.contains("a name has no `=`")));
    assert!(run(&["true", "A", ".."]).is_err());
    assert!(run(&["true", "A", "/"]).is_err());
    assert_eq!(run(&["true", "A", "gone"]), Err("gone in the workspace".to_owned()));
    let too_long = answer(&load("long-arguments"), &seen, workspace.path(), &[]).expect_err("ten megabytes");
    assert!(too_long.contains("write a file instead"), "{too_long}");
    assert!(seen.commands.lock().expect("nobody panics with it").is_empty());

    assert_eq!(run(&["true", "A", "folder"]), Ok("hostile".to_owned()));
    assert_eq!(run(&["true"]), Ok("hostile".to_owned()));
    let commands = seen.commands.lock().expect("nobody panics with it");
    let [first, second] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(first.env, [("A".to_owned(), "hostile".to_owned())]);
    assert_eq!(first.cwd, workspace.path().join("folder"));
    assert_eq!(second.cwd, workspace.path());
}
