//! The target's plans, and what it makes of Lambda's answers, without a host.

use forge_plugin::WebhookTarget;
use forge_plugin::webhook::{AwsCredentials, Disposition, Event, Request, Response, RetryAfter, Sent, Signing};
use forge_plugin_aws_lambda::AwsLambda;
use serde_json::{Value, json};

fn config() -> Value {
    json!({
        "function": "arn:aws:lambda:eu-central-1:123456789012:function:start", "region": "eu-central-1",
        "access_key_id": "AKID", "secret_access_key": "{{secret:secret_access_key:0}}", "input": { "instance": "i-1" }
    })
}

fn event(config: &Value) -> Event {
    Event::new("task.waiting", &json!({ "id": "e1", "event": "task.waiting", "task": { "number": 42 } }))
        .with_config(config)
}

fn one(config: &Value) -> Request {
    AwsLambda::plan(&event(config)).expect("it is planned").pop().expect("one request")
}

fn judged(answer: &Response) -> Disposition {
    AwsLambda::judge(&event(&config()), &Sent { round: 0, index: 0, request: one(&config()) }, answer)
}

#[test]
fn the_function_is_invoked_with_the_event() {
    let request = one(&config());
    assert_eq!(
        request.url,
        "https://lambda.eu-central-1.amazonaws.com/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3Astart/invocations"
    );
    assert_eq!(request.header_value("x-amz-invocation-type"), Some("Event"));
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!((&body["task"]["number"], &body["input"]["instance"]), (&json!(42), &json!("i-1")));
    let expected = AwsCredentials {
        region: "eu-central-1".to_owned(),
        service: "lambda".to_owned(),
        access_key_id: "AKID".to_owned(),
        secret_access_key: "{{secret:secret_access_key:0}}".to_owned(),
        session_token: None,
    };
    assert_eq!(request.signing, Signing::AwsSigv4(expected));
}

#[test]
fn another_endpoint_and_a_call_that_waits() {
    let mut config = config();
    config["endpoint"] = json!("http://127.0.0.1:3001/");
    config["invocation"] = json!("RequestResponse");
    config["function"] = json!("start");
    let request = one(&config);
    assert_eq!(request.url, "http://127.0.0.1:3001/2015-03-31/functions/start/invocations");
    assert_eq!(request.header_value("x-amz-invocation-type"), Some("RequestResponse"));
}

#[test]
fn a_function_that_failed_is_called_again_and_a_wrong_request_is_not() {
    assert_eq!(judged(&Response::new(202, "")), Disposition::Done);
    assert_eq!(judged(&Response::new(200, "null")), Disposition::Done);
    let failed = Response::new(200, "{\"errorMessage\":\"no capacity\"}").header("X-Amz-Function-Error", "Unhandled");
    let message = "the function failed (Unhandled): {\"errorMessage\":\"no capacity\"}".to_owned();
    assert_eq!(judged(&failed), Disposition::Retry(RetryAfter { message, after_ms: None }));
    assert_eq!(
        judged(&Response::new(403, "{\"message\":\"The security token is invalid\"}")),
        Disposition::GiveUp("the answer was 403: {\"message\":\"The security token is invalid\"}".to_owned())
    );
    assert!(matches!(judged(&Response::new(429, "")), Disposition::Retry(_)));
}
