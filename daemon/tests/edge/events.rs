//! What is told to those who listen as it happens, and what they are told who were away.

use forge_api::{ConfigNews, RevisionState, Task, TaskState};
use reqwest::{Method, Response, StatusCode};
use serde_json::json;

use crate::harness::{PATIENCE, Place, Running, problem};

fn place() -> Place {
    let place = Place::new();
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    for project in ["shop", "bank"] {
        place.put(&format!("projects/{project}/project.toml"), "");
        let template = "executor = \"shell\"\n[params]\nscript = \"true\"\n";
        place.put(&format!("projects/{project}/templates/hello.toml"), template);
    }
    place.put("runners/ny-1.toml", "");
    place.put("runners/ny-2.toml", "");
    place
}

/// One event as it came.
#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: String,
}

/// A stream that is read frame by frame.
struct Stream {
    answer: Response,
    text: String,
}

impl Stream {
    async fn open(daemon: &Running, token: &str, query: &str, last: Option<&str>) -> Self {
        let mut request = daemon.request(Method::GET, &format!("/events{query}"), token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// The next frame; `None` at the stream's end.
    async fn frame(&mut self) -> Option<Event> {
        let read = async {
            while !self.text.contains("\n\n") {
                let piece = self.answer.chunk().await.expect("a clean stream")?;
                self.text.push_str(std::str::from_utf8(&piece).expect("text"));
            }
            let (frame, rest) = self.text.split_once("\n\n").expect("it is there");
            let field = |name: &str| {
                let found = frame.lines().find_map(|line| line.strip_prefix(name));
                found.map(|value| value.trim_start_matches(": ").to_owned()).unwrap_or_default()
            };
            let event = Event { name: field("event"), id: field("id"), data: field("data") };
            self.text = rest.to_owned();
            Some(event)
        };
        tokio::time::timeout(PATIENCE, read).await.expect("something comes")
    }

    /// The next event of a name.
    async fn event(&mut self, name: &str) -> Event {
        loop {
            let event = self.frame().await.expect("an event and no end");
            if event.name == name {
                return event;
            }
        }
    }

    async fn task(&mut self) -> Task {
        serde_json::from_str(&self.event("task").await.data).expect("a task")
    }
}

async fn start(daemon: &Running, project: &str, token: &str) {
    let run = daemon.request(Method::POST, &format!("/projects/{project}/templates/hello/tasks"), token);
    assert_eq!(run.json(&json!({})).send().await.expect("an answer").status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_hears_of_tasks_runners_and_the_configuration_and_only_of_what_it_sees() {
    let place = place();
    let all = place.token("all", "role = \"admin\"");
    let shop = place.token("shop", "role = \"operator\"\nprojects = [\"shop\"]");
    let daemon = place.start().await;
    let mut hears_all = Stream::open(&daemon, &all, "", None).await;
    let mut hears_shop = Stream::open(&daemon, &shop, "", None).await;
    let mut hears_bank = Stream::open(&daemon, &all, "?project=bank", None).await;
    start(&daemon, "bank", &all).await;
    start(&daemon, "shop", &all).await;
    for (stream, expected) in [(&mut hears_all, 1), (&mut hears_shop, 2), (&mut hears_bank, 1)] {
        let task = stream.task().await;
        assert_eq!((task.number, task.state), (expected, TaskState::Queued));
    }
    assert_eq!(hears_all.task().await.number, 2);
    let cancel = daemon.request(Method::POST, "/tasks/2/cancel", &all).send().await.expect("an answer");
    assert_eq!(cancel.status(), 200);
    let task = hears_shop.task().await;
    assert_eq!((task.number, task.state), (2, TaskState::Canceled));

    place.put("projects/shop/project.toml", "description = \"The shop\"\n");
    for stream in [&mut hears_shop, &mut hears_bank] {
        let news: ConfigNews = serde_json::from_str(&stream.event("config").await.data).expect("news");
        assert_eq!(news.state, RevisionState::Applied);
    }
    std::fs::remove_file(place.tree().join("runners/ny-1.toml")).expect("removed");
    assert_eq!(hears_shop.event("runner_removed").await.data, json!({ "name": "ny-1" }).to_string());
    daemon.begin_stop();
    while hears_all.frame().await.is_some() {}
    daemon.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_goes_on_and_after_a_restart_begins_anew() {
    let place = place();
    let all = place.token("all", "role = \"admin\"");
    let daemon = place.start().await;
    // One that stays, so that what happens meanwhile is kept.
    let mut stays = Stream::open(&daemon, &all, "", None).await;
    let mut cut = Stream::open(&daemon, &all, "", None).await;
    let seen = cut.frame().await.expect("where it begins").id;
    drop(cut);
    start(&daemon, "shop", &all).await;
    start(&daemon, "bank", &all).await;
    assert_eq!((stays.task().await.number, stays.task().await.number), (1, 2));
    let mut again = Stream::open(&daemon, &all, "", Some(&seen)).await;
    assert_eq!(again.task().await.number, 1);
    let last = again.event("task").await;
    for strange in ["1-1", "nonsense"] {
        let mut anew = Stream::open(&daemon, &all, "", Some(strange)).await;
        assert_eq!(anew.frame().await.expect("a frame").name, "reset", "{strange}");
    }
    daemon.begin_stop();
    drop((stays, again));
    daemon.stopped().await;
    let daemon = place.start().await;
    let mut after = Stream::open(&daemon, &all, "", Some(&last.id)).await;
    let reset = after.frame().await.expect("a frame");
    assert_eq!((reset.name.as_str(), reset.data.as_str()), ("reset", "{}"));
    drop(after);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_has_a_bounded_number_of_streams() {
    let place = place();
    let all = place.token("all", "role = \"viewer\"");
    let other = place.token("other", "role = \"viewer\"");
    let daemon = place.start().await;
    let mut open = Vec::new();
    let refused = loop {
        let answer = daemon.get("/events", &all).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        open.push(answer);
        assert!(open.len() < 100, "no bound");
    };
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(problem(refused).await.status, 429);
    assert_eq!(daemon.get("/events", &other).await.status(), 200);
    drop(open);
    daemon.stop().await;
}
