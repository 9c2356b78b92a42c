//! Many tasks on a few runners: each runs once, on a runner with its tag, within the limits.

use std::collections::BTreeMap;

use crate::harness::{World, wait_for};

/// Complaint 12 (no routing by tag without paying): a template's tag alone says which runners take its tasks.
#[test]
fn a_hundred_tasks_on_three_runners_each_run_once_within_tags_and_limits() {
    let world = World::new();
    let ran = world.path("ran");
    std::fs::create_dir(&ran).expect("a folder");
    for (name, tags, limit) in [("east-1", "[\"east\"]", 2), ("east-2", "[\"east\"]", 3), ("west-1", "[\"west\"]", 4)] {
        world.write(&format!("runners/{name}.toml"), &format!("tags = {tags}\nmax_parallel_tasks = {limit}\n"));
    }
    // Each attempt leaves a line of its own, and how many of its runner's were open when it began.
    let script = format!(
        "echo \"$FORGE_RUNNER\" >> {ran}/$FORGE_TASK\ntouch {ran}/open.$FORGE_RUNNER.$FORGE_TASK\n\
         ls {ran} | grep -c \"^open.$FORGE_RUNNER\\.\" >> {ran}/seen.$FORGE_RUNNER\nsleep 0.05\nrm {ran}/open.$FORGE_RUNNER.$FORGE_TASK",
        ran = ran.display()
    );
    world.template("east", "runner_tag = \"east\"\nconcurrency = \"parallel\"\n", &script);
    world.template("west", "runner_tag = \"west\"\nconcurrency = \"parallel\"\n", &script);
    let daemon = world.daemon();
    let _runners: Vec<_> =
        ["east-1", "east-2", "west-1"].into_iter().map(|name| world.runner(&daemon, name, "")).collect();
    let numbers: Vec<(u64, &str)> = (0..100)
        .map(|index| if index % 2 == 0 { "east" } else { "west" })
        .map(|template| (world.start_task(&daemon, template), template))
        .collect();
    wait_for("all hundred have succeeded", || {
        let listed =
            world.ask(&daemon, &["task", "list", "--state", "succeeded", "--limit", "200", "--output", "json"]);
        (listed.json()["items"].as_array()?.len() == 100).then_some(())
    });
    let mut by_runner: BTreeMap<String, u32> = BTreeMap::new();
    for (number, template) in numbers {
        let lines = std::fs::read_to_string(ran.join(number.to_string())).expect("the task ran");
        let runners: Vec<&str> = lines.lines().collect();
        assert_eq!(runners.len(), 1, "task {number} ran once: {runners:?}");
        assert!(runners[0].starts_with(template), "task {number} needs {template} and ran on {}", runners[0]);
        assert_eq!(world.task(&daemon, number)["attempt"], 1);
        *by_runner.entry(runners[0].to_owned()).or_default() += 1;
    }
    assert_eq!(by_runner.len(), 3, "every runner got work: {by_runner:?}");
    for (runner, limit) in [("east-1", 2), ("east-2", 3), ("west-1", 4)] {
        let seen = std::fs::read_to_string(ran.join(format!("seen.{runner}"))).expect("it ran something");
        let most: u32 = seen.lines().map(|line| line.parse().expect("a number")).max().expect("a line");
        assert!(most <= limit, "{runner} ran {most} at a time, its limit is {limit}");
    }
}

/// A runner's token and key on a second machine: who comes second is told so and leaves, and the first one works on.
#[test]
fn a_cloned_runner_is_told_that_another_one_is_there_and_leaves() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    let daemon = world.daemon();
    let _first = world.runner(&daemon, "ny-1", "");
    world.wait_runner(&daemon, "ny-1", "online");

    let settings = world.runner_settings(&daemon, "clone", "");
    let text = std::fs::read_to_string(&settings).expect("its runner.toml");
    std::fs::write(&settings, text.replace("name = \"clone\"", "name = \"ny-1\"")).expect("written");
    std::fs::create_dir(world.path("clone/tmp")).expect("a folder");
    for file in ["token", "private.key", "tmp/daemon.key"] {
        std::fs::copy(world.path("ny-1").join(file), world.path("clone").join(file)).expect(file);
    }
    let mut clone = world.start_runner("clone");
    assert_eq!(clone.process.wait("the clone leaves").code(), Some(1));
    let said = clone.process.stderr();
    assert!(said.contains("\"ny-1\" is already connected with another session"), "{said}");

    let task = world.start_task(&daemon, "hello");
    assert_eq!(world.wait_state(&daemon, task, "succeeded")["runner"], "ny-1");
    assert!(!world.path("clone/tmp/attempts").join(format!("{task}-1")).exists(), "the clone began nothing");
}
