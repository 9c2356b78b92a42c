//! A stop that stops: every descendant ends, whatever it tries.

use crate::harness::{World, is_alive, pids_in, wait_for};

/// Complaint 6 (stop kills the top process only): the same through the real daemon.
#[test]
fn a_cancel_ends_every_descendant_setsid_escapees_and_term_ignorers_included() {
    let world = World::new();
    let pids = world.path("pids");
    let pids_shown = pids.display();
    world.template(
        "stubborn",
        "",
        &format!(
            "trap '' TERM\n\
             echo $$ > {pids_shown}.new\n\
             sleep 100000 & echo $! >> {pids_shown}.new\n\
             setsid sh -c 'trap \"\" TERM; echo $$ >> {pids_shown}.new; exec sleep 100000' &\n\
             (setsid sh -c 'sleep 100000 & echo $! >> {pids_shown}.new' &)\n\
             while [ \"$(wc -l < {pids_shown}.new)\" -lt 4 ]; do sleep 0.02; done\n\
             mv {pids_shown}.new {pids_shown}; wait; sleep 100000"
        ),
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "stubborn");
    let found = pids_in(&pids);
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|pid| is_alive(*pid)), "{found:?}");
    world.ask(&daemon, &["task", "cancel", &number.to_string()]).expect_code(0);
    let task = world.wait_state(&daemon, number, "canceled");
    assert!(task["reason"].as_str().expect("a reason").contains("admin"), "who canceled it: {task}");
    // The daemon may end the task before its runner has: the report says when nothing is left.
    wait_for("no process of the job is left", || found.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

#[test]
fn a_queued_task_is_canceled_at_once_and_why_says_what_it_waited_for() {
    let world = World::new();
    world.template("tagged", "runner_tag = \"new-york\"\n", "echo never");
    let daemon = world.daemon();
    let number = world.start_task(&daemon, "tagged").to_string();
    let why = world.ask(&daemon, &["task", "why", &number]).expect_code(0).text();
    assert!(why.contains("new-york"), "{why}");
    world.ask(&daemon, &["task", "cancel", &number]).expect_code(0);
    assert_eq!(world.task(&daemon, 1)["state"], "canceled");
    let again = world.ask(&daemon, &["task", "cancel", &number]);
    assert!(again.stderr.contains("canceled") || again.status.success(), "{}", again.stderr);
}

#[test]
fn an_attempt_that_takes_too_long_times_out() {
    let world = World::new();
    world.template("slow", "timeout = \"1s\"\n", "echo begun; sleep 100000");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/slow", "--output", "json"]).expect_code(1).json();
    assert_eq!(done["state"], "timed_out", "{done}");
    assert!(done["reason"].as_str().expect("a reason").contains("1 s"), "{done}");
}

#[test]
fn background_processes_of_a_finished_job_are_ended_too() {
    let world = World::new();
    let pid_file = world.path("pid");
    world.template(
        "leaves",
        "",
        &format!("setsid sleep 100000 >/dev/null 2>&1 & echo $! > {}; echo done", pid_file.display()),
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/leaves"]).expect_code(0);
    assert!(done.text().contains("done\n"));
    let pid: u32 = std::fs::read_to_string(&pid_file).expect("written").trim().parse().expect("a pid");
    wait_for("the left process is gone", || (!is_alive(pid)).then_some(()));
}
