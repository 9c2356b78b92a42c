//! Whatever dies, the task goes on or ends, and its log has every byte once.

use crate::harness::{World, free_port, is_alive, wait_for};

/// A script that prints numbered lines until the file `go` appears, then ten more, then ends.
fn counting_script(go: &std::path::Path) -> String {
    format!(
        "i=0; while [ ! -e {go} ]; do i=$((i+1)); echo \"line $i\"; sleep 0.02; done\n\
         for j in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1)); echo \"line $i\"; done; echo \"last $i\"",
        go = go.display()
    )
}

fn assert_counts(log: &[u8]) {
    let text = std::str::from_utf8(log).expect("text");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line ")).collect();
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {}", index + 1), "every line once and in order");
    }
    assert!(
        text.ends_with(&format!("last {}\n", lines.len())),
        "the log is whole: {}",
        &text[text.len().saturating_sub(200)..]
    );
}

#[test]
fn a_killed_daemon_comes_back_and_the_task_goes_on_with_every_byte_once() {
    let world = World::new();
    let go = world.path("go");
    world.template("count", "", &counting_script(&go));
    // The same port after the restart: a runner knows one address.
    let port = free_port();
    world.daemon_settings_on(port);
    let mut daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "count");
    wait_for("the log has begun", || (world.task(&daemon, number)["log_bytes"].as_u64()? > 100).then_some(()));

    daemon.process.kill_hard();
    let daemon = world.daemon();
    let after = world.task(&daemon, number);
    assert_eq!(after["state"], "running", "{after}");
    assert_eq!(after["attempt"], 1, "the same attempt goes on: {after}");
    let before = after["log_bytes"].as_u64().expect("a length");
    wait_for("the log grows again", || (world.task(&daemon, number)["log_bytes"].as_u64()? > before).then_some(()));
    std::fs::write(&go, "").expect("go");
    let task = world.wait_state(&daemon, number, "succeeded");
    let log = world.log(&daemon, number);
    assert_eq!(task["log_bytes"].as_u64(), Some(log.len() as u64));
    assert_counts(&log);
}

#[test]
fn a_task_whose_runner_is_killed_ends_as_lost_and_its_processes_are_gone() {
    let world = World::new();
    let pids = world.path("pids");
    world.template(
        "forever",
        "runner_grace = \"2s\"\n",
        &format!(
            "sleep 100000 & echo $! > {pids}.new; echo $$ >> {pids}.new; mv {pids}.new {pids}; wait",
            pids = pids.display()
        ),
    );
    let daemon = world.daemon();
    let mut runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "forever");
    let found: Vec<u32> = wait_for("the job's processes are known", || {
        let text = std::fs::read_to_string(&pids).ok()?;
        Some(text.lines().map(|line| line.parse().expect("a pid")).collect())
    });
    assert!(found.iter().all(|pid| is_alive(*pid)), "{found:?}");

    runner.process.kill_hard();
    let task = world.wait_state(&daemon, number, "lost");
    assert!(task["reason"].as_str().expect("a reason").contains("ny-1"), "{task}");
    wait_for("no process of the job is left", || found.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

#[test]
fn a_restarted_runner_attaches_to_its_attempt() {
    let world = World::new();
    let go = world.path("go");
    world.template("count", "", &counting_script(&go));
    let daemon = world.daemon();
    let mut runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "count");
    wait_for("the log has begun", || (world.task(&daemon, number)["log_bytes"].as_u64()? > 100).then_some(()));
    runner.process.kill_hard();
    let _runner = world.start_runner("ny-1");
    let before = world.task(&daemon, number)["log_bytes"].as_u64().expect("a length");
    wait_for("the log grows again", || (world.task(&daemon, number)["log_bytes"].as_u64()? > before).then_some(()));
    std::fs::write(&go, "").expect("go");
    let task = world.wait_state(&daemon, number, "succeeded");
    assert_eq!(task["attempt"], 1, "{task}");
    assert_counts(&world.log(&daemon, number));
}
