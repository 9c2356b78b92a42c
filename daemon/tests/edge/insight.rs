//! What pages ask of the API beside the objects themselves.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Place, problem};

fn place() -> Place {
    let place = Place::new();
    place.put("projects/shop/project.toml", "description = \"The shop\"\n");
    place.put("projects/bank/project.toml", "description = \"The bank\"\n");
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    place.put(
        "projects/shop/templates/hello.toml",
        "executor = \"shell\"\nallow_arguments = true\n[params]\nscript = \"echo hello\"\n\
         [survey.count]\ntype = \"integer\"\nmin = 1\nmax = 9\n[survey.share]\ntype = \"number\"\nmin = 0.5\n",
    );
    place.put(
        "projects/shop/schedules/nightly.toml",
        "cron = \"0 3 * * *\"\ntemplate = \"hello\"\nparams = { count = 2 }\n",
    );
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_says_what_its_form_needs() {
    let place = place();
    let token = place.token("viewer", "role = \"viewer\"");
    let daemon = place.start().await;
    let template = daemon.get_json("/projects/shop/templates", &token).await["items"][0].clone();
    assert_eq!((&template["allow_arguments"], &template["schedules"]), (&json!(true), &json!(["nightly"])));
    let (count, share) = (&template["survey"][0], &template["survey"][1]);
    assert_eq!((&count["min"], &count["max"]), (&json!(1.0), &json!(9.0)));
    assert_eq!((&share["min"], &share["max"]), (&json!(0.5), &json!(null)));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_attempts_lines_and_numbers_are_there_for_who_sees_it() {
    let place = place();
    let operator = place.token("operator", "role = \"operator\"");
    let bank = place.token("bank", "role = \"admin\"\nprojects = [\"bank\"]");
    let daemon = place.start().await;
    let run = daemon.request(Method::POST, "/projects/shop/templates/hello/tasks", &operator);
    let created = run.json(&json!({ "variables": { "count": 1, "share": 1 } })).send().await.expect("an answer");
    assert_eq!(created.status(), 201);
    assert_eq!(daemon.get_json("/tasks/1/attempts", &operator).await, json!({ "items": [], "next_cursor": null }));
    let lines = daemon.get_json("/tasks/1/log/lines?from=-100&count=100", &operator).await;
    assert_eq!(lines, json!({ "attempt": 0, "total": 0, "complete": false, "bytes": 0, "items": [] }));
    let found = daemon.get_json("/tasks/1/log/search?errors=true", &operator).await;
    assert_eq!(found, json!({ "attempt": 0, "items": [], "next_from": null }));
    let stats = daemon.get_json("/projects/shop/templates/hello/stats", &operator).await;
    assert_eq!(stats, json!({ "items": [], "outcomes": {} }));
    for path in [
        "/tasks/1/attempts",
        "/tasks/1/log/lines",
        "/tasks/1/log/search?text=x",
        "/projects/shop/templates/hello/stats",
    ] {
        assert_eq!(problem(daemon.get(path, &bank).await).await.status, 404, "{path}");
    }
    for path in [
        "/tasks/1/log/lines?count=1001",
        "/tasks/1/log/lines?count=0",
        "/tasks/1/log/lines?from=x",
        "/tasks/1/log/search",
        "/tasks/1/log/search?text=a&regex=b",
        "/tasks/1/log/search?regex=(",
        "/projects/shop/templates/hello/stats?limit=101",
    ] {
        assert_eq!(problem(daemon.get(path, &operator).await).await.status, 400, "{path}");
    }
    assert_eq!(problem(daemon.get("/projects/shop/templates/none/stats", &operator).await).await.status, 404);
    daemon.stop().await;
}
