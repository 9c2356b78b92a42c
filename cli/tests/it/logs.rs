//! Logs: whole, in order, byte for byte.

use forge_runner::trust::{Trust, http_client};

use crate::harness::World;

#[test]
fn two_hundred_thousand_lines_arrive_whole_and_in_order() {
    let world = World::new();
    world.template("flood", "", "seq 1 200000");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let followed = world.ask(&daemon, &["run", "shop/flood"]).expect_code(0);
    let expected: String = (1..=200_000).map(|line| format!("{line}\n")).collect();
    assert!(followed.stdout == expected.as_bytes(), "the followed log differs: {} bytes", followed.stdout.len());
    assert!(world.log(&daemon, 1) == expected.as_bytes(), "the kept log differs");
}

#[test]
fn a_log_holds_the_process_s_exact_bytes() {
    let world = World::new();
    world.template(
        "bytes",
        "",
        "printf '\\000\\377\\033[31mred\\r\\n'; printf 'no end of line'; printf 'to stderr' >&2",
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let done = world.ask(&daemon, &["run", "shop/bytes"]).expect_code(0);
    assert_eq!(done.stdout, b"\x00\xff\x1b[31mred\r\nno end of lineto stderr");
}

/// Complaint 13 (logs lag by minutes): what is printed is there while the process still runs.
#[test]
fn a_line_is_seen_while_the_task_still_runs() {
    let world = World::new();
    let go = world.path("go");
    world.template("wait", "", &format!("echo early; until [ -e {} ]; do sleep 0.02; done; echo late", go.display()));
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "wait");
    crate::harness::wait_for("the early line", || {
        let log = world.ask(&daemon, &["task", "log", &number.to_string()]);
        (log.stdout == b"early\n").then_some(())
    });
    assert_eq!(world.task(&daemon, number)["state"], "running");
    std::fs::write(&go, "").expect("go");
    world.wait_state(&daemon, number, "succeeded");
    assert_eq!(world.log(&daemon, number), b"early\nlate\n");
}

/// Complaint 13 (logs lag by minutes): a reader that takes nothing slows no process. More is printed than fits between the two.
#[test]
fn a_follower_that_never_reads_does_not_slow_the_job() {
    const LOG_BYTES: u64 = 32 << 20;
    let world = World::new();
    let go = world.path("go");
    world.template(
        "flood",
        "",
        &format!(
            "echo early; until [ -e {} ]; do sleep 0.02; done; head -c {LOG_BYTES} /dev/zero | tr '\\0' x",
            go.display()
        ),
    );
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    let number = world.start_task(&daemon, "flood");
    let client = http_client(&Trust::CaFile(daemon.ca_file.clone())).expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let follow = format!("{}/api/v1/tasks/{number}/log?follow=true", daemon.api);
    crate::harness::wait_for("the early line", || (world.log(&daemon, number) == b"early\n").then_some(()));
    // Its first line is there, and then nobody drives this runtime: what comes lies in the connection until that is full.
    let follower = runtime.block_on(async {
        let mut answer = client.get(follow).bearer_auth(world.admin_token()).send().await.expect("an answer");
        let first = answer.chunk().await.expect("a body");
        assert_eq!(first.as_deref(), Some(&b"early\n"[..]));
        answer
    });
    std::fs::write(&go, "").expect("go");
    let task = world.wait_state(&daemon, number, "succeeded");
    assert_eq!(task["log_bytes"].as_u64(), Some(6 + LOG_BYTES), "all of it was printed and kept");
    drop((follower, runtime));
}
