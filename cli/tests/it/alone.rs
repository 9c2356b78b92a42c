//! `use_remote_runner = false`: the daemon alone runs tasks, through the API and the code of any other runner.

use crate::harness::{World, free_port, wait_for};

#[test]
fn a_daemon_alone_runs_tasks() {
    let world = World::new();
    world.daemon_settings("use_remote_runner = false");
    world.template("hello", "", "echo \"hello from $FORGE_RUNNER\"");
    let daemon = world.daemon();
    let done = world.ask(&daemon, &["run", "shop/hello"]).expect_code(0);
    assert_eq!(done.text(), "hello from local\n");
    let shown = world.ask(&daemon, &["runners", "show", "local", "--output", "json"]).expect_code(0).json();
    assert_eq!(shown["status"], "online");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn its_task_outlives_a_killed_daemon() {
    let world = World::new();
    let go = world.path("go");
    world.daemon_settings_of(free_port(), "use_remote_runner = false");
    world.template("wait", "", &format!("echo begun; until [ -e {} ]; do sleep 0.02; done; echo ended", go.display()));
    let mut daemon = world.daemon();
    let number = world.start_task(&daemon, "wait");
    wait_for("the log has begun", || (world.task(&daemon, number)["log_bytes"].as_u64()? > 0).then_some(()));
    daemon.process.kill_hard();
    let daemon = world.daemon();
    std::fs::write(&go, "").expect("go");
    let task = world.wait_state(&daemon, number, "succeeded");
    assert_eq!(task["attempt"], 1, "{task}");
    assert_eq!(world.log(&daemon, number), b"begun\nended\n");
}
