//! Schedules and integrations as their users meet them: what the command line shows of them, and over restarts.

use forge_runner::trust::{Trust, http_client};
use serde_json::{Value, json};

use crate::harness::{Daemon, World, wait_for};

/// Posts JSON to an integration; answers the status and what is said.
fn post(daemon: &Daemon, integration: &str, delivery: &str, body: &Value) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = http_client(&Trust::CaFile(daemon.ca_file.clone())).expect("a client");
    let request = client
        .post(format!("{}/hooks/shop/{integration}", daemon.api))
        .bearer_auth("hunter2-hunter2")
        .header("idempotency-key", delivery)
        .json(body);
    runtime.block_on(async {
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.expect("a body")).unwrap_or_default())
    })
}

fn items(world: &World, daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let page = world.ask(daemon, &[arguments, &["--output", "json"]].concat()).expect_code(0).json();
    page["items"].as_array().expect("a list").clone()
}

#[test]
fn schedules_are_listed_with_their_next_three_firings() {
    let world = World::new();
    world.template("nightly", "", "echo done");
    let cron = "template = \"nightly\"\ncron = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"\n";
    world.write("projects/shop/schedules/night.toml", cron);
    world.write("projects/shop/schedules/rests.toml", &format!("{cron}enabled = false\n"));
    let daemon = world.daemon();
    let found = wait_for("the schedules were looked at", || {
        let found = items(&world, &daemon, &["schedule", "list"]);
        (found.len() == 2).then_some(found)
    });
    assert_eq!((&found[0]["name"], &found[1]["name"]), (&"night".into(), &"rests".into()));
    let next: Vec<&str> =
        found[0]["next"].as_array().expect("a list").iter().map(|moment| moment.as_str().expect("a time")).collect();
    assert_eq!(next.len(), 3, "{next:?}");
    assert!(next.is_sorted() && next.iter().all(|moment| moment.contains(":30:00")), "{next:?}");
    assert_eq!(found[1]["next"], json!([]), "one that rests fires never");
    let shown = world.ask(&daemon, &["schedule", "list"]).expect_code(0).text();
    for word in ["shop/night", "30 2 * * *", "Europe/Berlin", &next[0][..10], "enabled = false"] {
        assert!(shown.contains(word), "{word} is missing:\n{shown}");
    }
}

#[test]
fn firings_are_made_once_each_however_often_the_daemon_is_killed() {
    let world = World::new();
    world.template("often", "concurrency = \"parallel\"", "true");
    world.write(
        "projects/shop/schedules/every-minute.toml",
        "template = \"often\"\ncron = \"* * * * *\"\noverlap = \"queue\"\n",
    );
    let mut daemon = world.daemon();
    let tasks = |daemon: &Daemon| items(&world, daemon, &["task", "list"]);
    // Killed as soon as a firing has come, and once more at once: whatever it was doing, the same firing is not made again.
    wait_for("the first firing", || (tasks(&daemon).len() == 1).then_some(()));
    for _ in 0..2 {
        daemon.process.kill_hard();
        daemon = world.daemon();
    }
    let listed = items(&world, &daemon, &["schedule", "list"]);
    let made = tasks(&daemon);
    let last = listed[0]["last"]["task"].as_u64().expect("it fired");
    assert_eq!(made[0]["number"], last, "{made:?}");
    let created: std::collections::BTreeSet<&str> =
        made.iter().map(|task| &task["created_at"].as_str().expect("a time")[..16]).collect();
    assert_eq!(created.len(), made.len(), "no minute has two: {made:?}");
}

#[test]
fn an_integration_s_log_says_why_each_request_did_or_did_not_start_a_task() {
    let world = World::new();
    world.template(
        "deploy",
        "[survey.version]\ntype = \"string\"\npattern = \"^v[0-9]+$\"\n",
        "echo $FORGE_VAR_VERSION",
    );
    std::fs::write(world.path("sender-secret"), "hunter2-hunter2\n").expect("written");
    let secret = world.path("sender-secret");
    world.daemon_settings(&format!("[secrets.allow.shop]\nfiles = [{secret:?}]\n"));
    world.write(
        "projects/shop/integrations/on-release.toml",
        &format!(
            "template = \"deploy\"\nauth = \"token\"\nsecret = {{ file = {secret:?} }}\n\
             [[match]]\njson = \"$.action\"\nequals = \"released\"\n[extract]\nversion = {{ json = \"$.version\" }}\n"
        ),
    );
    let daemon = world.daemon();
    let (status, first) = post(&daemon, "on-release", "one", &json!({"action": "released", "version": "v7"}));
    assert_eq!(status, 201, "{first}");
    let (status, again) = post(&daemon, "on-release", "one", &json!({"action": "released", "version": "v7"}));
    assert_eq!((status, &again["repeated"]), (200, &true.into()), "{again}");
    post(&daemon, "on-release", "two", &json!({"action": "opened"}));
    let (status, third) = post(&daemon, "on-release", "three", &json!({"action": "released", "version": "latest"}));
    assert!(status == 422 && third.to_string().contains("version"), "{status} {third}");
    let log = items(&world, &daemon, &["integration", "log", "shop/on-release"]);
    let outcomes: Vec<&str> = log.iter().map(|one| one["outcome"].as_str().expect("a word")).collect();
    assert_eq!(outcomes, ["refused", "not_matched", "repeated", "started"], "{log:?}");
    assert_eq!(log[3]["task"], first["task"], "{log:?}");
    // Its sender was told what is wrong; the log, which more people read, holds nothing of the body.
    assert!(log[0]["message"].as_str().is_some_and(|why| why.contains("survey")), "{log:?}");
    let shown = world.ask(&daemon, &["integration", "log", "shop/on-release"]).expect_code(0).text();
    assert!(shown.contains("not matched") && shown.contains("three"), "{shown}");
    let wrong = world.ask(&daemon, &["integration", "log", "shop"]).expect_code(2).stderr;
    assert!(wrong.contains("PROJECT/NAME"), "{wrong}");
}
