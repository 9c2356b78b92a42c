//! A plan that waits for a person, with a plugin out of the tree, real runners and a daemon that dies meanwhile.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Daemon, Finished, World, free_port, wait_for};
use crate::packed::component;

/// What the plugin runs, in each attempt: without a plan it makes one, with it it does that.
pub(crate) const SCRIPT: &str = "if [ -e plan ]; then echo \"$FORGE_RUNNER does: $(cat plan)\"; stat -c %a plan; \
                      else echo \"greet from $FORGE_RUNNER, password $PASSWORD\" > plan; echo planned; fi";

/// A world whose template `greet` plans with the guest `planner`; `more` goes into the template.
pub(crate) fn world(more: &str) -> World {
    let world = World::new();
    let wasm = component(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), "planner");
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &wasm);
    let sha256: String = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(world.path("tree/plugins/planner.wasm"), wasm).expect("the plugin");
    world.write(
        "plugins/planner.toml",
        &format!("source = \"plugins/planner.wasm\"\nsha256 = \"{sha256}\"\n[allow]\nprograms = [\"bash\"]\n"),
    );
    world.write("projects/shop/environments/live.toml", "[env]\nPASSWORD = \"hunter2\"\n");
    world.write(
        "projects/shop/templates/greet.toml",
        &format!("executor = \"planner\"\nenvironment = \"live\"\nallow_arguments = true\n{more}\n"),
    );
    world
}

pub(crate) fn start(world: &World, daemon: &Daemon) -> u64 {
    let arguments = ["run", "shop/greet", "--arg=bash", "--arg=-c", "--arg", SCRIPT, "--detach", "--output", "json"];
    world.ask(daemon, &arguments).expect_code(0).json()["number"].as_u64().expect("a number")
}

pub(crate) fn decide(world: &World, daemon: &Daemon, word: &str, number: u64, more: &[&str]) -> Finished {
    let number = number.to_string();
    world.ask(daemon, &[&["task", word, &number], more].concat())
}

/// What is left of what attempts carried.
fn carries(world: &World) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(world.path("data/carries")).expect("the folder");
    entries.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("read")).collect()
}

#[test]
fn what_one_runner_has_planned_another_does_once_a_person_has_said_so() {
    let world = world("");
    let port = free_port();
    world.daemon_settings_on(port);
    let mut daemon = world.daemon();
    let planning = world.runner(&daemon, "ny-1", "");
    let number = start(&world, &daemon);
    let task = world.wait_state(&daemon, number, "awaiting_approval");
    assert_eq!((task["summary"]["text"].as_str(), &task["reason"]), (Some("one thing to do"), &Value::Null), "{task}");
    let log = String::from_utf8(world.log(&daemon, number)).expect("text");
    assert!(log.starts_with("planned\n") && log.contains("[forge] waits for approval: one thing to do"), "{log}");
    // No slot is held: its runner stops at once, and is gone when the plan is done.
    assert_eq!(world.wait_runner(&daemon, "ny-1", "online")["running"], 0);
    assert_eq!(planning.stop().code(), Some(0));

    let why = world.ask(&daemon, &["task", "why", &number.to_string()]).expect_code(0).text();
    assert!(why.contains("one thing to do") && why.contains(&format!("forge task approve {number}")), "{why}");
    // What it carries is there, and says nothing.
    let [carry] = &carries(&world)[..] else { panic!("one plan waits") };
    assert!(!carry.windows(7).any(|bytes| bytes == b"hunter2" || bytes == b"ny-1, p"), "it is encrypted");

    // The daemon dies, and the plan waits on.
    daemon.process.kill_hard();
    let daemon = world.daemon();
    assert_eq!(world.task(&daemon, number)["state"], "awaiting_approval");
    let approved = decide(&world, &daemon, "approve", number, &["--reason", "looks right"]).expect_code(0);
    assert!(
        approved.stderr.contains("goes on with what attempt 1 has planned: one thing to do"),
        "{}",
        approved.stderr
    );

    let _doing = world.runner(&daemon, "ny-2", "");
    let task = world.wait_state(&daemon, number, "succeeded");
    assert_eq!((task["attempt"].as_u64(), task["runner"].as_str()), (Some(2), Some("ny-2")), "{task}");
    assert_eq!(task["approved"]["by"], "admin", "{task}");
    let log = String::from_utf8(world.log(&daemon, number)).expect("text");
    assert_eq!(
        log,
        "[forge] approved: going on with what attempt 1 has planned\n\
         ny-2 does: greet from ny-1, password hunter2\n600\n"
    );
    wait_for("nothing of the plan is left on the runner", || {
        let left = std::fs::read_dir(world.path("ny-2/tmp/attempts")).expect("the spool").count();
        (left == 0).then_some(())
    });
}

