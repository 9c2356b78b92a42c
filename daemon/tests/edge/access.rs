//! Who may see and do what, and how mistakes are answered.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Place, Running, problem};

fn place() -> Place {
    let place = Place::new();
    for project in ["shop", "bank"] {
        place.put(&format!("projects/{project}/project.toml"), &format!("description = \"The {project}\"\n"));
    }
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    place.put("projects/shop/templates/hello.toml", "executor = \"shell\"\n[params]\nscript = \"echo hello\"\n[survey.name]\ntype = \"string\"\ndefault = \"you\"\n");
    place
}

async fn status(daemon: &Running, method: Method, path: &str, token: &str) -> u16 {
    let request = daemon.request(method, path, token);
    let answer = if path.ends_with("/tasks") { request.json(&json!({})) } else { request };
    answer.send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_reaches_its_projects_and_no_other_exists_for_it() {
    let place = place();
    let all = place.token("all", "role = \"viewer\"");
    let bank = place.token("bank", "role = \"admin\"\nprojects = [\"bank\"]");
    let daemon = place.start().await;
    let names = |list: &serde_json::Value| {
        let items = list["items"].as_array().expect("a list").clone();
        items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&daemon.get_json("/projects", &all).await), ["bank", "shop"]);
    assert_eq!(names(&daemon.get_json("/projects", &bank).await), ["bank"]);
    let templates = daemon.get_json("/projects/shop/templates", &all).await;
    assert_eq!(templates["items"][0]["survey"][0]["default"], "you");

    let hidden = problem(daemon.get("/projects/shop/templates", &bank).await).await;
    let missing = problem(daemon.get("/projects/none/templates", &bank).await).await;
    assert_eq!((hidden.status, hidden.detail.replace("shop", "none")), (404, missing.detail));
    assert_eq!(hidden.hint, missing.hint);
    assert!(!hidden.hint.expect("a hint").contains("shop"));
    assert_eq!(status(&daemon, Method::POST, "/projects/shop/templates/hello/tasks", &bank).await, 404);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_does_what_it_may_and_says_what_it_may_not() {
    let place = place();
    let viewer = place.token("viewer", "role = \"viewer\"");
    let expired = place.token("expired", "role = \"admin\"\nexpires = \"2020-01-01T00:00:00Z\"");
    let daemon = place.start().await;
    let run = "/projects/shop/templates/hello/tasks";
    let refused = daemon.request(Method::POST, run, &viewer).json(&json!({})).send().await.expect("an answer");
    let refused = problem(refused).await;
    assert_eq!(refused.status, 403);
    assert!(refused.detail.contains("operator") && refused.detail.contains("viewer"), "{refused:?}");
    for token in ["", "wrong", &expired] {
        let refused = problem(daemon.get("/projects", token).await).await;
        assert_eq!((refused.status, refused.slug()), (401, "unauthorized"));
        assert!(refused.hint.expect("a hint").contains("FORGE_TOKEN"));
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_a_problem() {
    let place = place();
    let operator = place.token("operator", "role = \"operator\"");
    let daemon = place.start().await;
    let run = "/projects/shop/templates/hello/tasks";
    let post = |media_type: &str, body: Vec<u8>| {
        daemon.request(Method::POST, run, &operator).header("content-type", media_type).body(body).send()
    };
    for (media_type, body, expected, word) in [
        ("text/plain", b"{}".to_vec(), 415, "application/json"),
        ("application/json", b"{\"variabels\": {}}".to_vec(), 400, "variabels"),
        ("application/json", b"{".to_vec(), 400, "EOF"),
        ("application/json", b"{\"arguments\": [\"\xff\"]}".to_vec(), 400, "UTF-8"),
        ("application/json; charset=utf-8", vec![b' '; forge_api::JSON_BODY_BYTES_MAX + 1], 413, "bytes"),
    ] {
        let problem = problem(post(media_type, body).await.expect("an answer")).await;
        let said = format!("{} {}", problem.detail, problem.hint.unwrap_or_default());
        assert_eq!(problem.status, expected, "{said}");
        assert!(said.contains(word), "{said}");
    }
    for (method, path, expected) in [
        (Method::GET, "/nothing", 404),
        (Method::PUT, "/projects", 405),
        (Method::GET, "/tasks/one", 404),
        (Method::GET, "/tasks?projct=shop", 400),
        (Method::GET, "/tasks?state=done", 400),
        (Method::GET, "/tasks?limit=0", 400),
        (Method::GET, "/plugins/abc", 401),
        (Method::POST, "/attempts/1-1/start", 401),
    ] {
        let answer = daemon.request(method.clone(), path, &operator).send().await.expect("an answer");
        if expected == 405 {
            assert!(answer.headers().contains_key("allow"));
        }
        assert_eq!(problem(answer).await.status, expected, "{method} {path}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scoped_token_sees_no_line_of_another_projects_file() {
    let place = place();
    let shop = place.token("shop", "role = \"viewer\"\nprojects = [\"shop\"]");
    let all = place.token("all", "role = \"viewer\"");
    let daemon = place.start().await;
    place.put("projects/bank/project.toml", "descripton = \"secret plans\"\n");
    place.put("projects/shop/project.toml", "descripton = \"ours\"\n");
    let failure = crate::harness::wait_for("the mistakes", || async { daemon.config(&all).await.last_error }).await;
    assert_eq!(failure.diagnostics.iter().filter(|found| found.file.ends_with("project.toml")).count(), 2);
    let seen = daemon.config(&shop).await.last_error.expect("a failure");
    let files: Vec<_> = seen.diagnostics.iter().map(|found| found.file.as_str()).collect();
    assert_eq!(files, ["projects/shop/project.toml"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_asks_too_much_is_told_when_to_come_back() {
    let mut place = place();
    place.extra = "[limits]\nrequests_per_second = 1\n".to_owned();
    let (wild, calm) = (place.token("wild", "role = \"viewer\""), place.token("calm", "role = \"viewer\""));
    let daemon = place.start().await;
    let mut asked = 0;
    let refused = loop {
        let answer = daemon.get("/projects", &wild).await;
        asked += 1;
        if answer.status() != 200 || asked == 500 {
            break answer;
        }
    };
    assert!(asked > 5, "five seconds' worth is fine at once: {asked}");
    let seconds: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("a number");
    assert!(seconds >= 1);
    let refused = problem(refused).await;
    assert_eq!((refused.status, refused.slug()), (429, forge_api::RATE_LIMITED));
    assert!(refused.hint.expect("a hint").contains("requests_per_second"));
    assert_eq!(daemon.get("/projects", &calm).await.status(), 200, "one token's rate is not another's");
    daemon.stop().await;
}
