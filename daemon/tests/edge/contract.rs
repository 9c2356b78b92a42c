//! The document that describes the API, held against what the daemon really answers.

use forge_api::{AttemptOutcome, ClaimResponse};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::by_hand::ByHand;
use crate::harness::{Place, REGISTRATION_TOKEN, Running};

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

/// What the document says of an answer of a status; `None` where it says nothing.
fn described<'a>(document: &'a Value, method: &str, template: &str, status: u16) -> Option<&'a Value> {
    let operation = &document["paths"][format!("/api/v1{template}")][method.to_ascii_lowercase()];
    let answer = operation["responses"].get(status.to_string())?;
    match answer["$ref"].as_str() {
        Some(target) => document.pointer(target.strip_prefix('#')?),
        None => Some(answer),
    }
}

/// Asks, and holds the answer against the document. Answers the status, and the JSON where there is some.
async fn hold(document: &Value, (method, template): (&str, &str), request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let described = described(document, method, template, status);
    let described = described.unwrap_or_else(|| panic!("{method} {template} says nothing of {status}"));
    let media_type = answer.headers().get("content-type").map(|value| value.to_str().expect("text").to_owned());
    let body = answer.bytes().await.expect("a body");
    let Some(content) = described["content"].as_object() else {
        assert_eq!((media_type, body.len()), (None, 0), "{method} {template} answers {status} with nothing");
        return (status, Value::Null);
    };
    let (expected, content) = content.iter().next().expect("a media type");
    assert_eq!(media_type.as_ref(), Some(expected), "{method} {template} answered {status}");
    if !expected.ends_with("json") {
        return (status, Value::Null);
    }
    let text = std::str::from_utf8(&body).expect("text");
    let value: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{method} {template}: {error}: {text}"));
    let mut schema = content["schema"].clone();
    // References are to the document itself.
    schema["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let wrong: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{method} {template} answered {status}\n{value:#}\n{}", wrong.join("\n"));
    (status, value)
}

/// The same for a path of the API.
async fn check(daemon: &Running, document: &Value, token: &str, asked: (&str, &str, &str), body: Option<Value>) -> u16 {
    let (method, template, path) = asked;
    let request = daemon.request(method.parse::<Method>().expect("a method"), path, token);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    hold(document, (method, template), request).await.0
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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_is_answered_is_what_the_document_says() {
    const LOG: &str = "looking\ndone\n";
    const CLAIM: (&str, &str) = ("POST", "/runner/claim");
    const START: (&str, &str) = ("POST", "/attempts/{id}/start");
    const APPEND: (&str, &str) = ("PATCH", "/attempts/{id}/log");
    const END: (&str, &str) = ("PUT", "/attempts/{id}/result");
    const PUT_CARRY: (&str, &str) = ("PUT", "/attempts/{id}/carry");
    const GET_CARRY: (&str, &str) = ("GET", "/attempts/{id}/carry");
    let place = place();
    let admin = place.token("admin", "role = \"admin\"");
    let daemon = place.start().await;
    let document: Value = daemon.get("/openapi.json", "").await.json().await.expect("JSON for anybody");
    let ask = async |asked: (&str, &str), request: RequestBuilder| hold(&document, asked, request).await;
    for _ in 0..2 {
        let create = daemon.request(Method::POST, "/projects/shop/templates/hello/tasks", &admin).json(&json!({}));
        assert_eq!(create.send().await.expect("an answer").status(), 201);
    }

    let mut runner = ByHand::new(&daemon, "ny-2");
    let (status, registered) = ask(("POST", "/runners"), runner.registration()).await;
    assert_eq!(status, 201);
    runner.take_token(&serde_json::from_value(registered).expect("a registration"));
    let stranger = ByHand::new(&daemon, "ny-2");
    assert_eq!(ask(("POST", "/runners"), stranger.registration()).await.0, 409);
    let odd = daemon.request(Method::POST, "/runners", REGISTRATION_TOKEN).json(&json!([]));
    assert_eq!(ask(("POST", "/runners"), odd).await.0, 400, "a list is no object");

    assert_eq!(ask(CLAIM, stranger.claim(0)).await.0, 401);
    let (status, claimed) = ask(CLAIM, runner.claim(20_000)).await;
    assert_eq!(status, 200);
    let claimed: ClaimResponse = serde_json::from_value(claimed).expect("a claim");
    let attempt = runner.open(&claimed);
    let plugin = format!("/plugins/{}", attempt.job.plugin.sha256);
    for (path, expected) in [(plugin.as_str(), 200), ("/plugins/none", 404)] {
        let component = daemon.request(Method::GET, path, &runner.token);
        assert_eq!(ask(("GET", "/plugins/{sha256}"), component).await.0, expected);
    }
    assert_eq!(ask(("POST", "/runner/heartbeat"), runner.heartbeat(&[&attempt.id])).await.0, 200);
    assert_eq!(ask(START, attempt.start()).await.0, 200);
    assert_eq!(ask(APPEND, attempt.log(0, LOG)).await.0, 200);
    assert_eq!(ask(APPEND, attempt.log(1_000, LOG)).await.0, 416);
    assert_eq!(ask(END, attempt.result(AttemptOutcome::Succeeded, LOG, None)).await.0, 200);
    assert_eq!(ask(END, attempt.result(AttemptOutcome::Succeeded, LOG, None)).await.0, 200, "said once more");
    assert_eq!(ask(START, attempt.start()).await.0, 410);

    // A plan, and the attempt that does it.
    let planning = runner.begin().await;
    assert_eq!(ask(PUT_CARRY, planning.carry("a plan")).await.0, 204);
    assert_eq!(ask(GET_CARRY, planning.carried()).await.0, 404);
    let (status, planned) = ask(END, planning.result(AttemptOutcome::AwaitsApproval, "", Some("a plan"))).await;
    assert_eq!((status, &planned["state"]), (200, &json!("awaiting_approval")));
    let approve = daemon.request(Method::POST, "/tasks/2/approve", &admin).json(&json!({}));
    assert_eq!(ask(("POST", "/tasks/{number}/approve"), approve).await.0, 200);
    let (_, claimed) = ask(CLAIM, runner.claim(20_000)).await;
    let doing = runner.open(&serde_json::from_value(claimed).expect("a claim"));
    assert_eq!(ask(START, doing.start()).await.0, 200);
    assert_eq!(ask(GET_CARRY, doing.carried()).await.0, 200);

    let leave = || daemon.request(Method::DELETE, "/runner", &runner.token);
    assert_eq!(ask(("DELETE", "/runner"), leave()).await.0, 204);
    assert_eq!(ask(("DELETE", "/runner"), leave()).await.0, 401);
    daemon.stop().await;
}
