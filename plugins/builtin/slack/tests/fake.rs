//! The target's plans, and what it makes of Slack's answers, without a host.

use forge_plugin::WebhookTarget;
use forge_plugin::webhook::{Disposition, Event, Request, Response, RetryAfter, Sent};
use forge_plugin_slack::Slack;
use serde_json::{Value, json};

fn event(config: &Value) -> Event {
    let payload = json!({ "task": { "number": 42, "project": "shop", "template": "deploy", "state": "failed", "reason": "exit code 1" } });
    Event::new("task.finished", &payload).with_config(config)
}

fn one(config: &Value) -> Request {
    Slack::plan(&event(config)).expect("it is planned").pop().expect("one request")
}

fn judged(config: &Value, answer: &Response) -> Disposition {
    let sent = Sent { round: 0, index: 0, request: one(config) };
    Slack::judge(&event(config), &sent, answer)
}

fn bot() -> Value {
    json!({ "token": "{{secret:token:0}}", "channel": "#ops" })
}

fn hook() -> Value {
    json!({ "url": "{{secret:url:0}}", "mention": "<!here>" })
}

#[test]
fn a_bot_speaks_with_its_token_and_a_webhook_by_its_url() {
    let request = one(&bot());
    assert_eq!(request.url, "https://slack.com/api/chat.postMessage");
    assert_eq!(request.header_value("authorization"), Some("Bearer {{secret:token:0}}"));
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body, json!({ "channel": "#ops", "text": ":x: *shop/deploy* #42 failed\n>exit code 1" }));
    let request = one(&hook());
    assert_eq!((request.url.as_str(), request.header_value("authorization")), ("{{secret:url:0}}", None));
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body, json!({ "text": "<!here> :x: *shop/deploy* #42 failed\n>exit code 1" }));
}

#[test]
fn a_refusal_with_200_is_one() {
    let answer = |body: Value| Response::new(200, body.to_string());
    assert_eq!(judged(&bot(), &answer(json!({ "ok": true, "ts": "1" }))), Disposition::Done);
    assert_eq!(
        judged(&bot(), &answer(json!({ "ok": false, "error": "channel_not_found" }))),
        Disposition::GiveUp("Slack refused: channel_not_found".to_owned())
    );
    assert_eq!(
        judged(&bot(), &answer(json!({ "ok": false, "error": "ratelimited" }))),
        Disposition::Retry(RetryAfter { message: "Slack refused: ratelimited".to_owned(), after_ms: None })
    );
    assert!(matches!(judged(&bot(), &Response::new(200, "<html>")), Disposition::Retry(_)), "no answer of Slack's");
}

#[test]
fn an_incoming_webhook_says_it_by_the_status() {
    assert_eq!(judged(&hook(), &Response::new(200, "ok")), Disposition::Done);
    assert_eq!(
        judged(&hook(), &Response::new(404, "no_service")),
        Disposition::GiveUp("the answer was 404: no_service".to_owned())
    );
    let busy = Response::new(429, "").header("Retry-After", "30");
    assert_eq!(
        judged(&hook(), &busy),
        Disposition::Retry(RetryAfter { message: "the answer was 429".to_owned(), after_ms: Some(30_000) })
    );
}

#[test]
fn neither_way_and_both_are_refused() {
    for config in [json!({}), json!({ "token": "a" }), json!({ "url": "a", "token": "b", "channel": "c" })] {
        let error = Slack::plan(&event(&config)).expect_err("not one way");
        assert!(error.starts_with("[config]: write either `url`"), "{error}");
    }
}
