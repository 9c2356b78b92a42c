//! The target's plans and its config, without a host.

use forge_plugin::WebhookTarget;
use forge_plugin::webhook::{Event, HmacHeader, Method, Request, Signing};
use forge_plugin_http::Http;
use serde_json::{Value, json};

fn plan(config: &Value) -> Result<Vec<Request>, String> {
    let payload = json!({ "id": "e1", "event": "task.finished", "at": "2026-01-01T00:00:00.000000Z", "task": { "number": 42, "state": "failed" } });
    Http::plan(&Event::new("task.finished", &payload).with_config(config))
}

fn one(config: &Value) -> Request {
    plan(config).expect("it is planned").pop().expect("one request")
}

#[test]
fn the_event_is_posted_whole_and_signed() {
    let request = one(&json!({ "url": "https://hooks.example.com/forge" }));
    assert_eq!((request.method, request.url.as_str()), (Method::Post, "https://hooks.example.com/forge"));
    assert_eq!(request.header_value("content-type"), Some("application/json"));
    assert_eq!(request.signing, Signing::Forge);
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body["task"]["number"], 42);
}

#[test]
fn the_body_may_be_a_text_of_one_s_own() {
    let request = one(&json!({
        "url": "{{secret:url:0}}", "method": "PUT", "sign": "github", "content_type": "text/plain",
        "body": "task {{task.number}} {{task.state}}", "headers": { "X-Team": "ops" }, "authorization": "{{secret:authorization:0}}"
    }));
    assert_eq!((request.method, request.url.as_str()), (Method::Put, "{{secret:url:0}}"));
    assert_eq!(request.body, b"task 42 failed");
    assert_eq!(request.header_value("x-team"), Some("ops"));
    assert_eq!(request.header_value("authorization"), Some("{{secret:authorization:0}}"));
    let expected = HmacHeader { name: "X-Hub-Signature-256".to_owned(), prefix: "sha256=".to_owned(), key: None };
    assert_eq!(request.signing, Signing::HmacSha256(expected));
}

#[test]
fn a_get_has_no_body() {
    let request = one(&json!({ "url": "https://hooks.example.com/", "method": "GET", "sign": "none" }));
    assert_eq!((request.body.as_slice(), request.header_value("content-type")), (&b""[..], None));
    assert_eq!(request.signing, Signing::None);
}

#[test]
fn a_mistake_is_said_with_its_place() {
    let error = plan(&json!({ "url": "https://hooks.example.com/", "body": "{{task number}}" })).expect_err("no path");
    assert_eq!(error, "config.body: `{{task number}}` is no path into the event: write `{{task.number}}`");
    let schema = Http::describe().params_schema.expect("there is one");
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).expect("JSON")).expect("a schema");
    assert!(validator.is_valid(&json!({ "url": "https://hooks.example.com/", "headers": { "A": "b" } })));
    for wrong in
        [json!({}), json!({ "url": 1 }), json!({ "url": "x", "method": "OPTIONS" }), json!({ "url": "x", "urk": 1 })]
    {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}
