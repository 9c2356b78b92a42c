//! `examples/python-tools`, for real: a git repository with a tool, a runner, and an environment that the second task finds made. What the
//! tool requires comes from a folder of packages, where a stand-in of its own has the name of the real one: no index is asked.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::ansible::{commit, copy, git};
use crate::harness::{Daemon, Finished, World, need, utf8, wait_for};

/// Writes a wheel of `tabulate` into a folder: one function, which prints what it got.
const WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(f"{sys.argv[1]}/tabulate-0.9.0-py3-none-any.whl", "w") as wheel:
    info = "tabulate-0.9.0.dist-info"
    wheel.writestr("tabulate.py", "def tabulate(rows, headers, tablefmt):\n    return f'{tablefmt}: {headers} {rows}'\n")
    wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tabulate\nVersion: 0.9.0\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "")
"#;

/// Copies an example into the world's tree; its folder `repository` becomes a git repository, which the tree names. Answers that folder.
pub(crate) fn example(world: &World, name: &str, repository: &str) -> PathBuf {
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name), &world.path("tree"));
    let origin = world.path("origin");
    std::fs::rename(world.path("tree/repository"), &origin).expect("the repository moves out of the tree");
    git(&origin, &["init", "--quiet", "--initial-branch=main"]);
    commit(&origin);
    world.write(
        &format!("projects/{repository}.toml"),
        &format!("url = \"file://{}\"\nbranch = \"main\"\n", origin.display()),
    );
    origin
}

/// Runs a template to its end; answers the task and its log.
fn run(world: &World, daemon: &Daemon, arguments: &[&str], code: i32) -> (Value, String) {
    let done: Finished = world.ask(daemon, &[&["run"], arguments, &["--output", "json"]].concat()).expect_code(code);
    (done.json(), done.stderr)
}

#[test]
fn a_tool_s_environment_is_made_once_and_found_by_the_next_task() {
    need("python3", "python3");
    let world = World::new();
    let origin = example(&world, "python-tools", "tools/repositories/tools");
    let packages = world.path("packages");
    std::fs::create_dir(&packages).expect("a folder");
    let made = Command::new("python3").args(["-c", WHEEL, utf8(&packages)]).status().expect("python3 runs");
    assert!(made.success());
    world.write(
        "projects/tools/environments/production.toml",
        &format!("[env]\nREPORT_TITLE = \"Disks here\"\nPIP_NO_INDEX = \"1\"\nPIP_FIND_LINKS = {packages:?}\n"),
    );
    let daemon = world.daemon();
    let runner = world.runner(&daemon, "tools-1", "");

    let (task, log) = run(&world, &daemon, &["tools/report"], 0);
    assert_eq!((&task["runner"], &task["summary"]["environment"]), (&json!("tools-1"), &json!("made")), "{log}");
    assert!(task["summary"]["python"].as_str().is_some_and(|version| version.starts_with("3.")), "{task}");
    assert!(log.contains("Disks here\ngithub: ['folder', 'size', 'used'] [['/', '"), "{log}");

    // The packages are gone, and so is the runner's process: what is on its disk is enough.
    std::fs::remove_dir_all(&packages).expect("removed");
    assert_eq!(runner.stop().code(), Some(0));
    let _runner = world.start_runner("tools-1");
    let (task, log) = run(&world, &daemon, &["tools/report", "--var", "format=grid"], 0);
    assert_eq!(task["summary"]["environment"], "kept", "{log}");
    assert!(log.contains("Disks here\ngrid: "), "{log}");

    // Other requirements are another environment, which cannot be made any more; the task says so in pip's words.
    std::fs::write(origin.join("requirements.txt"), "tabulate==0.9.1\n").expect("a file");
    commit(&origin);
    let (task, log) = run(&world, &daemon, &["tools/report"], 1);
    let reason = task["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("pip could not install the requirements"), "{reason}\n{log}");
    assert!(reason.contains("No matching distribution found for tabulate==0.9.1"), "{reason}");

    let (task, log) = run(&world, &daemon, &["tools/report-as-json"], 0);
    assert_eq!(task["summary"].get("environment"), None, "it requires nothing");
    let report = log.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()).expect("a line of JSON");
    assert!(report["total"].as_u64() > report["free"].as_u64(), "{report}");
}

#[test]
fn a_canceled_tool_ends_and_its_exit_code_is_the_task_s() {
    need("python3", "python3");
    let world = World::new();
    world.write("plugins/python.toml", "source = \"builtin:python\"\n[allow]\nprograms = [\"python3\"]\n");
    let template = |name: &str, script: &str| {
        world.write(
            &format!("projects/shop/templates/{name}.toml"),
            &format!("executor = \"python\"\n[params]\nscript = '''\n{script}\n'''\n"),
        );
    };
    template("seven", "import sys\nprint('to stderr', file=sys.stderr)\nsys.exit(7)");
    template("for-ever", "import signal\nprint('begun')\nsignal.pause()");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let (task, log) = run(&world, &daemon, &["shop/seven"], 1);
    assert_eq!((&task["reason"], &task["exit_code"]), (&json!("exit code 7"), &json!(7)));
    assert!(log.contains("to stderr\n"), "{log}");
    let number = world.start_task(&daemon, "for-ever");
    wait_for("it has begun", || String::from_utf8_lossy(&world.log(&daemon, number)).contains("begun\n").then_some(()));
    world.ask(&daemon, &["task", "cancel", &number.to_string()]).expect_code(0);
    world.wait_state(&daemon, number, "canceled");
}