#[test]
fn a_runner_that_cannot_begin_with_a_plan_leaves_it_to_the_next() {
    let world = world("");
    let daemon = world.daemon();
    let planning = world.runner(&daemon, "ny-1", "");
    let number = start(&world, &daemon);
    world.wait_state(&daemon, number, "awaiting_approval");
    assert_eq!(planning.stop().code(), Some(0));
    // What another runner would fetch is not the plugin any more.
    let components = std::fs::read_dir(world.path("data/plugins")).expect("the plugins");
    let planner = std::fs::metadata(world.path("tree/plugins/planner.wasm")).expect("the plugin").len();
    let [component] = &components
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.metadata().is_ok_and(|found| found.len() == planner))
        .map(|entry| entry.path())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one component is the planner's")
    };
    std::fs::write(component, "damaged").expect("written");
    let failing = world.runner(&daemon, "ny-2", "");
    decide(&world, &daemon, "approve", number, &[]).expect_code(0);
    let attempts = wait_for("the runner reports that it cannot begin", || {
        let shown = world.ask(&daemon, &["task", "show", &number.to_string(), "--output", "json"]).json();
        (shown["state"] == "queued" && shown["attempt"] == 2).then_some(shown)
    });
    assert_eq!(attempts["approved"]["by"], "admin", "it needs no other word: {attempts}");
    assert_eq!(failing.stop().code(), Some(0));
    // The first one has the plugin, and the template no retry.
    let _doing = world.start_runner("ny-1");
    let task = world.wait_state(&daemon, number, "succeeded");
    assert_eq!(task["runner"], "ny-1", "{task}");
    let log = String::from_utf8(world.log(&daemon, number)).expect("text");
    assert!(log.ends_with("ny-1 does: greet from ny-1, password hunter2\n600\n"), "{log}");
}

#[test]
fn a_rejected_plan_and_one_that_nobody_wants_change_nothing() {
    let world = world("approval_timeout = \"1s\"");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let expired = start(&world, &daemon);
    let task = world.wait_state(&daemon, expired, "expired");
    assert_eq!(task["reason"], "nobody approved it within approval_timeout (1s)", "{task}");

    world.write(
        "projects/shop/templates/greet.toml",
        "executor = \"planner\"\nenvironment = \"live\"\nallow_arguments = true\n",
    );
    world.ask(&daemon, &["config", "apply"]).expect_code(0);
    let rejected = start(&world, &daemon);
    world.wait_state(&daemon, rejected, "awaiting_approval");
    let other = decide(&world, &daemon, "approve", rejected, &["--attempt", "3"]).expect_code(1).stderr;
    assert!(other.contains("waits with another plan, that of attempt 1"), "{other}");
    let said = decide(&world, &daemon, "reject", rejected, &["--reason", "not today"]).expect_code(0).stderr;
    assert!(said.contains("is canceled: nothing of its plan was done: one thing to do"), "{said}");
    let task = world.task(&daemon, rejected);
    assert_eq!(
        (task["state"].as_str(), task["reason"].as_str()),
        (Some("canceled"), Some("rejected by admin: not today"))
    );
    let late = decide(&world, &daemon, "approve", rejected, &[]).expect_code(1).stderr;
    assert!(late.contains("is canceled: nothing of it awaits approval") && late.contains("forge task retry"), "{late}");
}

#[test]
fn who_follows_a_run_is_told_that_it_waits_and_sees_it_go_on() {
    let world = world("");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let arguments = ["run", "shop/greet", "--arg=bash", "--arg=-c", "--arg", SCRIPT];
    let mut run = crate::harness::Process::start(world.client(&daemon, &arguments), &world.path("out"), "run");
    wait_for("it asks", || run.stderr().contains("forge task approve 1").then_some(()));
    decide(&world, &daemon, "approve", 1, &[]).expect_code(0);
    assert_eq!(run.wait("the run ends").code(), Some(0), "{}", run.stderr());
    let told = run.stderr();
    assert_eq!(told.matches("a person must approve what it has planned: one thing to do").count(), 1, "{told}");
    assert!(told.contains("attempt 2") && told.contains("task 1 succeeded"), "{told}");
}
