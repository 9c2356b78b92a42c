//! `forge demo`: what a newcomer sees first.

use crate::harness::{Finished, Process, World, wait_for};

#[test]
fn the_demo_runs_the_main_job_and_exits_0() {
    let world = World::new();
    let done = Finished::of(world.forge(&["demo"]), b"").expect_code(0);
    let shown = format!("{}{}", done.text(), done.stderr);
    for expected in ["daemon", "registered", "demo/hello", "demo/from-git", "succeeded", "--keep"] {
        assert!(shown.contains(expected), "{expected:?} is missing:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "no colours and no spinner where there is no terminal:\n{shown}");
}

#[test]
fn the_demo_keeps_serving_when_asked_and_stops_on_a_signal() {
    let world = World::new();
    let mut demo = Process::start(world.forge(&["demo", "--keep"]), &world.path("out"), "demo");
    let value = |name: &str| {
        let marker = format!("{name}=");
        wait_for(&format!("the demo prints {name}"), || {
            let text = format!("{}{}", demo.stderr(), std::fs::read_to_string(world.path("out/demo.stdout")).ok()?);
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("export ")?.strip_prefix(&marker).map(str::to_owned))?;
            Some(line.trim_matches(['\'', '"']).to_owned())
        })
    };
    let mut command = world.forge(&["run", "demo/hello", "--var", "name=Ada"]);
    command
        .env("FORGE_URL", value("FORGE_URL"))
        .env("FORGE_TOKEN", value("FORGE_TOKEN"))
        .env("FORGE_CA_FILE", value("FORGE_CA_FILE"));
    let done = Finished::of(command, b"").expect_code(0);
    assert!(done.text().contains("Ada"), "{}", done.text());
    demo.signal("INT");
    assert_eq!(demo.wait("the demo stops").code(), Some(0), "{}", demo.stderr());
}
