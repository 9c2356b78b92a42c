//! Answers without an end: whoever may listen no more is told nothing more, though nobody stops the daemon and nothing happens.

use reqwest::{Method, Response};
use serde_json::json;

use crate::by_hand::{done, sha256};
use crate::harness::{PATIENCE, Place, Running, wait_for};

fn place() -> Place {
    let place = Place::new();
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    for project in ["shop", "bank"] {
        place.put(&format!("projects/{project}/project.toml"), "");
        let template = "executor = \"shell\"\n[params]\nscript = \"true\"\n";
        place.put(&format!("projects/{project}/templates/hello.toml"), template);
    }
    place
}

async fn start(daemon: &Running, project: &str, token: &str) {
    let path = format!("/projects/{project}/templates/hello/tasks");
    assert_eq!(done(daemon.request(Method::POST, &path, token).json(&json!({}))).await, 201);
}

/// Reads an answer to its end: what it said, and whether it was whole.
async fn to_its_end(mut answer: Response) -> (String, bool) {
    let read = async {
        let mut said = String::new();
        loop {
            match answer.chunk().await {
                Ok(Some(piece)) => said.push_str(&String::from_utf8_lossy(&piece)),
                Ok(None) => return (said, true),
                Err(_cut) => return (said, false),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it ends by itself")
}

/// An answer to who listens to events, and one to who follows the log of a task that has not begun.
async fn listen(daemon: &Running, token: &str) -> [Response; 2] {
    let answers = [daemon.get("/events", token).await, daemon.get("/tasks/1/log?follow=true", token).await];
    assert!(answers.iter().all(|answer| answer.status() == 200));
    answers
}

async fn assert_they_end(answers: [Response; 2]) {
    let [events, log] = answers;
    let (said, _) = to_its_end(events).await;
    assert!(!said.contains("event: task"), "{said}");
    assert_eq!(to_its_end(log).await, (String::new(), false), "nobody takes it for the end of the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_token_that_it_was_asked_for_with() {
    let place = place();
    let root = place.token("root", "role = \"admin\"");
    let (revoked, removed) = (place.token("ann", "role = \"viewer\""), place.token("bob", "role = \"viewer\""));
    let daemon = place.start().await;
    start(&daemon, "shop", &root).await;
    let (of_revoked, of_removed) = (listen(&daemon, &revoked).await, listen(&daemon, &removed).await);
    let mut kept = daemon.get("/events", &root).await;
    let hash = format!("sha256:{}", sha256(revoked.as_bytes()));
    assert_eq!(done(daemon.request(Method::POST, "/tokens/revoke", &root).json(&json!({ "hash": hash }))).await, 200);
    assert_they_end(of_revoked).await;
    std::fs::remove_file(place.tree().join("access/bob.toml")).expect("removed");
    assert_they_end(of_removed).await;
    // Whose token counts goes on listening.
    start(&daemon, "bank", &root).await;
    let mut said = String::new();
    while !said.contains("event: task") {
        let piece = tokio::time::timeout(PATIENCE, kept.chunk()).await.expect("something comes");
        said.push_str(&String::from_utf8_lossy(&piece.expect("a clean stream").expect("and no end")));
    }
    drop(kept);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_token_expires() {
    let place = place();
    let root = place.token("root", "role = \"admin\"");
    let daemon = place.start().await;
    start(&daemon, "shop", &root).await;
    let expires = forge_api::Timestamp::from_unix_micros(now_micros() + 8_000_000);
    let short = place.token("short", &format!("role = \"viewer\"\nexpires = {expires}"));
    wait_for("the token", || async { (daemon.get("/projects", &short).await.status() == 200).then_some(()) }).await;
    assert_they_end(listen(&daemon, &short).await).await;
    assert_eq!(daemon.get("/projects", &short).await.status(), 401);
    daemon.stop().await;
}

fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before 294247")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_session_that_it_was_asked_for_with() {
    let place = place();
    let root = place.token("root", "role = \"admin\"");
    let daemon = place.start().await;
    start(&daemon, "shop", &root).await;
    let http = daemon.browser();
    let url = |path: &str| format!("{}{path}", daemon.addresses.api);
    let form = |path: &str, fields: &[(&str, &str)]| {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        http.post(url(path)).header("content-type", "application/x-www-form-urlencoded").body(body)
    };
    let login = form("/login", &[("token", &root)]).send().await.expect("an answer");
    let cookie = login.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
    let get = async |path: &str| http.get(url(path)).header("cookie", &cookie).send().await.expect("an answer");
    let page = get("/").await.text().await.expect("a page");
    let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
    let csrf = rest.split('"').next().expect("a value").to_owned();
    let answers = [get("/api/v1/events").await, get("/api/v1/tasks/1/log?follow=true").await];
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(done(form("/logout", &[("csrf", &csrf)]).header("cookie", &cookie)).await, 303);
    assert_they_end(answers).await;
    assert_eq!(daemon.get("/projects", &root).await.status(), 200, "the token itself counts on");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_no_more_than_its_token_may_see_by_then() {
    let place = place();
    let root = place.token("root", "role = \"admin\"");
    let narrowed = place.token("ann", "role = \"viewer\"");
    let daemon = place.start().await;
    start(&daemon, "bank", &root).await;
    let [mut events, log] = listen(&daemon, &narrowed).await;
    let file = place.tree().join("access/ann.toml");
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, format!("{text}projects = [\"shop\"]\n")).expect("written");
    wait_for("the narrower token", || async {
        (daemon.get("/tasks/1", &narrowed).await.status() == 404).then_some(())
    })
    .await;
    assert_eq!(to_its_end(log).await, (String::new(), false), "it is another project's by now");
    // Both projects have news in turn; sooner or later only one of them is told of.
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        start(&daemon, "bank", &root).await;
        start(&daemon, "shop", &root).await;
        let mut said = String::new();
        while !said.contains("\"project\":\"shop\"") {
            let piece = tokio::time::timeout(PATIENCE, events.chunk()).await.expect("something comes");
            said.push_str(&String::from_utf8_lossy(&piece.expect("a clean stream").expect("and no end")));
        }
        if !said.contains("\"project\":\"bank\"") {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "it is told of the bank for ever: {said}");
    }
    drop(events);
    daemon.stop().await;
}
