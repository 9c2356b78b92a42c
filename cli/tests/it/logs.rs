//! Logs: whole, in order, byte for byte.

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
