//! The document that describes the API, held against what the daemon really answers.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Place, Running};

fn place() -> Place {
    let place = Place::new();
    place.put("plugins/shell.toml", "source = \"builtin:shell\"\n[allow]\nprograms = [\"bash\"]\n");
    place.put("plugins/http.toml", "source = \"builtin:http\"\n[allow]\nhosts = [\"example.com\"]\n");
    place.put("projects/shop/project.toml", "description = \"The shop\"\n");
    place.put(
        "projects/shop/templates/hello.toml",
        "executor = \"shell\"\n[params]\nscript = \"true\"\n[survey.name]\ntype = \"string\"\npattern = \"^v\"\n[survey.count]\ntype = \"integer\"\nmin = 1\n",
    );
    place.put("projects/shop/schedules/nightly.toml", "cron = \"0 3 * * *\"\ntemplate = \"hello\"\n");
    place.put("projects/shop/integrations/push.toml", "template = \"hello\"\nauth = \"none\"\n");
    place.put("runners/ny-1.toml", "tags = [\"new-york\"]\n");
    place.put(
        "webhooks/ops.toml",
        "plugin = \"http\"\nevents = [\"task.finished\"]\n[config]\nurl = \"https://example.com/\"\n",
    );
    place
}

/// The schema that the document has for an answer; `None` where it has none of that status.
fn schema(document: &Value, method: &str, template: &str, status: u16) -> Option<Value> {
    let operation = &document["paths"][template][method.to_ascii_lowercase()];
    let mut answer = operation["responses"].get(status.to_string())?;
    if let Some(target) = answer["$ref"].as_str() {
        answer = document.pointer(target.strip_prefix('#')?)?;
    }
    let (_media_type, content) = answer["content"].as_object()?.iter().next()?;
    let mut schema = content["schema"].clone();
    // References are to the document itself.
    schema["components"] = document["components"].clone();
    Some(schema)
}

/// Asks, and holds the answer against the document.
async fn check(daemon: &Running, document: &Value, token: &str, asked: (&str, &str, &str), body: Option<Value>) -> u16 {
    let (method, template, path) = asked;
    let request = daemon.request(method.parse::<Method>().expect("a method"), path, token);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let template = format!("/api/v1{template}");
    let schema = schema(document, method, &template, status);
    let schema = schema.unwrap_or_else(|| panic!("{method} {template} says nothing of {status}"));
    let text = answer.text().await.expect("text");
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let wrong: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{method} {path} answered {status}\n{value:#}\n{}", wrong.join("\n"));
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_what_the_document_says() {
    let place = place();
    let admin = place.token("admin", "role = \"admin\"");
    let shop = place.token("shop", "role = \"viewer\"\nprojects = [\"shop\"]");
    let daemon = place.start().await;
    let document: Value = daemon.get("/openapi.json", "").await.json().await.expect("JSON for anybody");
    assert_eq!(document["openapi"], "3.1.0");
    const TASKS: &str = "/projects/{project}/templates/{template}/tasks";
    let create = "/projects/shop/templates/hello/tasks";
    for (asked, body, token, expected) in [
        (("POST", TASKS, create), Some(json!({ "variables": { "name": "v1", "count": 2 } })), &admin, 201),
        (("POST", TASKS, create), Some(json!({ "variables": { "name": "v1", "count": 0 } })), &admin, 422),
        (("POST", TASKS, create), Some(json!({ "variabels": {} })), &admin, 400),
        (("POST", TASKS, create), Some(json!({})), &shop, 403),
        (("POST", TASKS, "/projects/none/templates/hello/tasks"), Some(json!({})), &admin, 404),
        (("POST", TASKS, create), None, &admin, 415),
        (("GET", "/projects", "/projects"), None, &admin, 200),
        (("GET", "/projects", "/projects"), None, &String::new(), 401),
        (("GET", "/projects/{project}/templates", "/projects/shop/templates"), None, &admin, 200),
        (
            ("GET", "/projects/{project}/templates/{template}/stats", "/projects/shop/templates/hello/stats"),
            None,
            &admin,
            200,
        ),
        (
            ("GET", "/projects/{project}/integrations/{integration}/log", "/projects/shop/integrations/push/log"),
            None,
            &admin,
            200,
        ),
        (("GET", "/schedules", "/schedules"), None, &admin, 200),
        (("GET", "/tasks", "/tasks?state=queued"), None, &admin, 200),
        (("GET", "/tasks", "/tasks?state=odd"), None, &admin, 400),
        (("GET", "/tasks/{number}", "/tasks/1"), None, &shop, 200),
        (("GET", "/tasks/{number}", "/tasks/99"), None, &shop, 404),
        (("GET", "/tasks/{number}/attempts", "/tasks/1/attempts"), None, &shop, 200),
        (("GET", "/tasks/{number}/log/lines", "/tasks/1/log/lines"), None, &shop, 200),
        (("GET", "/tasks/{number}/log/search", "/tasks/1/log/search?errors=true"), None, &shop, 200),
        (("GET", "/tasks/{number}/why", "/tasks/1/why"), None, &shop, 200),
        (("POST", "/tasks/{number}/approve", "/tasks/1/approve"), Some(json!({})), &admin, 409),
        (("POST", "/tasks/{number}/cancel", "/tasks/1/cancel"), None, &admin, 200),
        (("POST", "/tasks/{number}/cancel", "/tasks/1/cancel"), None, &admin, 409),
        (("POST", "/tasks/{number}/retry", "/tasks/1/retry"), None, &admin, 200),
        (("POST", "/tasks/{number}/retry", "/tasks/1/retry"), Some(json!({ "now": true })), &admin, 409),
        (("POST", "/tasks/{number}/retry", "/tasks/1/retry"), Some(json!({ "soon": true })), &admin, 400),
        (("GET", "/runners", "/runners"), None, &admin, 200),
        (("GET", "/runners/{name}", "/runners/ny-1"), None, &admin, 200),
        (("GET", "/config", "/config"), None, &admin, 200),
        (("GET", "/config/revisions", "/config/revisions"), None, &admin, 200),
        (("POST", "/config/apply", "/config/apply"), Some(json!({})), &admin, 200),
        (("GET", "/config/objects", "/config/objects"), None, &admin, 200),
        (("GET", "/config/objects", "/config/objects"), None, &shop, 403),
        (("GET", "/plugins", "/plugins"), None, &admin, 200),
        (("GET", "/stats/load", "/stats/load"), None, &admin, 200),
        (("GET", "/webhooks", "/webhooks"), None, &admin, 200),
        (("GET", "/webhooks/deliveries", "/webhooks/deliveries"), None, &admin, 200),
        (("GET", "/webhooks/deliveries/{id}", "/webhooks/deliveries/none"), None, &admin, 404),
        (("POST", "/webhooks/{name}/test", "/webhooks/ops/test"), Some(json!({})), &admin, 200),
        (("GET", "/webhooks/deliveries", "/webhooks/deliveries?state=odd"), None, &admin, 400),
        (
            ("POST", "/tokens/revoke", "/tokens/revoke"),
            Some(json!({ "hash": format!("sha256:{}", "0".repeat(64)) })),
            &admin,
            200,
        ),
        (("GET", "/openapi.json", "/openapi.json"), None, &String::new(), 200),
    ] {
        assert_eq!(check(&daemon, &document, token, asked, body).await, expected, "{asked:?}");
    }
    daemon.stop().await;
}
