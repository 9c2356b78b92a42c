//! The key that the daemon signs jobs with: how it changes, and how it does not.

use crate::harness::{World, free_port, utf8, wait_for};

const HELLO: &str = "echo hello";

/// A world whose daemon keeps its port over a restart.
fn world() -> World {
    let world = World::new();
    world.template("on-one", "runner_tag = \"one\"\nqueue_timeout = \"1m\"\n", HELLO);
    world.template("on-two", "runner_tag = \"two\"\nqueue_timeout = \"1m\"\n", HELLO);
    world.write("runners/one.toml", "tags = [\"one\"]\n");
    world.write("runners/two.toml", "tags = [\"two\"]\n");
    world.daemon_settings_on(free_port());
    world
}

fn pinned(world: &World, runner: &str) -> String {
    std::fs::read_to_string(world.path(runner).join("tmp/daemon.key")).expect("it pinned a key")
}

fn rotate(world: &World) {
    let settings = world.path("forge.toml");
    let done = world.run(&["daemon", "rotate-signing-key", "--config", utf8(&settings)]).expect_code(0);
    assert!(done.stderr.contains("systemctl restart forge-daemon"), "{}", done.stderr);
}

#[test]
fn a_rotated_signing_key_is_followed_by_runners_that_stay_and_by_one_that_was_away() {
    let world = world();
    let daemon = world.daemon();
    let _one = world.runner(&daemon, "one", "");
    let two = world.runner(&daemon, "two", "");
    for name in ["one", "two"] {
        world.wait_runner(&daemon, name, "online");
    }
    let first = pinned(&world, "one");
    assert_eq!(pinned(&world, "two"), first);
    assert!(two.stop().success());

    // Twice, while the second runner is away.
    for _ in 0..2 {
        rotate(&world);
    }
    assert!(daemon.stop().success());
    let daemon = world.daemon();
    let number = world.start_task(&daemon, "on-one");
    world.wait_state(&daemon, number, "succeeded");
    let second = pinned(&world, "one");
    assert_ne!(second, first, "it goes over to the new key");
    let two = world.start_runner("two");
    let number = world.start_task(&daemon, "on-two");
    world.wait_state(&daemon, number, "succeeded");
    assert_eq!(pinned(&world, "two"), second);
    assert!(two.process.stderr().contains("vouches for"), "it says so: {}", two.process.stderr());

    // A runner that registers again follows, too.
    assert!(two.stop().success());
    rotate(&world);
    assert!(daemon.stop().success());
    let _daemon = world.daemon();
    world.register(&world.path("two/runner.toml")).expect_code(0);
    assert_ne!(pinned(&world, "two"), second);
}

#[test]
fn a_key_that_the_pinned_one_does_not_vouch_for_is_refused_and_the_task_says_so() {
    let world = world();
    let daemon = world.daemon();
    let one = world.runner(&daemon, "one", "");
    world.wait_runner(&daemon, "one", "online");
    assert!(one.stop().success());
    let pin = world.path("one/tmp/daemon.key");
    // As if the daemon had been set up anew, or somebody stood between.
    std::fs::write(&pin, "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n").expect("written");
    let one = world.start_runner("one");
    let number = world.start_task(&daemon, "on-one");
    let task = world.wait_state(&daemon, number, "failed");
    let reason = task["reason"].as_str().expect("a reason");
    assert!(reason.contains("one refused the job") && reason.contains("daemon.key"), "{reason}");
    wait_for("the runner's own log says it", || one.process.stderr().contains("job refused").then_some(()));
    assert!(one.stop().success());

    let settings = world.path("one/runner.toml");
    let refused = world.register(&settings).expect_code(1).stderr;
    assert!(refused.contains("daemon.key") && refused.contains("remove this file"), "{refused}");
    std::fs::remove_file(&pin).expect("removed");
    world.register(&settings).expect_code(0);
    let _one = world.start_runner("one");
    let number = world.start_task(&daemon, "on-one");
    world.wait_state(&daemon, number, "succeeded");
}
