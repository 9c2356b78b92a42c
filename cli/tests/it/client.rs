//! The client: listings, `--output json`, why, retry, exit codes and messages.

use crate::harness::World;

#[test]
fn listings_have_the_shape_that_tools_rely_on() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    world.write("runners/declared.toml", "tags = [\"east\"]\nmax_parallel_tasks = 2\n");
    let daemon = world.daemon();
    let _runner = world.runner(&daemon, "ny-1", "");
    for _ in 0..3 {
        world.ask(&daemon, &["run", "shop/hello"]).expect_code(0);
    }
    let page = world.ask(&daemon, &["task", "list", "--limit", "2", "--output", "json"]).expect_code(0).json();
    let numbers: Vec<u64> =
        page["items"].as_array().expect("items").iter().filter_map(|task| task["number"].as_u64()).collect();
    assert_eq!(numbers, [3, 2], "newest first");
    assert!(page["next_cursor"].is_string(), "{page}");
    let all = world.ask(&daemon, &["task", "list", "--output", "json"]).expect_code(0).json();
    assert!(all["next_cursor"].is_null(), "{all}");
    let none = world.ask(&daemon, &["task", "list", "--state", "failed", "--output", "json"]).expect_code(0).json();
    assert_eq!(none["items"], serde_json::json!([]));
    let wrong = world.ask(&daemon, &["task", "list", "--state", "done"]).expect_code(2).stderr;
    assert!(wrong.contains("succeeded"), "it names the states: {wrong}");

    let runners = world.ask(&daemon, &["runners", "list", "--output", "json"]).expect_code(0).json();
    let items = runners["items"].as_array().expect("items");
    let declared = items.iter().find(|runner| runner["name"] == "declared").expect("declared");
    assert_eq!(declared["status"], "never_connected");
    assert_eq!(declared["tags"], serde_json::json!(["east"]));
    assert_eq!(declared["max_parallel_tasks"], 2);
    let online = items.iter().find(|runner| runner["name"] == "ny-1").expect("ny-1");
    for key in [
        "project",
        "tags",
        "status",
        "running",
        "max_parallel_tasks",
        "version",
        "last_contact_at",
        "health",
        "public_key",
    ] {
        assert!(online.get(key).is_some(), "{key} is missing in {online}");
    }
    assert_eq!(online["status"], "online");
    assert!(online["health"]["memory_bytes_free"].as_u64().expect("a number") > 0);

    let text = world.ask(&daemon, &["task", "list"]).expect_code(0).text();
    assert!(text.lines().count() == 4 && text.contains("shop/hello"), "{text}");
    let text = world.ask(&daemon, &["runners", "list"]).expect_code(0).text();
    assert!(text.contains("never_connected") && text.contains("ny-1"), "{text}");
}

/// More than a page: the client goes on where each ends.
#[test]
fn listings_that_are_longer_than_a_page_come_whole() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    for number in 0..250 {
        world.write(&format!("runners/ny-{number}.toml"), "");
        let schedule = "cron = \"0 3 * * *\"\ntemplate = \"hello\"\n";
        world.write(&format!("projects/shop/schedules/nightly-{number}.toml"), schedule);
    }
    let daemon = world.daemon();
    for listing in [["runners", "list"], ["schedule", "list"]] {
        let asked = [&listing[..], &["--output", "json"]].concat();
        let page = world.ask(&daemon, &asked).expect_code(0).json();
        let names: std::collections::BTreeSet<&str> =
            page["items"].as_array().expect("items").iter().filter_map(|item| item["name"].as_str()).collect();
        assert_eq!((names.len(), &page["next_cursor"]), (250, &serde_json::Value::Null), "{listing:?}");
    }
}

#[test]
fn why_names_the_runners_that_could_and_what_keeps_each() {
    let world = World::new();
    world.template("tagged", "runner_tag = \"new-york\"\n", "echo hello");
    world.write("runners/ny-1.toml", "tags = [\"new-york\"]\n");
    world.write("runners/ny-2.toml", "tags = [\"new-york\"]\nenabled = false\n");
    let daemon = world.daemon();
    world.start_task(&daemon, "tagged");
    let why = world.ask(&daemon, &["task", "why", "1"]).expect_code(0).text();
    for expected in ["new-york", "ny-1", "ny-2", "runners/ny-2.toml"] {
        assert!(why.contains(expected), "{expected:?} is missing:\n{why}");
    }
    let why = world.ask(&daemon, &["task", "why", "1", "--output", "json"]).expect_code(0).json();
    assert_eq!(why["state"], "queued");
    assert!(why["deadline"].is_string(), "nothing waits forever: {why}");
}

#[test]
fn what_is_not_there_and_who_may_not_are_said_plainly() {
    let world = World::new();
    world.template("hello", "", "echo hello");
    let (viewer, hash) = world.new_token();
    world.write("access/viewer.toml", &format!("hash = \"{hash}\"\nrole = \"viewer\"\n"));
    let daemon = world.daemon();
    let missing = world.ask(&daemon, &["task", "show", "99"]).expect_code(1).stderr;
    assert!(missing.contains("99"), "{missing}");
    let wrong = world.ask(&daemon, &["run", "hello"]).expect_code(2).stderr;
    assert!(wrong.contains("PROJECT/TEMPLATE"), "{wrong}");
    let mut command = world.client(&daemon, &["run", "shop/hello"]);
    command.env("FORGE_TOKEN", &viewer);
    let refused = crate::harness::Finished::of(command, b"").expect_code(1).stderr;
    assert!(refused.contains("viewer") && refused.contains("operator"), "{refused}");
    let mut command = world.client(&daemon, &["task", "list"]);
    command.env("FORGE_TOKEN", "wrong");
    let refused = crate::harness::Finished::of(command, b"").expect_code(1).stderr;
    assert!(refused.contains("token"), "{refused}");
    let unnamed = world.run(&["task", "list"]).expect_code(2).stderr;
    assert!(unnamed.contains("FORGE_URL"), "{unnamed}");
}

#[test]
fn a_new_token_comes_with_the_hash_to_commit() {
    let world = World::new();
    let new = world.run(&["token", "new", "--output", "json"]).expect_code(0).json();
    let token = new["token"].as_str().expect("a token");
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(new["hash"], format!("sha256:{hex}"));
    assert!(token.len() >= 43, "256 bits: {token}");
    assert_eq!(new.as_object().map(serde_json::Map::len), Some(2));
}

/// What the daemon puts off with 429 the client repeats when it may: eight at once are more than a burst of five.
#[test]
fn a_client_that_asks_too_much_waits_for_its_turn() {
    let world = World::new();
    world.daemon_settings("[limits]\nrequests_per_second = 1\n");
    let daemon = world.daemon();
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            (0..8).map(|_| scope.spawn(|| world.ask(&daemon, &["task", "list", "--output", "json"]))).collect();
        for asked in asked {
            let listing = asked.join().expect("no panic").expect_code(0).json();
            assert_eq!(listing["items"], serde_json::json!([]));
        }
    });
    assert!(daemon.stop().success());
}
