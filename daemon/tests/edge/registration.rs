//! Registering a runner over HTTPS: it is there whole or not at all, and takes work at once or is told why not.

use forge_api::{ClaimResponse, RegisterResponse};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::by_hand::{ByHand, done};
use crate::harness::{Place, REGISTRATION_TOKEN, Running, problem, wait_for};

fn place() -> Place {
    let place = Place::new();
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    place.put("projects/shop/project.toml", "");
    let template = "executor = \"shell\"\nconcurrency = \"parallel\"\n[params]\nscript = \"true\"\n";
    place.put("projects/shop/templates/hello.toml", template);
    place
}

/// The runners that there are, by name and status.
async fn runners(daemon: &Running, token: &str) -> Vec<(String, String)> {
    let listed = daemon.get_json("/runners", token).await;
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let items = listed["items"].as_array().expect("a list").iter();
    items.map(|runner| (text(&runner["name"]), text(&runner["status"]))).collect()
}

async fn registrations(daemon: &Running, token: &str, query: &str) -> usize {
    let log = daemon.get_json(&format!("/audit?action=runner.register{query}"), token).await;
    log["items"].as_array().expect("rows").iter().filter(|row| row["result"] == "ok").count()
}

/// Complaint 9 (a registered runner is disabled and nameless): there is nothing between being registered and being enabled. What is answered
/// 201 takes the waiting task with its very next request, under its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_registered_takes_work_with_its_next_request() {
    let place = place();
    let token = place.token("root", "role = \"admin\"");
    let daemon = place.start().await;
    let create = daemon.request(Method::POST, "/projects/shop/templates/hello/tasks", &token).json(&json!({}));
    assert_eq!(done(create).await, 201);
    let mut runner = ByHand::new(&daemon, "ny-1");
    let answer = runner.registration().send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    let registered: RegisterResponse = answer.json().await.expect("a registration");
    assert_eq!((registered.name.as_str(), registered.disabled.as_deref()), ("ny-1", None));
    runner.take_token(&registered);
    let claimed: ClaimResponse = runner.claim(0).send().await.expect("an answer").json().await.expect("a claim");
    let attempt = runner.open(&claimed);
    assert_eq!((attempt.job.runner.as_str(), attempt.job.attempt.task), ("ny-1", 1));
    daemon.stop().await;
}

/// Complaint 9: a registration is one transaction. One that fails in its last step has left nothing of the first, and says so; the same
/// request works as soon as it can.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_is_cut_leaves_nothing_and_can_be_sent_again() {
    let place = place();
    let token = place.token("root", "role = \"admin\"");
    let daemon = place.start().await;
    let store = Connection::open(place.data().join("forge.db")).expect("the store");
    store.busy_timeout(std::time::Duration::from_secs(10)).expect("set");
    // Its row of the audit log is what is written last.
    let cut = "CREATE TRIGGER cut BEFORE INSERT ON audit WHEN NEW.action = 'runner.register' AND NEW.result = 'ok'
               BEGIN SELECT RAISE(ABORT, 'cut'); END";
    store.execute_batch(cut).expect("a trigger");
    let mut runner = ByHand::new(&daemon, "ny-1");
    let failed = problem(runner.registration().send().await.expect("an answer")).await;
    assert_eq!((failed.status, failed.slug()), (500, "internal"));
    assert_eq!(runners(&daemon, &token).await, []);
    store.execute_batch("DROP TRIGGER cut").expect("dropped");
    let answer = runner.registration().send().await.expect("an answer");
    assert_eq!(answer.status(), 201, "the name is not taken");
    runner.take_token(&answer.json().await.expect("a registration"));
    assert_eq!(done(runner.claim(0)).await, 200);
    assert_eq!(registrations(&daemon, &token, "").await, 1);
    daemon.stop().await;
}

/// Complaint 9: whoever hangs up before the answer comes is registered whole or not at all, and the same command goes on from either.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_hangs_up_while_it_registers_is_there_whole_or_not_at_all() {
    let place = place();
    let token = place.token("root", "role = \"admin\"");
    let daemon = place.start().await;
    let half = ByHand::new(&daemon, "half");
    let whole = ByHand::new(&daemon, "whole");
    for (runner, cut) in [(&half, 40), (&whole, 0)] {
        let body = runner.registration_body().to_string();
        let mut stream = daemon.tls(&rustls::version::TLS13).await;
        let head = format!(
            "POST /api/v1/runners HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {REGISTRATION_TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(&body.as_bytes()[..body.len() - cut]).await.expect("sent");
        stream.flush().await.expect("sent");
        if cut == 0 {
            // Nobody reads the answer.
            let there = async || runners(&daemon, &token).await.pop();
            let shown = wait_for("the registration", there).await;
            assert_eq!(shown, ("whole".to_owned(), "never_connected".to_owned()), "with its name, and not disabled");
            assert_eq!(registrations(&daemon, &token, "").await, 1, "and with its row in the audit log");
        }
    }
    for mut runner in [half, whole] {
        let answer = runner.registration().send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        runner.take_token(&answer.json().await.expect("a registration"));
        assert_eq!(done(runner.claim(0)).await, 200);
    }
    daemon.stop().await;
}

/// Complaint 9: a runner that its file keeps from work is told so as it registers, and so is whoever waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_disabled_is_told_by_what() {
    let place = place();
    let token = place.token("root", "role = \"admin\"");
    place.put("runners/ny-1.toml", "enabled = false\n");
    let daemon = place.start().await;
    let create = daemon.request(Method::POST, "/projects/shop/templates/hello/tasks", &token).json(&json!({}));
    assert_eq!(done(create).await, 201);
    let mut runner = ByHand::new(&daemon, "ny-1");
    let registered: RegisterResponse =
        runner.registration().send().await.expect("an answer").json().await.expect("a registration");
    assert_eq!(registered.disabled.as_deref(), Some("enabled = false in runners/ny-1.toml"));
    runner.take_token(&registered);
    let claimed: ClaimResponse = runner.claim(0).send().await.expect("an answer").json().await.expect("a claim");
    assert!(claimed.jobs.is_empty());
    assert_eq!(runners(&daemon, &token).await, [("ny-1".to_owned(), "disabled".to_owned())]);
    let why = daemon.get_json("/tasks/1/why", &token).await.to_string();
    assert!(why.contains("disabled in runners/ny-1.toml"), "{why}");
    // It needs nothing of the runner to work: its file says so, and its next claim has the task.
    place.put("runners/ny-1.toml", "");
    let claimed: ClaimResponse = runner.claim(30_000).send().await.expect("an answer").json().await.expect("a claim");
    assert_eq!(runner.open(&claimed).job.attempt.task, 1);
    daemon.stop().await;
}
